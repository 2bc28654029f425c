//! A place for plaintext that only one command and its children see: a mount in a mount namespace of their own.

use std::ffi::CString;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use rustix::fs::{Gid, Mode, OFlags, Uid};
use rustix::io::Errno;
use rustix::mount::{MountFlags, MountPropagationFlags, UnmountFlags};

use super::job::Owner;
use super::numa::Numa;
use crate::failure::{Failure, Kind};
use crate::place::{Facts, PlaceError, judge};

/// What is tried, best first. `noswap` needs Linux 6.4; a ramfs is never swapped, but has small pages and no limit.
const KINDS: [(&str, &str); 5] = [
    ("tmpfs", "noswap,huge=within_size"),
    ("tmpfs", "noswap"),
    ("tmpfs", "huge=within_size"),
    ("tmpfs", ""),
    ("ramfs", ""),
];
/// Room beyond the plaintext: what a tmpfs needs for itself, and for the last page of each file.
const ROOM_BYTES: u64 = 16 << 20;
const PAGE_BYTES: u64 = 4 << 10;
/// [`PlaceError::MemoryFull`].
const MEMORY_FULL: &str = "memory-too-small";

/// A mount. It is taken away when this is dropped; what still has files of it open keeps them until it ends.
pub(super) struct PrivateMount {
    at: PathBuf,
}

/// The files of a [`PrivateMount`] by a mount of its own through which nobody can write: whoever has a descriptor of it can't
/// open the file anew to write either, not even root. It is taken away when this is dropped.
pub(super) struct ReadOnlyView {
    at: PathBuf,
}

/// Gives this process a mount namespace of its own, from which nothing comes out and into which nothing comes. Before any
/// thread is started: threads that exist keep the old one.
///
/// # Errors
/// `namespace`: not root, or a kernel or container that forbids it.
pub(super) fn enter_namespace() -> Result<(), Failure> {
    let failed = |errno: Errno| {
        Failure::new(Kind::Failed, "namespace", format!("no mount namespace of its own: {errno}"))
            .next("run as root with CAP_SYS_ADMIN, or use `vault-enclave load` into a directory on a tmpfs")
    };
    #[expect(deprecated, reason = "deprecated for UnshareFlags::FILES alone, which is not asked for here")]
    rustix::thread::unshare(rustix::thread::UnshareFlags::NEWNS).map_err(failed)?;
    rustix::mount::mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC).map_err(failed)
}

impl PrivateMount {
    /// Mounts memory at `at` for `bytes` of plaintext in `files` files: the first kind that the kernel has and that is
    /// judged safe, on the nodes that `numa` names. Says which others were not, so that nobody wonders about the speed.
    ///
    /// # Errors
    /// `mount`, or why the last of them is not safe.
    pub(super) fn new(at: &Path, bytes: u64, files: usize, numa: Option<&Numa>) -> Result<Self, Failure> {
        std::fs::create_dir_all(at).map_err(|error| {
            Failure::io(at.display(), &error)
                .next("give --at a directory that is there, or whose parent can be written")
        })?;
        let at = at.canonicalize().map_err(|error| Failure::io(at.display(), &error))?;
        let size = bytes.saturating_add(ROOM_BYTES).saturating_add(files as u64 * PAGE_BYTES);
        let mut refused = None;
        for (filesystem, options) in KINDS {
            // A ramfs would take no notice of where its memory is to come from.
            if filesystem == "ramfs" && numa.is_some() {
                continue;
            }
            match Self::of_kind(&at, filesystem, options, size, bytes, numa) {
                Ok(mount) => return Ok(mount),
                // So it is for every kind.
                Err(failure) if failure.code() == MEMORY_FULL => return Err(failure),
                Err(failure) => {
                    eprintln!("no {}: {}", kind(filesystem, options), failure.message());
                    refused = Some(failure);
                }
            }
        }
        Err(refused.unwrap_or_else(|| Failure::new(Kind::Failed, "mount", "no kind of mount is known")))
    }

    /// A little memory at `at`, for directories to mount on.
    ///
    /// # Errors
    /// `mount`, `io`.
    pub(super) fn for_directories(at: &Path) -> Result<Self, Failure> {
        let failed = |error| {
            Failure::io(at.display(), &error).next("name a directory that is there, or whose parent can be written")
        };
        std::fs::create_dir_all(at).map_err(failed)?;
        let at = at.canonicalize().map_err(failed)?;
        let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
        rustix::mount::mount("weightvault", &at, "tmpfs", flags, c"mode=0700,size=1m").map_err(not_mounted)?;
        Ok(Self { at })
    }

