//! Fetching one object: once for all who ask at the same time, again after a while where a service is busy, and not at all for
//! a while after it failed.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use attestation::{CollateralChain, CollateralError, CollateralKey};

use super::error::{CollateralFailure, FetchError, Tried};
use super::kds::{RETRY_AFTER_MAX, Upstream};
use super::{Collateral, Limits, lock};

/// Requests to one service for one object, whatever time is left.
const TRIES_MAX: u32 = 6;
/// Objects whose state is remembered at most.
const SLOTS_MAX: usize = 1024;

/// What is known of each object that was asked for.
#[derive(Debug, Default)]
pub(super) struct Slots(Mutex<HashMap<CollateralKey, Arc<tokio::sync::Mutex<Slot>>>>);

/// Held by the one who fetches; the others wait for it.
#[derive(Debug, Default)]
struct Slot {
    fetched: Option<(Instant, Vec<u8>)>,
    failed: Option<Failed>,
}

#[derive(Debug)]
struct Failed {
    until: Instant,
    tried: Vec<Tried>,
}

impl Slots {
    fn of(&self, key: &CollateralKey) -> Arc<tokio::sync::Mutex<Slot>> {
        let mut slots = lock(&self.0);
        if slots.len() >= SLOTS_MAX {
            // Those that somebody waits for stay.
            slots.retain(|_, slot| Arc::strong_count(slot) > 1);
        }
        Arc::clone(slots.entry(key.clone()).or_default())
    }
}

impl Collateral {
    /// Fetches an object from the services, and the chain that it is checked by where that is not at hand. Who asks while
    /// another fetches the same gets the same answer.
    ///
    /// # Errors
    /// [`CollateralFailure::Missing`], within [`Limits::total`].
    pub async fn fetch(&self, key: &CollateralKey) -> Result<Vec<u8>, CollateralFailure> {
        self.fetch_by(key, self.deadline()).await
    }

    pub(super) fn deadline(&self) -> Instant {
        Instant::now() + self.options.limits.total
    }

    pub(super) async fn fetch_by(&self, key: &CollateralKey, deadline: Instant) -> Result<Vec<u8>, CollateralFailure> {
        let id = key.chain();
        let chain = match key {
            CollateralKey::Chain(_) => None,
            CollateralKey::Vcek(_) | CollateralKey::Crl(_) => {
                let of = CollateralKey::Chain(id);
                Some(match self.chain(id) {
                    Some(chain) => chain,
                    None => CollateralChain::from_pem(&self.fetch_once(&of, None, deadline).await?, id)
                        .map_err(CollateralFailure::Key)?,
                })
            }
        };
        self.fetch_once(key, chain.as_ref(), deadline).await
    }

    /// The first of these that a service has.
    pub(super) async fn fetch_any(&self, keys: &[CollateralKey], deadline: Instant) -> Result<(), CollateralFailure> {
        let mut first = None;
        for key in keys {
            match self.fetch_by(key, deadline).await {
                Ok(_) => return Ok(()),
                Err(failure) => first = first.or(Some(failure)),
            }
        }
        first.map_or(Ok(()), Err)
    }

    /// As [`Collateral::fetch_by`], checked by a chain that is there.
    pub(super) async fn fetch_once(
        &self,
        key: &CollateralKey,
        chain: Option<&CollateralChain>,
        deadline: Instant,
    ) -> Result<Vec<u8>, CollateralFailure> {
        // Before the caller looked at what is at hand: what was fetched since then is its answer too.
        let asked = deadline.checked_sub(self.options.limits.total).unwrap_or(deadline);
        let missing = |tried| CollateralFailure::Missing { key: Box::new(key.clone()), tried };
        let slot = self.slots.of(key);
        let mut slot = tokio::time::timeout_at(deadline.into(), slot.lock()).await.map_err(|_| missing(Vec::new()))?;
        if let Some((at, bytes)) = &slot.fetched
            && *at >= asked
        {
            return Ok(bytes.clone());
        }
        if let Some(failed) = slot.failed.as_ref().filter(|failed| failed.until > Instant::now()) {
            return Err(missing(failed.tried.clone()));
        }
        match self.ask_all(key, chain, deadline).await {
            Ok(bytes) => {
                self.keep(key, &bytes);
                *slot = Slot { fetched: Some((Instant::now(), bytes.clone())), failed: None };
                Ok(bytes)
            }
            Err(tried) => {
                let until = Instant::now() + negative(&tried, self.options.limits);
                slot.failed = Some(Failed { until, tried: tried.clone() });
                Err(missing(tried))
            }
        }
    }

