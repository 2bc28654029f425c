//! The evidence of a keeper that asked to take over, or took over.

use attestation::{Claims, EndorsedTpm, HpkePublicKey, JoinChallenge, JoinerKeys, Sha256Digest, UnixTime, VerifyError};
use ledger::keeper_evidence::expected;
use ledger::keepers::{AdmittedJoiner, Joiner};
use ledger::state::Vault;
use vault_proto::convert::EvidenceSet;

use super::{
    BIND_TAG, Blobs, StoredEvidenceError, check_field, check_preimage, exactly, fields, identity, stored, tpm_part,
};

/// Verifies what a `keeper-join` proposal or a `keeper-retire` entry rests on, at the time of the entry. `vault` is the
/// state before it.
pub fn verify_join(
    vault: &Vault,
    joiner: &Joiner,
    time: UnixTime,
    blobs: Blobs<'_>,
) -> Result<Claims, StoredEvidenceError> {
    let [_, session, nonce, _, _, _, hpke, _, _, ak_name, secret, _] = fields(BIND_TAG, blobs.preimage)?;
    let hpke_key = HpkePublicKey::try_from(hpke).map_err(|_| StoredEvidenceError::PreimageMalformed)?;
    let binding = JoinChallenge {
        session: exactly(session)?,
        nonce: exactly(nonce)?,
        vault: vault.id(),
        policy: vault.policy().digest(),
        tpm: tpm_part(ak_name, secret)?,
    }
    .bind(JoinerKeys {
        instance: joiner.machine.instance,
        hpke_key,
        counter_name: joiner.counter_name,
        counter: joiner.counter,
    });
    check_preimage(binding.preimage(), blobs.preimage)?;
    let EvidenceSet { evidence, .. } = stored(blobs)?;
    let anchors = vault.policy().trust_anchors();
    let tpm = EndorsedTpm::verify(identity(&evidence).ok_or(VerifyError::QuoteMissing)?, anchors, time)?;
    let pcrs = vault.genesis().policy().keeper().tpm().pcrs.selection();
    let verified = evidence.verify(binding, &expected(vault.policy().keeper(), tpm, pcrs), anchors, time)?;
    let admitted = AdmittedJoiner::admit(vault, verified, Sha256Digest::of(blobs.evidence), time)
        .map_err(StoredEvidenceError::Join)?;
    check_field("keeper", admitted.joiner() == joiner)?;
    Ok(admitted.verified().claims().clone())
}
