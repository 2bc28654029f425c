//! Checkpoints (C2SP tlog-checkpoint): size and root of a vault's log, signed by its log key.

mod counted;

use std::fmt;

use attestation::{LogKey, Sha256Digest, UnixTime};

pub(crate) use counted::CountedCheckpoint;
pub use counted::SignedCheckpoint;

use crate::cosignature::{CosignatureError, CosignedCheckpoint, WitnessPolicy};
use crate::genesis::Genesis;
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
    witnesses: Option<WitnessPolicy>,
}

/// A checkpoint whose every signature that its log needs was verified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Seen {
    /// Signed by its log, which has no witnesses.
    Unwitnessed(Checkpoint),
    /// Signed by its log and cosigned by a quorum of its witnesses.
    Cosigned(CosignedCheckpoint),
}

impl Seen {
    /// The moment that its witnesses vouch for, where it has any: [`CosignedCheckpoint::not_before`].
    pub fn not_before(&self) -> Option<UnixTime> {
        match self {
            Self::Unwitnessed(_) => None,
            Self::Cosigned(cosigned) => Some(cosigned.not_before()),
        }
    }
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
    /// No quorum of the log's witnesses cosigned it.
    Witnesses(CosignatureError),
}

impl LogVerifier {
    /// For the log that begins with this genesis: nothing of it counts without the witnesses that the genesis names.
    pub fn of(genesis: &Genesis) -> Self {
        let log = Self::new(genesis.vault_id(), genesis.keeper().log_key.clone());
        match genesis.policy().witnesses() {
            Some(witnesses) => log.witnessed_by(witnesses.clone()),
            None => log,
        }
    }

    /// For the log of this vault by its log key alone, without witnesses. [`LogVerifier::of`] is what a vault is read with.
    pub fn new(vault: Sha256Digest, key: LogKey) -> Self {
        let origin = format!("weightvault.v1/{}", hex::encode(vault.as_bytes()));
        let key = VerifierKey::new(&origin, key).expect("the origin has no space and no plus");
        Self { vault, key, witnesses: None }
    }

    /// The same log, of which nothing counts before a quorum of these witnesses has cosigned it.
    #[must_use]
    pub fn witnessed_by(self, witnesses: WitnessPolicy) -> Self {
        Self { witnesses: Some(witnesses), ..self }
    }

    /// The witnesses of the log, where it has any.
    pub fn witnesses(&self) -> Option<&WitnessPolicy> {
        self.witnesses.as_ref()
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

    /// Checks a signed checkpoint, and that a quorum cosigned it where the log has witnesses. Extension lines are refused:
    /// this log never has any.
    pub fn verify_checkpoint(&self, note: &str) -> Result<Checkpoint, CheckpointError> {
        match self.verify_cosigned(note)? {
            Seen::Unwitnessed(checkpoint) => Ok(checkpoint),
            Seen::Cosigned(cosigned) => Ok(*cosigned.checkpoint()),
        }
    }

    /// The same, with who cosigned it.
    pub fn verify_cosigned(&self, note: &str) -> Result<Seen, CheckpointError> {
        let checkpoint = self.verify_signed(note)?;
        match &self.witnesses {
            None => Ok(Seen::Unwitnessed(checkpoint)),
            Some(witnesses) => {
                witnesses.verify(checkpoint, note).map(Seen::Cosigned).map_err(CheckpointError::Witnesses)
            }
        }
    }

    /// The log key's signature and the text alone: what a keeper of the vault decided, which does not count before a quorum
    /// has cosigned it.
    pub fn verify_signed(&self, note: &str) -> Result<Checkpoint, CheckpointError> {
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
            CheckpointError::Witnesses(error) => error.code(),
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
            CheckpointError::Witnesses(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for CheckpointError {}
