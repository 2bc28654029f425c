//! One run of the keeper: the order of `vault-enclave/src/keeper/vault.rs` and `vault/open.rs` around the real fold, the
//! real decision and the real commit.

use std::collections::BTreeMap;

use attestation::{Sha256Digest, Trust, UnixTime};
use ledger::checkpoint::Checkpoint;
use ledger::decide::EvidencedGrant;
use ledger::entry::{ClockJump, Entry, Renew, Renewal, Start, TimeSource};
use ledger::merkle::leaf_hash;
use ledger::release_log::{BATCH_ENTRIES_MAX, Batch, ClosedLog, Log, LogReader, Loggable, Ticket};
use ledger::state::{LoggedManifest, RENEWAL_COMMIT_SECS_MAX, Vault};

use crate::bug::Bug;
use crate::clock::{self, Clock};
use crate::commit::Hands;
use crate::devices::{Anchor, Bytes, Head};
use crate::fold::Fold;
use crate::mail::SessionId;
use crate::sim::Sim;

/// Age in boot time at which uncounted renewals are committed by themselves.
const COMMIT_AFTER: u64 = 120;
const RENEWALS_PER_ENTRY: usize = 32;

pub struct Run {
    pub number: u32,
    pub store: usize,
    pub fold: Fold,
    pub clock: Clock,
    pub challenges: BTreeMap<SessionId, Challenged>,
    pub renewals: Vec<Renewal>,
    pub oldest_renewal: Option<u64>,
    pub pending: Pending,
    pub manifest: Option<LoggedManifest>,
    pub log: Log,
    anchor: Anchor,
    /// The log as this run has it, for who looks on from outside.
    entries: Vec<Bytes>,
    /// What a planted bug has not written yet.
    unwritten: Vec<Bytes>,
}

/// A challenge that is out or was used.
pub struct Challenged {
    pub agent: usize,
    pub lease: Option<Sha256Digest>,
    pub nonce: [u8; 32],
    pub policy: Sha256Digest,
    pub expires: u64,
    /// The letter that used it.
    pub used: Option<u32>,
}

#[derive(Default)]
pub struct Pending {
    pub batch: Batch,
    /// What waits for the commit, and when it was decided.
    pub grants: Vec<(SessionId, u64, Ticket<EvidencedGrant>)>,
    /// Leases of a `revoke` entry that is staged, by its index.
    pub revoked: Vec<(u64, Vec<Sha256Digest>)>,
}

/// Exact bytes of an entry.
struct Plain(Vec<u8>);

impl Loggable for Plain {
    fn entry_bytes(&self) -> Vec<u8> {
        self.0.clone()
    }
}

/// Why a run does not begin, or not go on.
pub type Failure = String;

impl Run {
    /// Folds the log under the head, makes the two counted commits, and is open.
    pub fn start(sim: &mut Sim, number: u32, dir: usize, store: usize) -> Result<Self, Failure> {
        let mut anchor = Anchor::open(sim, dir, number).map_err(|cut| format!("{cut:?}"))?;
        let head = Checkpoint { size: anchor.head.size, root: anchor.head.root };
        let there = usize::try_from(head.size).unwrap();
        let mut entries: Vec<Bytes> = sim.stores[store].entries.iter().take(there).cloned().collect();
        let mut reader = LogReader::with_leaves(head);
        entries.iter().try_for_each(|entry| reader.push(entry)).map_err(|error| error.code().to_owned())?;
        let closed = match there {
            0 => ClosedLog::empty(),
            _ => reader.finish().map_err(|error| error.code().to_owned())?,
        };
        let mut fold = sim.folded(head, &entries)?;
        let first = match there {
            0 => sim.scene.world.genesis.bytes().to_vec(),
            _ => start_entry(sim, number, fold.state.time()),
        };
        fold.apply(&first).map_err(|error| error.code().to_owned())?;
        let clock = Clock::started(fold.state.time(), sim.time(), sim.bug);
        let mut batch = Batch::new();
        batch.add(first).unwrap();
        let of = sim.scene.witnesses.len().max(2);
        let (one, next) = (sim.rng.below(of), 1 + sim.rng.below(of - 1));
        let verifier = sim.scene.keepers_verifier(sim.bug, [one, (one + next) % of]);
        let mut unwritten = Vec::new();
        let mut hands =
            Hands { run: number, store, anchor: &mut anchor, entries: &mut entries, unwritten: &mut unwritten, sim };
        let log = closed.start(verifier, batch, &mut hands).map_err(|error| error.code().to_owned())?;
        sim.truth.accept(log.head());
        sim.truth.serves(number);
        let (challenges, renewals, pending) = (BTreeMap::new(), Vec::new(), Pending::default());
        Ok(Self {
            number,
            store,
            fold,
            clock,
            challenges,
            renewals,
            oldest_renewal: None,
            pending,
            manifest: None,
            log,
            anchor,
            entries,
            unwritten,
        })
    }

