//! A directory of collateral, by product, chip and TCB. Its layout is in FORMAT.md. It can be shipped read-only.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use attestation::CollateralKey;

/// Of Linux on x86-64 and aarch64: opening a pipe that nobody writes to does not wait.
const O_NONBLOCK: i32 = 0o4000;

/// The most files that [`CollateralStore::list`] gives.
const LISTED_MAX: usize = 100_000;

/// A store. Nothing in it is trusted.
#[derive(Clone, Debug)]
pub struct CollateralStore {
    dir: PathBuf,
}

/// A file of a store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stored {
    /// What it is, by its name.
    pub key: CollateralKey,
    /// Where it is.
    pub path: PathBuf,
}

/// A file that can't be read or written.
#[derive(Debug)]
pub enum StoreError {
    /// Larger than such an object can be.
    TooLarge,
    /// What the system says.
    Io(io::Error),
}

impl CollateralStore {
    /// Below this directory, which need not be there.
    #[must_use]
    pub const fn new(dir: PathBuf) -> Self {
        Self { dir }
    }

    /// Where an object is kept.
    #[must_use]
    pub fn path(&self, key: &CollateralKey) -> PathBuf {
        self.dir.join(key.store_path())
    }

    /// What is kept of an object, unchecked.
    ///
    /// # Errors
    /// [`StoreError`]. A file that is not there is none.
    pub fn get(&self, key: &CollateralKey) -> Result<Option<Vec<u8>>, StoreError> {
        // A pipe would be waited for, and a device never ends.
        let file = match File::options().read(true).custom_flags(O_NONBLOCK).open(self.path(key)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            opened => opened?,
        };
        if !file.metadata()?.is_file() {
            return Err(io::Error::other("it is not a file").into());
        }
        let max = key.bytes_max();
        let mut bytes = Vec::new();
        file.take(max as u64 + 1).read_to_end(&mut bytes)?;
        if bytes.len() > max { Err(StoreError::TooLarge) } else { Ok(Some(bytes)) }
    }

    /// Keeps an object: whole, or as it was before.
    ///
    /// # Errors
    /// [`StoreError::Io`].
    pub fn put(&self, key: &CollateralKey, bytes: &[u8]) -> Result<(), StoreError> {
        let path = self.path(key);
        let directory = path.parent().unwrap_or(&self.dir);
        fs::create_dir_all(directory)?;
        // Not secret: any user of the machine may complete evidence with it.
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o644);
        let mut file = tempfile::Builder::new().prefix(".new-").permissions(mode).tempfile_in(directory)?;
        file.write_all(bytes)?;
        file.as_file().sync_all()?;
        file.persist(&path).map_err(|error| error.error)?;
        Ok(())
    }

    /// What there is, in order of path. Files with other names are left out.
    ///
    /// # Errors
    /// [`StoreError::Io`]: the directory is not there, or can't be read.
    pub fn list(&self) -> Result<Vec<Stored>, StoreError> {
        let mut found = Vec::new();
        fs::read_dir(&self.dir)?;
        self.list_below("", 0, &mut found)?;
        found.sort_by(|one, other| one.path.cmp(&other.path));
        Ok(found)
    }

    fn list_below(&self, below: &str, depth: usize, found: &mut Vec<Stored>) -> Result<(), StoreError> {
        for entry in fs::read_dir(self.dir.join(below))? {
            let entry = entry?;
            let Some(name) = entry.file_name().to_str().map(str::to_owned) else { continue };
            let path = if below.is_empty() { name } else { format!("{below}/{name}") };
            if entry.file_type()?.is_dir() {
                if depth < 2 {
                    self.list_below(&path, depth + 1, found)?;
                }
            } else if let Some(key) = CollateralKey::from_store_path(&path)
                && found.len() < LISTED_MAX
            {
                found.push(Stored { key, path: entry.path() });
            }
        }
        Ok(())
    }

    /// The directory.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }
}

impl StoreError {
    /// Whether the store is one that nobody writes to.
    pub(super) fn is_read_only(&self) -> bool {
        let read_only = [io::ErrorKind::ReadOnlyFilesystem, io::ErrorKind::PermissionDenied];
        matches!(self, Self::Io(error) if read_only.contains(&error.kind()))
    }
}

impl std::fmt::Display for StoreError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::TooLarge => f.write_str("the file is larger than it can be"),
            Self::Io(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for StoreError {}

impl From<io::Error> for StoreError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pipe_in_the_place_of_a_file_is_refused_and_not_waited_for() {
        let dir = tempfile::tempdir().expect("a directory");
        let store = CollateralStore::new(dir.path().to_owned());
        let key = CollateralKey::from_store_path("Milan/vcek.crl.der").expect("a place of a store");
        let path = store.path(&key);
        fs::create_dir_all(path.parent().expect("below the store")).expect("the directory is ours");
        let made = std::process::Command::new("mkfifo").arg(&path).status().expect("mkfifo is there");
        assert!(made.success());
        assert!(matches!(store.get(&key), Err(StoreError::Io(error)) if error.kind() == io::ErrorKind::Other));
    }
}
