//! A place for plaintext that only one command and its children see: a mount in a mount namespace of their own.

mod attached;
mod point;

use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{Gid, Mode, Uid};
use rustix::io::Errno;

use self::attached::{Attached, FsOption};
pub(super) use self::point::MountPoint;
use super::job::Owner;
use super::numa::Numa;
use crate::failure::{Failure, Kind};
use crate::open::Directory;
use crate::place::{Facts, PlaceError, judge};

/// What is tried, best first. `noswap` needs Linux 6.4; a ramfs is never swapped, but has small pages and no limit.
const KINDS: [(&str, &[FsOption<'_>]); 5] =
    [("tmpfs", &[NOSWAP, HUGE]), ("tmpfs", &[NOSWAP]), ("tmpfs", &[HUGE]), ("tmpfs", &[]), ("ramfs", &[])];
const NOSWAP: FsOption<'_> = ("noswap", None);
const HUGE: FsOption<'_> = ("huge", Some("within_size"));
/// Nobody else enters before [`PrivateMount::give`].
const CLOSED: FsOption<'_> = ("mode", Some("0700"));
/// Room beyond the plaintext: what a tmpfs needs for itself, and for the last page of each file.
const ROOM_BYTES: u64 = 16 << 20;
const PAGE_BYTES: u64 = 4 << 10;
/// [`PlaceError::MemoryFull`] and [`PlaceError::CgroupFull`].
const MEMORY_FULL: [&str; 2] = ["memory-too-small", "cgroup-too-small"];

/// A mount. It is taken away when this is dropped; what still has files of it open keeps them until it ends.
pub(super) struct PrivateMount {
    // In this order they go: a directory can be taken away when nothing lies on it.
    mount: Attached,
    point: Option<MountPoint>,
    path: PathBuf,
    device: u64,
}

/// The files of a [`PrivateMount`] by a mount of its own through which nobody can write: whoever has a descriptor of it can't
/// open the file anew to write either, not even root. It is taken away when this is dropped.
pub(super) struct ReadOnlyView {
    mount: Attached,
    _point: MountPoint,
}

impl PrivateMount {
    /// Mounts memory at `point` for `bytes` of plaintext in `files` files: the first kind that the kernel has and that is
    /// judged safe, on the nodes that `numa` names. Says which others were not, so that nobody wonders about the speed.
    ///
    /// # Errors
    /// `mount`, or why the last of them is not safe.
    pub(super) fn new(point: MountPoint, bytes: u64, files: usize, numa: Option<&Numa>) -> Result<Self, Failure> {
        let size = bytes.saturating_add(ROOM_BYTES).saturating_add(files as u64 * PAGE_BYTES).to_string();
        let nodes = numa.map(ToString::to_string);
        let mut refused = None;
        for (filesystem, options) in KINDS {
            // A ramfs would take no notice of where its memory is to come from.
            if filesystem == "ramfs" && numa.is_some() {
                continue;
            }
            let mut all = vec![CLOSED];
            if filesystem == "tmpfs" {
                all.push(("size", Some(size.as_str())));
                all.extend(nodes.as_deref().map(|nodes| ("mpol", Some(nodes))));
                all.extend(options);
            }
            match of_kind(&point, filesystem, &all, bytes) {
                Ok(mount) => return Self::on(mount, point),
                // So it is for every kind.
                Err(failure) if MEMORY_FULL.contains(&failure.code()) => return Err(failure),
                Err(failure) => {
                    eprintln!("no {}: {}", kind(filesystem, options), failure.message());
                    refused = Some(failure);
                }
            }
        }
        Err(refused.unwrap_or_else(|| Failure::new(Kind::Failed, "mount", "no kind of mount is known")))
    }

    /// A little memory at `point`, for directories to mount on.
    ///
    /// # Errors
    /// `mount`.
    pub(super) fn for_directories(point: MountPoint) -> Result<Self, Failure> {
        let mount = Attached::new("tmpfs", &[CLOSED, ("size", Some("1m"))], &point).map_err(not_mounted)?;
        Self::on(mount, point)
    }

    fn on(mount: Attached, point: MountPoint) -> Result<Self, Failure> {
        let device = rustix::fs::fstat(&mount).map_err(not_mounted)?.st_dev;
        Ok(Self { path: point.path().to_owned(), mount, point: Some(point), device })
    }

    /// The same files at `point`, to be read alone.
    ///
    /// # Errors
    /// `mount`.
    pub(super) fn read_only(&self, point: MountPoint) -> Result<ReadOnlyView, Failure> {
        Ok(ReadOnlyView { mount: self.mount.read_only(&point).map_err(not_mounted)?, _point: point })
    }

    /// Where it is.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Its root, open.
    ///
    /// # Errors
    /// `destination-failed`.
    pub(super) fn directory(&self) -> Result<Directory, Failure> {
        Ok(Directory::of(&self.mount)?)
    }

    /// The `st_dev` of its files, which no other mount has.
    pub(super) fn device(&self) -> u64 {
        self.device
    }

    /// What is mounted over it from now on is mounted over it in namespaces that are copied from this one, too.
    ///
    /// # Errors
    /// `mount`.
    pub(super) fn share(&self) -> Result<(), Failure> {
        self.mount.share().map_err(|errno| self.not_replaced(errno))
    }

    /// Takes the place of `other`, which stays beneath it as long as the namespace does.
    ///
    /// # Errors
    /// `mount`.
    pub(super) fn move_over(&mut self, other: &mut Self) -> Result<(), Failure> {
        self.mount.move_over(&mut other.mount).map_err(|errno| self.not_replaced(errno))?;
        other.path.clone_into(&mut self.path);
        self.point = other.point.take();
        Ok(())
    }

    /// Nobody but `owner` can enter.
    ///
    /// # Errors
    /// `io`.
    pub(super) fn give(&self, owner: Owner) -> Result<(), Failure> {
        let failed = |errno: Errno| Failure::io(self.path.display(), &errno.into());
        let root = self.directory()?;
        rustix::fs::fchmod(&root, Mode::RWXU).map_err(failed)?;
        rustix::fs::fchown(&root, Some(Uid::from_raw(owner.uid)), Some(Gid::from_raw(owner.gid))).map_err(failed)
    }

    fn not_replaced(&self, errno: Errno) -> Failure {
        Failure::new(
            Kind::Failed,
            "mount",
            format!("{}: one version can't take the place of another: {errno}", self.path.display()),
        )
    }
}

impl AsFd for PrivateMount {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.mount.as_fd()
    }
}

impl AsFd for ReadOnlyView {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.mount.as_fd()
    }
}

/// Taken away again where it is not safe.
fn of_kind(point: &MountPoint, filesystem: &str, options: &[FsOption<'_>], bytes: u64) -> Result<Attached, Failure> {
    let mount = Attached::new(filesystem, options, point).map_err(not_mounted)?;
    let judged = Facts::of(&mount).and_then(|facts| judge(&facts, bytes, false));
    judged.map(|_| mount).map_err(|error: PlaceError| error.into())
}

fn not_mounted(errno: Errno) -> Failure {
    Failure::new(Kind::Failed, "mount", format!("it can't be mounted here: {errno}"))
}

fn kind(filesystem: &str, options: &[FsOption<'_>]) -> String {
    let options: Vec<String> = options
        .iter()
        .map(|(name, value)| value.map_or_else(|| (*name).to_owned(), |value| format!("{name}={value}")))
        .collect();
    if options.is_empty() { filesystem.to_owned() } else { format!("{filesystem} with {}", options.join(",")) }
}

#[cfg(test)]
mod tests;
