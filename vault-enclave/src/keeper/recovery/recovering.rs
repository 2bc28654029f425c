//! A keeper that is to take the place of a lost one, or practises that.
//!
//! No keeper is left to judge it. So it shows itself to each approver and each custodian, who judge it themselves: approvers
//! sign for this machine and this log, custodians seal their shares to its key. It puts the keys together only once both
//! have done so; in a drill it needs no approvals, checks the keys and wipes them.

use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use attestation::{Credential, Evidence, RecoverChallenge, Sha256Digest, UnixTime};
use ledger::approvals::{self, ApprovalAction, ApprovalStatement};
use ledger::checkpoint::LogVerifier;
use ledger::entry::{self, Approve, Entry, Proposal, Propose, ProposedRecovery, RecoverInForce};
use ledger::escrow::{LogPoint, RecoveryMode, Rollback, recovery_plan};
use ledger::keeper_evidence::{KeeperRun, RecoveringKeeper, RecoveryClaims};
use ledger::keepers::JOIN_SECS_MAX;
use ledger::policy::Policy;
use ledger::state::{State, Subject};
use ring::rand::SystemRandom;
use vault_proto::convert::{
    self, Approval, Contribution, EvidenceSet, KeeperEvidence, KeeperEvidenceRequest, ProposalAction, RecoveryOffer,
    RecoveryProgress,
};
use vault_proto::v1::{self, keeper_call::Request, keeper_reply::Response};

use super::RecoveryAct;
use crate::escrow::Gathering;
use crate::keeper::clock;
use crate::keeper::fold;
use crate::keeper::joiner::{self, Joining};
use crate::keeper::link::Store;
use crate::keeper::refusal::Refusal;
use crate::keeper::service::{Answer, Job};
use crate::vault_keys::VaultKeys;

/// How long it waits before it reads the host's log again after that failed.
const AGAIN_AFTER: Duration = Duration::from_secs(2);
/// All that is known of rollback under a counter that is lost with its TPM.
const ROLLBACK: Rollback = Rollback::Accepted;

/// A keeper without a vault, which waits for the keys of one.
pub(in crate::keeper) struct Recovering {
    joining: Joining,
    mode: RecoveryMode,
    rng: SystemRandom,
    found: Option<Found>,
    /// The keys were written, or could not be.
    ended: bool,
    /// Why nothing was found yet, and when to look again.
    why: String,
    retry: Instant,
}

/// What the host's log says, and what came since.
struct Found {
    /// Of the log, and of the entries below.
    state: State,
    from: LogPoint,
    claims: RecoveryClaims,
    object: Sha256Digest,
    gathering: Gathering,
    entries: Vec<Vec<u8>>,
    blobs: Vec<Vec<u8>>,
    done: bool,
}

/// What becomes of the keeper after a request.
#[derive(PartialEq, Eq)]
pub(in crate::keeper) enum After {
    /// It goes on waiting.
    Waits,
    /// Its directory has the vault's keys, or a commit of them failed: it starts anew from there.
    Resumes,
}

impl Recovering {
    pub(in crate::keeper) fn new(joining: Joining, mode: RecoveryMode) -> Self {
        let why = "waiting for a host to attach".to_owned();
        Self { joining, mode, rng: SystemRandom::new(), found: None, ended: false, why, retry: Instant::now() }
    }

    /// Reads the host's log, if that was not done yet and it is time to try.
    pub(in crate::keeper) fn look(&mut self, store: &Store) {
        if self.found.is_some() || Instant::now() < self.retry {
            return;
        }
        match self.find(store) {
            Ok(found) => {
                tracing::info!(size = found.from.size, object = %found.object, "the log is read: shares and approvals may come");
                self.found = Some(found);
            }
            Err(refusal) => {
                tracing::warn!(%refusal, "the vault can't be recovered yet");
                self.why = refusal.to_string();
                self.retry = Instant::now() + AGAIN_AFTER;
            }
        }
    }

