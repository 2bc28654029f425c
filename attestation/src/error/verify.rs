//! Why evidence was refused.

use std::error::Error;
use std::fmt;

use super::{CertificateError, DecodeError, HclError, SnpError};
use crate::encoding::Sha256Digest;

/// Evidence does not show what it must. One variant for each check, in the order in which they are made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum VerifyError {
    /// There is no EK certificate.
    EkCertificateMissing,
    /// There are more certificates than 6.
    EkCertificatesTooMany {
        /// How many.
        found: usize,
    },
    /// A certificate of the EK chain is refused.
    EkCertificate {
        /// 0 is the EK certificate; one more than was sent is the anchor.
        index: usize,
        /// What is wrong with it.
        error: CertificateError,
    },
    /// No anchor issued a certificate of the chain.
    EkAnchorUnknown,
    /// The EK has no certificate and was not enrolled.
    EkNotEnrolled {
        /// Its platform id.
        platform: Sha256Digest,
    },
    /// The EK's public area has another template than L-1 (RSA-2048), L-2 (P-256) or H-3 (P-384): another curve, another
    /// hash or cipher, other attributes, or it can be used otherwise.
    EkTemplateUnknown,
    /// The EK's public area is not exactly one TPMT_PUBLIC of its template.
    EkPublicMalformed(DecodeError),
    /// The key in the EK's public area is none.
    EkPublicKey(CertificateError),
    /// The EK's public area is of another key than its certificate.
    EkPublicOtherKey,

    /// The AK is not exactly one TPMT_PUBLIC.
    AkMalformed(DecodeError),
    /// The AK is neither RSA nor ECC.
    AkTypeUnsupported {
        /// TPMI_ALG_PUBLIC.
        found: u16,
    },
    /// The AK's name is not made with SHA-256.
    AkNameAlgorithm {
        /// TPMI_ALG_HASH.
        found: u16,
    },
    /// The AK could leave its TPM by itself.
    AkNotFixedTpm,
    /// The AK could move under another parent.
    AkNotFixedParent,
    /// The AK was not made by its TPM, so others may have it.
    AkNotMadeByTpm,
    /// The AK signs anything, so also a forged attestation.
    AkNotRestricted,
    /// The AK is no signing key.
    AkNotSigning,
    /// The AK also decrypts.
    AkDecrypts,
    /// The AK has attributes that are not known here.
    AkAttributesUnknown {
        /// The bits of TPMA_OBJECT.
        bits: u32,
    },
    /// The AK has a symmetric algorithm, which no signing key has.
    AkSymmetric {
        /// TPMI_ALG_SYM_OBJECT.
        found: u16,
    },
    /// The AK's scheme is not ECDSA (ECC) or RSASSA (RSA) with SHA-256.
    AkScheme {
        /// TPMI_ALG_SIG_SCHEME.
        scheme: u16,
        /// TPMI_ALG_HASH; 0 where the scheme is another.
        hash: u16,
    },
    /// The AK is on another curve than P-256.
    AkCurve {
        /// TPMI_ECC_CURVE.
        found: u16,
    },
    /// The AK has a key derivation scheme.
    AkKdf {
        /// TPMI_ALG_KDF.
        found: u16,
    },
    /// The AK is RSA of another size than 2048.
    AkKeyBits {
        /// Bits.
        found: u16,
    },
    /// The AK's RSA exponent is not 65537.
    AkExponent {
        /// TPMS_RSA_PARMS.exponent; 0 stands for 65537.
        found: u32,
    },
    /// The AK's modulus or point is not of its size.
    AkKeyMalformed,

    /// Evidence of another form than was asked for.
    FormMismatch,
    /// A TPM takes part in the binding, and none has quoted it.
    QuoteMissing,
    /// The SNP report, or what is needed to check it.
    Snp(SnpError),
    /// The HCL report of an Azure guest.
    Hcl(HclError),
    /// The quote comes with another EK chain or AK than the challenge was for.
    IdentityChanged,
    /// The binding is for another AK.
    AkNotBound,
    /// The signature is not exactly one TPMT_SIGNATURE.
    SignatureMalformed(DecodeError),
    /// The signature is of another scheme or hash than the AK's.
    SignatureScheme {
        /// TPMI_ALG_SIG_SCHEME.
        scheme: u16,
        /// TPMI_ALG_HASH.
        hash: u16,
    },
    /// The AK did not sign this attestation.
    SignatureInvalid,
    /// The attestation is not exactly one TPMS_ATTEST.
    AttestMalformed(DecodeError),
    /// The attestation was not made by a TPM (TPM_GENERATED_VALUE).
    AttestMagic,
    /// The attestation is of something else than PCRs.
    AttestNotQuote {
        /// TPMI_ST_ATTEST.
        found: u16,
    },
    /// The qualified name of the signer is not a SHA-256 name, as that of an AK with that name algorithm is.
    AttestSigner,
    /// The quote was made for another binding: replayed, or for other keys, another vault, another challenge.
    ExtraDataMismatch,
    /// The quote is over another bank or other PCRs than asked for.
    PcrSelectionMismatch,
    /// The PCR values given are not exactly those quoted, ascending.
    PcrValuesMismatch,
    /// The PCR values given are not what was quoted.
    PcrDigestMismatch,
}

