//! Snapshots of the fold in the keeper's own directory (FORMAT.md §5): a start reads one, and of the log only what came
//! since.
//!
//! A snapshot decides nothing. It is sealed under a key of this keeper's root and binds vault, size, root and what the fold
//! meant; an old one is as good as a new one, since what came since is folded up to the head, which is counted, and the
//! root of the head comes out only if the snapshot is of its log. What is of no use is passed over and the log folded
//! whole. But one that this keeper wrote and that its head does not continue shows that the head was put back, or that the
//! host's log was: the keeper writes them of commits that count alone, under witnesses of those that a quorum cosigned.
//! Then it does not start.
//!
//! While the keeper serves, a thread of its own makes the next one out of the last: it reads the entries since from the
//! host, as a start would. The thread that decides only says how far the log is.

mod error;
mod file;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;

use ledger::checkpoint::Checkpoint;
use ledger::genesis::{AntiRollback, Genesis};
use ledger::merkle::Tree;
use ledger::release_log::ClosedLog;
use ledger::snapshot::{self, Folded};
use ledger::state::State;

pub(super) use error::SnapshotError;

use super::fold::{self, FoldError};
use super::link::Store;
use super::vault::OpenError;
use crate::keeper_dir::KeeperDir;
use crate::secret::SnapshotKey;
use file::SnapshotFile;

/// Its file in the keeper's directory.
pub(super) const FILE: &str = "snapshot";
/// Entries after which the next one is written: a start folds no more than these, and some that came meanwhile.
pub(super) const EVERY: u64 = 16_384;
/// Largest snapshot, in bytes. A state that needs more is folded from the log.
const BYTES_MAX: u64 = 512 << 20;

/// The snapshots of one keeper.
pub(super) struct Snapshots {
    shared: Arc<Shared>,
    worker: Option<JoinHandle<()>>,
}

struct Shared {
    dir: Arc<KeeperDir>,
    key: SnapshotKey,
    /// Entries of the newest; 0 without one.
    written: AtomicU64,
    /// From how many entries on the next is due.
    due: AtomicU64,
    /// Whether the head at a start counts. Under witnesses it may be of a commit that no quorum cosigned, and that comes to
    /// nothing.
    head_counts: bool,
    /// The vault is closed.
    stop: AtomicBool,
    bytes_max: u64,
}

impl Snapshots {
    /// Those of a directory, sealed under this key.
    pub(super) fn new(dir: Arc<KeeperDir>, key: SnapshotKey, anti_rollback: AntiRollback) -> Self {
        let head_counts = match anti_rollback {
            AntiRollback::Witnesses => false,
            AntiRollback::Counter | AntiRollback::None => true,
        };
        let (written, due, stop) = (AtomicU64::new(0), AtomicU64::new(EVERY), AtomicBool::new(false));
        Self {
            shared: Arc::new(Shared { dir, key, written, due, head_counts, stop, bytes_max: BYTES_MAX }),
            worker: None,
        }
    }

    /// The fold of the log of this head, from the newest snapshot on if there is one of any use. `own` says whether a
    /// genesis is this keeper's.
    ///
    /// # Errors
    /// [`OpenError::Fold`]; [`OpenError::Snapshot`] where a snapshot shows that the head was put back.
    pub(super) fn fold(
        &self,
        store: &Store,
        head: Checkpoint,
        own: impl Fn(&Genesis) -> bool,
    ) -> Result<(State, ClosedLog), OpenError> {
        let snapshot = self.usable(head, own)?;
        let before = snapshot.as_ref().map_or(0, |folded| folded.state.size());
        let (state, log) = fold_on(store, head, snapshot)?;
        tracing::info!(entries = state.size(), snapshot = before, "the log is folded");
        if state.size() - before >= EVERY && self.shared.head_counts {
            self.write(&state, log.tree());
        }
        Ok((state, log))
    }

    fn usable(&self, head: Checkpoint, own: impl Fn(&Genesis) -> bool) -> Result<Option<Folded>, OpenError> {
        let read = self.shared.read(head).and_then(|folded| match &folded {
            Some(of) if !of.state.genesis().is_some_and(&own) => Err(SnapshotError::OtherVault),
            Some(_) | None => Ok(folded),
        });
        match read {
            Ok(folded) => Ok(folded),
            Err(error) if error.shows_rollback() => Err(OpenError::Snapshot(error)),
            Err(error) => {
                let code = error.code();
                tracing::warn!(code, %error, "the snapshot is of no use: the log is folded whole");
                Ok(None)
            }
        }
    }

