//! How far a log is to which other keepers of the vault write too (DESIGN: "Rollback and forks").
//!
//! The host says it, and is believed nothing without a signature of the log key: of the published checkpoint with the
//! cosignatures of a quorum, of a proposed one alone. A proposed checkpoint is what some keeper decided and did not bring to
//! its end. A witness may have cosigned it, so whoever comes next goes on from it, and never beside it.
//!
//! A host that shows an older checkpoint than there is gets nowhere: whatever this keeper makes of it must be cosigned, and
//! witnesses that cosigned more refuse.
//!
//! Keepers take turns, which the host gives. What one decides in its turn is decided on all that the others wrote.

use ledger::checkpoint::{CheckpointError, LogVerifier};
use ledger::release_log::Newest;
use vault_proto::v1::{EndTurn, LogHead, ProposeCheckpoint, TakeTurn, store_call::Call, store_result};

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

/// This keeper's turn to write, until it is dropped.
pub(super) struct Turn {
    store: Store,
    head: LogHead,
}

impl Turn {
    /// How far the log is, as far as the host shows it. `None` before its first checkpoint.
    ///
    /// # Errors
    /// [`NewestError::Checkpoint`].
    pub(super) fn newest(&self, verifier: &LogVerifier) -> Result<Option<Newest>, NewestError> {
        verifier.newest(&self.head.checkpoint, &self.head.proposed).map_err(NewestError::Checkpoint)
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        // The host ends a turn by itself too. Nobody waits for the answer.
        let _ = self.store.ask(Call::EndTurn(EndTurn {}));
    }
}

impl Store {
    /// Waits for this keeper's turn.
    ///
    /// # Errors
    /// [`StoreError`]: other keepers were at it for too long, or there is no host.
    pub(super) fn take_turn(&self) -> Result<Turn, StoreError> {
        match self.call_all(vec![Call::TakeTurn(TakeTurn {})])?.pop() {
            Some(store_result::Result::LogHead(head)) => Ok(Turn { store: self.clone(), head }),
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