impl VerifyError {
    /// A stable name.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::EkCertificateMissing => "ek-certificate-missing",
            Self::EkCertificatesTooMany { .. } => "ek-certificates-too-many",
            Self::EkCertificate { error, .. } => error.code(),
            Self::EkAnchorUnknown => "ek-anchor-unknown",
            Self::EkNotEnrolled { .. } => "ek-not-enrolled",
            Self::EkTemplateUnknown => "ek-template-unknown",
            Self::EkPublicMalformed(_) => "ek-public-malformed",
            Self::EkPublicKey(error) => error.code(),
            Self::EkPublicOtherKey => "ek-public-other-key",
            Self::AkMalformed(_) => "ak-malformed",
            Self::AkTypeUnsupported { .. } => "ak-type-unsupported",
            Self::AkNameAlgorithm { .. } => "ak-name-algorithm",
            Self::AkNotFixedTpm => "ak-not-fixed-tpm",
            Self::AkNotFixedParent => "ak-not-fixed-parent",
            Self::AkNotMadeByTpm => "ak-not-made-by-tpm",
            Self::AkNotRestricted => "ak-not-restricted",
            Self::AkNotSigning => "ak-not-signing",
            Self::AkDecrypts => "ak-decrypts",
            Self::AkAttributesUnknown { .. } => "ak-attributes-unknown",
            Self::AkSymmetric { .. } => "ak-symmetric",
            Self::AkScheme { .. } => "ak-scheme",
            Self::AkCurve { .. } => "ak-curve",
            Self::AkKdf { .. } => "ak-kdf",
            Self::AkKeyBits { .. } => "ak-key-bits",
            Self::AkExponent { .. } => "ak-exponent",
            Self::AkKeyMalformed => "ak-key-malformed",
            Self::FormMismatch => "evidence-form-mismatch",
            Self::QuoteMissing => "quote-missing",
            Self::Snp(error) => error.code(),
            Self::Hcl(error) => error.code(),
            Self::IdentityChanged => "identity-changed",
            Self::AkNotBound => "ak-not-bound",
            Self::SignatureMalformed(_) => "quote-signature-malformed",
            Self::SignatureScheme { .. } => "quote-signature-scheme",
            Self::SignatureInvalid => "quote-signature-invalid",
            Self::AttestMalformed(_) => "attest-malformed",
            Self::AttestMagic => "attest-magic",
            Self::AttestNotQuote { .. } => "attest-not-quote",
            Self::AttestSigner => "attest-signer",
            Self::ExtraDataMismatch => "binding-mismatch",
            Self::PcrSelectionMismatch => "pcr-selection-mismatch",
            Self::PcrValuesMismatch => "pcr-values-mismatch",
            Self::PcrDigestMismatch => "pcr-digest-mismatch",
        }
    }
}

