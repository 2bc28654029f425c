//! From a signature of the log key to a checkpoint that counts.

use std::sync::Arc;

use super::{Checkpoint, CheckpointError, LogVerifier, Seen};
use crate::cosignature::{CosignedCheckpoint, WitnessPolicy};
use crate::note::NoteError;

/// A checkpoint that its own log signed, and nobody else yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignedCheckpoint {
    checkpoint: Checkpoint,
    note: String,
    text_bytes: usize,
}

/// A checkpoint with every signature that its log needs: the log's own and, where it has witnesses, those of a quorum.
/// What waits for a commit is released by it alone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct CountedCheckpoint {
    note: Arc<str>,
    seen: Seen,
}

impl LogVerifier {
    /// The checkpoint with its log's signature, which is checked.
    ///
    /// # Errors
    /// [`NoteError::Signature`].
    pub fn signed(&self, checkpoint: Checkpoint, signature: &[u8; 64]) -> Result<SignedCheckpoint, NoteError> {
        let text = self.checkpoint_text(&checkpoint);
        let note = self.key.assemble(&text, signature)?;
        Ok(SignedCheckpoint { checkpoint, note, text_bytes: text.len() })
    }
}

impl LogVerifier {
    /// A checkpoint that somebody shows, with every signature that this log needs.
    pub(crate) fn counted(&self, note: &str) -> Result<CountedCheckpoint, CheckpointError> {
        Ok(CountedCheckpoint { seen: self.verify_cosigned(note)?, note: note.into() })
    }
}

impl SignedCheckpoint {
    /// Size and root.
    pub fn checkpoint(&self) -> Checkpoint {
        self.checkpoint
    }

    /// The note, as witnesses are asked about it.
    pub fn note(&self) -> &str {
        &self.note
    }

    /// The text that log and witnesses sign.
    pub fn text(&self) -> &str {
        self.note.get(..self.text_bytes).expect("a note begins with its text")
    }

    /// Of a log without witnesses.
    ///
    /// # Errors
    /// The witnesses that have to be asked, with the checkpoint back.
    pub(crate) fn unwitnessed(self, log: &LogVerifier) -> Result<CountedCheckpoint, (Self, &WitnessPolicy)> {
        match log.witnesses() {
            None => Ok(CountedCheckpoint { seen: Seen::Unwitnessed(self.checkpoint), note: self.note.into() }),
            Some(witnesses) => Err((self, witnesses)),
        }
    }

    /// With the lines of a quorum, which were verified.
    pub(crate) fn cosigned(self, cosigned: CosignedCheckpoint, lines: &str) -> CountedCheckpoint {
        CountedCheckpoint { note: (self.note + lines).into(), seen: Seen::Cosigned(cosigned) }
    }
}

impl CountedCheckpoint {
    /// The note with all its signatures.
    pub(crate) fn note(&self) -> &Arc<str> {
        &self.note
    }

    /// Size and root.
    pub(crate) fn checkpoint(&self) -> Checkpoint {
        match &self.seen {
            Seen::Unwitnessed(checkpoint) => *checkpoint,
            Seen::Cosigned(cosigned) => *cosigned.checkpoint(),
        }
    }

    /// Who has seen it.
    pub(crate) fn seen(&self) -> &Seen {
        &self.seen
    }
}
