//! Why something was refused: one variant per check, each with a stable code.
//!
//! The code goes into logs and refusals and never changes; the text is for people.

mod azure;
mod certificate;
mod collateral;
mod eventlog;
mod kernel_header;
mod launch;
mod pe;
mod snp;
mod snp_text;
mod verify;

use std::error::Error;
use std::fmt;

pub use azure::{CertificateTableError, HclError};
pub use certificate::{AnchorError, CertificateError};
pub use collateral::CollateralError;
pub use eventlog::EventLogError;
pub use kernel_header::KernelHeaderError;
pub use launch::LaunchError;
pub use pe::PeError;
pub use snp::{SnpCertificate, SnpError};
pub use verify::VerifyError;

/// Bytes or text that are not what they must be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DecodeError {
    /// A digest is not `sha256:` and 64 lower-case hex digits.
    DigestText,
    /// A field has another length than its format says.
    Length {
        /// Bytes it must have.
        expected: usize,
        /// Bytes it has.
        found: usize,
    },
    /// A name does not start with the identifier of SHA-256.
    NameAlgorithm,
    /// A PCR index is above 23.
    PcrIndex {
        /// The index.
        index: u32,
    },
    /// A PCR is listed twice.
    PcrRepeated {
        /// The index.
        index: u32,
    },
    /// No PCR is selected.
    PcrSelectionEmpty,
    /// A point is not an uncompressed SEC1 point.
    PointCompressed,
    /// A length prefix or a count says more than the format allows.
    TooLong {
        /// Most that is allowed.
        max: usize,
        /// What it says.
        found: usize,
    },
    /// A product is none of AMD's that are known here.
    SnpProduct,
    /// There is something behind the end.
    TrailingBytes,
    /// The bytes end before the structure does.
    Truncated,
    /// A trust is neither `emulated` nor `hardware`.
    Trust,
    /// A unit set is empty.
    UnitSetEmpty,
    /// The indices of a unit set are not strictly ascending.
    UnitSetNotAscending,
    /// A unit set has more units than a model may have.
    UnitSetTooLarge {
        /// How many.
        count: usize,
    },
    /// A yes-or-no byte is neither 0 nor 1.
    YesNo {
        /// The byte.
        found: u8,
    },
}

impl DecodeError {
    /// A stable name.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::DigestText => "digest-text-malformed",
            Self::Length { .. } => "length-wrong",
            Self::NameAlgorithm => "name-algorithm",
            Self::PcrIndex { .. } => "pcr-index-unknown",
            Self::PcrRepeated { .. } => "pcr-repeated",
            Self::PcrSelectionEmpty => "pcr-selection-empty",
            Self::PointCompressed => "point-compressed",
            Self::SnpProduct => "snp-product-unknown",
            Self::TooLong { .. } => "too-long",
            Self::TrailingBytes => "trailing-bytes",
            Self::Truncated => "truncated",
            Self::Trust => "trust-unknown",
            Self::UnitSetEmpty => "unit-set-empty",
            Self::UnitSetNotAscending => "unit-set-not-ascending",
            Self::UnitSetTooLarge { .. } => "unit-set-too-large",
            Self::YesNo { .. } => "yes-no-malformed",
        }
    }
}

impl fmt::Display for DecodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::DigestText => f.write_str("a digest is `sha256:` and 64 lower-case hex digits"),
            Self::Length { expected, found } => {
                write!(f, "{found} bytes where there must be {expected}")
            }
            Self::NameAlgorithm => f.write_str("the name is not a SHA-256 name"),
            Self::PcrIndex { index } => write!(f, "there is no PCR {index}"),
            Self::PcrRepeated { index } => write!(f, "PCR {index} is listed twice"),
            Self::PcrSelectionEmpty => f.write_str("no PCR is selected"),
            Self::PointCompressed => f.write_str("the point does not start with 04"),
            Self::SnpProduct => f.write_str("a product is `Milan`, `Genoa` or `Turin`"),
            Self::TooLong { max, found } => write!(f, "{found} where at most {max} is allowed"),
            Self::TrailingBytes => f.write_str("there are bytes behind the end"),
            Self::Truncated => f.write_str("the bytes end too early"),
            Self::Trust => f.write_str("trust is `emulated` or `hardware`"),
            Self::UnitSetEmpty => f.write_str("no unit is named"),
            Self::UnitSetNotAscending => f.write_str("unit indices are not strictly ascending"),
            Self::UnitSetTooLarge { count } => {
                write!(f, "{count} units are more than a model may have")
            }
            Self::YesNo { found } => write!(f, "{found} is neither yes (1) nor no (0)"),
        }
    }
}

impl Error for DecodeError {}

/// A signature that is not one over these bytes under this key. Deliberately says no more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SignatureInvalid;

impl SignatureInvalid {
    /// A stable name.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        "signature-invalid"
    }
}

impl fmt::Display for SignatureInvalid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the signature does not verify")
    }
}

impl Error for SignatureInvalid {}

/// A credential or its secret could not be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CredentialError {
    /// The random source failed, or gave less than was needed.
    Randomness,
    /// RSA-OAEP or ECDH with this EK failed: its key is none.
    Encryption,
}

impl CredentialError {
    /// A stable name.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Randomness => "randomness-unavailable",
            Self::Encryption => "credential-encryption-failed",
        }
    }
}

impl fmt::Display for CredentialError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Randomness => "the random source failed",
            Self::Encryption => "the credential could not be encrypted to the EK",
        })
    }
}

impl Error for CredentialError {}
