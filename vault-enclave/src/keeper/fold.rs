//! The host's log, folded up to a head: whole, or from a snapshot on.

use std::sync::atomic::{AtomicBool, Ordering};

use ledger::checkpoint::Checkpoint;
use ledger::merkle::{Hash, leaf_hash};
use ledger::release_log::{self, ClosedLog, LogReader};
use ledger::snapshot::Folded;
use ledger::state::{self, State};
use ledger::upgrade::UpgradeError;

use super::link::{Store, StoreError};

/// Why the host's log does not fold to the head.
#[derive(Debug)]
pub(super) enum FoldError {
    /// The host has the log not, or not all of it.
    Store(StoreError),
    /// An entry that the fold refuses: the log is not this keeper's, or was changed.
    Entry {
        /// Its index.
        index: u64,
        /// Why.
        error: state::FoldError,
    },
    /// The entries do not make the root in the head.
    Log(release_log::OpenError),
    /// Nobody waits for it any more.
    Stopped,
}

impl FoldError {
    /// Stable name.
    pub(super) fn code(&self) -> &'static str {
        match self {
            Self::Store(_) => "log-unavailable",
            // Nothing is wrong with that log.
            Self::Entry { error: state::FoldError::Upgrade(error @ UpgradeError::ProgramTooOld { .. }), .. } => {
                error.code()
            }
            Self::Entry { .. } => "log-fold",
            Self::Log(error) => error.code(),
            Self::Stopped => "fold-stopped",
        }
    }
}

impl std::fmt::Display for FoldError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Store(error) => error.fmt(f),
            Self::Entry { index, error } => write!(f, "entry {index} of the host's log: {error}"),
            Self::Log(error) => error.fmt(f),
            Self::Stopped => f.write_str("the vault was closed"),
        }
    }
}

impl std::error::Error for FoldError {}

impl From<StoreError> for FoldError {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

/// Reads what comes behind `from`, or the whole log, up to the head, and checks that it is the log of the head.
///
/// # Errors
/// [`FoldError`]; [`FoldError::Stopped`] soon after `stop` is set.
pub(super) fn fold(
    store: &Store,
    head: Checkpoint,
    from: Option<Folded>,
    stop: &AtomicBool,
) -> Result<(State, ClosedLog), FoldError> {
    let from = from.and_then(|folded| Some((folded.state.genesis()?.vault_id(), folded)));
    let (mut state, mut log) = match from {
        None => (State::new(), LogReader::new(head)),
        Some((vault, Folded { state, tree })) => {
            if state.size() == head.size {
                check_last(store, head.size, tree.node(0, head.size - 1).copied())?;
            }
            (state, LogReader::resume(head, tree, vault))
        }
    };
    store.read_log(state.size()..head.size, |entry| {
        if stop.load(Ordering::Relaxed) {
            return Err(FoldError::Stopped);
        }
        let index = state.size();
        state.apply(index, &entry).map_err(|error| FoldError::Entry { index, error })?;
        log.push(&entry).map_err(FoldError::Log)
    })?;
    Ok((state, log.finish().map_err(FoldError::Log)?))
}

/// Nothing is left to read, and a host that has lost its log must still be found out before it is written to.
fn check_last(store: &Store, size: u64, leaf: Option<Hash>) -> Result<(), FoldError> {
    store.read_log(size - 1..size, |entry| match leaf {
        Some(leaf) if leaf != leaf_hash(&entry) => Err(FoldError::Log(release_log::OpenError::Root)),
        Some(_) | None => Ok(()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_that_this_program_is_too_old_for_is_not_called_damaged() {
        let entry = |error| FoldError::Entry { index: 7, error };
        let version = "9.9.9".parse().unwrap();
        let newer = entry(state::FoldError::Upgrade(UpgradeError::ProgramTooOld { fold: 9, version }));
        assert_eq!(newer.code(), "program-too-old");
        assert!(newer.to_string().contains("run version 9.9.9"), "{newer}");
        for other in [state::FoldError::Upgrade(UpgradeError::Unchanged), state::FoldError::GenesisMissing] {
            assert_eq!(entry(other).code(), "log-fold");
        }
    }
}
