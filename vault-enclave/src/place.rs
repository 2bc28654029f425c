//! Where plaintext may lie: memory that never reaches a disk.
//!
//! A place is judged by what the kernel says of it, and the answer is a [`SafePlace`], without which nothing can be
//! opened. In this order:
//!
//! 1. ramfs is never swapped;
//! 2. a tmpfs mounted `noswap` (Linux 6.4) is not either;
//! 3. any tmpfs where no swap is on;
//! 4. any tmpfs in a cgroup that may not swap (`memory.swap.max` = 0, its own or one above);
//! 5. any tmpfs whose pages are locked as long as the agent lives, where the limit on locked memory lets it.
//!
//! Memory of a program's own (`WeightRegion`) is safe for the reasons 3 to 5.
//!
//! Everything else is refused with what to do about it. Swap that root switches on later defeats 3: whoever is root in
//! the guest is trusted with the weights anyway.

mod cgroup;
mod facts;

use std::fmt;
use std::path::PathBuf;

pub use cgroup::CgroupMemory;
use facts::OWN_MEMORY;
pub use facts::{Facts, MountFacts};

/// A place that was judged safe. Made by [`judge`] alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SafePlace(Kind);

/// Why a place is safe.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Ramfs,
    TmpfsNoswap,
    TmpfsWithoutSwap,
    TmpfsInCgroupWithoutSwap,
    TmpfsLocked,
    MemoryWithoutSwap,
    MemoryInCgroupWithoutSwap,
    MemoryLocked,
    InsecurePlaintextOnDisk,
}

/// Judges a place for a model of `bytes` plaintext bytes. `insecure_plaintext_on_disk` takes any place.
///
/// # Errors
/// [`PlaceError`], whose text says what to do.
pub fn judge(facts: &Facts, bytes: u64, insecure_plaintext_on_disk: bool) -> Result<SafePlace, PlaceError> {
    let kind = match safe_kind(facts, bytes) {
        Ok(kind) => kind,
        Err(_) if insecure_plaintext_on_disk => Kind::InsecurePlaintextOnDisk,
        Err(error) => return Err(error),
    };
    check_room(facts, bytes, kind)?;
    Ok(SafePlace(kind))
}

impl SafePlace {
    /// Whether it is safe only while the pages are locked.
    pub(crate) fn keep_locked(self) -> bool {
        matches!(self.0, Kind::TmpfsLocked | Kind::MemoryLocked)
    }

    /// Whether plaintext may reach a disk here, since that was asked for.
    pub fn is_insecure(self) -> bool {
        self.0 == Kind::InsecurePlaintextOnDisk
    }
}

impl fmt::Display for SafePlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.0 {
            Kind::Ramfs => "ramfs",
            Kind::TmpfsNoswap => "tmpfs mounted noswap",
            Kind::TmpfsWithoutSwap => "tmpfs, no swap is on",
            Kind::TmpfsInCgroupWithoutSwap => "tmpfs, in a cgroup that may not swap",
            Kind::TmpfsLocked => "tmpfs, locked while this process lives",
            Kind::MemoryWithoutSwap => "memory of this process, no swap is on",
            Kind::MemoryInCgroupWithoutSwap => "memory of this process, in a cgroup that may not swap",
            Kind::MemoryLocked => "memory of this process, locked",
            Kind::InsecurePlaintextOnDisk => "INSECURE: plaintext may reach a disk",
        })
    }
}

fn safe_kind(facts: &Facts, bytes: u64) -> Result<Kind, PlaceError> {
    let mount = &facts.mount;
    match mount.filesystem.as_str() {
        "ramfs" => Ok(Kind::Ramfs),
        "tmpfs" if mount.noswap => Ok(Kind::TmpfsNoswap),
        "tmpfs" if !facts.swap_is_on => Ok(Kind::TmpfsWithoutSwap),
        "tmpfs" if facts.cgroup_never_swaps => Ok(Kind::TmpfsInCgroupWithoutSwap),
        "tmpfs" if facts.lockable_bytes >= bytes => Ok(Kind::TmpfsLocked),
        "tmpfs" => Err(PlaceError::Swappable { mount_point: mount.mount_point.clone() }),
        OWN_MEMORY if !facts.swap_is_on => Ok(Kind::MemoryWithoutSwap),
        OWN_MEMORY if facts.cgroup_never_swaps => Ok(Kind::MemoryInCgroupWithoutSwap),
        OWN_MEMORY if facts.lockable_bytes >= bytes => Ok(Kind::MemoryLocked),
        OWN_MEMORY => Err(PlaceError::MemorySwappable { needed: bytes, lockable: facts.lockable_bytes }),
        other => Err(PlaceError::OnDisk { mount_point: mount.mount_point.clone(), filesystem: other.to_owned() }),
    }
}

