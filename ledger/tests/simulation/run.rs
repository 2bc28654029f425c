//! One run of the keeper: the order of `vault-enclave/src/keeper/vault.rs` and `vault/open.rs` around the real fold, the
//! real decision and the real commit.

use std::collections::BTreeMap;

use attestation::{Sha256Digest, Trust, UnixTime};
use ledger::checkpoint::Checkpoint;
use ledger::decide::EvidencedGrant;
use ledger::entry::{ClockJump, Entry, Renew, Renewal, Start, TimeSource};
use ledger::lease::LeaseStatement;
use ledger::merkle::leaf_hash;
use ledger::release_log::{BATCH_ENTRIES_MAX, Batch, ClosedLog, Log, LogReader, Loggable, Ticket};
use ledger::state::{LoggedManifest, RENEWAL_COMMIT_SECS_MAX, Vault};

use crate::bug::Bug;
use crate::clock::{self, Clock};
use crate::commit::Hands;
use crate::devices::{Anchor, Bytes, Cut, Head};
use crate::fold::Fold;
use crate::mail::SessionId;
use crate::sim::Sim;

/// Age in boot time at which uncounted renewals are committed by themselves.
const COMMIT_AFTER: u64 = 120;
const RENEWALS_PER_ENTRY: usize = 32;

pub struct Run {
    pub number: u32,
    /// How often its clock was set ahead.
    jumps: u32,
    /// Whether it knows, of these letters, that it still is the run that counts.
    checked: bool,
    /// What ends it.
    cut: Option<Cut>,
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
    /// Renewals that are answered behind the commit.
    pub renewed: Vec<(usize, SessionId, LeaseStatement)>,
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
        let mut reader = LogReader::new(head);
        entries.iter().try_for_each(|entry| reader.push(entry)).map_err(|error| error.code().to_owned())?;
        let closed = match there {
            0 => ClosedLog::empty(),
            _ => reader.finish().map_err(|error| error.code().to_owned())?,
        };
        let mut fold = sim.folded(head, &entries)?;
        let first = match there {
            0 => sim.scene.world.genesis.bytes().to_vec(),
            _ => {
                let last = fold.state.time();
                let still = runs_revoked(&fold, last) && sim.bug != Some(Bug::JumpEndsRevoked);
                let time = if still { last } else { clock::wall(sim.time(), last) };
                start_entry(number, 0, time).encode().unwrap()
            }
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
        let (challenges, renewals, pending) = (BTreeMap::new(), Vec::new(), Pending::default());
        Ok(Self {
            number,
            jumps: 0,
            checked: false,
            cut: None,
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

    /// Takes in a clock that was set ahead, as a run of its own.
    pub fn watch_clock(&mut self, sim: &Sim) {
        let (time, last) = (sim.time(), self.fold.state.time());
        let waits = sim.bug != Some(Bug::JumpEndsRevoked) && runs_revoked(&self.fold, self.clock.shown(time, last));
        if !self.clock.has_jumped(time, last) || waits {
            return;
        }
        self.stage_renewals();
        let last = self.fold.state.time();
        let Some(now) = self.clock.take_jump(time, last) else { return };
        if self.vault().is_some() {
            self.jumps += 1;
            let entry = match sim.bug {
                Some(Bug::JumpEndsLeases) => {
                    Entry::Clock(ClockJump { time: now, unmeasured: now.seconds() - last.seconds() })
                }
                _ => start_entry(self.number, self.jumps, now),
            };
            self.stage_entry(sim, &entry).expect("a keeper writes no entry that the fold refuses");
        }
    }

    /// Letters that came before this are answered.
    pub fn begin_batch(&mut self) {
        self.checked = false;
    }

    /// Whether another run has its place, once for the letters that came (`Vault::check_own_run`).
    pub fn check_own_run(&mut self, sim: &mut Sim) -> Result<(), Failure> {
        if !self.checked {
            self.anchor.check_run(sim).map_err(|cut| self.ends(cut))?;
            self.checked = true;
        }
        sim.step(self.number, "before it signs a renewal").map_err(|cut| self.ends(cut))
    }

    fn ends(&mut self, cut: Cut) -> Failure {
        self.cut = Some(cut);
        format!("{cut:?}")
    }

    pub fn is_cut(&self) -> bool {
        self.cut.is_some()
    }

    /// What is due by time, then the commit.
    pub fn tick(&mut self, sim: &mut Sim) -> Result<(), Failure> {
        if let Some(cut) = self.cut {
            return Err(format!("{cut:?}"));
        }
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
        let waits = !self.pending.batch.is_empty() || !self.pending.renewed.is_empty();
        if waits && !self.leaves_renewals_out(sim) {
            self.stage_renewals();
        }
        let Pending { batch, grants, renewed, revoked } = std::mem::take(&mut self.pending);
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
        for (index, leases) in revoked {
            self.announce(sim, index, &leases);
        }
        for (agent, session, statement) in renewed {
            self.answer_renewal(sim, agent, session, &statement);
        }
        for (session, decided, ticket) in grants {
            let logged = ticket.redeem().map_err(|_| "not-logged".to_owned())?;
            self.release(sim, session, decided, &logged);
        }
        Ok(())
    }
}

/// Whether a lease runs that a revocation has ended.
fn runs_revoked(fold: &Fold, now: UnixTime) -> bool {
    fold.state.vault().is_some_and(|vault| vault.leases(now).any(|(_, lease)| lease.revoked.is_some()))
}

fn start_entry(number: u32, jumps: u32, time: UnixTime) -> Entry {
    let mut run = [0; 16];
    run[..4].copy_from_slice(&number.to_be_bytes());
    run[4..8].copy_from_slice(&jumps.to_be_bytes());
    let version = "0.1.0".parse().unwrap();
    Entry::Start(Start { time, run, version, tier: Trust::Emulated, time_source: TimeSource::HostClock, keeper: None })
}

/// The leaf of an entry, as tests compare it.
pub fn leaf(entry: &[u8]) -> ledger::merkle::Hash {
    leaf_hash(entry)
}
