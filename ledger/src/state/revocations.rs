//! Revocations in force, and what proposing, approving and lifting them does to a vault.

use std::collections::BTreeMap;

use attestation::{Sha256Digest, UnixTime};

use super::error::FoldError;
use super::leases::Lease;
use super::proposals::{PendingProposal, Subject};
use super::stored::stored;
use super::vault::Vault;
use crate::entry::{ProposedRevocation, Revoke};
use crate::names::Name;
use crate::policy::ProposerRule;
use crate::revocation::{ActKind, Holding, RevocationAct, Scope};

/// The most revocations in force: a release is held against each of them.
pub const REVOCATIONS_MAX: usize = 1024;
/// The most of one proposer, so that a few approvers leave no room for the others.
pub const REVOCATIONS_PER_PROPOSER_MAX: usize = 64;

/// A revocation in force.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Revocation {
    /// When its entry was written.
    pub time: UnixTime,
    /// The approver who proposed it.
    pub proposer: Name,
    /// What is revoked. Never a lease: that ends once and for all.
    pub scope: Scope,
}

stored!(Revocation { time, proposer, scope });

/// All of them, by the index of their `revoke` entry.
#[derive(Debug, Clone, Default)]
pub(super) struct Revocations {
    in_force: BTreeMap<u64, Revocation>,
    /// `revoke` entries in the log, lifts included.
    acts: u64,
    /// Those by which leases ended that still count, and some more until the next.
    ended_by: BTreeMap<u64, Revoke>,
}

stored!(Revocations { in_force, acts, ended_by });

impl Revocations {
    pub(super) fn iter(&self) -> impl Iterator<Item = (u64, &Revocation)> {
        self.in_force.iter().map(|(entry, revocation)| (*entry, revocation))
    }

    /// What the next `revoke` act has to say: so many were there before it, and itself.
    pub(super) fn next_serial(&self) -> u64 {
        self.acts.saturating_add(1)
    }

    /// The oldest that covers a holding.
    pub(super) fn covering(&self, held: &Holding) -> Option<u64> {
        self.iter().find(|(_, revocation)| revocation.scope.covers(held)).map(|(entry, _)| entry)
    }

    fn check_room(&self, proposer: &Name, scope: &Scope) -> Result<(), FoldError> {
        if let Some((entry, _)) = self.iter().find(|(_, other)| other.scope == *scope) {
            return Err(FoldError::AlreadyRevoked { revocation: entry });
        }
        let of_proposer = self.in_force.values().filter(|other| other.proposer == *proposer).count();
        if self.in_force.len() >= REVOCATIONS_MAX || of_proposer >= REVOCATIONS_PER_PROPOSER_MAX {
            return Err(FoldError::TooManyRevocations);
        }
        Ok(())
    }
}

impl Vault {
    /// The revocations in force, each with the index of its entry, oldest first.
    pub fn revocations(&self) -> impl Iterator<Item = (u64, &Revocation)> {
        self.revocations.iter()
    }

    /// The serial that the next revocation has to name.
    pub fn next_revocation(&self) -> u64 {
        self.revocations.next_serial()
    }

    /// The revocation in force that covers this, by the index of its entry.
    pub fn revocation_of(&self, held: &Holding) -> Option<u64> {
        self.revocations.covering(held)
    }

    /// The `revoke` entry of this index, as long as a lease that it ended counts.
    pub fn revoke_entry(&self, index: u64) -> Option<&Revoke> {
        self.revocations.ended_by.get(&index)
    }

    pub(super) fn check_not_revoked(&self, held: &Holding) -> Result<(), FoldError> {
        match self.revocation_of(held) {
            Some(revocation) => Err(FoldError::Revoked { revocation }),
            None => Ok(()),
        }
    }

    pub(super) fn proposed_revocation(
        &self,
        index: u64,
        time: UnixTime,
        proposed: ProposedRevocation,
    ) -> Result<PendingProposal, FoldError> {
        let ProposedRevocation { object, revocation: act, statement, signature } = proposed;
        if object != act.object() {
            return Err(FoldError::ObjectMismatch);
        }
        let signed = self.verify(&statement, &signature)?;
        self.expected(act.kind().approval(), object).check(signed.statement(), time)?;
        let proposer = signed.approver().clone();
        if let RevocationAct::Revoke { serial, .. } = act
            && serial != self.next_revocation()
        {
            return Err(FoldError::RevocationSerial { expected: self.next_revocation(), found: serial });
        }
        self.check_revocation(&proposer, &act)?;
        let approval = self.policy().approval();
        // Whoever asks for a revocation has said yes to it. A lift gives something back, as a policy can.
        let (threshold, counts) = match act.kind() {
            ActKind::Revoke => (approval.revoke_threshold, true),
            ActKind::Lift => (approval.threshold, approval.proposer == ProposerRule::MayApprove),
        };
        let not_after = signed.statement().not_after;
        let subject = Subject::Revocation { proposer: proposer.clone(), act };
        let mut proposal = PendingProposal::new(index, object, subject, not_after, threshold);
        if counts {
            proposal.add_approval(proposer, not_after);
        }
        Ok(proposal)
    }

