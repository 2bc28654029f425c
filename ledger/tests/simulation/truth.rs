//! What really happened, told by the devices and by who looks on, and never by the code that is tried: and the laws that
//! must hold in it.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use attestation::{Sha256Digest, UnixTime};
use ledger::checkpoint::Checkpoint;
use ledger::entry::Entry;
use ledger::lease::LeaseStatement;
use ledger::merkle::{Hash, Tree};

use crate::bug::{Bug, Law};
use crate::devices::{Bytes, Head};
use crate::fold::Fold;
use crate::run::leaf;
use crate::scene::{Guard, RAISE, RELEASES_PER_HOUR};

/// As many distinct approvers agree to whatever takes effect.
const THRESHOLD: usize = 2;
/// A keeper's clock is in whole seconds, and each run may round one up.
const WINDOW_SECS: u64 = 3600 - 60;
/// A keeper may be so far ahead of what passed.
const ROUNDING_SECS: u64 = 2;
/// The longest extension.
const EXTENSION_SECS_MAX: u64 = 7 * 24 * 3600;

pub struct Truth {
    pub violation: Option<(Law, String)>,
    pub now: u64,
    guard: Guard,
    bug: Option<Bug>,
    durable: BTreeSet<(u32, usize, Hash)>,
    /// The size of the head that a run wrote last, how many it wrote, and how often the TPM counted for it.
    heads: BTreeMap<u32, (u64, u32, u32)>,
    cosigned: BTreeMap<(u64, Hash), BTreeSet<usize>>,
    /// Logs whose heads were signed.
    signed: BTreeMap<(u64, Hash), Rc<[Bytes]>>,
    /// The log that the world has seen.
    seen: Vec<Bytes>,
    /// The time of its last entry.
    last: UnixTime,
    audit: Fold,
    objects: BTreeMap<Sha256Digest, BTreeSet<u8>>,
    effects: BTreeMap<Sha256Digest, u64>,
    raises: usize,
    releases: Vec<u64>,
    bounds: BTreeMap<Sha256Digest, u64>,
    /// Until when agents hold on to leases.
    held: BTreeMap<Sha256Digest, u64>,
    /// Until when nobody may hold on to a lease that was revoked, by what the log says of it.
    ends: BTreeMap<Sha256Digest, u64>,
}

impl Truth {
    /// Who folds the log from outside does it with the same code.
    pub fn new(guard: Guard, bug: Option<Bug>, now: u64) -> Self {
        Self {
            violation: None,
            now,
            guard,
            bug,
            durable: BTreeSet::new(),
            heads: BTreeMap::new(),
            cosigned: BTreeMap::new(),
            signed: BTreeMap::new(),
            seen: Vec::new(),
            last: UnixTime(0),
            audit: Fold::new(bug),
            objects: BTreeMap::new(),
            effects: BTreeMap::new(),
            raises: 0,
            releases: Vec::new(),
            bounds: BTreeMap::new(),
            held: BTreeMap::new(),
            ends: BTreeMap::new(),
        }
    }

    /// The first one counts.
    pub fn breaks(&mut self, law: Law, why: String) {
        self.violation.get_or_insert((law, why));
    }

    pub fn durable(&mut self, run: u32, index: usize, leaf: Hash) {
        self.durable.insert((run, index, leaf));
    }

    pub fn head_written(&mut self, run: u32, head: Head) {
        let (size, written, _) = self.heads.entry(run).or_default();
        (*size, *written) = (head.size, *written + 1);
    }

    /// The TPM counted for a run.
    pub fn counted(&mut self, run: u32) {
        let (_, _, counted) = self.heads.entry(run).or_default();
        *counted += 1;
    }

    pub fn cosigned(&mut self, witness: usize, head: Checkpoint) {
        self.cosigned.entry((head.size, head.root)).or_default().insert(witness);
    }

    /// The log key signs the head of this log.
    pub fn signs(&mut self, entries: &[Bytes]) {
        let mut tree = Tree::new();
        entries.iter().for_each(|entry| tree.push(leaf(entry)));
        let size = entries.len() as u64;
        self.signed.insert((size, tree.root(size).unwrap()), entries.into());
    }

    pub fn signs_object(&mut self, person: u8, object: Sha256Digest) {
        self.objects.entry(object).or_default().insert(person);
    }

    /// A key leaves a keeper, by this entry: the reservation of its budget, made when it was decided.
    pub fn key_leaves(&mut self, run: u32, index: u64, entry: &[u8], decided: u64) {
        if !self.durable.contains(&(run, usize::try_from(index).unwrap(), leaf(entry))) {
            self.breaks(Law::NoEntryNoKey, format!("a key left run {run}, and entry {index} is on no disk"));
        }
        let covered = match self.guard {
            Guard::Counter => {
                let (size, written, counted) = self.heads.get(&run).copied().unwrap_or_default();
                size > index && counted >= 2 && counted >= written
            }
            Guard::Witnesses | Guard::OneFaultyOfThree => self.cosigned.iter().any(|((size, root), witnesses)| {
                let log = self.signed.get(&(*size, *root));
                let entry_of = |log: &Rc<[Bytes]>| log.get(usize::try_from(index).unwrap()).cloned();
                witnesses.len() >= self.guard.quorum() && log.and_then(entry_of).is_some_and(|found| *found == *entry)
            }),
        };
        if !covered {
            self.breaks(
                Law::NoEntryNoKey,
                format!("a key left run {run}, and nothing that counts covers entry {index}"),
            );
        }
        self.releases.push(decided);
        let (from, most) = (decided.saturating_sub(WINDOW_SECS), RELEASES_PER_HOUR + self.raises * RAISE as usize);
        let released = self.releases.iter().filter(|at| **at > from && **at <= decided).count();
        if released > most {
            self.breaks(Law::Budget, format!("{released} releases in an hour, and {most} are allowed"));
        }
    }

