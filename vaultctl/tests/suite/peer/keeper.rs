//! The state behind the peer.

use std::collections::BTreeMap;
use std::time::{SystemTime, UNIX_EPOCH};

use attestation::{
    ActivationSecret, AttestationKey, Evidence, GenesisChallenge, HpkePublicKey, IdentityKey, KeeperChallenge, LogKey,
    Sha256Digest, TpmIdentity, TpmPart, TpmQuote, Transcript, Trust, UnixTime,
};
use ledger::approvals::{ApprovalAction, ApprovalStatement};
use ledger::checkpoint::{Checkpoint, LogVerifier};
use ledger::entry::{
    Approve, BudgetRaised, Entry, GenesisWitness, KeeperJoin, ModelPublished, PermitInForce, PlatformInForce,
    PolicyInForce, Proposal, Propose, ProposedPermit, ProposedPlatform, ProposedPolicy, ProposedRaise, ProposedReseal,
    ProposedRevocation, ResealInForce, Revoke, Start, TimeSource,
};
use ledger::genesis::{Core, Genesis};
use ledger::merkle::{Tree, leaf_hash};
use ledger::names::Version;
use ledger::permit::PermitKind;
use ledger::policy::Policy;
use ledger::revocation::{ActKind, RevocationAct};
use ledger::state::{PendingProposal, State, Subject};
use ring::signature::{Ed25519KeyPair, KeyPair};
use vault_proto::convert::{self, EvidenceSet};

use super::Lies;
use crate::forge::authority::Authority;
use crate::forge::tpm::SoftTpm;

/// The log key of every keeper here.
const LOG_SEED: [u8; 32] = [6; 32];

pub(crate) struct Keeper {
    pub(crate) tpm: SoftTpm,
    pub(crate) identity: TpmIdentity,
    pub(crate) core: Option<Core>,
    pub(crate) entries: Vec<Vec<u8>>,
    pub(crate) state: State,
    pub(crate) blobs: BTreeMap<Sha256Digest, Vec<u8>>,
    pub(crate) lies: Lies,
    tree: Tree,
}

impl Keeper {
    pub(crate) fn new(tpm: SoftTpm, authority: &Authority) -> Self {
        let identity = tpm.identity(authority, &[]);
        Self {
            tpm,
            identity,
            core: None,
            entries: Vec::new(),
            state: State::new(),
            blobs: BTreeMap::new(),
            lies: Lies::default(),
            tree: Tree::new(),
        }
    }

    pub(crate) fn wrap_key() -> HpkePublicKey {
        HpkePublicKey::try_from([3; 1665].as_slice()).unwrap()
    }

    pub(crate) fn identity_key() -> IdentityKey {
        IdentityKey::try_from([4; 97].as_slice()).unwrap()
    }

    pub(crate) fn log_key() -> LogKey {
        LogKey::try_from(log_pair().public_key().as_ref()).unwrap()
    }

    pub(crate) fn instance() -> [u8; 32] {
        [5; 32]
    }

    pub(crate) fn policy(&self) -> &Policy {
        match (self.state.vault(), &self.core) {
            (Some(vault), _) => vault.policy(),
            (None, Some(core)) => core.policy(),
            (None, None) => panic!("the test forgot init"),
        }
    }

    /// Appends to log and state.
    pub(crate) fn append(&mut self, entry: &Entry) {
        let bytes = entry.encode().unwrap();
        self.state.apply(self.state.size(), &bytes).unwrap();
        self.push_unchecked(bytes);
    }

    /// Appends to the log what no fold would take.
    pub(crate) fn push_unchecked(&mut self, bytes: Vec<u8>) {
        self.tree.push(leaf_hash(&bytes));
        self.entries.push(bytes);
    }

    pub(crate) fn put(&mut self, blob: Vec<u8>) -> Sha256Digest {
        let digest = Sha256Digest::of(&blob);
        self.blobs.insert(digest, blob);
        digest
    }

    /// The signed note over the first `size` entries.
    pub(crate) fn checkpoint(&self, size: u64) -> String {
        let vault = Sha256Digest::of(&self.entries[0]);
        self.checkpoint_of(vault, Checkpoint { size, root: self.tree.root(size).unwrap() })
    }