    /// Writes one of this state now, unless there is one already. What keeps it from being written is said in the log of
    /// the program: the keeper does without.
    pub(super) fn write(&self, state: &State, tree: &Tree) {
        if self.worker.as_ref().is_some_and(|worker| !worker.is_finished()) {
            return;
        }
        self.shared.write_if_new(state, tree);
    }

    /// Has the next one made in the background, if it is due at this head.
    pub(super) fn follow(&mut self, head: Checkpoint, store: &Store) {
        if head.size < self.shared.due.load(Ordering::Relaxed)
            || self.worker.as_ref().is_some_and(|worker| !worker.is_finished())
        {
            return;
        }
        // Whatever becomes of it, the next try is not before as many more.
        self.shared.due.store(head.size + EVERY, Ordering::Relaxed);
        let (shared, store) = (Arc::clone(&self.shared), store.clone());
        let made = std::thread::Builder::new().name("snapshot".to_owned()).spawn(move || shared.make(head, &store));
        match made {
            Ok(worker) => self.worker = Some(worker),
            Err(error) => tracing::warn!(%error, "no snapshot: a thread for it could not be started"),
        }
    }
}

/// Two threads never write the file at once: a vault that opens anew has its own.
impl Drop for Snapshots {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        if let Some(worker) = self.worker.take() {
            let _ = worker.join();
        }
    }
}

/// Where the log behind a snapshot does not lead to the head, either the host's log is not that of the head, or the
/// snapshot is not of it. The whole log says which.
fn fold_on(store: &Store, head: Checkpoint, from: Option<Folded>) -> Result<(State, ClosedLog), OpenError> {
    let (resumes, never) = (from.is_some(), AtomicBool::new(false));
    match fold::fold(store, head, from, &never) {
        Ok(folded) => Ok(folded),
        Err(error @ (FoldError::Entry { .. } | FoldError::Log(_))) if resumes => {
            tracing::warn!(code = error.code(), %error, "not the log of the snapshot: it is folded whole");
            fold::fold(store, head, None, &never)?;
            Err(OpenError::Snapshot(SnapshotError::Fork))
        }
        Err(error) => Err(error.into()),
    }
}

impl Shared {
    fn read(&self, head: Checkpoint) -> Result<Option<Folded>, SnapshotError> {
        let Some(bytes) = self.dir.read_up_to(FILE, self.bytes_max).map_err(SnapshotError::Dir)? else {
            return Ok(None);
        };
        let folded = SnapshotFile::parse(&bytes)?.open(&self.key)?;
        let size = folded.state.size();
        if size > head.size {
            return Err(SnapshotError::AheadOfHead { snapshot: size, head: head.size });
        }
        self.written.store(size, Ordering::Relaxed);
        self.due.store(size + EVERY, Ordering::Relaxed);
        Ok(Some(folded))
    }

    /// The last one, and what came since.
    fn make(&self, head: Checkpoint, store: &Store) {
        let from = self.read(head).unwrap_or_else(|error| {
            tracing::warn!(code = error.code(), %error, "the snapshot before is of no use");
            None
        });
        match fold::fold(store, head, from, &self.stop) {
            Ok((state, log)) => self.write_if_new(&state, log.tree()),
            Err(FoldError::Stopped) => {}
            Err(error) => tracing::warn!(code = error.code(), %error, "no snapshot was made"),
        }
    }

    fn write_if_new(&self, state: &State, tree: &Tree) {
        if state.size() == self.written.load(Ordering::Relaxed) {
            return;
        }
        match self.write(state, tree) {
            Ok(bytes) => tracing::info!(entries = state.size(), bytes, "snapshot written"),
            Err(error) => tracing::warn!(code = error.code(), %error, "no snapshot was written"),
        }
    }

    fn write(&self, state: &State, tree: &Tree) -> Result<u64, SnapshotError> {
        let plain = snapshot::encode(state, tree).map_err(SnapshotError::Content)?;
        let sealed = SnapshotFile::seal(state, tree, &plain, &self.key)?;
        let bytes = sealed.len() as u64;
        if bytes > self.bytes_max {
            return Err(SnapshotError::TooLong { bytes });
        }
        self.dir.replace(FILE, &sealed).map_err(SnapshotError::Dir)?;
        self.written.store(state.size(), Ordering::Relaxed);
        self.due.store(state.size() + EVERY, Ordering::Relaxed);
        Ok(bytes)
    }
}

#[cfg(test)]
mod tests;
