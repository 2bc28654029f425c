//! Checkpoints (C2SP tlog-checkpoint): size and root of a vault's log, signed by its log key.

use std::fmt;

use attestation::{LogKey, Sha256Digest};

use crate::merkle::{Hash, MerkleError, verify_consistency};
use crate::note::{NoteError, VerifierKey};
use crate::text::{hash_text, parse_decimal, parse_hash};

/// Head of a log: as many entries, with this root.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Checkpoint {
    /// Number of entries.
    pub size: u64,
    /// Root of the tree over them.
    pub root: Hash,
}

/// Who may sign for a vault's log: checks checkpoints, and the proofs in [`crate::proof`].
///
/// Origin and key name are `weightvault.v1/` and the vault id in hex (FORMAT.md §7), so that no checkpoint of one vault
/// passes for another's, though they had the same key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogVerifier {
    vault: Sha256Digest,
    key: VerifierKey,
}

/// Why a checkpoint is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CheckpointError {
    /// It is not a note signed by the log key.
    Note(NoteError),
    /// The text is not three lines.
    Lines,
    /// It is of another log.
    Origin,
    /// The size is not a decimal number without leading zeros.
    Size,
    /// The root is not the base64 of 32 bytes.
    Root,
    /// It does not continue the earlier checkpoint.
    Inconsistent(MerkleError),
}

impl LogVerifier {
    /// For the log of this vault.
    pub fn new(vault: Sha256Digest, key: LogKey) -> Self {
        let origin = format!("weightvault.v1/{}", hex::encode(vault.as_bytes()));
        Self { vault, key: VerifierKey::new(&origin, key).expect("the origin has no space and no plus") }
    }

    /// The vault: SHA-256 of entry 0 of its log.
    pub fn vault(&self) -> Sha256Digest {
        self.vault
    }

    /// The first line of every checkpoint of this log.
    pub fn origin(&self) -> &str {
        self.key.name()
    }

    /// The key as a note's verifier key; its text is what other tools take.
    pub fn key(&self) -> &VerifierKey {
        &self.key
    }

    /// Checks a signed checkpoint. Extension lines are refused: this log never has any.
    pub fn verify_checkpoint(&self, note: &str) -> Result<Checkpoint, CheckpointError> {
        let text = self.key.verify(note).map_err(CheckpointError::Note)?;
        let mut lines = text.split('\n');
        let (Some(origin), Some(size), Some(root), Some(""), None) =
            (lines.next(), lines.next(), lines.next(), lines.next(), lines.next())
        else {
            return Err(CheckpointError::Lines);
        };
        if origin != self.origin() {
            return Err(CheckpointError::Origin);
        }
        let size = parse_decimal(size).ok_or(CheckpointError::Size)?;
        let root = parse_hash(root).ok_or(CheckpointError::Root)?;
        Ok(Checkpoint { size, root })
    }

    /// The text that the log key signs.
    pub fn checkpoint_text(&self, checkpoint: &Checkpoint) -> String {
        format!("{}\n{}\n{}\n", self.origin(), checkpoint.size, hash_text(&checkpoint.root))
    }
}

impl Checkpoint {
    /// Checks that this log is a continuation of the one of an earlier checkpoint, with an RFC 9162 consistency proof.
    pub fn verify_continues(&self, earlier: &Checkpoint, proof: &[Hash]) -> Result<(), CheckpointError> {
        verify_consistency(earlier.size, self.size, proof, &earlier.root, &self.root)
            .map_err(CheckpointError::Inconsistent)
    }
}

impl CheckpointError {
    /// Stable code.
    pub fn code(&self) -> &'static str {
        match self {
            CheckpointError::Note(error) => error.code(),
            CheckpointError::Lines => "checkpoint-lines",
            CheckpointError::Origin => "checkpoint-origin",
            CheckpointError::Size => "checkpoint-size",
            CheckpointError::Root => "checkpoint-root",
            CheckpointError::Inconsistent(_) => "checkpoint-inconsistent",
        }
    }
}

impl fmt::Display for CheckpointError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            CheckpointError::Note(error) => write!(f, "the checkpoint is not signed by this log: {error}"),
            CheckpointError::Lines => f.write_str("the checkpoint is not origin, size and root"),
            CheckpointError::Origin => f.write_str("the checkpoint is of another log"),
            CheckpointError::Size => f.write_str("the checkpoint's size is not a number"),
            CheckpointError::Root => f.write_str("the checkpoint's root is not a hash"),
            CheckpointError::Inconsistent(error) => {
                write!(f, "the checkpoint does not continue the earlier one: {error}")
            }
        }
    }
}

impl std::error::Error for CheckpointError {}
