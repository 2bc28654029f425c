//! Completes SNP evidence before it is sent: certificates and revocation lists, by preference without a network.
//!
//! In this order: what the host's certificate table gave; what this process has fetched before; a store directory; the key
//! services that were named, in their order. Without a store or a service nothing is asked of anyone.
//!
//! Nothing here is trusted, and nothing here is verification: objects are checked only for belonging to what was asked for, so
//! that a wrong one is neither kept nor sent. AMD signed all of them, and whoever verifies the evidence checks that.
//!
//! One thread may wait for the network ([`Collateral::complete_waiting`]), another may not
//! ([`Collateral::complete_at_once`]): what the latter lacks, [`Refresher`] fetches for its next time.

mod error;
mod fetch;
mod kds;
mod refresh;
mod store;

use std::collections::{BTreeSet, HashMap, HashSet};
use std::path::PathBuf;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use attestation::{
    AzureEvidence, ChainId, CollateralChain, CollateralError, CollateralKey, CrlWindow, HclReport, LeafState,
    SnpEvidence, UnixTime, VcekId,
};

pub use error::{CollateralFailure, FetchError, SourceError, Tried};
use fetch::Slots;
use kds::Upstream;
pub use kds::{AMD_KDS, KdsChoice};
pub use refresh::Refresher;
pub use store::{CollateralStore, StoreError, Stored};

/// Objects that are kept in memory at most. A guest needs three, a list of hosts goes through and is kept on disk.
const KEPT_MAX: usize = 64;

/// Where to look, and for how long.
#[derive(Clone, Debug)]
pub struct CollateralOptions {
    /// A store directory: read, and added to where it can be written.
    pub store: Option<PathBuf>,
    /// Key services, asked in this order.
    pub kds: Vec<KdsChoice>,
    /// PEM of the authorities that https services are checked by; without it those of the system.
    pub ca: Option<PathBuf>,
    /// Bounds on time.
    pub limits: Limits,
    /// Where a person hears of what is wrong and does not stop anything.
    pub warn: fn(&str),
}

/// Bounds on the time that fetching takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// For one object from all services, with all waiting.
    pub total: Duration,
    /// For one request.
    pub request: Duration,
    /// The first wait after a service was busy; then twice as long each time, half of it by chance.
    pub backoff: Duration,
    /// How long nobody asks again for what was not there.
    pub negative: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        let seconds = Duration::from_secs;
        Self { total: seconds(30), request: seconds(10), backoff: seconds(1), negative: seconds(60) }
    }
}

impl Default for CollateralOptions {
    /// No store, no service: evidence is sent as it is.
    fn default() -> Self {
        Self { store: None, kds: Vec::new(), ca: None, limits: Limits::default(), warn: |text| eprintln!("{text}") }
    }
}

/// A place to get collateral from. Shared by all threads of a process, so that each object is fetched once.
#[derive(Debug)]
pub struct Collateral {
    options: CollateralOptions,
    store: Option<CollateralStore>,
    upstreams: Vec<Upstream>,
    kept: Mutex<HashMap<CollateralKey, Vec<u8>>>,
    slots: Slots,
    /// What [`Collateral::complete_at_once`] did without, for the refresher.
    wanted: Mutex<HashSet<CollateralKey>>,
    wake: Condvar,
    /// Whose lists the refresher keeps.
    seen: Mutex<BTreeSet<ChainId>>,
}

/// An object that this process need not fetch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AtHand {
    /// thisUpdate of a revocation list.
    pub this_update: Option<UnixTime>,
    /// The last second that it counts.
    pub until: UnixTime,
}

/// How far evidence got with what is at hand.
struct Completed {
    evidence: SnpEvidence,
    /// Any one of these would help.
    missing: Vec<CollateralKey>,
    /// Which list is wanted, where none of ours is in force, and the chain that it is checked by.
    crl: Option<(CollateralKey, CollateralChain)>,
}

