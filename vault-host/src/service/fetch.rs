//! Streams ciphertext: a few chunks in memory, whatever the size of the model.

use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tonic::Status;
use tracing::Instrument;
use vault_proto::convert::Range;
use vault_proto::v1::FetchUnitsResponse;

use crate::admission::Connection;
use crate::status::Refused;
use crate::store::{BUFFER_BYTES, Model, Store, StoreError, UnitReader};

/// Messages that are read ahead of the client.
const CHUNKS_AHEAD: usize = 2;
/// A client that takes nothing for so long has given up, whatever its connection says.
const STALL_TIME_MAX: Duration = Duration::from_secs(60);
/// The same where others wait for its place: less than they wait.
const STALL_TIME_WANTED: Duration = Duration::from_secs(10);
const LOOK_EVERY: Duration = Duration::from_millis(500);

type Chunk = Result<FetchUnitsResponse, Status>;
type Chunks = mpsc::Sender<Chunk>;

/// Messages on their way to a client. Who drops this says that the client has them all, or is gone.
#[derive(Debug)]
pub(super) struct Messages {
    queue: mpsc::Receiver<Chunk>,
    _taken: oneshot::Sender<()>,
}

impl Messages {
    pub(super) fn poll(&mut self, context: &mut Context<'_>) -> Poll<Option<Chunk>> {
        self.queue.poll_recv(context)
    }
}

/// Checks that all ranges lie inside their units, then sends them in order.
pub(super) fn begin(
    store: Arc<dyn Store>,
    model: Arc<Model>,
    ranges: &[Range],
    connection: Option<Connection>,
) -> Result<Messages, Refused> {
    let ranges = ranges.iter().map(|range| bounded(&model, range)).collect::<Result<Vec<_>, _>>()?;
    let (chunks, queue) = mpsc::channel(CHUNKS_AHEAD);
    let (taken, was_taken) = oneshot::channel();
    let send_all = async move {
        let mut sending = Sending { store, model, connection, bytes: 0 };
        let ended = sending.all(ranges, chunks, was_taken).await;
        let bytes = sending.bytes;
        match ended {
            Ok(()) => tracing::info!(bytes, "sent all ranges"),
            Err(Ended::ClientGone) => tracing::info!(bytes, "the client ended its fetch"),
            Err(Ended::Stalled) => tracing::warn!(bytes, "closed a connection that stopped reading its fetch"),
            Err(Ended::Failed(error)) => tracing::error!(code = error.code(), %error, bytes, "a fetch failed"),
        }
    };
    tokio::spawn(send_all.in_current_span());
    Ok(Messages { queue, _taken: taken })
}

/// One answer on its way.
struct Sending {
    store: Arc<dyn Store>,
    model: Arc<Model>,
    connection: Option<Connection>,
    /// What the client took, but for the last few messages.
    bytes: u64,
}

enum Ended {
    ClientGone,
    Stalled,
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
    /// Ends when the client took all of it: until then it has its place, which it could keep by not reading the end.
    async fn all(&mut self, ranges: Vec<Range>, chunks: Chunks, taken: oneshot::Receiver<()>) -> Result<(), Ended> {
        let mut sent = Ok(());
        for range in ranges {
            sent = self.range(range, &chunks).await;
            match &sent {
                Ok(()) => {}
                Err(Ended::Failed(_)) => {
                    // The client knows how far it came and can ask again from there.
                    let status = Status::unavailable("unavailable: the host can't read this unit");
                    let _ = self.send(Err(status), &chunks).await;
                    break;
                }
                Err(Ended::ClientGone | Ended::Stalled) => return sent,
            }
        }
        drop(chunks);
        sent.and(self.in_time(taken).await.map(drop))
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
            self.send(Ok(FetchUnitsResponse { unit: range.unit, offset, data }), chunks).await?;
            offset += length;
            self.bytes += length;
        }
        Ok(())
    }

    async fn send(&self, chunk: Chunk, chunks: &Chunks) -> Result<(), Ended> {
        self.in_time(chunks.send(chunk)).await?.map_err(|_| Ended::ClientGone)
    }

    /// Waits for the client, as long as it may take.
    async fn in_time<T>(&self, client: impl Future<Output = T>) -> Result<T, Ended> {
        tokio::select! {
            done = client => Ok(done),
            () = stalled(self.connection.as_ref()) => {
                if let Some(connection) = &self.connection {
                    connection.close();
                }
                Err(Ended::Stalled)
            }
        }
    }
}

/// Ends when a client that takes nothing since then is to be given up.
async fn stalled(connection: Option<&Connection>) {
    tokio::time::sleep(STALL_TIME_WANTED).await;
    let waited_for = async {
        while !connection.is_some_and(Connection::is_waited_for) {
            tokio::time::sleep(LOOK_EVERY).await;
        }
    };
    // In vain: nobody waits, and it is given up for itself.
    let _ = tokio::time::timeout(STALL_TIME_MAX.saturating_sub(STALL_TIME_WANTED), waited_for).await;
}

async fn on_blocking_thread<T: Send + 'static>(
    act: impl FnOnce() -> Result<T, StoreError> + Send + 'static,
) -> Result<T, StoreError> {
    let panicked = |_| StoreError::io("a sealed unit".as_ref(), std::io::Error::other("the read panicked"));
    tokio::task::spawn_blocking(act).await.map_err(panicked)?
}
