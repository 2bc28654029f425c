//! The store that any number of hosts share, in a bucket of an S3 service or in a Postgres database: objects by name, which
//! are written under conditions, and sealed units, which may lie elsewhere.
//!
//! Nothing that others may change is believed for longer than a call: the checkpoint, the policy, and what models there
//! are, are asked for each time. All writes that two hosts could make are conditional on what the writer saw.

use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::SystemTime;

use attestation::Sha256Digest;
use ledger::manifest::Manifest;
use ledger::tiles::Tile;
use ring::rand::{SecureRandom, SystemRandom};
use tokio::runtime::Handle;
use vault_proto::convert::{ModelName, Publication, UnitUpload};
use vault_proto::limits::BLOB_BYTES_MAX;

mod authorities;
mod bucket;
mod database;
mod hosts;
mod log;
mod models;
mod place;
mod unit_files;
mod units;

pub(crate) use bucket::RawS3;
pub use bucket::{BucketConfig, BucketError};
pub(crate) use database::RawPostgres;
pub use database::{PostgresConfig, PostgresError, UnitsConfig};

use bucket::{Bucket, BucketUnits};
use database::Database;
use log::{AmongObjects, Log};
use models::Models;
use place::{If, Objects, Written};
use unit_files::UnitFiles;
use units::Units;

use super::files;
use super::follow::{self, Follower};
use super::readers::{InForce, POLICY_BYTES_MAX, in_force};
use super::segment::SEGMENT_ENTRIES;
use super::tile_files::Tiles;
use super::uploads::each_by_itself;
use super::{LogHead, Model, ReadEntries, Store, StoreError, UnitReader, UnitWriter};

const POLICY: &str = "log/policy.toml";
/// Beside all that a vault has, and gone once the store has answered.
const PROBES: &str = "probe";
/// How often a policy is tried beside those of other hosts.
const POLICY_TRIES_MAX: usize = 3;

/// A store that is in use, by this host and by others.
#[derive(Debug)]
pub(super) struct ObjectStore {
    objects: Arc<dyn Objects>,
    log: Mutex<Log>,
    tiles: Tiles<AmongObjects>,
    /// The size of the newest checkpoint that was seen.
    published: Arc<AtomicU64>,
    units: Arc<dyn Units>,
    models: Models,
    genesis: OnceLock<Sha256Digest>,
}

/// Asks whether the bucket can be read and written, and keeps the conditions of writes.
pub(super) fn probe_bucket(config: &BucketConfig, runtime: Handle) -> Result<(), StoreError> {
    let bucket = Bucket::open(config, runtime).map_err(StoreError::Bucket)?;
    check_conditions(&bucket)
}

/// Asks whether the database can be read and written, or made where it is empty, and whether its units can. Leaves nothing.
pub(super) fn probe_database(config: &PostgresConfig, runtime: Handle) -> Result<(), StoreError> {
    if let Some(database) = Database::find(config, runtime.clone())? {
        check_conditions(&database)?;
    }
    // Whose units they are is found out at the start, which may have to say that they are ours.
    match &config.units {
        UnitsConfig::Bucket(bucket) => probe_bucket(bucket, runtime),
        UnitsConfig::Directory(dir) => tempfile::tempfile_in(dir).map(drop).map_err(|error| StoreError::io(dir, error)),
    }
}

/// A place that takes conditional writes and ignores the condition would let two hosts write over each other. Each asks
/// with an object of its own: others may be asking.
fn check_conditions(objects: &dyn Objects) -> Result<(), StoreError> {
    let probe = format!("{PROBES}/{}", name_by_chance()?);
    // Without a condition, so that the answer says so where there is no such bucket.
    let first = objects.put(&probe, b"this store keeps conditions\n".to_vec(), If::Always)?;
    let Written::Yes(first) = first else { return Err(StoreError::NoConditions) };
    objects.write(&probe, b"this store keeps conditions still\n".to_vec())?;
    let again = objects.put(&probe, b"this store ignores If-None-Match\n".to_vec(), If::Unchanged(None));
    let stale = objects.put(&probe, b"this store ignores If-Match\n".to_vec(), If::Unchanged(Some(&first)));
    objects.remove(&probe)?;
    match (again?, stale?) {
        (Written::Changed, Written::Changed) => Ok(()),
        (Written::Yes(_), _) | (_, Written::Yes(_)) => Err(StoreError::NoConditions),
    }
}

