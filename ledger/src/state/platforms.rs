//! The platforms that were enrolled: EKs without a certificate, which approvers vouch for.

use std::collections::BTreeMap;
use std::sync::Arc;

use attestation::{EnrolledEk, EnrolledEks, Sha256Digest, Trust};

use super::error::FoldError;
use super::proposals::{PendingProposal, Subject};
use super::stored::{Reader, Stored, Writer, stored};
use super::vault::Vault;
use crate::approvals::ApprovalAction;
use crate::entry::{PlatformAct, PlatformChange, PlatformInForce, ProposedPlatform};
use crate::names::Name;
use crate::snapshot::SnapshotError;

/// The most platforms that are enrolled, or were changed under the policy in force.
pub const PLATFORMS_MAX: usize = 4096;

/// An enrolled platform.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EnrolledPlatform {
    /// Index of its `platform` entry.
    pub entry: u64,
    /// What people call it.
    pub label: Name,
    /// What its TPM counts as.
    pub counts_as: Trust,
}

stored!(EnrolledPlatform { entry, label, counts_as });

/// All of them.
#[derive(Debug, Clone, Default)]
pub struct Platforms {
    enrolled: BTreeMap<Sha256Digest, EnrolledPlatform>,
    /// Since the policy in force came into force, by platform.
    changes: BTreeMap<Sha256Digest, Changes>,
    /// [`Self::enrolled`] as a verifier takes it.
    eks: Arc<EnrolledEks>,
}

#[derive(Debug, Clone, Copy)]
struct Changes {
    count: u64,
    /// Object and entry of the last one.
    last: (Sha256Digest, u64),
}

stored!(Changes { count, last });

/// Without what verification is given, which follows from the enrolled.
impl Stored for Platforms {
    fn store(&self, to: &mut Writer) {
        let Self { enrolled, changes, eks: _ } = self;
        enrolled.store(to);
        changes.store(to);
    }

    fn restore(from: &mut Reader<'_>) -> Result<Self, SnapshotError> {
        let (enrolled, changes) = (Stored::restore(from)?, Stored::restore(from)?);
        let mut platforms = Self { enrolled, changes, eks: Arc::default() };
        platforms.share();
        Ok(platforms)
    }
}

impl Platforms {
    /// One of them.
    pub fn get(&self, platform: Sha256Digest) -> Option<&EnrolledPlatform> {
        self.enrolled.get(&platform)
    }

    /// All of them, by platform id.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (Sha256Digest, &EnrolledPlatform)> {
        self.enrolled.iter().map(|(platform, enrolled)| (*platform, enrolled))
    }

    /// As a verifier takes them.
    pub fn eks(&self) -> &Arc<EnrolledEks> {
        &self.eks
    }

    /// The revision that the next change of a platform must have.
    pub fn revision(&self, platform: Sha256Digest) -> u64 {
        self.changes.get(&platform).map_or(0, |changes| changes.count)
    }

    /// The entry of the last change of a platform under the policy in force, by what its approvals named.
    pub fn effective(&self, object: Sha256Digest) -> Option<u64> {
        self.changes.values().find(|changes| changes.last.0 == object).map(|changes| changes.last.1)
    }

    /// Refuses what the change does not fit.
    fn check(&self, change: &PlatformChange) -> Result<(), FoldError> {
        if change.revision != self.revision(change.platform) {
            return Err(FoldError::PlatformRevision);
        }
        match (change.act, self.enrolled.get(&change.platform)) {
            (PlatformAct::Add, Some(_)) => Err(FoldError::PlatformEnrolled),
            (PlatformAct::Add, None) if self.enrolled.values().any(|other| other.label == change.label) => {
                Err(FoldError::PlatformLabelTaken)
            }
            (PlatformAct::Add, None) => self.check_room(change.platform),
            (PlatformAct::Remove, Some(enrolled))
                if (&enrolled.label, enrolled.counts_as) == (&change.label, change.counts_as) =>
            {
                Ok(())
            }
            (PlatformAct::Remove, Some(_) | None) => Err(FoldError::PlatformNotEnrolled),
        }
    }

    fn check_room(&self, platform: Sha256Digest) -> Result<(), FoldError> {
        let known = self.changes.contains_key(&platform);
        match self.enrolled.len() >= PLATFORMS_MAX || !known && self.changes.len() >= PLATFORMS_MAX {
            true => Err(FoldError::TooManyPlatforms),
            false => Ok(()),
        }
    }

    fn change(&mut self, index: u64, change: &PlatformChange) {
        match change.act {
            PlatformAct::Add => {
                let (label, counts_as) = (change.label.clone(), change.counts_as);
                self.enrolled.insert(change.platform, EnrolledPlatform { entry: index, label, counts_as });
            }
            PlatformAct::Remove => drop(self.enrolled.remove(&change.platform)),
        }
        let count = self.revision(change.platform).saturating_add(1);
        self.changes.insert(change.platform, Changes { count, last: (change.object(), index) });
        self.share();
    }

    fn share(&mut self) {
        let ek =
            |enrolled: &EnrolledPlatform| EnrolledEk { label: enrolled.label.to_string(), trust: enrolled.counts_as };
        let eks = self.enrolled.iter().map(|(platform, enrolled)| (*platform, ek(enrolled)));
        self.eks = Arc::new(eks.collect());
    }

    /// Another policy is in force: nothing that was signed under the one before counts any more. One that lets nobody enrol
    /// platforms has none, so that none comes back with a later policy.
    pub(super) fn policy_changed(&mut self, may_enrol: bool) {
        self.changes.clear();
        if !may_enrol {
            self.enrolled.clear();
            self.share();
        }
    }
}

