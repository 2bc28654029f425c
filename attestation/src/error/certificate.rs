//! What is wrong with a certificate, or with an anchor.

use std::error::Error;
use std::fmt;

use super::SnpError;

/// One certificate cannot be what its place in an EK chain needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CertificateError {
    /// Not one X.509 certificate in DER, or something stands behind it.
    Malformed,
    /// Longer than 4 KiB.
    TooLarge {
        /// Bytes.
        found: usize,
    },
    /// Not X.509 version 3.
    Version,
    /// The signature algorithm that is signed is not the one that is used.
    SignatureAlgorithmMismatch,
    /// The signature algorithm is not RSA PKCS #1 v1.5 or ECDSA, with SHA-256, SHA-384 or SHA-512.
    SignatureAlgorithmUnsupported,
    /// The public key is not RSA, P-256 or P-384.
    KeyUnsupported,
    /// An extension stands twice.
    ExtensionRepeated,
    /// An extension that is needed cannot be read.
    ExtensionMalformed,
    /// A critical extension that we do not know: its issuer says that we must refuse.
    CriticalExtensionUnknown,
    /// `now` is before its first second.
    NotYetValid,
    /// `now` is after its last second.
    Expired,
    /// The next certificate is not the issuer that it names.
    IssuerMismatch,
    /// Its issuer did not sign it.
    SignatureInvalid,
    /// An issuer whose basicConstraints do not say `cA`.
    NotAuthority,
    /// An issuer whose keyUsage does not say keyCertSign.
    NotCertificateSigner,
    /// An issuer with more authorities below it than its pathLenConstraint allows.
    PathTooLong,
    /// The extendedKeyUsage lacks tcg-kp-EKCertificate (2.23.133.8.1).
    NotForEndorsement,
    /// The EK certificate is one of an authority.
    EkIsAuthority,
    /// The keyUsage of the EK certificate is not keyEncipherment (RSA) or keyAgreement (ECC), or it is also for signing
    /// certificates.
    EkKeyUsage,
    /// The subjectAltName of the EK certificate has no directoryName, where the TPM's maker and model stand.
    EkSubjectAltName,
    /// An RSA EK that is not RSA-2048 with exponent 65537.
    EkKeyUnsupported,
    /// The EK is not an uncompressed point on its curve.
    EkPoint,
}

impl CertificateError {
    /// A stable name.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Malformed => "certificate-malformed",
            Self::TooLarge { .. } => "certificate-too-large",
            Self::Version => "certificate-version",
            Self::SignatureAlgorithmMismatch => "certificate-signature-algorithm-mismatch",
            Self::SignatureAlgorithmUnsupported => "certificate-signature-algorithm-unsupported",
            Self::KeyUnsupported => "certificate-key-unsupported",
            Self::ExtensionRepeated => "certificate-extension-repeated",
            Self::ExtensionMalformed => "certificate-extension-malformed",
            Self::CriticalExtensionUnknown => "certificate-critical-extension-unknown",
            Self::NotYetValid => "certificate-not-yet-valid",
            Self::Expired => "certificate-expired",
            Self::IssuerMismatch => "certificate-issuer-mismatch",
            Self::SignatureInvalid => "certificate-signature-invalid",
            Self::NotAuthority => "certificate-not-authority",
            Self::NotCertificateSigner => "certificate-not-certificate-signer",
            Self::PathTooLong => "certificate-path-too-long",
            Self::NotForEndorsement => "certificate-not-for-endorsement",
            Self::EkIsAuthority => "ek-is-authority",
            Self::EkKeyUsage => "ek-key-usage",
            Self::EkSubjectAltName => "ek-subject-alt-name",
            Self::EkKeyUnsupported => "ek-key-unsupported",
            Self::EkPoint => "ek-point-not-on-curve",
        }
    }
}

impl fmt::Display for CertificateError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Malformed => "not exactly one X.509 certificate in DER",
            Self::TooLarge { found } => return write!(f, "{found} bytes are more than 4 KiB"),
            Self::Version => "not an X.509 v3 certificate",
            Self::SignatureAlgorithmMismatch => "it names two different signature algorithms",
            Self::SignatureAlgorithmUnsupported => "its signature algorithm is not supported",
            Self::KeyUnsupported => "its key is neither RSA nor P-256 nor P-384",
            Self::ExtensionRepeated => "an extension stands twice",
            Self::ExtensionMalformed => "an extension cannot be read",
            Self::CriticalExtensionUnknown => "it has a critical extension that is not known here",
            Self::NotYetValid => "it is not valid yet",
            Self::Expired => "it has expired",
            Self::IssuerMismatch => "the next certificate is not its issuer",
            Self::SignatureInvalid => "its issuer did not sign it",
            Self::NotAuthority => "it issues certificates but is not an authority's",
            Self::NotCertificateSigner => "its key may not sign certificates",
            Self::PathTooLong => "there are more authorities below it than it allows",
            Self::NotForEndorsement => "it is not for endorsement keys of TPMs",
            Self::EkIsAuthority => "the EK certificate is an authority's",
            Self::EkKeyUsage => "the EK certificate's key usage is not key encipherment (RSA) or key agreement (ECC)",
            Self::EkSubjectAltName => "the EK certificate does not say which TPM model it is for",
            Self::EkKeyUnsupported => "an RSA EK is RSA-2048 with exponent 65537",
            Self::EkPoint => "the EK is not an uncompressed point on its curve",
        })
    }
}

impl Error for CertificateError {}

/// Something cannot be a trust anchor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AnchorError {
    /// Not exactly one PEM block `CERTIFICATE`.
    Pem,
    /// The name is not `[a-z0-9][a-z0-9._-]{0,63}`.
    Name,
    /// Another anchor has this name.
    NameRepeated,
    /// Another anchor has this key: whose trust counted would depend on their order.
    KeyRepeated,
    /// More than 64 anchors.
    TooMany,
    /// The certificate is not one of an authority that may endorse TPMs.
    Certificate(CertificateError),
    /// The certificate is named like the root of an SEV-SNP platform (`ARK-`), and cannot be one.
    SnpRoot(SnpError),
    /// The root of an SEV-SNP platform is to count as hardware. AMD's roots are built in: any other is a soft platform's.
    SnpNotHardware,
}

impl AnchorError {
    /// A stable name.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Pem => "anchor-pem-malformed",
            Self::Name => "anchor-name-malformed",
            Self::NameRepeated => "anchor-name-repeated",
            Self::KeyRepeated => "anchor-key-repeated",
            Self::TooMany => "anchors-too-many",
            Self::Certificate(error) => error.code(),
            Self::SnpRoot(error) => error.code(),
            Self::SnpNotHardware => "anchor-snp-not-hardware",
        }
    }
}

impl fmt::Display for AnchorError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Pem => "not exactly one PEM block CERTIFICATE",
            Self::Name => "an anchor's name is 1 to 64 of a-z 0-9 . _ - and starts with a letter or digit",
            Self::NameRepeated => "another anchor has this name",
            Self::KeyRepeated => "another anchor has this key",
            Self::TooMany => "there are more than 64 anchors",
            Self::Certificate(error) => return write!(f, "the anchor's certificate: {error}"),
            Self::SnpRoot(error) => return write!(f, "the anchor is named like an SEV-SNP root: {error}"),
            Self::SnpNotHardware => {
                "AMD's SEV-SNP roots are built in, and any other is a soft platform's: it counts as emulated"
            }
        })
    }
}

impl Error for AnchorError {}
