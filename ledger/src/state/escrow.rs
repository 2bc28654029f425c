//! Which custodians hold the vault's keys, as far as the log says, and the keeper that has them back by those.

use std::sync::Arc;

use attestation::{Sha256Digest, UnixTime};

use super::error::FoldError;
use super::proposals::{PendingProposal, Subject};
use super::reseal::Sealing;
use super::stored::stored;
use super::vault::Vault;
use crate::approvals::ApprovalAction;
use crate::entry::{EscrowInForce, ProposedEscrow, ProposedRecovery, RecoverInForce};
use crate::escrow::{EscrowError, EscrowPlan, LogPoint, Recovery, RecoveryMode, Rollback, ShareDigests, ShareId};
use crate::genesis::AntiRollback;
use crate::keepers::{JOIN_SECS_MAX, JoinError};

/// The escrows of a vault.
#[derive(Debug, Clone, Default)]
pub struct Escrows {
    made: u64,
    current: Option<Escrow>,
    recovered: Vec<Recovered>,
}

/// The last one.
#[derive(Debug, Clone)]
pub struct Escrow {
    entry: u64,
    object: Sha256Digest,
    plan: Arc<EscrowPlan>,
    record: Sha256Digest,
    shares: Vec<ShareDigests>,
}

/// A keeper that was lost, and what came in its place.
#[derive(Debug, Clone)]
pub struct Recovered {
    entry: u64,
    lost: [u8; 32],
    from: LogPoint,
    rollback: Rollback,
}

stored!(Escrows { made, current, recovered });
stored!(Escrow { entry, object, plan, record, shares });
stored!(Recovered { entry, lost, from, rollback });

impl Escrows {
    /// How many there were: the next has one number more.
    pub fn made(&self) -> u64 {
        self.made
    }

    /// The last one.
    pub fn current(&self) -> Option<&Escrow> {
        self.current.as_ref()
    }

    /// Each time that a keeper was lost.
    pub fn recovered(&self) -> &[Recovered] {
        &self.recovered
    }
}

impl Escrow {
    /// One that no log holds yet: as a keeper is about to write it.
    pub fn of(plan: EscrowPlan, vault: Sha256Digest, record: Sha256Digest, shares: Vec<ShareDigests>) -> Self {
        Self { entry: 0, object: plan.object(vault), plan: Arc::new(plan), record, shares }
    }

    /// Index of its `escrow` entry.
    pub fn entry(&self) -> u64 {
        self.entry
    }

    /// What the approvals named.
    pub fn object(&self) -> Sha256Digest {
        self.object
    }

    /// Who has which share.
    pub fn plan(&self) -> &EscrowPlan {
        &self.plan
    }

    /// SHA-256 of the record of the vault's keys.
    pub fn record(&self) -> Sha256Digest {
        self.record
    }

    /// Each share, with what the log says of it.
    pub fn shares(&self, vault: Sha256Digest) -> impl Iterator<Item = (ShareId, ShareDigests)> {
        ShareId::all(&self.plan, vault, self.record).into_iter().zip(self.shares.iter().copied())
    }

    /// The splitting.
    pub fn set(&self, vault: Sha256Digest) -> Sha256Digest {
        self.plan.set(vault, self.record)
    }
}

impl Recovered {
    /// Index of its `recover` entry.
    pub fn entry(&self) -> u64 {
        self.entry
    }

    /// Instance of the keeper that was lost.
    pub fn lost(&self) -> &[u8; 32] {
        &self.lost
    }

    /// The log that the vault goes on from.
    pub fn from(&self) -> LogPoint {
        self.from
    }

    /// Whether entries may be missing behind it.
    pub fn rollback(&self) -> Rollback {
        self.rollback
    }
}

impl Vault {
    /// Who holds the vault's keys against the loss of its keeper.
    pub fn escrows(&self) -> &Escrows {
        &self.escrows
    }

    /// The escrow by which the vault could be recovered now.
    ///
    /// # Errors
    /// [`EscrowError::NoEscrow`]; [`EscrowError::Epoch`] where it holds keys of another epoch.
    pub fn escrow_in_force(&self) -> Result<&Escrow, EscrowError> {
        let escrow = self.escrows.current.as_ref().ok_or(EscrowError::NoEscrow)?;
        self.check_escrow_epoch(escrow.plan.epoch)?;
        Ok(escrow)
    }

    /// Whether the loss of the keeper is survived: custodians hold the present keys, and a keeper could take its place.
    pub fn is_recoverable(&self) -> bool {
        self.check_counted().is_ok() && self.escrow_in_force().is_ok()
    }

    /// Copies of the keeper that takes the place of a lost one are kept out by its counter.
    fn check_counted(&self) -> Result<(), EscrowError> {
        match self.genesis().core().anti_rollback() {
            AntiRollback::Counter => Ok(()),
            AntiRollback::Witnesses | AntiRollback::None => Err(EscrowError::NoCounter),
        }
    }

    /// The plan for these custodians, with the number and the epoch that come next.
    pub fn next_escrow(&self, threshold: u32, custodians: Vec<crate::escrow::Custodian>) -> EscrowPlan {
        EscrowPlan {
            number: self.escrows.made.saturating_add(1),
            epoch: self.epochs.present().epoch,
            threshold,
            custodians,
        }
    }

    /// The plan of a proposal that the fold would take at `now`.
    ///
    /// # Errors
    /// What the fold says of such a `propose` entry.
    pub fn vet_escrow(&self, proposed: &ProposedEscrow, now: UnixTime) -> Result<EscrowPlan, FoldError> {
        let proposal = self.proposed_escrow(u64::MAX, now, proposed)?;
        self.proposals.check(&proposal, now)?;
        Ok(proposed.plan())
    }

