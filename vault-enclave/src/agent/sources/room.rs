//! Room in a cache: what is there, what others have reserved, and what goes.

use std::collections::HashSet;
use std::os::fd::OwnedFd;

use rustix::fs::{AtFlags, FileType, FlockOperation, OFlags};
use rustix::io::Errno;

use super::cache::{ENTRY, PART, open_file, touch};

/// What the name of a reservation ends with.
pub(super) const ROOM: &str = ".room";

/// A unit that is there.
struct Entry {
    name: String,
    bytes: u64,
    /// Seconds and nanoseconds of its last use.
    used: (i64, u64),
}

/// Makes room for those of `wanted` (names and lengths) that are not there, up to `bound` bytes together with all that is
/// and all that others have reserved: how much there is for them. Whoever calls holds the lock of the directory.
///
/// # Errors
/// The directory can't be read.
pub(super) fn make(directory: &OwnedFd, bound: u64, wanted: &[(String, u64)]) -> Result<u64, Errno> {
    let (mut entries, mut taken) = look(directory)?;
    let there: HashSet<String> = entries.iter().map(|entry| entry.name.clone()).collect();
    let names: HashSet<&str> = wanted.iter().map(|(name, _)| name.as_str()).collect();
    for name in there.iter().filter(|name| names.contains(name.as_str())) {
        // So that nobody who makes room takes it before it is read here.
        let _ = open_file(directory, name, OFlags::RDONLY).and_then(touch);
    }
    let missing = wanted.iter().filter(|(name, _)| !there.contains(name)).map(|(_, bytes)| bytes).sum::<u64>();
    entries.sort_by_key(|entry| entry.used);
    for entry in entries.iter().filter(|entry| !names.contains(entry.name.as_str())) {
        if taken.saturating_add(missing) <= bound {
            break;
        }
        if remove_unread(directory, &entry.name) {
            taken -= entry.bytes;
        }
    }
    Ok(missing.min(bound.saturating_sub(taken)))
}

/// The entries, and the bytes of all entries and reservations. What a dead agent left goes.
fn look(directory: &OwnedFd) -> Result<(Vec<Entry>, u64), Errno> {
    let (mut entries, mut taken) = (Vec::new(), 0_u64);
    for found in rustix::fs::Dir::read_from(directory)? {
        let found = found?;
        let Ok(name) = found.file_name().to_str() else { continue };
        let Ok(stat) = rustix::fs::statat(directory, name, AtFlags::SYMLINK_NOFOLLOW) else { continue };
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
            continue;
        }
        let bytes = stat.st_size.unsigned_abs();
        if name.ends_with(ENTRY) {
            let used = (stat.st_mtime, stat.st_mtime_nsec);
            entries.push(Entry { name: name.to_owned(), bytes, used });
            taken = taken.saturating_add(bytes);
        } else if (name.ends_with(ROOM) || name.ends_with(PART))
            && !remove_unread(directory, name)
            && name.ends_with(ROOM)
        {
            taken = taken.saturating_add(bytes);
        }
    }
    Ok((entries, taken))
}

/// Removes a file that no process has locked.
fn remove_unread(directory: &OwnedFd, name: &str) -> bool {
    let unread = open_file(directory, name, OFlags::RDONLY)
        .and_then(|file| rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive).map(|()| file));
    // Locked until it is gone, so that nobody begins to read it.
    unread.is_ok_and(|_file| rustix::fs::unlinkat(directory, name, AtFlags::empty()).is_ok())
}
