//! An open vault: the policy in force, what is proposed, the models, the leases.

mod stored_vault;

use std::collections::BTreeMap;
use std::sync::Arc;

use attestation::{Sha256Digest, UnixTime};

use super::alarms::Alarms;
use super::budgets::Budgets;
use super::error::FoldError;
use super::escrow::Escrows;
use super::keepers::Keepers;
use super::key_epochs::KeyEpochs;
use super::leases::{Lease, Leases};
use super::permits::Permits;
use super::platforms::Platforms;
use super::proposals::{PendingProposal, Proposals, Subject};
use super::reseal::Sealing;
use super::revocations::Revocations;
use super::statement::Expected;
use super::stored::stored;
use crate::approvals::{self, ApprovalAction, SignedStatement, model_object};
use crate::entry::{Approve, Entry, ModelPublished, PolicyInForce, Proposal, Propose, ProposedModel, ProposedPolicy};
use crate::genesis::{Genesis, SealTo};
use crate::keepers::KeeperMachine;
use crate::names::{Name, Version};
use crate::permit::PermitKind;
use crate::policy::{Lineage, Policy};
use crate::revocation::ActKind;

/// A vault whose genesis every approver has signed.
#[derive(Debug, Clone)]
pub struct Vault {
    genesis: Arc<Genesis>,
    policy: Arc<Policy>,
    pub(super) keepers: Keepers,
    pub(super) escrows: Escrows,
    pub(super) epochs: KeyEpochs,
    pub(super) proposals: Proposals,
    pub(super) platforms: Platforms,
    models: BTreeMap<Name, BTreeMap<Version, Arc<PublishedModel>>>,
    pub(super) leases: Leases,
    pub(super) sealing: Sealing,
    pub(super) budgets: Budgets,
    pub(super) alarms: Alarms,
    pub(super) revocations: Revocations,
    pub(super) permits: Permits,
    /// The number of `reseal` and `resealed` entries.
    pub(super) reseals: u64,
    /// The fold that entries are read by.
    pub(super) fold: u32,
}

/// A model that may be released.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PublishedModel {
    /// Index of its `model` entry.
    pub entry: u64,
    /// As it was proposed and approved.
    pub proposed: ProposedModel,
}

stored!(PublishedModel { entry, proposed });

impl Vault {
    pub(super) fn open(genesis: Arc<Genesis>) -> Self {
        let policy = Arc::new(genesis.policy().clone());
        let keepers = Keepers::founded_by(KeeperMachine::from(genesis.keeper()));
        let epochs = KeyEpochs::first(&genesis);
        Self {
            genesis,
            policy,
            keepers,
            escrows: Escrows::default(),
            epochs,
            proposals: Proposals::default(),
            platforms: Platforms::default(),
            models: BTreeMap::new(),
            leases: Leases::default(),
            sealing: Sealing::default(),
            budgets: Budgets::default(),
            alarms: Alarms::default(),
            revocations: Revocations::default(),
            permits: Permits::default(),
            reseals: 0,
            fold: 0,
        }
    }

    /// The vault's id.
    pub fn id(&self) -> Sha256Digest {
        self.genesis.vault_id()
    }

    /// Its genesis.
    pub fn genesis(&self) -> &Genesis {
        &self.genesis
    }

    /// The policy in force.
    pub fn policy(&self) -> &Arc<Policy> {
        &self.policy
    }

    /// What waits for approvals at `now`, oldest first.
    pub fn pending(&self, now: UnixTime) -> impl Iterator<Item = &PendingProposal> {
        self.proposals.pending(now)
    }

    /// The oldest proposal that can take effect at `now`.
    pub fn due(&self, now: UnixTime) -> Option<&PendingProposal> {
        self.all_due(now).next()
    }

