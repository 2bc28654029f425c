//! Sealed units that came before their model was published.
//!
//! `uploads/<manifest>/<unit>` is a unit whose digest was checked; `<unit>.<length>.part` is what came of one so far.
//! All names are made from digests and lengths, never from text of the wire. Whoever can reach the host can upload, so
//! what uploads take is bounded, and what nobody goes on with is removed.

use std::collections::{HashMap, HashSet};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use attestation::{Sha256Digest, UNITS_MAX};
use ring::digest::{Context, SHA256};
use rustix::fs::FlockOperation;
use vault_proto::convert::UnitUpload;

use super::{StoreError, UnitWriter, files};

/// Models that can be in upload at a time.
pub(super) const MANIFESTS_MAX: usize = 256;
/// Where there are too many models, one goes of which less came than this, and nothing for [`LET_BE`].
const LITTLE_BYTES: u64 = 1 << 20;
pub(super) const LET_BE: Duration = Duration::from_secs(600);
/// An upload that nobody touched for so long is removed.
pub(crate) const ABANDONED_AFTER: Duration = Duration::from_secs(7 * 24 * 3600);

const HASH_BUFFER_BYTES: usize = 1 << 20;

/// The upload directory.
#[derive(Clone, Debug)]
pub(crate) struct Uploads {
    dir: PathBuf,
    /// Where units go once their digest was checked: the same, or another directory of the same file system.
    done: PathBuf,
    /// Bytes that uploads leave free on the disk, so that they never keep the log from being written.
    keep_free: u64,
    busy: Arc<Mutex<HashSet<UnitUpload>>>,
    counts: Counts,
}

/// Units by model, as far as this process has counted them: to count them anew for each would take as long as there are many.
#[derive(Clone, Debug, Default)]
pub(super) struct Counts(Arc<Mutex<HashMap<Sha256Digest, usize>>>);

impl Counts {
    /// Counts one more, unless there are too many. `count` says how many there are.
    pub(super) fn add(
        &self,
        manifest: &Sha256Digest,
        count: impl Fn() -> Result<usize, StoreError>,
    ) -> Result<(), StoreError> {
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let known = match counts.get(manifest) {
            // Some that were counted may have gone since.
            Some(known) if *known < UNITS_MAX => *known,
            Some(_) | None => count()?,
        };
        if known >= UNITS_MAX {
            return Err(StoreError::TooManyUnits);
        }
        counts.insert(*manifest, known + 1);
        Ok(())
    }

    pub(super) fn forget(&self, manifest: &Sha256Digest) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(manifest);
    }
}

/// One unit that is being written. Nobody else can write it meanwhile.
#[derive(Debug)]
pub(crate) struct Upload {
    uploads: Uploads,
    unit: UnitUpload,
    file: File,
    offset: u64,
}

impl Uploads {
    /// Opens or creates the directory.
    pub(crate) fn open(dir: PathBuf, keep_free: u64) -> Result<Self, StoreError> {
        Self::open_apart(dir.clone(), dir, keep_free)
    }

    /// The same, with another directory for the units that are complete, where they stay.
    pub(crate) fn open_apart(dir: PathBuf, done: PathBuf, keep_free: u64) -> Result<Self, StoreError> {
        files::create_dirs(&dir)?;
        files::create_dirs(&done)?;
        Ok(Self { dir, done, keep_free, busy: Arc::default(), counts: Counts::default() })
    }

    /// How much of a unit is stored durably: all of it only once its digest was checked.
    pub(crate) fn stored(&self, unit: &UnitUpload) -> Result<u64, StoreError> {
        if self.is_complete(unit)? {
            return Ok(unit.bytes);
        }
        match File::open(self.part(unit)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(0),
            file => file
                .and_then(|file| {
                    file.sync_all()?;
                    // A part of full length whose digest was never checked has to be asked for again.
                    Ok(file.metadata()?.len().min(unit.bytes.saturating_sub(1)))
                })
                .map_err(|error| StoreError::io(&self.part(unit), error)),
        }
    }

    /// Whether a unit is here and its digest was checked.
    pub(crate) fn is_complete(&self, unit: &UnitUpload) -> Result<bool, StoreError> {
        let path = self.complete(&unit.manifest, &unit.sealed);
        match fs::metadata(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            metadata => Ok(metadata.map_err(|error| StoreError::io(&path, error))?.len() == unit.bytes),
        }
    }

    /// Begins or goes on with a unit at `offset`, which has to be where the stored bytes end.
    pub(crate) fn begin(&self, unit: UnitUpload, offset: u64) -> Result<Upload, StoreError> {
        if !self.lock().insert(unit) {
            return Err(StoreError::UploadBusy);
        }
        let begun = self.open_part(&unit, offset);
        if begun.is_err() {
            self.lock().remove(&unit);
        }
        Ok(Upload { uploads: self.clone(), unit, file: begun?, offset })
    }

