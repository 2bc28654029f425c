//! Sealed units over HTTP: of a web server that knows ranges, or of an S3 service.
//!
//! Each range is one request over a connection of its own, received by a task. What gets lost on the way is asked for again
//! from where it broke, a few times; a service that is slower than [`Pace`] has failed, in however many requests, so that the next
//! place is asked.

use std::io;
use std::ops::Range;
use std::time::Duration;

use attestation::UnixTime;
use bytes::Bytes;
use ledger::manifest::unit_path;
use tokio::runtime::Handle;
use tokio::sync::mpsc::Sender;
use tokio::time::Instant;
use vault_proto::http::{RangeError, Service};

use super::s3::Signer;
use crate::agent::stream::{self, RangeReader};
use crate::open::{SourceError, UnitSource};

/// How often in a row the same is asked for again without a byte of progress.
const RETRIES_MAX: u32 = 2;
const RETRY_AFTER: Duration = Duration::from_millis(300);
/// Requests at a time for each core, and at least: a request waits for the network longer than for the core.
const RANGES_PER_CORE: usize = 2;
const RANGES_MIN: usize = 8;

/// The slowest that a place may be: so much within so long, waiting for it alone counted, and waiting to ask it again.
#[derive(Clone, Copy, Debug)]
pub(in crate::agent) struct Pace {
    /// Bytes; 1 if it only has to go on.
    pub(in crate::agent) bytes: u64,
    /// Time.
    pub(in crate::agent) within: Duration,
}

impl Default for Pace {
    fn default() -> Self {
        Self { bytes: 1 << 20, within: Duration::from_secs(30) }
    }
}

/// The units below the address of a service.
pub(in crate::agent) struct WebUnits {
    service: Service,
    /// What stands before a unit's path, in requests that are signed.
    prefix: String,
    signer: Option<Signer>,
    runtime: Handle,
    pace: Pace,
}

impl WebUnits {
    /// Units of `service`, whose address begins their paths with `prefix`; received on `runtime`.
    pub(in crate::agent) fn new(
        service: Service,
        prefix: String,
        signer: Option<Signer>,
        runtime: Handle,
        pace: Pace,
    ) -> Self {
        Self { service, prefix, signer, runtime, pace }
    }
}

impl UnitSource for WebUnits {
    type Reader = RangeReader;

    fn read(&self, unit: u32, range: Range<u64>) -> Result<RangeReader, SourceError> {
        let (sender, reader) = stream::channel();
        let path = format!("/{}", unit_path(unit));
        let signed = self.signer.clone().map(|signer| (signer, format!("{}{path}", self.prefix)));
        let waiting = Waiting { pace: self.pace, waited: Duration::ZERO, came: 0 };
        let fetch = Fetch { service: self.service.clone(), path, signed, range, waiting };
        self.runtime.spawn(fetch.run(sender));
        Ok(reader)
    }

    /// Some services know no ranges, and give a unit from its start or not at all: one as short as a run is never cut.
    fn last_run_bytes(&self) -> usize {
        self.run_bytes()
    }

    fn threads(&self, cores: usize) -> usize {
        (cores * RANGES_PER_CORE).max(RANGES_MIN)
    }
}

/// The receiving task of one range.
struct Fetch {
    service: Service,
    path: String,
    signed: Option<(Signer, String)>,
    /// What is still to come.
    range: Range<u64>,
    waiting: Waiting,
}

/// How long was waited for how much since the pace was last kept. A new request does not begin it anew: a service that breaks
/// each off after a byte would be asked for ever.
struct Waiting {
    pace: Pace,
    waited: Duration,
    came: u64,
}

impl Waiting {
    /// Waits for no longer than the pace lets.
    async fn wait<T>(&mut self, what: impl Future<Output = T>) -> Result<T, Failed> {
        let began = Instant::now();
        let done = tokio::time::timeout(self.pace.within.saturating_sub(self.waited), what).await;
        self.waited += began.elapsed();
        done.map_err(|_| Failed::Slow(self.pace))
    }

    fn came(&mut self, bytes: u64) {
        self.came += bytes;
        if self.came >= self.pace.bytes {
            (self.waited, self.came) = (Duration::ZERO, 0);
        }
    }
}

