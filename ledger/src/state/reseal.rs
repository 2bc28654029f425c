//! What the keeper's root is sealed to, as far as the log says.

use std::sync::Arc;

use attestation::{Sha256Digest, UnixTime};

use super::error::FoldError;
use super::proposals::{PendingProposal, Subject};
use super::stored::stored;
use super::vault::Vault;
use crate::approvals::ApprovalAction;
use crate::entry::{ProposedReseal, ResealInForce, Resealed};
use crate::reseal::{Reseal, ResealError};

/// The boot states of a keeper: the present one, and the one to come.
#[derive(Debug, Clone, Default)]
pub struct Sealing {
    /// `None` before the first reseal: the log does not say what the ceremony sealed to.
    present: Option<Sha256Digest>,
    next: Option<NextBoot>,
    /// Of the reseal that took effect last.
    object: Option<Sha256Digest>,
}

stored!(Sealing { present, next, object });

/// From this fold on approvals name the [revision](Vault::reseal_revision) of a reseal.
const REVISION_FOLD: u32 = 4;

/// The boot state that an approved reseal is about.
#[derive(Debug, Clone)]
pub struct NextBoot {
    object: Sha256Digest,
    reseal: Arc<Reseal>,
}

stored!(NextBoot { object, reseal });

/// What a boot state is to a keeper.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// The one that it is on since the last reseal, or since its ceremony.
    Present,
    /// The one to come, by the reseal of this object.
    Next(Sha256Digest),
    /// None of the two: of before a reseal, or of a reseal that another one took the place of.
    Superseded,
}

impl Sealing {
    /// The boot state that the keeper is on, once a reseal has named it.
    pub fn present(&self) -> Option<Sha256Digest> {
        self.present
    }

    /// The one that it is sealed to beside it, if any.
    pub fn next(&self) -> Option<&NextBoot> {
        self.next.as_ref()
    }

    /// What the approvals of the last reseal named.
    pub fn object(&self) -> Option<Sha256Digest> {
        self.object
    }

    /// What this boot state is to the keeper.
    pub fn standing(&self, boot_state: Sha256Digest) -> Standing {
        match &self.next {
            Some(next) if next.reseal.boot_state() == boot_state => Standing::Next(next.object),
            Some(_) | None if self.present.is_none_or(|present| present == boot_state) => Standing::Present,
            Some(_) | None => Standing::Superseded,
        }
    }
}

impl NextBoot {
    /// What the approvals named.
    pub fn object(&self) -> Sha256Digest {
        self.object
    }

    /// The boot state.
    pub fn reseal(&self) -> &Reseal {
        &self.reseal
    }
}

impl Vault {
    /// What the keeper's root is sealed to.
    pub fn sealing(&self) -> &Sealing {
        &self.sealing
    }

    /// The number of `reseal` and `resealed` entries so far, which approvals name: what was signed before one of them counts
    /// no more behind it. 0 where the log asks for a fold without it.
    pub fn reseal_revision(&self) -> u64 {
        if self.fold >= REVISION_FOLD { self.reseals } else { 0 }
    }

    /// The boot state of a proposal that the fold would take at `now`. A keeper asks before it looks at its own hardware.
    ///
    /// # Errors
    /// What the fold says of such a `propose` entry.
    pub fn vet_reseal(&self, proposed: &ProposedReseal, now: UnixTime) -> Result<Reseal, FoldError> {
        let proposal = self.proposed_reseal(u64::MAX, now, proposed)?;
        self.proposals.check(&proposal, now)?;
        Ok(proposed.reseal())
    }

    pub(super) fn proposed_reseal(
        &self,
        index: u64,
        time: UnixTime,
        proposed: &ProposedReseal,
    ) -> Result<PendingProposal, FoldError> {
        self.check_policy_runs(time)?;
        let reseal = proposed.reseal();
        if proposed.object != reseal.object(self.reseal_revision()) {
            return Err(FoldError::ObjectMismatch);
        }
        let signed = self.verify(&proposed.statement, &proposed.signature)?;
        self.expected(ApprovalAction::ProposeReseal, proposed.object).check(signed.statement(), time)?;
        self.check_reseal(&reseal)?;
        let not_after = signed.statement().not_after.min(self.policy().not_after());
        let subject = Subject::Reseal { proposer: signed.approver().clone(), reseal: Arc::new(reseal) };
        let threshold = self.policy().approval().threshold;
        Ok(PendingProposal::new(index, proposed.object, subject, not_after, threshold))
    }

    /// What a keeper's root is sealed to, as far as the log says: of one that was let in beside others, nothing.
    pub fn sealing_of(&self, instance: [u8; 32]) -> Sealing {
        match self.keepers.current().instance == instance {
            true => self.sealing.clone(),
            false => Sealing::default(),
        }
    }

    fn check_reseal(&self, reseal: &Reseal) -> Result<(), FoldError> {
        // The entry that seals says where its keeper is now, and one entry can't speak for several.
        if self.keepers.is_shared() {
            return Err(FoldError::Reseal(ResealError::Shared));
        }
        reseal.check(self.genesis(), self.keepers.current(), self.policy()).map_err(FoldError::Reseal)?;
        // Back to the present one is a way to take a reseal back, as long as there is one.
        let (state, next) = (reseal.boot_state(), self.sealing.next.as_ref());
        let already = match next {
            Some(next) => next.reseal.boot_state() == state,
            None => self.sealing.present == Some(state),
        };
        if already { Err(FoldError::Reseal(ResealError::Already)) } else { Ok(()) }
    }

    pub(super) fn reseal_in_force(&mut self, effect: &ResealInForce) -> Result<(), FoldError> {
        let proposal = self.proposals.at(effect.proposal)?;
        let Subject::Reseal { reseal, .. } = proposal.subject() else {
            return Err(FoldError::ActionMismatch);
        };
        if effect.object != proposal.object() {
            return Err(FoldError::ObjectMismatch);
        }
        self.check_policy_runs(effect.time)?;
        proposal.check_effective(effect.time)?;
        self.check_reseal(reseal)?;
        if self.sealing.standing(effect.present) != Standing::Present {
            return Err(FoldError::Reseal(ResealError::PresentMismatch));
        }
        let next = NextBoot { object: effect.object, reseal: Arc::clone(reseal) };
        let next = (next.reseal.boot_state() != effect.present).then_some(next);
        self.sealing = Sealing { present: Some(effect.present), next, object: Some(effect.object) };
        self.reseals = self.reseals.saturating_add(1);
        self.proposals.void_reseals();
        // Their root was sealed to where the keeper is now alone.
        self.proposals.void_epochs();
        Ok(())
    }

    pub(super) fn resealed(&mut self, effect: &Resealed) -> Result<(), FoldError> {
        match &self.sealing.next {
            Some(next) if next.object == effect.object => {
                let present = Some(next.reseal.boot_state());
                self.sealing = Sealing { present, next: None, object: Some(effect.object) };
                self.reseals = self.reseals.saturating_add(1);
                self.proposals.void_reseals();
                Ok(())
            }
            Some(_) | None => Err(FoldError::Reseal(ResealError::NotNext)),
        }
    }
}
