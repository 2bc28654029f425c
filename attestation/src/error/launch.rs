//! Why a launch digest or a boot measurement can't be computed.

use std::error::Error;
use std::fmt;

/// A firmware image or a launch that has no digest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the fields are what was found; the variant says what is wrong with it")]
pub enum LaunchError {
    /// The image is empty, too long, or not whole pages.
    FirmwareLength { found: usize },
    /// The place for the kernel hashes does not lie within one page.
    HashTableOutsidePage,
    /// The SEV metadata is malformed.
    MetadataMalformed,
    /// The image does not end with OVMF's table.
    NoFooter,
    /// The firmware has no place for kernel hashes.
    NoHashTable,
    /// The firmware measures no kernel hashes.
    NoKernelHashesSection,
    /// The image has no SEV metadata: it was not built for SEV-SNP.
    NoMetadata,
    /// The image does not say where further vCPUs begin.
    NoResetBlock,
    /// A metadata section is of an unknown kind: how it is measured is not known either.
    SectionKind { kind: u32 },
    /// A metadata section is not whole pages, or too large.
    SectionRange { address: u32, size: u32 },
    /// OVMF's table is malformed.
    TableMalformed,
    /// No vCPU, or more than there can be.
    VcpuCount { found: u32 },
}

impl LaunchError {
    /// A stable name.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::FirmwareLength { .. } => "firmware-length",
            Self::HashTableOutsidePage => "firmware-hash-table-outside-page",
            Self::MetadataMalformed => "firmware-metadata-malformed",
            Self::NoFooter => "firmware-not-ovmf",
            Self::NoHashTable => "firmware-without-hash-table",
            Self::NoKernelHashesSection => "firmware-without-kernel-hashes",
            Self::NoMetadata => "firmware-without-sev-metadata",
            Self::NoResetBlock => "firmware-without-reset-block",
            Self::SectionKind { .. } => "firmware-section-unknown",
            Self::SectionRange { .. } => "firmware-section-range",
            Self::TableMalformed => "firmware-table-malformed",
            Self::VcpuCount { .. } => "vcpu-count",
        }
    }
}

impl fmt::Display for LaunchError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::FirmwareLength { found } => {
                write!(f, "a firmware image is 4 KiB to 64 MiB in pages of 4 KiB, not {found}")
            }
            Self::HashTableOutsidePage => f.write_str("the place for kernel hashes is not within a page"),
            Self::MetadataMalformed => f.write_str("the firmware's SEV metadata is malformed"),
            Self::NoFooter => f.write_str("the image does not end with OVMF's table"),
            Self::NoHashTable => f.write_str("the firmware has no place for kernel hashes"),
            Self::NoKernelHashesSection => f.write_str("the firmware measures no kernel hashes"),
            Self::NoMetadata => f.write_str("the firmware has no SEV metadata: it was not built for SEV-SNP"),
            Self::NoResetBlock => f.write_str("the firmware does not say where further vCPUs begin"),
            Self::SectionKind { kind } => write!(f, "the firmware has a section of unknown kind {kind}"),
            Self::SectionRange { address, size } => write!(f, "a firmware section at {address:#x} has {size} bytes"),
            Self::TableMalformed => f.write_str("OVMF's table is malformed"),
            Self::VcpuCount { found } => write!(f, "{found} vCPUs"),
        }
    }
}

impl Error for LaunchError {}