    /// All of them, oldest first.
    pub fn all_due(&self, now: UnixTime) -> impl Iterator<Item = &PendingProposal> {
        let runs = !self.policy.is_expired(now);
        self.pending(now).filter(move |proposal| {
            let permitted = match proposal.subject() {
                Subject::Policy { .. } => true,
                Subject::Model(_)
                | Subject::Platform { .. }
                | Subject::Reseal { .. }
                | Subject::Join(_)
                | Subject::KeyEpoch { .. }
                | Subject::Escrow { .. } => runs,
                // A keeper may be lost for longer than a policy lasts.
                Subject::Recover(_) => true,
                Subject::Leave { instance, .. } => runs && self.check_leave(*instance).is_ok(),
                Subject::Raise { .. } => runs && !self.budgets.raises().is_full(),
                Subject::Permit { permit, .. } => runs && !self.permits.is_full(permit.kind),
                // A policy past its end must not be what keeps somebody from revoking.
                Subject::Revocation { proposer, act } => self.check_revocation(proposer, act).is_ok(),
            };
            permitted && proposal.is_approved(now)
        })
    }

    /// The platforms whose EKs have no certificate, and were enrolled.
    pub fn platforms(&self) -> &Platforms {
        &self.platforms
    }

    /// The published models, by name and version.
    pub fn models(&self) -> impl Iterator<Item = &PublishedModel> {
        self.models.values().flat_map(|versions| versions.values().map(Arc::as_ref))
    }

    /// One published model.
    pub fn model(&self, model: &Name, version: &Version) -> Option<&Arc<PublishedModel>> {
        self.models.get(model)?.get(version)
    }

    /// The leases in force at `now`.
    pub fn leases(&self, now: UnixTime) -> impl Iterator<Item = (Sha256Digest, &Lease)> {
        self.leases.in_force(now)
    }

    /// A lease, also one that has just run out.
    pub fn lease(&self, id: Sha256Digest) -> Option<&Lease> {
        self.leases.get(id)
    }

    /// How many leases of a rule are in force at `now`.
    pub fn lease_count(&self, rule: &Name, now: UnixTime) -> u32 {
        self.leases.count(rule, now)
    }

    /// The policy of a proposal that the fold would take at `now`: signed by an approver, the next one of this vault, and
    /// not waiting already. A keeper asks before it looks at its own hardware, which takes time that no stranger may spend.
    ///
    /// # Errors
    /// What the fold says of such a `propose` entry.
    pub fn vet_policy(&self, proposed: &ProposedPolicy, now: UnixTime) -> Result<Arc<Policy>, FoldError> {
        // The index becomes that of the entry, which there is none of yet.
        let proposal = self.proposed_policy(u64::MAX, now, proposed)?;
        self.proposals.check(&proposal, now)?;
        match proposal.subject() {
            Subject::Policy { policy, .. } => Ok(Arc::clone(policy)),
            Subject::Model(_)
            | Subject::Platform { .. }
            | Subject::Reseal { .. }
            | Subject::Join(_)
            | Subject::Escrow { .. }
            | Subject::Recover(_)
            | Subject::Leave { .. }
            | Subject::KeyEpoch { .. }
            | Subject::Raise { .. }
            | Subject::Permit { .. }
            | Subject::Revocation { .. } => Err(FoldError::ActionMismatch),
        }
    }

    pub(super) fn take(&mut self, index: u64, entry: Entry) -> Result<(), FoldError> {
        self.check_not_retired()?;
        let announces = matches!(entry, Entry::Alarm(_) | Entry::Release(_));
        self.take_entry(index, entry)?;
        if !announces {
            self.alarms.silence();
        }
        Ok(())
    }

