//! What waits for a commit, and what a commit makes of it.

use std::fmt;
use std::sync::{Arc, OnceLock};

use crate::checkpoint::CountedCheckpoint;
use crate::merkle::{Hash, leaf_hash};
use crate::proof::proof_text;

/// Longest entry, in bytes (FORMAT.md §8).
pub const ENTRY_BYTES_MAX: usize = 16 << 10;
/// Most entries of a batch: at most 4 MiB go to the host at once.
pub const BATCH_ENTRIES_MAX: usize = 256;

/// A decision that counts once its entry is in the log.
pub trait Loggable {
    /// The exact bytes of its entry. Asked for once, when it is staged.
    fn entry_bytes(&self) -> Vec<u8>;
}

/// Why an entry cannot join a batch. What was to be staged is gone: it may be decided on again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StageError {
    /// An entry has at most 16 KiB.
    EntryTooLong {
        /// Its bytes.
        bytes: usize,
    },
    /// A batch has at most 256 entries.
    BatchFull,
}

/// Entries that will be committed together, in the order in which they were staged.
#[derive(Debug, Default)]
pub struct Batch {
    entries: Vec<Vec<u8>>,
    slots: Vec<Slot>,
}

/// Where a ticket finds its inclusion, once there is one.
#[derive(Debug, Default, Clone)]
pub(super) struct Slot(Arc<OnceLock<Arc<Inclusion>>>);

#[derive(Debug)]
struct Inclusion {
    index: u64,
    leaf_hash: Hash,
    entry: Vec<u8>,
    path: Vec<Hash>,
    checkpoint: Arc<str>,
}

impl Batch {
    /// A batch without entries.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a decision's entry. The decision itself stays in the ticket until the entry is committed.
    pub fn stage<T: Loggable>(&mut self, value: T) -> Result<Ticket<T>, StageError> {
        let slot = self.put(value.entry_bytes())?;
        Ok(Ticket { value, slot })
    }

    /// Adds an entry that nobody waits for.
    pub fn add(&mut self, entry: Vec<u8>) -> Result<(), StageError> {
        self.put(entry).map(drop)
    }

    /// Number of entries.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Whether it takes no more.
    pub fn is_full(&self) -> bool {
        self.len() >= BATCH_ENTRIES_MAX
    }

    fn put(&mut self, entry: Vec<u8>) -> Result<Slot, StageError> {
        if entry.len() > ENTRY_BYTES_MAX {
            return Err(StageError::EntryTooLong { bytes: entry.len() });
        }
        if self.is_full() {
            return Err(StageError::BatchFull);
        }
        let slot = Slot::default();
        self.entries.push(entry);
        self.slots.push(slot.clone());
        Ok(slot)
    }

    pub(super) fn first_entry(&self) -> Option<&[u8]> {
        self.entries.first().map(Vec::as_slice)
    }

    pub(super) fn into_parts(self) -> (Vec<Vec<u8>>, Vec<Slot>) {
        (self.entries, self.slots)
    }
}

impl Slot {
    /// Called once, after the checkpoint that covers the entry was published. Without one that counts nothing is filled.
    pub(super) fn fill(&self, index: u64, entry: Vec<u8>, path: Vec<Hash>, counted: &CountedCheckpoint) {
        let leaf_hash = leaf_hash(&entry);
        let inclusion = Inclusion { index, leaf_hash, entry, path, checkpoint: Arc::clone(counted.note()) };
        // A commit consumes its batch, so nothing fills a slot twice.
        let _ = self.0.set(Arc::new(inclusion));
    }
}

/// A decision whose entry is on its way into the log. Dropping it withdraws nothing: the entry is committed all the same.
#[must_use = "the decision can only be used through its ticket"]
pub struct Ticket<T> {
    value: T,
    slot: Slot,
}

impl<T> Ticket<T> {
    /// The logged decision, or the ticket again where its batch has not been committed.
    pub fn redeem(self) -> Result<Logged<T>, Ticket<T>> {
        match self.slot.0.get() {
            Some(inclusion) => Ok(Logged { inclusion: Arc::clone(inclusion), value: self.value }),
            None => Err(self),
        }
    }
}

/// A decision whose entry is in the log: durable, counted, and under a published checkpoint.
///
/// There is no other way to make one than [`Log::commit`](super::Log::commit), and no way to copy one:
///
/// ```compile_fail,E0451
/// # use ledger::release_log::{Logged, Ticket};
/// fn forge<T>(ticket: Ticket<T>) -> T { let Ticket { value, .. } = ticket; value }
/// ```
/// ```
/// # use ledger::release_log::{Logged, Ticket};
/// fn redeem<T>(ticket: Ticket<T>) -> Option<Logged<T>> { ticket.redeem().ok() }
/// ```
/// ```compile_fail,E0277
/// fn copy<T: Clone>() {}
/// copy::<ledger::release_log::Logged<u8>>();
/// ```
/// ```
/// fn copy<T: Clone>() {}
/// copy::<ledger::checkpoint::Checkpoint>();
/// ```
pub struct Logged<T> {
    value: T,
    inclusion: Arc<Inclusion>,
}

impl<T> Logged<T> {
    /// The decision.
    pub fn value(&self) -> &T {
        &self.value
    }

    /// Index of its entry.
    pub fn index(&self) -> u64 {
        self.inclusion.index
    }

    /// Its entry, exact bytes.
    pub fn entry(&self) -> &[u8] {
        &self.inclusion.entry
    }

    /// Leaf hash of its entry: SHA-256(`00` ‖ entry).
    pub fn leaf_hash(&self) -> &Hash {
        &self.inclusion.leaf_hash
    }

    /// C2SP tlog-proof of its entry, under the checkpoint of its commit.
    pub fn proof(&self) -> String {
        proof_text(self.inclusion.index, &self.inclusion.path, &self.inclusion.checkpoint)
    }
}

// A decision may hold what must not be printed.
impl<T> fmt::Debug for Ticket<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ticket").finish_non_exhaustive()
    }
}

impl<T> fmt::Debug for Logged<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Logged").field("index", &self.inclusion.index).finish_non_exhaustive()
    }
}

impl StageError {
    /// Stable code.
    pub fn code(&self) -> &'static str {
        match self {
            StageError::EntryTooLong { .. } => "log-entry-too-long",
            StageError::BatchFull => "log-batch-full",
        }
    }
}

impl fmt::Display for StageError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            StageError::EntryTooLong { bytes } => write!(f, "a log entry of {bytes} bytes; at most 16 KiB"),
            StageError::BatchFull => f.write_str("the batch has 256 entries"),
        }
    }
}

impl std::error::Error for StageError {}
