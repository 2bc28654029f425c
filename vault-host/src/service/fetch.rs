//! Streams ciphertext: a few chunks in memory, whatever the size of the model.

use std::sync::Arc;
use std::task::{Context, Poll};

use tokio::sync::mpsc;
use tonic::Status;
use tracing::Instrument;
use vault_proto::convert::Range;
use vault_proto::v1::FetchUnitsResponse;

use crate::status::Refused;
use crate::store::{BUFFER_BYTES, Model, Store, StoreError, UnitReader};

/// Messages that are read ahead of the client.
const CHUNKS_AHEAD: usize = 2;

type Chunk = Result<FetchUnitsResponse, Status>;
type Chunks = mpsc::Sender<Chunk>;

/// Messages on their way to a client. Whether it takes them is looked after where its place is.
#[derive(Debug)]
pub(super) struct Messages {
    queue: mpsc::Receiver<Chunk>,
}

impl Messages {
    pub(super) fn poll(&mut self, context: &mut Context<'_>) -> Poll<Option<Chunk>> {
        self.queue.poll_recv(context)
    }
}

/// Checks that all ranges lie inside their units, then sends them in order.
pub(super) fn begin(store: Arc<dyn Store>, model: Arc<Model>, ranges: &[Range]) -> Result<Messages, Refused> {
    let ranges = ranges.iter().map(|range| bounded(&model, range)).collect::<Result<Vec<_>, _>>()?;
    let (chunks, queue) = mpsc::channel(CHUNKS_AHEAD);
    let send_all = async move {
        let mut sending = Sending { store, model, bytes: 0 };
        let ended = sending.all(ranges, &chunks).await;
        let bytes = sending.bytes;
        match ended {
            Ok(()) => tracing::info!(bytes, "sent all ranges"),
            Err(Ended::ClientGone) => tracing::info!(bytes, "the client ended its fetch"),
            Err(Ended::Failed(error)) => tracing::error!(code = error.code(), %error, bytes, "a fetch failed"),
        }
    };
    tokio::spawn(send_all.in_current_span());
    Ok(Messages { queue })
}

/// One answer on its way.
struct Sending {
    store: Arc<dyn Store>,
    model: Arc<Model>,
    /// What the client took, but for the last few messages.
    bytes: u64,
}

enum Ended {
    ClientGone,
    Failed(StoreError),
}

/// A range with its length known: not empty, inside its unit.
fn bounded(model: &Model, range: &Range) -> Result<Range, StoreError> {
    let outside = |bytes| StoreError::Range { unit: range.unit, bytes };
    let bytes = *model.units.get(range.unit as usize).ok_or(StoreError::NotFound { what: "unit" })?;
    let room = bytes.checked_sub(range.offset).filter(|room| *room > 0).ok_or(outside(bytes))?;
    let length = if range.length == 0 { room } else { range.length };
    if length > room {
        return Err(outside(bytes));
    }
    Ok(Range { length, ..*range })
}

impl Sending {
    async fn all(&mut self, ranges: Vec<Range>, chunks: &Chunks) -> Result<(), Ended> {
        for range in ranges {
            let sent = self.range(range, chunks).await;
            if let Err(Ended::Failed(_)) = &sent {
                // The client knows how far it came and can ask again from there.
                let status = Status::unavailable("unavailable: the host can't read this unit");
                let _ = chunks.send(Err(status)).await;
            }
            sent?;
        }
        Ok(())
    }

    async fn range(&mut self, range: Range, chunks: &Chunks) -> Result<(), Ended> {
        let (store, model) = (self.store.clone(), self.model.clone());
        let unit = on_blocking_thread(move || store.unit(&model, range.unit)).await.map_err(Ended::Failed)?;
        let unit: Arc<dyn UnitReader> = unit.into();
        let end = range.offset + range.length;
        let mut offset = range.offset;
        while offset < end {
            let length = (end - offset).min(BUFFER_BYTES as u64);
            let (unit, at) = (unit.clone(), offset);
            let data = on_blocking_thread(move || unit.read(at, usize::try_from(length).unwrap_or(usize::MAX)))
                .await
                .map_err(Ended::Failed)?;
            let message = FetchUnitsResponse { unit: range.unit, offset, data };
            chunks.send(Ok(message)).await.map_err(|_| Ended::ClientGone)?;
            offset += length;
            self.bytes += length;
        }
        Ok(())
    }
}

async fn on_blocking_thread<T: Send + 'static>(
    act: impl FnOnce() -> Result<T, StoreError> + Send + 'static,
) -> Result<T, StoreError> {
    let panicked = |_| StoreError::io("a sealed unit".as_ref(), std::io::Error::other("the read panicked"));
    tokio::task::spawn_blocking(act).await.map_err(panicked)?
}