    fn take_entry(&mut self, index: u64, entry: Entry) -> Result<(), FoldError> {
        match entry {
            Entry::Propose(Propose { time, proposal }) => self.propose(index, time, proposal),
            Entry::Approve(approve) => self.approve(&approve),
            Entry::Policy(effect) => self.policy_in_force(&effect),
            Entry::Model(effect) => self.model_published(index, &effect),
            Entry::Platform(effect) => self.platform_in_force(index, &effect),
            Entry::Reseal(effect) => self.reseal_in_force(&effect),
            Entry::Resealed(effect) => self.resealed(&effect),
            Entry::KeeperJoin(effect) => self.keeper_join(index, &effect),
            Entry::KeeperRetire(effect) => self.keeper_retire(&effect),
            Entry::Escrow(effect) => self.take_escrow(index, &effect),
            Entry::Recover(effect) => self.recovered(index, &effect),
            Entry::KeeperLeave(effect) => self.keeper_leave(&effect),
            Entry::KeyEpoch(effect) => self.key_epoch(index, &effect),
            Entry::Budget(effect) => self.budget_raised(index, &effect),
            Entry::Permit(effect) => self.permit_in_force(index, &effect),
            Entry::Clock(jump) => self.check_jump(&jump),
            Entry::Alarm(alarm) => self.alarms.announce(alarm, &self.policy),
            Entry::Release(release) => self.release(index, *release),
            Entry::Renew(renew) => self.renew(&renew),
            Entry::End(end) => self.leases.end(end.lease),
            Entry::Revoke(effect) => self.revoke(index, &effect),
            Entry::Extend(extend) => self.extend(&extend),
            Entry::Deny(_) => Ok(()),
            Entry::DenySummary(summary) if summary.since > summary.time => Err(FoldError::SinceAfterTime),
            Entry::DenySummary(_) => Ok(()),
            Entry::Genesis(_) | Entry::Start(_) | Entry::Upgrade(_) => Err(FoldError::GenesisRepeated),
        }
    }

    /// The time of the last entry is now `time`; `unmeasured` of the seconds since the one before refill no budget. What
    /// follows is read by `fold`.
    pub(super) fn advance(&mut self, time: UnixTime, unmeasured: u64, fold: u32) {
        self.fold = fold;
        self.leases.advance(time);
        self.budgets.advance(time, unmeasured, &self.policy);
        self.permits.forget(time);
    }

    pub(super) fn restart(&mut self, last: UnixTime, start: UnixTime) {
        self.leases.restart(last, start, &self.policy);
        self.alarms.silence();
    }

    /// Refuses what a policy past its end no longer permits.
    pub(super) fn check_policy_runs(&self, now: UnixTime) -> Result<(), FoldError> {
        match self.policy.is_expired(now) {
            true => Err(FoldError::PolicyExpired { not_after: self.policy.not_after() }),
            false => Ok(()),
        }
    }

    fn propose(&mut self, index: u64, time: UnixTime, proposal: Proposal) -> Result<(), FoldError> {
        let proposal = match proposal {
            Proposal::Policy(proposed) => self.proposed_policy(index, time, &proposed)?,
            Proposal::Model(proposed) => self.proposed_model(index, time, proposed)?,
            Proposal::Platform(proposed) => self.proposed_platform(index, time, &proposed)?,
            Proposal::Reseal(proposed) => self.proposed_reseal(index, time, &proposed)?,
            Proposal::KeeperJoin(proposed) => {
                let proposal = self.proposed_join(index, time, &proposed)?;
                self.proposals.check(&proposal, time)?;
                // What the same machine proposed before was of a root that it has made anew.
                self.proposals.void_joins(|joiner| joiner.machine.platform == proposed.platform);
                proposal
            }
            Proposal::Escrow(proposed) => self.proposed_escrow(index, time, &proposed)?,
            Proposal::Recover(proposed) => self.proposed_recovery(index, time, &proposed)?,
            Proposal::KeeperLeave(proposed) => self.proposed_leave(index, time, &proposed)?,
            Proposal::KeyEpoch(proposed) => {
                let proposal = self.proposed_epoch(index, time, &proposed)?;
                self.proposals.check(&proposal, time)?;
                // The keeper keeps the keys that it made last.
                self.proposals.void_epochs();
                proposal
            }
            Proposal::Budget(proposed) => self.proposed_raise(index, time, proposed)?,
            Proposal::Revocation(proposed) => self.proposed_revocation(index, time, proposed)?,
            Proposal::Permit(proposed) => self.proposed_permit(index, time, proposed)?,
        };
        self.proposals.add(proposal, time)
    }