/// A name that no other host has.
fn name_by_chance() -> Result<String, StoreError> {
    let mut random = [0; 8];
    let no_random = |_| StoreError::io(Path::new("randomness"), io::Error::other("the system gives none"));
    SystemRandom::new().fill(&mut random).map_err(no_random)?;
    Ok(hex::encode(random))
}

impl ObjectStore {
    pub(super) fn in_bucket(config: &BucketConfig, runtime: Handle) -> Result<Self, StoreError> {
        let bucket = Arc::new(Bucket::open(config, runtime).map_err(StoreError::Bucket)?);
        check_conditions(&*bucket)?;
        Self::of(bucket.clone(), Arc::new(BucketUnits::new(bucket)))
    }

    /// Uploads leave `keep_free` bytes free, where units lie on a disk.
    pub(super) fn in_database(config: &PostgresConfig, keep_free: u64, runtime: Handle) -> Result<Self, StoreError> {
        let database = Database::open(config, runtime.clone())?;
        check_conditions(&database)?;
        let units: Arc<dyn Units> = match &config.units {
            UnitsConfig::Directory(dir) => Arc::new(UnitFiles::open(dir, keep_free)?),
            UnitsConfig::Bucket(config) => {
                let bucket = Bucket::open(config, runtime).map_err(StoreError::Bucket)?;
                check_conditions(&bucket)?;
                Arc::new(BucketUnits::new(Arc::new(bucket)))
            }
        };
        let id = database.id().to_owned();
        let store = Self::of(Arc::new(database), units)?;
        units::check_owner(&*store.units, &id, store.models.list()?.is_empty())?;
        Ok(store)
    }

    fn of(objects: Arc<dyn Objects>, units: Arc<dyn Units>) -> Result<Self, StoreError> {
        let published = Arc::new(AtomicU64::new(0));
        Ok(Self {
            log: Mutex::new(Log::open(objects.clone(), published.clone())?),
            tiles: Tiles(AmongObjects(objects.clone())),
            published,
            units,
            models: Models::new(objects.clone(), name_by_chance()?),
            genesis: OnceLock::new(),
            objects,
        })
    }

    fn log(&self) -> MutexGuard<'_, Log> {
        self.log.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads the published log as far as this host knows it, and asks for the newest checkpoint where that is not enough.
    fn published<T>(&self, read: impl Fn(u64) -> Result<Option<T>, StoreError>) -> Result<Option<T>, StoreError> {
        let mut size = self.published.load(Ordering::SeqCst);
        loop {
            let found = read(size)?;
            if found.is_some() {
                return Ok(found);
            }
            let now = self.committed()?.max(size);
            if now == size {
                return Ok(None);
            }
            size = now;
        }
    }

    /// The digest of entry 0, which is read once: it comes with a bundle, and never changes.
    fn genesis(&self) -> Result<Option<Sha256Digest>, StoreError> {
        if self.genesis.get().is_none()
            && let Some(genesis) = self.entries(0, 1)?.first()
        {
            // Whoever was faster read the same.
            let _ = self.genesis.set(Sha256Digest::of(genesis));
        }
        Ok(self.genesis.get().copied())
    }
}

fn blob_name(digest: &Sha256Digest) -> String {
    format!("blobs/{}", hex::encode(digest.as_bytes()))
}

impl Store for ObjectStore {
    fn attached(&self) -> Result<(), StoreError> {
        self.log().refresh()
    }

    fn announce(&self, address: &str, attached: bool) -> Result<(), StoreError> {
        hosts::announce(&*self.objects, address, attached)
    }

    fn attached_hosts(&self) -> Result<Vec<String>, StoreError> {
        hosts::attached(&*self.objects, SystemTime::now())
    }

    fn append_log(&self, first: u64, entries: &[Vec<u8>]) -> Result<(), StoreError> {
        self.log().append(first, entries)
    }

    fn read_log(&self, first: u64, count: u32) -> Result<Vec<Vec<u8>>, StoreError> {
        let mut log = self.log();
        // What a keeper reads it knows, and may replace from then on.
        log.refresh()?;
        log.read(first, count)
    }

    fn put_checkpoint(&self, text: &str, size: u64) -> Result<(), StoreError> {
        self.log().put_checkpoint(text, size, |log, committed| {
            follow::follow(committed, size, |first, count| log.read(first, count), self)
        })
    }

    fn propose_checkpoint(&self, text: &str, size: u64) -> Result<(), StoreError> {
        self.log().propose(text, size)
    }

    fn log_head(&self) -> Result<LogHead, StoreError> {
        let mut log = self.log();
        log.refresh()?;
        Ok(log.head())
    }

