//! Ciphertext that stays on this machine's disk, for all agents of one user: the sealed units of any models, each under the
//! SHA-256 that its manifest gives it.
//!
//! ```text
//! DIR/lock              held by whoever makes room
//!     HEX.cob           a sealed unit; its time is that of its last use
//!     HEX.part          one that comes, locked by whoever writes it
//!     RANDOM.room       as long as the bytes that a running agent may still add, locked by it
//! ```
//! Nothing here is trusted more than any other source: a unit is opened or refused where it lies, and one that was refused is
//! removed and fetched anew. What is written is what was just opened, so no hash is computed for it. Entries, and the room that
//! agents have reserved, are together never more than the bound: for what is missing, the units go that were not used for the
//! longest time and that nobody reads. What this load uses is not among them, so that a model that is larger than the cache
//! does not push itself out.

use std::collections::HashMap;
use std::fs::File;
use std::io::IoSlice;
use std::ops::Range;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use attestation::UnitSet;
use ledger::manifest::Manifest;
use rustix::fs::{AtFlags, FlockOperation, Mode, OFlags, Timespec, Timestamps, UTIME_NOW};
use rustix::io::Errno;

use super::room;
use crate::failure::{Failure, Kind};
use crate::open::{LocalReader, SourceError};

const LOCK: &str = "lock";
/// What a unit's name ends with, and one that is not whole yet.
pub(super) const ENTRY: &str = ".cob";
pub(super) const PART: &str = ".part";
const FILES: Mode = Mode::RUSR.union(Mode::WUSR);

/// A cache that is in use by one load.
pub(in crate::agent) struct Cache {
    directory: OwnedFd,
    path: PathBuf,
    /// What this load may add, and the file that says so to others.
    room: Mutex<Room>,
    filling: Mutex<HashMap<u32, Option<Arc<Filling>>>>,
    /// The disk did not take what it was given: nothing more is written.
    off: AtomicBool,
}

struct Room {
    file: File,
    name: String,
    /// As long as the file is: all that is not an entry yet.
    bytes: u64,
    /// What of it no unit has begun to take.
    free: u64,
}

/// A unit that is being written.
pub(super) struct Filling {
    file: File,
    name: String,
    length: u64,
    /// Ranges that were written here, and ranges that passed: what was read from elsewhere passes too.
    written: Mutex<Vec<Range<u64>>>,
    passed: Mutex<Vec<Range<u64>>>,
    broken: AtomicBool,
}