    pub fn now(&mut self, sim: &Sim) -> UnixTime {
        self.clock.now(sim.time(), self.fold.state.time())
    }

    pub fn head(&self) -> Head {
        self.anchor.head
    }

    pub fn vault(&self) -> Option<&Vault> {
        self.fold.state.vault()
    }

    /// Takes in a clock that was set ahead, with an entry that says so.
    pub fn watch_clock(&mut self, sim: &Sim) {
        if !self.clock.has_jumped(sim.time(), self.fold.state.time()) {
            return;
        }
        self.stage_renewals();
        let Some((time, unmeasured)) = self.clock.take_jump(sim.time(), self.fold.state.time()) else { return };
        if self.vault().is_some() && unmeasured > 0 {
            let entry = Entry::Clock(ClockJump { time, unmeasured });
            self.stage_entry(sim, &entry).expect("a keeper writes no entry that the fold refuses");
        }
    }

    /// What is due by time, then the commit.
    pub fn tick(&mut self, sim: &mut Sim) -> Result<(), Failure> {
        self.watch_clock(sim);
        if self.oldest_renewal.is_some_and(|oldest| sim.now - oldest > COMMIT_AFTER) && !self.leaves_renewals_out(sim) {
            self.stage_renewals();
        }
        self.commit(sim)
    }

    /// Applies an entry to the pending state and stages the decision behind it.
    pub fn stage<T: Loggable>(&mut self, sim: &Sim, decision: T) -> Result<Ticket<T>, Failure> {
        self.stage_renewals_of_another_time(sim);
        if self.pending.batch.len() >= BATCH_ENTRIES_MAX {
            return Err("batch-full".to_owned());
        }
        self.fold.apply(&decision.entry_bytes()).map_err(|error| error.code().to_owned())?;
        Ok(self.pending.batch.stage(decision).unwrap())
    }

    pub fn stage_entry(&mut self, sim: &Sim, entry: &Entry) -> Result<(), Failure> {
        self.stage(sim, Plain(entry.encode().unwrap())).map(drop)
    }

    pub fn stage_renewals_of_another_time(&mut self, sim: &Sim) {
        let now = self.now(sim);
        if self.renewals.first().is_some_and(|first| first.issued.plus(RENEWAL_COMMIT_SECS_MAX) < now)
            && !self.leaves_renewals_out(sim)
        {
            self.stage_renewals();
        }
    }

    /// Renewals join every commit. One that the fold refuses is not written.
    pub fn stage_renewals(&mut self) {
        self.oldest_renewal = None;
        for chunk in std::mem::take(&mut self.renewals).chunks(RENEWALS_PER_ENTRY) {
            let newest = chunk.last().map_or(UnixTime(0), |renewal| renewal.issued);
            let time = newest.max(self.fold.state.time());
            let bytes = Entry::Renew(Renew { time, renewals: chunk.to_vec() }).encode().unwrap();
            if self.fold.apply(&bytes).is_ok() {
                self.pending.batch.add(bytes).unwrap();
            }
        }
    }

    fn leaves_renewals_out(&self, sim: &Sim) -> bool {
        sim.bug == Some(Bug::RenewalsLeftOut)
    }

    /// Makes everything staged durable, then answers who waits.
    fn commit(&mut self, sim: &mut Sim) -> Result<(), Failure> {
        if !self.pending.batch.is_empty() && !self.leaves_renewals_out(sim) {
            self.stage_renewals();
        }
        let Pending { batch, grants, revoked } = std::mem::take(&mut self.pending);
        if batch.is_empty() {
            return Ok(());
        }
        let mut hands = Hands {
            run: self.number,
            store: self.store,
            anchor: &mut self.anchor,
            entries: &mut self.entries,
            unwritten: &mut self.unwritten,
            sim,
        };
        let head = self.log.commit(batch, &mut hands).map_err(|error| error.code().to_owned())?;
        sim.folds.insert((head.size, head.root), self.fold.clone());
        sim.truth.accept(head);
        sim.truth.serves(self.number);
        for (index, leases) in revoked {
            self.announce(sim, index, &leases);
        }
        for (session, decided, ticket) in grants {
            let logged = ticket.redeem().map_err(|_| "not-logged".to_owned())?;
            self.release(sim, session, decided, &logged);
        }
        Ok(())
    }
}

fn start_entry(sim: &Sim, number: u32, last: UnixTime) -> Vec<u8> {
    let mut run = [0; 16];
    run[..4].copy_from_slice(&number.to_be_bytes());
    let time = clock::wall(sim.time(), last);
    let version = "0.1.0".parse().unwrap();
    let start = Start { time, run, version, tier: Trust::Emulated, time_source: TimeSource::HostClock, keeper: None };
    Entry::Start(start).encode().unwrap()
}

/// The leaf of an entry, as tests compare it.
pub fn leaf(entry: &[u8]) -> ledger::merkle::Hash {
    leaf_hash(entry)
}
