//! Limits before anything is verified: by everyone together and by connection.
//!
//! Never by what a stranger can mint, such as a model name, a key or a certificate: those limits would be the
//! stranger's. A call gets what is scarce once its request is there, and gives it back when its client has the answer.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;
use vault_proto::v1::Coarse;

use crate::config::Limits;
use crate::status::Refused;
use crate::telemetry::{Kind, Method};

mod body;
mod connection;
mod layer;
mod pace;
mod request;

pub(crate) use connection::{Connection, Listener};
pub(crate) use layer::{AdmissionLayer, CallContext};
pub(crate) use pace::Bringing;

use connection::Known;
use request::Ahead;

/// How many times its rate a bucket of requests gives at once.
const REQUESTS_AT_ONCE: u32 = 2;
/// The same of challenges: a fleet behind one proxy starts at once, and then renews in turn.
const CHALLENGES_AT_ONCE: u32 = 8;
/// Calls under way, answers that are still being sent included.
const CALLS_MAX: usize = 2048;
/// Publications under way: the one kind of large request.
const PUBLICATIONS_MAX: usize = 2;
/// Evidence that the keeper is asked for at a time, and how often: it waits for its TPM, and decides nothing meanwhile.
const EVIDENCE_MAX: usize = 1;
const EVIDENCE_EVERY: Duration = Duration::from_secs(2);
/// Approvers ask one after the other, and all at the genesis.
const EVIDENCE_AT_ONCE: u32 = 16;
/// Searches of the journal under way: each may read all of it.
const SEARCHES_MAX: usize = 2;
/// Watches that are open: places of their own, so that they take none of those who ask for something.
const WATCHES_MAX: usize = 4096;
/// The same of one connection, which a proxy may share among agents.
const WATCHES_PER_CONNECTION_MAX: usize = 64;
/// Calls of one connection that are none of ours: who watches its health.
const OTHERS_PER_CONNECTION_MAX: usize = 16;
/// How long a stream or a publication waits for a place: a fleet that starts at once is served in turn.
const QUEUE_TIME_MAX: Duration = Duration::from_secs(20);
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// Bytes of answers from disk that are in memory at once.
const REPLY_BYTES_MAX: u32 = 64 << 20;

/// Shared by all listeners.
#[derive(Debug)]
pub(crate) struct Admission {
    rate: Bucket,
    connection_rate: u32,
    challenge_rate: u32,
    connections: Arc<Semaphore>,
    open: Mutex<Vec<Known>>,
    ahead: Arc<AtomicUsize>,
    calls: Arc<Semaphore>,
    publications: Arc<Semaphore>,
    evidence: Arc<Semaphore>,
    evidence_rate: Bucket,
    searches: Arc<Semaphore>,
    streams: Arc<Semaphore>,
    stream_queue: Queue,
    watches: Arc<Semaphore>,
    reply_bytes: Arc<Semaphore>,
    reply_queue: Queue,
}

/// What a call holds until its client has the answer.
#[derive(Debug, Default)]
struct Place(Vec<OwnedSemaphorePermit>);

