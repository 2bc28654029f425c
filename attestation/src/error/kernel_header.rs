//! Why a kernel's setup header can't be filled in as QEMU does it.

use std::error::Error;
use std::fmt;

/// Why it is not known which bytes QEMU gives the firmware.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KernelHeaderError {
    /// The initrd does not fit below the highest address that the kernel takes, or below the guest's memory.
    InitrdOutsideMemory,
    /// A kernel that is loaded below 1 MiB: QEMU puts its command line elsewhere.
    LoadedLow,
    /// No Linux setup header.
    Missing,
    /// A boot protocol before 2.12, which has no `xloadflags`.
    Old {
        /// The protocol, major in the high byte.
        found: u16,
    },
    /// The command line has `vga=`, which QEMU also writes into the header.
    VideoMode,
}

impl KernelHeaderError {
    /// A stable name.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::InitrdOutsideMemory => "kernel-header-initrd-outside-memory",
            Self::LoadedLow => "kernel-header-loaded-low",
            Self::Missing => "kernel-header-missing",
            Self::Old { .. } => "kernel-header-old",
            Self::VideoMode => "kernel-header-video-mode",
        }
    }
}

impl fmt::Display for KernelHeaderError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::InitrdOutsideMemory => f.write_str("the initrd does not fit into that much memory"),
            Self::LoadedLow => f.write_str("a kernel that is loaded below 1 MiB"),
            Self::Missing => f.write_str("there is no Linux setup header: QEMU does not start it as a kernel"),
            Self::Old { found } => write!(f, "boot protocol {}.{:02} is older than 2.12", found >> 8, found & 0xff),
            Self::VideoMode => f.write_str("the command line has vga=, which QEMU writes into the kernel too"),
        }
    }
}

impl Error for KernelHeaderError {}
