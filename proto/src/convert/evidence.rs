//! TPM identities, credentials, quotes, reports, and the evidence blob.

use attestation::{
    AzureEvidence, AzureQuote, Credential, Evidence, EvidenceForm, SNP_REPORT_BYTES, SnpEvidence, TpmIdentity, TpmQuote,
};
use prost::Message;

use super::{Fault, WireError, bytes, check_size, check_size_or_none, exact, present};
use crate::limits::{
    AK_PUBLIC_BYTES_MAX, ATTEST_BYTES_MAX, CERTIFICATE_BYTES_MAX, CERTIFICATES_MAX, CRL_BYTES_MAX, CRLS_MAX,
    EK_PUBLIC_BYTES_MAX, ENCRYPTED_SECRET_BYTES_MAX, EVENT_LOG_BYTES_MAX, EVIDENCE_MAX, HCL_REPORT_BYTES_MAX,
    ID_OBJECT_BYTES_MAX, PCRS_MAX, TPM_SIGNATURE_BYTES_MAX,
};
use crate::v1;

/// All the evidence of one request, raw.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EvidenceSet {
    /// In the form that was asked for.
    pub evidence: Evidence,
    /// The event log of the boot, raw, where it was asked for.
    pub event_log: Option<Vec<u8>>,
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
        use v1::evidence::Kind;
        const CODE: &str = "malformed-evidence";
        check_size(CODE, set.evidence.len(), EVIDENCE_MAX)?;
        let kinds = set.evidence.into_iter().map(|evidence| present(CODE, evidence.kind));
        let mut kinds = kinds.collect::<Result<Vec<_>, _>>()?.into_iter();
        let event_log = match set.event_log {
            log if log.is_empty() => None,
            log => Some(bytes("malformed-event-log", log, EVENT_LOG_BYTES_MAX)?),
        };
        let first = present(CODE, kinds.next())?;
        let evidence = match (first, kinds.next()) {
            (Kind::Tpm(quote), None) => Evidence::Tpm(quote.try_into()?),
            (Kind::Snp(report), None) => Evidence::Snp(report.try_into()?),
            (Kind::Snp(report), Some(Kind::Tpm(quote))) => {
                Evidence::SnpTpm { report: report.try_into()?, quote: quote.try_into()? }
            }
            (Kind::AzureSnpVtpm(azure), None) => Evidence::AzureSnpVtpm(azure.try_into()?),
            (Kind::Tpm(_) | Kind::AzureSnpVtpm(_), Some(_))
            | (Kind::Snp(_), Some(Kind::Snp(_) | Kind::AzureSnpVtpm(_))) => {
                return Err(WireError::new(CODE, Fault::Order));
            }
        };
        match kinds.next() {
            None => Ok(Self { evidence, event_log }),
            Some(_) => Err(WireError::new(CODE, Fault::Order)),
        }
    }
}

impl From<EvidenceSet> for v1::EvidenceSet {
    fn from(set: EvidenceSet) -> Self {
        use v1::evidence::Kind;
        let kinds = match set.evidence {
            Evidence::Tpm(quote) => vec![Kind::Tpm(quote.into())],
            Evidence::Snp(report) => vec![Kind::Snp(report.into())],
            Evidence::SnpTpm { report, quote } => vec![Kind::Snp(report.into()), Kind::Tpm(quote.into())],
            Evidence::AzureSnpVtpm(azure) => vec![Kind::AzureSnpVtpm(azure.into())],
        };
        let evidence = kinds.into_iter().map(|kind| v1::Evidence { kind: Some(kind) }).collect();
        Self { evidence, event_log: set.event_log.unwrap_or_default() }
    }
}

impl TryFrom<v1::EvidenceForm> for EvidenceForm {
    type Error = WireError;

    fn try_from(form: v1::EvidenceForm) -> Result<Self, WireError> {
        match form {
            v1::EvidenceForm::Unspecified => Err(WireError::new("malformed-evidence-form", Fault::Value)),
            v1::EvidenceForm::Tpm => Ok(Self::Tpm),
            v1::EvidenceForm::Snp => Ok(Self::Snp),
            v1::EvidenceForm::SnpTpm => Ok(Self::SnpTpm),
            v1::EvidenceForm::AzureSnpVtpm => Ok(Self::AzureSnpVtpm),
        }
    }
}

impl From<EvidenceForm> for v1::EvidenceForm {
    fn from(form: EvidenceForm) -> Self {
        match form {
            EvidenceForm::Tpm => Self::Tpm,
            EvidenceForm::Snp => Self::Snp,
            EvidenceForm::SnpTpm => Self::SnpTpm,
            EvidenceForm::AzureSnpVtpm => Self::AzureSnpVtpm,
        }
    }
}

