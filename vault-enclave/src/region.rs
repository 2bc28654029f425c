//! Memory that the operating system keeps to itself, and files seen as memory.
//!
//! The only file of the workspace with `unsafe`. [`Region`] holds keys: never swapped, never in a core dump, empty in a
//! forked child, fenced by pages that fault, wiped before it is given back. [`FileMapping`] is the place where weights
//! are opened: the bytes of a file, written without a system call per chunk. [`WeightRegion`] is that place in a program
//! that has them in memory of its own. `snp_derived_key` and `snp_report` are
//! here as the kernel writes through the addresses in their requests: a derived key straight into a [`Region`].
//!
//! What it does not do: it does not hide memory from root on the same machine (only an encrypted guest does), and
//! `abort` or `mem::forget` skip the wipe (the kernel clears pages before another process gets them).

#![allow(unsafe_code)]

mod error;

use std::hint::black_box;
use std::ops::Range;
use std::os::fd::{AsFd, BorrowedFd, RawFd};
use std::ptr::NonNull;
use std::sync::Arc;

use rustix::io::{Errno, FdFlags};
use rustix::ioctl::{Opcode, Updater, ioctl, opcode};
use rustix::mm::{Advice, MapFlags, MlockFlags, MprotectFlags, ProtFlags};
use rustix::process::{DumpableBehavior, Resource, Rlimit};
use zeroize::Zeroize;

pub use error::RegionError;

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

/// A range of anonymous memory for weights, in huge pages where the kernel has them: in no core dump, not there in a forked
/// child, fenced by pages that fault. Whoever has the range is its only owner; it can be cut, and each piece is wiped by
/// itself when its owner drops it. Not `Clone`, not `Debug`.
///
/// A child has no such pages at all, not pages of zeros: those pass for weights.
pub struct WeightRegion {
    memory: Arc<Mapping>,
    /// Within the mapping. No other region has any of it.
    range: Range<usize>,
    /// Somebody could write to it: untouched pages are not made just to be wiped.
    lent: bool,
}

/// The usual huge page. Where those of a machine have another size, it gets small ones, or more of them than it asked for.
const HUGE_PAGE_BYTES: usize = 2 << 20;

impl WeightRegion {
    /// `len` zero bytes from the border of a huge page on, which come to be when they are written; with `lock` they are kept
    /// out of swap from then on.
    ///
    /// # Errors
    /// [`RegionError::Length`]; [`RegionError::Map`] where there is no room; [`RegionError::Lock`] where the limit on locked
    /// memory is too low; [`RegionError::Advise`].
    pub fn new(len: usize, lock: bool) -> Result<Self, RegionError> {
        let too_long = RegionError::Length(len as u64);
        let usable = len.checked_next_multiple_of(HUGE_PAGE_BYTES).filter(|usable| *usable > 0).ok_or(too_long)?;
        let memory = Mapping::reserve(usable.checked_add(2 * HUGE_PAGE_BYTES).ok_or(too_long)?)?;
        let offset = memory.at(0).addr().next_multiple_of(HUGE_PAGE_BYTES) - memory.at(0).addr();
        let start = memory.at(offset).cast();
        // SAFETY: `start..start + usable` lies in the mapping that this function alone owns, with at least one page before
        // it or none, and one behind it; no reference to it exists yet, and none of these calls changes content.
        // JUSTIFICATION: rustix marks every call on an address range unsafe; the allocator gives no pages of their own.
        unsafe {
            rustix::mm::mprotect(start, usable, MprotectFlags::READ | MprotectFlags::WRITE)
                .map_err(RegionError::Map)?;
            if lock {
                rustix::mm::mlock_with(start, usable, MlockFlags::ONFAULT)
                    .map_err(|errno| RegionError::Lock { bytes: usable, errno })?;
            }
            rustix::mm::madvise(start, usable, Advice::LinuxDontDump).map_err(RegionError::Advise)?;
            rustix::mm::madvise(start, usable, Advice::LinuxDontFork).map_err(RegionError::Advise)?;
            // Refused where the kernel has no huge pages: slower, not wrong.
            let _ = rustix::mm::madvise(start, usable, Advice::LinuxHugepage);
        }
        Ok(Self { memory: Arc::new(memory), range: offset..offset + len, lent: false })
    }

