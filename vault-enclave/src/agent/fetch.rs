//! Sealed units over gRPC, as the readers that the opening threads pull from.
//!
//! Each range is one FetchUnits call. Whoever opens it receives it too, over a connection of its own (`lane.rs`); short
//! ranges, and those for which there is no such connection, are received by a task of the runtime. Memory is bounded by
//! ranges × frames whatever the size of the model. A stream that breaks is begun again from where it broke.

use std::io;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::runtime::Handle;
use tokio::sync::mpsc::Sender;
use tonic::Status;
use vault_proto::bulk::{Piece, UnitStream, UnitStreamError};
use vault_proto::client::CallError;
use vault_proto::convert::{FetchRequest, ModelName, Range as WireRange};
use vault_proto::limits::DATA_BYTES_MAX;
use vault_proto::v1;

use super::lane::{Lane, Lanes};
use super::remote::Remote;
use super::stream::{self, Pieces, RangeReader};
use crate::open::{SourceError, UnitSource};

/// How long a stream may stand still.
const STALL_TIME_MAX: Duration = Duration::from_secs(60);
/// How often in a row a stream is begun again without a byte of progress.
const RETRIES_MAX: u32 = 4;
const RETRY_AFTER: Duration = Duration::from_millis(500);

/// A shorter range is not worth a connection.
const LANE_BYTES_MIN: u64 = 1 << 20;

/// The sealed units of a model at a host.
pub(super) struct RemoteUnits {
    remote: Remote,
    model: ModelName,
    runtime: Handle,
    lanes: Arc<Lanes>,
    /// Shorter ranges have no connection of their own.
    pub(super) lane_bytes_min: u64,
}

impl RemoteUnits {
    /// The units of `model`; streams without a connection of their own are received on `runtime`.
    #[must_use]
    pub(super) fn new(remote: Remote, model: ModelName, runtime: Handle) -> Self {
        Self { remote, model, runtime, lanes: Arc::default(), lane_bytes_min: LANE_BYTES_MIN }
    }
}

impl UnitSource for RemoteUnits {
    type Reader = RangeReader;

    fn read(&self, unit: u32, range: Range<u64>) -> Result<Self::Reader, SourceError> {
        let long = range.end.saturating_sub(range.start) >= self.lane_bytes_min;
        let lane = if long { self.lanes.take(&self.remote) } else { None };
        let remote = lane.as_ref().map_or(&self.remote, |lane| lane.remote()).clone();
        let fetch = Fetch::new(remote, self.model.clone(), unit, range);
        if let Some(lane) = lane {
            return Ok(RangeReader::new(LanePieces { fetch, lane }));
        }
        let (sender, reader) = stream::channel();
        self.runtime.spawn(fetch.run(sender));
        Ok(reader)
    }
}

/// A range that the reading thread receives. The stream goes before its connection does.
struct LanePieces {
    fetch: Fetch,
    lane: Lane,
}

impl Pieces for LanePieces {
    fn next(&mut self) -> io::Result<Option<Bytes>> {
        self.lane.block_on(self.fetch.next())
    }
}

/// One range on its way.
struct Fetch {
    remote: Remote,
    model: ModelName,
    unit: u32,
    /// The next byte that is wanted.
    at: u64,
    end: u64,
    /// The call under way.
    stream: Option<UnitStream>,
    /// How often in a row one has ended without a byte.
    failures: u32,
}

impl Fetch {
    fn new(remote: Remote, model: ModelName, unit: u32, range: Range<u64>) -> Self {
        Self { remote, model, unit, at: range.start, end: range.end, stream: None, failures: 0 }
    }

    async fn run(mut self, sender: Sender<io::Result<Bytes>>) {
        while let Some(piece) = self.next().await.transpose() {
            let failed = piece.is_err();
            // Where nobody reads any more, nobody needs to know.
            if sender.send(piece).await.is_err() || failed {
                return;
            }
        }
    }

    /// The next bytes, by as many calls as it takes; `None` at the end of the range.
    async fn next(&mut self) -> io::Result<Option<Bytes>> {
        while self.at < self.end {
            let error = match self.piece().await {
                Ok(data) => {
                    (self.at, self.failures) = (self.at + data.len() as u64, 0);
                    return Ok(Some(data));
                }
                Err(error) => error,
            };
            (self.stream, self.failures) = (None, self.failures + 1);
            if self.failures > RETRIES_MAX || error.kind() != io::ErrorKind::ConnectionAborted {
                return Err(error);
            }
            tokio::time::sleep(RETRY_AFTER * self.failures).await;
        }
        Ok(None)
    }

    /// The next bytes of the call under way, or of one that begins where the last one broke.
    async fn piece(&mut self) -> io::Result<Bytes> {
        if self.stream.is_none() {
            let range = WireRange { unit: self.unit, offset: self.at, length: self.end - self.at };
            let request = FetchRequest { model: self.model.clone(), ranges: vec![range] };
            let answer = self.remote.fetch(&v1::FetchUnitsRequest::from(request)).await;
            self.stream = Some(answer.map_err(|status| self.failed(&status))?);
        }
        while let Some(stream) = &mut self.stream {
            let next = tokio::time::timeout(STALL_TIME_MAX, stream.next()).await;
            let next = next.map_err(|_| broken("the host stopped sending"))?;
            match next.map_err(|error| self.stream_failed(error))? {
                None => break,
                Some(Piece::Head { unit, offset, bytes }) => self.check(unit, offset, bytes)?,
                Some(Piece::Data(data)) => return Ok(data),
            }
        }
        Err(broken("the host ended the stream early"))
    }

    /// A host that sends anything but the next bytes is not asked again.
    fn check(&self, unit: u32, offset: u64, bytes: usize) -> io::Result<()> {
        let fits = (1..=DATA_BYTES_MAX).contains(&bytes) && bytes as u64 <= self.end - self.at;
        if fits && unit == self.unit && offset == self.at {
            return Ok(());
        }
        let (wanted, at) = (self.unit, self.at);
        let text =
            format!("the host sent {bytes} bytes of unit {unit} at {offset} where unit {wanted} at {at} was next");
        Err(io::Error::new(io::ErrorKind::InvalidData, text))
    }

    fn stream_failed(&self, error: UnitStreamError) -> io::Error {
        match error {
            UnitStreamError::Status(status) => self.failed(&status),
            UnitStreamError::Frames(error) => io::Error::new(io::ErrorKind::InvalidData, error),
        }
    }

    fn failed(&self, status: &Status) -> io::Error {
        let error = CallError::new("FetchUnits", self.remote.address(), status);
        if error.may_repeat() || error.is_busy() { broken(&error.to_string()) } else { io::Error::other(error) }
    }
}

/// A stream that may be begun again.
fn broken(why: &str) -> io::Error {
    io::Error::new(io::ErrorKind::ConnectionAborted, why.to_owned())
}
