//! A place for plaintext that only one command and its children see: a mount in a mount namespace of their own.

use std::ffi::CString;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use rustix::fs::{Gid, Mode, OFlags, Uid};
use rustix::io::Errno;
use rustix::mount::{MountFlags, MountPropagationFlags, UnmountFlags};
use tempfile::TempDir;

use super::job::Owner;
use super::numa::Numa;
use crate::failure::{Failure, Kind};
use crate::open::Directory;
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
/// [`PlaceError::MemoryFull`] and [`PlaceError::CgroupFull`].
const MEMORY_FULL: [&str; 2] = ["memory-too-small", "cgroup-too-small"];

/// A mount. It is taken away when this is dropped; what still has files of it open keeps them until it ends.
pub(super) struct PrivateMount {
    at: PathBuf,
    device: u64,
    /// The directory that it lies on until it takes its place.
    hidden: Option<TempDir>,
    /// Another one lies on it, and would be taken away in its stead.
    is_beneath: bool,
}

/// The files of a [`PrivateMount`] by a mount of its own through which nobody can write: whoever has a descriptor of it can't
/// open the file anew to write either, not even root. It is taken away when this is dropped.
pub(super) struct ReadOnlyView {
    at: PathBuf,
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
        Self::at(&at, bytes, files, numa)
    }

    /// The same where nobody looks, to be [moved](Self::move_over) to its place once it is filled.
    ///
    /// # Errors
    /// As [`PrivateMount::new`].
    pub(super) fn hidden(bytes: u64, files: usize, numa: Option<&Numa>) -> Result<Self, Failure> {
        let directory = tempfile::Builder::new().prefix("weightvault-").tempdir();
        let directory = directory.map_err(|error| Failure::io("no directory for another version", &error))?;
        let mut mount = Self::at(directory.path(), bytes, files, numa)?;
        mount.hidden = Some(directory);
        Ok(mount)
    }

    fn at(at: &Path, bytes: u64, files: usize, numa: Option<&Numa>) -> Result<Self, Failure> {
        let size = bytes.saturating_add(ROOM_BYTES).saturating_add(files as u64 * PAGE_BYTES);
        let mut refused = None;
        for (filesystem, options) in KINDS {
            // A ramfs would take no notice of where its memory is to come from.
            if filesystem == "ramfs" && numa.is_some() {
                continue;
            }
            match Self::of_kind(at, filesystem, options, size, bytes, numa) {
                Ok(mount) => return Ok(mount),
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
        let device = rustix::fs::stat(&at).map_err(not_mounted)?.st_dev;
        Ok(Self { at, device, hidden: None, is_beneath: false })
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

    /// Its root, open.
    ///
    /// # Errors
    /// `destination-failed`.
    pub(super) fn directory(&self) -> Result<Directory, Failure> {
        Ok(Directory::open(&self.at)?)
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
        rustix::mount::mount_change(&self.at, MountPropagationFlags::SHARED).map_err(|errno| self.failed(errno))
    }

    /// Comes to lie at `at`, over what is there.
    ///
    /// # Errors
    /// `mount`.
    pub(super) fn move_over(&mut self, at: &Path) -> Result<(), Failure> {
        rustix::mount::mount_move(&self.at, at).map_err(|errno| self.failed(errno))?;
        at.clone_into(&mut self.at);
        self.hidden = None;
        Ok(())
    }

    /// Another one lies over it now. It stays as long as the namespace does: what is mounted over it hangs on it.
    pub(super) fn stay_beneath(&mut self) {
        self.is_beneath = true;
    }

    fn failed(&self, errno: Errno) -> Failure {
        Failure::new(
            Kind::Failed,
            "mount",
            format!("{}: one version can't take the place of another: {errno}", self.at.display()),
        )
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
        let mut mounted = Self { at: at.to_owned(), device: 0, hidden: None, is_beneath: false };
        mounted.device = rustix::fs::stat(at).map_err(not_mounted)?.st_dev;
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
        // It goes with the namespace anyway.
        if !self.is_beneath {
            unmount(&self.at);
        }
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
    Failure::new(Kind::Failed, "mount", format!("it can't be mounted here: {errno}"))
}

fn kind(filesystem: &str, options: &str) -> String {
    if options.is_empty() { filesystem.to_owned() } else { format!("{filesystem} with {options}") }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use super::super::namespace;
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
        let thread = std::thread::spawn(|| match namespace::enter() {
            Ok(_) => test(),
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
    fn another_version_takes_the_place_of_one_in_one_step_also_in_copies_of_the_namespace() {
        let dir = tempfile::tempdir().unwrap();
        let at = dir.path().join("weights");
        in_a_namespace(move || {
            let first = PrivateMount::new(&at, 1 << 20, 1, None).unwrap();
            std::fs::write(at.join("version"), "1").unwrap();
            first.share().unwrap();
            let (ask, asked) = std::sync::mpsc::channel();
            let (tell, told) = std::sync::mpsc::channel();
            let path = at.join("version");
            // As the first process of a command's namespace does.
            let command = std::thread::spawn(move || {
                namespace::unshare(rustix::thread::UnshareFlags::NEWNS).unwrap();
                let downstream = MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC;
                rustix::mount::mount_change("/", downstream).unwrap();
                let open = std::fs::File::open(&path).unwrap();
                while asked.recv().is_ok() {
                    tell.send(std::fs::read_to_string(&path).unwrap()).unwrap();
                }
                std::io::read_to_string(open).unwrap()
            });
            let seen = || ask.send(()).map(|()| told.recv().unwrap()).unwrap();
            let mut newest = first;
            for version in ["2", "3"] {
                let mut next = PrivateMount::hidden(1 << 20, 1, None).unwrap();
                let hidden = next.path().to_owned();
                std::fs::write(hidden.join("version"), version).unwrap();
                let before = seen();
                assert_ne!(before, version);
                assert_ne!(next.device(), newest.device());
                next.move_over(&at).unwrap();
                newest.stay_beneath();
                assert_eq!((seen().as_str(), hidden.exists()), (version, false));
                drop(std::mem::replace(&mut newest, next));
                assert_eq!(seen(), version, "what lies beneath takes nothing away when it goes");
            }
            drop(ask);
            assert_eq!(command.join().unwrap(), "1", "what is open stays what it is");
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
    fn what_lies_in_huge_pages_is_what_the_kernel_says_of_each_mapping() {
        let dir = tempfile::tempdir().unwrap();
        let at = dir.path().join("weights");
        in_a_namespace(move || {
            let mount = PrivateMount::new(&at, 8 << 20, 1, None).unwrap();
            let file = std::fs::File::options().read(true).write(true).create_new(true).open(at.join("file")).unwrap();
            file.set_len(8 << 20).unwrap();
            let mut mapping = crate::region::FileMapping::new(&file, 8 << 20, true).unwrap();
            crate::region::prefault(mapping.bytes_mut()).unwrap();
            let mappings = std::fs::read_to_string("/proc/self/smaps").unwrap();
            let of_each = mappings.lines().filter_map(|line| line.strip_prefix("ShmemPmdMapped:"));
            let kilobytes: u64 = of_each.map(|line| line.trim().trim_end_matches(" kB").parse::<u64>().unwrap()).sum();
            assert_eq!(crate::region::huge_bytes(), kilobytes << 10);
            let is_huge = Facts::gather(mount.path()).unwrap().mount.huge;
            assert!(is_huge || kilobytes == 0, "huge pages that nobody asked for");
        });
    }

    #[test]
    fn a_machine_without_the_memory_is_refused_before_anything_is_loaded() {
        let dir = tempfile::tempdir().unwrap();
        let at = dir.path().join("weights");
        in_a_namespace(move || {
            let refused = PrivateMount::new(&at, 1 << 60, 1, None).err().unwrap();
            assert_eq!(refused.code(), "memory-too-small");
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