/// What a call holds until its work is done: whoever goes on with that when the caller is gone keeps a clone.
#[derive(Clone, Debug)]
pub(crate) struct WorkPlace(#[expect(dead_code, reason = "held, never read")] Arc<OwnedSemaphorePermit>);

/// Memory for an answer; rides in the answer's extensions until its client has it.
#[derive(Clone, Debug)]
pub(crate) struct ReplyMemory(Arc<Mutex<OwnedSemaphorePermit>>);

impl ReplyMemory {
    /// Gives back what the answer does not need, of which only the bound was known before.
    pub(crate) fn shrink_to(&self, bytes: usize) {
        let mut memory = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let unused = memory.num_permits().saturating_sub(bytes);
        drop(memory.split(unused));
    }
}

impl Admission {
    pub(crate) fn new(limits: &Limits) -> Self {
        let places = |count: usize| Arc::new(Semaphore::new(count));
        Self {
            rate: Bucket::new(limits.requests_per_second, REQUESTS_AT_ONCE),
            connection_rate: limits.requests_per_second_per_connection,
            challenge_rate: limits.challenges_per_second_per_connection,
            connections: places(limits.connections as usize),
            open: Mutex::default(),
            ahead: Arc::default(),
            calls: places(CALLS_MAX),
            publications: places(PUBLICATIONS_MAX),
            evidence: places(EVIDENCE_MAX),
            evidence_rate: Bucket::every(EVIDENCE_EVERY, EVIDENCE_AT_ONCE),
            searches: places(SEARCHES_MAX),
            streams: places(limits.streams as usize),
            stream_queue: Queue::default(),
            watches: places(WATCHES_MAX),
            reply_bytes: places(REPLY_BYTES_MAX as usize),
            reply_queue: Queue::default(),
        }
    }

    /// A new connection, or `None` while there are too many.
    pub(crate) fn connection(&self) -> Option<Connection> {
        self.connections.clone().try_acquire_owned().ok().map(|place| self.connected(place))
    }

    /// A new connection, once there are not too many.
    async fn connection_to_come(&self) -> Connection {
        let place = self.connections.clone().acquire_owned().await;
        self.connected(place.expect("nobody closes this semaphore"))
    }

    fn connected(&self, place: OwnedSemaphorePermit) -> Connection {
        let requests = Bucket::new(self.connection_rate, REQUESTS_AT_ONCE);
        let challenges = Bucket::new(self.challenge_rate, CHALLENGES_AT_ONCE);
        let ahead = Ahead::among(self.ahead.clone());
        let connection = Connection::new(requests, challenges, self.stream_queue.clone(), ahead, place);
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.retain(Known::is_there);
        open.push(connection.known());
        connection
    }

    /// Closes the connection that has had no call for the longest time. False where all have, or had one a moment ago.
    fn close_idlest(&self, now: Instant) -> bool {
        let open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let idlest = open.iter().filter_map(|known| known.idle(now)).min_by_key(|(since, _)| *since);
        if let Some((_, connection)) = &idlest {
            connection.close();
        }
        idlest.is_some()
    }

    /// Whether a call may begin, as far as that is a matter of rates. Before anything of it is read.
    fn admit(&self, method: Method, connection: Option<&Connection>) -> Result<(), Refused> {
        let now = Instant::now();
        if connection.is_some_and(|connection| !connection.take(now)) {
            return Err(busy("busy-connection-rate", "more requests a second than one connection may send"));
        }
        if method.kind == Kind::Challenge && connection.is_some_and(|connection| !connection.take_challenge(now)) {
            return Err(busy("busy-connection-challenges", "more challenges a second than one connection may ask for"));
        }
        // A health check has to be answered above all when everything else is not.
        if method.kind != Kind::Other && !self.rate.take(now) {
            return Err(busy("busy-rate", "more requests a second than this host may take"));
        }
        Ok(())
    }

    /// A place for a call whose request is there.
    fn place(&self, kind: Kind, connection: Option<&Connection>) -> Result<Place, Refused> {
        match kind {
            Kind::Other => {
                let own = connection.map(Connection::other).transpose();
                let own = own.map_err(|_| busy("busy-connection-others", "too many calls of this connection"))?;
                Ok(Place(own.into_iter().collect()))
            }
            Kind::Watch => self.place_of_watch(connection),
            _ => {
                let call = self.calls.clone().try_acquire_owned();
                let call = call.map_err(|_| busy("busy-calls", "too many calls are under way"))?;
                Ok(Place(vec![call]))
            }
        }
    }

    fn place_of_watch(&self, connection: Option<&Connection>) -> Result<Place, Refused> {
        let own = connection.map(Connection::watch).transpose();
        let own = own.map_err(|_| busy("busy-connection-watches", "more watches than one connection may have open"))?;
        let watch = self.watches.clone().try_acquire_owned();
        let watch = watch.map_err(|_| busy("busy-watches", "too many leases are watched"))?;
        Ok(Place(own.into_iter().chain([watch]).collect()))
    }

    /// Waits for what only few calls may have at a time: a stream until its client has all of it, others while they work.
    async fn queue(&self, kind: Kind, place: &mut Place) -> Result<Option<WorkPlace>, Refused> {
        let few = match kind {
            Kind::Call | Kind::Challenge | Kind::Watch | Kind::Other => return Ok(None),
            Kind::Publish => &self.publications,
            Kind::Evidence => &self.evidence,
            Kind::Search => &self.searches,
            Kind::Stream | Kind::Upload => &self.streams,
        };
        let is_stream = matches!(kind, Kind::Stream | Kind::Upload);
        let in_turn = async {
            if let Ok(permit) = few.clone().try_acquire_owned() {
                return Ok(permit);
            }
            let _waits = is_stream.then(|| self.stream_queue.join());
            few.clone().acquire_owned().await
        };
        let late = || busy("busy-places", "too many calls of this kind are under way");
        let in_time = tokio::time::timeout(QUEUE_TIME_MAX, async {
            let permit = in_turn.await;
            if kind == Kind::Evidence {
                self.evidence_rate.wait().await;
            }
            permit
        });
        let permit = in_time.await.map_err(|_| late())?.map_err(|_| late())?;
        if is_stream {
            place.0.push(permit);
            return Ok(None);
        }
        Ok(Some(WorkPlace(Arc::new(permit))))
    }

    /// Waits for memory for an answer of `bytes`, which has a bound that is below all there is.
    pub(crate) async fn reply_memory(&self, bytes: u64) -> Result<ReplyMemory, Refused> {
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX).min(REPLY_BYTES_MAX);
        let _waits = self.reply_queue.join();
        let memory = self.reply_bytes.clone().acquire_many_owned(bytes).await;
        let memory = memory.map_err(|_| busy("busy-memory", "no memory for the answer"))?;
        Ok(ReplyMemory(Arc::new(Mutex::new(memory))))
    }

    /// Whether others wait for what the answer to such a call holds.
    fn is_wanted(&self, kind: Kind, with_memory: bool) -> bool {
        let stream = matches!(kind, Kind::Stream | Kind::Upload) && !self.stream_queue.is_empty();
        let memory = with_memory && !self.reply_queue.is_empty();
        stream || memory || self.calls.available_permits() < CALLS_MAX / 4
    }
}