impl fmt::Display for VerifyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::EkCertificateMissing => "there is no EK certificate",
            Self::EkCertificatesTooMany { found } => {
                return write!(f, "{found} EK certificates are more than 6");
            }
            Self::EkCertificate { index, error } => {
                return write!(f, "certificate {index} of the EK chain: {error}");
            }
            Self::EkAnchorUnknown => "no trust anchor issued the EK chain",
            Self::EkNotEnrolled { platform } => {
                return write!(f, "the EK {platform} has no certificate, and nobody enrolled it");
            }
            Self::EkTemplateUnknown => {
                "the EK's public area is of no template known here (L-1 RSA-2048, L-2 P-256, H-3 P-384)"
            }
            Self::EkPublicMalformed(error) => return write!(f, "the EK's public area: {error}"),
            Self::EkPublicKey(error) => return write!(f, "the EK's public area: {error}"),
            Self::EkPublicOtherKey => "the EK's public area is of another key than its certificate",
            Self::AkMalformed(error) => return write!(f, "the AK's public area: {error}"),
            Self::AkTypeUnsupported { found } => return write!(f, "AK type {found:#06x} is unknown"),
            Self::AkNameAlgorithm { found } => {
                return write!(f, "AK name algorithm {found:#06x} is not SHA-256");
            }
            Self::AkNotFixedTpm => "the AK is not fixed to its TPM",
            Self::AkNotFixedParent => "the AK is not fixed to its parent",
            Self::AkNotMadeByTpm => "the AK was not made by its TPM",
            Self::AkNotRestricted => "the AK is not restricted",
            Self::AkNotSigning => "the AK does not sign",
            Self::AkDecrypts => "the AK decrypts",
            Self::AkAttributesUnknown { bits } => {
                return write!(f, "AK attributes {bits:#010x} are unknown");
            }
            Self::AkSymmetric { found } => {
                return write!(f, "the AK has symmetric algorithm {found:#06x}");
            }
            Self::AkScheme { scheme, hash } => {
                return write!(f, "AK scheme {scheme:#06x} with hash {hash:#06x} is unknown");
            }
            Self::AkCurve { found } => return write!(f, "AK curve {found:#06x} is not P-256"),
            Self::AkKdf { found } => return write!(f, "the AK has KDF {found:#06x}"),
            Self::AkKeyBits { found } => return write!(f, "an AK of {found} bits is not RSA-2048"),
            Self::AkExponent { found } => return write!(f, "AK exponent {found} is not 65537"),
            Self::AkKeyMalformed => "the AK's key is not of its size",
            Self::FormMismatch => "the evidence is of another form than was asked for",
            Self::QuoteMissing => "a TPM takes part, and it has quoted nothing",
            Self::Snp(error) => return error.fmt(f),
            Self::Hcl(error) => return error.fmt(f),
            Self::IdentityChanged => "the quote comes with another identity than the challenge was for",
            Self::AkNotBound => "the binding is for another AK",
            Self::SignatureMalformed(error) => return write!(f, "the quote's signature: {error}"),
            Self::SignatureScheme { scheme, hash } => {
                return write!(f, "signature scheme {scheme:#06x} with hash {hash:#06x} is not the AK's");
            }
            Self::SignatureInvalid => "the AK did not sign this quote",
            Self::AttestMalformed(error) => return write!(f, "the attestation: {error}"),
            Self::AttestMagic => "the attestation was not made by a TPM",
            Self::AttestNotQuote { found } => {
                return write!(f, "attestation type {found:#06x} is not a quote");
            }
            Self::AttestSigner => "the signer has no SHA-256 name",
            Self::ExtraDataMismatch => "the quote was made for another challenge or other keys",
            Self::PcrSelectionMismatch => "other PCRs than asked for were quoted",
            Self::PcrValuesMismatch => "the PCR values are not those of the quoted PCRs, ascending",
            Self::PcrDigestMismatch => "the PCR values are not what was quoted",
        })
    }
}

impl Error for VerifyError {}

impl From<HclError> for VerifyError {
    fn from(error: HclError) -> Self {
        Self::Hcl(error)
    }
}

impl From<SnpError> for VerifyError {
    fn from(error: SnpError) -> Self {
        Self::Snp(error)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// Every variant; a new one belongs here too.
    fn all() -> Vec<VerifyError> {
        use VerifyError::*;
        let decode = DecodeError::Truncated;
        vec![
            EkCertificateMissing,
            EkCertificatesTooMany { found: 7 },
            EkCertificate { index: 1, error: CertificateError::Expired },
            EkAnchorUnknown,
            EkNotEnrolled { platform: Sha256Digest::of(b"ek") },
            EkTemplateUnknown,
            EkPublicMalformed(decode),
            EkPublicKey(CertificateError::EkPoint),
            EkPublicOtherKey,
            AkMalformed(decode),
            AkTypeUnsupported { found: 1 },
            AkNameAlgorithm { found: 1 },
            AkNotFixedTpm,
            AkNotFixedParent,
            AkNotMadeByTpm,
            AkNotRestricted,
            AkNotSigning,
            AkDecrypts,
            AkAttributesUnknown { bits: 1 },
            AkSymmetric { found: 1 },
            AkScheme { scheme: 1, hash: 1 },
            AkCurve { found: 1 },
            AkKdf { found: 1 },
            AkKeyBits { found: 1 },
            AkExponent { found: 1 },
            AkKeyMalformed,
            FormMismatch,
            QuoteMissing,
            IdentityChanged,
            AkNotBound,
            SignatureMalformed(decode),
            SignatureScheme { scheme: 1, hash: 1 },
            SignatureInvalid,
            AttestMalformed(decode),
            AttestMagic,
            AttestNotQuote { found: 1 },
            AttestSigner,
            ExtraDataMismatch,
            PcrSelectionMismatch,
            PcrValuesMismatch,
            PcrDigestMismatch,
        ]
    }

    #[test]
    fn each_refusal_has_its_own_code_and_text() {
        let codes: BTreeSet<_> = all().iter().map(VerifyError::code).collect();
        let texts: BTreeSet<_> = all().iter().map(ToString::to_string).collect();
        assert_eq!((codes.len(), texts.len()), (all().len(), all().len()));
        for code in codes {
            assert!(code.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'-'), "{code}");
        }
    }

    #[test]
    fn a_refused_certificate_has_the_code_of_its_reason() {
        let error = VerifyError::EkCertificate { index: 1, error: CertificateError::Expired };
        assert_eq!(error.code(), "certificate-expired");
        assert_eq!(error.to_string(), "certificate 1 of the EK chain: it has expired");
    }
}