impl Vault {
    /// What of a proposed change waits for approvals.
    pub(super) fn proposed_platform(
        &self,
        index: u64,
        time: attestation::UnixTime,
        proposed: &ProposedPlatform,
    ) -> Result<PendingProposal, FoldError> {
        self.check_policy_runs(time)?;
        let threshold = self.policy().platform_threshold().ok_or(FoldError::PlatformsNotAllowed)?;
        let change = proposed.change();
        if proposed.object != change.object() {
            return Err(FoldError::ObjectMismatch);
        }
        let signed = self.verify(&proposed.statement, &proposed.signature)?;
        self.expected(ApprovalAction::ProposePlatform, proposed.object).check(signed.statement(), time)?;
        self.platforms().check(&change)?;
        let subject = Subject::Platform { proposer: signed.approver().clone(), change };
        Ok(PendingProposal::new(index, proposed.object, subject, signed.statement().not_after, threshold))
    }

    pub(super) fn platform_in_force(&mut self, index: u64, effect: &PlatformInForce) -> Result<(), FoldError> {
        let proposal = self.proposals.at(effect.proposal)?;
        let Subject::Platform { change, .. } = proposal.subject() else {
            return Err(FoldError::ActionMismatch);
        };
        if (effect.object, effect.act, effect.platform) != (proposal.object(), change.act, change.platform) {
            return Err(FoldError::ObjectMismatch);
        }
        self.check_policy_runs(effect.time)?;
        proposal.check_effective(effect.time)?;
        self.platforms.check(change)?;
        let change = change.clone();
        self.platforms.change(index, &change);
        self.proposals.void_platform(&change);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn add(n: usize) -> PlatformChange {
        let (platform, label) = (Sha256Digest::of(&n.to_be_bytes()), format!("gpu-{n}").parse().unwrap());
        PlatformChange { act: PlatformAct::Add, platform, label, counts_as: Trust::Hardware, revision: 0 }
    }

    #[test]
    fn there_are_at_most_4096() {
        let mut platforms = Platforms::default();
        for n in 0..PLATFORMS_MAX {
            assert_eq!(platforms.check_room(add(n).platform), Ok(()));
            platforms.change(n as u64, &add(n));
        }
        assert_eq!(platforms.check(&add(PLATFORMS_MAX)), Err(FoldError::TooManyPlatforms));
        // One that was removed is still remembered under this policy, so that nothing signed for it counts again.
        let remove = PlatformChange { act: PlatformAct::Remove, revision: 1, ..add(7) };
        assert_eq!(platforms.check(&remove), Ok(()));
        platforms.change(9, &remove);
        assert_eq!(platforms.check(&add(PLATFORMS_MAX)), Err(FoldError::TooManyPlatforms));
        platforms.policy_changed(true);
        assert_eq!(platforms.check(&add(PLATFORMS_MAX)), Ok(()));
    }
}
