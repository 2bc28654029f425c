//! Proofs that an entry is in the log (C2SP tlog-proof), verified with nothing but the vault's id and log key.
//!
//! ```text
//! c2sp.org/tlog-proof@v1
//! index 2
//! gSKyXoYZUgZ6jduWYrkDOARinOMGJveXjgMkBTcdPlQ=
//!
//! weightvault.v1/5feceb66…
//! 3
//! sFodV/vSp5O8n9a8QpW6PRY97tfOSW5bsc2Xl/EQi08=
//!
//! — weightvault.v1/5feceb66… hI2DJw…
//! ```

use std::fmt;

use crate::checkpoint::{Checkpoint, CheckpointError, LogVerifier};
use crate::merkle::{Hash, MerkleError, leaf_hash, verify_inclusion};
use crate::note::NOTE_BYTES_MAX;
use crate::text::{hash_text, parse_decimal, parse_hash};

const VERSION: &str = "c2sp.org/tlog-proof@v1";

/// Most hashes of a proof: one for each bit of an index.
const HASHES_MAX: usize = 64;
/// Longest proof: its lines and a checkpoint.
pub const PROOF_BYTES_MAX: usize = NOTE_BYTES_MAX + (4 << 10);

/// Why a proof is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProofError {
    /// More than 132 KiB.
    TooLarge,
    /// The first line is not that of version 1.
    Version,
    /// There is an `extra` line: nothing authenticates it, and this log never writes one.
    Extra,
    /// No line `index N`, a decimal number without leading zeros.
    Index,
    /// A line of the path is not the base64 of 32 bytes.
    Hash,
    /// More than 64 hashes.
    TooLong,
    /// No empty line and checkpoint after the path.
    NoCheckpoint,
    /// The checkpoint is not one of this log.
    Checkpoint(CheckpointError),
    /// The path does not lead from the entry to the checkpoint's root.
    Inclusion(MerkleError),
}

/// The text of a proof: where the entry is, its inclusion path, and a signed checkpoint.
pub fn proof_text(index: u64, path: &[Hash], checkpoint: &str) -> String {
    let path: String = path.iter().map(|hash| hash_text(hash) + "\n").collect();
    format!("{VERSION}\nindex {index}\n{path}\n{checkpoint}")
}

impl LogVerifier {
    /// Checks that exactly these bytes are an entry of this log: returns its index and the checkpoint that covers it.
    pub fn verify_proof(&self, proof: &str, entry: &[u8]) -> Result<(u64, Checkpoint), ProofError> {
        let (index, path, note) = parse(proof)?;
        let checkpoint = self.verify_checkpoint(note).map_err(ProofError::Checkpoint)?;
        verify_inclusion(&leaf_hash(entry), index, checkpoint.size, &path, &checkpoint.root)
            .map_err(ProofError::Inclusion)?;
        Ok((index, checkpoint))
    }
}

/// Index, path and checkpoint of a proof that is not verified yet.
fn parse(proof: &str) -> Result<(u64, Vec<Hash>, &str), ProofError> {
    if proof.len() > PROOF_BYTES_MAX {
        return Err(ProofError::TooLarge);
    }
    let (version, rest) = proof.split_once('\n').ok_or(ProofError::Version)?;
    if version != VERSION {
        return Err(ProofError::Version);
    }
    if rest.starts_with("extra ") {
        return Err(ProofError::Extra);
    }
    let (index, mut rest) = rest.split_once('\n').ok_or(ProofError::Index)?;
    let index = index.strip_prefix("index ").and_then(parse_decimal).ok_or(ProofError::Index)?;
    let mut path = Vec::new();
    loop {
        let (line, after) = rest.split_once('\n').ok_or(ProofError::NoCheckpoint)?;
        rest = after;
        if line.is_empty() {
            return Ok((index, path, rest));
        }
        if path.len() == HASHES_MAX {
            return Err(ProofError::TooLong);
        }
        path.push(parse_hash(line).ok_or(ProofError::Hash)?);
    }
}

impl ProofError {
    /// Stable code.
    pub fn code(&self) -> &'static str {
        match self {
            ProofError::TooLarge => "proof-too-large",
            ProofError::Version => "proof-version",
            ProofError::Extra => "proof-extra",
            ProofError::Index => "proof-index",
            ProofError::Hash => "proof-hash",
            ProofError::TooLong => "proof-too-long",
            ProofError::NoCheckpoint => "proof-no-checkpoint",
            ProofError::Checkpoint(error) => error.code(),
            ProofError::Inclusion(error) => error.code(),
        }
    }
}

impl fmt::Display for ProofError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ProofError::TooLarge => f.write_str("the proof has more than 132 KiB"),
            ProofError::Version => write!(f, "the proof does not start with '{VERSION}'"),
            ProofError::Extra => f.write_str("the proof has extra data, which nothing authenticates"),
            ProofError::Index => f.write_str("the proof has no index"),
            ProofError::Hash => f.write_str("a line of the proof is not a hash"),
            ProofError::TooLong => f.write_str("the proof has more than 64 hashes"),
            ProofError::NoCheckpoint => f.write_str("the proof has no checkpoint"),
            ProofError::Checkpoint(error) => error.fmt(f),
            ProofError::Inclusion(error) => write!(f, "the entry is not in the log: {error}"),
        }
    }
}

impl std::error::Error for ProofError {}
