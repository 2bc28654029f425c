//! A past under another policy: what a candidate would have left of budgets and permits, and which leases would run, had it
//! been in force since the vault was opened.
//!
//! What the log says of people counts as it stands there: raises and permits that approvers gave, each until its end or until
//! it is used up, and revocations. No policy of the past ends any of them, since none but the candidate is in force. What it
//! lets through uses them up; what it refuses takes no place. A refusal of the past that it would grant takes as much of the
//! budgets as the whole model, since the log does not say how much was asked for, and no lease.

use std::sync::Arc;

use attestation::{Sha256Digest, UnixTime};

use super::State;
use super::alarms::Alarms;
use super::allowances::{Allowances, AskedLoad};
use super::budgets::Budgets;
use super::leases::Leases;
use super::permits::Permits;
use super::proposals::{PendingProposal, Subject};
use crate::entry::Entry;
use crate::policy::Policy;

/// Follows a log, entry by entry.
#[derive(Debug)]
pub struct Rehearsal {
    policy: Arc<Policy>,
    budgets: Budgets,
    alarms: Alarms,
    permits: Permits,
    leases: Leases,
    /// Leases that the last entry began or changed: how, only the state behind it knows.
    changed: Vec<Sha256Digest>,
}

impl Rehearsal {
    /// Of this candidate.
    pub fn new(policy: Arc<Policy>) -> Self {
        Self {
            policy,
            budgets: Budgets::default(),
            alarms: Alarms::default(),
            permits: Permits::default(),
            leases: Leases::default(),
            changed: Vec::new(),
        }
    }

    /// The candidate.
    pub fn policy(&self) -> &Arc<Policy> {
        &self.policy
    }

    /// What is left.
    pub fn allowances(&self) -> Allowances<'_> {
        let Self { policy, budgets, alarms, permits, leases, .. } = self;
        Allowances { policy, budgets, alarms, permits, leases }
    }

    /// An entry comes next, and this is the state before it: before it is judged.
    pub fn prepare(&mut self, before: &State) {
        let Some(vault) = before.vault() else { return };
        for id in std::mem::take(&mut self.changed) {
            let _ = self.leases.end(id);
            if let Some(lease) = vault.lease(id) {
                self.leases.add(id, lease.clone());
            }
        }
    }

    /// A load was let through at `now`: a release of the log with its lease, or a refusal of the log.
    pub(crate) fn take(&mut self, asked: &AskedLoad<'_>, lease: Option<Sha256Digest>) {
        let (charges, raised, permits) = match self.allowances().check(asked) {
            Ok(passage) => (passage.charges, passage.raised, [passage.standing, passage.break_glass]),
            // Of what could not be judged it is not known by what it would have passed.
            Err(_) => (Vec::new(), Vec::new(), [None, None]),
        };
        self.budgets.take(&asked.budgets(), &charges, &self.policy, asked.now);
        raised.iter().for_each(|alarm| self.budgets.raises_mut().pass(alarm, asked.now));
        permits.into_iter().flatten().for_each(|entry| self.permits.charge(entry));
        self.alarms.know(asked.model, asked.platform, asked.measurement);
        self.changed.extend(lease);
    }

    /// The entry is over: whatever it is, time has passed, and what people agreed to counts.
    pub fn follow(&mut self, before: &State, entry: &Entry) {
        let proposal = |index: u64| before.vault().and_then(|vault| vault.proposals.at(index).ok());
        match entry {
            Entry::Budget(effect) => {
                if let Some(Subject::Raise { raise, .. }) = proposal(effect.proposal).map(PendingProposal::subject) {
                    self.budgets.raises_mut().add(before.size(), raise);
                }
            }
            Entry::Permit(effect) => {
                if let Some(Subject::Permit { permit, .. }) = proposal(effect.proposal).map(PendingProposal::subject) {
                    self.permits.add(before.size(), effect.object, permit);
                }
            }
            Entry::Renew(renew) => {
                let here = renew.renewals.iter().map(|renewal| renewal.lease);
                self.changed.extend(here.filter(|id| self.leases.get(*id).is_some()));
            }
            Entry::End(end) => drop(self.leases.end(end.lease)),
            // Any of them may run on, or be over.
            Entry::Start(_) | Entry::Extend(_) | Entry::Revoke(_) => {
                self.changed.extend(self.leases.in_force(UnixTime(0)).map(|(id, _)| id));
            }
            Entry::Genesis(_)
            | Entry::Propose(_)
            | Entry::Approve(_)
            | Entry::Policy(_)
            | Entry::Model(_)
            | Entry::Platform(_)
            | Entry::Reseal(_)
            | Entry::Resealed(_)
            | Entry::KeeperJoin(_)
            | Entry::KeeperRetire(_)
            | Entry::KeeperLeave(_)
            | Entry::KeyEpoch(_)
            | Entry::Escrow(_)
            | Entry::Recover(_)
            | Entry::Clock(_)
            | Entry::Alarm(_)
            | Entry::Release(_)
            | Entry::Deny(_)
            | Entry::DenySummary(_)
            | Entry::Upgrade(_) => {}
        }
        let time = entry.time();
        self.leases.advance(time);
        self.budgets.advance(time, before.unmeasured(entry), &self.policy);
        self.permits.forget(time);
    }
}
