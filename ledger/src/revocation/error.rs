use std::fmt;

use super::REVOCATION_BYTES_MAX;
use crate::json::JsonError;

/// Why bytes are not a revocation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RevocationError {
    /// Longer than 4 KiB.
    TooLong {
        /// How long.
        bytes: usize,
    },
    /// Not a JSON object with exactly the fields of an act.
    Malformed(JsonError),
    /// The same act has another spelling, which is its only one.
    NotCanonical,
}

impl RevocationError {
    /// Stable code.
    pub fn code(&self) -> &'static str {
        match self {
            Self::TooLong { .. } => "revocation-too-long",
            Self::Malformed(_) => "revocation-malformed",
            Self::NotCanonical => "revocation-not-canonical",
        }
    }
}

impl fmt::Display for RevocationError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooLong { bytes } => {
                write!(f, "a revocation of {bytes} bytes is longer than {} KiB", REVOCATION_BYTES_MAX >> 10)
            }
            Self::Malformed(error) => write!(f, "not a revocation: {error}"),
            Self::NotCanonical => f.write_str("the revocation is not spelled in its one form"),
        }
    }
}

impl std::error::Error for RevocationError {}