    /// Each service in turn, with its share of the time that is left.
    async fn ask_all(
        &self,
        key: &CollateralKey,
        chain: Option<&CollateralChain>,
        deadline: Instant,
    ) -> Result<Vec<u8>, Vec<Tried>> {
        let mut tried = Vec::new();
        for (index, upstream) in self.upstreams.iter().enumerate() {
            let others = u32::try_from(self.upstreams.len() - index).unwrap_or(u32::MAX);
            let share = deadline.saturating_duration_since(Instant::now()) / others;
            let by = Instant::now() + share;
            match ask(upstream, key, by, self.options.limits, |bytes| self.check(key, chain, bytes)).await {
                Ok(bytes) => return Ok(bytes),
                Err(error) => tried.push(Tried { url: upstream.url(), error }),
            }
        }
        Err(tried)
    }

    /// That the answer is what was asked for, and no list from before the one at hand: a mirror could hide a revocation with
    /// an old one.
    fn check(&self, key: &CollateralKey, chain: Option<&CollateralChain>, bytes: &[u8]) -> Result<(), CollateralError> {
        match (key, chain) {
            (CollateralKey::Chain(id), _) => CollateralChain::from_pem(bytes, *id).map(|_| ()),
            (CollateralKey::Vcek(id), Some(chain)) => chain.check_vcek(bytes, id).map(|_| ()),
            (CollateralKey::Crl(_), Some(chain)) => {
                let window = chain.check_crl(bytes)?;
                let is_older = self.crl(chain).is_some_and(|(_, held)| held.this_update > window.this_update);
                if is_older { Err(CollateralError::CrlOlder) } else { Ok(()) }
            }
            (CollateralKey::Vcek(_) | CollateralKey::Crl(_), None) => Err(CollateralError::ChainMalformed),
        }
    }
}

/// Asks one service until it answers, until it says something that will not change, or until `by`.
async fn ask(
    upstream: &Upstream,
    key: &CollateralKey,
    by: Instant,
    limits: Limits,
    check: impl Fn(&[u8]) -> Result<(), CollateralError>,
) -> Result<Vec<u8>, FetchError> {
    let mut wait = limits.backoff;
    let mut tries = 0;
    // It asked for silence a while ago, for another object.
    let quiet = upstream.quiet_for();
    if Instant::now() + quiet >= by && !quiet.is_zero() {
        return Err(FetchError::Throttled { retry_after: Some(quiet.as_secs() + 1) });
    }
    tokio::time::sleep(quiet).await;
    loop {
        let limit = limits.request.min(by.saturating_duration_since(Instant::now()));
        let got = upstream.get(&key.url_path(), key.bytes_max(), limit).await;
        let error = match got.and_then(|bytes| check(&bytes).map(|()| bytes).map_err(FetchError::Wrong)) {
            Ok(bytes) => return Ok(bytes),
            Err(error) => error,
        };
        tries += 1;
        let pause = match &error {
            FetchError::Throttled { retry_after: Some(seconds) } => Duration::from_secs(*seconds).max(jitter(wait)),
            _ => jitter(wait),
        };
        if !error.may_pass() || tries >= TRIES_MAX || pause >= by.saturating_duration_since(Instant::now()) {
            return Err(error);
        }
        tokio::time::sleep(pause).await;
        wait *= 2;
    }
}

/// How long nobody asks again: as long as a service wants, and never for nothing.
fn negative(tried: &[Tried], limits: Limits) -> Duration {
    let wanted = tried.iter().filter_map(|tried| match tried.error {
        FetchError::Throttled { retry_after: Some(seconds) } => Some(Duration::from_secs(seconds).min(RETRY_AFTER_MAX)),
        _ => None,
    });
    // Another service may answer before that.
    wanted.min().unwrap_or(limits.negative).max(limits.negative)
}

/// Between half of it and all of it, so that a fleet that was sent away does not come back at once.
fn jitter(wait: Duration) -> Duration {
    // A new hasher has a random key. Nothing depends on how random.
    let part = u32::try_from(RandomState::new().hash_one(0u8) % 1024).unwrap_or(0);
    wait / 2 + wait / 2048 * part
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wait_is_spread_over_its_second_half() {
        let wait = Duration::from_secs(8);
        for _ in 0..100 {
            let jittered = jitter(wait);
            assert!(wait / 2 <= jittered && jittered <= wait, "{jittered:?}");
        }
    }

    #[test]
    fn service_is_left_alone_as_long_as_it_wants() {
        let limits = Limits::default();
        let throttled = |seconds| Tried {
            url: "http://m.example".to_owned(),
            error: FetchError::Throttled { retry_after: Some(seconds) },
        };
        assert_eq!(negative(&[], limits), limits.negative);
        assert_eq!(negative(&[throttled(600)], limits), Duration::from_secs(600));
        assert_eq!(negative(&[throttled(600), throttled(300)], limits), Duration::from_secs(300));
        assert_eq!(negative(&[throttled(u64::MAX)], limits), RETRY_AFTER_MAX);
        assert_eq!(negative(&[throttled(1)], limits), limits.negative);
    }
}
