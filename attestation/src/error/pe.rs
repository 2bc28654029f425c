//! Why a PE image has no measurement.

use std::error::Error;
use std::fmt;

/// Bytes that are no image that firmware would load.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "`found` is what was found; the variant says what is wrong with it")]
pub enum PeError {
    /// The certificates are longer than what is behind the sections.
    CertificateRange,
    /// The headers are said to end before they do, or behind the image.
    HeaderLength { found: usize },
    /// No PE image.
    NotPe,
    /// More sections than any image has.
    SectionCount { found: u16 },
    /// A section is larger in memory than any image.
    SectionLength { found: usize },
    /// The image is too long.
    TooLong { found: usize },
    /// The image ends inside its headers or a section.
    Truncated,
    /// The image has no `.linux` section: it is no unified kernel image.
    NotUki,
}

impl PeError {
    /// A stable name.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::CertificateRange => "pe-certificate-range",
            Self::HeaderLength { .. } => "pe-header-length",
            Self::NotPe => "pe-malformed",
            Self::SectionCount { .. } => "pe-section-count",
            Self::SectionLength { .. } => "pe-section-length",
            Self::TooLong { .. } => "pe-too-long",
            Self::Truncated => "pe-truncated",
            Self::NotUki => "pe-not-unified-kernel-image",
        }
    }
}

impl fmt::Display for PeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::CertificateRange => f.write_str("the certificates do not lie behind the sections"),
            Self::HeaderLength { found } => write!(f, "the headers can't end at {found}"),
            Self::NotPe => f.write_str("not a PE image, so no EFI firmware loads it"),
            Self::SectionCount { found } => write!(f, "{found} sections"),
            Self::SectionLength { found } => write!(f, "a section of {found} bytes"),
            Self::TooLong { found } => write!(f, "{found} bytes are more than an image may have"),
            Self::Truncated => f.write_str("the image ends inside its headers or a section"),
            Self::NotUki => f.write_str("there is no .linux section: not a unified kernel image"),
        }
    }
}

impl Error for PeError {}