    /// The log under the newest checkpoint that the lost keeper signed and the host has, and this keeper judged by it as
    /// approvers and custodians will judge it.
    fn find(&self, store: &Store) -> Result<Found, Refusal> {
        let genesis = self.joining.genesis();
        let head = LogVerifier::of(genesis)
            .verify_checkpoint(&store.checkpoint()?)
            .map_err(|error| Refusal::denied(error.code(), error))?;
        let (mut state, _) = fold::fold(store, head, None, &AtomicBool::new(false))
            .map_err(|error| Refusal::denied(error.code(), error))?;
        if state.genesis().map(ledger::genesis::Genesis::vault_id) != Some(genesis.vault_id()) {
            return Err(Refusal::denied("genesis-other", "the host's log is another vault's"));
        }
        let vault = state.vault().ok_or_else(|| Refusal::denied("vault-not-open", "its genesis lacks approvals"))?;
        let escrow = vault.escrow_in_force().map_err(|error| Refusal::denied(error.code(), error))?.clone();
        let from = LogPoint { size: head.size, root: Sha256Digest::from_bytes(head.root) };
        let (keys, policy, set) = (self.joining.keys().clone(), vault.policy().digest(), escrow.set(vault.id()));
        let claims = RecoveryClaims { mode: self.mode, keys, policy, from, set, rollback: ROLLBACK };
        let now = clock::wall(state.time());
        let seen = self.seen_by_itself(vault.policy(), &claims, now)?;
        seen.check(vault, head.size).map_err(|error| Refusal::denied(error.code(), error))?;
        let gathering = Gathering::new(vault.id(), escrow, seen.object());
        let proposed = ProposedRecovery::new(seen.recovery(), vault.id(), now.plus(JOIN_SECS_MAX));
        let mut entries = Vec::new();
        if self.mode == RecoveryMode::Recover {
            let proposal = Entry::Propose(Propose { time: now, proposal: Proposal::Recover(proposed) });
            entries.push(apply(&mut state, &proposal)?);
        }
        let object = seen.object();
        Ok(Found { state, from, claims, object, gathering, entries, blobs: Vec::new(), done: false })
    }

    fn seen_by_itself(
        &self,
        policy: &Policy,
        claims: &RecoveryClaims,
        now: UnixTime,
    ) -> Result<RecoveringKeeper, Refusal> {
        let run = KeeperRun::start(policy, self.joining.identity(), now, &self.rng)?;
        let EvidenceSet { evidence, .. } = self.evidence(*run.nonce(), run.credential(), claims)?;
        let genesis = self.joining.genesis();
        run.verify_recovering(genesis, claims.clone(), evidence).map_err(|error| Refusal::denied(error.code(), error))
    }

    fn evidence(
        &self,
        nonce: [u8; 32],
        credential: &Credential,
        claims: &RecoveryClaims,
    ) -> Result<EvidenceSet, Refusal> {
        let plan = recovery_plan(claims.mode, claims.from, claims.set, claims.rollback);
        let (vault, policy, keys) = (self.joining.genesis().vault_id(), claims.policy, claims.keys.clone());
        let bind = |tpm| RecoverChallenge { nonce, vault, policy, plan, tpm }.bind(keys);
        self.joining.evidence(credential, bind)
    }

    /// Answers a request.
    pub(in crate::keeper) fn handle(&mut self, job: Job, store: &Store) -> After {
        let Job { request, reply } = job;
        let answer = match request {
            Request::Status(_) => Ok(self.status()),
            Request::GetRecovery(_) => self.offer(),
            Request::GetKeeperEvidence(request) => self.show(request),
            Request::SubmitApproval(request) => self.approve(request).and_then(|()| {
                self.complete(store)?;
                self.approved()
            }),
            Request::ContributeShare(request) => self.contribute(request).and_then(|()| {
                self.complete(store)?;
                let progress = Some(self.progress()?.into());
                Ok(Response::ContributeShare(v1::ContributeShareResponse { progress }))
            }),
            _ => Err(Refusal::unavailable(
                "keeper-recovering",
                "this keeper has no vault yet: it waits for shares and approvals, see `vaultctl recover status`",
            )),
        };
        // The caller may be gone.
        let _ = reply.send(answer);
        if self.ended { After::Resumes } else { After::Waits }
    }

    fn found(&self) -> Result<&Found, Refusal> {
        self.found.as_ref().ok_or_else(|| Refusal::unavailable("recovery-log", &self.why))
    }

    fn offer(&self) -> Answer {
        let claims = self.found()?.claims.clone();
        let offer = RecoveryOffer { tpm: self.joining.identity().clone(), claims, progress: self.progress()? };
        Ok(Response::GetRecovery(offer.into()))
    }

    fn show(&self, request: v1::GetKeeperEvidenceRequest) -> Answer {
        let KeeperEvidenceRequest { nonce, credential } = request.try_into()?;
        let evidence = self.evidence(nonce, &credential, &self.found()?.claims)?;
        Ok(Response::GetKeeperEvidence(KeeperEvidence { evidence, standing: None }.into()))
    }

