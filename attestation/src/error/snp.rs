//! Why an SEV-SNP report, its certificates or its revocation lists were refused.

use std::error::Error;
use std::fmt;

use super::CertificateError;
use crate::snp::{SigningKey, SnpProduct, TcbComponent};

/// A place in the chain of a report.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SnpCertificate {
    /// The VCEK or VLEK, which signed the report.
    Leaf,
    /// The ASK or ASVK, which issued the leaf.
    Intermediate,
    /// The ARK, which issued the intermediate.
    Root,
}

impl fmt::Display for SnpCertificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Leaf => "VCEK or VLEK",
            Self::Intermediate => "ASK or ASVK",
            Self::Root => "ARK",
        })
    }
}

/// SEV-SNP evidence does not show what it must. One variant for each check.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SnpError {
    /// The report does not have 1184 bytes.
    ReportLength {
        /// Bytes.
        found: usize,
    },
    /// The version of the report is not 2 to 5.
    ReportVersion {
        /// VERSION.
        found: u32,
    },
    /// The report is not signed with ECDSA on P-384 with SHA-384.
    ReportSignatureAlgorithm {
        /// SIGNATURE_ALGO.
        found: u32,
    },
    /// The word KEY_INFO has bits that are not known here.
    KeyInfoUnknown {
        /// Those bits.
        bits: u32,
    },
    /// The report says that no key signed it.
    ReportUnsigned,
    /// The report says that a kind of key signed it which is not known here.
    SigningKeyUnknown {
        /// SIGNING_KEY.
        found: u32,
    },
    /// The guest policy has bits that are not known here.
    PolicyBitsUnknown {
        /// Those bits.
        bits: u64,
    },
    /// Bit 17 of the guest policy, which is always one, is zero.
    PolicyReservedBitClear,
    /// PLATFORM_INFO has bits that are not known here.
    PlatformInfoUnknown {
        /// Those bits.
        bits: u64,
    },
    /// A byte that has no meaning is not zero.
    ReportReservedNotZero {
        /// Where it is.
        offset: usize,
    },
    /// A report of version 2 does not say which product it is from, and nothing else did.
    ReportProductUnknown,
    /// The report is from a processor whose root is not known here.
    CpuUnknown {
        /// CPUID family.
        family: u8,
        /// CPUID model.
        model: u8,
    },
    /// The report is from another product than its chain.
    ReportProductMismatch {
        /// That of the chain.
        chain: SnpProduct,
        /// That of the report.
        report: SnpProduct,
    },

    /// A certificate of the chain was not sent.
    CertificateMissing(SnpCertificate),
    /// More certificates were sent than a chain has.
    CertificatesTooMany {
        /// How many.
        found: usize,
    },
    /// A certificate is refused.
    Certificate {
        /// Which.
        certificate: SnpCertificate,
        /// What is wrong with it.
        error: CertificateError,
    },
    /// A certificate is not signed with RSASSA-PSS, SHA-384, MGF1 with SHA-384, and 48 bytes of salt.
    CertificatePss(SnpCertificate),
    /// An authority's key is not RSA-4096 with exponent 65537.
    CertificateRsaKey(SnpCertificate),
    /// The common name is not one that AMD's scheme has in this place.
    CertificateName(SnpCertificate),
    /// The ARK's key is neither pinned here nor that of an anchor of the policy.
    RootUnknown,
    /// The ARK is not one for the product that its anchor is for.
    RootProduct,
    /// The leaf's key is not on P-384.
    LeafKey,
    /// The leaf is the certificate of an authority, or may sign certificates.
    LeafIsAuthority,
    /// The leaf says what its key is for, and signing is not among it.
    LeafKeyUsage,
    /// An extension of the leaf is missing.
    LeafExtensionMissing {
        /// What it would say.
        extension: &'static str,
    },
    /// An extension of the leaf cannot be read.
    LeafExtensionMalformed {
        /// What it says.
        extension: &'static str,
    },
    /// The leaf has an extension that its kind or product does not have.
    LeafExtensionUnexpected {
        /// What it says.
        extension: &'static str,
    },
    /// The product in the leaf is not the one that its issuers are for.
    LeafProductMismatch {
        /// That of the issuers.
        issuers: SnpProduct,
        /// That of the leaf.
        leaf: SnpProduct,
    },
    /// The report was signed by another kind of key than its leaf is for.
    SigningKeyMismatch {
        /// That of the leaf.
        leaf: SigningKey,
        /// SIGNING_KEY of the report.
        report: SigningKey,
    },

    /// There is no revocation list, and the rule demands one.
    CrlMissing,
    /// There are more revocation lists than 2.
    CrlsTooMany {
        /// How many.
        found: usize,
    },
    /// A revocation list is longer than 64 KiB.
    CrlTooLarge {
        /// Bytes.
        found: usize,
    },
    /// Not exactly one X.509 revocation list in DER.
    CrlMalformed,
    /// The revocation list is not of version 2.
    CrlVersion,
    /// The revocation list is not of this ARK.
    CrlIssuer,
    /// The revocation list is not signed with RSASSA-PSS, SHA-384, MGF1 with SHA-384, and 48 bytes of salt.
    CrlPss,
    /// The ARK did not sign the revocation list.
    CrlSignatureInvalid,
    /// The revocation list has a critical extension, which may mean that it does not list everything.
    CrlExtension,
    /// The revocation list does not say until when it holds.
    CrlNextUpdateMissing,
    /// The revocation list is from the future.
    CrlNotYetValid,
    /// The revocation list is out of date.
    CrlStale,
    /// The ARK has revoked a certificate of the chain.
    Revoked(SnpCertificate),
    /// A chain that was verified before is not the one of this evidence, or no longer rests on an anchor in force.
    ChainChanged,

    /// The leaf's key did not sign this report.
    ReportSignatureInvalid,
    /// The leaf is for another TCB than the report states.
    LeafTcbMismatch {
        /// The first component that differs.
        component: TcbComponent,
    },
    /// The leaf is for another chip than the report states.
    ChipMismatch,
    /// The report is signed by a chip's key, but the host masks which chip.
    ChipMasked,
    /// REPORTED_TCB is above CURRENT_TCB, which no firmware states.
    ReportedAboveCurrent {
        /// The first component above.
        component: TcbComponent,
    },
    /// COMMITTED_TCB is above CURRENT_TCB, which no firmware states.
    CommittedAboveCurrent {
        /// The first component above.
        component: TcbComponent,
    },
    /// The guest's policy lets the host read its memory.
    Debug,
    /// The guest's policy lets a migration agent move it.
    MigrationAllowed,
    /// The guest has a migration agent.
    MigrationAgent,
    /// VMPL is not 0 to 3.
    VmplUnknown {
        /// VMPL.
        found: u32,
    },
    /// REPORT_DATA is not what was asked for: replayed, or for other keys or another challenge.
    ReportDataMismatch,
}

