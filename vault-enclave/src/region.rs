//! Memory that the operating system keeps to itself, and files seen as memory.
//!
//! The only file of the workspace with `unsafe`. [`Region`] holds keys: never swapped, never in a core dump, empty in a
//! forked child, fenced by pages that fault, wiped before it is given back. [`FileMapping`] is the place where weights
//! are opened: the bytes of a file, written without a system call per chunk.
//!
//! What it does not do: it does not hide memory from root on the same machine (only an encrypted guest does), and
//! `abort` or `mem::forget` skip the wipe (the kernel clears pages before another process gets them).

#![allow(unsafe_code)]

use std::fmt;
use std::os::fd::AsFd;
use std::ptr::NonNull;

use rustix::io::Errno;
use rustix::mm::{Advice, MapFlags, MlockFlags, MprotectFlags, ProtFlags};
use rustix::process::{DumpableBehavior, Resource, Rlimit};
use zeroize::Zeroize;

/// Locked memory for keys. Not `Clone`, not `Debug`: what is inside is shown to nobody.
pub struct Region {
    mapping: Mapping,
    /// Offset of the first usable byte: one guard page.
    offset: usize,
    /// Bytes that the owner asked for.
    len: usize,
}

/// A file of known length, mapped shared and writable.
pub struct FileMapping(Mapping);

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

impl Region {
    /// `len` zero bytes in whole pages of their own.
    ///
    /// # Errors
    /// [`RegionError::Lock`] where the limit on locked memory is too low.
    pub fn new(len: usize) -> Result<Self, RegionError> {
        let too_long = RegionError::Length(len as u64);
        let page = rustix::param::page_size();
        let usable = len.checked_next_multiple_of(page).filter(|usable| *usable > 0).ok_or(too_long)?;
        let mapping = Mapping::reserve(usable.checked_add(2 * page).ok_or(too_long)?)?;
        let start = mapping.at(page).cast();
        // SAFETY: `start..start + usable` are whole pages inside the mapping that this function alone owns; no reference
        // to them exists yet, and none of these calls unmaps them or changes their content.
        // JUSTIFICATION: rustix marks every call on an address range unsafe; there is no safe way to lock memory.
        unsafe {
            rustix::mm::mprotect(start, usable, MprotectFlags::READ | MprotectFlags::WRITE)
                .map_err(RegionError::Map)?;
            rustix::mm::mlock(start, usable).map_err(|errno| RegionError::Lock { bytes: usable, errno })?;
            rustix::mm::madvise(start, usable, Advice::LinuxDontDump).map_err(RegionError::Advise)?;
            rustix::mm::madvise(start, usable, Advice::LinuxWipeOnFork).map_err(RegionError::Advise)?;
        }
        Ok(Self { mapping, offset: page, len })
    }

    /// The bytes.
    pub(crate) fn bytes(&self) -> &[u8] {
        // SAFETY: `new` made `offset..offset + len` readable and writable, the kernel filled it with zeros, and it stays
        // mapped as long as `self`. `&self` forbids `bytes_mut` meanwhile.
        // JUSTIFICATION: the standard library has no owner of memory that came from mmap.
        unsafe { std::slice::from_raw_parts(self.mapping.at(self.offset), self.len) }
    }

    /// The bytes, to fill in place.
    pub(crate) fn bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY: as in `bytes`; `&mut self` makes this the only reference.
        // JUSTIFICATION: as in `bytes`.
        unsafe { std::slice::from_raw_parts_mut(self.mapping.at(self.offset), self.len) }
    }
}

impl Drop for Region {
    fn drop(&mut self) {
        self.bytes_mut().zeroize();
    }
}