    fn import_log(&self, text: &str, size: u64, read: ReadEntries<'_>) -> Result<(), StoreError> {
        self.log().import(text, size, read, |committed| follow::follow(committed, size, read, self))
    }

    fn checkpoint(&self) -> Result<Option<String>, StoreError> {
        let checkpoint = log::read_checkpoint(&*self.objects)?.map(|(checkpoint, _)| checkpoint);
        if let Some(checkpoint) = &checkpoint {
            self.published.fetch_max(checkpoint.size, Ordering::SeqCst);
        }
        Ok(checkpoint.map(|checkpoint| checkpoint.text))
    }

    fn committed(&self) -> Result<u64, StoreError> {
        self.checkpoint()?;
        Ok(self.published.load(Ordering::SeqCst))
    }

    fn tile(&self, tile: &Tile) -> Result<Vec<u8>, StoreError> {
        self.published(|size| self.tiles.tile(size, tile))?.ok_or(StoreError::NotFound { what: "tile" })
    }

    fn entries(&self, first: u64, count: usize) -> Result<Vec<Vec<u8>>, StoreError> {
        let offset = usize::try_from(first % SEGMENT_ENTRIES).unwrap_or(usize::MAX);
        let some = |size| {
            let bundle = self.tiles.bundle(size, first / SEGMENT_ENTRIES)?.unwrap_or_default();
            let entries: Vec<_> = bundle.into_iter().skip(offset).take(count).collect();
            Ok(Some(entries).filter(|entries| !entries.is_empty()))
        };
        Ok(self.published(some)?.unwrap_or_default())
    }

    fn put_blob(&self, digest: &Sha256Digest, bytes: &[u8]) -> Result<(), StoreError> {
        if bytes.len() > BLOB_BYTES_MAX {
            return Err(StoreError::BlobSize { bytes: bytes.len() });
        }
        if Sha256Digest::of(bytes) != *digest {
            return Err(StoreError::DigestMismatch);
        }
        self.objects.write(&blob_name(digest), bytes.to_vec())
    }

    fn blob(&self, digest: &Sha256Digest) -> Result<Vec<u8>, StoreError> {
        let name = blob_name(digest);
        let (bytes, _) = self.objects.get(&name, BLOB_BYTES_MAX)?.ok_or(StoreError::NotFound { what: "blob" })?;
        if Sha256Digest::of(&bytes) != *digest {
            return Err(self.objects.damaged(&name, "its digest is not its name"));
        }
        Ok(bytes)
    }

    fn blobs(&self) -> Result<Vec<Sha256Digest>, StoreError> {
        let listed = self.objects.list("blobs")?;
        Ok(listed.iter().filter_map(|blob| files::digest_name(blob.name.strip_prefix("blobs/")?)).collect())
    }

    fn uploaded(&self, unit: &UnitUpload) -> Result<u64, StoreError> {
        self.units.stored(unit)
    }

    fn begin_upload(&self, unit: UnitUpload, offset: u64) -> Result<Box<dyn UnitWriter>, StoreError> {
        self.units.begin(unit, offset)
    }

    fn forget_uploads(&self, manifest: &Sha256Digest) -> Result<(), StoreError> {
        self.units.forget(manifest, false)
    }

    fn remove_abandoned(&self, before: SystemTime) -> Result<usize, StoreError> {
        let old: Vec<_> = self.units.newest()?.into_iter().filter(|(_, newest)| *newest < before).collect();
        if old.is_empty() {
            return Ok(0);
        }
        // After the units: whoever proposed a model since then is seen here.
        let models = self.models.list()?;
        let used = |manifest: &Sha256Digest| models.iter().any(|(model, _)| model.manifest == *manifest);
        let unused = old.iter().filter(|(manifest, _)| !used(manifest) && !self.units.is_busy(manifest));
        each_by_itself(unused, |(manifest, _)| self.units.forget(manifest, true).map(|()| true))
    }

    fn propose(&self, manifest: &Manifest, files: &Publication) -> Result<(Sha256Digest, bool), StoreError> {
        self.models.propose(&*self.units, manifest, files)
    }

    fn withdraw(&self, object: &Sha256Digest) -> Result<(), StoreError> {
        self.models.withdraw(object)
    }

    fn released(&self, name: &ModelName) -> Result<Arc<Model>, StoreError> {
        self.models.released(name)
    }

    fn models(&self) -> Result<Vec<(Arc<Model>, bool)>, StoreError> {
        self.models.list()
    }

    fn public_bytes(&self, model: &Model) -> Result<u64, StoreError> {
        self.models.public_bytes(model)
    }

