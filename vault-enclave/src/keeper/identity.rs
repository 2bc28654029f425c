//! What a keeper shows of itself: its TPM, and evidence over a caller's nonce.

use std::collections::BTreeMap;

use attestation::{
    ActivationSecret, AkName, AttestationKey, Binding, Credential, EndorsedEk, PcrSelection, Sha256Digest, TpmIdentity,
    Transcript, Trust, UnixTime,
};
use ledger::policy::Policy;
use vault_proto::convert::EvidenceSet;

use super::refusal::Refusal;
use crate::tpm::{Tpm, TpmError, TpmObject};

/// The keeper's TPM and its attestation key.
#[derive(Clone)]
pub(super) struct KeeperTpm {
    /// The device.
    pub tpm: Tpm,
    /// The AK's blobs.
    pub ak: TpmObject,
    /// Its name.
    pub ak_name: AkName,
    /// What callers are told.
    pub identity: TpmIdentity,
}

impl KeeperTpm {
    /// Reads the EK certificate and pairs it with an AK.
    ///
    /// # Errors
    /// What the TPM says; an AK that is not of our template.
    pub(super) fn new(tpm: Tpm, ak: TpmObject) -> Result<Self, Refusal> {
        let ek_certificates = tpm.ek_certificates().wait()?;
        let ak_name = *AttestationKey::parse(&ak.public)?.name();
        let identity = TpmIdentity { ek_certificates, ak_public: ak.public.clone() };
        Ok(Self { tpm, ak, ak_name, identity })
    }

    /// As [`check_tpm`], for this TPM.
    ///
    /// # Errors
    /// As [`check_tpm`].
    pub(super) fn check(&self, policy: &Policy, now: UnixTime) -> Result<(Sha256Digest, Trust), Refusal> {
        check_tpm(&self.tpm, &self.identity.ek_certificates, policy, now)
    }

    /// A quote over the binding that `bind` makes with the secret of the caller's credential.
    ///
    /// # Errors
    /// What the TPM refuses: a credential for another EK or AK cannot be activated.
    pub(super) fn evidence<S: Transcript>(
        &self,
        credential: &Credential,
        pcrs: PcrSelection,
        bind: impl FnOnce(ActivationSecret) -> Binding<S>,
    ) -> Result<EvidenceSet, Refusal> {
        let secret = self.tpm.activate(&self.ak, credential).wait()?;
        let binding = bind(secret);
        let quote = self.tpm.quote(&self.ak, binding.tpm_extra_data(), pcrs).wait()?;
        Ok(EvidenceSet { tpm: quote.into_evidence(self.identity.clone()) })
    }
}

/// Whether a TPM is what a policy asks of its keeper: then its platform id and what its EK rests on. Asked first, so that
/// a ceremony fails before approvers are called.
///
/// # Errors
/// The code of the EK's check, `keeper-platform`, `keeper-pcrs`.
pub(super) fn check_tpm(
    tpm: &Tpm,
    ek_certificates: &[Vec<u8>],
    policy: &Policy,
    now: UnixTime,
) -> Result<(Sha256Digest, Trust), Refusal> {
    let ek = EndorsedEk::verify(ek_certificates, policy.trust_anchors(), now)
        .map_err(|error| Refusal::denied(error.code(), format!("the keeper's own TPM: {error}")))?;
    let rule = policy.keeper();
    if !rule.platforms.permits(&ek.platform()) {
        let message = format!("[keeper] eks does not list this keeper's TPM, {}", ek.platform());
        return Err(Refusal::denied("keeper-platform", message));
    }
    let values = tpm.read_pcrs(rule.pcrs.selection()).wait()?;
    let values: BTreeMap<u32, [u8; 32]> = values.iter().map(|(index, value)| (index, *value)).collect();
    rule.pcrs.check(&values).map_err(|error| Refusal::denied("keeper-pcrs", format!("[keeper] pcrs: {error}")))?;
    Ok((ek.platform(), ek.trust()))
}

impl From<TpmError> for Refusal {
    fn from(error: TpmError) -> Self {
        Self::unavailable(error.code(), error)
    }
}