    fn proposed_policy(
        &self,
        index: u64,
        time: UnixTime,
        proposed: &ProposedPolicy,
    ) -> Result<PendingProposal, FoldError> {
        if proposed.object != Sha256Digest::of(proposed.policy.as_bytes()) {
            return Err(FoldError::ObjectMismatch);
        }
        let signed = self.verify(&proposed.statement, &proposed.signature)?;
        self.expected(ApprovalAction::ProposePolicy, proposed.object).check(signed.statement(), time)?;
        let policy = Policy::parse(&proposed.policy).map_err(FoldError::Policy)?;
        self.check_successor(&policy, time)?;
        // Approved after its own end it could never take effect, and would stand before every proposal that can.
        let not_after = signed.statement().not_after.min(policy.not_after());
        let subject = Subject::Policy { proposer: signed.approver().clone(), policy: Arc::new(policy) };
        let threshold = self.policy.approval().threshold;
        Ok(PendingProposal::new(index, proposed.object, subject, not_after, threshold))
    }

    /// Whether this policy could be the next one of the vault, signatures apart.
    ///
    /// # Errors
    /// What the fold says of a proposal of it.
    pub fn check_successor(&self, policy: &Policy, now: UnixTime) -> Result<(), FoldError> {
        let Lineage::Successor { vault, serial, prev } = policy.lineage() else {
            return Err(FoldError::PolicyIsFirst);
        };
        if vault != self.id() {
            return Err(FoldError::PolicyOfAnotherVault);
        }
        if Some(serial) != self.policy.serial().checked_add(1) {
            return Err(FoldError::PolicySerial { in_force: self.policy.serial(), found: serial });
        }
        if prev != self.policy.digest() {
            return Err(FoldError::PolicyPrev);
        }
        // In force it would ask the keeper for what it cannot show, and be the end of it at its next start.
        if SealTo::proven_by(policy.keeper()) != self.genesis.core().seal_to() {
            return Err(FoldError::PolicyKeeperProof);
        }
        // Two quorums of different sets need not share a witness: what one cosigned, the other could be shown a fork of.
        if policy.witnesses() != self.genesis.policy().witnesses() {
            return Err(FoldError::PolicyWitnesses);
        }
        if policy.is_expired(now) {
            return Err(FoldError::PolicyExpired { not_after: policy.not_after() });
        }
        Ok(())
    }

    fn proposed_model(
        &self,
        index: u64,
        time: UnixTime,
        proposed: ProposedModel,
    ) -> Result<PendingProposal, FoldError> {
        self.check_policy_runs(time)?;
        let object = model_object(&proposed.model, &proposed.version, proposed.manifest, proposed.model_sig);
        if proposed.object != object {
            return Err(FoldError::ObjectMismatch);
        }
        self.check_unpublished(&proposed)?;
        let threshold = self
            .policy
            .approvals_to_publish(&proposed.model, proposed.publisher)
            .ok_or(FoldError::PublisherNotAllowed)?;
        let not_after = proposed.not_after;
        Ok(PendingProposal::new(index, object, Subject::Model(proposed), not_after, threshold))
    }

    /// A version is published once: what was reviewed under its name stays what its name means.
    fn check_unpublished(&self, model: &ProposedModel) -> Result<(), FoldError> {
        match self.model(&model.model, &model.version) {
            Some(_) => Err(FoldError::ModelAlreadyPublished),
            None => Ok(()),
        }
    }