impl Fetch {
    async fn run(mut self, sender: Sender<io::Result<Bytes>>) {
        if let Err(failed) = self.receive_all(&sender).await {
            // Where nobody reads any more, nobody needs to know.
            let _ = sender.send(Err(failed.told(self.signed.is_some()))).await;
        }
    }

    async fn receive_all(&mut self, sender: &Sender<io::Result<Bytes>>) -> Result<(), Failed> {
        let mut failures = 0;
        while !self.range.is_empty() {
            let before = self.range.start;
            let Err(failed) = self.receive(sender).await else { return Ok(()) };
            failures = if self.range.start > before { 1 } else { failures + 1 };
            if failures > RETRIES_MAX || !failed.may_pass() {
                return Err(failed);
            }
            self.waiting.wait(tokio::time::sleep(RETRY_AFTER * failures)).await?;
        }
        Ok(())
    }

    /// One request, from where the last one broke.
    async fn receive(&mut self, sender: &Sender<io::Result<Bytes>>) -> Result<(), Failed> {
        let headers = match &self.signed {
            Some((signer, path)) => signer.headers(path, now()),
            None => Vec::new(),
        };
        let asked = self.service.range(&self.path, self.range.clone(), &headers);
        let mut body = self.waiting.wait(asked).await??;
        loop {
            let Some(piece) = self.waiting.wait(body.next()).await?? else { return Ok(()) };
            self.waiting.came(piece.len() as u64);
            self.range.start += piece.len() as u64;
            // However long the thread that opens takes, that is not the service's.
            if sender.send(Ok(piece)).await.is_err() {
                return Ok(());
            }
        }
    }
}

enum Failed {
    Range(RangeError),
    Slow(Pace),
}

impl Failed {
    /// Whether the same request may do a moment later.
    fn may_pass(&self) -> bool {
        match self {
            Self::Range(RangeError::Http(_) | RangeError::CutShort { .. }) => true,
            Self::Range(RangeError::Status(status)) => matches!(status, 429 | 500..=599),
            Self::Range(RangeError::OtherRange) | Self::Slow(_) => false,
        }
    }

    /// What whoever reads gets in the place of bytes.
    fn told(self, is_bucket: bool) -> io::Error {
        match self {
            Self::Range(RangeError::Status(status)) => match advice(status, is_bucket) {
                Some(advice) => io::Error::other(format!("HTTP status {status}: {advice}")),
                None => io::Error::other(RangeError::Status(status)),
            },
            Self::Range(error) => io::Error::other(error),
            Self::Slow(Pace { bytes, within }) => {
                let text = format!("too slow: less than {bytes} bytes in {:.1} s", within.as_secs_f64());
                io::Error::new(io::ErrorKind::TimedOut, text)
            }
        }
    }
}

impl From<RangeError> for Failed {
    fn from(error: RangeError) -> Self {
        Self::Range(error)
    }
}

/// What a person can look at where a service answers with this status.
fn advice(status: u16, is_bucket: bool) -> Option<&'static str> {
    match (status, is_bucket) {
        (404, _) => Some("it has no such unit; is this what `seal --out` made of this very version?"),
        (301 | 307, true) => Some("the bucket is in another region: see --s3-region"),
        (400 | 401 | 403, true) => Some("see --s3-credentials and --s3-region"),
        _ => None,
    }
}

/// For signatures of requests, which a service takes within minutes of its own clock.
fn now() -> UnixTime {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    UnixTime(since.map_or(0, |since| since.as_secs()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_says_what_to_look_at() {
        let told = |status, is_bucket| Failed::Range(RangeError::Status(status)).told(is_bucket).to_string();
        for (status, is_bucket, words) in [
            (403, true, "HTTP status 403: see --s3-credentials and --s3-region"),
            (301, true, "HTTP status 301: the bucket is in another region: see --s3-region"),
            (307, true, "see --s3-region"),
            (404, true, "is this what `seal --out` made of this very version?"),
            (404, false, "is this what `seal --out` made of this very version?"),
            (302, false, "redirects are not followed"),
        ] {
            assert!(told(status, is_bucket).contains(words), "{}", told(status, is_bucket));
        }
        assert_eq!(told(403, false), "HTTP status 403");
    }
}
