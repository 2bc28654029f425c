//! The keeper's end of the link: the host dials, requests come down one stream, store calls go back up it.
//!
//! This file and `main.rs` are the keeper's only async code. Everything behind it is one thread with a bounded queue
//! ([`super::service`]), so that decisions have one order.

use std::collections::HashMap;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio_stream::{Stream, StreamExt, wrappers::ReceiverStream};
use tonic::{Request, Response, Status, Streaming};
use vault_proto::v1::{
    self, AttachRequest, AttachResponse, KeeperReply, StoreCall, StoreResult, attach_request, attach_response,
    keeper_call, keeper_link_server, keeper_reply, store_result,
};

use super::refusal::Refusal;
use super::service::{Job, Requests};

/// Frames that may wait for the host to read them.
const FRAMES_QUEUED_MAX: usize = 1024;
/// Hosts that are attached at once: the oldest is asked nothing more when another comes.
const HOSTS_MAX: usize = 16;
/// Largest frame in either direction: an `AppendLog` of 8 MiB, or a manifest of 8 MiB with its signature, and room.
pub const FRAME_BYTES_MAX: usize = 20 << 20;
/// How long the keeper waits for the host's disk.
const STORE_CALL_SECS: u64 = 30;

/// The link as a tonic service.
#[derive(Clone)]
pub struct Link {
    requests: Requests,
    store: Store,
}

impl Link {
    /// Relays to `requests`; `store` is what the keeper calls.
    #[must_use]
    pub fn new(requests: Requests, store: Store) -> Self {
        Self { requests, store }
    }
}

#[tonic::async_trait]
impl keeper_link_server::KeeperLink for Link {
    type AttachStream = Pin<Box<dyn Stream<Item = Result<AttachResponse, Status>> + Send>>;

    async fn attach(&self, request: Request<Streaming<AttachRequest>>) -> Result<Response<Self::AttachStream>, Status> {
        let (frames, outgoing) = mpsc::channel(FRAMES_QUEUED_MAX);
        let attachment = self.store.attach(frames.clone());
        self.requests.attached();
        tracing::info!(attachment, "host attached");
        let link = self.clone();
        tokio::spawn(async move {
            link.read(attachment, request.into_inner(), frames).await;
            link.store.detach(attachment);
            tracing::info!(attachment, "host detached");
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(outgoing).map(Ok))))
    }
}

impl Link {
    /// Reads frames until the host goes away.
    async fn read(
        &self,
        attachment: u64,
        mut incoming: Streaming<AttachRequest>,
        frames: mpsc::Sender<AttachResponse>,
    ) {
        while let Ok(Some(frame)) = incoming.message().await {
            match frame.kind {
                Some(attach_request::Kind::StoreResult(result)) => self.store.answer(attachment, frame.id, result),
                Some(attach_request::Kind::Call(call)) => self.relay(attachment, frame.id, call, frames.clone()),
                // A frame of an unknown kind asks for nothing that could be answered.
                None => {}
            }
        }
    }

    /// Queues one request and sends its answer when there is one.
    fn relay(&self, attachment: u64, id: u64, call: v1::KeeperCall, frames: mpsc::Sender<AttachResponse>) {
        let (reply, answer) = oneshot::channel();
        if matches!(call.request, Some(keeper_call::Request::WatchLease(_))) {
            self.store.watches(attachment);
        }
        let queued = match call.request {
            Some(request) => self.requests.push(Job { request, reply }),
            None => Err(Refusal::malformed("request-missing", "the call holds no request")),
        };
        tokio::spawn(async move {
            let response = match queued {
                Ok(()) => answer.await.unwrap_or_else(|_| Err(Refusal::stopping())),
                Err(refusal) => Err(refusal),
            };
            let response = response.unwrap_or_else(|refusal| keeper_reply::Response::Refusal(refusal.into()));
            let reply = KeeperReply { response: Some(response) };
            // The host may be gone; then there is nobody to tell.
            let _ = frames.send(AttachResponse { id, kind: Some(attach_response::Kind::Reply(reply)) }).await;
        });
    }
}

