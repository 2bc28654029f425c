//! Takes sealed units, piece by piece.

use std::time::Duration;

use bytes::Bytes;
use tokio::sync::mpsc;
use tonic::Streaming;
use vault_proto::convert::{UnitUpload, first_piece, next_piece};
use vault_proto::v1::{Coarse, UploadUnitRequest};

use super::Host;
use crate::status::Refused;
use crate::store::{Store, StoreError};

/// A client that sends nothing for so long has given up.
const STALL_TIME_MAX: Duration = Duration::from_secs(60);
/// Pieces that wait for the disk.
const PIECES_AHEAD: usize = 2;

/// Stores what comes and returns how much of the unit is stored durably. Every byte that was written counts, also when
/// the stream breaks: the next upload goes on there.
pub(super) async fn receive(host: &Host, mut stream: Streaming<UploadUnitRequest>) -> Result<u64, Refused> {
    let first = next(&mut stream).await?;
    let first = first.ok_or_else(|| Refused::new(Coarse::Malformed, "malformed-unit", "the stream is empty"))?;
    let (unit, offset, data) = first_piece(first)?;
    let (pieces, queue) = mpsc::channel(PIECES_AHEAD);
    let store = host.store.clone();
    let writer = tokio::task::spawn_blocking(move || write(&*store, unit, offset, queue));
    let received = feed(&mut stream, data, &pieces).await;
    drop(pieces);
    let written =
        writer.await.map_err(|_| Refused::new(Coarse::Unavailable, "host-panicked", "the upload panicked"))?;
    // The disk's reason explains why the pieces were not taken; the stream's only where the disk has none.
    let stored = written?;
    received?;
    Ok(stored)
}

/// Hands pieces to the writer until the stream ends, or the writer does.
async fn feed(
    stream: &mut Streaming<UploadUnitRequest>,
    first: Bytes,
    pieces: &mpsc::Sender<Bytes>,
) -> Result<(), Refused> {
    let mut piece = first;
    loop {
        if pieces.send(piece).await.is_err() {
            return Ok(());
        }
        piece = match next(stream).await? {
            Some(message) => next_piece(message)?,
            None => return Ok(()),
        };
    }
}

async fn next(stream: &mut Streaming<UploadUnitRequest>) -> Result<Option<UploadUnitRequest>, Refused> {
    match tokio::time::timeout(STALL_TIME_MAX, stream.message()).await {
        Ok(Ok(message)) => Ok(message),
        Ok(Err(status)) => Err(Refused::new(Coarse::Malformed, "upload-broken", status.message())),
        Err(_) => Err(Refused::new(Coarse::Unavailable, "upload-stalled", "nothing came for a minute")),
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
