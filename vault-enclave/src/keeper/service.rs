//! The keeper's thread and the bounded queue before it.
//!
//! One thread decides and writes: a decision applies its entry to the pending state before the next decision is made,
//! and what waits while one commit runs is the next commit (group commit).

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::time::Duration;

use tokio::sync::oneshot;
use vault_proto::v1::{keeper_call::Request, keeper_reply::Response};

use super::refusal::Refusal;

/// Requests that may wait for the keeper's thread.
const REQUESTS_QUEUED_MAX: usize = 2048;
/// Bytes of requests that may wait or be worked on: a frame may be large, and there may be many of them.
const BYTES_QUEUED_MAX: usize = 64 << 20;
/// Requests that share one commit at most.
const BATCH_MAX: usize = 256;
/// How often the thread wakes without requests: deny summaries and uncounted renewals are due by the minute.
const TICK: Duration = Duration::from_secs(5);

/// How long the end of the program waits for the thread.
const STOP_TIME_MAX: Duration = Duration::from_secs(10);

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
    Job(Box<Job>, Room),
    /// A host attached: a keeper that waits for its log can go on.
    Attached,
    /// The program is told to stop; says when that may be.
    Stop(SyncSender<()>),
}

/// What a request takes of [`BYTES_QUEUED_MAX`], until it was worked on.
struct Room {
    taken: Arc<AtomicUsize>,
    bytes: usize,
}

impl Room {
    fn take(taken: &Arc<AtomicUsize>, bytes: usize) -> Option<Self> {
        let add = |before: usize| before.checked_add(bytes).filter(|after| *after <= BYTES_QUEUED_MAX);
        taken.fetch_update(Ordering::Relaxed, Ordering::Relaxed, add).ok()?;
        Some(Self { taken: Arc::clone(taken), bytes })
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        self.taken.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

/// The sending side of the queue.
#[derive(Clone)]
pub struct Requests {
    queue: SyncSender<Wake>,
    taken: Arc<AtomicUsize>,
}

impl Requests {
    /// Queues a request.
    ///
    /// # Errors
    /// `keeper-busy` where the queue is full, by requests or by their bytes: nothing waits without a bound.
    pub fn push(&self, job: Job) -> Result<(), Refusal> {
        let busy = || Refusal::busy("keeper-busy", "too many requests wait: try again in a second");
        let room = Room::take(&self.taken, job.request.encoded_len()).ok_or_else(busy)?;
        self.queue.try_send(Wake::Job(Box::new(job), room)).map_err(|error| match error {
            TrySendError::Full(_) => busy(),
            TrySendError::Disconnected(_) => Refusal::stopping(),
        })
    }

    /// Tells the thread that the host's disk can be reached.
    pub(super) fn attached(&self) {
        // A full queue wakes the thread anyway.
        let _ = self.queue.try_send(Wake::Attached);
    }

    /// Has the thread end, once it has answered what it works on. Blocks for a few seconds at most.
    pub fn stop(&self) {
        let (done, wait) = sync_channel(1);
        // A full queue has a keeper behind it that writes every commit in any case.
        if self.queue.try_send(Wake::Stop(done)).is_ok() {
            let _ = wait.recv_timeout(STOP_TIME_MAX);
        }
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
    /// The program stops: nothing is asked any more.
    fn stop(&mut self);
}

/// The queue before the keeper's thread; it holds 2,048 requests and 64 MiB of them.
#[must_use]
pub fn queue() -> (Requests, Queue) {
    let (sender, receiver) = sync_channel(REQUESTS_QUEUED_MAX);
    (Requests { queue: sender, taken: Arc::default() }, Queue { queue: receiver })
}

impl Queue {
    /// Runs `keeper` until it is told to stop, or every sender is gone.
    pub fn run(self, keeper: &mut impl Keep) {
        loop {
            match self.queue.recv_timeout(TICK) {
                Ok(first) => {
                    let Gathered { jobs, rooms, stop } = self.gather(first, keeper);
                    if !jobs.is_empty() {
                        keeper.batch(jobs);
                    }
                    drop(rooms);
                    if let Some(done) = stop {
                        keeper.stop();
                        // Nobody may wait any more.
                        let _ = done.try_send(());
                        return;
                    }
                }
                Err(RecvTimeoutError::Timeout) => keeper.tick(),
                Err(RecvTimeoutError::Disconnected) => return,
            }
        }
    }

    /// Everything that waits already, without waiting for more.
    fn gather(&self, first: Wake, keeper: &mut impl Keep) -> Gathered {
        let (mut jobs, mut rooms, mut stop) = (Vec::new(), Vec::new(), None);
        let mut next = Some(first);
        while let Some(wake) = next {
            match wake {
                // Work for a caller who is gone is not begun.
                Wake::Job(job, _) if job.reply.is_closed() => {}
                Wake::Job(job, room) => {
                    jobs.push(*job);
                    rooms.push(room);
                }
                Wake::Attached => keeper.tick(),
                Wake::Stop(done) => stop = Some(done),
            }
            if jobs.len() >= BATCH_MAX || stop.is_some() {
                break;
            }
            next = self.queue.try_recv().ok();
        }
        Gathered { jobs, rooms, stop }
    }
}

/// What waited.
struct Gathered {
    jobs: Vec<Job>,
    rooms: Vec<Room>,
    stop: Option<SyncSender<()>>,
}

#[cfg(test)]
mod tests {
    use vault_proto::v1::{InitKeeperRequest, StatusRequest, StatusResponse};

    use super::*;

    /// Says yes to everything.
    #[derive(Default)]
    struct Yes(usize);

    impl Keep for Yes {
        fn tick(&mut self) {}

        fn stop(&mut self) {}

        fn batch(&mut self, jobs: Vec<Job>) {
            self.0 += jobs.len();
            for job in jobs {
                let _ = job.reply.send(Ok(Response::Status(StatusResponse::default())));
            }
        }
    }

    fn push(requests: &Requests, request: Request) -> Result<oneshot::Receiver<Answer>, String> {
        let (reply, answer) = oneshot::channel();
        requests.push(Job { request, reply }).map(|()| answer).map_err(|refusal| refusal.code().to_owned())
    }

    /// A request of 16 MiB: the queue has room for three, with what is around them.
    fn large() -> Request {
        Request::InitKeeper(InitKeeperRequest { core: vec![7; 16 << 20] })
    }

    #[test]
    fn what_waits_is_bounded_by_its_bytes() {
        let (requests, queue) = queue();
        let waiting: Vec<_> = (0..3).map(|_| push(&requests, large()).unwrap()).collect();
        assert_eq!(push(&requests, large()).unwrap_err(), "keeper-busy");
        let small = push(&requests, Request::Status(StatusRequest {})).unwrap();
        // Once they were worked on there is room again.
        let Wake::Job(job, room) = queue.queue.recv().unwrap() else { panic!("a job was pushed") };
        let Gathered { jobs, rooms, .. } = queue.gather(Wake::Job(job, room), &mut Yes::default());
        Yes::default().batch(jobs);
        assert_eq!(push(&requests, large()).unwrap_err(), "keeper-busy");
        drop(rooms);
        assert!(waiting.into_iter().chain([small]).all(|mut answer| answer.try_recv().is_ok()));
        for _ in 0..3 {
            push(&requests, large()).unwrap();
        }
    }
}
