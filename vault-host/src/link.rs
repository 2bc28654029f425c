//! The one stream to the keeper: requests go down, store calls come back up.
//!
//! The host dials. While there is no stream, a call fails at once; when a stream ends, all its calls fail: nobody knows
//! whether the keeper saw them. A store call of an ended stream never runs after the next stream began.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot, watch};
use tokio::time::Instant;
use vault_proto::v1::{AttachRequest, KeeperCall, KeeperRefusal, attach_request, keeper_call, keeper_reply};

mod address;
mod dial;
mod keepers;
mod notices;
mod serve_store;
mod turn;
mod witnesses;

pub use address::KeeperAddress;
pub(crate) use dial::{ANNOUNCE_EVERY, Dial, Services, run};
pub(crate) use keepers::Keepers;
pub(crate) use notices::{Listening, Notices};
pub(crate) use turn::Turns;
pub(crate) use witnesses::Witnesses;

/// Calls under way on the stream; more wait for a place.
pub(crate) const CALLS_MAX: usize = 256;
/// The longest time that a call may take, waiting included.
pub(crate) const CALL_TIME_MAX: Duration = Duration::from_secs(30);

/// A request to the keeper.
pub(crate) type Call = keeper_call::Request;
/// What the keeper answers, refusals apart.
pub(crate) type Reply = keeper_reply::Response;

/// A handle for making calls. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Link {
    state: watch::Receiver<State>,
}

/// Whether there is a stream.
#[derive(Clone, Debug)]
pub(crate) enum State {
    /// No stream, and why.
    Down(String),
    /// A stream.
    Up(Arc<Stream>),
}

/// Why a call has no answer.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum LinkError {
    /// There is no stream to the keeper.
    Unreachable {
        /// Why not.
        reason: String,
    },
    /// The stream ended before the answer came.
    Lost,
    /// The answer took too long.
    Late,
    /// The keeper refused.
    Refused(KeeperRefusal),
    /// The keeper's answer is not one to this call.
    WrongReply,
}

impl LinkError {
    /// Stable name of the reason; for a refusal the keeper's own.
    #[must_use]
    pub(crate) fn code(&self) -> &str {
        match self {
            Self::Unreachable { .. } => "keeper-unreachable",
            Self::Lost => "keeper-lost",
            Self::Late => "keeper-late",
            Self::Refused(refusal) => &refusal.code,
            Self::WrongReply => "keeper-reply",
        }
    }
}

impl fmt::Display for LinkError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreachable { reason } => write!(f, "the keeper can't be reached: {reason}"),
            Self::Lost => f.write_str("the stream to the keeper ended before the answer came"),
            Self::Late => write!(f, "the keeper did not answer within {} s", CALL_TIME_MAX.as_secs()),
            Self::Refused(refusal) => f.write_str(&refusal.message),
            Self::WrongReply => f.write_str("the keeper answered something else than was asked"),
        }
    }
}

impl std::error::Error for LinkError {}

impl Link {
    /// Why there is no stream; `None` while there is one.
    #[must_use]
    pub(crate) fn down(&self) -> Option<String> {
        match &*self.state.borrow() {
            State::Down(reason) => Some(reason.clone()),
            State::Up(_) => None,
        }
    }

    /// Waits until [`Link::down`] may have another answer. Returns false once the link is shut down.
    pub(crate) async fn changed(&mut self) -> bool {
        self.state.changed().await.is_ok()
    }

    /// Sends a request and waits for its reply.
    ///
    /// # Errors
    /// See [`LinkError`]. After [`LinkError::Lost`] and [`LinkError::Late`] the keeper may have done what was asked.
    pub(crate) async fn call(&self, request: Call) -> Result<Reply, LinkError> {
        let stream = match &*self.state.borrow() {
            State::Down(reason) => return Err(LinkError::Unreachable { reason: reason.clone() }),
            State::Up(stream) => stream.clone(),
        };
        tokio::time::timeout(CALL_TIME_MAX, stream.call(request)).await.unwrap_or(Err(LinkError::Late))
    }
}

/// One stream, from attach to its end.
#[derive(Debug)]
pub(crate) struct Stream {
    outgoing: mpsc::Sender<AttachRequest>,
    places: Arc<Semaphore>,
    waiting: Mutex<Waiting>,
}

#[derive(Debug, Default)]
struct Waiting {
    next_id: u64,
    ended: bool,
    calls: HashMap<u64, Waiter>,
}

/// A call that the keeper has. It keeps its place until the keeper answers, even when its caller is gone: else callers
/// that come and go could give the keeper more work at once than it was promised.
#[derive(Debug)]
struct Waiter {
    reply: oneshot::Sender<Option<Reply>>,
    since: Instant,
    _place: OwnedSemaphorePermit,
}

impl Stream {
    fn new(outgoing: mpsc::Sender<AttachRequest>) -> Self {
        Self { outgoing, places: Arc::new(Semaphore::new(CALLS_MAX)), waiting: Mutex::default() }
    }

    async fn call(&self, request: Call) -> Result<Reply, LinkError> {
        let place = self.places.clone().acquire_owned().await.map_err(|_| LinkError::Lost)?;
        let (reply, answered) = oneshot::channel();
        let id = {
            let mut waiting = self.lock();
            if waiting.ended {
                return Err(LinkError::Lost);
            }
            waiting.next_id += 1;
            let id = waiting.next_id;
            waiting.calls.insert(id, Waiter { reply, since: Instant::now(), _place: place });
            id
        };
        let call = attach_request::Kind::Call(KeeperCall { request: Some(request) });
        self.outgoing.send(AttachRequest { id, kind: Some(call) }).await.map_err(|_| LinkError::Lost)?;
        match answered.await.map_err(|_| LinkError::Lost)? {
            Some(Reply::Refusal(refusal)) => Err(LinkError::Refused(refusal)),
            Some(reply) => Ok(reply),
            None => Err(LinkError::WrongReply),
        }
    }

    /// Hands a reply to whoever waits for it. False if that id was never asked or has its answer.
    fn answer(&self, id: u64, reply: Option<Reply>) -> bool {
        let Some(waiter) = self.lock().calls.remove(&id) else { return false };
        // The caller may be gone; then nobody wants the answer.
        let _ = waiter.reply.send(reply);
        true
    }

    /// Gives up places of calls that the keeper never answered.
    fn forget_late_calls(&self, now: Instant) {
        self.lock().calls.retain(|_, waiter| now.duration_since(waiter.since) < 2 * CALL_TIME_MAX);
    }

    /// Fails all calls under way and all to come.
    fn end(&self) {
        let mut waiting = self.lock();
        waiting.ended = true;
        waiting.calls.clear();
        self.places.close();
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
