//! Fetching in the background, for threads that must not wait, and before a revocation list ends.

use std::collections::HashMap;
use std::future::Future;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use attestation::{ChainId, CollateralKey};

use super::{Collateral, CollateralFailure, lock, now};

/// How often the dates are looked at.
const LOOK_EVERY: Duration = Duration::from_secs(60);
/// The first wait after a fetch that failed, then twice as long each time.
const RETRY_FIRST: Duration = Duration::from_secs(60);
const RETRY_MAX: Duration = Duration::from_secs(60 * 60);

/// A thread that keeps collateral fresh. Dropping it ends it.
///
/// A list is fetched again after half of its time. While that fails the old one stays, and is sent also after its end:
/// whether it still counts is for the policy of the verifier to say (`crl`).
#[derive(Debug)]
pub struct Refresher {
    collateral: Arc<Collateral>,
    ends: Arc<AtomicBool>,
}

/// When what may be asked for again.
#[derive(Default)]
struct Pace(HashMap<CollateralKey, (u32, Instant)>);

impl Refresher {
    /// Starts the thread. Without a key service there is nothing for it to do: a store is read at every use.
    ///
    /// # Errors
    /// [`CollateralFailure::Runtime`].
    pub fn start(collateral: Arc<Collateral>) -> Result<Self, CollateralFailure> {
        let ends = Arc::new(AtomicBool::new(false));
        if !collateral.upstreams.is_empty() {
            let runtime = runtime()?;
            let (shared, end) = (Arc::clone(&collateral), Arc::clone(&ends));
            let work = move || {
                let mut pace = Pace::default();
                while !end.load(Ordering::SeqCst) {
                    runtime.block_on(pace.fetch(&shared, shared.due()));
                    shared.wait();
                }
            };
            let thread = std::thread::Builder::new().name("collateral".to_owned()).spawn(work);
            thread.map_err(|_| CollateralFailure::Runtime)?;
        }
        Ok(Self { collateral, ends })
    }
}

impl Drop for Refresher {
    fn drop(&mut self) {
        self.ends.store(true, Ordering::SeqCst);
        // The thread is not waited for: it may be fetching, or looks at the end within a minute.
        let wanted = lock(&self.collateral.wanted);
        self.collateral.wake.notify_all();
        drop(wanted);
    }
}

impl Pace {
    async fn fetch(&mut self, collateral: &Collateral, due: Vec<CollateralKey>) {
        for key in due {
            let (failures, not_before) = self.0.get(&key).copied().unwrap_or((0, Instant::now()));
            if not_before > Instant::now() {
                continue;
            }
            match collateral.fetch(&key).await {
                // A service may answer with the list that is due already.
                Ok(_) if !collateral.is_due(&key) => {
                    self.0.remove(&key);
                }
                Ok(_) => self.later(key, failures),
                Err(failure) => {
                    (collateral.options.warn)(&format!("in the background: {failure}"));
                    self.later(key, failures);
                }
            }
        }
    }

    fn later(&mut self, key: CollateralKey, failures: u32) {
        let wait = RETRY_FIRST.saturating_mul(1 << failures.min(10)).min(RETRY_MAX);
        self.0.insert(key, (failures + 1, Instant::now() + wait));
    }
}

impl Collateral {
    /// Waits until somebody did without something, or a minute. May return early.
    fn wait(&self) {
        let wanted = lock(&self.wanted);
        if wanted.is_empty() {
            drop(self.wake.wait_timeout(wanted, LOOK_EVERY).unwrap_or_else(PoisonError::into_inner));
        }
    }

    /// What to fetch now.
    fn due(&self) -> Vec<CollateralKey> {
        let mut due: Vec<CollateralKey> = lock(&self.wanted).drain().collect();
        let ids: Vec<ChainId> = lock(&self.seen).iter().copied().collect();
        for key in ids.into_iter().map(CollateralKey::Crl) {
            if !due.contains(&key) && self.is_due(&key) {
                due.push(key);
            }
        }
        due
    }

    /// Whether a newer revocation list is wanted. Nothing else changes under its name.
    fn is_due(&self, key: &CollateralKey) -> bool {
        matches!(key, CollateralKey::Crl(_)) && self.at_hand_now(key).is_none_or(|found| found.is_due(now()))
    }
}

/// Waits for a future on a thread of its own, since the caller's may belong to a runtime.
pub(super) fn block_on<T: Send>(future: impl Future<Output = T> + Send) -> Result<T, CollateralFailure> {
    let runtime = runtime()?;
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().spawn_scoped(scope, || runtime.block_on(future));
        let thread = thread.map_err(|_| CollateralFailure::Runtime)?;
        thread.join().map_err(|_| CollateralFailure::Runtime)
    })
}

fn runtime() -> Result<tokio::runtime::Runtime, CollateralFailure> {
    let built = tokio::runtime::Builder::new_current_thread().enable_all().build();
    built.map_err(|_| CollateralFailure::Runtime)
}