    /// Whether an act could take effect now, its approvals apart.
    pub(super) fn check_revocation(&self, proposer: &Name, act: &RevocationAct) -> Result<(), FoldError> {
        match act {
            RevocationAct::Revoke { scope: Scope::Lease { lease }, .. } => {
                match self.leases.get(*lease).ok_or(FoldError::LeaseUnknown)?.revoked {
                    Some(revocation) => Err(FoldError::AlreadyRevoked { revocation }),
                    None => Ok(()),
                }
            }
            RevocationAct::Revoke { scope, .. } => self.revocations.check_room(proposer, scope),
            RevocationAct::Lift { entry } => match self.revocations.in_force.contains_key(entry) {
                true => Ok(()),
                false => Err(FoldError::RevocationUnknown { entry: *entry }),
            },
        }
    }

    pub(super) fn revoke(&mut self, index: u64, effect: &Revoke) -> Result<(), FoldError> {
        let proposal = self.proposals.at(effect.proposal)?;
        let Subject::Revocation { proposer, act } = proposal.subject() else {
            return Err(FoldError::ActionMismatch);
        };
        if effect.object != proposal.object() || effect.act != act.kind() {
            return Err(FoldError::ObjectMismatch);
        }
        proposal.check_effective(effect.time)?;
        self.check_revocation(proposer, act)?;
        let leases = match act {
            RevocationAct::Revoke { scope, .. } => self.leases.covered(scope, effect.time),
            RevocationAct::Lift { .. } => Vec::new(),
        };
        if u32::try_from(leases.len()) != Ok(effect.leases) {
            return Err(FoldError::LeaseCountMismatch { expected: leases.len(), found: effect.leases });
        }
        let (proposer, act) = (proposer.clone(), act.clone());
        self.proposals.void(effect.proposal);
        self.revocations.acts = self.revocations.acts.saturating_add(1);
        match act {
            RevocationAct::Revoke { scope, .. } => {
                self.leases.revoke(&scope, index);
                self.revocations.ended_by.insert(index, effect.clone());
                let leases = &self.leases;
                self.revocations.ended_by.retain(|index, _| leases.any_revoked_by(*index));
                if !matches!(scope, Scope::Lease { .. }) {
                    let revocation = Revocation { time: effect.time, proposer, scope };
                    self.revocations.in_force.insert(index, revocation);
                }
            }
            RevocationAct::Lift { entry } => drop(self.revocations.in_force.remove(&entry)),
        }
        Ok(())
    }

    /// Until when an agent holds what it was granted, at most, though it hears nothing from `now` on: to the end of its
    /// drain. A lease that can still be renewed may have been a moment ago; the log knows by the next commit.
    pub fn ends_by(&self, lease: &Lease, now: UnixTime) -> UnixTime {
        let renewable = match lease.revoked {
            Some(_) => None,
            None => self.policy().release_rule(&lease.rule).map(|rule| now.plus(rule.lease.seconds())),
        };
        let lost = renewable.map_or(lease.renew_by, |renewed| renewed.max(lease.renew_by));
        lost.plus(lease.granted_under.lease_end.drain_seconds())
    }

    /// The running leases that a revocation of this would end at `now`, by id.
    pub fn leases_covered(&self, scope: &Scope, now: UnixTime) -> Vec<Sha256Digest> {
        self.leases.covered(scope, now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn revocations_have_a_limit_for_all_and_for_each_proposer() {
        let scope = |n: usize| Scope::Platform { platform: Sha256Digest::of(&n.to_be_bytes()) };
        let mut revocations = Revocations::default();
        for n in 0..REVOCATIONS_MAX {
            let proposer = Name::try_from(format!("p{}", n / REVOCATIONS_PER_PROPOSER_MAX)).unwrap();
            assert_eq!(revocations.check_room(&proposer, &scope(n)), Ok(()));
            let revocation = Revocation { time: UnixTime(1), proposer: proposer.clone(), scope: scope(n) };
            revocations.in_force.insert(n as u64, revocation);
            let repeated = FoldError::AlreadyRevoked { revocation: n as u64 };
            assert_eq!(revocations.check_room(&proposer, &scope(n)), Err(repeated));
            if (n + 1) % REVOCATIONS_PER_PROPOSER_MAX == 0 {
                let full = revocations.check_room(&proposer, &scope(n + 1));
                assert_eq!(full, Err(FoldError::TooManyRevocations));
            }
        }
        let other = Name::try_from("other").unwrap();
        assert_eq!(revocations.check_room(&other, &scope(REVOCATIONS_MAX)), Err(FoldError::TooManyRevocations));
    }
}