/// A form by its number on the wire.
pub(super) fn form(number: i32) -> Result<EvidenceForm, WireError> {
    let form = v1::EvidenceForm::try_from(number);
    form.map_err(|_| WireError::new("malformed-evidence-form", Fault::Value))?.try_into()
}

impl TryFrom<v1::SnpEvidence> for SnpEvidence {
    type Error = WireError;

    fn try_from(snp: v1::SnpEvidence) -> Result<Self, WireError> {
        let report: [u8; SNP_REPORT_BYTES] = exact("malformed-snp-report", &snp.report)?;
        Ok(Self { report: report.to_vec(), certificates: certificates(snp.certificates)?, crls: crls(snp.crls)? })
    }
}

impl From<SnpEvidence> for v1::SnpEvidence {
    fn from(snp: SnpEvidence) -> Self {
        Self { report: snp.report, certificates: snp.certificates, crls: snp.crls }
    }
}

impl TryFrom<v1::AzureSnpVtpmEvidence> for AzureEvidence {
    type Error = WireError;

    fn try_from(azure: v1::AzureSnpVtpmEvidence) -> Result<Self, WireError> {
        Ok(Self {
            hcl_report: bytes("malformed-hcl-report", azure.hcl_report, HCL_REPORT_BYTES_MAX)?,
            certificates: certificates(azure.certificates)?,
            crls: crls(azure.crls)?,
            ak_public: bytes("malformed-ak-public", azure.ak_public, AK_PUBLIC_BYTES_MAX)?,
            quote: AzureQuote {
                attest: bytes("malformed-attest", azure.attest, ATTEST_BYTES_MAX)?,
                signature: bytes("malformed-tpm-signature", azure.signature, TPM_SIGNATURE_BYTES_MAX)?,
                pcrs: quoted_pcrs(azure.pcrs)?,
            },
        })
    }
}

impl From<AzureEvidence> for v1::AzureSnpVtpmEvidence {
    fn from(azure: AzureEvidence) -> Self {
        Self {
            hcl_report: azure.hcl_report,
            certificates: azure.certificates,
            crls: azure.crls,
            attest: azure.quote.attest,
            signature: azure.quote.signature,
            pcrs: azure.quote.pcrs.into_iter().map(wire_pcr).collect(),
            ak_public: azure.ak_public,
        }
    }
}

fn certificates(certificates: Vec<Vec<u8>>) -> Result<Vec<Vec<u8>>, WireError> {
    list("malformed-snp-certificates", certificates, CERTIFICATES_MAX, CERTIFICATE_BYTES_MAX)
}

fn crls(crls: Vec<Vec<u8>>) -> Result<Vec<Vec<u8>>, WireError> {
    list("malformed-crls", crls, CRLS_MAX, CRL_BYTES_MAX)
}

/// Byte strings, at most `max` of at most `bytes_max` each.
fn list(code: &'static str, items: Vec<Vec<u8>>, max: usize, bytes_max: usize) -> Result<Vec<Vec<u8>>, WireError> {
    check_size_or_none(code, items.len(), max)?;
    items.into_iter().map(|item| bytes(code, item, bytes_max)).collect()
}

pub(super) fn wire_pcr((index, sha256): (u32, [u8; 32])) -> v1::PcrValue {
    v1::PcrValue { index, sha256: sha256.to_vec() }
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
        Self {
            identity: Some(quote.identity.into()),
            attest: quote.attest,
            signature: quote.signature,
            pcrs: quote.pcrs.into_iter().map(wire_pcr).collect(),
        }
    }
}

impl TryFrom<v1::TpmIdentity> for TpmIdentity {
    type Error = WireError;

    fn try_from(identity: v1::TpmIdentity) -> Result<Self, WireError> {
        const CODE: &str = "malformed-ek-certificates";
        let v1::TpmIdentity { ek_certificates: certificates, ek_public, ak_public } = identity;
        check_size_or_none("malformed-ek-public", ek_public.len(), EK_PUBLIC_BYTES_MAX)?;
        let ek_certificates = match (certificates.is_empty(), ek_public.is_empty()) {
            (true, false) => certificates,
            (true, true) | (false, _) => {
                check_size(CODE, certificates.len(), CERTIFICATES_MAX)?;
                list(CODE, certificates, CERTIFICATES_MAX, CERTIFICATE_BYTES_MAX)?
            }
        };
        let ak_public = bytes("malformed-ak-public", ak_public, AK_PUBLIC_BYTES_MAX)?;
        Ok(Self { ek_certificates, ek_public, ak_public })
    }
}

impl From<TpmIdentity> for v1::TpmIdentity {
    fn from(identity: TpmIdentity) -> Self {
        let TpmIdentity { ek_certificates, ek_public, ak_public } = identity;
        Self { ek_certificates, ak_public, ek_public }
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
pub(super) fn quoted_pcrs(values: Vec<v1::PcrValue>) -> Result<Vec<(u32, [u8; 32])>, WireError> {
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