    /// The same files at `at`, to be read alone.
    ///
    /// # Errors
    /// `mount`, `io`.
    pub(super) fn read_only(&self, at: &Path) -> Result<ReadOnlyView, Failure> {
        std::fs::create_dir_all(at).map_err(|error| Failure::io(at.display(), &error))?;
        rustix::mount::mount_bind(&self.at, at).map_err(not_mounted)?;
        let view = ReadOnlyView { at: at.to_owned() };
        let flags = MountFlags::BIND | MountFlags::RDONLY | MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
        rustix::mount::mount_remount(at, flags, c"").map_err(not_mounted)?;
        Ok(view)
    }

    /// Where it is.
    pub(super) fn path(&self) -> &Path {
        &self.at
    }

    fn of_kind(
        at: &Path,
        filesystem: &str,
        options: &str,
        size: u64,
        bytes: u64,
        numa: Option<&Numa>,
    ) -> Result<Self, Failure> {
        let mut data = vec!["mode=0700".to_owned()];
        if filesystem == "tmpfs" {
            data.push(format!("size={size}"));
            data.extend(numa.map(Numa::mount_option));
            data.extend((!options.is_empty()).then(|| options.to_owned()));
        }
        let data = CString::new(data.join(",")).map_err(|error| Failure::new(Kind::Failed, "mount", error))?;
        let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
        rustix::mount::mount("weightvault", at, filesystem, flags, data.as_c_str()).map_err(not_mounted)?;
        let mounted = Self { at: at.to_owned() };
        // Taken away again by drop where it is not safe.
        Facts::gather(at)
            .and_then(|facts| judge(&facts, bytes, false))
            .map_err(|error: PlaceError| Failure::from(error))?;
        Ok(mounted)
    }

    /// Nobody but `owner` can enter.
    ///
    /// # Errors
    /// `io`.
    pub(super) fn give(&self, owner: Owner) -> Result<(), Failure> {
        let failed = |errno: Errno| Failure::io(self.at.display(), &errno.into());
        rustix::fs::chmod(&self.at, Mode::RWXU).map_err(failed)?;
        rustix::fs::chown(&self.at, Some(Uid::from_raw(owner.uid)), Some(Gid::from_raw(owner.gid))).map_err(failed)
    }
}

impl ReadOnlyView {
    /// Its directory.
    ///
    /// # Errors
    /// `io`.
    pub(super) fn open(&self) -> Result<OwnedFd, Failure> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let opened = rustix::fs::open(&self.at, flags, Mode::empty());
        opened.map_err(|errno| Failure::io(self.at.display(), &errno.into()))
    }
}

impl Drop for PrivateMount {
    fn drop(&mut self) {
        unmount(&self.at);
    }
}

impl Drop for ReadOnlyView {
    fn drop(&mut self) {
        unmount(&self.at);
    }
}

fn unmount(at: &Path) {
    // It goes with the namespace anyway.
    if let Err(errno) = rustix::mount::unmount(at, UnmountFlags::DETACH) {
        tracing::warn!(at = %at.display(), %errno, "not unmounted");
    }
}

fn not_mounted(errno: Errno) -> Failure {
    Failure::new(Kind::Failed, "mount", format!("this kernel does not mount it: {errno}"))
}

