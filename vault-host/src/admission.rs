//! Limits before anything is verified: by everyone together and by connection.
//!
//! Never by what a stranger can mint, such as a model name, a key or a certificate: those limits would be the
//! stranger's. What a call may use is decided before its first message is read, and given back when its answer is gone.

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

pub(crate) use connection::{Connection, Listener};
pub(crate) use layer::{AdmissionLayer, CallContext};

/// How many times its rate a bucket of requests gives at once.
const REQUESTS_AT_ONCE: u32 = 2;
/// The same of challenges: a fleet behind one proxy starts at once, and then renews in turn.
const CHALLENGES_AT_ONCE: u32 = 8;
/// Calls under way, answers that are still being sent included.
const CALLS_MAX: usize = 2048;
/// Publications under way: the one kind of large request.
const PUBLICATIONS_MAX: usize = 2;
/// Watches that are open: places of their own, so that they take none of those who ask for something.
const WATCHES_MAX: usize = 4096;
/// The same of one connection, which a proxy may share among agents.
const WATCHES_PER_CONNECTION_MAX: usize = 64;
/// How long a stream or a publication waits for a place: a fleet that starts at once is served in turn.
const QUEUE_TIME_MAX: Duration = Duration::from_secs(20);
/// Bytes of answers from disk that are in memory at once.
const REPLY_BYTES_MAX: u32 = 64 << 20;

/// Shared by all listeners.
#[derive(Debug)]
pub(crate) struct Admission {
    rate: Bucket,
    connection_rate: u32,
    challenge_rate: u32,
    connections: Arc<Semaphore>,
    calls: Arc<Semaphore>,
    publications: Arc<Semaphore>,
    streams: Arc<Semaphore>,
    stream_queue: Queue,
    watches: Arc<Semaphore>,
    reply_bytes: Arc<Semaphore>,
}

/// What a call holds from its beginning until its answer has been sent.
#[derive(Debug, Default)]
struct Place(Vec<OwnedSemaphorePermit>);

/// Memory for an answer; rides in the answer's extensions until it has been sent.
#[derive(Clone, Debug)]
pub(crate) struct ReplyMemory(#[expect(dead_code, reason = "held, never read")] Arc<OwnedSemaphorePermit>);

impl Admission {
    pub(crate) fn new(limits: &Limits) -> Self {
        let places = |count: u32| Arc::new(Semaphore::new(count as usize));
        Self {
            rate: Bucket::new(limits.requests_per_second, REQUESTS_AT_ONCE),
            connection_rate: limits.requests_per_second_per_connection,
            challenge_rate: limits.challenges_per_second_per_connection,
            connections: places(limits.connections),
            calls: Arc::new(Semaphore::new(CALLS_MAX)),
            publications: Arc::new(Semaphore::new(PUBLICATIONS_MAX)),
            streams: places(limits.streams),
            stream_queue: Queue::default(),
            watches: Arc::new(Semaphore::new(WATCHES_MAX)),
            reply_bytes: places(REPLY_BYTES_MAX),
        }
    }

    /// A new connection, or `None` while there are too many.
    pub(crate) fn connection(&self) -> Option<Connection> {
        let place = self.connections.clone().try_acquire_owned().ok()?;
        let requests = Bucket::new(self.connection_rate, REQUESTS_AT_ONCE);
        let challenges = Bucket::new(self.challenge_rate, CHALLENGES_AT_ONCE);
        Some(Connection::new(requests, challenges, self.stream_queue.clone(), place))
    }

    /// Lets a call begin, or turns it away, before anything of it is read.
    fn admit(&self, method: Method, connection: Option<&Connection>) -> Result<Place, Refused> {
        let now = Instant::now();
        if connection.is_some_and(|connection| !connection.take(now)) {
            return Err(busy("busy-connection-rate", "more requests a second than one connection may send"));
        }
        if method.kind == Kind::Challenge && connection.is_some_and(|connection| !connection.take_challenge(now)) {
            return Err(busy("busy-connection-challenges", "more challenges a second than one connection may ask for"));
        }
        if method.kind == Kind::Other {
            // A health check has to be answered above all when everything else is not.
            return Ok(Place::default());
        }
        if !self.rate.take(now) {
            return Err(busy("busy-rate", "more requests a second than this host may take"));
        }
        if method.kind == Kind::Watch {
            return self.admit_watch(connection);
        }
        let call = self.calls.clone().try_acquire_owned();
        let call = call.map_err(|_| busy("busy-calls", "too many calls are under way"))?;
        Ok(Place(vec![call]))
    }

    fn admit_watch(&self, connection: Option<&Connection>) -> Result<Place, Refused> {
        let own = connection.map(Connection::watch).transpose();
        let own = own.map_err(|_| busy("busy-connection-watches", "more watches than one connection may have open"))?;
        let watch = self.watches.clone().try_acquire_owned();
        let watch = watch.map_err(|_| busy("busy-watches", "too many leases are watched"))?;
        Ok(Place(own.into_iter().chain([watch]).collect()))
    }

    /// Waits for what only few calls may have at a time.
    async fn queue(&self, method: Method, mut place: Place) -> Result<Place, Refused> {
        let places = match method.kind {
            Kind::Call | Kind::Challenge | Kind::Watch | Kind::Other => return Ok(place),
            Kind::Publish => &self.publications,
            Kind::Stream => &self.streams,
        };
        if let Ok(permit) = places.clone().try_acquire_owned() {
            place.0.push(permit);
            return Ok(place);
        }
        let _waits = (method.kind == Kind::Stream).then(|| self.stream_queue.join());
        match tokio::time::timeout(QUEUE_TIME_MAX, places.clone().acquire_owned()).await {
            Ok(Ok(permit)) => place.0.push(permit),
            Ok(Err(_)) | Err(_) => return Err(busy("busy-places", "too many calls of this kind are under way")),
        }
        Ok(place)
    }

    /// Waits for memory for an answer of `bytes`, which has a bound that is below all there is.
    pub(crate) async fn reply_memory(&self, bytes: u64) -> Result<ReplyMemory, Refused> {
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX).min(REPLY_BYTES_MAX);
        let memory = self.reply_bytes.clone().acquire_many_owned(bytes).await;
        memory.map(|memory| ReplyMemory(Arc::new(memory))).map_err(|_| busy("busy-memory", "no memory for the answer"))
    }
}

