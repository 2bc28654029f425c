//! The evidence of a keeper over the wire. What is verified, and how, is in [`ledger::keeper_evidence`].

use attestation::{Keeper, Verified};
use ledger::checkpoint::{Checkpoint, LogVerifier};
use ledger::keeper_evidence::{
    GenesisKeeper, KeeperClaims, KeeperEvidenceError, KeeperRun, KeeperStanding, RecoveringError, RecoveringKeeper,
};
use ledger::policy::Policy;
use ledger::vault_file::VaultFile;
use vault_proto::convert::{EvidenceSet, KeeperEvidenceRequest, KeeperIdentity, RecoveryProgress};

use crate::client::Remote;
use crate::failure::{Failure, Kind};
use crate::session::Session;

/// A keeper before there is a vault, as this run has seen it.
pub struct CeremonyRun {
    /// What verified.
    pub keeper: GenesisKeeper,
    /// As the keeper answered: for the witness of an approval.
    pub evidence: EvidenceSet,
}

/// The keeper of an open vault, as this run has seen it.
pub struct VaultRun {
    /// What its TPM proved, for this run's nonce.
    pub verified: Verified<Keeper>,
    /// The newest checkpoint by its own word: signed by the log key and named by the quote.
    pub checkpoint: Checkpoint,
}

/// A keeper in the place of a lost one, as this run has seen it.
pub struct RecoveryRun {
    /// What verified.
    pub keeper: RecoveringKeeper,
    /// As the keeper answered: for the witness of an approval.
    pub evidence: EvidenceSet,
    /// How far it says that it is.
    pub progress: RecoveryProgress,
}

/// Verifies the evidence of a keeper that is to take the place of a lost one, by a policy that the caller knows: of his vault
/// file, or of the log that he has verified.
pub async fn recovery_run(
    remote: &Remote,
    vault: &VaultFile,
    policy: &Policy,
    session: &Session,
) -> Result<RecoveryRun, Failure> {
    let offer = remote.recovery().await?;
    let run = KeeperRun::start(policy, &offer.tpm, session.now(), session.rng()).map_err(not_verified)?;
    let answer = remote.keeper_evidence(question(&run)).await?;
    let evidence = answer.evidence.clone();
    let seen = run.verify_recovering(vault.genesis(), offer.claims, answer.evidence.evidence);
    let keeper = seen.map_err(|error| match error {
        RecoveringError::Evidence(error) => not_verified(error),
        RecoveringError::Fold(error) => {
            Failure::new(Kind::NotVerified, error.code(), "the recovering keeper is not one of this vault").why(error)
        }
    })?;
    Ok(RecoveryRun { keeper, evidence, progress: offer.progress })
}

/// Verifies the evidence of a keeper that is in its ceremony, under a first policy.
pub async fn ceremony_run(remote: &Remote, policy: &Policy, session: &Session) -> Result<CeremonyRun, Failure> {
    let identity = remote.keeper_identity().await?;
    if identity.vault_id.is_some() {
        return Err(Failure::new(Kind::Usage, "vault-open", "this keeper's ceremony is over")
            .why("its vault is open, so it no longer gives evidence for a genesis")
            .next("vaultctl status --vault FILE"));
    }
    let run = KeeperRun::start(policy, &identity.tpm, session.now(), session.rng()).map_err(not_verified)?;
    let answer = remote.keeper_evidence(question(&run)).await?;
    if answer.standing.is_some() {
        return Err(not_verified(KeeperEvidenceError::OtherKeeper { field: "its stage" }));
    }
    let evidence = answer.evidence.clone();
    let keeper = run.verify_genesis(claims(identity), answer.evidence.evidence).map_err(not_verified)?;
    Ok(CeremonyRun { keeper, evidence })
}

/// Verifies the evidence of the keeper of an open vault, under the vault file alone: its id, its keys and those that
/// follow them, its keeper's rules.
pub async fn vault_run(remote: &Remote, vault: &VaultFile, session: &Session) -> Result<VaultRun, Failure> {
    let identity = remote.keeper_identity().await?;
    match identity.vault_id {
        Some(id) if id == vault.id() => (),
        Some(id) => {
            return Err(Failure::new(Kind::NotVerified, "vault-other", "the host has the keeper of another vault")
                .why(format!("asked for {}, and it is the keeper of {id}", vault.id()))
                .next("check --host, and the hosts in the vault file"));
        }
        None => {
            return Err(Failure::new(Kind::Failed, "vault-not-open", "the vault is not open")
                .next("vaultctl init status --vault FILE says who has not signed"));
        }
    }
    let vault = &remote.follow(vault).await?;
    let run = KeeperRun::start(vault.policy(), &identity.tpm, session.now(), session.rng()).map_err(not_verified)?;
    let answer = remote.keeper_evidence(question(&run)).await?;
    let standing = answer.standing.ok_or_else(|| {
        Failure::new(Kind::NotVerified, "keeper-standing-missing", "the keeper's evidence says nothing about the vault")
            .why("it names no policy and no checkpoint, as the keeper of an open vault does")
    })?;
    let standing = KeeperStanding { policy: standing.policy, checkpoint: standing.checkpoint };
    let known = (vault.keeper_with(run.ak_name()), vault.keys());
    let verified =
        run.verify_vault(vault.genesis(), known, standing, answer.evidence.evidence).map_err(not_verified)?;
    let verifier = LogVerifier::of(vault.genesis());
    let checkpoint = verifier.verify_checkpoint(verified.statement().checkpoint()).map_err(|error| {
        Failure::new(Kind::NotVerified, error.code(), "the checkpoint in the keeper's evidence is not good").why(error)
    })?;
    Ok(VaultRun { verified, checkpoint })
}

fn question(run: &KeeperRun<'_>) -> KeeperEvidenceRequest {
    KeeperEvidenceRequest { nonce: *run.nonce(), credential: run.credential().clone() }
}

fn claims(identity: KeeperIdentity) -> KeeperClaims {
    KeeperClaims {
        instance: identity.instance,
        core: identity.core_digest,
        wrap_key: identity.wrap_key,
        identity_key: identity.identity_key,
        log_key: identity.log_key,
    }
}

/// Evidence that was refused: why, and that nothing of it may be believed.
pub fn not_verified(error: KeeperEvidenceError) -> Failure {
    let next = match &error {
        KeeperEvidenceError::Pcr(_) | KeeperEvidenceError::Report(_) => {
            "do not sign, and do not seal to this keeper. If approvers have let it boot something else since this vault file \
             was written, `vaultctl vault-file --vault FILE --out NEW` writes one that knows the policy in force"
        }
        KeeperEvidenceError::OtherKeeper { .. } => {
            "do not sign, and do not seal to this keeper. If approvers have let another keeper take over since this vault file \
             was written, `vaultctl vault-file --vault FILE --out NEW` writes one that knows it"
        }
        KeeperEvidenceError::Evidence(_)
        | KeeperEvidenceError::Credential(_)
        | KeeperEvidenceError::PlatformNotListed { .. } => {
            "do not sign, and do not seal to this keeper; see whether the policy names its TPM's anchor and its PCR values"
        }
    };
    Failure::new(Kind::NotVerified, error.code(), "the keeper's evidence does not verify").why(error).next(next)
}
