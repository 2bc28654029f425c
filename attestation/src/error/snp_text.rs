//! What people read when SEV-SNP evidence is refused.

use std::fmt;

use super::SnpError;

impl fmt::Display for SnpError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ReportLength { found } => write!(f, "an attestation report has 1184 bytes, this one has {found}"),
            Self::ReportVersion { found } => write!(f, "the report is of version {found}; known are 2 to 5"),
            Self::ReportSignatureAlgorithm { found } => {
                write!(f, "the report says signature algorithm {found}; only 1 (ECDSA P-384 with SHA-384) is known")
            }
            Self::KeyInfoUnknown { bits } => write!(f, "the report's key info has the unknown bits {bits:#x}"),
            Self::ReportUnsigned => f.write_str("the report says that no key signed it: the host masks the chip's key"),
            Self::SigningKeyUnknown { found } => write!(f, "the report says signing key {found}, which is not known"),
            Self::PolicyBitsUnknown { bits } => write!(f, "the guest policy has the unknown bits {bits:#x}"),
            Self::PolicyReservedBitClear => f.write_str("bit 17 of the guest policy is zero; it is always one"),
            Self::PlatformInfoUnknown { bits } => write!(f, "the platform info has the unknown bits {bits:#x}"),
            Self::ReportReservedNotZero { offset } => {
                write!(f, "the byte at {offset:#x} of the report is reserved and not zero")
            }
            Self::ReportProductUnknown => {
                f.write_str("a report of version 2 does not say which processor it is from; its chain must")
            }
            Self::CpuUnknown { family, model } => {
                write!(f, "no root is known for the processor family {family:#04x}, model {model:#04x}")
            }
            Self::ReportProductMismatch { chain, report } => {
                write!(f, "the report is from a {report} processor, its certificates are for {chain}")
            }
            Self::CertificateMissing(which) => write!(f, "the certificate of the {which} is missing"),
            Self::CertificatesTooMany { found } => {
                write!(f, "{found} certificates; a chain is VCEK or VLEK, ASK or ASVK, and ARK, in this order")
            }
            Self::Certificate { certificate, error } => write!(f, "the certificate of the {certificate}: {error}"),
            Self::CertificatePss(which) => {
                write!(f, "the certificate of the {which} is not signed with RSA-PSS, SHA-384 and 48 bytes of salt")
            }
            Self::CertificateRsaKey(which) => write!(f, "the key of the {which} is not RSA-4096 with exponent 65537"),
            Self::CertificateName(which) => {
                write!(f, "the common name of the {which} is not the one that AMD gives to such a certificate")
            }
            Self::RootUnknown => f.write_str("the chain ends at a root that is neither AMD's nor in the policy"),
            Self::RootProduct => f.write_str("the chain's root is AMD's for another product than its name says"),
            Self::LeafKey => f.write_str("the key of the VCEK or VLEK is not on P-384"),
            Self::LeafIsAuthority => f.write_str("the certificate of the VCEK or VLEK is one of an authority"),
            Self::LeafKeyUsage => f.write_str("the key of the VCEK or VLEK is not for signing"),
            Self::LeafExtensionMissing { extension } => write!(f, "the VCEK or VLEK does not say its {extension}"),
            Self::LeafExtensionMalformed { extension } => write!(f, "the {extension} of the VCEK or VLEK is malformed"),
            Self::LeafExtensionUnexpected { extension } => {
                write!(f, "the VCEK or VLEK says its {extension}, which its kind does not have")
            }
            Self::LeafProductMismatch { issuers, leaf } => {
                write!(f, "the VCEK or VLEK is for {leaf} processors, its issuers are for {issuers}")
            }
            Self::SigningKeyMismatch { leaf, report } => {
                write!(f, "the report says that a {report} signed it, the certificate is of a {leaf}")
            }
            Self::CrlMissing => f.write_str("there is no revocation list, and the policy demands one"),
            Self::CrlsTooMany { found } => write!(f, "{found} revocation lists are more than 2"),
            Self::CrlTooLarge { found } => write!(f, "a revocation list of {found} bytes is above 64 KiB"),
            Self::CrlMalformed => f.write_str("a revocation list is not exactly one X.509 list in DER"),
            Self::CrlVersion => f.write_str("a revocation list is not of version 2"),
            Self::CrlIssuer => f.write_str("a revocation list is not of this chain's ARK"),
            Self::CrlPss => f.write_str("a revocation list is not signed with RSA-PSS, SHA-384 and 48 bytes of salt"),
            Self::CrlSignatureInvalid => f.write_str("the ARK did not sign the revocation list"),
            Self::CrlExtension => f.write_str("a revocation list has a critical extension, so it may be incomplete"),
            Self::CrlNextUpdateMissing => f.write_str("a revocation list does not say until when it holds"),
            Self::CrlNotYetValid => f.write_str("the revocation list is from the future"),
            Self::CrlStale => f.write_str("the revocation list is out of date; fetch a new one"),
            Self::Revoked(which) => write!(f, "AMD has revoked the {which}"),
            Self::ChainChanged => f.write_str("the chain verified before is not the one of this report"),
            Self::ReportSignatureInvalid => f.write_str("the VCEK or VLEK did not sign this report"),
            Self::LeafTcbMismatch { component } => {
                write!(f, "the VCEK or VLEK is for another TCB: {component} differs from the reported one")
            }
            Self::ChipMismatch => f.write_str("the VCEK is of another chip than the report"),
            Self::ChipMasked => {
                f.write_str("the host masks the chip id, so the VCEK cannot be matched with the report")
            }
            Self::ReportedAboveCurrent { component } => {
                write!(f, "the reported TCB is above the current one: {component}")
            }
            Self::CommittedAboveCurrent { component } => {
                write!(f, "the committed TCB is above the current one: {component}")
            }
            Self::Debug => f.write_str("the guest's policy allows debugging: its host can read its memory"),
            Self::MigrationAllowed => f.write_str("the guest's policy allows a migration agent, which can move it"),
            Self::MigrationAgent => f.write_str("the guest has a migration agent, which can move it and its secrets"),
            Self::VmplUnknown { found } => write!(f, "there is no VMPL {found}"),
            Self::ReportDataMismatch => {
                f.write_str("the report data is not what was asked for: the report is replayed or for other keys")
            }
        }
    }
}
