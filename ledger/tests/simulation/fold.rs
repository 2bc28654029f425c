//! The state that a keeper decides by: the real fold. A planted bug shows it another history than the log has.

use std::collections::{BTreeMap, BTreeSet};

use attestation::{Sha256Digest, UnixTime};
use ledger::approvals::ApprovalStatement;
use ledger::entry::{Approve, DenySummary, Entry, Revoke};
use ledger::state::{FoldError, State};

use crate::bug::Bug;
use crate::devices::Bytes;
use crate::scene::{GUESTS, LEASES_MAX};
use crate::support::keys::Person;
use crate::support::world::{ALICE, BOB, CAROL};

#[derive(Clone)]
pub struct Fold {
    pub state: State,
    bug: Option<Bug>,
    /// What the state was shown.
    shown: Vec<Bytes>,
    /// Until when leases run: kept apart by a keeper that loses them elsewhere.
    leases: BTreeMap<Sha256Digest, UnixTime>,
    approved: BTreeSet<(Sha256Digest, u8)>,
}

impl Fold {
    pub fn new(bug: Option<Bug>) -> Self {
        let (shown, leases, approved) = (Vec::new(), BTreeMap::new(), BTreeSet::new());
        Self { state: State::new(), bug, shown, leases, approved }
    }

    pub fn apply(&mut self, bytes: &[u8]) -> Result<(), FoldError> {
        let Some(bug) = self.bug else { return self.state.apply(self.state.size(), bytes) };
        let entry = Entry::parse(bytes).map_err(FoldError::Entry)?;
        let forgets = matches!(bug, Bug::RestartForgetsLeases | Bug::BudgetRefillsOnRestart);
        if forgets && matches!(entry, Entry::Start(_)) {
            self.state = self.without(|entry| matches!(entry, Entry::Release(_) | Entry::Renew(_) | Entry::End(_)));
        }
        let entry = match entry {
            // What was forgotten can't be renewed or ended.
            Entry::Renew(renew) if forgets => filler(renew.time),
            Entry::End(end) if forgets => {
                self.leases.remove(&end.lease);
                filler(end.time)
            }
            Entry::Approve(approve) if bug == Bug::ApprovalCountsTwice => Entry::Approve(self.another(approve)),
            entry if bug == Bug::EntriesOfTheHostsTime => later(entry, self.state.time()),
            entry => entry,
        };
        if let Entry::Release(release) = &entry {
            self.leases.insert(release.lease, release.renew_by);
        }
        let shown = entry.encode().unwrap();
        self.state.apply(self.state.size(), &shown)?;
        self.shown.push(shown.into());
        Ok(())
    }

    /// Whether a keeper that keeps its leases apart has room for one more.
    pub fn has_room(&self, now: UnixTime) -> bool {
        self.bug != Some(Bug::BudgetRefillsOnRestart)
            || self.leases.values().filter(|renew_by| now <= **renew_by).count() < LEASES_MAX
    }

    /// The state as it would be had these entries not been.
    pub fn without(&self, gone: impl Fn(&Entry) -> bool) -> State {
        let mut state = State::new();
        for bytes in &self.shown {
            let entry = Entry::parse(bytes).unwrap();
            let entry = if gone(&entry) { filler(entry.time()) } else { entry };
            // What followed from something that is gone is gone too; a revocation of it counts fewer leases.
            let like_it = |leases| match &entry {
                Entry::Revoke(revoke) => Entry::Revoke(Revoke { leases, ..revoke.clone() }),
                entry => entry.clone(),
            };
            let fewer = std::iter::once(entry.clone()).chain((0..GUESTS as u32).map(like_it));
            let taken = fewer.chain([filler(entry.time())]).any(|entry| {
                let bytes = entry.encode().unwrap();
                state.apply(state.size(), &bytes).is_ok()
            });
            assert!(taken, "an entry that changes nothing is always taken");
        }
        state
    }

    /// The same approval by somebody who has not approved yet.
    fn another(&mut self, approve: Approve) -> Approve {
        let Ok(statement) = ApprovalStatement::parse(approve.statement.as_bytes()) else { return approve };
        let signer = [ALICE, BOB, CAROL].into_iter().find(|person| {
            let signed = Person::new(*person).sign(approve.statement.as_bytes());
            signed == approve.signature
        });
        let Some(signer) = signer.filter(|_| approve.witness.is_none()) else { return approve };
        let free =
            [signer, ALICE, BOB, CAROL].into_iter().find(|one| !self.approved.contains(&(statement.object, *one)));
        let Some(person) = free else { return approve };
        self.approved.insert((statement.object, person));
        Approve { signature: Person::new(person).sign(approve.statement.as_bytes()), ..approve }
    }
}

/// An entry that changes nothing.
fn filler(time: UnixTime) -> Entry {
    let counts = [("filler".parse().unwrap(), 1)].into();
    Entry::DenySummary(DenySummary { time, since: time, counts })
}

/// The entry with a time that is not before `last`.
fn later(entry: Entry, last: UnixTime) -> Entry {
    let mut entry = entry;
    match &mut entry {
        Entry::Propose(propose) => propose.time = propose.time.max(last),
        Entry::Approve(approve) => approve.time = approve.time.max(last),
        _ => {}
    }
    entry
}