    /// Where a complete unit lies.
    pub(crate) fn complete(&self, manifest: &Sha256Digest, sealed: &Sha256Digest) -> PathBuf {
        self.done.join(hex::encode(manifest.as_bytes())).join(hex::encode(sealed.as_bytes()))
    }

    /// Removes all that came for a model: it was published, so its units lie elsewhere now.
    pub(crate) fn forget(&self, manifest: &Sha256Digest) -> Result<(), StoreError> {
        self.counts.forget(manifest);
        remove_all(&self.model_dir(manifest))
    }

    /// Removes the units of a model that are complete.
    pub(crate) fn forget_complete(&self, manifest: &Sha256Digest) -> Result<(), StoreError> {
        remove_all(&self.done.join(hex::encode(manifest.as_bytes())))
    }

    /// Whether a unit of this model is being written by this process.
    pub(crate) fn is_busy(&self, manifest: &Sha256Digest) -> bool {
        self.lock().iter().any(|unit| unit.manifest == *manifest)
    }

    /// Removes what nobody touched since `before`; returns how many models that was.
    pub(crate) fn remove_abandoned(&self, before: SystemTime) -> Result<usize, StoreError> {
        each_by_itself(self.manifests()?, |manifest| {
            let abandoned = !self.is_busy(&manifest) && newest(&self.model_dir(&manifest))? < before;
            if abandoned {
                self.forget(&manifest)?;
            }
            Ok(abandoned)
        })
    }

    /// Sees to it that there is room for one more model: whoever begins many and goes on with none is not to keep others
    /// from it for a week.
    fn make_place(&self) -> Result<(), StoreError> {
        let manifests = self.manifests()?;
        if manifests.len() < MANIFESTS_MAX {
            return Ok(());
        }
        let let_be = SystemTime::now() - LET_BE;
        let mut oldest: Option<(SystemTime, Sha256Digest)> = None;
        for manifest in manifests.into_iter().filter(|manifest| !self.is_busy(manifest)) {
            let dir = self.model_dir(&manifest);
            let (touched, bytes) = (newest(&dir)?, bytes_in(&dir)?);
            let given_up = bytes == 0 || bytes < LITTLE_BYTES && touched < let_be;
            if given_up && oldest.is_none_or(|(first, _)| touched < first) {
                oldest = Some((touched, manifest));
            }
        }
        let (_, manifest) = oldest.ok_or(StoreError::TooManyUploads)?;
        self.forget(&manifest)
    }

    fn count(&self, manifest: &Sha256Digest) -> Result<usize, StoreError> {
        let mut dirs = vec![self.model_dir(manifest), self.done.join(hex::encode(manifest.as_bytes()))];
        dirs.dedup();
        dirs.iter().try_fold(0, |sum, dir| Ok(sum + files::names(dir, |_| Some(()))?.len()))
    }

