//! Why a witness does not cosign.

use std::fmt;

use crate::merkle::MerkleError;

/// Why a checkpoint is not cosigned. Each has one HTTP status (C2SP tlog-witness).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AddCheckpointError {
    /// Not an old size, at most 63 hashes, an empty line and a checkpoint.
    Malformed,
    /// The checkpoint is of a log that this witness does not know.
    OriginUnknown,
    /// The log's key did not sign the checkpoint, or what is said to be its signature does not verify.
    NotSigned,
    /// The old size is larger than the checkpoint's.
    OldPastNew {
        /// The old size.
        old: u64,
        /// The checkpoint's.
        size: u64,
    },
    /// The old size is not that of the checkpoint cosigned last.
    Conflict {
        /// The one that is.
        size: u64,
    },
    /// Size zero with another root than that of the empty log.
    EmptyRoot,
    /// A proof from size zero, where none is needed.
    ProofUnexpected,
    /// The checkpoint is no continuation of the one cosigned last: the log was forked or changed.
    Inconsistent(MerkleError),
}

impl AddCheckpointError {
    /// The HTTP status.
    pub fn status(&self) -> u16 {
        match self {
            Self::Malformed | Self::OldPastNew { .. } => 400,
            Self::NotSigned => 403,
            Self::OriginUnknown => 404,
            Self::Conflict { .. } => 409,
            Self::EmptyRoot | Self::ProofUnexpected | Self::Inconsistent(_) => 422,
        }
    }

    /// Stable code.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Malformed => "add-checkpoint-malformed",
            Self::OriginUnknown => "add-checkpoint-origin-unknown",
            Self::NotSigned => "add-checkpoint-not-signed",
            Self::OldPastNew { .. } => "add-checkpoint-old-past-new",
            Self::Conflict { .. } => "add-checkpoint-conflict",
            Self::EmptyRoot => "add-checkpoint-empty-root",
            Self::ProofUnexpected => "add-checkpoint-proof-unexpected",
            Self::Inconsistent(_) => "add-checkpoint-inconsistent",
        }
    }
}

impl fmt::Display for AddCheckpointError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Malformed => f.write_str("not an old size, a proof, an empty line and a checkpoint"),
            Self::OriginUnknown => f.write_str("this witness does not know the log of this checkpoint"),
            Self::NotSigned => {
                f.write_str("the checkpoint is not signed by the key that this witness knows for the log")
            }
            Self::OldPastNew { old, size } => write!(f, "the old size {old} is past the checkpoint's, {size}"),
            Self::Conflict { size } => write!(f, "the checkpoint cosigned last has {size} entries"),
            Self::EmptyRoot => f.write_str("the root is not that of an empty log"),
            Self::ProofUnexpected => f.write_str("from an empty log no proof is taken"),
            Self::Inconsistent(error) => write!(f, "the checkpoint does not continue the one cosigned last: {error}"),
        }
    }
}

impl std::error::Error for AddCheckpointError {}
