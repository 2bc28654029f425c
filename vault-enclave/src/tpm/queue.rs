//! The thread that owns the TPM, and how others ask it.

use std::future::{Future, IntoFuture};
use std::pin::{Pin, pin};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, JoinHandle, Thread};
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use super::device::Device;
use super::lock::TpmLock;
use super::{TctiConfig, TpmError};

/// Requests that may wait.
const QUEUE_MAX: usize = 64;
/// From asking to the answer, waiting in the queue included. A hardware TPM takes seconds for a primary RSA key.
const DEADLINE: Duration = Duration::from_secs(30);
/// How long the last handle waits for the thread to let go of the TPM.
const END_MAX: Duration = Duration::from_secs(5);
/// After this long without a request nothing is left loaded in the TPM, so that another program finds room.
const IDLE: Duration = Duration::from_millis(200);

#[derive(Clone)]
pub(super) struct Queue {
    jobs: SyncSender<Box<dyn Job>>,
    deadline: Duration,
    /// Dropped after `jobs`: fields are dropped in order.
    thread: Arc<Ending>,
}

/// Waits for the thread, once no handle is left to ask it. A program that ends while libtss2 still works on another thread
/// takes the library's memory away under it, and leaves open in the TPM what that thread would have flushed.
struct Ending {
    thread: Option<JoinHandle<()>>,
    /// Nothing comes; it closes when the connection is closed.
    closed: Mutex<Receiver<()>>,
}

impl Drop for Ending {
    fn drop(&mut self) {
        let Some(thread) = self.thread.take().filter(|thread| thread.thread().id() != thread::current().id()) else {
            return;
        };
        let closed = self.closed.get_mut().unwrap_or_else(PoisonError::into_inner);
        // A TPM that hangs must not hang the program: then the thread is left to itself.
        if closed.recv_timeout(END_MAX) == Err(RecvTimeoutError::Disconnected) {
            let _ = thread.join();
        }
    }
}

impl Queue {
    pub(super) fn start(config: TctiConfig) -> Result<Self, TpmError> {
        let lock = TpmLock::take(&config)?;
        let (sender, receiver) = sync_channel(QUEUE_MAX);
        let (open, closed) = sync_channel(0);
        let run = move || {
            Actor { config, device: None, _lock: lock }.run(&receiver);
            drop(open);
        };
        let thread = thread::Builder::new()
            .name("tpm".into())
            .spawn(run)
            .map_err(|error| TpmError::Unavailable(format!("no thread for it: {error}")))?;
        let ending = Ending { thread: Some(thread), closed: Mutex::new(closed) };
        Ok(Self { jobs: sender, deadline: DEADLINE, thread: Arc::new(ending) })
    }

    pub(super) fn with_deadline(&self, deadline: Duration) -> Self {
        Self { jobs: self.jobs.clone(), deadline, thread: Arc::clone(&self.thread) }
    }

    /// Queues `ask`. It is called once, or a second time after the connection was made anew.
    pub(super) fn request<T, F>(&self, ask: F) -> Reply<T>
    where
        T: Send + 'static,
        F: FnMut(&mut Device) -> Result<T, TpmError> + Send + 'static,
    {
        let (sender, receiver) = oneshot::channel();
        let deadline = Instant::now() + self.deadline;
        let request = Request { ask, reply: Some(sender), deadline };
        let error = match self.jobs.try_send(Box::new(request)) {
            Ok(()) => None,
            Err(TrySendError::Full(_)) => Some(TpmError::Busy),
            Err(TrySendError::Disconnected(_)) => Some(stopped()),
        };
        Reply { receiver, deadline, error }
    }
}

/// An answer to come. Wait for it, or await it; a dropped one withdraws the request unless it has begun.
#[must_use = "a request whose reply is dropped is withdrawn"]
pub struct Reply<T> {
    receiver: oneshot::Receiver<Result<T, TpmError>>,
    deadline: Instant,
    error: Option<TpmError>,
}

impl<T> Reply<T> {
    /// Blocks this thread until the answer or the deadline. Async code awaits the reply instead.
    ///
    /// # Errors
    /// [`TpmError`].
    pub fn wait(self) -> Result<T, TpmError> {
        if let Some(error) = self.error {
            return Err(error);
        }
        let waker = Waker::from(Arc::new(Unpark(thread::current())));
        let mut context = Context::from_waker(&waker);
        let mut receiver = pin!(self.receiver);
        loop {
            if let Poll::Ready(answer) = receiver.as_mut().poll(&mut context) {
                return answer.unwrap_or_else(|_| Err(stopped()));
            }
            let left = self.deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(TpmError::Timeout);
            }
            thread::park_timeout(left);
        }
    }
}

impl<T: Send + 'static> IntoFuture for Reply<T> {
    type Output = Result<T, TpmError>;
    type IntoFuture = Pin<Box<dyn Future<Output = Self::Output> + Send>>;

    /// Needs a tokio runtime with time.
    fn into_future(self) -> Self::IntoFuture {
        Box::pin(async move {
            if let Some(error) = self.error {
                return Err(error);
            }
            match tokio::time::timeout_at(self.deadline.into(), self.receiver).await {
                Ok(Ok(answer)) => answer,
                Ok(Err(_)) => Err(stopped()),
                Err(_) => Err(TpmError::Timeout),
            }
        })
    }
}

struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

fn stopped() -> TpmError {
    TpmError::Unavailable("its thread has stopped".into())
}

trait Job: Send {
    /// When it is too late, or `None` where nobody waits any more.
    fn deadline(&self) -> Option<Instant>;
    /// Asks, and answers where that succeeded.
    fn attempt(&mut self, device: &mut Device) -> Result<(), TpmError>;
    fn fail(&mut self, error: TpmError);
}

struct Request<T, F> {
    ask: F,
    reply: Option<oneshot::Sender<Result<T, TpmError>>>,
    deadline: Instant,
}

impl<T, F> Job for Request<T, F>
where
    T: Send,
    F: FnMut(&mut Device) -> Result<T, TpmError> + Send,
{
    fn deadline(&self) -> Option<Instant> {
        self.reply.as_ref().filter(|reply| !reply.is_closed()).map(|_| self.deadline)
    }

    fn attempt(&mut self, device: &mut Device) -> Result<(), TpmError> {
        let answer = (self.ask)(device)?;
        if let Some(reply) = self.reply.take() {
            // Nobody waits any more: the answer is dropped, and a secret in it wiped.
            let _ = reply.send(Ok(answer));
        }
        Ok(())
    }

    fn fail(&mut self, error: TpmError) {
        if let Some(reply) = self.reply.take() {
            let _ = reply.send(Err(error.settled()));
        }
    }
}

struct Actor {
    config: TctiConfig,
    device: Option<Device>,
    /// Let go of after the connection: fields are dropped in order.
    _lock: Option<TpmLock>,
}

impl Actor {
    fn run(mut self, jobs: &Receiver<Box<dyn Job>>) {
        loop {
            match jobs.recv_timeout(IDLE) {
                Ok(job) => self.serve(job),
                Err(RecvTimeoutError::Disconnected) => return,
                Err(RecvTimeoutError::Timeout) => {
                    if let Some(device) = &mut self.device {
                        device.unload();
                    }
                    let Ok(job) = jobs.recv() else { return };
                    self.serve(job);
                }
            }
        }
    }

    fn serve(&mut self, mut job: Box<dyn Job>) {
        match job.deadline() {
            None => return,
            Some(deadline) if Instant::now() >= deadline => return job.fail(TpmError::Timeout),
            Some(_) => {}
        }
        if let Err(error) = self.attempt(job.as_mut())
            && (!error.is_lost() || self.attempt(job.as_mut()).map_err(|error| job.fail(error)).is_err())
        {
            job.fail(error);
        }
    }

    /// One try. Where it shows the connection to be of no use, or leaves something open, the next try connects anew.
    fn attempt(&mut self, job: &mut dyn Job) -> Result<(), TpmError> {
        self.device.take_if(|device| device.has_leaked());
        let device = match &mut self.device {
            Some(device) => device,
            None => self.device.insert(Device::connect(&self.config)?),
        };
        let result = job.attempt(device);
        if result.as_ref().is_err_and(TpmError::is_lost) {
            self.device = None;
        }
        result
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::sync::mpsc::channel;

    use super::*;

    type Jobs = Receiver<Box<dyn Job>>;

    /// A queue before a thread that does this with what is asked of it.
    fn queue(run: impl FnOnce(&Jobs) + Send + 'static) -> Queue {
        let (jobs, receiver) = sync_channel(QUEUE_MAX);
        let (open, closed) = sync_channel(0);
        let thread = thread::spawn(move || {
            run(&receiver);
            drop(open);
        });
        let ending = Ending { thread: Some(thread), closed: Mutex::new(closed) };
        Queue { jobs, deadline: DEADLINE, thread: Arc::new(ending) }
    }

    fn until_nobody_asks(jobs: &Jobs) {
        while jobs.recv().is_ok() {}
    }

    #[test]
    fn the_last_handle_waits_until_the_thread_has_let_go_and_no_other_does() {
        let let_go = Arc::new(AtomicBool::new(false));
        let seen = Arc::clone(&let_go);
        let first = queue(move |jobs| {
            until_nobody_asks(jobs);
            // A TPM takes its time to flush: whoever does not wait sees that it has not.
            (0..10_000).for_each(|_| thread::yield_now());
            let_go.store(true, Ordering::SeqCst);
        });
        let second = first.with_deadline(DEADLINE);
        drop(first);
        assert!(!seen.load(Ordering::SeqCst), "there is still a handle to ask it by");
        drop(second);
        assert!(seen.load(Ordering::SeqCst), "the thread works on after the last handle is gone");
    }

    #[test]
    fn a_handle_that_is_last_dropped_on_the_thread_itself_does_not_wait_for_it() {
        let (give, given) = channel::<Queue>();
        let (ended, end) = channel();
        let first = queue(move |jobs| {
            let own = given.recv().expect("a handle");
            // Only now is the other one gone.
            let _ = jobs.recv();
            drop(own);
            ended.send(()).expect("the test waits");
        });
        give.send(first.with_deadline(DEADLINE)).expect("the thread waits");
        let answer = first.request(|_| Ok(()));
        drop(first);
        end.recv().expect("the thread ended, and not by a panic");
        assert!(matches!(answer.wait(), Err(TpmError::Unavailable(_))), "nobody served it");
    }
}
