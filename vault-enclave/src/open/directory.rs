//! A directory that is open, whatever its path leads to by now.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use super::DestinationError;
use super::destination::DIRECTORY;

/// A directory, open: what is asked of it and what goes into it concern the same one, whatever becomes of its path.
pub struct Directory(OwnedFd);

/// Which directory it is. No other one has these numbers while it is open.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DirectoryId {
    device: u64,
    inode: u64,
}

impl Directory {
    /// Opens `path`, which is made for this user alone where it is missing (its parent is not).
    ///
    /// # Errors
    /// [`DestinationError::Directory`].
    pub fn make(path: &Path) -> Result<Self, DestinationError> {
        match rustix::fs::mkdir(path, DIRECTORY) {
            Ok(()) | Err(Errno::EXIST) => Self::open(path),
            Err(errno) => Err(DestinationError::Directory { action: "make", errno }),
        }
    }

    /// Opens `path`, unless it is a link.
    ///
    /// # Errors
    /// [`DestinationError::Directory`].
    pub fn open(path: &Path) -> Result<Self, DestinationError> {
        Self::below(rustix::fs::CWD, path).map_err(|errno| DestinationError::Directory { action: "open", errno })
    }

    /// Opens `path` where that still is the directory that another process has open: it wipes that one and no other.
    ///
    /// # Errors
    /// [`DestinationError::Directory`], [`DestinationError::Replaced`].
    pub fn open_same(path: &Path, id: DirectoryId) -> Result<Self, DestinationError> {
        let directory = Self::open(path)?;
        if directory.id()? == id { Ok(directory) } else { Err(DestinationError::Replaced) }
    }

    /// Opens what `root` is of, which may be open as a path alone.
    ///
    /// # Errors
    /// [`DestinationError::Directory`].
    pub fn of(root: impl AsFd) -> Result<Self, DestinationError> {
        let opened = Self::below(root, Path::new("."));
        opened.map_err(|errno| DestinationError::Directory { action: "open", errno })
    }

    fn below(root: impl AsFd, path: &Path) -> Result<Self, Errno> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        rustix::fs::openat(root, path, flags, Mode::empty()).map(Self)
    }

    /// Which it is.
    ///
    /// # Errors
    /// [`DestinationError::Directory`].
    pub fn id(&self) -> Result<DirectoryId, DestinationError> {
        DirectoryId::of(self).map_err(|errno| DestinationError::Directory { action: "look at", errno })
    }
}

impl AsFd for Directory {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl DirectoryId {
    /// That of an open directory.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn of(directory: impl AsFd) -> Result<Self, Errno> {
        let stat = rustix::fs::fstat(directory)?;
        Ok(Self { device: stat.st_dev, inode: stat.st_ino })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As where somebody who may write to the directory above does so between two processes of a load.
    #[test]
    fn a_directory_that_took_the_place_of_one_is_refused_though_it_looks_the_same() {
        let above = tempfile::tempdir().unwrap();
        let (path, away) = (above.path().join("into"), above.path().join("away"));
        let first = Directory::make(&path).unwrap();
        let id = first.id().unwrap();
        assert!(Directory::open_same(&path, id).is_ok());
        std::fs::rename(&path, &away).unwrap();
        let second = Directory::make(&path).unwrap();
        let refused = Directory::open_same(&path, id).err().unwrap();
        assert_eq!((refused.code(), refused), ("destination-replaced", DestinationError::Replaced));
        assert!(Directory::open_same(&away, id).is_ok() && second.id().unwrap() != id);
    }
}