    pub(super) fn proposed_escrow(
        &self,
        index: u64,
        time: UnixTime,
        proposed: &ProposedEscrow,
    ) -> Result<PendingProposal, FoldError> {
        self.check_policy_runs(time)?;
        let plan = proposed.plan();
        if proposed.object != plan.object(self.id()) {
            return Err(FoldError::ObjectMismatch);
        }
        let signed = self.verify(&proposed.statement, &proposed.signature)?;
        self.expected(ApprovalAction::ProposeEscrow, proposed.object).check(signed.statement(), time)?;
        self.check_escrow(&plan).map_err(FoldError::Escrow)?;
        let not_after = signed.statement().not_after.min(self.policy().not_after());
        let subject = Subject::Escrow { proposer: signed.approver().clone(), plan: Arc::new(plan) };
        Ok(PendingProposal::new(index, proposed.object, subject, not_after, self.policy().approval().threshold))
    }

    fn check_escrow(&self, plan: &EscrowPlan) -> Result<(), EscrowError> {
        plan.check()?;
        match self.escrows.made.saturating_add(1) {
            expected if plan.number != expected => Err(EscrowError::Number { expected }),
            _ => self.check_escrow_epoch(plan.epoch),
        }
    }

    /// The keys that the vault has now: shares of older ones give what it was, and not what it will release.
    fn check_escrow_epoch(&self, epoch: u32) -> Result<(), EscrowError> {
        match self.epochs.present().epoch {
            present if present != epoch => Err(EscrowError::Epoch { present }),
            _ => Ok(()),
        }
    }

    pub(super) fn take_escrow(&mut self, index: u64, effect: &EscrowInForce) -> Result<(), FoldError> {
        let proposal = self.proposals.at(effect.proposal)?;
        let Subject::Escrow { plan, .. } = proposal.subject() else {
            return Err(FoldError::ActionMismatch);
        };
        if effect.object != proposal.object() {
            return Err(FoldError::ObjectMismatch);
        }
        self.check_policy_runs(effect.time)?;
        proposal.check_effective(effect.time)?;
        self.check_escrow(plan).map_err(FoldError::Escrow)?;
        if effect.shares.len() != plan.custodians.len() {
            return Err(FoldError::Escrow(EscrowError::ShareCount));
        }
        let EscrowInForce { object, record, shares, .. } = effect.clone();
        self.escrows.made = plan.number;
        self.escrows.current = Some(Escrow { entry: index, object, plan: Arc::clone(plan), record, shares });
        self.proposals.void_escrows();
        Ok(())
    }

    /// Whether this keeper may take the place of a lost one at the end of this log of `size` entries, approvals apart.
    ///
    /// # Errors
    /// [`FoldError::Join`], [`FoldError::Escrow`].
    pub fn check_recovery(&self, recovery: &Recovery, size: u64) -> Result<(), FoldError> {
        self.check_counted().map_err(FoldError::Escrow)?;
        self.check_joiner(&recovery.joiner).map_err(FoldError::Join)?;
        let escrow = self.escrow_in_force().map_err(FoldError::Escrow)?;
        if recovery.set != escrow.set(self.id()) {
            return Err(FoldError::Escrow(EscrowError::OtherSet));
        }
        if recovery.from.size != size {
            return Err(FoldError::Escrow(EscrowError::OtherLog { size }));
        }
        Ok(())
    }

    /// A policy that is past its end does not stand in the way: whoever wants another one in force needs a keeper first.
    pub(super) fn proposed_recovery(
        &self,
        index: u64,
        time: UnixTime,
        proposed: &ProposedRecovery,
    ) -> Result<PendingProposal, FoldError> {
        let recovery = proposed.recovery();
        if proposed.object != recovery.object(self.id(), RecoveryMode::Recover) {
            return Err(FoldError::ObjectMismatch);
        }
        if proposed.not_after > time.plus(JOIN_SECS_MAX) {
            return Err(FoldError::Escrow(EscrowError::TooLong));
        }
        self.check_recovery(&recovery, index)?;
        let subject = Subject::Recover(Arc::new(recovery));
        let threshold = self.policy().approval().threshold;
        Ok(PendingProposal::new(index, proposed.object, subject, proposed.not_after, threshold))
    }

    /// From here on the keeper of before is none, as if it had retired for this one.
    pub(super) fn recovered(&mut self, index: u64, effect: &RecoverInForce) -> Result<(), FoldError> {
        let proposal = self.proposals.at(effect.proposal)?;
        let Subject::Recover(recovery) = proposal.subject() else {
            return Err(FoldError::ActionMismatch);
        };
        if effect.object != proposal.object() {
            return Err(FoldError::ObjectMismatch);
        }
        proposal.check_effective(effect.time)?;
        let recovery = Arc::clone(recovery);
        if self.keepers.knows(&recovery.joiner.machine) {
            return Err(FoldError::Join(JoinError::KeeperAlready));
        }
        if effect.lost != self.keepers.current().instance {
            return Err(FoldError::Escrow(EscrowError::OtherKeeper));
        }
        // Another word than the approved one would be a refusal; there is one word.
        let rollback = match (effect.rollback, recovery.rollback) {
            (Rollback::Accepted, Rollback::Accepted) => Rollback::Accepted,
        };
        let (lost, from) = (effect.lost, recovery.from);
        self.escrows.recovered.push(Recovered { entry: index, lost, from, rollback });
        self.keepers.succeeded_by(Arc::new(recovery.joiner.clone()));
        self.sealing = Sealing::default();
        self.proposals.void_reseals();
        self.proposals.void_epochs();
        self.proposals.void_joins(|_| true);
        self.proposals.void_recoveries();
        Ok(())
    }
}
