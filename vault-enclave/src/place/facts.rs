//! What the kernel says of a directory, of swap and of memory. Read once, judged by pure functions.

use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, StatxFlags};
use rustix::process::Resource;
use rustix::thread::CapabilitySet;

use super::PlaceError;

const CGROUP_ROOT: &str = "/sys/fs/cgroup";

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
    /// Memory that the machine and the cgroups of this process have to give.
    pub available_memory: u64,
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
    /// Asks the kernel about `directory`, which exists.
    ///
    /// # Errors
    /// [`PlaceError::Unknown`].
    pub fn gather(directory: &Path) -> Result<Self, PlaceError> {
        let memory = memory_available(&read("/proc/meminfo")?)?;
        let cgroups = cgroup_directories(&read("/proc/self/cgroup")?);
        let limits: Vec<CgroupLimits> = cgroups.iter().map(|cgroup| CgroupLimits::read(cgroup)).collect();
        let free = limits.iter().filter_map(CgroupLimits::free).min();
        Ok(Self {
            mount: mount_of(directory)?,
            swap_is_on: swap_is_on(&read("/proc/swaps")?),
            cgroup_never_swaps: limits.iter().any(CgroupLimits::never_swaps),
            lockable_bytes: lockable_bytes(),
            available_memory: free.map_or(memory, |free| free.min(memory)),
        })
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

/// The cgroup v2 directory of this process and all above it, innermost first, from `/proc/self/cgroup`.
pub(super) fn cgroup_directories(cgroup: &str) -> Vec<PathBuf> {
    let Some(path) = cgroup.lines().find_map(|line| line.strip_prefix("0::/")) else { return Vec::new() };
    // Seen from another cgroup namespace the path starts with "..", and says nothing of what can be read here.
    if path.split('/').any(|part| part == "..") {
        return Vec::new();
    }
    let root = Path::new(CGROUP_ROOT);
    root.join(path).ancestors().take_while(|directory| directory.starts_with(root)).map(Path::to_owned).collect()
}

/// Limits of one cgroup; `None` where a file is absent, as at the root, or says `max`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct CgroupLimits {
    pub(super) swap_max: Option<u64>,
    pub(super) memory_max: Option<u64>,
    pub(super) memory_current: Option<u64>,
}

impl CgroupLimits {
    fn read(cgroup: &Path) -> Self {
        let number = |name: &str| std::fs::read_to_string(cgroup.join(name)).ok()?.trim().parse().ok();
        Self {
            swap_max: number("memory.swap.max"),
            memory_max: number("memory.max"),
            memory_current: number("memory.current"),
        }
    }

    pub(super) fn never_swaps(&self) -> bool {
        self.swap_max == Some(0)
    }

    /// What may still be charged to it. Page cache counts as used here though it could be had back: too little rather
    /// than too much.
    pub(super) fn free(&self) -> Option<u64> {
        self.memory_max.zip(self.memory_current).map(|(max, current)| max.saturating_sub(current))
    }
}

fn mount_of(directory: &Path) -> Result<MountFacts, PlaceError> {
    let unknown = |errno: rustix::io::Errno| PlaceError::Unknown {
        what: "where the destination lies",
        found: format!("{}: {errno}", directory.display()),
    };
    let stat = rustix::fs::statx(rustix::fs::CWD, directory, AtFlags::empty(), StatxFlags::MNT_ID).map_err(unknown)?;
    let mut mount = find_mount(&read("/proc/thread-self/mountinfo")?, stat.stx_mnt_id).ok_or(PlaceError::Unknown {
        what: "where the destination lies",
        found: format!("mount {} is not in /proc/thread-self/mountinfo", stat.stx_mnt_id),
    })?;
    let space = rustix::fs::statvfs(directory).map_err(unknown)?;
    // A tmpfs without a limit and a ramfs count no blocks.
    mount.free_bytes = (space.f_blocks > 0).then(|| space.f_bavail.saturating_mul(space.f_frsize));
    Ok(mount)
}

/// CAP_IPC_LOCK lifts the limit on locked memory.
fn lockable_bytes() -> u64 {
    let may_lock_all = rustix::thread::capabilities(None)
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