    fn open_part(&self, unit: &UnitUpload, offset: u64) -> Result<File, StoreError> {
        self.check_offset(unit, offset)?;
        self.check_room(unit.bytes - offset)?;
        let dir = self.model_dir(&unit.manifest);
        if !dir.is_dir() {
            self.make_place()?;
        }
        files::create_dirs(&dir)?;
        let path = self.part(unit);
        if !path.exists() {
            self.counts.add(&unit.manifest, || self.count(&unit.manifest))?;
        }
        let at = |error| StoreError::io(&path, error);
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false).mode(0o600);
        let mut file = options.open(&path).map_err(at)?;
        // A process of another host may have this directory too. Whoever has the lock alone renames or removes the file.
        match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Err(rustix::io::Errno::WOULDBLOCK) => return Err(StoreError::UploadBusy),
            locked => locked.map_err(|error| at(error.into()))?,
        }
        if !is_at(&file, &path).map_err(at)? {
            return Err(StoreError::UploadBusy);
        }
        self.check_offset(unit, offset)?;
        file.set_len(offset).map_err(at)?;
        file.seek(SeekFrom::Start(offset)).map_err(at)?;
        files::sync_dir(&dir)?;
        Ok(file)
    }

    fn check_offset(&self, unit: &UnitUpload, offset: u64) -> Result<(), StoreError> {
        let stored = self.stored(unit)?;
        match offset == stored && stored < unit.bytes {
            true => Ok(()),
            false => Err(StoreError::UploadOffset { offset, stored }),
        }
    }

    /// Whether so many bytes leave free what is to stay free.
    pub(super) fn check_room(&self, bytes: u64) -> Result<(), StoreError> {
        let disk = rustix::fs::statvfs(&self.dir).map_err(|error| StoreError::io(&self.dir, error.into()))?;
        let free = disk.f_bavail.saturating_mul(disk.f_frsize);
        if free < bytes {
            return Err(StoreError::DiskFull { path: self.dir.clone() });
        }
        if free - bytes < self.keep_free {
            return Err(StoreError::UploadsFull { dir: self.dir.clone() });
        }
        Ok(())
    }

    fn manifests(&self) -> Result<Vec<Sha256Digest>, StoreError> {
        files::names(&self.dir, files::digest_name)
    }

    fn model_dir(&self, manifest: &Sha256Digest) -> PathBuf {
        self.dir.join(hex::encode(manifest.as_bytes()))
    }

    fn part(&self, unit: &UnitUpload) -> PathBuf {
        self.model_dir(&unit.manifest).join(format!("{}.{}.part", hex::encode(unit.sealed.as_bytes()), unit.bytes))
    }

    fn lock(&self) -> MutexGuard<'_, HashSet<UnitUpload>> {
        self.busy.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl UnitWriter for Upload {
    fn write(&mut self, data: &[u8]) -> Result<(), StoreError> {
        if data.len() as u64 > self.unit.bytes - self.offset {
            return Err(StoreError::UploadTooLong);
        }
        self.uploads.check_room(data.len() as u64)?;
        self.file.write_all(data).map_err(|error| StoreError::io(&self.uploads.part(&self.unit), error))?;
        self.offset += data.len() as u64;
        Ok(())
    }

    fn finish(self: Box<Self>) -> Result<u64, StoreError> {
        let path = self.uploads.part(&self.unit);
        let at = |error| StoreError::io(&path, error);
        self.file.sync_all().map_err(at)?;
        if self.offset < self.unit.bytes {
            return Ok(self.offset);
        }
        if hash_file(&self.file).map_err(at)? != self.unit.sealed {
            files::remove(&path)?;
            return Err(StoreError::DigestMismatch);
        }
        if !is_at(&self.file, &path).map_err(at)? {
            return Err(StoreError::UploadBusy);
        }
        let complete = self.uploads.complete(&self.unit.manifest, &self.unit.sealed);
        complete.parent().map_or(Ok(()), files::create_dirs)?;
        fs::rename(&path, &complete).map_err(at)?;
        files::sync_parent(&complete)?;
        Ok(self.offset)
    }
}

impl Drop for Upload {
    fn drop(&mut self) {
        self.uploads.lock().remove(&self.unit);
    }
}

/// When anything in the directory of a model was last written.
pub(super) fn newest(dir: &Path) -> Result<SystemTime, StoreError> {
    let modified = |path: &Path| {
        fs::metadata(path).and_then(|metadata| metadata.modified()).map_err(|error| StoreError::io(path, error))
    };
    let mut newest = modified(dir)?;
    for name in files::names(dir, |text| Some(text.to_owned()))? {
        newest = newest.max(modified(&dir.join(name))?);
    }
    Ok(newest)
}

fn bytes_in(dir: &Path) -> Result<u64, StoreError> {
    let names = files::names(dir, |text| Some(dir.join(text)))?;
    names
        .iter()
        .try_fold(0, |sum, path| Ok(sum + fs::metadata(path).map_err(|error| StoreError::io(path, error))?.len()))
}

/// Tries each, whatever became of the others; says of how many it was true, or what went wrong first.
pub(super) fn each_by_itself<T>(
    all: impl IntoIterator<Item = T>,
    mut act: impl FnMut(T) -> Result<bool, StoreError>,
) -> Result<usize, StoreError> {
    let (mut count, mut failed) = (0, None);
    for one in all {
        match act(one) {
            Ok(done) => count += usize::from(done),
            Err(error) => {
                failed.get_or_insert(error);
            }
        }
    }
    failed.map_or(Ok(count), Err)
}

fn remove_all(dir: &Path) -> Result<(), StoreError> {
    match fs::remove_dir_all(dir) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(StoreError::io(dir, error)),
        _ => Ok(()),
    }
}

/// Whether this is the file that lies there now.
fn is_at(file: &File, path: &Path) -> io::Result<bool> {
    let ours = file.metadata()?;
    match fs::metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        there => there.map(|there| (there.dev(), there.ino()) == (ours.dev(), ours.ino())),
    }
}

fn hash_file(mut file: &File) -> io::Result<Sha256Digest> {
    file.seek(SeekFrom::Start(0))?;
    let mut context = Context::new(&SHA256);
    let mut buffer = vec![0; HASH_BUFFER_BYTES];
    loop {
        let count = match file.read(&mut buffer) {
            Ok(0) => break,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            count => count?,
        };
        context.update(buffer.get(..count).unwrap_or_default());
    }
    let mut digest = [0; 32];
    digest.copy_from_slice(context.finish().as_ref());
    Ok(Sha256Digest::from_bytes(digest))
}

#[cfg(test)]
mod tests;