    /// How many bytes.
    #[must_use]
    pub fn len(&self) -> usize {
        self.range.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.range.is_empty()
    }

    /// Cuts off the first `at` bytes, or all where there are fewer.
    pub(crate) fn split_to(&mut self, at: usize) -> Self {
        let cut = self.range.start + at.min(self.range.len());
        let first = self.range.start..cut;
        self.range.start = cut;
        Self { memory: Arc::clone(&self.memory), range: first, lent: self.lent }
    }

    /// The bytes, to fill in place.
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        self.lent = true;
        // SAFETY: `new` made the range readable and writable, the kernel filled it with zeros, and it stays mapped as long as
        // `memory`. No other region has a byte of it (`split_to` gives each to one), and `&mut self` makes this the only
        // reference.
        // JUSTIFICATION: as in `Region::bytes`.
        unsafe { std::slice::from_raw_parts_mut(self.memory.at(self.range.start), self.range.len()) }
    }

    /// The bytes.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        // One region follows itself.
        Self::joined(std::iter::once(self)).unwrap_or_default()
    }

    /// The bytes of regions that follow each other in one mapping; `None` where they do not. Of none there are none.
    pub(crate) fn joined<'a>(mut regions: impl Iterator<Item = &'a Self>) -> Option<&'a [u8]> {
        let Some(first) = regions.next() else { return Some(&[]) };
        let mut end = first.range.end;
        for region in regions {
            if !Arc::ptr_eq(&region.memory, &first.memory) || region.range.start != end {
                return None;
            }
            end = region.range.end;
        }
        // SAFETY: every byte of `first.range.start..end` belongs to one of the regions, each of which is borrowed for `'a`:
        // it is mapped, initialised, and nobody has it to write meanwhile. All are of one mapping, whose pointer this is.
        // JUSTIFICATION: as in `Region::bytes`; slices that lie beside each other can't be joined without it.
        Some(unsafe { std::slice::from_raw_parts(first.memory.at(first.range.start), end - first.range.start) })
    }

    /// How much of the whole mapping that this is of lies in huge pages: proc(5), smaps. None where the kernel does not say.
    #[must_use]
    pub fn huge_bytes(&self) -> u64 {
        let smaps = std::fs::read_to_string("/proc/self/smaps").unwrap_or_default();
        let at = self.memory.at(self.range.start).addr();
        let mut inside = false;
        for line in smaps.lines() {
            let range = line.split(' ').next().and_then(|range| range.split_once('-'));
            if let Some((from, to)) = range
                && let (Ok(from), Ok(to)) = (usize::from_str_radix(from, 16), usize::from_str_radix(to, 16))
            {
                inside = (from..to).contains(&at);
            }
            if let Some(huge) = line.strip_prefix("AnonHugePages:").filter(|_| inside) {
                return kilobytes(huge);
            }
        }
        0
    }
}