/// The host's disk, as the keeper's thread sees it: blocking calls with a deadline.
///
/// Nothing that comes back is trusted: entries are hashed against the head, blobs against their digest.
#[derive(Clone, Default)]
pub struct Store {
    inner: Arc<StoreInner>,
}

#[derive(Default)]
struct StoreInner {
    /// In the order in which they came. The newest is asked; when it goes, the one before it is.
    attachments: Mutex<Vec<Attachment>>,
    next: AtomicU64,
}

struct Attachment {
    number: u64,
    frames: mpsc::Sender<AttachResponse>,
    /// Whether the host has asked about a lease: one that knows no watches would take a notice for a fault.
    watches: bool,
    waiting: HashMap<u64, Waiter>,
}

/// Where the answer to a call goes, with the call's id.
pub(super) type Waiter = std::sync::mpsc::SyncSender<(u64, StoreResult)>;

/// Why the host's disk did not answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StoreError {
    /// No host is attached.
    Detached,
    /// The host did not answer in time.
    Timeout,
    /// The host answered with something else than was asked for.
    WrongAnswer,
    /// The bytes do not have the digest that was asked for.
    WrongDigest,
    /// The host's log ends before the keeper's head: an older copy, or entries were lost.
    ShortLog {
        /// Entries under the head.
        wanted: u64,
        /// Entries that the host has.
        has: u64,
    },
    /// What the host says went wrong.
    Host(String),
}

impl std::fmt::Display for StoreError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Detached => write!(f, "no host is attached: start vault-host with this keeper's address"),
            Self::Timeout => write!(f, "the host did not answer a store call within {STORE_CALL_SECS} s"),
            Self::WrongAnswer => write!(f, "the host answered a store call with another kind of answer"),
            Self::WrongDigest => write!(f, "the host returned bytes with another digest"),
            Self::ShortLog { wanted, has } => {
                write!(f, "the host's log has {has} entries, the keeper's head covers {wanted}: restore the newest log")
            }
            Self::Host(why) => write!(f, "the host could not store or read: {why}"),
        }
    }
}

impl std::error::Error for StoreError {}

/// A call whose answer is on its way.
pub(super) struct Asked(std::sync::mpsc::Receiver<(u64, StoreResult)>);

impl Asked {
    /// Waits for the answer, as long as any call may take.
    ///
    /// # Errors
    /// [`StoreError`].
    pub(super) fn answer(self) -> Result<store_result::Result, StoreError> {
        self.wait(Duration::from_secs(STORE_CALL_SECS))
    }

    fn wait(self, left: Duration) -> Result<store_result::Result, StoreError> {
        let (_, result) = self.0.recv_timeout(left).map_err(|error| match error {
            std::sync::mpsc::RecvTimeoutError::Timeout => StoreError::Timeout,
            std::sync::mpsc::RecvTimeoutError::Disconnected => StoreError::Detached,
        })?;
        match result.result.ok_or(StoreError::WrongAnswer)? {
            store_result::Result::Error(why) => Err(StoreError::Host(why)),
            result => Ok(result),
        }
    }
}

impl Store {
    /// Makes all calls at once and waits for every answer.
    ///
    /// # Errors
    /// The first call that failed; the others may have been done.
    pub(super) fn call_all(&self, calls: Vec<v1::store_call::Call>) -> Result<Vec<store_result::Result>, StoreError> {
        let mut receivers = Vec::with_capacity(calls.len());
        for call in calls {
            receivers.push(self.ask(call)?);
        }
        let deadline = std::time::Instant::now() + Duration::from_secs(STORE_CALL_SECS);
        let left = || deadline.saturating_duration_since(std::time::Instant::now());
        receivers.into_iter().map(|receiver| receiver.wait(left())).collect()
    }

