//! Requests on their way here: whoever has not sent one has no place yet.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body::Frame;
use http_body_util::BodyExt;
use tokio::time::Sleep;
use tonic::Status;
use tonic::body::Body;
use vault_proto::v1::Coarse;

use super::pace::LEAST_BYTES;
use super::{Connection, busy};
use crate::status::Refused;
use crate::telemetry::Kind;

/// A request has to be there by then; a longer one has as much time again for each [`LEAST_BYTES`] of it.
const REQUEST_TIME_MAX: Duration = Duration::from_secs(10);
/// Bytes of requests of one connection that are read before these have their places. Then one gets a place of which less
/// is there.
const AHEAD_BYTES: usize = 256 << 10;
/// The same of all connections. Where it is reached, a connection with more than its own is refused.
const AHEAD_BYTES_MAX: usize = 256 << 20;
/// Compression flag and length before each message (the gRPC protocol over HTTP/2).
const PREFIX_BYTES: usize = 5;

/// Bytes of requests without a place: of a connection, and of all.
#[derive(Debug, Default)]
pub(super) struct Ahead {
    own: AtomicUsize,
    all: Arc<AtomicUsize>,
}

impl Ahead {
    pub(super) fn among(all: Arc<AtomicUsize>) -> Self {
        Self { own: AtomicUsize::new(0), all }
    }

    fn is_used_up(&self) -> bool {
        self.own.load(Ordering::Relaxed) >= AHEAD_BYTES
    }

    fn is_too_much(&self) -> bool {
        self.is_used_up() && self.all.load(Ordering::Relaxed) >= AHEAD_BYTES_MAX
    }

    fn add(&self, bytes: usize) {
        self.own.fetch_add(bytes, Ordering::Relaxed);
        self.all.fetch_add(bytes, Ordering::Relaxed);
    }

    fn take_back(&self, bytes: usize) {
        self.own.fetch_sub(bytes, Ordering::Relaxed);
        self.all.fetch_sub(bytes, Ordering::Relaxed);
    }
}

/// Waits until a request is there: all of it, of an upload its first message.
pub(super) async fn arrive(body: Body, kind: Kind, connection: Option<&Connection>) -> Result<Body, Refused> {
    let mut arrived = Arrived::new(body, kind, connection.cloned());
    if arrived.rest.as_ref().is_some_and(http_body::Body::is_end_stream) {
        return Ok(Body::new(arrived));
    }
    match tokio::time::timeout(REQUEST_TIME_MAX, arrived.read_ahead()).await {
        Ok(read) => read.map(|()| Body::new(arrived)),
        Err(_) => Err(late()),
    }
}

fn late() -> Refused {
    Refused::new(Coarse::Unavailable, "request-late", "the request did not come in time")
}

/// A request as far as it came, and what is to come of it.
struct Arrived {
    came: VecDeque<Result<Frame<Bytes>, Status>>,
    /// Bytes in `came`.
    bytes: usize,
    first: FirstMessage,
    rest: Option<Body>,
    is_upload: bool,
    connection: Option<Connection>,
    due: Option<Pin<Box<Sleep>>>,
    /// Bytes since it was set.
    since_due: u64,
}

/// How much of the first message came.
#[derive(Default)]
struct FirstMessage {
    prefix: Vec<u8>,
    bytes: u64,
}

impl FirstMessage {
    fn add(&mut self, data: &[u8]) {
        let missing = PREFIX_BYTES - self.prefix.len();
        self.prefix.extend(data.iter().take(missing));
        self.bytes += data.len() as u64;
    }

    fn is_whole(&self) -> bool {
        let Some([_, length @ ..]) = self.prefix.first_chunk::<PREFIX_BYTES>() else { return false };
        self.bytes >= PREFIX_BYTES as u64 + u64::from(u32::from_be_bytes(*length))
    }
}

