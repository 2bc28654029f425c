//! Why a log is not opened, or why a commit failed.

use std::fmt;

use crate::cosignature::NoQuorum;
use crate::note::NoteError;

/// Why entries are not the log of a head.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OpenError {
    /// The head says another number of entries: they are an older copy, or a longer log that was never committed.
    Size {
        /// Entries that the head says.
        expected: u64,
        /// Entries that were read.
        found: u64,
    },
    /// The entries have another root than the head: they were changed.
    Root,
}

/// Why a commit failed. The log is stopped from then on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LogError<E> {
    /// An earlier commit failed.
    Stopped,
    /// Entry 0 is not the genesis of the vault that is to sign, or there is none.
    OtherVault,
    /// The entries could not be made durable.
    Append(E),
    /// Head or counter could not be written.
    Commit(E),
    /// The checkpoint could not be signed.
    Sign(E),
    /// The signature of the checkpoint is not one of the log key.
    Signature(NoteError),
    /// Witnesses could not be asked.
    Cosign(E),
    /// Too few of them cosigned the checkpoint.
    NoQuorum(NoQuorum),
    /// The checkpoint could not be published.
    Publish(E),
    /// What another keeper is said to have written is not what its checkpoint says.
    Followed(OpenError),
}

impl OpenError {
    /// Stable code.
    pub fn code(&self) -> &'static str {
        match self {
            OpenError::Size { .. } => "log-size-mismatch",
            OpenError::Root => "log-root-mismatch",
        }
    }
}

impl fmt::Display for OpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            OpenError::Size { expected, found } => write!(f, "the head has {expected} entries, the log {found}"),
            OpenError::Root => f.write_str("the log is not the one of the head"),
        }
    }
}

impl std::error::Error for OpenError {}

impl<E> LogError<E> {
    /// Stable code.
    pub fn code(&self) -> &'static str {
        match self {
            LogError::Stopped => "log-stopped",
            LogError::OtherVault => "log-other-vault",
            LogError::Append(_) => "log-append",
            LogError::Commit(_) => "log-commit",
            LogError::Sign(_) => "log-sign",
            LogError::Signature(_) => "log-signature",
            LogError::Cosign(_) => "log-cosign",
            LogError::NoQuorum(error) => error.code(),
            LogError::Publish(_) => "log-publish",
            LogError::Followed(error) => error.code(),
        }
    }
}

impl<E: fmt::Display> fmt::Display for LogError<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            LogError::Stopped => f.write_str("the log has stopped after a failed commit"),
            LogError::OtherVault => f.write_str("the log does not begin with the genesis of this vault"),
            LogError::Append(error) => write!(f, "entries were not written: {error}"),
            LogError::Commit(error) => write!(f, "the head was not committed: {error}"),
            LogError::Sign(error) => write!(f, "the checkpoint was not signed: {error}"),
            LogError::Signature(error) => write!(f, "the checkpoint's signature is no good: {error}"),
            LogError::Cosign(error) => write!(f, "witnesses could not be asked: {error}"),
            LogError::NoQuorum(error) => error.fmt(f),
            LogError::Publish(error) => write!(f, "the checkpoint was not published: {error}"),
            LogError::Followed(error) => write!(f, "what another keeper wrote: {error}"),
        }
    }
}

impl<E: fmt::Debug + fmt::Display> std::error::Error for LogError<E> {}
