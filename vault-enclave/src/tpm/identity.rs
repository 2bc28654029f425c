//! Who this TPM is and what state it is in: certificates, attestation key, credential, quote.

use attestation::{ActivationSecret, AzureQuote, Credential, PcrSelection, TpmIdentity, TpmQuote};
use tss_esapi::handles::KeyHandle;
use tss_esapi::interface_types::session_handles::AuthSession;
use tss_esapi::structures::{
    Attest, AttestInfo, ClockInfo, Data, EncryptedSecret, IdObject, Private, Public, Signature, SignatureScheme,
};
use tss_esapi::traits::{Marshall, UnMarshall};

use super::device::Device;
use super::error::{ECC_POINT, FAILURE, INSUFFICIENT, INTEGRITY, SIZE, VALUE};
use super::pcrs::{PcrValues, selection_list};
use super::{TpmError, TpmObject, template};

/// A quote, with the PCR values that it covers.
#[derive(Clone, Debug)]
pub struct Quote {
    /// TPMS_ATTEST as signed.
    pub attest: Vec<u8>,
    /// TPMT_SIGNATURE.
    pub signature: Vec<u8>,
    /// The values whose digest was signed.
    pub pcrs: PcrValues,
    /// The TPM's clock when it signed.
    pub clock: TpmClock,
}

/// The TPM's clock (TPMS_CLOCK_INFO). The same reset and restart counts mean that the machine was not booted between.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TpmClock {
    /// Milliseconds that the TPM has been powered, ever.
    pub clock: u64,
    /// Boots.
    pub reset_count: u32,
    /// Resumes since the boot.
    pub restart_count: u32,
    /// Whether the clock cannot have gone back.
    pub safe: bool,
}

impl Quote {
    /// This quote as that of an Azure guest's virtual TPM.
    #[must_use]
    pub fn into_azure(self) -> AzureQuote {
        let pcrs = self.pcrs.iter().map(|(index, value)| (index, *value)).collect();
        AzureQuote { attest: self.attest, signature: self.signature, pcrs }
    }

    /// This quote as evidence of `identity`.
    #[must_use]
    pub fn into_evidence(self, identity: TpmIdentity) -> TpmQuote {
        let AzureQuote { attest, signature, pcrs } = self.into_azure();
        TpmQuote { identity, attest, signature, pcrs }
    }
}

const QUOTE_TRIES: usize = 8;

impl Device {
    pub(super) fn create_ak(&mut self) -> Result<TpmObject, TpmError> {
        let template = template::attestation_key()?;
        // Makes room: the endorsement key, the new key and the SRK are three.
        self.unload();
        let key = self.with_ek(|device, ek, policy| {
            let session = [Some(policy), None];
            device.authorised(session, "TPM2_Create", |tpm| tpm.create(ek, template, None, None, None, None))
        })?;
        let public = self.command("TPM2_Create", |_| key.out_public.marshall())?;
        Ok(TpmObject { public, private: key.out_private.value().to_vec() })
    }

    pub(super) fn quote(
        &mut self,
        ak: &TpmObject,
        extra_data: [u8; 32],
        pcrs: PcrSelection,
    ) -> Result<Quote, TpmError> {
        let ak = self.loaded_ak(ak)?;
        self.quote_by(ak, extra_data, pcrs)
    }

    /// A quote by a key that is loaded.
    pub(super) fn quote_by(
        &mut self,
        key: KeyHandle,
        extra_data: [u8; 32],
        pcrs: PcrSelection,
    ) -> Result<Quote, TpmError> {
        let list = selection_list(pcrs.iter())?;
        let data = self.command("TPM2_Quote", |_| Data::try_from(&extra_data[..]))?;
        for _ in 0..QUOTE_TRIES {
            let values = self.read_pcrs(pcrs)?;
            let password = [Some(AuthSession::Password), None];
            let (attest, signature) = self.authorised(password, "TPM2_Quote", |tpm| {
                tpm.quote(key, data.clone(), SignatureScheme::Null, list.clone())
            })?;
            if quoted(&attest).is_some_and(|digest| digest == values.digest().as_bytes()) {
                return self.command("TPM2_Quote", |_| quote(&attest, &signature, values));
            }
        }
        Err(TpmError::PcrsMoving)
    }