impl Arrived {
    fn new(body: Body, kind: Kind, connection: Option<Connection>) -> Self {
        Self {
            came: VecDeque::new(),
            bytes: 0,
            first: FirstMessage::default(),
            rest: Some(body),
            is_upload: kind == Kind::Upload,
            connection,
            due: None,
            since_due: 0,
        }
    }

    async fn read_ahead(&mut self) -> Result<(), Refused> {
        while let Some(rest) = &mut self.rest {
            let used_up = self.connection.as_ref().is_some_and(|connection| connection.ahead().is_used_up());
            if used_up || self.is_upload && self.first.is_whole() {
                return Ok(());
            }
            let Some(frame) = rest.frame().await else {
                self.rest = None;
                return Ok(());
            };
            if let Some(data) = frame.as_ref().ok().and_then(Frame::data_ref) {
                self.first.add(data);
                self.bytes += data.len();
                if let Some(connection) = &self.connection {
                    connection.ahead().add(data.len());
                }
            } else {
                // Trailers, or an error: there is no more.
                self.rest = None;
            }
            self.came.push_back(frame);
            if self.connection.as_ref().is_some_and(|connection| connection.ahead().is_too_much()) {
                return Err(busy("busy-requests", "too many requests are on their way"));
            }
        }
        Ok(())
    }

    fn give_back(&mut self, bytes: usize) {
        self.bytes -= bytes;
        if let Some(connection) = &self.connection {
            connection.ahead().take_back(bytes);
        }
    }

    /// Bytes came of a request that has its place.
    fn count(&mut self, bytes: usize) {
        self.since_due += bytes as u64;
        if self.since_due >= LEAST_BYTES {
            (self.due, self.since_due) = (None, 0);
        }
    }
}

impl Drop for Arrived {
    fn drop(&mut self) {
        self.give_back(self.bytes);
    }
}

impl http_body::Body for Arrived {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        if let Some(frame) = self.came.pop_front() {
            let bytes = frame.as_ref().ok().and_then(Frame::data_ref).map_or(0, Bytes::len);
            self.give_back(bytes);
            return Poll::Ready(Some(frame));
        }
        let Some(rest) = &mut self.rest else { return Poll::Ready(None) };
        match Pin::new(rest).poll_frame(cx) {
            Poll::Ready(frame) => {
                let data = frame.as_ref().and_then(|frame| frame.as_ref().ok()?.data_ref());
                self.count(data.map_or(0, Bytes::len));
                return Poll::Ready(frame);
            }
            // It has its own rule.
            Poll::Pending if self.is_upload => return Poll::Pending,
            Poll::Pending => {}
        }
        let due = self.due.get_or_insert_with(|| Box::pin(tokio::time::sleep(REQUEST_TIME_MAX)));
        match due.as_mut().poll(cx) {
            Poll::Pending => Poll::Pending,
            Poll::Ready(()) => {
                self.rest = None;
                Poll::Ready(Some(Err(Status::unavailable("unavailable: the request did not come in time"))))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.came.is_empty() && self.rest.as_ref().is_none_or(http_body::Body::is_end_stream)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_whole_once_its_length_came_in_however_many_pieces() {
        let mut first = FirstMessage::default();
        for byte in [0, 0, 0, 0, 2, 7] {
            assert!(!first.is_whole());
            first.add(&[byte]);
        }
        assert!(!first.is_whole());
        first.add(&[7]);
        assert!(first.is_whole());
    }

    #[test]
    fn a_connection_within_its_own_bound_is_never_refused_for_what_others_send() {
        let all = Arc::<AtomicUsize>::default();
        let (greedy, modest) = (Ahead::among(all.clone()), Ahead::among(all));
        greedy.add(AHEAD_BYTES_MAX);
        modest.add(AHEAD_BYTES - 1);
        assert!(greedy.is_too_much() && !modest.is_too_much());
        greedy.take_back(AHEAD_BYTES_MAX);
        assert!(!greedy.is_used_up() && !greedy.is_too_much());
    }
}
