//! What waits for approvals.

mod stored_proposals;

use std::collections::BTreeMap;
use std::sync::Arc;

use attestation::{Sha256Digest, UnixTime};

use super::error::FoldError;
use crate::entry::{GenesisWitness, PlatformChange, ProposedModel, ProposedRaise};
use crate::escrow::{EscrowPlan, Recovery};
use crate::keepers::Joiner;
use crate::key_epoch::NextEpoch;
use crate::names::Name;
use crate::permit::Permit;
use crate::policy::{Policy, ProposerRule};
use crate::reseal::Reseal;
use crate::revocation::{ActKind, RevocationAct};

/// The most proposals of one approver, or of one publisher key, that wait at once: nobody can crowd out the others.
pub const PROPOSALS_PER_PROPOSER_MAX: usize = 16;

/// A proposal that has not taken effect.
#[derive(Debug, Clone)]
pub struct PendingProposal {
    entry: u64,
    object: Sha256Digest,
    subject: Subject,
    not_after: UnixTime,
    threshold: u32,
    /// Until when each approval counts.
    approvals: BTreeMap<Name, UnixTime>,
    /// Evidence that approvals named, where each approver has to see his own.
    witnesses: Vec<Sha256Digest>,
}

/// What is proposed, and by whom.
#[derive(Debug, Clone)]
pub enum Subject {
    /// Another policy.
    Policy {
        /// The approver who signed the proposal.
        proposer: Name,
        /// The policy.
        policy: Arc<Policy>,
    },
    /// A model, by its publisher.
    Model(ProposedModel),
    /// A platform to be enrolled or removed.
    Platform {
        /// The approver who signed the proposal.
        proposer: Name,
        /// What is to become of it.
        change: PlatformChange,
    },
    /// Another boot state for the keeper.
    Reseal {
        /// The approver who signed the proposal.
        proposer: Name,
        /// The boot state.
        reseal: Arc<Reseal>,
    },
    /// Another keeper, by its evidence.
    Join(Arc<Joiner>),
    /// Custodians for the vault's keys.
    Escrow {
        /// The approver who signed the proposal.
        proposer: Name,
        /// Who they are.
        plan: Arc<EscrowPlan>,
    },
    /// Another keeper in the place of one that was lost.
    Recover(Arc<Recovery>),
    /// That a keeper leaves the others.
    Leave {
        /// The approver who signed the proposal.
        proposer: Name,
        /// Instance of the keeper.
        instance: [u8; 32],
    },
    /// Keys of the next epoch, which the keeper made.
    KeyEpoch {
        /// The approver who asked for them.
        proposer: Name,
        /// The keys.
        next: Arc<NextEpoch>,
    },
    /// A raise of a budget.
    Raise {
        /// The approver who signed the proposal.
        proposer: Name,
        /// The raise.
        raise: Box<ProposedRaise>,
    },
    /// A revocation, or the lift of one.
    Revocation {
        /// The approver who signed the proposal.
        proposer: Name,
        /// The act.
        act: RevocationAct,
    },
    /// A standing approval or break-glass.
    Permit {
        /// The approver who signed the proposal.
        proposer: Name,
        /// What it lets be released.
        permit: Box<Permit>,
    },
}

impl Subject {
    /// The approver who proposed it; a model is proposed by its publisher.
    pub fn proposer(&self) -> Option<&Name> {
        match self {
            Self::Policy { proposer, .. }
            | Self::Platform { proposer, .. }
            | Self::Reseal { proposer, .. }
            | Self::Escrow { proposer, .. }
            | Self::Leave { proposer, .. }
            | Self::KeyEpoch { proposer, .. }
            | Self::Raise { proposer, .. }
            | Self::Permit { proposer, .. }
            | Self::Revocation { proposer, .. } => Some(proposer),
            Self::Model(_) | Self::Join(_) | Self::Recover(_) => None,
        }
    }

