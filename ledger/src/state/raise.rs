//! Budgets as the fold sees them: releases that spend them, and raises that approvers give.

use attestation::{Sha256Digest, UnixTime};

use super::alarms::Alarm;
use super::budgets::{Asked, BudgetRefusal, BudgetUse, Raise, check_raise};
use super::error::FoldError;
use super::proposals::{PendingProposal, Subject};
use super::vault::Vault;
use crate::approvals::{ApprovalAction, raise_object};
use crate::entry::{BudgetRaised, ClockJump, ProposedRaise};
use crate::names::Name;

impl Vault {
    /// Every limit of the budgets in force that is in use at `now`.
    pub fn budget_uses(&self, now: UnixTime) -> Vec<BudgetUse> {
        self.budgets.uses(self.policy(), &self.leases, now)
    }

    /// The raises that have their approvals and are not past their end at the last entry, used up or not.
    pub fn raises(&self) -> &[Raise] {
        self.budgets.raises().all()
    }

    /// Whether the budgets let a release through at `now`.
    ///
    /// # Errors
    /// The limit that it would pass.
    pub fn check_budgets(
        &self,
        model: &Name,
        platform: Sha256Digest,
        bytes: u64,
        now: UnixTime,
    ) -> Result<(), BudgetRefusal> {
        let asked = Asked { model, platform, bytes };
        self.budgets.check(&asked, self.policy(), &self.leases, now).map(drop)
    }

    /// How many releases rang since the vault was opened.
    pub fn alarm_count(&self) -> u64 {
        self.alarms.count()
    }

    /// The newest of them first, at most [`ALARMS_SHOWN_MAX`](super::ALARMS_SHOWN_MAX).
    pub fn alarms(&self) -> impl Iterator<Item = &Alarm> {
        self.alarms.newest()
    }

    /// A jump is some of the time since the entry before, or all of it.
    pub(super) fn check_jump(&self, jump: &ClockJump) -> Result<(), FoldError> {
        match jump.unmeasured {
            0 => Err(FoldError::UnmeasuredImpossible),
            unmeasured if unmeasured > self.budgets.gap(jump.time) => Err(FoldError::UnmeasuredImpossible),
            _ => Ok(()),
        }
    }

    pub(super) fn proposed_raise(
        &self,
        index: u64,
        time: UnixTime,
        proposed: ProposedRaise,
    ) -> Result<PendingProposal, FoldError> {
        self.check_policy_runs(time)?;
        if proposed.object != raise_object(&proposed.budget, proposed.amounts(), proposed.until) {
            return Err(FoldError::ObjectMismatch);
        }
        let signed = self.verify(&proposed.statement, &proposed.signature)?;
        self.expected(ApprovalAction::ProposeBudget, proposed.object).check(signed.statement(), time)?;
        check_raise(&proposed, self.policy(), time)?;
        // Its approvals are in the log for everybody to send again.
        if self.budgets.raises().has(proposed.object) {
            return Err(FoldError::RaiseRepeated);
        }
        let not_after = signed.statement().not_after.min(proposed.until);
        let (object, threshold) = (proposed.object, self.policy().approval().threshold);
        let subject = Subject::Raise { proposer: signed.approver().clone(), raise: Box::new(proposed) };
        Ok(PendingProposal::new(index, object, subject, not_after, threshold))
    }

    pub(super) fn budget_raised(&mut self, index: u64, effect: &BudgetRaised) -> Result<(), FoldError> {
        let proposal = self.proposals.at(effect.proposal)?;
        let Subject::Raise { raise, .. } = proposal.subject() else {
            return Err(FoldError::ActionMismatch);
        };
        if (effect.object, &effect.budget) != (proposal.object(), &raise.budget) {
            return Err(FoldError::ObjectMismatch);
        }
        self.check_policy_runs(effect.time)?;
        proposal.check_effective(effect.time)?;
        if self.budgets.raises().is_full() {
            return Err(FoldError::TooManyRaises);
        }
        self.budgets.raises_mut().add(index, raise);
        self.proposals.void(effect.proposal);
        Ok(())
    }
}
