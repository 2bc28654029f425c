//! Sealed units over gRPC, as the readers that the opening threads pull from.
//!
//! Each range is one FetchUnits call, received by a task of the runtime and handed over through a queue of a few
//! frames, so that memory is bounded by ranges × frames whatever the size of the model. A stream that breaks is begun
//! again from where it broke.

use std::io;
use std::ops::Range;
use std::time::Duration;

use bytes::Bytes;
use tokio::runtime::Handle;
use tokio::sync::mpsc::Sender;
use tonic::Status;
use vault_proto::bulk::{Piece, UnitStreamError};
use vault_proto::client::CallError;
use vault_proto::convert::{FetchRequest, ModelName, Range as WireRange};
use vault_proto::limits::DATA_BYTES_MAX;
use vault_proto::v1;

use super::remote::Remote;
use super::stream::{self, RangeReader};
use crate::open::{SourceError, UnitSource};

/// How long a stream may stand still.
const STALL_TIME_MAX: Duration = Duration::from_secs(60);
/// How often in a row a stream is begun again without a byte of progress.
const RETRIES_MAX: u32 = 4;
const RETRY_AFTER: Duration = Duration::from_millis(500);

/// The sealed units of a model at a host.
pub(super) struct RemoteUnits {
    remote: Remote,
    model: ModelName,
    runtime: Handle,
}

impl RemoteUnits {
    /// The units of `model`; streams are received on `runtime`.
    #[must_use]
    pub(super) fn new(remote: Remote, model: ModelName, runtime: Handle) -> Self {
        Self { remote, model, runtime }
    }
}

impl UnitSource for RemoteUnits {
    type Reader = RangeReader;

    fn read(&self, unit: u32, range: Range<u64>) -> Result<Self::Reader, SourceError> {
        let (sender, reader) = stream::channel();
        let fetch =
            Fetch { remote: self.remote.clone(), model: self.model.clone(), unit, at: range.start, end: range.end };
        self.runtime.spawn(fetch.run(sender));
        Ok(reader)
    }
}

/// The receiving task of one range.
struct Fetch {
    remote: Remote,
    model: ModelName,
    unit: u32,
    /// The next byte that is wanted.
    at: u64,
    end: u64,
}

impl Fetch {
    async fn run(mut self, sender: Sender<io::Result<Bytes>>) {
        let mut failures = 0;
        while self.at < self.end {
            let before = self.at;
            let error = match self.stream(&sender).await {
                Ok(Ended::Complete | Ended::ReaderGone) => return,
                Err(error) => error,
            };
            failures = if self.at > before { 1 } else { failures + 1 };
            if failures > RETRIES_MAX || error.kind() != io::ErrorKind::ConnectionAborted {
                // Where nobody reads any more, nobody needs to know.
                let _ = sender.send(Err(error)).await;
                return;
            }
            tokio::time::sleep(RETRY_AFTER * failures).await;
        }
    }

    /// One call, from where the last one broke.
    async fn stream(&mut self, sender: &Sender<io::Result<Bytes>>) -> io::Result<Ended> {
        let range = WireRange { unit: self.unit, offset: self.at, length: self.end - self.at };
        let request = FetchRequest { model: self.model.clone(), ranges: vec![range] };
        let answer = self.remote.fetch(&v1::FetchUnitsRequest::from(request)).await;
        let mut stream = answer.map_err(|status| self.failed(&status))?;
        while self.at < self.end {
            let next = tokio::time::timeout(STALL_TIME_MAX, stream.next()).await;
            let next = next.map_err(|_| broken("the host stopped sending"))?;
            match next.map_err(|error| self.stream_failed(error))? {
                None => return Err(broken("the host ended the stream early")),
                Some(Piece::Head { unit, offset, bytes }) => self.check(unit, offset, bytes)?,
                Some(Piece::Data(data)) => {
                    self.at += data.len() as u64;
                    if sender.send(Ok(data)).await.is_err() {
                        return Ok(Ended::ReaderGone);
                    }
                }
            }
        }
        Ok(Ended::Complete)
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

enum Ended {
    Complete,
    ReaderGone,
}

/// A stream that may be begun again.
fn broken(why: &str) -> io::Error {
    io::Error::new(io::ErrorKind::ConnectionAborted, why.to_owned())
}
