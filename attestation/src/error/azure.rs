//! Why the evidence of an Azure confidential VM was refused, apart from its report and its quote.

use std::error::Error;
use std::fmt;

/// An HCL report does not show what it must. One variant for each check.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HclError {
    /// The bytes end before the HCL report does.
    Truncated,
    /// Longer than 16 KiB.
    TooLarge {
        /// Bytes.
        found: usize,
    },
    /// It does not start with `HCLA`.
    Signature,
    /// A version that is not known here.
    Version {
        /// Of the header, or of the runtime data.
        found: u32,
    },
    /// The report is of another kind of hardware.
    ReportType {
        /// 2 is SEV-SNP.
        found: u32,
    },
    /// The runtime data is hashed with another algorithm than SHA-256.
    HashType {
        /// 1 is SHA-256.
        found: u32,
    },
    /// A length in it is not the one of what is there.
    Length,
    /// A byte that has no meaning is not zero.
    ReservedNotZero {
        /// Where it is.
        offset: usize,
    },
    /// The endorsed report is not the one in the HCL report.
    ReportChanged,
    /// The report is not of VMPL 0, where Azure's paravisor runs: something below it asked for it.
    Vmpl {
        /// VMPL.
        found: u32,
    },
    /// The report is not over this runtime data.
    RuntimeDataMismatch,
    /// The runtime data is not the JSON that it must be, or names a field twice.
    RuntimeDataMalformed,
    /// The runtime data has more than 8 keys.
    KeysTooMany {
        /// How many.
        found: usize,
    },
    /// Two keys have one name: which one counted would depend on the reader.
    KeyRepeated,
    /// There is no key `HCLAkPub`.
    AkMissing,
    /// The AK is not RSA-2048 with exponent 65537, for signing alone.
    AkUnsupported,
    /// The AK that quoted is not the one in the runtime data.
    AkMismatch,
}

impl HclError {
    /// A stable name.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Truncated => "hcl-truncated",
            Self::TooLarge { .. } => "hcl-too-large",
            Self::Signature => "hcl-signature",
            Self::Version { .. } => "hcl-version",
            Self::ReportType { .. } => "hcl-report-type",
            Self::HashType { .. } => "hcl-hash-type",
            Self::Length => "hcl-length",
            Self::ReservedNotZero { .. } => "hcl-reserved-not-zero",
            Self::ReportChanged => "hcl-report-changed",
            Self::Vmpl { .. } => "hcl-vmpl",
            Self::RuntimeDataMismatch => "hcl-runtime-data-mismatch",
            Self::RuntimeDataMalformed => "hcl-runtime-data-malformed",
            Self::KeysTooMany { .. } => "hcl-keys-too-many",
            Self::KeyRepeated => "hcl-key-repeated",
            Self::AkMissing => "hcl-ak-missing",
            Self::AkUnsupported => "hcl-ak-unsupported",
            Self::AkMismatch => "hcl-ak-mismatch",
        }
    }
}

impl fmt::Display for HclError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Truncated => f.write_str("the HCL report ends too early"),
            Self::TooLarge { found } => write!(f, "an HCL report of {found} bytes is above 16 KiB"),
            Self::Signature => f.write_str("the HCL report does not start with HCLA"),
            Self::Version { found } => write!(f, "version {found} of the HCL report is not known"),
            Self::ReportType { found } => write!(f, "report type {found} is not SEV-SNP (2)"),
            Self::HashType { found } => write!(f, "hash type {found} is not SHA-256 (1)"),
            Self::Length => f.write_str("a length in the HCL report is wrong"),
            Self::ReservedNotZero { offset } => {
                write!(f, "the byte at {offset:#x} of the HCL report is reserved and not zero")
            }
            Self::ReportChanged => f.write_str("the report that was verified is not the one in the HCL report"),
            Self::Vmpl { found } => write!(f, "the report is of VMPL {found}; the paravisor asks at 0"),
            Self::RuntimeDataMismatch => f.write_str("the report is not over this runtime data"),
            Self::RuntimeDataMalformed => f.write_str("the runtime data is not the JSON that it must be"),
            Self::KeysTooMany { found } => write!(f, "the runtime data has {found} keys, more than 8"),
            Self::KeyRepeated => f.write_str("two keys of the runtime data have one name"),
            Self::AkMissing => f.write_str("the runtime data has no key HCLAkPub"),
            Self::AkUnsupported => f.write_str("the AK is not RSA-2048 with exponent 65537, for signing alone"),
            Self::AkMismatch => f.write_str("the AK that quoted is not the one that the report endorses"),
        }
    }
}

impl Error for HclError {}

/// A certificate table cannot be read. One variant for each check.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CertificateTableError {
    /// Longer than 256 KiB.
    TooLarge {
        /// Bytes.
        found: usize,
    },
    /// The bytes end before the all-zero entry that ends the table.
    Truncated,
    /// More than 16 entries.
    EntriesTooMany,
    /// An entry points outside the table, or into its own head.
    EntryOutside {
        /// Which, from 0.
        index: usize,
    },
    /// Two entries point at the same bytes.
    EntriesOverlap {
        /// The later one, from 0.
        index: usize,
    },
    /// A kind of entry stands twice.
    EntryRepeated {
        /// The later one, from 0.
        index: usize,
    },
}

impl CertificateTableError {
    /// A stable name.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::TooLarge { .. } => "certificate-table-too-large",
            Self::Truncated => "certificate-table-truncated",
            Self::EntriesTooMany => "certificate-table-entries-too-many",
            Self::EntryOutside { .. } => "certificate-table-entry-outside",
            Self::EntriesOverlap { .. } => "certificate-table-entries-overlap",
            Self::EntryRepeated { .. } => "certificate-table-entry-repeated",
        }
    }
}

impl fmt::Display for CertificateTableError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooLarge { found } => write!(f, "a certificate table of {found} bytes is above 256 KiB"),
            Self::Truncated => f.write_str("the certificate table ends too early"),
            Self::EntriesTooMany => f.write_str("the certificate table has more than 16 entries"),
            Self::EntryOutside { index } => write!(f, "entry {index} of the certificate table points outside of it"),
            Self::EntriesOverlap { index } => write!(f, "entry {index} of the certificate table overlaps another"),
            Self::EntryRepeated { index } => write!(f, "entry {index} of the certificate table is of a kind twice"),
        }
    }
}

impl Error for CertificateTableError {}
