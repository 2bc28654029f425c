//! Models, policies and approvals: proposals that take effect when enough signatures are in the log.

use std::collections::BTreeSet;
use std::sync::Arc;

use attestation::{Evidence, KeeperChallenge, Sha256Digest, UnixTime};
use ledger::approvals::{self, ApprovalAction, ApprovalStatement, model_object};
use ledger::entry::{
    self, Approve, BudgetRaised, Entry, KeeperJoin, KeeperLeave, ModelPublished, PermitInForce, PolicyInForce, Propose,
    ProposedModel, ProposedPolicy, ResealInForce,
};
use ledger::keeper_evidence::{KeeperClaims, KeeperRun};
use ledger::manifest::Manifest;
use ledger::model_signature;
use ledger::state::Subject;
use vault_proto::convert::{
    self, Approval, KeeperEvidence, KeeperEvidenceRequest, KeeperStanding, PolicySubmission, Publication,
};
use vault_proto::v1::{self, keeper_reply::Response};

use super::{Outcome, Vault};
use crate::derive::ModelContext;
use crate::keeper::refusal::Refusal;
use crate::record;

/// How long a proposed model waits for approvals.
const MODEL_PROPOSAL_SECS: u64 = 30 * 24 * 3600;

impl Vault {
    /// Checks the publisher's signature, takes the DEK into the keeper's keeping, and proposes the model.
    pub(super) fn publish_model(&mut self, request: v1::PublishModelRequest) -> Result<Outcome, Refusal> {
        let Publication { manifest: manifest_bytes, dek, model_signature } = request.try_into()?;
        let now = self.now();
        let policy = self.opened()?.policy().clone();
        let manifest = Manifest::parse(&manifest_bytes)?;
        let id = manifest.id().clone();
        if id.vault != self.vault_id() {
            let message = format!("the model is sealed to {}, this vault is {}", id.vault, self.vault_id());
            return Err(Refusal::denied("model-vault", message));
        }
        let publisher = policy
            .publish_rules()
            .values()
            .filter(|rule| rule.covers(&id.model, id.publisher))
            .flat_map(|rule| &rule.keys)
            .find(|key| key.digest() == id.publisher)
            .ok_or_else(|| {
                let message = format!("no [publish.*] lists the key {} for the model {}", id.publisher, id.model);
                Refusal::denied("publisher-unknown", message)
            })?;
        let dek_digest = Sha256Digest::of(&dek);
        model_signature::verify(&model_signature, publisher, &manifest.signed_files(dek_digest))?;
        if let Some(object) = self.standing(&manifest, now) {
            // Sent again, after a broken connection for example: the proposal stands where it stands.
            let proposal = self.proposal(object)?;
            let response = v1::PublishModelResponse { proposal: Some(proposal) };
            return Ok(Outcome::Now(Ok(Response::PublishModel(response))));
        }
        let context = ModelContext::from(&manifest);
        let dek = self.keys.unwrap_dek(context, &dek).map_err(|error| self.not_unwrapped(error))?;
        let kek = (self.keys.kek(), self.epoch.number);
        let record = record::seal_dek(kek, self.vault_id(), manifest.plan_digest(), &dek, &self.rng)
            .map_err(|error| Refusal::unavailable(error.code(), error))?;
        let model_sig = Sha256Digest::of(&model_signature);
        let proposed = ProposedModel {
            object: model_object(&id.model, &id.version, manifest.digest(), model_sig),
            model: id.model,
            version: id.version,
            manifest: manifest.digest(),
            model_sig,
            dek_record: Sha256Digest::of(&record),
            publisher: id.publisher,
            bytes: manifest.total_bytes(),
            units: u32::try_from(manifest.units().len()).unwrap_or(u32::MAX),
            not_after: now.plus(MODEL_PROPOSAL_SECS),
        };
        let object = proposed.object;
        let entry = Entry::Propose(Propose { time: now, proposal: entry::Proposal::Model(proposed) });
        self.stage_entry(&entry)?;
        self.pending.blobs.extend([manifest_bytes, model_signature, record]);
        self.stage_effects()?;
        Ok(Outcome::AfterCommit(Box::new(move |vault| {
            let proposal = Some(vault.proposal(object)?);
            Ok(Response::PublishModel(v1::PublishModelResponse { proposal }))
        })))
    }