impl FileMapping {
    /// Maps the first `len` bytes of `file`, which must be at least that long and stay so: nobody else may shorten it.
    /// The pages stay out of core dumps; with `huge` the kernel is asked for huge pages, where the file system has them.
    ///
    /// # Errors
    /// [`RegionError::Length`] for an empty file, [`RegionError::Map`] where the kernel refuses.
    pub fn new(file: impl AsFd, len: u64, huge: bool) -> Result<Self, RegionError> {
        let bytes = usize::try_from(len).ok().filter(|bytes| *bytes > 0).ok_or(RegionError::Length(len))?;
        let mapping = Mapping::file(file, bytes)?;
        // SAFETY: the whole of a mapping that this function alone owns; the advice changes no content.
        // JUSTIFICATION: rustix marks every call on an address range unsafe.
        unsafe {
            rustix::mm::madvise(mapping.at(0).cast(), bytes, Advice::LinuxDontDump).map_err(RegionError::Advise)?;
            if huge {
                // Refused where the kernel has no huge pages: slower, not wrong.
                let _ = rustix::mm::madvise(mapping.at(0).cast(), bytes, Advice::LinuxHugepage);
            }
        }
        Ok(Self(mapping))
    }

    /// The bytes of the file.
    pub(crate) fn bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY: the mapping is readable and writable and lives as long as `self`, and `&mut self` makes this its only
        // reference in this process. The file is one that this process created in a directory of its own and holds open;
        // others are not to write to it before it is handed over, and a byte that they did change would only fail its tag.
        // JUSTIFICATION: opening weights through write() would copy each byte once more and keep plaintext in a buffer.
        unsafe { std::slice::from_raw_parts_mut(self.0.at(0), self.0.len) }
    }

    /// Keeps the pages of the file out of swap as long as `self` lives, each from its first use on.
    ///
    /// # Errors
    /// [`RegionError::Lock`] where the limit on locked memory is too low.
    pub fn lock(&self) -> Result<(), RegionError> {
        let bytes = self.0.len;
        // SAFETY: the whole of our own mapping; locking changes no content.
        // JUSTIFICATION: rustix marks every call on an address range unsafe.
        unsafe { rustix::mm::mlock_with(self.0.at(0).cast(), bytes, MlockFlags::ONFAULT) }
            .map_err(|errno| RegionError::Lock { bytes, errno })
    }
}

/// Has the pages of `bytes` made now, in one call, as an error instead of a SIGBUS at the first write where the file
/// system that they belong to is full.
///
/// # Errors
/// [`RegionError::Prefault`].
pub(crate) fn prefault(bytes: &mut [u8]) -> Result<(), RegionError> {
    let page = rustix::param::page_size();
    let before = bytes.as_ptr().addr() % page;
    let start = bytes.as_mut_ptr().wrapping_sub(before);
    // SAFETY: rounded out to whole pages, all of which hold bytes of a live slice; populating changes no content.
    // JUSTIFICATION: rustix marks every call on an address range unsafe.
    match unsafe { rustix::mm::madvise(start.cast(), before + bytes.len(), Advice::LinuxPopulateWrite) } {
        Ok(()) => Ok(()),
        // Linux before 5.14 does not know the advice.
        Err(Errno::INVAL) => Ok(()),
        Err(errno) => Err(RegionError::Prefault(errno)),
    }
}

/// Closes this process to debuggers of the same user, and this process and all that it executes to core dumps. Called
/// first thing in `main`.
///
/// # Errors
/// [`RegionError::Harden`].
pub fn harden_process() -> Result<(), RegionError> {
    rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable).map_err(RegionError::Harden)?;
    // One byte, not none: where cores are piped to a program (core(5): apport, systemd-coredump), 0 is not enforced, and
    // plaintext of a command would reach a disk. 1 alone stops that, and no file has room for a core in one byte either.
    let one = Rlimit { current: Some(1), maximum: Some(1) };
    match rustix::process::setrlimit(Resource::Core, one) {
        // Not root, and somebody has set the hard limit to 0 before.
        Err(Errno::PERM) => {
            let none = Rlimit { current: Some(0), maximum: Some(0) };
            rustix::process::setrlimit(Resource::Core, none).map_err(RegionError::Harden)
        }
        set => set.map_err(RegionError::Harden),
    }
}

/// One range that mmap gave, unmapped on drop.
struct Mapping {
    base: NonNull<u8>,
    len: usize,
}