fn check_room(facts: &Facts, bytes: u64, kind: Kind) -> Result<(), PlaceError> {
    if facts.mount.free_bytes.is_some_and(|free| free < bytes) {
        return Err(PlaceError::FileSystemFull { needed: bytes, free: facts.mount.free_bytes.unwrap_or(0) });
    }
    // On a disk the plaintext takes no memory that could not be had back.
    if kind != Kind::InsecurePlaintextOnDisk && facts.available_memory < bytes {
        return Err(PlaceError::MemoryFull { needed: bytes, free: facts.available_memory });
    }
    if kind != Kind::InsecurePlaintextOnDisk
        && let Some(CgroupMemory { free, directory }) = &facts.cgroup_memory
        && *free < bytes
    {
        return Err(PlaceError::CgroupFull { needed: bytes, free: *free, directory: directory.clone() });
    }
    Ok(())
}

/// Why plaintext may not lie there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PlaceError {
    /// The kernel did not say enough of the place.
    Unknown {
        /// What was asked.
        what: &'static str,
        /// The answer.
        found: String,
    },
    /// Not a file system in memory.
    OnDisk {
        /// Where it is mounted.
        mount_point: String,
        /// Its type.
        filesystem: String,
    },
    /// A tmpfs whose pages can be swapped out.
    Swappable {
        /// Where it is mounted.
        mount_point: String,
    },
    /// Memory of this process, which can be swapped out.
    MemorySwappable {
        /// Bytes of the model.
        needed: u64,
        /// Bytes that may be locked.
        lockable: u64,
    },
    /// The file system has not enough room.
    FileSystemFull {
        /// Bytes of the model.
        needed: u64,
        /// Bytes that are free.
        free: u64,
    },
    /// The machine has not enough memory.
    MemoryFull {
        /// Bytes of the model.
        needed: u64,
        /// Bytes that are free.
        free: u64,
    },
    /// A cgroup of this process may not have so much memory.
    CgroupFull {
        /// Bytes of the model.
        needed: u64,
        /// Bytes that it has left.
        free: u64,
        /// Which.
        directory: PathBuf,
    },
}

impl PlaceError {
    /// Stable name of the refusal.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Unknown { .. } => "place-unknown",
            Self::OnDisk { .. } => "place-on-disk",
            Self::Swappable { .. } => "place-swappable",
            Self::MemorySwappable { .. } => "memory-swappable",
            Self::FileSystemFull { .. } => "place-full",
            Self::MemoryFull { .. } => "memory-too-small",
            Self::CgroupFull { .. } => "cgroup-too-small",
        }
    }
}

impl fmt::Display for PlaceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unknown { what, found } => write!(f, "cannot tell {what}: {found}"),
            Self::OnDisk { mount_point, filesystem } => write!(
                f,
                "{mount_point} is {filesystem}, from where plaintext reaches a disk; use a directory on a tmpfs, such as \
                 one below /dev/shm, or mount one: mount -t tmpfs -o noswap,huge=within_size,mode=0700 tmpfs \
                 DIR"
            ),
            Self::Swappable { mount_point } => write!(
                f,
                "{mount_point} is a tmpfs whose pages can be swapped to a disk; do one of these: mount a tmpfs with \
                 -o noswap (Linux 6.4, root), switch swap off (swapoff -a), run in a cgroup with memory.swap.max = 0 \
                 (systemd-run --scope -p MemorySwapMax=0), or raise the limit on locked memory (ulimit -l unlimited)"
            ),
            Self::MemorySwappable { needed, lockable } => write!(
                f,
                "the model has {needed} bytes, swap is on, and this process may lock {lockable} bytes; switch swap off \
                 (swapoff -a), run in a cgroup with memory.swap.max = 0 (systemd-run --scope -p MemorySwapMax=0), or raise \
                 the limit on locked memory (ulimit -l unlimited, LimitMEMLOCK=infinity)"
            ),
            Self::FileSystemFull { needed, free } => write!(
                f,
                "the model has {needed} bytes and its file system {free} free; make it larger (mount -o \
                 remount,size=…) or empty it"
            ),
            Self::MemoryFull { needed, free } => write!(
                f,
                "the model has {needed} bytes and this machine {free} bytes of memory to give; take a larger machine, or \
                 load fewer groups"
            ),
            Self::CgroupFull { needed, free, directory } => write!(
                f,
                "the model has {needed} bytes and the cgroup {} has {free} bytes of memory left, to which files in memory \
                 are charged; raise its limit (memory.max; of a container or a pod its memory limit, of a unit MemoryMax=) to \
                 that of the server and the model together, or load fewer groups",
                directory.display()
            ),
        }
    }
}

impl std::error::Error for PlaceError {}

#[cfg(test)]
mod tests;
