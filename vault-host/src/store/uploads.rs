//! Sealed units that came before their model was published.
//!
//! `uploads/<manifest>/<unit>` is a unit whose digest was checked; `<unit>.<length>.part` is what came of one so far.
//! All names are made from digests and lengths, never from text of the wire. Whoever can reach the host can upload, so
//! what uploads take is bounded, and what nobody goes on with is removed.

use std::collections::HashSet;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use attestation::Sha256Digest;
use ring::digest::{Context, SHA256};
use rustix::fs::FlockOperation;
use vault_proto::convert::UnitUpload;

use super::{StoreError, UnitWriter, files};

/// Models that can be in upload at a time.
pub(super) const MANIFESTS_MAX: usize = 256;
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
        Ok(Self { dir, done, keep_free, busy: Arc::default() })
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
        let mut removed = 0;
        for manifest in self.manifests()? {
            if !self.is_busy(&manifest) && newest(&self.model_dir(&manifest))? < before {
                self.forget(&manifest)?;
                removed += 1;
            }
        }
        Ok(removed)
    }

    fn open_part(&self, unit: &UnitUpload, offset: u64) -> Result<File, StoreError> {
        self.check_offset(unit, offset)?;
        self.check_room(unit.bytes - offset)?;
        let dir = self.model_dir(&unit.manifest);
        if !dir.is_dir() && self.manifests()?.len() >= MANIFESTS_MAX {
            return Err(StoreError::TooManyUploads);
        }
        files::create_dirs(&dir)?;
        let path = self.part(unit);
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

    fn check_room(&self, bytes: u64) -> Result<(), StoreError> {
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
mod tests {
    use super::*;

    fn uploads(keep_free: u64) -> (tempfile::TempDir, Uploads) {
        let dir = tempfile::tempdir().unwrap();
        let uploads = Uploads::open(dir.path().join("uploads"), keep_free).unwrap();
        (dir, uploads)
    }

    fn unit(manifest: u8, content: &[u8]) -> UnitUpload {
        UnitUpload {
            manifest: Sha256Digest::from_bytes([manifest; 32]),
            sealed: Sha256Digest::of(content),
            bytes: content.len() as u64,
        }
    }

    #[test]
    fn a_full_part_that_was_never_checked_is_not_complete() {
        let (_dir, uploads) = uploads(0);
        let unit = unit(1, b"sealed");
        // The host died between the last byte and the check.
        let mut upload = uploads.begin(unit, 0).unwrap();
        upload.write(b"sealed").unwrap();
        drop(upload);
        assert_eq!(uploads.stored(&unit).unwrap(), 5);
        assert!(!uploads.is_complete(&unit).unwrap());
        let mut upload = uploads.begin(unit, 5).unwrap();
        upload.write(b"d").unwrap();
        assert_eq!(Box::new(upload).finish().unwrap(), 6);
        assert!(uploads.is_complete(&unit).unwrap());
    }

    #[test]
    fn one_unit_has_one_writer_at_a_time() {
        let (_dir, uploads) = uploads(0);
        let unit = unit(1, b"sealed");
        let first = uploads.begin(unit, 0).unwrap();
        assert!(matches!(uploads.begin(unit, 0), Err(StoreError::UploadBusy)));
        drop(first);
        assert!(matches!(uploads.begin(unit, 3), Err(StoreError::UploadOffset { offset: 3, stored: 0 })));
        uploads.begin(unit, 0).unwrap();
    }

    /// Two hosts that have mounted one directory: what one writes, the other neither cuts nor moves away.
    #[test]
    fn a_unit_that_another_process_writes_is_busy_and_then_complete() {
        let dir = tempfile::tempdir().unwrap();
        let open = || Uploads::open_apart(dir.path().join("uploads"), dir.path().join("units"), 0).unwrap();
        let (one, two) = (open(), open());
        let unit = unit(1, b"sealed");
        let mut first = one.begin(unit, 0).unwrap();
        assert!(matches!(two.begin(unit, 0), Err(StoreError::UploadBusy)));
        first.write(b"sealed").unwrap();
        assert_eq!(Box::new(first).finish().unwrap(), 6);
        assert!(matches!(two.begin(unit, 0), Err(StoreError::UploadOffset { offset: 0, stored: 6 })));
        two.forget(&unit.manifest).unwrap();
        assert_eq!(fs::read(two.complete(&unit.manifest, &unit.sealed)).unwrap(), b"sealed");
    }

    /// Whoever removes a part that somebody writes, by hand or as abandoned, loses that upload and no other.
    #[test]
    fn a_part_that_was_removed_meanwhile_is_not_taken_for_the_one_in_its_place() {
        let (_dir, uploads) = uploads(0);
        let unit = unit(1, b"sealed");
        let mut first = uploads.begin(unit, 0).unwrap();
        first.write(b"sealed").unwrap();
        fs::remove_file(uploads.part(&unit)).unwrap();
        fs::write(uploads.part(&unit), b"other").unwrap();
        assert!(matches!(Box::new(first).finish(), Err(StoreError::UploadBusy)));
        assert!(!uploads.is_complete(&unit).unwrap());
    }

    #[test]
    fn the_same_digest_with_another_length_is_another_upload() {
        let (_dir, uploads) = uploads(0);
        let right = unit(1, b"sealed");
        let wrong = UnitUpload { bytes: 5, ..right };
        let mut upload = uploads.begin(wrong, 0).unwrap();
        upload.write(b"seal").unwrap();
        Box::new(upload).finish().unwrap();
        assert_eq!((uploads.stored(&wrong).unwrap(), uploads.stored(&right).unwrap()), (4, 0));
    }

    #[test]
    fn uploads_that_would_use_the_room_of_the_log_are_refused() {
        let (_dir, uploads) = uploads(u64::MAX / 2);
        let full = uploads.begin(unit(1, b"sealed"), 0).err().unwrap();
        assert_eq!(full.code(), "uploads-full");
        assert!(full.to_string().contains("which leave `keep_free_mib` free for the log"), "{full}");
    }

    #[test]
    fn models_in_upload_are_bounded() {
        let (_dir, uploads) = uploads(0);
        for n in 0..=255 {
            uploads.begin(unit(n, b"sealed"), 0).unwrap();
        }
        let one_more = UnitUpload { manifest: Sha256Digest::of(b"another"), ..unit(0, b"sealed") };
        assert!(matches!(uploads.begin(one_more, 0), Err(StoreError::TooManyUploads)));
        uploads.begin(unit(7, b"another unit of a model that is here"), 0).unwrap();
    }

    #[test]
    fn only_what_nobody_goes_on_with_is_removed() {
        let (_dir, uploads) = uploads(0);
        let busy = uploads.begin(unit(1, b"sealed"), 0).unwrap();
        drop(uploads.begin(unit(2, b"sealed"), 0).unwrap());
        let now = SystemTime::now();
        assert_eq!(uploads.remove_abandoned(now - Duration::from_secs(60)).unwrap(), 0);
        assert_eq!(uploads.remove_abandoned(now + Duration::from_secs(60)).unwrap(), 1);
        assert_eq!(uploads.manifests().unwrap(), [Sha256Digest::from_bytes([1; 32])]);
        drop(busy);
    }
}
