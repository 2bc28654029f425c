//! Takes sealed units, piece by piece.

use bytes::Bytes;
use tokio::sync::mpsc;
use tonic::Streaming;
use vault_proto::convert::{UnitUpload, first_piece, next_piece};
use vault_proto::v1::{Coarse, UploadUnitRequest};

use super::Host;
use crate::admission::{Bringing, Connection};
use crate::status::Refused;
use crate::store::{Store, StoreError};

/// Pieces that wait for the disk.
const PIECES_AHEAD: usize = 2;

/// Stores what comes and returns how much of the unit is stored durably. Every byte that was written counts, also when
/// the stream breaks: the next upload goes on there.
pub(super) async fn receive(
    host: &Host,
    stream: Streaming<UploadUnitRequest>,
    connection: Option<Connection>,
) -> Result<u64, Refused> {
    let mut coming = Coming { stream, connection, bringing: Bringing::default() };
    let first = coming.next().await?;
    let first = first.ok_or_else(|| Refused::new(Coarse::Malformed, "malformed-unit", "the stream is empty"))?;
    let (unit, offset, data) = first_piece(first)?;
    let (pieces, queue) = mpsc::channel(PIECES_AHEAD);
    let store = host.store.clone();
    let writer = tokio::task::spawn_blocking(move || write(&*store, unit, offset, queue));
    let received = coming.feed(data, &pieces).await;
    drop(pieces);
    let written =
        writer.await.map_err(|_| Refused::new(Coarse::Unavailable, "host-panicked", "the upload panicked"))?;
    // The disk's reason explains why the pieces were not taken; the stream's only where the disk has none.
    let stored = written?;
    received?;
    Ok(stored)
}

struct Coming {
    stream: Streaming<UploadUnitRequest>,
    connection: Option<Connection>,
    bringing: Bringing,
}

impl Coming {
    /// Hands pieces to the writer until the stream ends, or the writer does.
    async fn feed(&mut self, first: Bytes, pieces: &mpsc::Sender<Bytes>) -> Result<(), Refused> {
        let mut piece = first;
        loop {
            self.bringing.came(piece.len() as u64);
            if pieces.send(piece).await.is_err() {
                return Ok(());
            }
            piece = match self.next().await? {
                Some(message) => next_piece(message)?,
                None => return Ok(()),
            };
        }
    }

    async fn next(&mut self) -> Result<Option<UploadUnitRequest>, Refused> {
        let wanted = || self.connection.as_ref().is_some_and(Connection::is_waited_for);
        match self.bringing.wait(self.stream.message(), wanted).await {
            Some(Ok(message)) => Ok(message),
            Some(Err(status)) => Err(Refused::new(Coarse::Malformed, "upload-broken", status.message())),
            None => Err(Refused::new(
                Coarse::Unavailable,
                "upload-stalled",
                "too little came for too long: go on where this ended",
            )),
        }
    }
}

fn write(
    store: &dyn Store,
    unit: UnitUpload,
    offset: u64,
    mut queue: mpsc::Receiver<Bytes>,
) -> Result<u64, StoreError> {
    let mut upload = store.begin_upload(unit, offset)?;
    while let Some(piece) = queue.blocking_recv() {
        if let Err(error) = upload.write(&piece) {
            // What came before stays.
            upload.finish()?;
            return Err(error);
        }
    }
    upload.finish()
}
