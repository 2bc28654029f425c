//! The evidence that approvers of a recovery saw.

use std::sync::Arc;

use attestation::{Claims, HpkePublicKey, JoinerKeys, UnixTime, VerifyError};
use ledger::approvals::ApprovalStatement;
use ledger::entry::Approve;
use ledger::escrow::{Recovery, RecoveryMode};
use ledger::keeper_evidence::{KeeperRun, RecoveryClaims};
use ledger::state::{Subject, Vault};
use ring::rand::SecureRandom;
use vault_proto::convert::EvidenceSet;

use super::{Blobs, RECOVER_TAG, StoredEvidenceError, check_field, check_preimage, exactly, fields, identity, stored};

/// What an approval is of, where that is a recovery. `vault` is the state before it.
pub fn approved_recovery(vault: &Vault, approve: &Approve) -> Option<Arc<Recovery>> {
    let object = ApprovalStatement::parse(approve.statement.as_bytes()).ok()?.object;
    let proposal = vault.pending(approve.time).find(|proposal| proposal.object() == object)?;
    match proposal.subject() {
        Subject::Recover(recovery) => Some(Arc::clone(recovery)),
        Subject::Policy { .. }
        | Subject::Model(_)
        | Subject::Platform { .. }
        | Subject::Reseal { .. }
        | Subject::Join(_)
        | Subject::KeyEpoch { .. }
        | Subject::Escrow { .. }
        | Subject::Leave { .. }
        | Subject::Permit { .. }
        | Subject::Raise { .. }
        | Subject::Revocation { .. } => None,
    }
}

/// Verifies what an approver of a recovery saw, at the time of his approval.
pub fn verify_recovery(
    vault: &Vault,
    recovery: &Recovery,
    time: UnixTime,
    blobs: Blobs<'_>,
    rng: &dyn SecureRandom,
) -> Result<Claims, StoredEvidenceError> {
    let EvidenceSet { evidence, .. } = stored(blobs)?;
    let identity = identity(&evidence).ok_or(VerifyError::QuoteMissing)?.clone();
    let [nonce, _, _, _, _, hpke, _, _, _, secret, _] = fields(RECOVER_TAG, blobs.preimage)?;
    let hpke_key = HpkePublicKey::try_from(hpke).map_err(|_| StoredEvidenceError::PreimageMalformed)?;
    let Recovery { joiner, from, set, rollback } = recovery;
    let keys = JoinerKeys {
        instance: joiner.machine.instance,
        hpke_key,
        counter_name: joiner.counter_name,
        counter: joiner.counter,
    };
    let policy = vault.policy().digest();
    let claims =
        RecoveryClaims { mode: RecoveryMode::Recover, keys, policy, from: *from, set: *set, rollback: *rollback };
    let run = KeeperRun::replay(vault.policy(), &identity, time, exactly(nonce)?, exactly(secret)?, rng)?;
    let seen = run.verify_recovering(vault.genesis(), claims, evidence).map_err(StoredEvidenceError::Recovering)?;
    check_preimage(seen.verified().preimage(), blobs.preimage)?;
    check_field("keeper", seen.recovery() == recovery)?;
    Ok(seen.verified().claims().clone())
}