    fn public_files(&self, model: &Model) -> Result<(Vec<u8>, Vec<u8>), StoreError> {
        self.models.public_files(model)
    }

    fn dek(&self, model: &Model) -> Result<Vec<u8>, StoreError> {
        self.models.dek(model)
    }

    fn unit(&self, model: &Model, index: u32) -> Result<Box<dyn UnitReader>, StoreError> {
        self.models.unit(&*self.units, model, index)
    }

    /// Asked for each time: another host may have followed a later one.
    fn in_force(&self) -> Result<Option<Arc<InForce>>, StoreError> {
        let Some((text, _)) = self.objects.get(POLICY, POLICY_BYTES_MAX)? else { return Ok(None) };
        Ok(self.genesis()?.zip(String::from_utf8(text).ok()).and_then(|(genesis, text)| in_force(&text, genesis)))
    }
}

impl Follower for ObjectStore {
    fn release(&self, object: &Sha256Digest) -> Result<bool, StoreError> {
        self.models.release(object)
    }

    /// A host that is behind must not put an older policy in the place of a later one.
    fn policy(&self, text: &str, genesis: Sha256Digest) -> Result<(), StoreError> {
        let serial = |text: &str| in_force(text, genesis).map(|in_force| in_force.serial());
        for _ in 0..POLICY_TRIES_MAX {
            let before = self.objects.get(POLICY, POLICY_BYTES_MAX)?;
            let there = before.as_ref().and_then(|(text, _)| serial(std::str::from_utf8(text).ok()?));
            if there.is_some() && there >= serial(text) {
                return Ok(());
            }
            let tag = before.as_ref().map(|(_, tag)| tag);
            match self.objects.put(POLICY, text.as_bytes().to_vec(), If::Unchanged(tag))? {
                Written::Yes(_) => return Ok(()),
                Written::Changed => {}
            }
        }
        // Each host writes a policy once, and a later one ends it for all.
        Err(self.objects.damaged(POLICY, "it is another whenever it is read"))
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::place::{Listed, Tag};
    use super::*;
    use std::collections::HashMap;
    use std::path::PathBuf;

    /// As some services of old: a condition is a header that they do not know. It keeps the conditions that it is told to.
    #[derive(Debug, Default)]
    pub(super) struct Careless {
        pub(super) keeps_create: bool,
        pub(super) keeps_match: bool,
        pub(super) objects: Mutex<HashMap<String, Vec<u8>>>,
    }

    impl Objects for Careless {
        fn get(&self, name: &str, _: usize) -> Result<Option<(Vec<u8>, Tag)>, StoreError> {
            let objects = self.objects.lock().unwrap();
            Ok(objects.get(name).map(|bytes| (bytes.clone(), hex::encode(bytes))))
        }

        fn length(&self, name: &str) -> Result<Option<u64>, StoreError> {
            Ok(self.get(name, 0)?.map(|(bytes, _)| bytes.len() as u64))
        }

        fn put(&self, name: &str, bytes: Vec<u8>, condition: If<'_>) -> Result<Written, StoreError> {
            let there = self.get(name, 0)?.map(|(_, tag)| tag);
            let holds = match condition {
                If::Always => true,
                If::Unchanged(None) => !self.keeps_create || there.is_none(),
                If::Unchanged(Some(tag)) => !self.keeps_match || there.as_ref() == Some(tag),
            };
            if !holds {
                return Ok(Written::Changed);
            }
            let tag = hex::encode(&bytes);
            self.objects.lock().unwrap().insert(name.to_owned(), bytes);
            Ok(Written::Yes(tag))
        }

        fn remove(&self, name: &str) -> Result<(), StoreError> {
            self.objects.lock().unwrap().remove(name);
            Ok(())
        }

        fn list(&self, _: &str) -> Result<Vec<Listed>, StoreError> {
            Ok(Vec::new())
        }

        fn path(&self, name: &str) -> PathBuf {
            name.into()
        }
    }

    #[test]
    fn a_store_that_ignores_a_condition_is_refused_and_nothing_is_left_there() {
        for (keeps_create, keeps_match) in [(false, false), (true, false), (false, true), (true, true)] {
            let store = Careless { keeps_create, keeps_match, ..Careless::default() };
            let checked = check_conditions(&store).map_err(|error| error.code());
            let expected = if keeps_create && keeps_match { Ok(()) } else { Err("store-no-conditions") };
            assert_eq!(checked, expected, "{keeps_create} {keeps_match}");
            assert!(store.objects.lock().unwrap().is_empty());
        }
    }
}