impl Mapping {
    /// Address space without any access.
    fn reserve(len: usize) -> Result<Self, RegionError> {
        // SAFETY: a null hint without MAP_FIXED can replace no mapping that exists.
        // JUSTIFICATION: mmap is unsafe in rustix; the allocator gives no pages of their own.
        let base =
            unsafe { rustix::mm::mmap_anonymous(std::ptr::null_mut(), len, ProtFlags::empty(), MapFlags::PRIVATE) };
        Self::owned(base, len)
    }

    /// The first `len` bytes of a file, shared.
    fn file(file: impl AsFd, len: usize) -> Result<Self, RegionError> {
        let access = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: as in `reserve`.
        // JUSTIFICATION: as in `FileMapping::bytes_mut`.
        let base = unsafe { rustix::mm::mmap(std::ptr::null_mut(), len, access, MapFlags::SHARED, file, 0) };
        Self::owned(base, len)
    }

    fn owned(base: Result<*mut std::ffi::c_void, Errno>, len: usize) -> Result<Self, RegionError> {
        let base = NonNull::new(base.map_err(RegionError::Map)?.cast()).ok_or(RegionError::Map(Errno::NOMEM))?;
        Ok(Self { base, len })
    }

    /// Address of the byte at `offset`, which is below `len` for every caller in this file.
    fn at(&self, offset: usize) -> *mut u8 {
        self.base.as_ptr().wrapping_add(offset)
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: exactly the range that mmap gave to this owner; every reference into it borrowed the owner.
        // JUSTIFICATION: the standard library has no owner of memory that came from mmap.
        let unmapped = unsafe { rustix::mm::munmap(self.base.as_ptr().cast(), self.len) };
        debug_assert!(unmapped.is_ok(), "munmap of our own mapping failed");
    }
}

