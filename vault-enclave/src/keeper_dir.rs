//! The directory of a keeper: a few small files, each replaced whole or not at all.

use std::fmt;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// Files in it are read up to this many bytes, but for the snapshot; each is far smaller.
const FILE_BYTES_MAX: u64 = 64 << 10;
const LOCK: &str = "lock";

/// An open directory, which no other process opens meanwhile.
pub struct KeeperDir {
    path: PathBuf,
    /// Holds the lock as long as it is open.
    _lock: File,
}

/// Why a file of the directory could not be read or written.
#[derive(Debug)]
pub enum KeeperDirError {
    /// Another process has the directory open.
    InUse(PathBuf),
    /// A file is longer than any that belongs here.
    TooLong(PathBuf),
    /// The operating system said no.
    Io(PathBuf, io::Error),
}

impl KeeperDir {
    /// Opens it, or makes it for this user alone.
    ///
    /// # Errors
    /// [`KeeperDirError`].
    pub fn open(path: &Path) -> Result<Self, KeeperDirError> {
        let named = |error| KeeperDirError::Io(path.to_owned(), error);
        fs::DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(named)?;
        let lock = OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(path.join(LOCK));
        let lock = lock.map_err(named)?;
        match lock.try_lock() {
            Ok(()) => Ok(Self { path: path.to_owned(), _lock: lock }),
            Err(TryLockError::WouldBlock) => Err(KeeperDirError::InUse(path.to_owned())),
            Err(TryLockError::Error(error)) => Err(named(error)),
        }
    }

    /// The bytes of a file, or `None` where there is none.
    ///
    /// # Errors
    /// [`KeeperDirError`].
    pub fn read(&self, name: &str) -> Result<Option<Vec<u8>>, KeeperDirError> {
        self.read_up_to(name, FILE_BYTES_MAX)
    }

    /// The bytes of a file that may be longer than the others are.
    ///
    /// # Errors
    /// [`KeeperDirError`].
    pub fn read_up_to(&self, name: &str, bytes_max: u64) -> Result<Option<Vec<u8>>, KeeperDirError> {
        let path = self.path.join(name);
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(KeeperDirError::Io(path, error)),
        };
        let mut bytes = Vec::new();
        match file.take(bytes_max.saturating_add(1)).read_to_end(&mut bytes) {
            Ok(length) if length as u64 > bytes_max => Err(KeeperDirError::TooLong(path)),
            Ok(_) => Ok(Some(bytes)),
            Err(error) => Err(KeeperDirError::Io(path, error)),
        }
    }

    /// Puts `bytes` in the place of a file, durably: after a crash it holds the old bytes or the new ones, whole.
    ///
    /// # Errors
    /// [`KeeperDirError::Io`]; either may then be there.
    pub fn replace(&self, name: &str, bytes: &[u8]) -> Result<(), KeeperDirError> {
        let path = self.path.join(name);
        let named = |error| KeeperDirError::Io(path.clone(), error);
        let new = self.path.join(format!("{name}.new"));
        let mut options = OpenOptions::new();
        let mut file = options.create(true).truncate(true).write(true).mode(0o600).open(&new).map_err(named)?;
        file.write_all(bytes).and_then(|()| file.sync_all()).map_err(named)?;
        fs::rename(&new, &path).map_err(named)?;
        // The rename is in the directory, which is a file of its own.
        File::open(&self.path).and_then(|directory| directory.sync_all()).map_err(named)
    }

    /// Puts a file in the place of another, durably: after a crash both are there as they were, or the first alone under
    /// the name of the second.
    ///
    /// # Errors
    /// [`KeeperDirError::Io`].
    pub fn rename(&self, from: &str, to: &str) -> Result<(), KeeperDirError> {
        let path = self.path.join(from);
        fs::rename(&path, self.path.join(to))
            .and_then(|()| File::open(&self.path))
            .and_then(|directory| directory.sync_all())
            .map_err(|error| KeeperDirError::Io(path, error))
    }

    /// Removes a file, durably. One that is not there is no fault.
    ///
    /// # Errors
    /// [`KeeperDirError::Io`].
    pub fn remove(&self, name: &str) -> Result<(), KeeperDirError> {
        let path = self.path.join(name);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(KeeperDirError::Io(path, error)),
            _ => {}
        }
        File::open(&self.path)
            .and_then(|directory| directory.sync_all())
            .map_err(|error| KeeperDirError::Io(path, error))
    }
}

impl KeeperDirError {
    /// Stable name of the refusal.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::InUse(_) => "keeper-dir-in-use",
            Self::TooLong(_) => "keeper-dir-file-too-long",
            Self::Io(..) => "keeper-dir-io",
        }
    }
}

impl fmt::Display for KeeperDirError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::InUse(path) => write!(f, "{}: another keeper runs on this directory", path.display()),
            Self::TooLong(path) => write!(f, "{}: longer than a keeper's files are", path.display()),
            Self::Io(path, error) => write!(f, "{}: {error}", path.display()),
        }
    }
}

impl std::error::Error for KeeperDirError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_holds_what_it_was_last_replaced_with() {
        let temporary = tempfile::tempdir().unwrap();
        let dir = KeeperDir::open(&temporary.path().join("keeper")).unwrap();
        assert!(dir.read("head").unwrap().is_none());
        dir.replace("head", b"one").unwrap();
        dir.replace("head", b"two").unwrap();
        assert_eq!(dir.read("head").unwrap().unwrap(), b"two");
        assert!(!temporary.path().join("keeper/head.new").exists());
    }

    #[test]
    fn a_replacement_that_fails_leaves_the_old_bytes() {
        let temporary = tempfile::tempdir().unwrap();
        let dir = KeeperDir::open(temporary.path()).unwrap();
        dir.replace("head", b"one").unwrap();
        fs::create_dir(temporary.path().join("head.new")).unwrap();
        assert_eq!(dir.replace("head", b"two").unwrap_err().code(), "keeper-dir-io");
        assert_eq!(dir.read("head").unwrap().unwrap(), b"one");
    }

    #[test]
    fn one_directory_is_open_once() {
        let temporary = tempfile::tempdir().unwrap();
        let dir = KeeperDir::open(temporary.path()).unwrap();
        assert_eq!(KeeperDir::open(temporary.path()).err().unwrap().code(), "keeper-dir-in-use");
        drop(dir);
        KeeperDir::open(temporary.path()).unwrap();
    }

    #[test]
    fn a_file_that_is_too_long_is_not_read() {
        let temporary = tempfile::tempdir().unwrap();
        let dir = KeeperDir::open(temporary.path()).unwrap();
        dir.replace("head", &vec![0; FILE_BYTES_MAX as usize + 1]).unwrap();
        assert_eq!(dir.read("head").unwrap_err().code(), "keeper-dir-file-too-long");
    }
}