impl Cache {
    /// Opens the cache, which is made where it is missing, and makes room for those of `units` that are not in it.
    ///
    /// # Errors
    /// `cache-directory`: it can't be made, is not this user's, or others may write to it.
    pub(in crate::agent) fn open(
        path: &Path,
        bound: u64,
        manifest: &Manifest,
        units: &UnitSet,
    ) -> Result<Self, Failure> {
        let failed = |why: String| {
            Failure::new(Kind::Failed, "cache-directory", format!("{}: {why}", path.display()))
                .next("give --cache a directory of this user's own, or one that is not there yet and whose parent is")
        };
        let directory = open_directory(path).map_err(&failed)?;
        let wanted: Vec<(String, u64)> = units
            .iter()
            .filter_map(|unit| Some((name_of(manifest, unit)?, manifest.unit(unit)?.sealed_len())))
            .collect();
        let io = |errno: Errno| failed(errno.to_string());
        let lock = open_file(&directory, LOCK, OFlags::RDWR | OFlags::CREATE).map_err(io)?;
        rustix::fs::flock(&lock, FlockOperation::LockExclusive).map_err(io)?;
        let mut random = [0; 8];
        getrandom::fill(&mut random).map_err(|error| failed(error.to_string()))?;
        let name = format!("{}{}", hex::encode(random), room::ROOM);
        let file = File::from(open_file(&directory, &name, OFlags::RDWR | OFlags::CREATE).map_err(io)?);
        rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive).map_err(io)?;
        let bytes = room::make(&directory, bound, &wanted).map_err(io)?;
        rustix::fs::ftruncate(&file, bytes).map_err(io)?;
        Ok(Self {
            directory,
            path: path.to_owned(),
            room: Mutex::new(Room { file, name, bytes, free: bytes }),
            filling: Mutex::default(),
            off: AtomicBool::new(false),
        })
    }

    /// A range of a unit that is here.
    pub(super) fn read(&self, manifest: &Manifest, unit: u32, range: Range<u64>) -> Option<LocalReader> {
        let (name, length) = (name_of(manifest, unit)?, manifest.unit(unit)?.sealed_len());
        let reader = LocalReader::open(length, range, |more| open_file(&self.directory, &name, OFlags::RDONLY | more));
        match reader {
            // Whoever makes room meanwhile has it locked, and takes it away.
            Ok(reader) => {
                rustix::fs::flock(&reader, FlockOperation::NonBlockingLockShared).ok()?;
                let _ = touch(&reader);
                Some(reader)
            }
            // Cut short, or no file at all: something else wrote it.
            Err(SourceError::Length { .. }) => {
                self.drop_unit(manifest, unit);
                None
            }
            Err(SourceError::Io(_)) => None,
        }
    }

    /// Removes a unit that was refused: its room is this load's.
    pub(super) fn drop_unit(&self, manifest: &Manifest, unit: u32) {
        let Some(name) = name_of(manifest, unit) else { return };
        let stat = rustix::fs::statat(&self.directory, &name, AtFlags::SYMLINK_NOFOLLOW);
        if let Ok(stat) = stat
            && rustix::fs::unlinkat(&self.directory, &name, AtFlags::empty()).is_ok()
        {
            let _ = lock(&self.room).give(stat.st_size.unsigned_abs());
        }
    }

    /// Where to write a unit while it is read from elsewhere; `None` where there is no room or somebody else writes it.
    pub(super) fn fill(&self, manifest: &Manifest, unit: u32) -> Option<Arc<Filling>> {
        if self.off.load(Ordering::Relaxed) {
            return None;
        }
        let mut filling = lock(&self.filling);
        if let Some(known) = filling.get(&unit) {
            return known.clone();
        }
        let begun = self.begin(manifest, unit);
        let begun = begun.unwrap_or_else(|errno| {
            self.give_up(errno);
            None
        });
        let begun = begun.map(Arc::new);
        filling.insert(unit, begun.clone());
        begun
    }

    fn begin(&self, manifest: &Manifest, unit: u32) -> Result<Option<Filling>, Errno> {
        let (Some(name), Some(plan)) = (name_of(manifest, unit), manifest.unit(unit)) else { return Ok(None) };
        let length = plan.sealed_len();
        if lock(&self.room).free < length {
            return Ok(None);
        }
        let part = name.replace(ENTRY, PART);
        let file = File::from(open_file(&self.directory, &part, OFlags::RDWR | OFlags::CREATE)?);
        let is_ours = rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive).is_ok();
        // One that another agent finished between the two calls has another name by now.
        if !is_ours || !is_still(&self.directory, &part, &file) {
            return Ok(None);
        }
        rustix::fs::ftruncate(&file, 0)?;
        rustix::fs::ftruncate(&file, length)?;
        lock(&self.room).free -= length;
        let (written, passed, broken) = (Mutex::default(), Mutex::default(), AtomicBool::new(false));
        Ok(Some(Filling { file, name, length, written, passed, broken }))
    }

    /// A range of a unit has passed. With the last of them the unit is there for everybody.
    pub(super) fn passed(&self, unit: u32, range: Range<u64>) {
        let Some(filling) = lock(&self.filling).get(&unit).cloned().flatten() else { return };
        if filling.broken.load(Ordering::Relaxed) || !filling.add(range) {
            return;
        }
        lock(&self.filling).insert(unit, None);
        let part = filling.name.replace(ENTRY, PART);
        let done = rustix::fs::renameat(&self.directory, &part, &self.directory, &filling.name);
        let done = done.and_then(|()| lock(&self.room).take(filling.length));
        done.unwrap_or_else(|errno| self.give_up(errno));
    }

    /// Bytes of a unit as they were read, before they are opened: what does not pass is written again.
    pub(super) fn write(&self, filling: &Filling, offset: u64, parts: &[&[u8]]) {
        if !filling.broken.load(Ordering::Relaxed)
            && let Err(errno) = filling.write(offset, parts)
        {
            filling.broken.store(true, Ordering::Relaxed);
            self.give_up(errno);
        }
    }

    /// The load goes on: the cache is a convenience.
    fn give_up(&self, errno: Errno) {
        if !self.off.swap(true, Ordering::Relaxed) {
            let path = self.path.display();
            eprintln!("warning: the cache {path} takes nothing more: {errno}; the load goes on without it");
        }
    }
}