/// How many streams wait for a place.
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
        let (rate, most) = (f64::from(rate), f64::from(rate) * f64::from(at_once));
        Self { rate, most, state: Mutex::new((most, Instant::now())) }
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
mod tests {
    use super::*;

    fn limits() -> Limits {
        Limits {
            connections: 2,
            streams: 1,
            requests_per_second: 1000,
            requests_per_second_per_connection: 2,
            challenges_per_second_per_connection: 1,
        }
    }

    fn release() -> Method {
        Method::of("/weightvault.v1.Vault/ReleaseKeys")
    }

    fn code(result: Result<Place, Refused>) -> String {
        result.unwrap_err().code
    }

    #[test]
    fn a_bucket_gives_twice_its_rate_at_once_and_its_rate_after_that() {
        let bucket = Bucket::new(10, REQUESTS_AT_ONCE);
        let start = Instant::now();
        assert_eq!((0..100).filter(|_| bucket.take(start)).count(), 20);
        let later = start + Duration::from_millis(500);
        assert_eq!((0..100).filter(|_| bucket.take(later)).count(), 5);
        assert!(!bucket.take(start), "a clock that goes back gives nothing");
    }

    #[test]
    fn one_connection_cannot_use_up_the_rate_of_others() {
        let admission = Admission::new(&limits());
        let (greedy, other) = (admission.connection().unwrap(), admission.connection().unwrap());
        for _ in 0..4 {
            admission.admit(release(), Some(&greedy)).unwrap();
        }
        assert_eq!(code(admission.admit(release(), Some(&greedy))), "busy-connection-rate");
        admission.admit(release(), Some(&other)).unwrap();
    }