    pub(crate) fn checkpoint_of(&self, vault: Sha256Digest, checkpoint: Checkpoint) -> String {
        let verifier = LogVerifier::new(vault, Self::log_key());
        let text = verifier.checkpoint_text(&checkpoint);
        let signature = log_pair().sign(text.as_bytes());
        verifier.key().assemble(&text, signature.as_ref().try_into().unwrap()).unwrap()
    }

    pub(crate) fn root(&self) -> Option<Sha256Digest> {
        (!self.tree.is_empty()).then(|| Sha256Digest::from_bytes(self.tree.root(self.tree.len()).unwrap()))
    }

    /// Opens the credential and quotes over the binding of the stage.
    pub(super) fn evidence(&self, request: convert::KeeperEvidenceRequest) -> Option<convert::KeeperEvidence> {
        let secret = self.tpm.activate(&request.credential)?;
        let secret = ActivationSecret::from_bytes(secret.try_into().ok()?);
        let nonce = request.nonce;
        match self.state.vault() {
            None => {
                let quote = self.quote(&self.genesis_challenge(nonce, secret).bind());
                Some(convert::KeeperEvidence {
                    evidence: EvidenceSet { evidence: Evidence::Tpm(quote), event_log: None },
                    standing: None,
                })
            }
            Some(vault) => {
                let checkpoint = self.checkpoint(self.state.size());
                let challenge = KeeperChallenge {
                    nonce,
                    vault: vault.id(),
                    wrap_key: Self::wrap_key(),
                    identity_key: Self::identity_key(),
                    log_key: Self::log_key(),
                    policy: vault.policy().digest(),
                    checkpoint: checkpoint.clone(),
                    tpm: self.part(secret),
                };
                let standing = convert::KeeperStanding { policy: vault.policy().digest(), checkpoint };
                let evidence = EvidenceSet { evidence: Evidence::Tpm(self.quote(&challenge.bind())), event_log: None };
                Some(convert::KeeperEvidence { evidence, standing: Some(standing) })
            }
        }
    }

    fn quote<S: Transcript>(&self, binding: &attestation::Binding<S>) -> TpmQuote {
        let pcrs: Vec<u32> = self.policy().keeper().tpm().pcrs.selection().iter().collect();
        self.tpm.quote(&self.identity, &pcrs, &binding.tpm_extra_data())
    }

    fn part(&self, secret: ActivationSecret) -> TpmPart {
        let ak = AttestationKey::parse(&self.identity.ak_public).unwrap();
        TpmPart::Activated { ak_name: *ak.name(), secret }
    }

    fn genesis_challenge(&self, nonce: [u8; 32], secret: ActivationSecret) -> GenesisChallenge {
        GenesisChallenge {
            nonce,
            instance: Self::instance(),
            core: self.core.as_ref().unwrap().digest(),
            wrap_key: Self::wrap_key(),
            identity_key: Self::identity_key(),
            log_key: Self::log_key(),
            tpm: self.part(secret),
        }
    }

    /// The first genesis counts; the same again is the same.
    pub(super) fn submit_genesis(&mut self, bytes: &[u8]) -> Sha256Digest {
        let genesis = Genesis::parse(bytes).unwrap();
        match self.entries.first() {
            Some(first) => assert_eq!(first, bytes),
            None => {
                self.state.apply(0, bytes).unwrap();
                self.push_unchecked(bytes.to_vec());
            }
        }
        genesis.vault_id()
    }

    pub(super) fn submit_policy(&mut self, submission: convert::PolicySubmission) -> convert::Proposal {
        let text = String::from_utf8(submission.policy).unwrap();
        let object = Sha256Digest::of(text.as_bytes());
        let proposed = ProposedPolicy {
            object,
            policy: text,
            statement: String::from_utf8(submission.statement).unwrap(),
            signature: submission.signature,
        };
        self.append(&Entry::Propose(Propose { time: now(), proposal: Proposal::Policy(proposed) }));
        self.proposal(object)
    }

    pub(super) fn submit_platform(&mut self, submission: convert::PlatformSubmission) -> convert::Proposal {
        let object = submission.change.object();
        let statement = String::from_utf8(submission.statement).unwrap();
        let proposed = ProposedPlatform::new(submission.change, statement, submission.signature);
        self.append(&Entry::Propose(Propose { time: now(), proposal: Proposal::Platform(proposed) }));
        self.proposal(object)
    }