    fn has_same_proposer(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Model(model), Self::Model(another)) => model.publisher == another.publisher,
            (Self::Revocation { proposer, .. }, Self::Revocation { proposer: another, .. }) => proposer == another,
            (Self::Revocation { .. }, _) | (_, Self::Revocation { .. }) => false,
            (Self::Platform { proposer, .. }, Self::Platform { proposer: another, .. }) => proposer == another,
            (Self::Model(_), _) | (_, Self::Model(_)) => false,
            // Each machine has one: together they are bounded as those of a person are.
            (Self::Join(_) | Self::Recover(_), Self::Join(_) | Self::Recover(_)) => true,
            (Self::Join(_) | Self::Recover(_), _) | (_, Self::Join(_) | Self::Recover(_)) => false,
            (Self::Platform { .. }, _) | (_, Self::Platform { .. }) => false,
            (
                Self::Policy { .. }
                | Self::Reseal { .. }
                | Self::KeyEpoch { .. }
                | Self::Escrow { .. }
                | Self::Leave { .. }
                | Self::Raise { .. }
                | Self::Permit { .. },
                Self::Policy { .. }
                | Self::Reseal { .. }
                | Self::KeyEpoch { .. }
                | Self::Escrow { .. }
                | Self::Leave { .. }
                | Self::Raise { .. }
                | Self::Permit { .. },
            ) => self.proposer() == other.proposer(),
        }
    }

    /// The approver whose proposal it is, where his own approval is subject to `proposer_may_approve`: not where he revokes.
    fn judged_proposer(&self) -> Option<&Name> {
        match self {
            Self::Revocation { proposer, act } => match act.kind() {
                ActKind::Revoke => None,
                ActKind::Lift => Some(proposer),
            },
            Self::Policy { .. }
            | Self::Model(_)
            | Self::Platform { .. }
            | Self::Reseal { .. }
            | Self::Join(_)
            | Self::KeyEpoch { .. }
            | Self::Escrow { .. }
            | Self::Recover(_)
            | Self::Leave { .. }
            | Self::Raise { .. }
            | Self::Permit { .. } => self.proposer(),
        }
    }
}

impl PendingProposal {
    pub(super) fn new(entry: u64, object: Sha256Digest, subject: Subject, not_after: UnixTime, threshold: u32) -> Self {
        Self { entry, object, subject, not_after, threshold, approvals: BTreeMap::new(), witnesses: Vec::new() }
    }

    /// Index of its `propose` entry.
    pub fn entry(&self) -> u64 {
        self.entry
    }

    /// What approvals name.
    pub fn object(&self) -> Sha256Digest {
        self.object
    }

    /// What is proposed.
    pub fn subject(&self) -> &Subject {
        &self.subject
    }

    /// Its last moment.
    pub fn not_after(&self) -> UnixTime {
        self.not_after
    }

    /// How many approvals it takes.
    pub fn threshold(&self) -> u32 {
        self.threshold
    }

    /// Whose approval counts at `now`.
    pub fn approved_by(&self, now: UnixTime) -> impl Iterator<Item = &Name> {
        self.approvals.iter().filter(move |(_, not_after)| now <= **not_after).map(|(approver, _)| approver)
    }

    /// Whether it can take effect at `now`.
    pub fn is_approved(&self, now: UnixTime) -> bool {
        self.check_effective(now).is_ok()
    }

    pub(super) fn is_expired(&self, now: UnixTime) -> bool {
        now > self.not_after
    }

    pub(super) fn check_effective(&self, now: UnixTime) -> Result<(), FoldError> {
        if self.is_expired(now) {
            return Err(FoldError::ProposalExpired { not_after: self.not_after });
        }
        let given = self.approved_by(now).count();
        match u32::try_from(given) {
            Ok(given) if given < self.threshold => {
                Err(FoldError::ThresholdNotReached { given, threshold: self.threshold })
            }
            _ => Ok(()),
        }
    }