impl SnpError {
    /// A stable name.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::ReportLength { .. } => "snp-report-length",
            Self::ReportVersion { .. } => "snp-report-version",
            Self::ReportSignatureAlgorithm { .. } => "snp-report-signature-algorithm",
            Self::KeyInfoUnknown { .. } => "snp-key-info-unknown",
            Self::ReportUnsigned => "snp-report-unsigned",
            Self::SigningKeyUnknown { .. } => "snp-signing-key-unknown",
            Self::PolicyBitsUnknown { .. } => "snp-policy-bits-unknown",
            Self::PolicyReservedBitClear => "snp-policy-reserved-bit-clear",
            Self::PlatformInfoUnknown { .. } => "snp-platform-info-unknown",
            Self::ReportReservedNotZero { .. } => "snp-report-reserved-not-zero",
            Self::ReportProductUnknown => "snp-report-product-unknown",
            Self::CpuUnknown { .. } => "snp-cpu-unknown",
            Self::ReportProductMismatch { .. } => "snp-report-product-mismatch",
            Self::CertificateMissing(_) => "snp-certificate-missing",
            Self::CertificatesTooMany { .. } => "snp-certificates-too-many",
            Self::Certificate { error, .. } => error.code(),
            Self::CertificatePss(_) => "snp-certificate-pss-parameters",
            Self::CertificateRsaKey(_) => "snp-certificate-rsa-key",
            Self::CertificateName(_) => "snp-certificate-name",
            Self::RootUnknown => "snp-root-unknown",
            Self::RootProduct => "snp-root-product",
            Self::LeafKey => "snp-leaf-key",
            Self::LeafIsAuthority => "snp-leaf-is-authority",
            Self::LeafKeyUsage => "snp-leaf-key-usage",
            Self::LeafExtensionMissing { .. } => "snp-leaf-extension-missing",
            Self::LeafExtensionMalformed { .. } => "snp-leaf-extension-malformed",
            Self::LeafExtensionUnexpected { .. } => "snp-leaf-extension-unexpected",
            Self::LeafProductMismatch { .. } => "snp-leaf-product-mismatch",
            Self::SigningKeyMismatch { .. } => "snp-signing-key-mismatch",
            Self::CrlMissing => "snp-crl-missing",
            Self::CrlsTooMany { .. } => "snp-crls-too-many",
            Self::CrlTooLarge { .. } => "snp-crl-too-large",
            Self::CrlMalformed => "snp-crl-malformed",
            Self::CrlVersion => "snp-crl-version",
            Self::CrlIssuer => "snp-crl-issuer",
            Self::CrlPss => "snp-crl-pss-parameters",
            Self::CrlSignatureInvalid => "snp-crl-signature-invalid",
            Self::CrlExtension => "snp-crl-extension",
            Self::CrlNextUpdateMissing => "snp-crl-next-update-missing",
            Self::CrlNotYetValid => "snp-crl-not-yet-valid",
            Self::CrlStale => "snp-crl-stale",
            Self::Revoked(_) => "snp-certificate-revoked",
            Self::ChainChanged => "snp-chain-changed",
            Self::ReportSignatureInvalid => "snp-report-signature-invalid",
            Self::LeafTcbMismatch { .. } => "snp-leaf-tcb-mismatch",
            Self::ChipMismatch => "snp-chip-mismatch",
            Self::ChipMasked => "snp-chip-masked",
            Self::ReportedAboveCurrent { .. } => "snp-reported-tcb-above-current",
            Self::CommittedAboveCurrent { .. } => "snp-committed-tcb-above-current",
            Self::Debug => "snp-debug-allowed",
            Self::MigrationAllowed => "snp-migration-allowed",
            Self::MigrationAgent => "snp-migration-agent",
            Self::VmplUnknown { .. } => "snp-vmpl-unknown",
            Self::ReportDataMismatch => "snp-report-data-mismatch",
        }
    }
}

impl Error for SnpError {}
