//! Why cosignatures do not count, or a set of witnesses is none.

use std::fmt;

use super::policy::WITNESSES_MAX;
use crate::note::NoteError;

/// Why a cosignature does not count, or a checkpoint has too few.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CosignatureError {
    /// The lines are none of a note.
    Note(NoteError),
    /// Not 8 bytes of time and 64 of signature.
    Length,
    /// The time is zero, or past the year 9999.
    Time,
    /// It is not this witness's signature over this checkpoint and time.
    Signature,
    /// Fewer witnesses than the quorum cosigned it.
    QuorumMissing {
        /// Witnesses whose cosignature verified.
        counted: usize,
        /// Witnesses that it takes.
        quorum: usize,
    },
}

/// Why a list of witnesses with its two numbers is refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WitnessPolicyError {
    /// No witness, or more than 16.
    Count {
        /// How many.
        count: usize,
    },
    /// Two have one name.
    NameRepeated {
        /// It.
        name: String,
    },
    /// Two have one key: one holder would count twice.
    KeyRepeated {
        /// The name of the second.
        name: String,
    },
    /// It takes more than there are.
    QuorumUnreachable {
        /// Witnesses that it takes.
        quorum: usize,
        /// Witnesses that there are.
        count: usize,
    },
    /// Two quorums could have none but faulty witnesses in common, and so cosign two different logs.
    QuorumTooSmall {
        /// Witnesses that it takes.
        quorum: usize,
        /// Witnesses that there are.
        count: usize,
        /// Witnesses that may be faulty.
        faulty: usize,
    },
}

impl CosignatureError {
    /// Stable code.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Note(error) => error.code(),
            Self::Length => "cosignature-length",
            Self::Time => "cosignature-time",
            Self::Signature => "cosignature-signature",
            Self::QuorumMissing { .. } => "witness-quorum-missing",
        }
    }
}

impl fmt::Display for CosignatureError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Note(error) => error.fmt(f),
            Self::Length => f.write_str("a cosignature is 8 bytes of time and 64 of signature"),
            Self::Time => f.write_str("a cosignature has a time between 1970 and the year 9999"),
            Self::Signature => f.write_str("the cosignature is not the witness's, or of another checkpoint"),
            Self::QuorumMissing { counted, quorum } => {
                write!(f, "{counted} witnesses cosigned the checkpoint, and it takes {quorum}")
            }
        }
    }
}

impl std::error::Error for CosignatureError {}

impl WitnessPolicyError {
    /// Stable code.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Count { .. } => "witness-count",
            Self::NameRepeated { .. } => "witness-name-repeated",
            Self::KeyRepeated { .. } => "witness-key-repeated",
            Self::QuorumUnreachable { .. } => "witness-quorum-unreachable",
            Self::QuorumTooSmall { .. } => "witness-quorum-too-small",
        }
    }
}

impl fmt::Display for WitnessPolicyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Count { count } => write!(f, "{count} witnesses; name 1 to {WITNESSES_MAX}"),
            Self::NameRepeated { name } => write!(f, "two witnesses are called {name}"),
            Self::KeyRepeated { name } => write!(f, "{name} has the key of another witness, and would count twice"),
            Self::QuorumUnreachable { quorum, count } => {
                write!(f, "a quorum of {quorum} can't be had of {count} witnesses")
            }
            Self::QuorumTooSmall { quorum, count, faulty } => write!(
                f,
                "a quorum of {quorum} of {count} witnesses, {faulty} of them faulty, can be had twice for two different \
                 logs; it takes at least {}",
                least_quorum(*count, *faulty)
            ),
        }
    }
}

impl std::error::Error for WitnessPolicyError {}

/// The smallest q with 2q > n + f.
fn least_quorum(count: usize, faulty: usize) -> usize {
    count.saturating_add(faulty) / 2 + 1
}
