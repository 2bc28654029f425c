//! Why memory could not be had or kept.

use std::fmt;

use rustix::io::Errno;

/// Why memory could not be had or kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RegionError {
    /// A length of zero, or one that does not fit the address space.
    Length(u64),
    /// The kernel gave no memory, or would not map the file.
    Map(Errno),
    /// The kernel would not keep the memory out of swap.
    Lock {
        /// Bytes asked for.
        bytes: usize,
        /// What the kernel said.
        errno: Errno,
    },
    /// The kernel would not keep the memory out of core dumps or forked children.
    Advise(Errno),
    /// Pages of a mapped file could not be had: its file system or memory is full.
    Prefault(Errno),
    /// The process could not be closed to debuggers and core dumps.
    Harden(Errno),
}

impl RegionError {
    /// Stable name of the refusal.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Length(_) => "memory-length",
            Self::Map(_) => "memory-map",
            Self::Lock { .. } => "memory-lock",
            Self::Advise(_) => "memory-advise",
            Self::Prefault(_) => "memory-full",
            Self::Harden(_) => "process-harden",
        }
    }
}

impl fmt::Display for RegionError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Length(len) => write!(f, "cannot map {len} bytes"),
            Self::Map(errno) => write!(f, "the kernel gave no memory: {errno}"),
            Self::Lock { bytes, errno } => write!(
                f,
                "cannot lock {bytes} bytes of memory ({errno}), so they could be swapped out; raise the limit on locked \
                 memory (`ulimit -l unlimited`, LimitMEMLOCK=infinity in a systemd unit) or give CAP_IPC_LOCK"
            ),
            Self::Advise(errno) => write!(f, "cannot keep memory out of core dumps and forked children: {errno}"),
            Self::Prefault(errno) => {
                write!(f, "no room for the plaintext: its file system or this machine's memory is full ({errno})")
            }
            Self::Harden(errno) => write!(f, "cannot close this process to debuggers and core dumps: {errno}"),
        }
    }
}

impl std::error::Error for RegionError {}