impl Drop for WeightRegion {
    fn drop(&mut self) {
        if self.lent {
            let bytes = self.bytes_mut();
            bytes.fill(0);
            // The compiler must take it that somebody reads these zeros, so it has to write them.
            black_box(&*bytes);
        }
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

/// Bytes of files in memory that this process has mapped in huge pages: proc(5), smaps_rollup. None where the kernel does
/// not say.
pub(crate) fn huge_bytes() -> u64 {
    let rollup = std::fs::read_to_string("/proc/self/smaps_rollup").unwrap_or_default();
    rollup.lines().find_map(|line| line.strip_prefix("ShmemPmdMapped:")).map_or(0, kilobytes)
}

/// Bytes of a number of kB as proc(5) has them.
fn kilobytes(text: &str) -> u64 {
    text.trim().strip_suffix(" kB").and_then(|number| number.parse::<u64>().ok()).unwrap_or(0) << 10
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

/// Whether a program that this process executes would have this descriptor of it.
pub(crate) fn is_inheritable(descriptor: RawFd) -> bool {
    with_descriptor(descriptor, |descriptor| {
        rustix::io::fcntl_getfd(descriptor).is_ok_and(|flags| !flags.contains(FdFlags::CLOEXEC))
    })
}

/// Keeps a descriptor of this process from programs that it executes.
pub(crate) fn close_on_execution(descriptor: RawFd) -> Result<(), Errno> {
    with_descriptor(descriptor, |descriptor| rustix::io::fcntl_setfd(descriptor, FdFlags::CLOEXEC))
}

fn with_descriptor<T>(descriptor: RawFd, ask: impl FnOnce(BorrowedFd<'_>) -> T) -> T {
    // SAFETY: both callers are in this file, and read or write its flags alone. Of one that was closed meanwhile there are
    // none, or those of another one, which stays what it is.
    // JUSTIFICATION: a library that opened it gives no owner of it, and rustix takes no bare numbers.
    ask(unsafe { BorrowedFd::borrow_raw(descriptor) })
}

/// What the kernel's sev-guest driver answered where it did not do what was asked (Linux `uapi/linux/sev-guest.h`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct GuestRequestError {
    /// What the call returned.
    pub(crate) errno: Errno,
    /// `exitinfo2`: the firmware's error below, the hypervisor's in the upper 32 bits.
    pub(crate) exit_info: u64,
}

/// SNP_GET_DERIVED_KEY: MSG_KEY_REQ in, MSG_KEY_RSP out. The request is as long as that of message version 2.
pub(crate) fn snp_derived_key(
    device: impl AsFd,
    message_version: u8,
    request: &[u8; 40],
    response: &mut [u8; 64],
) -> Result<(), GuestRequestError> {
    guest_request::<{ guest_opcode(1) }>(device, message_version, read_at(request), written_at(response))
}

/// SNP_GET_EXT_REPORT: MSG_REPORT_REQ in, MSG_REPORT_RSP and the host's certificate table out. `certificates` is a whole
/// number of pages, at most 16 KiB.
pub(crate) fn snp_report(
    device: impl AsFd,
    request: &[u8; 96],
    certificates: &mut [u8],
    response: &mut [u8; 4000],
) -> Result<(), GuestRequestError> {
    let length = u32::try_from(certificates.len()).unwrap_or(0);
    let mut extended = ExtendedRequest { report: *request, address: written_at(certificates.as_mut_ptr()), length };
    guest_request::<{ guest_opcode(2) }>(device, 1, written_at(&mut extended), written_at(response))
}

/// `struct snp_ext_report_req`.
#[repr(C)]
struct ExtendedRequest {
    report: [u8; 96],
    address: u64,
    length: u32,
}

/// `struct snp_guest_request_ioctl`.
#[repr(C)]
struct GuestRequest {
    message_version: u8,
    request: u64,
    response: u64,
    exit_info: u64,
}

const fn guest_opcode(number: u8) -> Opcode {
    opcode::read_write::<GuestRequest>(b'S', number)
}

/// An address that the kernel only reads from.
fn read_at(bytes: &[u8]) -> u64 {
    bytes.as_ptr().expose_provenance() as u64
}

/// An address that the kernel writes to.
fn written_at<T>(to: *mut T) -> u64 {
    to.expose_provenance() as u64
}

fn guest_request<const OPCODE: Opcode>(
    device: impl AsFd,
    message_version: u8,
    request: u64,
    response: u64,
) -> Result<(), GuestRequestError> {
    let mut call = GuestRequest { message_version, request, response, exit_info: 0 };
    // SAFETY: both callers are in this file. Each passes addresses of live buffers, exclusive where the kernel writes, that
    // are as long as the structures of this opcode; a table never exceeds the length given beside its address.
    // JUSTIFICATION: the driver has no other interface for keys. A library's would hand a key over by value, on the stack.
    let result = unsafe { ioctl(device, Updater::<OPCODE, GuestRequest>::new(&mut call)) };
    result.map_err(|errno| GuestRequestError { errno, exit_info: call.exit_info })
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

#[cfg(test)]
mod tests;