    /// What waits for approvals with this manifest, under whichever spelling of its signature. There are many that verify
    /// (white space, a key id, the other `s` of ECDSA), each another object: whoever holds a publisher's bundle, as the
    /// host does, could fill all the places of that publisher with one model.
    fn standing(&self, manifest: &Manifest, now: UnixTime) -> Option<Sha256Digest> {
        let mut pending = self.state.vault()?.pending(now);
        let same = pending.find(|proposal| match proposal.subject() {
            Subject::Model(model) => {
                let id = manifest.id();
                (&model.model, &model.version, model.manifest) == (&id.model, &id.version, manifest.digest())
            }
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
            | Subject::Revocation { .. } => false,
        });
        same.map(|proposal| proposal.object())
    }

    /// Proposes a policy, signed by an approver of the one in force. The fold checks signature, serial and lineage; the
    /// keeper, that it could still start under it: approvers can't see that, and nothing could undo it.
    pub(super) fn submit_policy(&mut self, request: v1::SubmitPolicyRequest) -> Result<Outcome, Refusal> {
        let PolicySubmission { policy, statement, signature } = request.try_into()?;
        let now = self.now();
        let policy = utf8("policy", policy)?;
        let object = Sha256Digest::of(policy.as_bytes());
        let proposed = ProposedPolicy { object, policy, statement: utf8("statement", statement)?, signature };
        let vetted = self.opened()?.vet_policy(&proposed, now);
        let next = vetted.map_err(|error| Refusal::denied(error.code(), error))?;
        self.hardware.check_next(&next, now)?;
        let entry = Entry::Propose(Propose { time: now, proposal: entry::Proposal::Policy(proposed) });
        self.stage_entry(&entry)?;
        self.stage_effects()?;
        Ok(Outcome::AfterCommit(Box::new(move |vault| {
            let proposal = Some(vault.proposal(object)?);
            Ok(Response::SubmitPolicy(v1::SubmitPolicyResponse { proposal }))
        })))
    }

    /// Adds an approval. The fold verifies its signature; what reaches its threshold takes effect in the same commit.
    pub(super) fn submit_approval(&mut self, request: v1::SubmitApprovalRequest) -> Result<Outcome, Refusal> {
        let Approval { statement, signature, witness } = request.try_into()?;
        let parsed = ApprovalStatement::parse(&statement).map_err(|error| Refusal::malformed(error.code(), error))?;
        let witness = match (parsed.action, witness) {
            (ApprovalAction::Genesis, Some(witness)) => {
                self.check_signed_genesis(&statement, &signature)?;
                Some(self.check_witness(witness)?)
            }
            (_, _) => None,
        };
        let (witness, blobs) = witness.map_or((None, Vec::new()), |(names, blobs)| (Some(names), blobs));
        let approve = Approve { time: self.now(), statement: utf8("statement", statement)?, signature, witness };
        self.stage_entry(&Entry::Approve(approve))?;
        self.pending.blobs.extend(blobs);
        let object = parsed.object;
        let standing = match parsed.action {
            ApprovalAction::Revoke | ApprovalAction::LiftRevocation | ApprovalAction::KeeperLeave => {
                Some(self.proposal(object)?)
            }
            ApprovalAction::Genesis
            | ApprovalAction::ProposePolicy
            | ApprovalAction::Policy
            | ApprovalAction::Model
            | ApprovalAction::ProposePlatform
            | ApprovalAction::Platform
            | ApprovalAction::ProposeReseal
            | ApprovalAction::Reseal
            | ApprovalAction::KeeperJoin
            | ApprovalAction::ProposeEscrow
            | ApprovalAction::Escrow
            | ApprovalAction::Recover
            | ApprovalAction::ProposeKeeperLeave
            | ApprovalAction::ProposeKeyEpoch
            | ApprovalAction::KeyEpoch
            | ApprovalAction::ProposeBudget
            | ApprovalAction::Budget
            | ApprovalAction::Extend
            | ApprovalAction::ProposeStanding
            | ApprovalAction::Standing
            | ApprovalAction::ProposeBreakGlass
            | ApprovalAction::BreakGlass => None,
        };
        self.stage_effects()?;
        let standing = standing.map(|standing| self.standing_act(standing));
        Ok(Outcome::AfterCommit(Box::new(move |vault| {
            let proposal = Some(standing.map_or_else(|| vault.proposal(object), Ok)?);
            Ok(Response::SubmitApproval(v1::SubmitApprovalResponse { proposal }))
        })))
    }

