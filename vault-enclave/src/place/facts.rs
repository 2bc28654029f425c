//! What the kernel says of a directory, of swap and of memory. Read once, judged by pure functions.

use std::os::fd::AsFd;
use std::path::Path;

use rustix::fs::{AtFlags, Mode, OFlags, StatxFlags};
use rustix::process::Resource;
use rustix::thread::CapabilitySet;

use super::PlaceError;
use super::cgroup::{self, CgroupMemory};
use crate::user_namespace;

/// Everything that [`super::judge`] looks at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Facts {
    /// The mount that the directory lies on.
    pub mount: MountFacts,
    /// Whether any swap is on.
    pub swap_is_on: bool,
    /// Whether this process's cgroup, or one above it, has `memory.swap.max` = 0.
    pub cgroup_never_swaps: bool,
    /// How much this process may lock.
    pub lockable_bytes: u64,
    /// Memory that the machine has to give.
    pub available_memory: u64,
    /// What the cgroup of this process has left, or the one above it that has least.
    pub cgroup_memory: Option<CgroupMemory>,
}

/// What is known of a mount.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MountFacts {
    /// Where it is mounted.
    pub mount_point: String,
    /// Type of the file system.
    pub filesystem: String,
    /// Whether it is mounted `noswap`.
    pub noswap: bool,
    /// Whether it is mounted `huge=always` or `huge=within_size`.
    pub huge: bool,
    /// Free bytes; `None` where there is no limit of its own.
    pub free_bytes: Option<u64>,
}

impl Facts {
    /// Memory that there is for a model.
    #[must_use]
    pub fn free_memory(&self) -> u64 {
        self.cgroup_memory.as_ref().map_or(self.available_memory, |cgroup| cgroup.free.min(self.available_memory))
    }

    /// Asks the kernel about the directory at `path`, which exists.
    ///
    /// # Errors
    /// [`PlaceError::Unknown`].
    pub fn gather(path: &Path) -> Result<Self, PlaceError> {
        let opened = rustix::fs::open(path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty());
        Self::of(opened.map_err(|errno| unknown_place(format_args!("{}: {errno}", path.display())))?)
    }

    /// Asks the kernel about `directory` itself, whatever its path leads to by now.
    ///
    /// # Errors
    /// [`PlaceError::Unknown`].
    pub fn of(directory: impl AsFd) -> Result<Self, PlaceError> {
        Self::on(mount_of(&directory)?)
    }

    /// Asks about memory of this process, which lies on no mount.
    ///
    /// # Errors
    /// [`PlaceError::Unknown`].
    pub fn of_memory() -> Result<Self, PlaceError> {
        Self::on(MountFacts::own_memory())
    }

    fn on(mount: MountFacts) -> Result<Self, PlaceError> {
        let memory = memory_available(&read("/proc/meminfo")?)?;
        let cgroup = read("/proc/self/cgroup")?;
        Ok(Self {
            mount,
            swap_is_on: swap_is_on(&read("/proc/swaps")?),
            cgroup_never_swaps: cgroup::never_swaps(&cgroup),
            lockable_bytes: lockable_bytes(),
            available_memory: memory,
            cgroup_memory: cgroup::least_memory(&cgroup),
        })
    }
}

/// Stands for the type of a file system where there is none.
pub(super) const OWN_MEMORY: &str = "memory";

impl MountFacts {
    pub(super) fn own_memory() -> Self {
        let (mount_point, filesystem) = ("this process".to_owned(), OWN_MEMORY.to_owned());
        Self { mount_point, filesystem, noswap: false, huge: true, free_bytes: None }
    }
}

/// One line of `/proc/self/mountinfo` (proc(5)), the one with this mount id.
pub(super) fn find_mount(mountinfo: &str, id: u64) -> Option<MountFacts> {
    let line = mountinfo.lines().find(|line| line.split(' ').next().is_some_and(|field| field == id.to_string()))?;
    let (before, after) = line.split_once(" - ")?;
    let mount_point = before.split(' ').nth(4)?;
    let mut after = after.split(' ');
    let (filesystem, _source, options) = (after.next()?, after.next()?, after.next()?);
    let has = |wanted: &str| options.split(',').any(|option| option == wanted);
    Some(MountFacts {
        mount_point: unescape(mount_point),
        filesystem: filesystem.to_owned(),
        noswap: has("noswap"),
        huge: has("huge=always") || has("huge=within_size"),
        free_bytes: None,
    })
}

/// `/proc/swaps`: a line of headings, then one for each swap.
pub(super) fn swap_is_on(swaps: &str) -> bool {
    swaps.lines().skip(1).any(|line| !line.trim().is_empty())
}

/// `MemAvailable` of `/proc/meminfo`, in bytes.
pub(super) fn memory_available(meminfo: &str) -> Result<u64, PlaceError> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemAvailable:"));
    let kilobytes = line.and_then(|line| line.trim().strip_suffix(" kB")).and_then(|number| number.parse::<u64>().ok());
    let unknown =
        || PlaceError::Unknown { what: "how much memory is free", found: line.unwrap_or("nothing").to_owned() };
    Ok(kilobytes.ok_or_else(unknown)?.saturating_mul(1024))
}

fn mount_of(directory: impl AsFd) -> Result<MountFacts, PlaceError> {
    let stat = rustix::fs::statx(&directory, "", AtFlags::EMPTY_PATH, StatxFlags::MNT_ID).map_err(unknown_place)?;
    let no_mount = || unknown_place(format_args!("mount {} is not in /proc/thread-self/mountinfo", stat.stx_mnt_id));
    let mut mount = find_mount(&read("/proc/thread-self/mountinfo")?, stat.stx_mnt_id).ok_or_else(no_mount)?;
    let space = rustix::fs::fstatvfs(&directory).map_err(unknown_place)?;
    // A tmpfs without a limit and a ramfs count no blocks.
    mount.free_bytes = (space.f_blocks > 0).then(|| space.f_bavail.saturating_mul(space.f_frsize));
    Ok(mount)
}

fn unknown_place(found: impl std::fmt::Display) -> PlaceError {
    PlaceError::Unknown { what: "where the destination lies", found: found.to_string() }
}

/// CAP_IPC_LOCK lifts the limit on locked memory; not that of a user namespace.
fn lockable_bytes() -> u64 {
    let may_lock_all = user_namespace::is_initial()
        && rustix::thread::capabilities(None)
            .is_ok_and(|capabilities| capabilities.effective.contains(CapabilitySet::IPC_LOCK));
    if may_lock_all { u64::MAX } else { rustix::process::getrlimit(Resource::Memlock).current.unwrap_or(u64::MAX) }
}

/// A path in mountinfo has space, tab, newline and backslash as `\` and three octal digits.
fn unescape(path: &str) -> String {
    let mut bytes = Vec::with_capacity(path.len());
    let mut rest = path.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        let octal = after.get(..3).filter(|_| *first == b'\\').and_then(|digits| std::str::from_utf8(digits).ok());
        match octal.and_then(|digits| u8::from_str_radix(digits, 8).ok()) {
            Some(byte) => {
                bytes.push(byte);
                rest = &after[3..];
            }
            None => {
                bytes.push(*first);
                rest = after;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

fn read(path: &'static str) -> Result<String, PlaceError> {
    std::fs::read_to_string(path).map_err(|error| PlaceError::Unknown { what: path, found: error.to_string() })
}