impl Collateral {
    /// Reads the options.
    ///
    /// # Errors
    /// [`SourceError`]: an authority that can't be read. A store that is not there yet is no error.
    pub fn new(options: CollateralOptions) -> Result<Self, SourceError> {
        let upstreams = kds::upstreams(&options.kds, options.ca.as_deref())?;
        let store = options.store.clone().map(CollateralStore::new);
        let (kept, wanted) = (Mutex::default(), Mutex::default());
        Ok(Self {
            options,
            store,
            upstreams,
            kept,
            slots: Slots::default(),
            wanted,
            wake: Condvar::new(),
            seen: Mutex::default(),
        })
    }

    /// As it was made.
    #[must_use]
    pub const fn options(&self) -> &CollateralOptions {
        &self.options
    }

    /// Whether there is anything to look in.
    #[must_use]
    pub const fn has_sources(&self) -> bool {
        self.store.is_some() || !self.upstreams.is_empty()
    }

    /// Completes evidence with what is at hand, and leaves what is not to the refresher. Reads files at most.
    ///
    /// # Errors
    /// [`CollateralFailure`]: nobody could verify the evidence. A revocation list that is missing is no error: whether one is
    /// needed is for the verifier's policy to say.
    pub fn complete_at_once(&self, evidence: SnpEvidence) -> Result<SnpEvidence, CollateralFailure> {
        let found = self.complete_local(evidence, now())?;
        let wanted: Vec<CollateralKey> = {
            let crl = found.crl.iter().map(|(key, _)| key);
            found.missing.iter().chain(crl).cloned().collect()
        };
        if !wanted.is_empty() && !self.upstreams.is_empty() {
            let mut waiting = lock(&self.wanted);
            waiting.extend(wanted);
            self.wake.notify_all();
        }
        found.settle()
    }

    /// Completes evidence, with the network where one was named, within [`Limits::total`].
    ///
    /// # Errors
    /// As [`Collateral::complete_at_once`].
    pub async fn complete(&self, evidence: SnpEvidence) -> Result<SnpEvidence, CollateralFailure> {
        let deadline = self.deadline();
        let mut found = self.complete_local(evidence, now())?;
        // The chain, then the leaf; two chains where the report does not say of which product it is.
        for _ in 0..3 {
            if found.missing.is_empty() || self.upstreams.is_empty() {
                break;
            }
            if let Err(failure) = self.fetch_any(&found.missing, deadline).await {
                // The root alone may be left out: a policy can have it.
                return if found.is_enough() { Ok(found.evidence) } else { Err(failure) };
            }
            found = self.complete_local(found.evidence, now())?;
        }
        if let (Some((key, chain)), false) = (&found.crl, self.upstreams.is_empty()) {
            match self.fetch_once(key, Some(chain), deadline).await {
                Ok(_) => found = self.complete_local(found.evidence, now())?,
                Err(failure) => (self.options.warn)(&format!("{failure}; the evidence is sent without a new one")),
            }
        }
        found.settle()
    }

    /// [`Collateral::complete`] for a thread that may block, also within a runtime.
    ///
    /// # Errors
    /// As [`Collateral::complete_at_once`].
    pub fn complete_waiting(&self, evidence: SnpEvidence) -> Result<SnpEvidence, CollateralFailure> {
        let found = self.complete_local(evidence, now())?;
        let is_complete = found.missing.is_empty() && found.crl.is_none();
        if is_complete || self.upstreams.is_empty() {
            return found.settle();
        }
        refresh::block_on(self.complete(found.evidence))?
    }

    /// What memory or store has of an object, if it belongs to its name and to its chain.
    #[must_use]
    pub fn at_hand_now(&self, key: &CollateralKey) -> Option<AtHand> {
        let chain = self.chain(key.chain())?;
        match key {
            CollateralKey::Chain(_) => Some(AtHand { this_update: None, until: chain.not_after() }),
            CollateralKey::Vcek(id) => {
                let until = chain.check_vcek(&self.vcek(id)?, id).ok()?;
                Some(AtHand { this_update: None, until })
            }
            CollateralKey::Crl(_) => {
                let (_, window) = self.crl(&chain)?;
                Some(AtHand { this_update: Some(window.this_update), until: window.next_update })
            }
        }
    }

