//! TPM identities, credentials, quotes, and the evidence blob.

use attestation::{Credential, TpmIdentity, TpmQuote};
use prost::Message;

use super::{Fault, WireError, bytes, check_size, exact, present};
use crate::limits::{
    AK_PUBLIC_BYTES_MAX, ATTEST_BYTES_MAX, CERTIFICATE_BYTES_MAX, CERTIFICATES_MAX, ENCRYPTED_SECRET_BYTES_MAX,
    EVIDENCE_MAX, ID_OBJECT_BYTES_MAX, PCRS_MAX, TPM_SIGNATURE_BYTES_MAX,
};
use crate::v1;

/// All the evidence of one request, raw. In this version that is one TPM quote.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EvidenceSet {
    /// The quote.
    pub tpm: TpmQuote,
}

impl EvidenceSet {
    /// The evidence blob (FORMAT.md §3): what its digest is taken of and what lies beside the log. There is one
    /// encoding of a set: fields in the order of their numbers, nothing unknown, no default value.
    #[must_use]
    pub fn blob(&self) -> Vec<u8> {
        v1::EvidenceSet::from(self.clone()).encode_to_vec()
    }

    /// Reads a blob. Bytes that are not the one encoding of what they say are refused: they have another digest.
    ///
    /// # Errors
    /// `malformed-evidence-blob`, or the code of the field.
    pub fn from_blob(blob: &[u8]) -> Result<Self, WireError> {
        const CODE: &str = "malformed-evidence-blob";
        let set = v1::EvidenceSet::decode(blob).map_err(|_| WireError::new(CODE, Fault::Value))?;
        let set = Self::try_from(set)?;
        if set.blob() != blob {
            return Err(WireError::new(CODE, Fault::Order));
        }
        Ok(set)
    }
}

impl TryFrom<v1::EvidenceSet> for EvidenceSet {
    type Error = WireError;

    fn try_from(set: v1::EvidenceSet) -> Result<Self, WireError> {
        const CODE: &str = "malformed-evidence";
        check_size(CODE, set.evidence.len(), EVIDENCE_MAX)?;
        let mut quote = None;
        for evidence in set.evidence {
            match present(CODE, evidence.kind)? {
                v1::evidence::Kind::Tpm(tpm) => {
                    if quote.replace(TpmQuote::try_from(tpm)?).is_some() {
                        return Err(WireError::new(CODE, Fault::Order));
                    }
                }
            }
        }
        Ok(Self { tpm: present(CODE, quote)? })
    }
}

impl From<EvidenceSet> for v1::EvidenceSet {
    fn from(set: EvidenceSet) -> Self {
        Self { evidence: vec![v1::Evidence { kind: Some(v1::evidence::Kind::Tpm(set.tpm.into())) }] }
    }
}

impl TryFrom<v1::TpmEvidence> for TpmQuote {
    type Error = WireError;

    fn try_from(tpm: v1::TpmEvidence) -> Result<Self, WireError> {
        Ok(Self {
            identity: present("malformed-tpm-identity", tpm.identity)?.try_into()?,
            attest: bytes("malformed-attest", tpm.attest, ATTEST_BYTES_MAX)?,
            signature: bytes("malformed-tpm-signature", tpm.signature, TPM_SIGNATURE_BYTES_MAX)?,
            pcrs: quoted_pcrs(tpm.pcrs)?,
        })
    }
}

impl From<TpmQuote> for v1::TpmEvidence {
    fn from(quote: TpmQuote) -> Self {
        let pcr = |(index, sha256): (u32, [u8; 32])| v1::PcrValue { index, sha256: sha256.to_vec() };
        Self {
            identity: Some(quote.identity.into()),
            attest: quote.attest,
            signature: quote.signature,
            pcrs: quote.pcrs.into_iter().map(pcr).collect(),
        }
    }
}

impl TryFrom<v1::TpmIdentity> for TpmIdentity {
    type Error = WireError;

    fn try_from(identity: v1::TpmIdentity) -> Result<Self, WireError> {
        const CODE: &str = "malformed-ek-certificates";
        check_size(CODE, identity.ek_certificates.len(), CERTIFICATES_MAX)?;
        let certificates = identity.ek_certificates.into_iter();
        Ok(Self {
            ek_certificates: certificates
                .map(|certificate| bytes(CODE, certificate, CERTIFICATE_BYTES_MAX))
                .collect::<Result<_, _>>()?,
            ak_public: bytes("malformed-ak-public", identity.ak_public, AK_PUBLIC_BYTES_MAX)?,
        })
    }
}

impl From<TpmIdentity> for v1::TpmIdentity {
    fn from(identity: TpmIdentity) -> Self {
        Self { ek_certificates: identity.ek_certificates, ak_public: identity.ak_public }
    }
}

impl TryFrom<v1::Credential> for Credential {
    type Error = WireError;

    fn try_from(credential: v1::Credential) -> Result<Self, WireError> {
        Ok(Self {
            id_object: bytes("malformed-id-object", credential.id_object, ID_OBJECT_BYTES_MAX)?,
            encrypted_secret: bytes(
                "malformed-encrypted-secret",
                credential.encrypted_secret,
                ENCRYPTED_SECRET_BYTES_MAX,
            )?,
        })
    }
}

impl From<Credential> for v1::Credential {
    fn from(credential: Credential) -> Self {
        Self { id_object: credential.id_object, encrypted_secret: credential.encrypted_secret }
    }
}

/// At least one PCR, ascending, each with 32 bytes.
fn quoted_pcrs(values: Vec<v1::PcrValue>) -> Result<Vec<(u32, [u8; 32])>, WireError> {
    const CODE: &str = "malformed-pcrs";
    check_size(CODE, values.len(), PCRS_MAX)?;
    if !values.is_sorted_by(|a, b| a.index < b.index) {
        return Err(WireError::new(CODE, Fault::Order));
    }
    values
        .into_iter()
        .map(|value| {
            if value.index as usize >= PCRS_MAX {
                return Err(WireError::new(CODE, Fault::Value));
            }
            Ok((value.index, exact(CODE, &value.sha256)?))
        })
        .collect()
}