    pub(super) fn submit_reseal(&mut self, submission: convert::ResealSubmission) -> convert::Proposal {
        let statement = String::from_utf8(submission.statement).unwrap();
        let revision = self.state.vault().unwrap().reseal_revision();
        let proposed = ProposedReseal::new(&submission.reseal, revision, statement, submission.signature);
        let object = proposed.object;
        self.append(&Entry::Propose(Propose { time: now(), proposal: Proposal::Reseal(proposed) }));
        self.proposal(object)
    }

    pub(super) fn submit_raise(&mut self, raise: ProposedRaise) -> convert::Proposal {
        let object = raise.object;
        self.append(&Entry::Propose(Propose { time: now(), proposal: Proposal::Budget(raise) }));
        self.proposal(object)
    }

    pub(super) fn submit_permit(&mut self, permit: ProposedPermit) -> convert::Proposal {
        let object = permit.object;
        self.append(&Entry::Propose(Propose { time: now(), proposal: Proposal::Permit(permit) }));
        self.proposal(object)
    }

    pub(super) fn submit_revocation(&mut self, submission: convert::RevocationSubmission) -> convert::Proposal {
        let revocation = RevocationAct::parse(&submission.revocation).unwrap();
        let object = revocation.object();
        let proposed = ProposedRevocation {
            object,
            revocation,
            statement: String::from_utf8(submission.statement).unwrap(),
            signature: submission.signature,
        };
        self.append(&Entry::Propose(Propose { time: now(), proposal: Proposal::Revocation(proposed) }));
        let before = self.proposal(object);
        self.take_effect(object);
        convert::Proposal { effective: self.pending(object).is_none(), ..before }
    }

    pub(super) fn submit_approval(&mut self, approval: convert::Approval) -> convert::Proposal {
        let statement = ApprovalStatement::parse(&approval.statement).unwrap();
        let witness = approval.witness.map(|witness| {
            let secret = ActivationSecret::from_bytes(witness.activation_secret);
            let preimage = self.genesis_challenge(witness.nonce, secret).bind().preimage().to_vec();
            GenesisWitness { evidence: self.put(witness.evidence.blob()), binding: self.put(preimage) }
        });
        self.append(&Entry::Approve(Approve {
            time: now(),
            statement: String::from_utf8(approval.statement).unwrap(),
            signature: approval.signature,
            witness,
        }));
        match statement.action {
            ApprovalAction::Genesis => self.genesis_proposal(),
            _ => {
                let before = self.proposal(statement.object);
                self.take_effect(statement.object);
                convert::Proposal { effective: self.pending(statement.object).is_none(), ..before }
            }
        }
    }

    /// The effect of a proposal that has its approvals.
    fn take_effect(&mut self, object: Sha256Digest) {
        let Some(proposal) = self.pending(object).filter(|proposal| proposal.is_approved(now())) else { return };
        let (time, entry) = (now(), proposal.entry());
        let effect = match proposal.subject() {
            Subject::Revocation { act, .. } => {
                let leases = match act {
                    RevocationAct::Revoke { scope, .. } => {
                        self.state.vault().unwrap().leases_covered(scope, time).len()
                    }
                    RevocationAct::Lift { .. } => 0,
                };
                let leases = u32::try_from(leases).unwrap();
                Entry::Revoke(Revoke { time, proposal: entry, object, act: act.kind(), leases })
            }
            Subject::Policy { policy, .. } => {
                Entry::Policy(PolicyInForce { time, proposal: entry, object, serial: policy.serial() })
            }
            Subject::Raise { raise, .. } => {
                Entry::Budget(BudgetRaised { time, proposal: entry, object, budget: raise.budget.clone() })
            }
            Subject::Permit { permit, .. } => {
                Entry::Permit(PermitInForce { time, proposal: entry, object, kind: permit.kind })
            }
            Subject::Model(proposed) => Entry::Model(ModelPublished {
                time,
                proposal: entry,
                object,
                model: proposed.model.clone(),
                version: proposed.version.clone(),
            }),
            Subject::Platform { change, .. } => Entry::Platform(PlatformInForce {
                time,
                proposal: entry,
                object,
                act: change.act,
                platform: change.platform,
            }),
            Subject::KeyEpoch { .. } => panic!("the peer's keeper has one epoch"),
            Subject::Join(_) => Entry::KeeperJoin(KeeperJoin { time, proposal: entry, object }),
            Subject::Escrow { .. } | Subject::Recover(_) => unreachable!("the peer's keeper has no keys to split"),
            Subject::Leave { .. } => unreachable!("the peer's keeper is alone"),
            Subject::Reseal { .. } => {
                let present = ledger::reseal::boot_state(&self.pcrs());
                Entry::Reseal(ResealInForce { time, proposal: entry, object, present })
            }
        };
        self.append(&effect);
    }