    /// What has reached its threshold takes effect: an entry of its own.
    pub(super) fn stage_effects(&mut self) -> Result<(), Refusal> {
        let time = self.now();
        // What can't take effect now must not stand before what can.
        let mut passed_over = BTreeSet::new();
        loop {
            let Some(vault) = self.state.vault() else { return Ok(()) };
            let Some(due) = vault.all_due(time).find(|due| !passed_over.contains(&due.entry())) else {
                return Ok(());
            };
            let (proposal, object) = (due.entry(), due.object());
            let entry = match due.subject() {
                Subject::Policy { policy, .. } => {
                    Entry::Policy(PolicyInForce { time, proposal, object, serial: policy.serial() })
                }
                Subject::Raise { raise, .. } => {
                    Entry::Budget(BudgetRaised { time, proposal, object, budget: raise.budget.clone() })
                }
                Subject::Permit { permit, .. } => {
                    Entry::Permit(PermitInForce { time, proposal, object, kind: permit.kind })
                }
                Subject::Model(ProposedModel { model, version, .. }) => {
                    let (model, version) = (model.clone(), version.clone());
                    Entry::Model(ModelPublished { time, proposal, object, model, version })
                }
                Subject::Platform { change, .. } => super::platform::effect(time, proposal, object, change),
                Subject::Reseal { .. } => {
                    Entry::Reseal(ResealInForce { time, proposal, object, present: self.records.boot_state() })
                }
                Subject::Join(_) => Entry::KeeperJoin(KeeperJoin { time, proposal, object }),
                Subject::Escrow { plan, .. } => {
                    let plan = Arc::clone(plan);
                    match self.split_keys(&plan) {
                        Ok(split) => split.into_entry(time, proposal, object),
                        Err(refusal) => {
                            tracing::warn!(%refusal, "an approved escrow can't take effect yet");
                            passed_over.insert(proposal);
                            continue;
                        }
                    }
                }
                // A keeper that recovers writes its own; no other one waits for it.
                Subject::Recover(_) => {
                    passed_over.insert(proposal);
                    continue;
                }
                Subject::Leave { instance, .. } => {
                    Entry::KeeperLeave(KeeperLeave { time, proposal, object, instance: *instance })
                }
                Subject::KeyEpoch { next, .. } => {
                    let next = Arc::clone(next);
                    self.stage_renewals();
                    match self.stage_epoch((proposal, object), &next) {
                        // Nothing stands behind it in this run.
                        Ok(()) => return Ok(()),
                        Err(refusal) => tracing::warn!(%refusal, proposal, "an approved key epoch can't begin"),
                    }
                    passed_over.insert(proposal);
                    continue;
                }
                Subject::Revocation { act, .. } => {
                    let act = act.clone();
                    self.stage_renewals();
                    self.stage_revocation(proposal, object, &act)?;
                    continue;
                }
            };
            // Renewals are judged by the policy in force where they stand.
            self.stage_renewals();
            self.stage_entry(&entry)?;
        }
    }