/// How many wait for something.
#[derive(Clone, Debug, Default)]
struct Queue(Arc<AtomicUsize>);

/// One that waits, until this is dropped.
#[derive(Debug)]
struct Waits(Queue);

impl Queue {
    fn join(&self) -> Waits {
        self.0.fetch_add(1, Ordering::Relaxed);
        Waits(self.clone())
    }

    fn is_empty(&self) -> bool {
        self.0.load(Ordering::Relaxed) == 0
    }
}

impl Drop for Waits {
    fn drop(&mut self) {
        self.0.0.fetch_sub(1, Ordering::Relaxed);
    }
}

fn busy(code: &str, message: &str) -> Refused {
    Refused::new(Coarse::Busy, code, message)
}

/// A token bucket: `rate` a second, `most` at once.
#[derive(Debug)]
pub(crate) struct Bucket {
    rate: f64,
    most: f64,
    state: Mutex<(f64, Instant)>,
}

impl Bucket {
    /// `at_once` is how many times its rate it gives at once.
    fn new(rate: u32, at_once: u32) -> Self {
        Self::of(f64::from(rate), f64::from(rate) * f64::from(at_once))
    }

    /// One in so long, and so many at once.
    fn every(time: Duration, at_once: u32) -> Self {
        Self::of(time.as_secs_f64().recip(), f64::from(at_once))
    }

    fn of(rate: f64, most: f64) -> Self {
        Self { rate, most, state: Mutex::new((most, Instant::now())) }
    }

    /// Waits for a token.
    async fn wait(&self) {
        while !self.take(Instant::now()) {
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// Takes a token if there is one.
    fn take(&self, now: Instant) -> bool {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let (tokens, since) = *state;
        let elapsed: Duration = now.saturating_duration_since(since);
        let tokens = (tokens + elapsed.as_secs_f64() * self.rate).min(self.most);
        let taken = tokens >= 1.0;
        *state = (if taken { tokens - 1.0 } else { tokens }, now.max(since));
        taken
    }
}

#[cfg(test)]
mod tests;