    /// Makes calls whose only good answer is `done`.
    ///
    /// # Errors
    /// As [`Self::call_all`], and [`StoreError::WrongAnswer`].
    pub(super) fn write_all(&self, calls: Vec<v1::store_call::Call>) -> Result<(), StoreError> {
        let all_done = self.call_all(calls)?.iter().all(|result| matches!(result, store_result::Result::Done(true)));
        if all_done { Ok(()) } else { Err(StoreError::WrongAnswer) }
    }

    /// Sends a notice to a host that watches leases. One that takes no frames misses it: leases end by their time.
    pub(super) fn announce(&self, notice: v1::RevocationNotice) {
        for attachment in self.lock().iter().filter(|attachment| attachment.watches) {
            let frame = AttachResponse { id: 0, kind: Some(attach_response::Kind::Notice(notice.clone())) };
            if attachment.frames.try_send(frame).is_err() {
                tracing::warn!("the host takes no notice of a revocation: too many frames wait for it");
            }
        }
    }

    fn watches(&self, number: u64) {
        if let Some(attachment) = self.lock().iter_mut().find(|attachment| attachment.number == number) {
            attachment.watches = true;
        }
    }

    /// Makes a call and does not wait for its answer yet.
    ///
    /// # Errors
    /// [`StoreError::Detached`].
    pub(super) fn ask(&self, call: v1::store_call::Call) -> Result<Asked, StoreError> {
        let (sender, receiver) = std::sync::mpsc::sync_channel(1);
        self.send(call, sender)?;
        Ok(Asked(receiver))
    }

    /// Sends a call; its answer goes to `waiter`, which is dropped with the attachment. Gives the call's id.
    ///
    /// # Errors
    /// [`StoreError::Detached`].
    pub(super) fn send(&self, call: v1::store_call::Call, waiter: Waiter) -> Result<u64, StoreError> {
        let id = self.inner.next.fetch_add(1, Ordering::Relaxed);
        let frames = {
            let mut guard = self.lock();
            let attachment = guard.last_mut().ok_or(StoreError::Detached)?;
            attachment.waiting.insert(id, waiter);
            attachment.frames.clone()
        };
        let call = StoreCall { call: Some(call) };
        let frame = AttachResponse { id, kind: Some(attach_response::Kind::StoreCall(call)) };
        frames.blocking_send(frame).map_err(|_| StoreError::Detached)?;
        Ok(id)
    }

    /// Nobody waits for the answers to these calls any more.
    pub(super) fn forget(&self, ids: impl Iterator<Item = u64>) {
        let mut attachments = self.lock();
        for id in ids {
            attachments.iter_mut().for_each(|attachment| drop(attachment.waiting.remove(&id)));
        }
    }

    /// Whether one of these calls can still be answered: the host that has it is there.
    pub(super) fn waits_for(&self, mut ids: impl Iterator<Item = u64>) -> bool {
        let attachments = self.lock();
        ids.any(|id| attachments.iter().any(|attachment| attachment.waiting.contains_key(&id)))
    }

    pub(super) fn attach(&self, frames: mpsc::Sender<AttachResponse>) -> u64 {
        let number = self.inner.next.fetch_add(1, Ordering::Relaxed);
        let mut attachments = self.lock();
        // Whoever waits for another host gives up: that one may be gone without a word.
        attachments.iter_mut().for_each(|before| before.waiting.clear());
        if attachments.len() == HOSTS_MAX {
            attachments.remove(0);
        }
        attachments.push(Attachment { number, frames, watches: false, waiting: HashMap::new() });
        number
    }

    fn detach(&self, number: u64) {
        self.lock().retain(|attachment| attachment.number != number);
    }

    pub(super) fn answer(&self, number: u64, id: u64, result: StoreResult) {
        let mut attachments = self.lock();
        let attachment = attachments.iter_mut().find(|attachment| attachment.number == number);
        if let Some(waiter) = attachment.and_then(|attachment| attachment.waiting.remove(&id)) {
            // Whoever waited may have given up.
            let _ = waiter.try_send((id, result));
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Attachment>> {
        // The list stays whole whatever a panicking holder did: each operation on it is one call.
        self.inner.attachments.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
