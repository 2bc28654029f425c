//! What a witness does with `add-checkpoint` (C2SP tlog-witness), without its disk and network: read the request, hold it
//! against the largest checkpoint that was cosigned, and say with which HTTP status it is refused.
//!
//! ```text
//! old 2                                              size that the witness cosigned last
//! gSKyXoYZUgZ6jduWYrkDOARinOMGJveXjgMkBTcdPlQ=       consistency proof, at most 63 lines
//!
//! example.com/log                                    checkpoint, signed by its log
//! 3
//! sFodV/vSp5O8n9a8QpW6PRY97tfOSW5bsc2Xl/EQi08=
//!
//! — example.com/log hI2DJw…
//! ```
//!
//! A witness signs nothing but a [`Step`], which only [`step`] makes, and only once it is durable.

mod error;

use attestation::UnixTime;

pub use error::AddCheckpointError;

use crate::checkpoint::Checkpoint;
use crate::cosignature::WitnessKey;
use crate::merkle::{Hash, empty_root, verify_consistency};
use crate::note::{NOTE_BYTES_MAX, NoteError, VerifierKey, split};
use crate::text::{hash_text, parse_decimal, parse_hash};

/// Most hashes of a consistency proof.
pub const PROOF_LINES_MAX: usize = 63;
/// Longest request, in bytes: proof and checkpoint.
pub const REQUEST_BYTES_MAX: usize = NOTE_BYTES_MAX + (4 << 10);
/// Content type of the answer 409, whose body is the size that was cosigned last.
pub const SIZE_CONTENT_TYPE: &str = "text/x.tlog.size";

/// A request to cosign a checkpoint, whose form alone was checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AddCheckpoint {
    old: u64,
    proof: Vec<Hash>,
    note: String,
}

/// The next checkpoint of a log: signed by it, and a continuation of the one before. It has to be durable before it is
/// signed; who can sign is outside this crate.
#[derive(Debug, PartialEq, Eq)]
pub struct Step {
    checkpoint: Checkpoint,
    note: String,
    text_bytes: usize,
}

impl AddCheckpoint {
    /// A request to advance from `old` entries with this proof.
    pub fn new(old: u64, proof: Vec<Hash>, note: String) -> Self {
        Self { old, proof, note }
    }

    /// Reads the body of a request.
    ///
    /// # Errors
    /// [`AddCheckpointError::Malformed`].
    pub fn parse(body: &str) -> Result<Self, AddCheckpointError> {
        if body.len() > REQUEST_BYTES_MAX {
            return Err(AddCheckpointError::Malformed);
        }
        let (old, mut rest) = body.split_once('\n').ok_or(AddCheckpointError::Malformed)?;
        let old = old.strip_prefix("old ").and_then(parse_decimal).ok_or(AddCheckpointError::Malformed)?;
        let mut proof = Vec::new();
        loop {
            let (line, after) = rest.split_once('\n').ok_or(AddCheckpointError::Malformed)?;
            rest = after;
            if line.is_empty() {
                return Ok(Self { old, proof, note: rest.to_owned() });
            }
            if proof.len() == PROOF_LINES_MAX {
                return Err(AddCheckpointError::Malformed);
            }
            proof.push(parse_hash(line).ok_or(AddCheckpointError::Malformed)?);
        }
    }

    /// The body of the request.
    pub fn encode(&self) -> String {
        let proof: String = self.proof.iter().map(|hash| hash_text(hash) + "\n").collect();
        format!("old {}\n{proof}\n{}", self.old, self.note)
    }

    /// First line of the checkpoint: which log it is of.
    ///
    /// # Errors
    /// [`AddCheckpointError::Malformed`] where what follows the proof is no checkpoint.
    pub fn origin(&self) -> Result<&str, AddCheckpointError> {
        read(&self.note).map(|read| read.origin)
    }
}