    /// Whether the store has a file for it.
    #[must_use]
    pub fn store_has(&self, key: &CollateralKey) -> bool {
        self.store.as_ref().is_some_and(|store| matches!(store.get(key), Ok(Some(_))))
    }

    /// What of Azure's evidence is the chip's: its report is inside the HCL report.
    ///
    /// # Errors
    /// [`CollateralFailure`].
    pub fn report_of(azure: &AzureEvidence) -> Result<SnpEvidence, CollateralFailure> {
        let hcl = HclReport::parse(&azure.hcl_report).map_err(CollateralFailure::Hcl)?;
        Ok(SnpEvidence {
            report: hcl.report().to_vec(),
            certificates: azure.certificates.clone(),
            crls: azure.crls.clone(),
        })
    }

    fn complete_local(&self, mut evidence: SnpEvidence, now: UnixTime) -> Result<Completed, CollateralFailure> {
        let id = match LeafState::of(&evidence).map_err(CollateralFailure::Key)? {
            LeafState::Present(id) => id,
            LeafState::Absent(ids) => {
                let Some((id, leaf)) = ids.iter().find_map(|id| Some((id.chain(), self.vcek(id)?))) else {
                    // One for another TCB is as good as none.
                    evidence.certificates.clear();
                    return Ok(Completed { evidence, missing: self.missing_of(ids), crl: None });
                };
                evidence.certificates = vec![leaf];
                id
            }
        };
        let of_table = match &evidence.certificates[..] {
            [_, intermediate, root] => CollateralChain::from_der(intermediate.clone(), root.clone()).ok(),
            _ => None,
        };
        let Some(chain) = of_table.or_else(|| self.chain(id)) else {
            return Ok(Completed { evidence, missing: vec![CollateralKey::Chain(id)], crl: None });
        };
        lock(&self.seen).insert(id);
        evidence.certificates.truncate(1);
        evidence.certificates.extend(chain.certificates().iter().cloned());
        let is_wanted = self.add_crls(&mut evidence, &chain, now);
        let crl = is_wanted.then(|| (CollateralKey::Crl(chain.id()), chain));
        Ok(Completed { evidence, missing: Vec::new(), crl })
    }

    /// A leaf is checked by its chain, so without any chain that comes first.
    fn missing_of(&self, ids: Vec<VcekId>) -> Vec<CollateralKey> {
        if ids.iter().any(|id| self.chain(id.chain()).is_some()) {
            return ids.into_iter().map(CollateralKey::Vcek).collect();
        }
        ids.iter().map(|id| CollateralKey::Chain(id.chain())).collect()
    }

    /// Puts the newest lists into the evidence: one from a source of ours, one of the host's. Gives whether ours is missing or
    /// has ended, so that a newer one is wanted.
    ///
    /// The host may withhold a list, or hand over an older one, or the one for the other kind of key, which does not say so. So
    /// its list never takes the place of ours; a verifier checks both.
    fn add_crls(&self, evidence: &mut SnpEvidence, chain: &CollateralChain, now: UnixTime) -> bool {
        let of_table = evidence.crls.drain(..).filter_map(|crl| Some((chain.check_crl(&crl).ok()?, crl)));
        let of_table = of_table.max_by_key(|(window, _)| window.this_update).map(|(_, crl)| crl);
        let ours = self.crl(chain);
        let is_wanted = ours.as_ref().is_none_or(|(_, window)| !window.is_in_force(now));
        let ours = ours.map(|(crl, _)| crl);
        let of_table = of_table.filter(|crl| ours.as_ref() != Some(crl));
        evidence.crls.extend(ours.into_iter().chain(of_table));
        is_wanted
    }