impl Drop for Cache {
    /// What is not whole goes, and the room that was not used.
    fn drop(&mut self) {
        for filling in lock(&self.filling).values().flatten() {
            let _ = rustix::fs::unlinkat(&self.directory, filling.name.replace(ENTRY, PART), AtFlags::empty());
        }
        let _ = rustix::fs::unlinkat(&self.directory, &lock(&self.room).name, AtFlags::empty());
    }
}

impl Room {
    fn give(&mut self, bytes: u64) -> Result<(), Errno> {
        (self.bytes, self.free) = (self.bytes.saturating_add(bytes), self.free.saturating_add(bytes));
        rustix::fs::ftruncate(&self.file, self.bytes)
    }

    fn take(&mut self, bytes: u64) -> Result<(), Errno> {
        self.bytes = self.bytes.saturating_sub(bytes);
        rustix::fs::ftruncate(&self.file, self.bytes)
    }
}

impl Filling {
    fn write(&self, offset: u64, parts: &[&[u8]]) -> Result<(), Errno> {
        let mut at = offset;
        let mut parts: Vec<IoSlice<'_>> = parts.iter().map(|part| IoSlice::new(part)).collect();
        let mut parts = parts.as_mut_slice();
        IoSlice::advance_slices(&mut parts, 0);
        while !parts.is_empty() {
            match rustix::io::pwritev(&self.file, parts, at) {
                Ok(0) => return Err(Errno::NOSPC),
                Ok(written) => {
                    at += written as u64;
                    IoSlice::advance_slices(&mut parts, written);
                }
                Err(Errno::INTR) => {}
                Err(errno) => return Err(errno),
            }
        }
        insert(&mut lock(&self.written), offset..at);
        Ok(())
    }

    /// Whether all of it has passed by now, and is here.
    fn add(&self, range: Range<u64>) -> bool {
        let all = 0..self.length;
        insert(&mut lock(&self.passed), range);
        [&self.passed, &self.written].iter().all(|ranges| lock(ranges).first() == Some(&all))
    }
}

/// Ranges in their order, of which none begins where another ends.
fn insert(ranges: &mut Vec<Range<u64>>, range: Range<u64>) {
    ranges.push(range);
    ranges.sort_by_key(|range| range.start);
    ranges.dedup_by(|next, range| {
        let joins = next.start <= range.end;
        if joins {
            range.end = range.end.max(next.end);
        }
        joins
    });
}

/// A directory of this user's that nobody else writes to: whoever could would have files of this user overwritten, by links.
fn open_directory(path: &Path) -> Result<OwnedFd, String> {
    let text = |errno: Errno| errno.to_string();
    match rustix::fs::mkdir(path, Mode::RWXU) {
        Ok(()) | Err(Errno::EXIST) => {}
        Err(errno) => return Err(text(errno)),
    }
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let directory = rustix::fs::open(path, flags, Mode::empty()).map_err(text)?;
    let stat = rustix::fs::fstat(&directory).map_err(text)?;
    if stat.st_uid != rustix::process::geteuid().as_raw() {
        return Err(format!("it belongs to user {}", stat.st_uid));
    }
    if stat.st_mode & 0o022 != 0 {
        return Err(format!("others may write to it (mode {:04o})", stat.st_mode & 0o7777));
    }
    Ok(directory)
}

pub(super) fn open_file(directory: &OwnedFd, name: &str, flags: OFlags) -> Result<OwnedFd, Errno> {
    let flags = flags | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    rustix::fs::openat(directory, name, flags, FILES)
}

/// Sets the time of its last use.
pub(super) fn touch(file: impl AsFd) -> Result<(), Errno> {
    let now = Timespec { tv_sec: 0, tv_nsec: UTIME_NOW };
    rustix::fs::futimens(file, &Timestamps { last_access: now, last_modification: now })
}

fn is_still(directory: &OwnedFd, name: &str, file: &File) -> bool {
    let named = rustix::fs::statat(directory, name, AtFlags::SYMLINK_NOFOLLOW).map(|stat| stat.st_ino);
    named.is_ok() && named == rustix::fs::fstat(file).map(|stat| stat.st_ino)
}

fn name_of(manifest: &Manifest, unit: u32) -> Option<String> {
    manifest.sealed(unit).map(|sealed| format!("{}{ENTRY}", hex::encode(sealed.sha256.as_bytes())))
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
