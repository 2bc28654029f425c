//! Streams ciphertext: a few chunks in memory, whatever the size of the model.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
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

type Chunk = Result<FetchUnitsResponse, Status>;
type Chunks = mpsc::Sender<Chunk>;

/// Checks that all ranges lie inside their units, then sends them in order.
pub(super) fn begin(
    store: Arc<dyn Store>,
    model: Arc<Model>,
    ranges: &[Range],
    connection: Option<Connection>,
) -> Result<mpsc::Receiver<Chunk>, Refused> {
    let ranges = ranges.iter().map(|range| bounded(&model, range)).collect::<Result<Vec<_>, _>>()?;
    let (chunks, stream) = mpsc::channel(CHUNKS_AHEAD);
    let send_all = async move {
        let mut sent = 0;
        for range in ranges {
            let ended = send_range(&store, &model, range, &chunks).await;
            match ended {
                Ok(bytes) => sent += bytes,
                Err(Ended::ClientGone) => {
                    tracing::info!(bytes = sent, "the client ended its fetch");
                    return;
                }
                Err(Ended::Stalled) => {
                    tracing::warn!(bytes = sent, "closed a connection that stopped reading its fetch");
                    if let Some(connection) = connection {
                        connection.close();
                    }
                    return;
                }
                Err(Ended::Failed(error)) => {
                    tracing::error!(code = error.code(), %error, bytes = sent, "a fetch failed");
                    // The client knows how far it came and can ask again from there.
                    let _ = chunks.send(Err(Status::unavailable("unavailable: the host can't read this unit"))).await;
                    return;
                }
            }
        }
        tracing::info!(bytes = sent, "sent all ranges");
    };
    tokio::spawn(send_all.in_current_span());
    Ok(stream)
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

async fn send_range(store: &Arc<dyn Store>, model: &Arc<Model>, range: Range, chunks: &Chunks) -> Result<u64, Ended> {
    let (store, model) = (store.clone(), model.clone());
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
        let chunk = FetchUnitsResponse { unit: range.unit, offset, data };
        match chunks.send_timeout(Ok(chunk), STALL_TIME_MAX).await {
            Ok(()) => offset += length,
            Err(mpsc::error::SendTimeoutError::Closed(_)) => return Err(Ended::ClientGone),
            Err(mpsc::error::SendTimeoutError::Timeout(_)) => return Err(Ended::Stalled),
        }
    }
    Ok(range.length)
}

async fn on_blocking_thread<T: Send + 'static>(
    act: impl FnOnce() -> Result<T, StoreError> + Send + 'static,
) -> Result<T, StoreError> {
    let panicked = |_| StoreError::io("a sealed unit".as_ref(), std::io::Error::other("the read panicked"));
    tokio::task::spawn_blocking(act).await.map_err(panicked)?
}
