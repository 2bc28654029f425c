use std::fmt;

use crate::json::JsonError;

/// Why bytes are not an entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EntryError {
    /// Longer than 16 KiB.
    TooLong {
        /// How long.
        bytes: usize,
    },
    /// Not a JSON object with exactly the fields of its type.
    Malformed(JsonError),
    /// `v` is not 1.
    UnknownVersion {
        /// What it is.
        found: u64,
    },
    /// This version knows no such type.
    UnknownType {
        /// What was found, at most 32 characters.
        found: String,
    },
    /// The same entry has another spelling, which is its only one.
    NotCanonical,
}

impl EntryError {
    /// Stable code.
    pub fn code(&self) -> &'static str {
        match self {
            Self::TooLong { .. } => "entry-too-long",
            Self::Malformed(_) => "entry-malformed",
            Self::UnknownVersion { .. } => "entry-version-unknown",
            Self::UnknownType { .. } => "entry-type-unknown",
            Self::NotCanonical => "entry-not-canonical",
        }
    }
}

impl fmt::Display for EntryError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooLong { bytes } => write!(f, "an entry of {bytes} bytes is longer than 16 KiB"),
            Self::Malformed(error) => write!(f, "not an entry: {error}"),
            Self::UnknownVersion { found } => write!(
                f,
                "entry version {found} is unknown, this program knows 1: a newer one wrote it, or it is no entry"
            ),
            Self::UnknownType { found } => {
                write!(f, "entry type {found:?} is unknown: a newer program wrote it, or it is no entry")
            }
            Self::NotCanonical => {
                f.write_str("the entry is not spelled in its one form (field order, no white space, shortest escapes)")
            }
        }
    }
}

impl std::error::Error for EntryError {}

impl From<JsonError> for EntryError {
    fn from(error: JsonError) -> Self {
        Self::Malformed(error)
    }
}