    /// Takes an approval with the evidence that its approver saw, each his own.
    fn approve(&mut self, request: v1::SubmitApprovalRequest) -> Result<(), Refusal> {
        let Approval { statement, signature, witness } = request.try_into()?;
        let found = self.found()?;
        if self.mode == RecoveryMode::Drill {
            return Err(Refusal::denied("drill-approval", "a drill needs no approvals"));
        }
        let vault = found.state.vault().ok_or_else(Refusal::stopping)?;
        let parsed = ApprovalStatement::parse(&statement).map_err(|error| Refusal::malformed(error.code(), error))?;
        if parsed.action != ApprovalAction::Recover {
            return Err(Refusal::denied("action-mismatch", "nothing but its recovery is approved here"));
        }
        // The cheap half first: the work of a witness is not for a stranger to ask for.
        approvals::verify(&statement, &signature, &vault.policy().approval().approvers)
            .map_err(|error| Refusal::denied(error.code(), error))?;
        let witness = witness.ok_or_else(|| {
            Refusal::denied("witness-missing", "an approval of a recovery names the evidence that its approver saw")
        })?;
        let now = clock::wall(found.state.time());
        let (witness, blobs) = self.check_witness(witness, vault.policy(), &found.claims, now)?;
        let statement = String::from_utf8(statement).map_err(|_| Refusal::malformed("malformed-text", "statement"))?;
        let approve = Entry::Approve(Approve { time: now, statement, signature, witness: Some(witness) });
        let found = self.found.as_mut().ok_or_else(Refusal::stopping)?;
        let bytes = apply(&mut found.state, &approve)?;
        found.entries.push(bytes);
        found.blobs.extend(blobs);
        Ok(())
    }

    fn check_witness(
        &self,
        witness: convert::GenesisWitness,
        policy: &Policy,
        claims: &RecoveryClaims,
        now: UnixTime,
    ) -> Result<(entry::GenesisWitness, [Vec<u8>; 2]), Refusal> {
        let convert::GenesisWitness { evidence, nonce, activation_secret } = witness;
        let blob = evidence.blob();
        let evidence = evidence.evidence;
        let identity = match &evidence {
            Evidence::Tpm(quote) | Evidence::SnpTpm { quote, .. } => quote.identity.clone(),
            Evidence::Snp(_) | Evidence::AzureSnpVtpm(_) => {
                return Err(Refusal::denied("keeper-tpm-missing", "the witness has no quote of the keeper's TPM"));
            }
        };
        let run = KeeperRun::replay(policy, &identity, now, nonce, activation_secret, &self.rng)?;
        let seen = run
            .verify_recovering(self.joining.genesis(), claims.clone(), evidence)
            .map_err(|error| Refusal::denied(error.code(), error))?;
        let preimage = seen.verified().preimage().to_vec();
        let named = entry::GenesisWitness { evidence: Sha256Digest::of(&blob), binding: Sha256Digest::of(&preimage) };
        Ok((named, [blob, preimage]))
    }

    fn approved(&self) -> Answer {
        let found = self.found()?;
        let vault = found.state.vault().ok_or_else(Refusal::stopping)?;
        let progress = self.progress()?;
        let proposal = convert::Proposal {
            action: ProposalAction::Recover,
            object: found.object,
            previous: vault.policy().digest(),
            serial: vault.policy().serial(),
            approved_by: progress.approved_by,
            threshold: progress.approvals,
            effective: progress.done,
            entry: found.from.size,
            summary: "a keeper in the place of a lost one".to_owned(),
        };
        Ok(Response::SubmitApproval(v1::SubmitApprovalResponse { proposal: Some(proposal.into()) }))
    }

    fn contribute(&mut self, request: v1::ContributeShareRequest) -> Result<(), Refusal> {
        let Contribution { object, index, enc, ciphertext } = request.try_into()?;
        let found = self.found.as_mut().ok_or_else(|| Refusal::unavailable("recovery-log", &self.why))?;
        if found.done {
            return Err(Refusal::denied("recovery-done", "the keys were put together already: no share is needed"));
        }
        if object != found.object {
            return Err(Refusal::try_again("recovery-other", "the share was given for another recovery: look again"));
        }
        let taken = found.gathering.take(index, (enc.as_slice(), &ciphertext), self.joining.pair());
        taken.map_err(|error| Refusal::denied(error.code(), error))
    }