/// Holds a request against the log's key and the largest checkpoint that was cosigned; the log's origin is the key's name.
///
/// # Errors
/// [`AddCheckpointError`], in the order of the specification.
pub fn step(log: &VerifierKey, latest: Option<Checkpoint>, request: AddCheckpoint) -> Result<Step, AddCheckpointError> {
    let AddCheckpoint { old, proof, note } = request;
    let step = recorded(log, note)?;
    let new = step.checkpoint;
    if old > new.size {
        return Err(AddCheckpointError::OldPastNew { old, size: new.size });
    }
    let latest = latest.unwrap_or(Checkpoint { size: 0, root: empty_root() });
    if old != latest.size {
        return Err(AddCheckpointError::Conflict { size: latest.size });
    }
    if new.size == 0 && new.root != empty_root() {
        return Err(AddCheckpointError::EmptyRoot);
    }
    if old == 0 {
        // The empty log is consistent with every log, and that needs no proof.
        return if proof.is_empty() { Ok(step) } else { Err(AddCheckpointError::ProofUnexpected) };
    }
    verify_consistency(old, new.size, &proof, &latest.root, &new.root).map_err(AddCheckpointError::Inconsistent)?;
    Ok(step)
}

/// A checkpoint that this witness made durable in an earlier run: signed by its log, and nothing more is asked of it.
///
/// # Errors
/// [`AddCheckpointError::Malformed`], [`AddCheckpointError::OriginUnknown`], [`AddCheckpointError::NotSigned`].
pub fn recorded(log: &VerifierKey, note: String) -> Result<Step, AddCheckpointError> {
    let Read { origin, checkpoint, text_bytes } = read(&note)?;
    if origin != log.name() {
        return Err(AddCheckpointError::OriginUnknown);
    }
    log.verify(&note).map_err(|error| match error {
        NoteError::NotSigned | NoteError::Signature => AddCheckpointError::NotSigned,
        NoteError::KeyName
        | NoteError::KeyText
        | NoteError::KeyType
        | NoteError::KeyId
        | NoteError::TooLarge
        | NoteError::ControlCharacter
        | NoteError::NoSignatures
        | NoteError::TooManySignatures
        | NoteError::SignatureLine => AddCheckpointError::Malformed,
    })?;
    Ok(Step { checkpoint, note, text_bytes })
}

impl Step {
    /// Size and root.
    pub fn checkpoint(&self) -> Checkpoint {
        self.checkpoint
    }

    /// The checkpoint as its log signed it.
    pub fn note(&self) -> &str {
        &self.note
    }

    /// The text that log and witnesses sign.
    pub fn text(&self) -> &str {
        self.note.get(..self.text_bytes).expect("a note begins with its text")
    }

    /// The bytes to sign at this time.
    pub fn message(&self, time: UnixTime) -> Vec<u8> {
        WitnessKey::message(self.text(), time)
    }
}

struct Read<'a> {
    origin: &'a str,
    checkpoint: Checkpoint,
    text_bytes: usize,
}

/// Reads origin, size and root (C2SP tlog-checkpoint); extension lines may follow, and are signed with the rest.
fn read(note: &str) -> Result<Read<'_>, AddCheckpointError> {
    let (text, _) = split(note).map_err(|_| AddCheckpointError::Malformed)?;
    let mut lines = text.split_terminator('\n');
    let (Some(origin), Some(size), Some(root)) = (lines.next(), lines.next(), lines.next()) else {
        return Err(AddCheckpointError::Malformed);
    };
    if origin.is_empty() || lines.any(str::is_empty) {
        return Err(AddCheckpointError::Malformed);
    }
    let size = parse_decimal(size).ok_or(AddCheckpointError::Malformed)?;
    let root = parse_hash(root).ok_or(AddCheckpointError::Malformed)?;
    Ok(Read { origin, checkpoint: Checkpoint { size, root }, text_bytes: text.len() })
}