    #[test]
    fn one_connection_cannot_fill_the_keepers_table_with_challenges() {
        let admission = Admission::new(&Limits { requests_per_second_per_connection: 1000, ..limits() });
        let (greedy, other) = (admission.connection().unwrap(), admission.connection().unwrap());
        let challenge = Method::of("/weightvault.v1.Vault/GetChallenge");
        for _ in 0..CHALLENGES_AT_ONCE {
            admission.admit(challenge, Some(&greedy)).unwrap();
        }
        assert_eq!(code(admission.admit(challenge, Some(&greedy))), "busy-connection-challenges");
        admission.admit(release(), Some(&greedy)).unwrap();
        admission.admit(challenge, Some(&other)).unwrap();
    }

    #[test]
    fn the_rate_of_everyone_is_bounded() {
        let admission = Admission::new(&Limits { requests_per_second: 1, ..limits() });
        for _ in 0..2 {
            admission.admit(release(), None).unwrap();
        }
        assert_eq!(code(admission.admit(release(), None)), "busy-rate");
        admission.admit(Method::of("/grpc.health.v1.Health/Check"), None).unwrap();
    }

    #[tokio::test]
    async fn streams_have_places_of_their_own_and_wait_for_them_in_turn() {
        let admission = Arc::new(Admission::new(&limits()));
        let fetch = Method::of("/weightvault.v1.Vault/FetchUnits");
        let begin = |method| {
            let place = admission.admit(method, None).unwrap();
            tokio::time::timeout(Duration::from_millis(100), admission.queue(method, place))
        };
        let connection = admission.connection().unwrap();
        let first = begin(fetch).await.unwrap().unwrap();
        assert!(!connection.is_waited_for());
        let waiting = tokio::spawn({
            let admission = admission.clone();
            let place = admission.admit(fetch, None).unwrap();
            async move { admission.queue(fetch, place).await.map(drop) }
        });
        tokio::task::yield_now().await;
        assert!(connection.is_waited_for(), "the second waits, and others see that");
        waiting.abort();
        let _ = waiting.await;
        assert!(!connection.is_waited_for());
        begin(release()).await.unwrap().unwrap();
        drop(first);
        begin(fetch).await.unwrap().unwrap();
    }

    #[test]
    fn calls_under_way_are_bounded() {
        let limits = Limits { requests_per_second: 10_000, ..limits() };
        let admission = Admission::new(&limits);
        let held: Vec<_> = (0..CALLS_MAX).map(|_| admission.admit(release(), None).unwrap()).collect();
        assert_eq!(code(admission.admit(release(), None)), "busy-calls");
        drop(held);
        admission.admit(release(), None).unwrap();
    }

    #[test]
    fn watches_are_bounded_by_connection_and_together_and_take_no_place_of_calls() {
        let limits = Limits {
            connections: 100,
            requests_per_second: 10_000,
            requests_per_second_per_connection: 1000,
            ..limits()
        };
        let admission = Admission::new(&limits);
        let watch = Method::of("/weightvault.v1.Vault/WatchLease");
        let mut held = Vec::new();
        for _ in 0..WATCHES_MAX / WATCHES_PER_CONNECTION_MAX {
            let connection = admission.connection().unwrap();
            let places = (0..WATCHES_PER_CONNECTION_MAX).map(|_| admission.admit(watch, Some(&connection)).unwrap());
            held.push((places.collect::<Vec<_>>(), connection));
            let (_, connection) = held.last().unwrap();
            assert_eq!(code(admission.admit(watch, Some(connection))), "busy-connection-watches");
        }
        let other = admission.connection().unwrap();
        assert_eq!(code(admission.admit(watch, Some(&other))), "busy-watches");
        admission.admit(release(), Some(&other)).unwrap();
        held.pop();
        admission.admit(watch, Some(&other)).unwrap();
    }

    #[test]
    fn connections_are_bounded() {
        let admission = Admission::new(&limits());
        let held = [admission.connection().unwrap(), admission.connection().unwrap()];
        assert!(admission.connection().is_none());
        drop(held);
        assert!(admission.connection().is_some());
    }

    #[test]
    fn two_hundred_releases_at_once_pass_on_one_connection() {
        let admission = Admission::new(&Limits::default());
        let connection = admission.connection().unwrap();
        let challenge = Method::of("/weightvault.v1.Vault/GetChallenge");
        for method in [challenge, release()] {
            let places: Vec<_> = (0..200).map(|_| admission.admit(method, Some(&connection)).unwrap()).collect();
            assert_eq!(places.len(), 200);
        }
    }
}