    /// Checks that this approver may sign now. An approval that no longer counts may be given anew.
    pub(super) fn check_approver(&self, approver: &Name, rule: ProposerRule, now: UnixTime) -> Result<(), FoldError> {
        if self.is_expired(now) {
            return Err(FoldError::ProposalExpired { not_after: self.not_after });
        }
        if self.subject.judged_proposer() == Some(approver) && rule == ProposerRule::MayNotApprove {
            return Err(FoldError::ProposerMayNotApprove { approver: approver.clone() });
        }
        if self.approved_by(now).any(|id| id == approver) {
            return Err(FoldError::AlreadyApproved { approver: approver.clone() });
        }
        Ok(())
    }

    /// An approval of a recovery names the evidence that its approver saw, each his own: no keeper is left to judge it. No
    /// other approval names any.
    pub(super) fn add_witness(&mut self, witness: Option<GenesisWitness>) -> Result<(), FoldError> {
        match (&self.subject, witness) {
            (Subject::Recover(_), None) => Err(FoldError::WitnessMissing),
            (Subject::Recover(_), Some(witness)) if self.witnesses.contains(&witness.evidence) => {
                Err(FoldError::WitnessRepeated)
            }
            (Subject::Recover(_), Some(witness)) => {
                self.witnesses.push(witness.evidence);
                Ok(())
            }
            (_, Some(_)) => Err(FoldError::WitnessUnexpected),
            (_, None) => Ok(()),
        }
    }

    pub(super) fn add_approval(&mut self, approver: Name, not_after: UnixTime) {
        self.approvals.insert(approver, not_after);
    }
}

/// All of them, by the index of their entry.
#[derive(Debug, Clone, Default)]
pub(super) struct Proposals(BTreeMap<u64, PendingProposal>);

impl Proposals {
    pub(super) fn pending(&self, now: UnixTime) -> impl Iterator<Item = &PendingProposal> {
        self.0.values().filter(move |proposal| !proposal.is_expired(now))
    }

    /// The proposal at this log index.
    pub(super) fn at(&self, entry: u64) -> Result<&PendingProposal, FoldError> {
        self.0.get(&entry).ok_or(FoldError::ProposalUnknown)
    }

    /// The newest proposal of this object: an older one of the same object is past its end.
    pub(super) fn of_object(&mut self, object: Sha256Digest) -> Result<&mut PendingProposal, FoldError> {
        self.0.values_mut().rev().find(|proposal| proposal.object == object).ok_or(FoldError::ProposalUnknown)
    }

    /// Refuses what [`Self::add`] would refuse.
    pub(super) fn check(&self, proposal: &PendingProposal, now: UnixTime) -> Result<(), FoldError> {
        if proposal.is_expired(now) {
            return Err(FoldError::ProposalExpired { not_after: proposal.not_after });
        }
        let subject = &proposal.subject;
        if self.pending(now).any(|other| other.object == proposal.object) {
            return Err(FoldError::ProposalRepeated);
        }
        let of_proposer = self.pending(now).filter(|other| other.subject.has_same_proposer(subject)).count();
        if of_proposer >= PROPOSALS_PER_PROPOSER_MAX {
            return Err(FoldError::TooManyProposals);
        }
        Ok(())
    }

    pub(super) fn add(&mut self, proposal: PendingProposal, now: UnixTime) -> Result<(), FoldError> {
        self.check(&proposal, now)?;
        self.0.retain(|_, other| !other.is_expired(now));
        self.0.insert(proposal.entry, proposal);
        Ok(())
    }

    pub(super) fn void_all(&mut self) {
        self.0.clear();
    }