    fn vcek(&self, id: &VcekId) -> Option<Vec<u8>> {
        let chain = self.chain(id.chain());
        self.at_hand(&CollateralKey::Vcek(id.clone()), |der| match &chain {
            Some(chain) => chain.check_vcek(der, id).map(|_| der.to_vec()),
            None => Err(CollateralError::ChainMalformed),
        })
    }

    fn chain(&self, id: ChainId) -> Option<CollateralChain> {
        self.at_hand(&CollateralKey::Chain(id), |pem| CollateralChain::from_pem(pem, id))
    }

    fn crl(&self, chain: &CollateralChain) -> Option<(Vec<u8>, CrlWindow)> {
        let read = |der: &[u8]| chain.check_crl(der).map(|window| (der.to_vec(), window));
        let newest = |one: (Vec<u8>, CrlWindow), other: (Vec<u8>, CrlWindow)| {
            if one.1.this_update >= other.1.this_update { one } else { other }
        };
        let key = CollateralKey::Crl(chain.id());
        let kept = lock(&self.kept).get(&key).and_then(|der| read(der).ok());
        // Somebody may have put a newer one into the store.
        let stored = self.stored(&key, read);
        match (kept, stored) {
            (Some(kept), Some(stored)) => Some(newest(kept, stored)),
            (kept, stored) => kept.or(stored),
        }
    }

    /// The first of memory and store that passes `read`. What a broken file held counts as missing.
    fn at_hand<T>(&self, key: &CollateralKey, read: impl Fn(&[u8]) -> Result<T, CollateralError>) -> Option<T> {
        let kept = lock(&self.kept).get(key).cloned();
        kept.and_then(|bytes| read(&bytes).ok()).or_else(|| self.stored(key, read))
    }

    fn stored<T>(&self, key: &CollateralKey, read: impl Fn(&[u8]) -> Result<T, CollateralError>) -> Option<T> {
        let store = self.store.as_ref()?;
        let warn = |why: &dyn std::fmt::Display| {
            (self.options.warn)(&format!("{}: not used: {why}", store.path(key).display()));
        };
        let bytes = store.get(key).map_err(|error| warn(&error)).ok()??;
        match read(&bytes) {
            Ok(value) => Some(value),
            Err(CollateralError::ChainMalformed) if matches!(key, CollateralKey::Vcek(_)) => None,
            Err(error) => {
                warn(&error);
                None
            }
        }
    }

    /// Keeps what was fetched. A store that can't be written is as good as one that is shipped read-only.
    fn keep(&self, key: &CollateralKey, bytes: &[u8]) {
        let mut kept = lock(&self.kept);
        if kept.len() >= KEPT_MAX {
            kept.clear();
        }
        kept.insert(key.clone(), bytes.to_vec());
        drop(kept);
        if let Some(store) = &self.store
            && let Err(error) = store.put(key, bytes)
            && !error.is_read_only()
        {
            (self.options.warn)(&format!("{key} is not kept: {error}"));
        }
    }
}

impl AtHand {
    /// Whether a newer one is wanted: of a revocation list after half of its time, of all else after its end.
    #[must_use]
    pub fn is_due(&self, now: UnixTime) -> bool {
        match self.this_update {
            Some(this_update) => CrlWindow { this_update, next_update: self.until }.refresh_at() <= now,
            None => self.until < now,
        }
    }
}

impl Completed {
    /// Leaf and issuer are there: a verifier that has the root needs no more.
    const fn is_enough(&self) -> bool {
        self.evidence.certificates.len() >= 2
    }

    fn settle(self) -> Result<SnpEvidence, CollateralFailure> {
        let is_enough = self.is_enough();
        match self.missing.into_iter().next() {
            Some(key) if !is_enough => Err(CollateralFailure::Missing { key: Box::new(key), tried: Vec::new() }),
            Some(_) | None => Ok(self.evidence),
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// This machine's clock. It decides when to look for a newer list, and nothing else: verifiers have their own.
fn now() -> UnixTime {
    UnixTime(SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs()))
}