    fn approve(&mut self, approve: &Approve) -> Result<(), FoldError> {
        let signed = self.verify(&approve.statement, &approve.signature)?;
        let (statement, approver) = (signed.statement(), signed.approver());
        if approve.witness.is_some() && statement.action != ApprovalAction::Recover {
            return Err(FoldError::WitnessUnexpected);
        }
        let proposer_rule = self.policy.approval().proposer;
        let policy_runs = self.check_policy_runs(approve.time);
        let actions = [
            ApprovalAction::Policy,
            ApprovalAction::Model,
            ApprovalAction::Platform,
            ApprovalAction::Reseal,
            ApprovalAction::KeeperJoin,
            ApprovalAction::KeyEpoch,
            ApprovalAction::Escrow,
            ApprovalAction::Recover,
            ApprovalAction::KeeperLeave,
            ApprovalAction::Budget,
            ApprovalAction::Revoke,
            ApprovalAction::LiftRevocation,
            ApprovalAction::Standing,
            ApprovalAction::BreakGlass,
        ];
        let [
            policy,
            model,
            platform,
            reseal,
            join,
            epoch,
            escrow,
            recover,
            leave,
            raise,
            revoke,
            lift,
            standing,
            glass,
        ] = actions.map(|action| self.expected(action, statement.object));
        let proposal = self.proposals.of_object(statement.object)?;
        let expected = match proposal.subject() {
            Subject::Policy { .. } => policy,
            Subject::Model(_) => policy_runs.map(|()| model)?,
            Subject::Platform { .. } => policy_runs.map(|()| platform)?,
            Subject::Reseal { .. } => policy_runs.map(|()| reseal)?,
            Subject::Join(_) => policy_runs.map(|()| join)?,
            Subject::Escrow { .. } => policy_runs.map(|()| escrow)?,
            Subject::Recover(_) => recover,
            Subject::Leave { .. } => policy_runs.map(|()| leave)?,
            Subject::KeyEpoch { .. } => policy_runs.map(|()| epoch)?,
            Subject::Raise { .. } => policy_runs.map(|()| raise)?,
            Subject::Revocation { act, .. } => match act.kind() {
                ActKind::Revoke => revoke,
                ActKind::Lift => lift,
            },
            Subject::Permit { permit, .. } => policy_runs.map(|()| match permit.kind {
                PermitKind::Standing => standing,
                PermitKind::BreakGlass => glass,
            })?,
        };
        expected.check(statement, approve.time)?;
        proposal.check_approver(approver, proposer_rule, approve.time)?;
        proposal.add_witness(approve.witness)?;
        proposal.add_approval(approver.clone(), statement.not_after);
        Ok(())
    }

    fn policy_in_force(&mut self, effect: &PolicyInForce) -> Result<(), FoldError> {
        let proposal = self.proposals.at(effect.proposal)?;
        let Subject::Policy { policy, .. } = proposal.subject() else {
            return Err(FoldError::ActionMismatch);
        };
        if effect.object != proposal.object() {
            return Err(FoldError::ObjectMismatch);
        }
        if effect.serial != policy.serial() {
            return Err(FoldError::SerialMismatch { expected: policy.serial(), found: effect.serial });
        }
        proposal.check_effective(effect.time)?;
        self.check_successor(policy, effect.time)?;
        self.policy = Arc::clone(policy);
        // Everything that waits was approved under the policy before, perhaps by people who no longer decide.
        self.proposals.void_all();
        self.keepers.void_approved();
        self.platforms.policy_changed(self.policy.platform_threshold().is_some());
        self.budgets.follow(&self.policy);
        self.permits.follow(&self.policy);
        Ok(())
    }

    fn model_published(&mut self, index: u64, effect: &ModelPublished) -> Result<(), FoldError> {
        let proposal = self.proposals.at(effect.proposal)?;
        let Subject::Model(proposed) = proposal.subject() else {
            return Err(FoldError::ActionMismatch);
        };
        let named = (effect.object, &effect.model, &effect.version);
        if named != (proposal.object(), &proposed.model, &proposed.version) {
            return Err(FoldError::ObjectMismatch);
        }
        self.check_policy_runs(effect.time)?;
        proposal.check_effective(effect.time)?;
        self.check_unpublished(proposed)?;
        let published = Arc::new(PublishedModel { entry: index, proposed: proposed.clone() });
        self.proposals.void_model(&published.proposed);
        self.models.entry(effect.model.clone()).or_default().insert(effect.version.clone(), published);
        Ok(())
    }

    pub(super) fn verify(&self, statement: &str, signature: &str) -> Result<SignedStatement, FoldError> {
        approvals::verify(statement.as_bytes(), signature, &self.policy.approval().approvers)
            .map_err(FoldError::Approval)
    }

    pub(super) fn expected(&self, action: ApprovalAction, object: Sha256Digest) -> Expected {
        Expected { action, object, previous: self.policy.digest(), vault: self.id(), serial: self.policy.serial() }
    }
}
