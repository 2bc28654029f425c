//! How far a log is to which other keepers of the vault may have written (DESIGN: "Rollback and forks").
//!
//! The host says it, and is believed nothing without a signature of the log key: of the published checkpoint with the
//! cosignatures of a quorum, of a proposed one alone. A proposed checkpoint is what some keeper decided and did not bring to
//! its end. A witness may have cosigned it, so whoever comes next goes on from it, and never beside it.
//!
//! A host that shows an older checkpoint than there is gets nowhere: whatever this keeper makes of it must be cosigned, and
//! witnesses that cosigned more refuse.

use ledger::checkpoint::{Checkpoint, CheckpointError, LogVerifier};
use vault_proto::v1::{GetLogHead, LogHead, ProposeCheckpoint, store_call::Call, store_result};

use super::link::{Store, StoreError};

/// Why the host's log has no head that this keeper could go on from.
#[derive(Debug)]
pub(super) enum NewestError {
    /// The host did not say it.
    Store(StoreError),
    /// What it shows is not signed, or not cosigned, as a checkpoint of this log.
    Checkpoint(CheckpointError),
}

impl NewestError {
    /// Stable name.
    pub(super) fn code(&self) -> &'static str {
        match self {
            Self::Store(_) => "log-unavailable",
            Self::Checkpoint(error) => error.code(),
        }
    }
}

impl std::fmt::Display for NewestError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Store(error) => error.fmt(f),
            Self::Checkpoint(error) => write!(f, "the host shows a checkpoint that is none of this vault: {error}"),
        }
    }
}

impl std::error::Error for NewestError {}

impl Store {
    /// The newest checkpoint that this log's key has signed, as far as the host shows it: proposed, or published. `None`
    /// before the first.
    ///
    /// # Errors
    /// [`NewestError`].
    pub(super) fn newest(&self, verifier: &LogVerifier) -> Result<Option<Checkpoint>, NewestError> {
        let LogHead { checkpoint, proposed, .. } = self.log_head().map_err(NewestError::Store)?;
        let shown = |note: String| Some(note).filter(|note| !note.is_empty());
        let published = shown(checkpoint).map(|note| verifier.verify_checkpoint(&note)).transpose();
        let proposed = shown(proposed).map(|note| verifier.verify_signed(&note)).transpose();
        let published = published.map_err(NewestError::Checkpoint)?;
        let proposed = proposed.map_err(NewestError::Checkpoint)?;
        Ok([published, proposed].into_iter().flatten().max_by_key(|checkpoint| checkpoint.size))
    }

    /// What the host says of its log.
    fn log_head(&self) -> Result<LogHead, StoreError> {
        match self.call_all(vec![Call::GetLogHead(GetLogHead {})])?.pop() {
            Some(store_result::Result::LogHead(head)) => Ok(head),
            _ => Err(StoreError::WrongAnswer),
        }
    }

    /// Has the host keep a signed checkpoint, and the entries under it, before a witness hears of it.
    ///
    /// # Errors
    /// [`StoreError`]: another keeper has written other entries meanwhile, or the host's disk.
    pub(super) fn propose(&self, checkpoint: &str, size: u64) -> Result<(), StoreError> {
        let call = Call::ProposeCheckpoint(ProposeCheckpoint { checkpoint: checkpoint.to_owned(), size });
        self.write_all(vec![call])
    }
}
