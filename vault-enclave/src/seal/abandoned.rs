//! What a seal that was killed leaves behind: directories of ours that nobody has locked any more.

use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::{FlockOperation, Mode, OFlags};
use rustix::io::Errno;
use tempfile::TempDir;

/// More than one is lost only while others seal in the same place and begin at the same moment.
const TRIES_MAX: usize = 16;

/// A directory that is in use as long as this is there. The lock ends with the process, however that ends.
#[derive(Debug)]
pub(crate) struct InUse {
    /// `None` where the file system knows no locks: then nobody takes anything there for abandoned.
    _lock: Option<OwnedFd>,
}

/// Makes a directory in `parent` that is in use, after each of `prefix` that is this user's and nobody uses any more was
/// given to `left`.
pub(crate) fn make_in(parent: &Path, prefix: &str, left: impl Fn(&Path)) -> io::Result<(TempDir, InUse)> {
    for entry in fs::read_dir(parent)?.flatten() {
        let is_ours = entry.file_name().to_str().is_some_and(|name| name.starts_with(prefix));
        // Locked as long as it is looked at: whoever just made it sees that, and makes another one.
        if is_ours && let Ok(_unused) = lock(&entry.path()) {
            left(&entry.path());
        }
    }
    for _ in 0..TRIES_MAX {
        let made = tempfile::Builder::new().prefix(prefix).tempdir_in(parent)?;
        match lock(made.path()) {
            Ok(lock) => return Ok((made, InUse { _lock: Some(lock) })),
            // Somebody took it for abandoned before it was locked.
            Err(Errno::WOULDBLOCK | Errno::NOENT | Errno::STALE) => {}
            Err(_) => return Ok((made, InUse { _lock: None })),
        }
    }
    Err(io::ErrorKind::ResourceBusy.into())
}

/// Locks a directory of this user that nobody has locked, and that is there still once it is.
fn lock(path: &Path) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let directory = rustix::fs::open(path, flags, Mode::empty())?;
    rustix::fs::flock(&directory, FlockOperation::NonBlockingLockExclusive)?;
    let (locked, there) = (rustix::fs::fstat(&directory)?, rustix::fs::lstat(path)?);
    if (locked.st_dev, locked.st_ino) != (there.st_dev, there.st_ino) {
        return Err(Errno::STALE);
    }
    // Root may open those of others.
    if locked.st_uid != rustix::process::geteuid().as_raw() {
        return Err(Errno::PERM);
    }
    Ok(directory)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_many_make_at_once_is_taken_for_abandoned_by_none() {
        let parent = tempfile::tempdir().unwrap();
        let make = || {
            for _ in 0..50 {
                let (made, _in_use) = make_in(parent.path(), "x-", |left| drop(fs::remove_dir_all(left))).unwrap();
                fs::write(made.path().join("file"), b"mine").unwrap();
                assert_eq!(fs::read(made.path().join("file")).unwrap(), b"mine");
            }
        };
        std::thread::scope(|scope| (0..4).for_each(|_| drop(scope.spawn(make))));
        assert_eq!(fs::read_dir(parent.path()).unwrap().count(), 0);
    }

    #[test]
    fn what_is_abandoned_is_found_once_its_lock_ends_and_nothing_of_another_name_or_kind_is() {
        let parent = tempfile::tempdir().unwrap();
        let found = || {
            let found = std::cell::RefCell::default();
            let note = |left: &Path| Vec::push(&mut found.borrow_mut(), left.to_owned());
            drop(make_in(parent.path(), "x-", note).unwrap());
            found.into_inner()
        };
        fs::create_dir(parent.path().join("x")).unwrap();
        fs::write(parent.path().join("x-file"), b"").unwrap();
        std::os::unix::fs::symlink(parent.path().join("x"), parent.path().join("x-link")).unwrap();
        let (made, in_use) = make_in(parent.path(), "x-", |_| ()).unwrap();
        assert!(found().is_empty());
        drop(in_use);
        assert_eq!(found(), [made.path()]);
    }
}