    /// The cheap half first: the work of a witness is not for a stranger to ask for, nor for anybody once the vault is open.
    fn check_signed_genesis(&self, statement: &[u8], signature: &str) -> Result<(), Refusal> {
        if self.state.ceremony().is_none() {
            let message = "every approver has signed the genesis: it takes no more approvals";
            return Err(Refusal::denied("genesis-complete", message));
        }
        let approvers = &self.genesis.policy().approval().approvers;
        approvals::verify(statement, signature, approvers)
            .map(drop)
            .map_err(|error| Refusal::denied(error.code(), error))
    }

    /// What an approver of the genesis saw, verified again under all that the core's policy asks of its keeper: only then
    /// is it worth keeping beside his signature.
    fn check_witness(
        &self,
        witness: convert::GenesisWitness,
    ) -> Result<(entry::GenesisWitness, Vec<Vec<u8>>), Refusal> {
        let convert::GenesisWitness { evidence, nonce, activation_secret } = witness;
        let named = self.genesis.keeper();
        let blob = evidence.blob();
        let evidence = evidence.evidence;
        let identity = match &evidence {
            Evidence::Tpm(quote) | Evidence::SnpTpm { quote, .. } => quote.identity.clone(),
            Evidence::Snp(_) | Evidence::AzureSnpVtpm(_) => {
                return Err(Refusal::denied("keeper-tpm-missing", "the witness has no quote of the keeper's TPM"));
            }
        };
        let run = KeeperRun::replay(
            self.genesis.policy(),
            &identity,
            self.genesis.time(),
            nonce,
            activation_secret,
            &self.rng,
        )?;
        let claims = KeeperClaims {
            instance: named.instance,
            core: self.genesis.core().digest(),
            wrap_key: named.wrap_key.clone(),
            identity_key: named.identity_key.clone(),
            log_key: named.log_key.clone(),
        };
        let seen = run.verify_genesis(claims, evidence)?;
        seen.check(&self.genesis)?;
        let preimage = seen.verified().preimage().to_vec();
        let names = entry::GenesisWitness { evidence: Sha256Digest::of(&blob), binding: Sha256Digest::of(&preimage) };
        Ok((names, vec![blob, preimage]))
    }

    /// Evidence over the caller's nonce: the genesis binding before the vault is open, the keeper binding after.
    pub(super) fn keeper_evidence(&mut self, request: v1::GetKeeperEvidenceRequest) -> Result<Outcome, Refusal> {
        let KeeperEvidenceRequest { nonce, credential } = request.try_into()?;
        let keeper = self.genesis.keeper().clone();
        let (wrap_key, identity_key) = (self.keys.wrap_key().clone(), self.keys.identity_key().clone());
        let answer = if let Some(vault) = self.state.vault() {
            let policy = vault.policy();
            // The selection is that of the genesis, which is what a caller with a vault file knows.
            let (policy_digest, pcrs) = (policy.digest(), self.genesis.policy().keeper().tpm().pcrs.selection());
            let (vault, checkpoint) = (self.vault_id(), self.log.checkpoint().to_owned());
            let evidence = self.hardware.evidence(&credential, pcrs, |tpm| {
                KeeperChallenge {
                    nonce,
                    vault,
                    wrap_key,
                    identity_key,
                    log_key: keeper.log_key,
                    policy: policy_digest,
                    checkpoint: checkpoint.clone(),
                    tpm,
                }
                .bind()
            })?;
            KeeperEvidence { evidence, standing: Some(KeeperStanding { policy: policy_digest, checkpoint }) }
        } else {
            let core = self.genesis.core().digest();
            let pcrs = self.genesis.policy().keeper().tpm().pcrs.selection();
            KeeperEvidence {
                evidence: self.hardware.genesis_evidence(&credential, pcrs, nonce, core, &keeper)?,
                standing: None,
            }
        };
        Ok(Outcome::Now(Ok(Response::GetKeeperEvidence(answer.into()))))
    }
}

pub(super) fn utf8(field: &str, bytes: Vec<u8>) -> Result<String, Refusal> {
    String::from_utf8(bytes).map_err(|_| Refusal::malformed("malformed-text", format!("{field}: not UTF-8")))
}