    /// Puts the keys together once everything is there.
    fn complete(&mut self, store: &Store) -> Result<(), Refusal> {
        let found = self.found.as_mut().ok_or_else(Refusal::stopping)?;
        let now = clock::wall(found.state.time());
        let approved = match (self.mode, recovery_of(&found.state, now)) {
            (RecoveryMode::Drill, _) => None,
            (RecoveryMode::Recover, Some(proposal)) if proposal.is_approved(now) => Some(proposal.entry()),
            (RecoveryMode::Recover, _) => return Ok(()),
        };
        if found.done || !found.gathering.is_complete() {
            return Ok(());
        }
        let record = store.blob(found.gathering.escrow().record())?;
        let denied = |code: &str, error: &dyn std::fmt::Display| Refusal::denied(code, error);
        let present = found.state.vault().ok_or_else(Refusal::stopping)?.epochs().present();
        let secrets = found.gathering.open(&record).map_err(|error| denied(error.code(), &error))?;
        let keys = VaultKeys::from_secrets(&secrets)?;
        joiner::check_keys(&keys, self.joining.genesis(), present).map_err(|error| denied(error.code(), &error))?;
        drop(keys);
        let Some(proposal) = approved else {
            drop(secrets);
            found.gathering.wipe();
            found.done = true;
            tracing::info!("the drill is over: the shares give the vault's keys, which were wiped");
            return Ok(());
        };
        let vault = found.state.vault().ok_or_else(Refusal::stopping)?;
        let lost = vault.keepers().current().instance;
        let effect = RecoverInForce { time: now, proposal, object: found.object, lost, rollback: ROLLBACK };
        let bytes = apply(&mut found.state, &Entry::Recover(effect))?;
        found.entries.push(bytes);
        found.done = true;
        let (entries, blobs) = (found.entries.clone(), std::mem::take(&mut found.blobs));
        let act = RecoveryAct { size: found.from.size, entries, blobs };
        // Whatever comes of it, what is durable decides how it goes on.
        self.ended = true;
        self.joining
            .keep(&secrets, &act.encode(), found.from)
            .map_err(|error| Refusal::unavailable(error.code(), &error))?;
        tracing::info!(size = found.from.size, "the vault's keys are here, sealed to this machine");
        Ok(())
    }

    fn progress(&self) -> Result<RecoveryProgress, Refusal> {
        let found = self.found()?;
        let now = clock::wall(found.state.time());
        let proposal = recovery_of(&found.state, now);
        let approved_by = proposal.map(|proposal| proposal.approved_by(now).cloned().collect()).unwrap_or_default();
        let threshold = found.state.vault().map_or(0, |vault| vault.policy().approval().threshold);
        Ok(RecoveryProgress {
            approved_by,
            approvals: if self.mode == RecoveryMode::Drill { 0 } else { threshold },
            shares_of: found.gathering.custodians().cloned().collect(),
            shares: found.gathering.escrow().plan().threshold,
            done: found.done,
        })
    }

    fn status(&self) -> Response {
        let genesis = self.joining.genesis();
        let reason = match (&self.found, self.mode) {
            (None, _) => self.why.clone(),
            (Some(found), RecoveryMode::Drill) if found.done => {
                "the drill is over: the shares give the vault's keys, and this keeper wiped them".to_owned()
            }
            (Some(_), RecoveryMode::Drill) => "a drill: it waits for custodians".to_owned(),
            (Some(_), RecoveryMode::Recover) => "it waits for shares of custodians and for approvals".to_owned(),
        };
        let (size, root) =
            self.found.as_ref().map_or((0, Vec::new()), |found| (found.from.size, found.from.root.as_bytes().to_vec()));
        Response::Status(v1::StatusResponse {
            state: "recovering".to_owned(),
            reason: format!("{reason}: see `vaultctl recover status`"),
            vault_id: genesis.vault_id().as_bytes().to_vec(),
            anti_rollback: genesis.core().anti_rollback().as_str().to_owned(),
            log_size: size,
            log_root: root,
            time_source: "host clock".to_owned(),
            genesis: genesis.bytes().to_vec(),
            ..v1::StatusResponse::default()
        })
    }
}

/// The recovery that waits in a state.
fn recovery_of(state: &State, now: UnixTime) -> Option<&ledger::state::PendingProposal> {
    state.vault()?.pending(now).find(|proposal| matches!(proposal.subject(), Subject::Recover(_)))
}

/// Its exact bytes, once the fold has taken them.
fn apply(state: &mut State, entry: &Entry) -> Result<Vec<u8>, Refusal> {
    let bytes = entry.encode().map_err(|error| Refusal::denied(error.code(), error))?;
    state.apply(state.size(), &bytes).map_err(|error| Refusal::denied(error.code(), error))?;
    Ok(bytes)
}