    /// A keeper signs a lease at `now`.
    pub fn lease_signed(&mut self, statement: &LeaseStatement, now: u64) {
        let seconds = statement.renew_by.seconds().saturating_sub(statement.issued.seconds());
        let bound = self.bounds.entry(statement.lease).or_default();
        *bound = (*bound).max(now + seconds);
    }

    /// No key leaves for a lease that the log has revoked.
    pub fn check_not_revoked(&mut self, run: u32, lease: Sha256Digest) {
        let revoked = self.audit.state.vault().and_then(|vault| vault.lease(lease)).and_then(|lease| lease.revoked);
        if let Some(entry) = revoked {
            self.breaks(Law::LeaseBound, format!("run {run} releases keys of a lease that entry {entry} has revoked"));
        }
    }

    /// An agent holds on to a lease until then, by what a keeper signed.
    pub fn holds(&mut self, lease: Sha256Digest, deadline: u64) {
        let bound = self.bounds.get(&lease).copied().unwrap_or(0);
        if deadline > bound {
            let over = deadline - bound;
            self.breaks(Law::LeaseBound, format!("an agent holds its lease for {over} s longer than was signed for"));
        }
        self.held.insert(lease, deadline);
        self.check_end(lease);
    }

    /// No lease is over in the log that the world has seen while its holder still has it.
    pub fn check_counted(&mut self, lease: Sha256Digest) {
        let renew_by = self.audit.state.vault().and_then(|vault| vault.lease(lease)).map(|lease| lease.renew_by);
        let counted = renew_by.is_some_and(|renew_by| self.last <= renew_by.plus(ROUNDING_SECS));
        // Who looks on forgets what this bug forgets.
        if !counted && self.bug != Some(Bug::BudgetRefillsOnRestart) {
            self.breaks(Law::LeasesAtOnce, "an agent holds a lease that the log counts as over".to_owned());
        }
    }

    /// A lease that was revoked ends when `vaultctl revoke` says that it does, at the latest.
    fn check_end(&mut self, lease: Sha256Digest) {
        let (held, end) = (self.held.get(&lease).copied().unwrap_or(0), self.ends.get(&lease).copied());
        if let Some(end) = end.filter(|end| held > *end) {
            let over = held - end;
            self.breaks(
                Law::LeaseBound,
                format!("an agent holds a revoked lease for {over} s longer than the log says"),
            );
        }
    }

    /// The same by an extension, from `now` on.
    pub fn extended(&mut self, object: Sha256Digest, deadline: u64, now: u64) {
        let approvers = self.objects.get(&object).map_or(0, BTreeSet::len);
        if approvers < THRESHOLD {
            self.breaks(Law::LeaseBound, format!("a lease runs on, and {approvers} approvers have signed that"));
        }
        if deadline > now + EXTENSION_SECS_MAX {
            self.breaks(Law::LeaseBound, "a lease runs on for longer than 7 days".to_owned());
        }
    }

    /// Somebody takes this head for the log's.
    pub fn accept(&mut self, head: Checkpoint) {
        let Some(log) = self.signed.get(&(head.size, head.root)).cloned() else {
            return self.breaks(Law::OneLog, format!("a head of {} entries that nobody signed", head.size));
        };
        let common = log.len().min(self.seen.len());
        if let Some(index) = (0..common).find(|index| log[*index] != self.seen[*index]) {
            return self.breaks(Law::OneLog, format!("two heads were accepted, and differ in entry {index}"));
        }
        for entry in &log[common..] {
            self.see(entry);
        }
    }

    fn see(&mut self, bytes: &Bytes) {
        let (index, entry) = (self.seen.len() as u64, Entry::parse(bytes).unwrap());
        self.seen.push(bytes.clone());
        if entry.time() < self.last {
            self.breaks(Law::TimeGoesOn, format!("entry {index} is of a time before the one before it"));
        }
        self.last = entry.time();
        let object = match &entry {
            Entry::Policy(effect) => Some(effect.object),
            Entry::Budget(effect) => {
                self.raises += 1;
                Some(effect.object)
            }
            Entry::Revoke(effect) => Some(effect.object),
            _ => None,
        };
        if let Some(object) = object {
            let approvers = self.objects.get(&object).map_or(0, BTreeSet::len);
            if approvers < THRESHOLD {
                self.breaks(
                    Law::Threshold,
                    format!("entry {index} took effect, and {approvers} approvers signed that"),
                );
            }
            if let Some(before) = self.effects.insert(object, index) {
                let what = entry.type_name();
                self.breaks(
                    Law::Threshold,
                    format!("the {what} of entry {index} took effect before, in entry {before}"),
                );
            }
        }
        if let Err(error) = self.audit.apply(bytes) {
            self.breaks(Law::Auditor, format!("an auditor's fold refuses entry {index}: {}", error.code()));
        }
        if matches!(entry, Entry::Revoke(_)) {
            self.see_revoked(index, entry.time());
        }
    }

    fn see_revoked(&mut self, index: u64, time: UnixTime) {
        let leases = self.audit.state.vault().into_iter().flat_map(|vault| vault.leases(time));
        let revoked = leases.filter(|(_, lease)| lease.revoked == Some(index));
        let ends: Vec<_> = revoked.map(|(id, lease)| (id, lease.renew_by.seconds() - time.seconds())).collect();
        for (lease, left) in ends {
            self.ends.insert(lease, self.now + left + ROUNDING_SECS);
            self.check_end(lease);
        }
    }
}
