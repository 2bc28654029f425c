//! Files that are whole or absent, whatever moment the power goes.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use attestation::Sha256Digest;

use super::StoreError;

/// Where files are written before they get their names. On the file system of everything else in the data directory.
#[derive(Clone, Debug)]
pub(crate) struct Scratch(PathBuf);

impl Scratch {
    /// Takes an empty directory for it: what a killed process left there belongs to nobody.
    pub(crate) fn open(dir: PathBuf) -> Result<Self, StoreError> {
        match fs::remove_dir_all(&dir) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(StoreError::io(&dir, error)),
            _ => {}
        }
        create_dirs(&dir)?;
        Ok(Self(dir))
    }

    /// Writes a file under its final name, durably. Whoever reads sees the old bytes or the new ones, never a part.
    pub(crate) fn write(&self, target: &Path, bytes: &[u8]) -> Result<(), StoreError> {
        let at = |error| StoreError::io(target, error);
        let mut file = tempfile::NamedTempFile::new_in(&self.0).map_err(at)?;
        file.write_all(bytes).map_err(at)?;
        file.as_file().sync_all().map_err(at)?;
        file.persist(target).map_err(|error| at(error.error))?;
        sync_parent(target)
    }

    /// An empty directory of its own, to be renamed to where it belongs. What is left of it is removed at the next
    /// start.
    pub(crate) fn dir(&self) -> Result<PathBuf, StoreError> {
        let dir = tempfile::Builder::new().tempdir_in(&self.0).map_err(|error| StoreError::io(&self.0, error))?;
        Ok(dir.keep())
    }
}

/// Creates a directory and what is missing above it, durably. Private to this user: the log names who loads what.
pub(crate) fn create_dirs(dir: &Path) -> Result<(), StoreError> {
    use std::os::unix::fs::DirBuilderExt;
    if dir.is_dir() {
        return Ok(());
    }
    if let Some(parent) = dir.parent() {
        create_dirs(parent)?;
    }
    match fs::DirBuilder::new().mode(0o700).create(dir) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(StoreError::io(dir, error)),
        _ => sync_parent(dir),
    }
}

/// Makes names in the directory of `path` durable: created, renamed and removed ones.
pub(crate) fn sync_parent(path: &Path) -> Result<(), StoreError> {
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    sync_dir(parent)
}

/// Makes the names in a directory durable.
pub(crate) fn sync_dir(dir: &Path) -> Result<(), StoreError> {
    File::open(dir).and_then(|dir| dir.sync_all()).map_err(|error| StoreError::io(dir, error))
}

/// Reads a whole file of at most `max` bytes; `None` where there is none.
pub(crate) fn read(path: &Path, max: usize) -> Result<Option<Vec<u8>>, StoreError> {
    let at = |error| StoreError::io(path, error);
    let file = match File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        file => file.map_err(at)?,
    };
    let mut bytes = Vec::new();
    file.take(max as u64 + 1).read_to_end(&mut bytes).map_err(at)?;
    if bytes.len() > max {
        return Err(StoreError::Damaged { path: path.to_owned(), what: "longer than such a file can be" });
    }
    Ok(Some(bytes))
}

/// Removes a file if it is there.
pub(crate) fn remove(path: &Path) -> Result<(), StoreError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(StoreError::io(path, error)),
        _ => Ok(()),
    }
}

/// The names in a directory that `parse` understands; others are left alone. Empty where there is no directory.
pub(crate) fn names<T>(dir: &Path, parse: impl Fn(&str) -> Option<T>) -> Result<Vec<T>, StoreError> {
    let at = |error| StoreError::io(dir, error);
    let listing = match fs::read_dir(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        listing => listing.map_err(at)?,
    };
    let mut found = Vec::new();
    for item in listing {
        found.extend(item.map_err(at)?.file_name().to_str().and_then(&parse));
    }
    Ok(found)
}

/// Reads a file name that is a digest: 64 lower-case hex digits.
pub(crate) fn digest_name(text: &str) -> Option<Sha256Digest> {
    let mut bytes = [0; 32];
    hex::decode_to_slice(text, &mut bytes).ok()?;
    (hex::encode(bytes) == text).then_some(Sha256Digest::from_bytes(bytes))
}