// SAFETY: a `Mapping` owns its pages alone and has no interior mutability: shared references only read.
// JUSTIFICATION: the raw pointer inside takes this away, and keys and files are used by several threads.
unsafe impl Send for Mapping {}
// SAFETY: as above.
// JUSTIFICATION: as above.
unsafe impl Sync for Mapping {}

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_region_starts_as_zeros_and_keeps_what_is_written() {
        let mut region = Region::new(100).unwrap();
        assert_eq!(region.bytes(), [0; 100]);
        region.bytes_mut()[99] = 7;
        assert_eq!(region.bytes()[99], 7);
    }

    #[test]
    fn an_empty_or_endless_region_is_refused() {
        assert_eq!(Region::new(0).err(), Some(RegionError::Length(0)));
        assert_eq!(Region::new(usize::MAX).err(), Some(RegionError::Length(u64::MAX)));
    }

    #[test]
    fn a_region_is_locked_undumped_and_empty_after_a_fork() {
        let region = Region::new(1).unwrap();
        let flags = vm_flags(region.bytes().as_ptr().addr());
        for flag in ["lo", "dd", "wf"] {
            assert!(flags.iter().any(|f| f == flag), "{flag} is not among {flags:?}");
        }
    }

    #[test]
    fn a_mapped_file_has_the_bytes_that_were_written_through_the_mapping() {
        let file = tempfile::tempfile().unwrap();
        file.set_len(10_000).unwrap();
        let mut mapping = FileMapping::new(&file, 10_000, true).unwrap();
        prefault(&mut mapping.bytes_mut()[5_000..]).unwrap();
        mapping.bytes_mut()[9_999] = 42;
        drop(mapping);
        let mut last = [0];
        rustix::io::pread(&file, &mut last, 9_999).unwrap();
        assert_eq!(last, [42]);
    }

    #[test]
    fn an_empty_file_cannot_be_mapped() {
        let file = tempfile::tempfile().unwrap();
        assert_eq!(FileMapping::new(&file, 0, false).err(), Some(RegionError::Length(0)));
    }

    #[test]
    fn a_full_file_system_is_an_error_and_not_a_signal() {
        let file = tempfile::tempfile().unwrap();
        file.set_len(4096).unwrap();
        let mut mapping = FileMapping::new(&file, 4096, false).unwrap();
        // A file cut short behind our back raises the same signal as a full tmpfs, which a test cannot have for sure.
        file.set_len(0).unwrap();
        assert!(matches!(prefault(mapping.bytes_mut()), Err(RegionError::Prefault(_))));
    }

    #[test]
    fn a_hardened_process_is_closed_to_debuggers_and_dumps_no_core() {
        // In a process of its own: it cannot be undone, and other tests of this one look into it.
        let mut child = std::process::Command::new(std::env::current_exe().unwrap());
        let status = child.args(["--exact", "region::tests::hardened", "--ignored"]).status().unwrap();
        assert!(status.success());
    }

    #[test]
    #[ignore = "run by the test above"]
    fn hardened() {
        let before = rustix::process::getrlimit(Resource::Core).maximum;
        harden_process().unwrap();
        assert_eq!(rustix::process::dumpable_behavior(), Ok(DumpableBehavior::NotDumpable));
        let limit = rustix::process::getrlimit(Resource::Core);
        if before == Some(0) {
            eprintln!("the hard limit was 0 before: only who has CAP_SYS_RESOURCE can raise it");
            assert!(limit.maximum <= Some(1));
        } else {
            assert_eq!((limit.current, limit.maximum), (Some(1), Some(1)), "0 would not stop a core that is piped");
        }
        // What is executed can be dumped again by itself: only the limit goes with it.
        use std::os::unix::process::ExitStatusExt;
        let dir = tempfile::tempdir().unwrap();
        let mut aborting = std::process::Command::new("sh");
        let status = aborting.args(["-c", "kill -ABRT $$"]).current_dir(dir.path()).status().unwrap();
        assert!(!status.core_dumped(), "{status}");
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    }

    #[test]
    fn memory_that_the_kernel_will_not_lock_holds_no_key() {
        // In a process of its own, which gives up the right to lock: it cannot be undone.
        let mut child = std::process::Command::new(std::env::current_exe().unwrap());
        let status = child.args(["--exact", "region::tests::unlockable", "--ignored"]).status().unwrap();
        assert!(status.success());
    }

    #[test]
    #[ignore = "run by the test above"]
    fn unlockable() {
        use rustix::thread::{CapabilitySet, CapabilitySets};
        let none = CapabilitySet::empty();
        let sets = CapabilitySets { effective: none, permitted: none, inheritable: none };
        rustix::thread::set_capabilities(None, sets).unwrap();
        let nothing = Rlimit { current: Some(0), maximum: Some(0) };
        rustix::process::setrlimit(Resource::Memlock, nothing).unwrap();
        let refused = Region::new(1).err().unwrap();
        assert!(matches!(refused, RegionError::Lock { .. }), "{refused}");
        assert_eq!(refused.code(), "memory-lock");
        let file = tempfile::tempfile().unwrap();
        file.set_len(4096).unwrap();
        let refused = FileMapping::new(&file, 4096, false).unwrap().lock().unwrap_err();
        assert_eq!(refused.code(), "memory-lock");
        assert!(refused.to_string().contains("ulimit -l"), "{refused}");
    }

    /// A kernel that knows these two calls refuses them to nobody; one that is too old for them does.
    #[test]
    fn what_an_old_kernel_cannot_do_has_a_code_and_words_of_its_own() {
        let advise = RegionError::Advise(Errno::INVAL);
        assert_eq!(advise.code(), "memory-advise");
        assert!(advise.to_string().contains("core dumps"), "{advise}");
        let harden = RegionError::Harden(Errno::INVAL);
        assert_eq!(harden.code(), "process-harden");
        assert!(harden.to_string().contains("debuggers"), "{harden}");
    }

    /// The flags of the mapping that holds `address`: proc(5), smaps, VmFlags.
    fn vm_flags(address: usize) -> Vec<String> {
        let smaps = std::fs::read_to_string("/proc/self/smaps").unwrap();
        let mut inside = false;
        for line in smaps.lines() {
            if let Some((from, to)) = line.split(' ').next().and_then(|range| range.split_once('-'))
                && let (Ok(from), Ok(to)) = (usize::from_str_radix(from, 16), usize::from_str_radix(to, 16))
            {
                inside = (from..to).contains(&address);
            }
            if let Some(flags) = line.strip_prefix("VmFlags:").filter(|_| inside) {
                return flags.split_whitespace().map(String::from).collect();
            }
        }
        Vec::new()
    }
}