    /// Voids what else was proposed of a platform, or under its label: it was for what is no more.
    pub(super) fn void_platform(&mut self, changed: &PlatformChange) {
        self.0.retain(|_, proposal| match &proposal.subject {
            Subject::Policy { .. }
            | Subject::Model(_)
            | Subject::Reseal { .. }
            | Subject::Join(_)
            | Subject::Escrow { .. }
            | Subject::Recover(_)
            | Subject::Leave { .. }
            | Subject::KeyEpoch { .. }
            | Subject::Raise { .. }
            | Subject::Permit { .. }
            | Subject::Revocation { .. } => true,
            Subject::Platform { change, .. } => change.platform != changed.platform && change.label != changed.label,
        });
    }

    /// Voids those of boot states: they were approved in view of another one.
    pub(super) fn void_reseals(&mut self) {
        self.0.retain(|_, proposal| match &proposal.subject {
            Subject::Policy { .. }
            | Subject::Model(_)
            | Subject::Platform { .. }
            | Subject::Join(_)
            | Subject::Escrow { .. }
            | Subject::Recover(_)
            | Subject::Leave { .. }
            | Subject::KeyEpoch { .. }
            | Subject::Raise { .. }
            | Subject::Permit { .. }
            | Subject::Revocation { .. } => true,
            Subject::Reseal { .. } => false,
        });
    }

    /// Voids those of other keepers that `void` says yes to.
    pub(super) fn void_joins(&mut self, void: impl Fn(&Joiner) -> bool) {
        self.0.retain(|_, proposal| match &proposal.subject {
            Subject::Policy { .. }
            | Subject::Model(_)
            | Subject::Platform { .. }
            | Subject::Reseal { .. }
            | Subject::Escrow { .. }
            | Subject::Recover(_)
            | Subject::Leave { .. }
            | Subject::KeyEpoch { .. }
            | Subject::Raise { .. }
            | Subject::Permit { .. }
            | Subject::Revocation { .. } => true,
            Subject::Join(joiner) => !void(joiner),
        });
    }

    /// Voids those of custodians: one of them took effect.
    pub(super) fn void_escrows(&mut self) {
        self.0.retain(|_, proposal| !matches!(proposal.subject, Subject::Escrow { .. }));
    }

    /// Voids those of a keeper in the place of a lost one: one of them took effect.
    pub(super) fn void_recoveries(&mut self) {
        self.0.retain(|_, proposal| !matches!(proposal.subject, Subject::Recover(_)));
    }

    /// Voids those by which a keeper would leave: they were approved in view of other keepers.
    pub(super) fn void_leaves(&mut self) {
        self.0.retain(|_, proposal| match &proposal.subject {
            Subject::Policy { .. }
            | Subject::Model(_)
            | Subject::Platform { .. }
            | Subject::Reseal { .. }
            | Subject::Join(_)
            | Subject::KeyEpoch { .. }
            | Subject::Escrow { .. }
            | Subject::Recover(_)
            | Subject::Raise { .. }
            | Subject::Permit { .. }
            | Subject::Revocation { .. } => true,
            Subject::Leave { .. } => false,
        });
    }

    /// Voids those of key epochs: a keeper keeps the keys that it made last, and they are for where it was then.
    pub(super) fn void_epochs(&mut self) {
        self.0.retain(|_, proposal| !matches!(proposal.subject, Subject::KeyEpoch { .. }));
    }

    /// Voids what took effect.
    pub(super) fn void(&mut self, entry: u64) {
        self.0.remove(&entry);
    }

    /// Voids the proposals that would publish what now is published.
    pub(super) fn void_model(&mut self, published: &ProposedModel) {
        self.0.retain(|_, proposal| match &proposal.subject {
            Subject::Policy { .. }
            | Subject::Platform { .. }
            | Subject::Reseal { .. }
            | Subject::Join(_)
            | Subject::Escrow { .. }
            | Subject::Recover(_)
            | Subject::Leave { .. }
            | Subject::KeyEpoch { .. }
            | Subject::Raise { .. }
            | Subject::Permit { .. }
            | Subject::Revocation { .. } => true,
            Subject::Model(model) => model.model != published.model || model.version != published.version,
        });
    }
}