fn kind(filesystem: &str, options: &str) -> String {
    if options.is_empty() { filesystem.to_owned() } else { format!("{filesystem} with {options}") }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use super::*;

    #[test]
    fn nobody_writes_through_a_view_not_even_root_by_a_descriptor() {
        let dir = tempfile::tempdir().unwrap();
        let at = dir.path().join("private");
        in_a_namespace(move || {
            let root = PrivateMount::for_directories(&at).unwrap();
            let mount = PrivateMount::new(&root.path().join("rw"), 1 << 20, 1, None).unwrap();
            std::fs::write(mount.path().join("file"), b"plaintext").unwrap();
            let view = mount.read_only(&root.path().join("ro")).unwrap();
            let flags = OFlags::RDONLY | OFlags::CLOEXEC;
            let file = rustix::fs::openat(view.open().unwrap(), "file", flags, Mode::empty()).unwrap();
            let again = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&file));
            let writes = || {
                let opened = rustix::fs::open(&again, OFlags::RDWR, Mode::empty()).map(drop);
                [opened, rustix::fs::fchmod(&file, Mode::RWXU), rustix::fs::ftruncate(&file, 0)]
            };
            assert_eq!(writes(), [Err(Errno::ROFS), Err(Errno::ROFS), Err(Errno::INVAL)]);
            assert_eq!(std::fs::read(&again).unwrap(), b"plaintext");
            // Nor where both mounts are gone, as after the agent that had them.
            drop((view, mount));
            assert_eq!(writes(), [Err(Errno::ROFS), Err(Errno::ROFS), Err(Errno::INVAL)]);
        });
    }

    /// In a thread of its own, which alone gets the namespace. Only root may make one.
    fn in_a_namespace(test: impl FnOnce() + Send + 'static) {
        if !rustix::process::geteuid().is_root() {
            eprintln!("skipped: only root makes mount namespaces");
            return;
        }
        let thread = std::thread::spawn(|| match enter_namespace() {
            Ok(()) => test(),
            Err(failure) => eprintln!("skipped: {failure}"),
        });
        if let Err(panic) = thread.join() {
            std::panic::resume_unwind(panic);
        }
    }

    #[test]
    fn a_mount_is_seen_in_its_namespace_alone() {
        let dir = tempfile::tempdir().unwrap();
        let outside = dir.path().join("deep/weights");
        let at = outside.clone();
        let (mounted, wait) = std::sync::mpsc::channel();
        let (looked, go_on) = std::sync::mpsc::channel();
        let look = move || {
            // Nothing is sent where the test is skipped.
            if wait.recv() == Ok(()) {
                assert_eq!(std::fs::read_dir(&outside).unwrap().count(), 0);
                looked.send(()).unwrap();
            }
        };
        let looking = std::thread::spawn(look);
        in_a_namespace(move || {
            let mount = PrivateMount::new(&at, 1 << 20, 3, None).unwrap();
            std::fs::write(mount.path().join("file"), b"plaintext").unwrap();
            mounted.send(()).unwrap();
            go_on.recv().unwrap();
            assert_eq!(std::fs::read_dir(&at).unwrap().count(), 1);
            drop(mount);
            assert_eq!(std::fs::read_dir(&at).unwrap().count(), 0);
        });
        looking.join().unwrap();
    }

    #[test]
    fn a_mount_is_its_owners_alone() {
        let dir = tempfile::tempdir().unwrap();
        let at = dir.path().join("weights");
        in_a_namespace(move || {
            let mount = PrivateMount::new(&at, 1 << 20, 1, None).unwrap();
            mount.give(Owner { uid: 1234, gid: 5678 }).unwrap();
            let metadata = std::fs::metadata(mount.path()).unwrap();
            assert_eq!((metadata.uid(), metadata.gid(), metadata.mode() & 0o7777), (1234, 5678, 0o700));
        });
    }

    #[test]
    fn memory_comes_from_the_nodes_that_were_named_or_nowhere() {
        let dir = tempfile::tempdir().unwrap();
        let at = dir.path().join("weights");
        in_a_namespace(move || {
            let on = |numa: &str| PrivateMount::new(&at, 1 << 20, 1, Some(&numa.parse().unwrap()));
            match on("bind:0") {
                Ok(mount) => {
                    let mounts = std::fs::read_to_string("/proc/thread-self/mountinfo").unwrap();
                    let line = mounts.lines().find(|line| line.contains(mount.path().to_str().unwrap())).unwrap();
                    assert!(line.contains("mpol=bind:0") && line.contains(" tmpfs "), "{line}");
                }
                Err(failure) => eprintln!("skipped: a kernel without NUMA: {failure}"),
            }
            assert_eq!(on("bind:1023").err().unwrap().code(), "mount", "no machine here has so many nodes");
        });
    }

    #[test]
    fn a_machine_without_the_memory_is_refused_before_anything_is_loaded() {
        let dir = tempfile::tempdir().unwrap();
        let at = dir.path().join("weights");
        in_a_namespace(move || {
            let refused = PrivateMount::new(&at, 1 << 60, 1, None).err().unwrap();
            assert_eq!(refused.code(), MEMORY_FULL);
            assert_eq!(std::fs::read_dir(&at).unwrap().count(), 0);
        });
    }

    #[test]
    fn a_mount_has_room_for_the_model_and_not_for_much_more() {
        let dir = tempfile::tempdir().unwrap();
        let at = dir.path().join("weights");
        in_a_namespace(move || {
            let mount = PrivateMount::new(&at, 8 << 20, 1, None).unwrap();
            if Facts::gather(mount.path()).unwrap().mount.filesystem == "tmpfs" {
                std::fs::write(mount.path().join("fits"), vec![1; 8 << 20]).unwrap();
                assert!(std::fs::write(mount.path().join("does-not"), vec![1; 32 << 20]).is_err());
            }
        });
    }
}
