//! Everything that the host keeps: the log, blobs, uploads, sealed models; in a directory, a bucket or a database.
//!
//! Nothing here is secret and nothing is trusted by those who read it: entries are checked against checkpoints, blobs
//! and units against digests. The store's promises are that what it reported as written is still there after a crash,
//! that of two writers of one position in the log one is told that it lost, and that no text from the wire ever becomes
//! a path. All of it blocks: callers are on blocking threads.

use std::fmt;
use std::sync::Arc;
use std::time::SystemTime;

use attestation::Sha256Digest;
use bytes::Bytes;
use ledger::manifest::Manifest;
use ledger::tiles::Tile;
use tokio::runtime::Handle;
use vault_proto::convert::{ModelName, Publication, UnitUpload};

use crate::config::{Config, StoreConfig};

mod blobs;
mod buffers;
mod copy;
mod error;
mod files;
mod follow;
mod local;
mod log;
mod models;
mod objects;
mod readers;
mod segment;
mod tile_files;
mod uploads;

pub(crate) use buffers::BUFFER_BYTES;
pub use copy::{Copied, copy_store};
pub use error::StoreError;
pub(crate) use models::Model;
pub use objects::{BucketConfig, BucketError, PostgresConfig, PostgresError, UnitsConfig};
pub(crate) use objects::{RawPostgres, RawS3};
pub(crate) use readers::{InForce, NotAuthorised};
pub(crate) use uploads::ABANDONED_AFTER;

/// Gives entries from an index on, at most so many.
pub(crate) type ReadEntries<'a> = &'a dyn Fn(u64, u32) -> Result<Vec<Vec<u8>>, StoreError>;

/// What the host needs of a store.
pub(crate) trait Store: fmt::Debug + Send + Sync {
    /// A keeper attached to this host: what others wrote meanwhile counts from now on.
    ///
    /// # Errors
    /// What the store says.
    fn attached(&self) -> Result<(), StoreError>;

    /// Says to the other hosts of this store that the keeper is reached at `address`, or is no more.
    ///
    /// # Errors
    /// What the store says.
    fn announce(&self, _address: &str, _attached: bool) -> Result<(), StoreError> {
        Ok(())
    }

    /// Addresses of hosts that said so, and not long ago: a hint for people.
    ///
    /// # Errors
    /// What the store says.
    fn attached_hosts(&self) -> Result<Vec<String>, StoreError> {
        Ok(Vec::new())
    }

    /// Writes entries for the keeper, durably, in place of whatever stood at `first` or beyond.
    ///
    /// # Errors
    /// None of `entries` is there. What was to be replaced may be gone where the disk failed in between, which
    /// [`StoreError::LogStopped`] says where not even that is known; [`StoreError::LogConflict`] where another host wrote.
    fn append_log(&self, first: u64, entries: &[Vec<u8>]) -> Result<(), StoreError>;

    /// Reads entries for the keeper, those above the checkpoint too: at most 8 MiB, empty at the end of the log.
    ///
    /// # Errors
    /// What the store says.
    fn read_log(&self, first: u64, count: u32) -> Result<Vec<Vec<u8>>, StoreError>;

    /// Publishes a checkpoint with its tiles, durably. First follows its entries: released models, readers of the log.
    ///
    /// # Errors
    /// The checkpoint before stays published.
    fn put_checkpoint(&self, text: &str, size: u64) -> Result<(), StoreError>;

    /// Keeps a checkpoint that witnesses are about to be asked about, with its entries, durably.
    ///
    /// # Errors
    /// [`StoreError::CheckpointRoot`] and others where it is not of the entries that are stored.
    fn propose_checkpoint(&self, text: &str, size: u64) -> Result<(), StoreError>;

    /// How far the log is.
    ///
    /// # Errors
    /// What the store says.
    fn log_head(&self) -> Result<LogHead, StoreError>;

