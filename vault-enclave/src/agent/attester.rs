//! The TPM that an agent attests with. Loader and lease holder open it one after the other, never at once: whoever opens
//! a TPM without a resource manager flushes what others left in it.

use attestation::{
    ActivationSecret, AkName, AttestationKey, Binding, Credential, PcrSelection, TpmIdentity, Transcript,
};
use vault_proto::convert::EvidenceSet;

use super::error::SessionError;
use crate::tpm::{TctiConfig, Tpm, TpmObject};

/// What names an agent's attestation key from one opening of the TPM to the next. Nothing in it is secret.
#[derive(Clone)]
pub struct AgentIdentity {
    /// Where the TPM is.
    pub tcti: TctiConfig,
    /// The AK's blobs, useless without that TPM.
    pub ak: TpmObject,
    /// Its name.
    pub ak_name: AkName,
    /// What the keeper is told.
    pub tpm: TpmIdentity,
}

impl AgentIdentity {
    /// Reads the EK certificate and pairs it with `ak`, or with a new AK.
    ///
    /// # Errors
    /// What the TPM says; an AK that is not of our template.
    pub fn establish(tcti: TctiConfig, ak: Option<TpmObject>) -> Result<Self, SessionError> {
        let tpm = Tpm::open(tcti.clone())?;
        let ek_certificates = tpm.ek_certificates().wait()?;
        let ak = match ak {
            Some(ak) => ak,
            None => tpm.create_ak().wait()?,
        };
        Self::new(tcti, ak, ek_certificates)
    }

    /// From what an earlier [`establish`](Self::establish) found.
    ///
    /// # Errors
    /// An AK that is not of our template.
    pub fn new(tcti: TctiConfig, ak: TpmObject, ek_certificates: Vec<Vec<u8>>) -> Result<Self, SessionError> {
        let ak_name = *AttestationKey::parse(&ak.public)?.name();
        let tpm = TpmIdentity { ek_certificates, ak_public: ak.public.clone() };
        Ok(Self { tcti, ak, ak_name, tpm })
    }

    /// Opens the TPM to answer a challenge.
    ///
    /// # Errors
    /// [`SessionError::Tpm`].
    pub fn open(&self) -> Result<AgentTpm<'_>, SessionError> {
        Ok(AgentTpm { tpm: Tpm::open(self.tcti.clone())?, identity: self })
    }
}

/// The opened TPM. It is closed on drop.
pub struct AgentTpm<'a> {
    tpm: Tpm,
    identity: &'a AgentIdentity,
}

impl AgentTpm<'_> {
    /// Name of the AK.
    #[must_use]
    pub fn ak_name(&self) -> AkName {
        self.identity.ak_name
    }

    /// Opens the credential of a challenge.
    ///
    /// # Errors
    /// [`SessionError::Tpm`]: it was made for another EK or AK.
    pub fn activate(&self, credential: &Credential) -> Result<ActivationSecret, SessionError> {
        Ok(self.tpm.activate(&self.identity.ak, credential).wait()?)
    }

    /// A quote over a binding.
    ///
    /// # Errors
    /// [`SessionError::Tpm`].
    pub fn evidence<S: Transcript>(
        &self,
        binding: &Binding<S>,
        pcrs: PcrSelection,
    ) -> Result<EvidenceSet, SessionError> {
        let quote = self.tpm.quote(&self.identity.ak, binding.tpm_extra_data(), pcrs).wait()?;
        Ok(EvidenceSet { tpm: quote.into_evidence(self.identity.tpm.clone()) })
    }
}
