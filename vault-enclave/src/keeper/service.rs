//! The keeper's thread and the bounded queue before it.
//!
//! One thread decides and writes: a decision applies its entry to the pending state before the next decision is made,
//! and what waits while one commit runs is the next commit (group commit).

use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::time::Duration;

use tokio::sync::oneshot;
use vault_proto::v1::{keeper_call::Request, keeper_reply::Response};

use super::refusal::Refusal;

/// Requests that may wait for the keeper's thread.
const REQUESTS_QUEUED_MAX: usize = 2048;
/// Requests that share one commit at most.
const BATCH_MAX: usize = 256;
/// How often the thread wakes without requests: deny summaries and uncounted renewals are due by the minute.
const TICK: Duration = Duration::from_secs(5);

/// What a request comes to.
pub(super) type Answer = Result<Response, Refusal>;

/// A request and where its answer goes.
pub struct Job {
    /// What is asked.
    pub request: Request,
    /// Closed where the caller is gone.
    pub reply: oneshot::Sender<Answer>,
}

/// What wakes the keeper's thread.
enum Wake {
    Job(Box<Job>),
    /// A host attached: a keeper that waits for its log can go on.
    Attached,
}

/// The sending side of the queue.
#[derive(Clone)]
pub struct Requests {
    queue: SyncSender<Wake>,
}

impl Requests {
    /// Queues a request.
    ///
    /// # Errors
    /// `keeper-busy` where the queue is full: nothing waits without a bound.
    pub fn push(&self, job: Job) -> Result<(), Refusal> {
        self.queue.try_send(Wake::Job(Box::new(job))).map_err(|error| match error {
            TrySendError::Full(_) => Refusal::busy("keeper-busy", "too many requests wait: try again in a second"),
            TrySendError::Disconnected(_) => Refusal::stopping(),
        })
    }

    /// Tells the thread that the host's disk can be reached.
    pub(super) fn attached(&self) {
        // A full queue wakes the thread anyway.
        let _ = self.queue.try_send(Wake::Attached);
    }
}

/// The receiving side.
pub struct Queue {
    queue: Receiver<Wake>,
}

/// What runs on the keeper's thread.
pub trait Keep {
    /// A host attached, or time passed.
    fn tick(&mut self);
    /// Answers every job of one batch; entries that they cause share one commit.
    fn batch(&mut self, jobs: Vec<Job>);
}

/// The queue before the keeper's thread; it holds 2,048 requests.
#[must_use]
pub fn queue() -> (Requests, Queue) {
    let (sender, receiver) = sync_channel(REQUESTS_QUEUED_MAX);
    (Requests { queue: sender }, Queue { queue: receiver })
}

impl Queue {
    /// Runs `keeper` until every sender is gone.
    pub fn run(self, keeper: &mut impl Keep) {
        loop {
            match self.queue.recv_timeout(TICK) {
                Ok(first) => {
                    let jobs = self.gather(first, keeper);
                    if !jobs.is_empty() {
                        keeper.batch(jobs);
                    }
                }
                Err(RecvTimeoutError::Timeout) => keeper.tick(),
                Err(RecvTimeoutError::Disconnected) => return,
            }
        }
    }

    /// Everything that waits already, without waiting for more.
    fn gather(&self, first: Wake, keeper: &mut impl Keep) -> Vec<Job> {
        let mut jobs = Vec::new();
        let mut next = Some(first);
        while let Some(wake) = next {
            match wake {
                // Work for a caller who is gone is not begun.
                Wake::Job(job) if job.reply.is_closed() => {}
                Wake::Job(job) => jobs.push(*job),
                Wake::Attached => keeper.tick(),
            }
            if jobs.len() >= BATCH_MAX {
                break;
            }
            next = self.queue.try_recv().ok();
        }
        jobs
    }
}