    /// Takes in a published log of `size` entries from another store, in place of whatever stands above the checkpoint
    /// here. What is under that has to be the beginning of it.
    ///
    /// # Errors
    /// [`StoreError::CheckpointSize`] where the log here is longer, [`StoreError::CheckpointRoot`] where it is another.
    fn import_log(&self, text: &str, size: u64, read: ReadEntries<'_>) -> Result<(), StoreError>;

    /// The newest checkpoint, a signed note.
    ///
    /// # Errors
    /// What the store says.
    fn checkpoint(&self) -> Result<Option<String>, StoreError>;

    /// Entries under the newest checkpoint.
    ///
    /// # Errors
    /// What the store says.
    fn committed(&self) -> Result<u64, StoreError>;

    /// A tile of the published log.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] where that log has no such tile.
    fn tile(&self, tile: &Tile) -> Result<Vec<u8>, StoreError>;

    /// Published entries from `first` on, at most to the end of a bundle; empty at the end of the published log.
    ///
    /// # Errors
    /// What the store says.
    fn entries(&self, first: u64, count: usize) -> Result<Vec<Vec<u8>>, StoreError>;

    /// Stores a blob.
    ///
    /// # Errors
    /// [`StoreError::DigestMismatch`] and others.
    fn put_blob(&self, digest: &Sha256Digest, bytes: &[u8]) -> Result<(), StoreError>;

    /// Reads a blob.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] and others.
    fn blob(&self, digest: &Sha256Digest) -> Result<Vec<u8>, StoreError>;

    /// Names of all blobs.
    ///
    /// # Errors
    /// What the store says.
    fn blobs(&self) -> Result<Vec<Sha256Digest>, StoreError>;

    /// How much of a unit is stored durably: all of it only once its digest was checked.
    ///
    /// # Errors
    /// What the store says.
    fn uploaded(&self, unit: &UnitUpload) -> Result<u64, StoreError>;

    /// Begins or goes on with a unit at `offset`, which has to be where the stored bytes end.
    ///
    /// # Errors
    /// [`StoreError::UploadOffset`], [`StoreError::UploadBusy`] and others.
    fn begin_upload(&self, unit: UnitUpload, offset: u64) -> Result<Box<dyn UnitWriter>, StoreError>;

    /// Removes what is left of the uploads for a model that was published.
    ///
    /// # Errors
    /// What the store says.
    fn forget_uploads(&self, manifest: &Sha256Digest) -> Result<(), StoreError>;

    /// Removes uploads that nobody touched since `before`; returns how many models that was.
    ///
    /// # Errors
    /// What the store says.
    fn remove_abandoned(&self, before: SystemTime) -> Result<usize, StoreError>;

    /// Puts a model together from its small files and its uploaded units. Returns what the log will call it, and
    /// whether it was not here before.
    ///
    /// # Errors
    /// [`StoreError::UnitsMissing`] and others.
    fn propose(&self, manifest: &Manifest, files: &Publication) -> Result<(Sha256Digest, bool), StoreError>;

    /// Takes back a proposal that the keeper refused. Its uploaded units stay where they were uploaded.
    ///
    /// # Errors
    /// What the store says.
    fn withdraw(&self, object: &Sha256Digest) -> Result<(), StoreError>;

    /// A released model.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] and others.
    fn released(&self, name: &ModelName) -> Result<Arc<Model>, StoreError>;

    /// All models by name, and whether each is released.
    ///
    /// # Errors
    /// What the store says.
    fn models(&self) -> Result<Vec<(Arc<Model>, bool)>, StoreError>;

    /// Bytes of a model's manifest and signature together.
    ///
    /// # Errors
    /// What the store says.
    fn public_bytes(&self, model: &Model) -> Result<u64, StoreError>;

    /// The manifest and the publisher's signature, exact bytes.
    ///
    /// # Errors
    /// What the store says.
    fn public_files(&self, model: &Model) -> Result<(Vec<u8>, Vec<u8>), StoreError>;

    /// The wrapped key of a model, exact bytes.
    ///
    /// # Errors
    /// What the store says.
    fn dek(&self, model: &Model) -> Result<Vec<u8>, StoreError>;

    /// A sealed unit, to be read piece by piece.
    ///
    /// # Errors
    /// What the store says.
    fn unit(&self, model: &Model, index: u32) -> Result<Box<dyn UnitReader>, StoreError>;

    /// The policy in force, which says who may read the log.
    ///
    /// # Errors
    /// What the store says: nobody may then.
    fn in_force(&self) -> Result<Option<Arc<InForce>>, StoreError>;
}

/// How far a log is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct LogHead {
    /// Entries stored.
    pub(crate) size: u64,
    /// The newest checkpoint.
    pub(crate) checkpoint: Option<String>,
    /// The newest proposed one, where it is of more entries.
    pub(crate) proposed: Option<String>,
}

/// One unit that is being written. Nobody else can write it meanwhile.
pub(crate) trait UnitWriter: fmt::Debug + Send {
    /// Writes the next bytes. After an error everything up to the last flushed byte is still good.
    ///
    /// # Errors
    /// [`StoreError::UploadTooLong`] and others.
    fn write(&mut self, data: &[u8]) -> Result<(), StoreError>;

    /// Makes durable what came. If that is the whole unit, reads it again and checks its digest; a unit with another
    /// digest is removed, since nobody can say which of its bytes is wrong. Returns what is stored now.
    ///
    /// # Errors
    /// [`StoreError::DigestMismatch`] and others.
    fn finish(self: Box<Self>) -> Result<u64, StoreError>;
}

/// A sealed unit.
pub(crate) trait UnitReader: fmt::Debug + Send + Sync {
    /// The bytes from `offset` on, exactly `length` of them.
    ///
    /// # Errors
    /// What the store says; a unit that ends early is a damaged one.
    fn read(&self, offset: u64, length: usize) -> Result<Bytes, StoreError>;
}

/// Opens the store of a configuration. Uploads leave `keep_free` bytes of a disk free. Blocks.
///
/// # Errors
/// [`StoreError::DataDirInUse`], [`StoreError::Damaged`], or what the system, the bucket or the database says.
pub(crate) fn open(config: &Config, runtime: Handle) -> Result<Arc<dyn Store>, StoreError> {
    if config.store.is_shared() {
        files::create_dirs(&config.data_dir)?;
    }
    match &config.store {
        StoreConfig::DataDir => Ok(Arc::new(local::LocalStore::open(&config.data_dir, config.keep_free)?)),
        StoreConfig::Bucket(bucket) => Ok(Arc::new(objects::ObjectStore::in_bucket(bucket, runtime)?)),
        StoreConfig::Postgres(postgres) => {
            Ok(Arc::new(objects::ObjectStore::in_database(postgres, config.keep_free, runtime)?))
        }
    }
}

/// Asks what others keep for a configuration whether it can be read and written by, and compares before it writes. Blocks.
///
/// # Errors
/// What is wrong.
pub(crate) fn probe(config: &Config, runtime: Handle) -> Result<(), StoreError> {
    match &config.store {
        StoreConfig::DataDir => Ok(()),
        StoreConfig::Bucket(bucket) => objects::probe_bucket(bucket, runtime),
        StoreConfig::Postgres(postgres) => objects::probe_database(postgres, runtime),
    }
}
