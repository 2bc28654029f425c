//! The store in a directory of this machine.

use std::fs::{File, OpenOptions};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use attestation::Sha256Digest;
use bytes::Bytes;
use ledger::manifest::Manifest;
use ledger::tiles::Tile;
use rustix::fs::FlockOperation;
use vault_proto::convert::{ModelName, Publication, UnitUpload};
use vault_proto::limits::READ_LOG_MAX;

use super::blobs::Blobs;
use super::buffers::Buffer;
use super::files::{self, Scratch};
use super::follow::{self, Follower};
use super::log::{self, Log};
use super::models::{Model, Models};
use super::readers::{InForce, Readers};
use super::segment::SEGMENT_ENTRIES;
use super::tile_files::{Dir, Tiles};
use super::uploads::Uploads;
use super::{LogHead, ReadEntries, Store, StoreError, UnitReader, UnitWriter};

/// An open data directory. One process has it at a time.
#[derive(Debug)]
pub(crate) struct LocalStore {
    log: Mutex<Log>,
    tiles: Tiles<Dir>,
    blobs: Blobs,
    uploads: Uploads,
    models: Models,
    readers: Readers,
    _lock: File,
}

impl LocalStore {
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
            follow::follow(0, log.committed(), |first, count| log.read(first, count), &store)?;
        }
        Ok(store)
    }

    /// Reads the published log without holding up its writer. What is read may be replaced by something wider
    /// meanwhile.
    fn published<T>(&self, read: impl Fn(u64) -> Result<Option<T>, StoreError>) -> Result<Option<T>, StoreError> {
        let mut size = self.log().committed();
        loop {
            let found = read(size)?;
            let now = self.log().committed();
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

impl Store for LocalStore {
    fn attached(&self) -> Result<(), StoreError> {
        Ok(())
    }

    fn append_log(&self, first: u64, entries: &[Vec<u8>]) -> Result<(), StoreError> {
        self.log().append(first, entries)
    }

    fn read_log(&self, first: u64, count: u32) -> Result<Vec<Vec<u8>>, StoreError> {
        self.log().read(first, count)
    }

    fn put_checkpoint(&self, text: &str, size: u64) -> Result<(), StoreError> {
        let mut log = self.log();
        let committed = log.committed();
        log.put_checkpoint(text, size, |log| {
            follow::follow(committed, size, |first, count| log.read(first, count), self)
        })
    }

    fn propose_checkpoint(&self, text: &str, size: u64) -> Result<(), StoreError> {
        self.log().propose(text, size)
    }

    fn log_head(&self) -> Result<LogHead, StoreError> {
        let log = self.log();
        let text = |checkpoint: &log::Checkpoint| checkpoint.text.clone();
        Ok(LogHead { size: log.size(), checkpoint: log.checkpoint().map(text), proposed: log.proposed().map(text) })
    }

    fn import_log(&self, text: &str, size: u64, read: ReadEntries<'_>) -> Result<(), StoreError> {
        let mut next = self.committed()?;
        while next < size {
            let wanted = u32::try_from(size - next).unwrap_or(u32::MAX).min(READ_LOG_MAX);
            let entries = read(next, wanted)?;
            if entries.is_empty() {
                return Err(StoreError::NotFound { what: "entry" });
            }
            self.append_log(next, &entries)?;
            next += entries.len() as u64;
        }
        self.put_checkpoint(text, size)
    }

    fn checkpoint(&self) -> Result<Option<String>, StoreError> {
        Ok(self.log().checkpoint().map(|checkpoint| checkpoint.text.clone()))
    }

    fn committed(&self) -> Result<u64, StoreError> {
        Ok(self.log().committed())
    }

    fn tile(&self, tile: &Tile) -> Result<Vec<u8>, StoreError> {
        self.published(|size| self.tiles.tile(size, tile))?.ok_or(StoreError::NotFound { what: "tile" })
    }

    fn entries(&self, first: u64, count: usize) -> Result<Vec<Vec<u8>>, StoreError> {
        let bundle = self.published(|size| self.tiles.bundle(size, first / SEGMENT_ENTRIES))?.unwrap_or_default();
        let offset = usize::try_from(first % SEGMENT_ENTRIES).unwrap_or(usize::MAX);
        Ok(bundle.into_iter().skip(offset).take(count).collect())
    }

    fn put_blob(&self, digest: &Sha256Digest, bytes: &[u8]) -> Result<(), StoreError> {
        self.blobs.put(digest, bytes)
    }

    fn blob(&self, digest: &Sha256Digest) -> Result<Vec<u8>, StoreError> {
        self.blobs.get(digest)
    }

    fn blobs(&self) -> Result<Vec<Sha256Digest>, StoreError> {
        self.blobs.list()
    }

    fn uploaded(&self, unit: &UnitUpload) -> Result<u64, StoreError> {
        self.uploads.stored(unit)
    }

    fn begin_upload(&self, unit: UnitUpload, offset: u64) -> Result<Box<dyn UnitWriter>, StoreError> {
        Ok(Box::new(self.uploads.begin(unit, offset)?))
    }

    fn forget_uploads(&self, manifest: &Sha256Digest) -> Result<(), StoreError> {
        self.uploads.forget(manifest)
    }

    fn remove_abandoned(&self, before: SystemTime) -> Result<usize, StoreError> {
        self.uploads.remove_abandoned(before)
    }

    fn propose(&self, manifest: &Manifest, files: &Publication) -> Result<(Sha256Digest, bool), StoreError> {
        self.models.propose(&self.uploads, manifest, files)
    }

    fn withdraw(&self, object: &Sha256Digest) -> Result<(), StoreError> {
        self.models.withdraw(object)
    }

    fn released(&self, name: &ModelName) -> Result<Arc<Model>, StoreError> {
        self.models.released(name)
    }

    fn models(&self) -> Result<Vec<(Arc<Model>, bool)>, StoreError> {
        Ok(self.models.list())
    }

    fn public_bytes(&self, model: &Model) -> Result<u64, StoreError> {
        model.public_bytes()
    }

    fn public_files(&self, model: &Model) -> Result<(Vec<u8>, Vec<u8>), StoreError> {
        model.public_files()
    }

    fn dek(&self, model: &Model) -> Result<Vec<u8>, StoreError> {
        model.dek()
    }

    fn unit(&self, model: &Model, index: u32) -> Result<Box<dyn UnitReader>, StoreError> {
        Ok(Box::new(model.unit(index)?))
    }

    fn in_force(&self) -> Result<Option<Arc<InForce>>, StoreError> {
        Ok(self.readers.in_force())
    }
}

impl Follower for LocalStore {
    fn release(&self, object: &Sha256Digest) -> Result<bool, StoreError> {
        self.models.release(object)
    }

    fn policy(&self, text: &str, genesis: Sha256Digest) -> Result<(), StoreError> {
        self.readers.follow(text, genesis)
    }
}

impl UnitReader for File {
    fn read(&self, offset: u64, length: usize) -> Result<Bytes, StoreError> {
        let failed = |error| StoreError::io("a sealed unit".as_ref(), error);
        let mut data = Buffer::new(length);
        let (mut rest, mut at) = (data.as_mut(), offset);
        while !rest.is_empty() {
            match rustix::io::pread(self, &mut *rest, at) {
                Ok(0) => return Err(failed(std::io::ErrorKind::UnexpectedEof.into())),
                Ok(read) => {
                    rest = &mut rest[read..];
                    at += read as u64;
                }
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(failed(error.into())),
            }
        }
        Ok(Bytes::from_owner(data))
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