    /// What its TPM has in the PCRs that it is sealed to.
    fn pcrs(&self) -> BTreeMap<u32, [u8; 32]> {
        let selection = self.policy().keeper().tpm().pcrs.selection();
        selection.iter().map(|index| (index, self.tpm.pcrs[index as usize])).collect()
    }

    fn pending(&self, object: Sha256Digest) -> Option<&PendingProposal> {
        self.state.vault()?.pending(now()).find(|proposal| proposal.object() == object)
    }

    fn proposal(&self, object: Sha256Digest) -> convert::Proposal {
        let (vault, pending) = (self.state.vault().unwrap(), self.pending(object).unwrap());
        let action = match pending.subject() {
            Subject::Policy { .. } => convert::ProposalAction::Policy,
            Subject::Model(_) => convert::ProposalAction::Model,
            Subject::Platform { .. } => convert::ProposalAction::Platform,
            Subject::Reseal { .. } => convert::ProposalAction::Reseal,
            Subject::Join(_) => convert::ProposalAction::KeeperJoin,
            Subject::Escrow { .. } => convert::ProposalAction::Escrow,
            Subject::Recover(_) => convert::ProposalAction::Recover,
            Subject::Leave { .. } => convert::ProposalAction::KeeperLeave,
            Subject::KeyEpoch { .. } => convert::ProposalAction::KeyEpoch,
            Subject::Raise { .. } => convert::ProposalAction::Budget,
            Subject::Permit { permit, .. } => match permit.kind {
                PermitKind::Standing => convert::ProposalAction::Standing,
                PermitKind::BreakGlass => convert::ProposalAction::BreakGlass,
            },
            Subject::Revocation { act, .. } => match act.kind() {
                ActKind::Revoke => convert::ProposalAction::Revoke,
                ActKind::Lift => convert::ProposalAction::LiftRevocation,
            },
        };
        convert::Proposal {
            action,
            object,
            previous: vault.policy().digest(),
            serial: vault.policy().serial(),
            approved_by: pending.approved_by(now()).cloned().collect(),
            threshold: pending.threshold(),
            effective: false,
            entry: pending.entry(),
            summary: "as the host sums it up".to_owned(),
        }
    }

    pub(super) fn genesis_proposal(&self) -> convert::Proposal {
        let genesis = self.state.genesis().unwrap();
        let all = genesis.policy().approval().approvers.iter().map(|approver| approver.id.clone());
        let missing: Vec<_> =
            self.state.ceremony().map(|ceremony| ceremony.missing().cloned().collect()).unwrap_or_default();
        convert::Proposal {
            action: convert::ProposalAction::Genesis,
            object: genesis.vault_id(),
            previous: genesis.core().digest(),
            serial: 0,
            approved_by: all.filter(|id| !missing.contains(id)).collect(),
            threshold: 3,
            effective: self.state.vault().is_some(),
            entry: 0,
            summary: "the genesis".to_owned(),
        }
    }

    /// What waits, for the status.
    pub(super) fn all_pending(&self) -> Vec<convert::Proposal> {
        match self.state.vault() {
            None if self.state.genesis().is_some() => vec![self.genesis_proposal()],
            None => Vec::new(),
            Some(vault) => vault.pending(now()).map(|pending| self.proposal(pending.object())).collect(),
        }
    }

    /// A keeper's run begins.
    pub(crate) fn start_run(&mut self) {
        self.append(&Entry::Start(Start {
            time: now(),
            run: [9; 16],
            version: Version::try_from("0.1.0").unwrap(),
            tier: Trust::Emulated,
            time_source: TimeSource::HostClock,
            keeper: None,
        }));
    }
}

pub(crate) fn now() -> UnixTime {
    UnixTime(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs())
}

fn log_pair() -> Ed25519KeyPair {
    Ed25519KeyPair::from_seed_unchecked(&LOG_SEED).unwrap()
}
