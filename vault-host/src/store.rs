//! Everything on the host's disk: the log, blobs, uploads, sealed models.
//!
//! Nothing here is secret and nothing is trusted by those who read it: entries are checked against checkpoints, blobs
//! and units against digests. The store's promises are that what it reported as written is still there after a crash,
//! and that no name from the wire ever becomes a path. All of it blocks: callers are on blocking threads.

use std::fs::{File, OpenOptions};
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};

use attestation::{Sha256Digest, UnixTime};
use ledger::entry::{Entry, Proposal, Propose};
use ledger::log_reader::AuthorisedReader;
use ledger::tiles::Tile;
use rustix::fs::FlockOperation;
use vault_proto::limits::READ_LOG_MAX;
use vault_proto::v1::ReaderCredential;

mod blobs;
mod error;
mod files;
mod log;
mod models;
mod readers;
mod segment;
mod tile_files;
mod uploads;

pub use error::StoreError;
pub(crate) use models::{Model, Models};
pub(crate) use uploads::{ABANDONED_AFTER, Uploads};

use blobs::Blobs;
use files::Scratch;
use log::Log;
use readers::{NotAuthorised, Readers};
use segment::SEGMENT_ENTRIES;
use tile_files::TileFiles;

/// How the entries begin that the store follows (FORMAT.md §8: version and type come first).
const FOLLOWED: [&[u8]; 3] =
    [br#"{"v":1,"type":"genesis","#, br#"{"v":1,"type":"policy","#, br#"{"v":1,"type":"model","#];

/// An open data directory. One process has it at a time.
#[derive(Debug)]
pub(crate) struct Store {
    log: Mutex<Log>,
    tiles: TileFiles,
    blobs: Blobs,
    uploads: Uploads,
    models: Models,
    readers: Readers,
    _lock: File,
}

impl Store {
    /// Opens `data_dir`, creating what is missing. Uploads leave `keep_free` bytes of the disk free.
    ///
    /// # Errors
    /// [`StoreError::DataDirInUse`], [`StoreError::Damaged`], or what the system says.
    pub(crate) fn open(data_dir: &Path, keep_free: u64) -> Result<Self, StoreError> {
        files::create_dirs(data_dir)?;
        let lock = lock(&data_dir.join("lock"))?;
        let scratch = Scratch::open(data_dir.join("tmp"))?;
        let (log, cut) = Log::open(data_dir.join("log"), scratch.clone())?;
        if cut > 0 {
            tracing::warn!(bytes = cut, size = log.size(), "cut an entry that was half-written when the host stopped");
        }
        let genesis = vault_of(&log)?;
        let (readers, followed) = Readers::open(data_dir.join("log/policy.toml"), scratch.clone(), genesis)?;
        let store = Self {
            tiles: log.tiles().clone(),
            log: Mutex::new(log),
            blobs: Blobs::open(data_dir.join("blobs"), scratch.clone())?,
            uploads: Uploads::open(data_dir.join("uploads"), keep_free)?,
            models: Models::open(data_dir, scratch)?,
            readers,
            _lock: lock,
        };
        // A proposal may wait here whose entry came while this host was restored from a copy.
        if !followed || store.models.any_proposed() {
            let log = store.log();
            store.follow(&log, 0, log.committed())?;
        }
        Ok(store)
    }

    /// Writes entries for the keeper, durably, in place of whatever stood at `first` or beyond.
    ///
    /// # Errors
    /// The log is unchanged, unless [`StoreError::LogStopped`].
    pub(crate) fn append_log(&self, first: u64, entries: &[Vec<u8>]) -> Result<(), StoreError> {
        self.log().append(first, entries)
    }

    /// Reads entries for the keeper, those above the checkpoint too: at most 8 MiB, empty at the end of the log.
    ///
    /// # Errors
    /// What the system says.
    pub(crate) fn read_log(&self, first: u64, count: u32) -> Result<Vec<Vec<u8>>, StoreError> {
        self.log().read(first, count)
    }

    /// Publishes a checkpoint with its tiles, durably. First follows its entries: released models, readers of the log.
    ///
    /// # Errors
    /// The checkpoint before stays published.
    pub(crate) fn put_checkpoint(&self, text: &str, size: u64) -> Result<(), StoreError> {
        let mut log = self.log();
        let committed = log.committed();
        log.put_checkpoint(text, size, |log| self.follow(log, committed, size))
    }

    /// Keeps a checkpoint that witnesses are about to be asked about, with its entries, durably.
    ///
    /// # Errors
    /// [`StoreError::CheckpointRoot`] and others where it is not of the entries that are stored.
    pub(crate) fn propose(&self, text: &str, size: u64) -> Result<(), StoreError> {
        self.log().propose(text, size)
    }

    /// Entries stored, the newest checkpoint, and the newest proposed one where it is of more entries.
    pub(crate) fn log_head(&self) -> (u64, Option<String>, Option<String>) {
        let log = self.log();
        let text = |checkpoint: &log::Checkpoint| checkpoint.text.clone();
        (log.size(), log.checkpoint().map(text), log.proposed().map(text))
    }

    /// The newest checkpoint, a signed note.
    pub(crate) fn checkpoint(&self) -> Option<String> {
        self.log().checkpoint().map(|checkpoint| checkpoint.text.clone())
    }

    /// Entries under the newest checkpoint.
    pub(crate) fn committed(&self) -> u64 {
        self.log().committed()
    }

    /// A tile of the published log.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] where that log has no such tile.
    pub(crate) fn tile(&self, tile: &Tile) -> Result<Vec<u8>, StoreError> {
        self.published(|size| self.tiles.tile(size, tile))?.ok_or(StoreError::NotFound { what: "tile" })
    }

    /// Published entries from `first` on, at most to the end of a bundle; empty at the end of the published log.
    ///
    /// # Errors
    /// What the system says.
    pub(crate) fn entries(&self, first: u64, count: usize) -> Result<Vec<Vec<u8>>, StoreError> {
        let bundle = self.published(|size| self.tiles.bundle(size, first / SEGMENT_ENTRIES))?.unwrap_or_default();
        let offset = usize::try_from(first % SEGMENT_ENTRIES).unwrap_or(usize::MAX);
        Ok(bundle.into_iter().skip(offset).take(count).collect())
    }

    /// Stores a blob.
    ///
    /// # Errors
    /// [`StoreError::DigestMismatch`] and others.
    pub(crate) fn put_blob(&self, digest: &Sha256Digest, bytes: &[u8]) -> Result<(), StoreError> {
        self.blobs.put(digest, bytes)
    }

    /// Reads a blob.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] and others.
    pub(crate) fn blob(&self, digest: &Sha256Digest) -> Result<Vec<u8>, StoreError> {
        self.blobs.get(digest)
    }

    /// Units that are not published yet.
    pub(crate) fn uploads(&self) -> &Uploads {
        &self.uploads
    }

    /// Sealed models, proposed and released.
    pub(crate) fn models(&self) -> &Models {
        &self.models
    }

    /// Whether anybody may read the log.
    pub(crate) fn anyone_may_read(&self) -> bool {
        self.readers.anyone()
    }

    /// Whether the holder of this credential may read the log.
    pub(crate) fn authorise_reader(
        &self,
        credential: &ReaderCredential,
        now: UnixTime,
    ) -> Result<AuthorisedReader, NotAuthorised> {
        self.readers.authorise(credential, now)
    }

    /// Follows the entries from `from` to `to`.
    fn follow(&self, log: &Log, from: u64, to: u64) -> Result<(), StoreError> {
        let mut next = from;
        while next < to {
            let entries = log.read(next, u32::try_from(to - next).unwrap_or(u32::MAX).min(READ_LOG_MAX))?;
            next += entries.len() as u64;
            for entry in entries.iter().filter(|entry| FOLLOWED.iter().any(|start| entry.starts_with(start))) {
                match Entry::parse(entry) {
                    Ok(Entry::Model(model)) => {
                        if self.models.release(&model.object)? {
                            tracing::info!(model = %model.model, version = %model.version, "released a model");
                        }
                    }
                    Ok(Entry::Genesis(genesis)) => self.readers.follow(&genesis.policy, Sha256Digest::of(entry))?,
                    Ok(Entry::Policy(policy)) => {
                        // A log that has entries has a first one.
                        let Some(genesis) = vault_of(log)? else { continue };
                        self.readers.follow(&policy_text(log, policy.proposal)?, genesis)?;
                    }
                    Ok(_) | Err(_) => {}
                }
            }
        }
        Ok(())
    }

    /// Reads the published log without holding up its writer. What is read may be replaced by something wider
    /// meanwhile.
    fn published<T>(&self, read: impl Fn(u64) -> Result<Option<T>, StoreError>) -> Result<Option<T>, StoreError> {
        let mut size = self.committed();
        loop {
            let found = read(size)?;
            let now = self.committed();
            if found.is_some() || now == size {
                return Ok(found);
            }
            size = now;
        }
    }

    fn log(&self) -> MutexGuard<'_, Log> {
        self.log.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn lock(path: &Path) -> Result<File, StoreError> {
    let file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .open(path)
        .map_err(|error| StoreError::io(path, error))?;
    match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(file),
        Err(rustix::io::Errno::WOULDBLOCK) => Err(StoreError::DataDirInUse),
        Err(error) => Err(StoreError::io(path, error.into())),
    }
}

/// The vault of a log: the digest of its genesis, which is entry 0.
fn vault_of(log: &Log) -> Result<Option<Sha256Digest>, StoreError> {
    Ok(log.read(0, 1)?.first().map(|genesis| Sha256Digest::of(genesis)))
}

/// The text of a proposed policy; nothing, which lets nobody read, where the entry is none.
fn policy_text(log: &Log, proposal: u64) -> Result<String, StoreError> {
    let entry = log.read(proposal, 1)?.pop().unwrap_or_default();
    Ok(match Entry::parse(&entry) {
        Ok(Entry::Propose(Propose { proposal: Proposal::Policy(policy), .. })) => policy.policy,
        Ok(Entry::Genesis(genesis)) => genesis.policy,
        Ok(_) | Err(_) => String::new(),
    })
}
