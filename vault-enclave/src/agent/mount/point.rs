//! Where a mount goes: a directory that nobody can put another in the place of, or one in memory of this process alone.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, Mode, OFlags};
use rustix::io::Errno;

use super::PrivateMount;
use crate::agent::fixed::FixedDir;
use crate::failure::Failure;

/// A directory to mount on, open in the namespace of this thread.
pub(in crate::agent) struct MountPoint {
    directory: OwnedFd,
    path: PathBuf,
    /// Where it was made for one mount, and goes with it.
    made: Option<(OwnedFd, String)>,
}

impl MountPoint {
    /// One that is fixed, and still there.
    ///
    /// # Errors
    /// `path-replaced`, `io`.
    pub(in crate::agent) fn at(directory: &FixedDir) -> Result<Self, Failure> {
        Ok(Self { directory: directory.open()?, path: directory.path().to_owned(), made: None })
    }

    /// A new one in a mount of our own. It is taken away when this is dropped.
    ///
    /// # Errors
    /// `io`.
    pub(in crate::agent) fn within(mount: &PrivateMount, name: &str) -> Result<Self, Failure> {
        let path = mount.path().join(name);
        let failed = |errno: Errno| Failure::io(path.display(), &errno.into());
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let above = rustix::fs::openat(mount, ".", flags, Mode::empty()).map_err(failed)?;
        rustix::fs::mkdirat(&above, name, Mode::RWXU).map_err(failed)?;
        let directory = rustix::fs::openat(&above, name, flags, Mode::empty()).map_err(failed)?;
        Ok(Self { directory, path, made: Some((above, name.to_owned())) })
    }

    /// What leads to it.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }
}

impl AsFd for MountPoint {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.directory.as_fd()
    }
}

impl Drop for MountPoint {
    fn drop(&mut self) {
        if let Some((above, name)) = &self.made {
            // One that is in use still is in nobody's way.
            let _ = rustix::fs::unlinkat(above, name.as_str(), AtFlags::REMOVEDIR);
        }
    }
}