    pub(super) fn activate(&mut self, ak: &TpmObject, credential: &Credential) -> Result<ActivationSecret, TpmError> {
        const ACTIVATE: &str = "TPM2_ActivateCredential";
        let id_object = buffer(&credential.id_object).and_then(|bytes| IdObject::try_from(bytes).ok());
        let secret = buffer(&credential.encrypted_secret).and_then(|bytes| EncryptedSecret::try_from(bytes).ok());
        let (id_object, secret) = id_object.zip(secret).ok_or(TpmError::CredentialRefused)?;
        let ak = self.loaded_ak(ak)?;
        let activated = self.with_ek(|device, ek, policy| {
            let sessions = [Some(AuthSession::Password), Some(policy)];
            device.authorised(sessions, ACTIVATE, |tpm| tpm.activate_credential(ak, ek, id_object, secret))
        });
        let digest = activated.map_err(|error| self.refused_credential(error))?;
        let secret = digest.value().try_into().map_err(|_| TpmError::CredentialRefused)?;
        Ok(ActivationSecret::from_bytes(secret))
    }

    fn refused_credential(&mut self, error: TpmError) -> TpmError {
        // Whoever made it took the key from the certificate.
        if self.certificate_is_of_another_key().unwrap_or(false) {
            return TpmError::EkCertificateOtherKey;
        }
        // libtpms answers "failure" to a secret that does not decrypt; a TPM that has really failed answers nothing else.
        if matches!(error, TpmError::Response { code: FAILURE, .. }) && self.answers() {
            return TpmError::CredentialRefused;
        }
        let codes = [INTEGRITY, VALUE, SIZE, ECC_POINT, INSUFFICIENT];
        codes.iter().fold(error, |error, rc| error.meaning(*rc, TpmError::CredentialRefused))
    }

    /// The attestation key, loaded; it stays so for the next quote.
    fn loaded_ak(&mut self, ak: &TpmObject) -> Result<KeyHandle, TpmError> {
        let name = ak.name();
        match self.ak {
            Some((handle, loaded)) if loaded == name => return Ok(handle),
            Some(_) => self.unload(),
            None => {}
        }
        let (public, private) = parse(ak)?;
        let handle = self.with_ek(|device, ek, policy| {
            device.authorised([Some(policy), None], "TPM2_Load", |tpm| tpm.load(ek, private, public))
        });
        let handle = handle.map_err(refused_object)?;
        self.ak = Some((handle, name));
        Ok(handle)
    }
}

/// A stored object as the library takes it.
pub(super) fn parse(object: &TpmObject) -> Result<(Public, Private), TpmError> {
    let public = Public::unmarshall(&object.public).ok().filter(|public| {
        // The library takes trailing bytes; the name is of exactly these.
        public.marshall().is_ok_and(|bytes| bytes == object.public)
    });
    let private = Private::try_from(&object.private[..]).ok();
    public.zip(private).ok_or(TpmError::ObjectMalformed)
}

/// What TPM2_Load's refusal of a stored object means.
pub(super) fn refused_object(error: TpmError) -> TpmError {
    const BINDING: u32 = 0x0a5;
    const HASH: u32 = 0x083;
    [INTEGRITY, VALUE, SIZE, BINDING, HASH].iter().fold(error, |error, rc| error.meaning(*rc, TpmError::ObjectRefused))
}

/// The pcrDigest of a quote.
fn quoted(attest: &Attest) -> Option<&[u8]> {
    match attest.attested() {
        AttestInfo::Quote { info } => Some(info.pcr_digest().value()),
        _ => None,
    }
}

fn quote(attest: &Attest, signature: &Signature, pcrs: PcrValues) -> tss_esapi::Result<Quote> {
    let clock = attest.clock_info();
    Ok(Quote { attest: attest.marshall()?, signature: signature.marshall()?, pcrs, clock: clock.into() })
}

impl From<&ClockInfo> for TpmClock {
    fn from(info: &ClockInfo) -> Self {
        Self {
            clock: info.clock(),
            reset_count: info.reset_count(),
            restart_count: info.restart_count(),
            safe: info.safe(),
        }
    }
}

/// The content of a TPM2B: exactly as long as its prefix says.
fn buffer(sized: &[u8]) -> Option<&[u8]> {
    let (prefix, content) = sized.split_first_chunk::<2>()?;
    (usize::from(u16::from_be_bytes(*prefix)) == content.len()).then_some(content)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sized_buffer_is_exactly_as_long_as_it_says() {
        assert_eq!(buffer(&[0, 2, 8, 9]), Some(&[8, 9][..]));
        for bad in [&[][..], &[0], &[0, 2, 8], &[0, 1, 8, 9]] {
            assert_eq!(buffer(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn the_name_of_an_object_is_of_its_public_area() {
        let object = TpmObject { public: vec![1], private: vec![] };
        assert_eq!(object.name(), super::super::TpmName::of(&[1]));
        assert_eq!(object.name().as_bytes()[..2], [0, 0x0b]);
    }
}
