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
    /// The stub chooses among sections when it boots.
    UkiChoice {
        /// One of them.
        section: &'static str,
    },
    /// A version of systemd-stub, or another stub, of which it is not known what it measures.
    UkiStub {
        /// Its major version.
        found: Option<u32>,
    },
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
            Self::UkiChoice { .. } => "pe-unified-kernel-image-choice",
            Self::UkiStub { .. } => "pe-unified-kernel-image-stub",
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
            Self::UkiChoice { section } => write!(f, "by {section} the stub chooses at boot what it uses and measures"),
            Self::UkiStub { found: Some(found) } => write!(
                f,
                "it is not known which sections systemd-stub {found} measures, only those of 252, 255 and 257: take PCR 11 from a log"
            ),
            Self::UkiStub { found: None } => f.write_str("the image does not say that it starts with systemd-stub"),
        }
    }
}

impl Error for PeError {}
