use std::fmt;

use super::PERMIT_BYTES_MAX;
use crate::json::JsonError;

/// Why bytes are not a permit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PermitError {
    /// Longer than 4 KiB.
    TooLong {
        /// How long.
        bytes: usize,
    },
    /// Not a JSON object with exactly the fields of a permit.
    Malformed(JsonError),
    /// The same permit has another spelling, which is its only one.
    NotCanonical,
}

impl PermitError {
    /// Stable code.
    pub fn code(&self) -> &'static str {
        match self {
            Self::TooLong { .. } => "permit-too-long",
            Self::Malformed(_) => "permit-malformed",
            Self::NotCanonical => "permit-not-canonical",
        }
    }
}

impl fmt::Display for PermitError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooLong { bytes } => {
                write!(f, "a permit of {bytes} bytes is longer than {} KiB", PERMIT_BYTES_MAX >> 10)
            }
            Self::Malformed(error) => write!(f, "not a permit: {error}"),
            Self::NotCanonical => f.write_str("the permit is not spelled in its one form"),
        }
    }
}

impl std::error::Error for PermitError {}
