//! What a seal that was killed leaves behind: directories that nobody has locked any more.

use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, Mode, OFlags};

/// A directory that is in use as long as this is there. The lock ends with the process, however that ends.
#[derive(Debug)]
pub(crate) struct InUse {
    _lock: OwnedFd,
}

impl InUse {
    /// Marks a directory; `None` where another process has, or the file system can't tell.
    pub(crate) fn mark(directory: &Path) -> Option<Self> {
        let directory = open(directory).ok()?;
        rustix::fs::flock(&directory, FlockOperation::NonBlockingLockExclusive).ok()?;
        Some(Self { _lock: directory })
    }
}

/// Makes a directory in `parent`, marked as in use, after all of `prefix` that nobody uses any more was given to `left`. One
/// process at a time, so that none is taken for abandoned between the two.
pub(crate) fn make_in(
    parent: &Path,
    prefix: &str,
    left: impl Fn(PathBuf),
) -> io::Result<(tempfile::TempDir, Option<InUse>)> {
    let turn = open(parent)?;
    // Where it can't be locked, nothing in it can, and nothing is taken for abandoned.
    let _ = rustix::fs::flock(&turn, FlockOperation::LockExclusive);
    for entry in std::fs::read_dir(parent)?.flatten() {
        let is_ours = entry.file_name().to_str().is_some_and(|name| name.starts_with(prefix));
        if is_ours && let Some(_unused) = InUse::mark(&entry.path()) {
            left(entry.path());
        }
    }
    let made = tempfile::Builder::new().prefix(prefix).tempdir_in(parent)?;
    let in_use = InUse::mark(made.path());
    Ok((made, in_use))
}

fn open(directory: &Path) -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(rustix::fs::open(directory, flags, Mode::empty())?)
}
