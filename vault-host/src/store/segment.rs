//! The end of the log, as it was appended: files of up to 256 entries, each entry with its leaf hash.
//!
//! A record is be32(length) ‖ leaf hash (32 bytes) ‖ entry. The leaf hash (RFC 9162: SHA-256(00 ‖ entry)) shows where
//! a write was torn, and is what the tree is built from. Segment N begins at entry 256·N.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use ledger::merkle::leaf_hash;
use vault_proto::limits::ENTRY_BYTES_MAX;

use super::{StoreError, files};

/// Entries in a full segment, as in a full tile.
pub(crate) const SEGMENT_ENTRIES: u64 = 256;

const HEADER_BYTES: usize = 4 + 32;
const FILE_BYTES_MAX: usize = SEGMENT_ENTRIES as usize * (HEADER_BYTES + ENTRY_BYTES_MAX);

/// An open segment.
#[derive(Debug)]
pub(crate) struct Segment {
    path: PathBuf,
    file: File,
    /// Where each record ends in the file.
    ends: Vec<u64>,
}

impl Segment {
    /// Opens segment `n`, or creates it. The second value is the length in bytes of a torn tail, which stays until
    /// [`Segment::cut`].
    pub(crate) fn open(dir: &Path, n: u64) -> Result<(Self, u64), StoreError> {
        let path = dir.join(name(n));
        let at = |error| StoreError::io(&path, error);
        let bytes = files::read(&path, FILE_BYTES_MAX)?;
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&path)
            .map_err(at)?;
        let Some(bytes) = bytes else {
            files::sync_parent(&path)?;
            return Ok((Self { path, file, ends: Vec::new() }, 0));
        };
        let ends = intact_records(&bytes);
        let kept = ends.last().copied().unwrap_or(0);
        let torn = bytes.len() as u64 - kept;
        Ok((Self { path, file, ends }, torn))
    }

    /// Cuts a torn tail, durably.
    pub(crate) fn cut(&mut self) -> Result<(), StoreError> {
        self.truncate(self.len())
    }

    /// Entries in it.
    pub(crate) fn len(&self) -> u64 {
        self.ends.len() as u64
    }

    /// Writes entries at the end, durably. After an error the file may hold a part of them: [`Segment::truncate`].
    pub(crate) fn append(&mut self, entries: &[Vec<u8>]) -> Result<(), StoreError> {
        let start = self.end_of(self.ends.len());
        let mut records = Vec::new();
        let mut ends = Vec::with_capacity(entries.len());
        for entry in entries {
            let length = u32::try_from(entry.len()).expect("an entry has at most 16 KiB: Log::append");
            records.extend_from_slice(&length.to_be_bytes());
            records.extend_from_slice(&leaf_hash(entry));
            records.extend_from_slice(entry);
            ends.push(start + records.len() as u64);
        }
        let at = |error| StoreError::io(&self.path, error);
        self.file.write_all_at(&records, start).map_err(at)?;
        self.file.sync_data().map_err(at)?;
        self.ends.extend(ends);
        Ok(())
    }

    /// Drops all but the first `count` entries and whatever else is behind them, durably.
    pub(crate) fn truncate(&mut self, count: u64) -> Result<(), StoreError> {
        let count = usize::try_from(count).unwrap_or(usize::MAX).min(self.ends.len());
        let at = |error| StoreError::io(&self.path, error);
        self.file.set_len(self.end_of(count)).map_err(at)?;
        self.file.sync_all().map_err(at)?;
        self.ends.truncate(count);
        Ok(())
    }

    /// Up to `count` entries from `from` on.
    pub(crate) fn read(&self, from: u64, count: usize) -> Result<Vec<Vec<u8>>, StoreError> {
        let from = usize::try_from(from).unwrap_or(usize::MAX).min(self.ends.len());
        let until = from.saturating_add(count).min(self.ends.len());
        (from..until)
            .map(|index| {
                let (start, end) = (self.end_of(index), self.end_of(index + 1));
                let mut entry = vec![0; usize::try_from(end - start).unwrap_or(usize::MAX) - HEADER_BYTES];
                self.read_at(&mut entry, start + HEADER_BYTES as u64)?;
                Ok(entry)
            })
            .collect()
    }

    /// The leaf hashes of entries `from..until`.
    pub(crate) fn leaf_hashes(&self, from: u64, until: u64) -> Result<Vec<[u8; 32]>, StoreError> {
        (from..until)
            .map(|index| {
                let mut hash = [0; 32];
                let start = self.end_of(usize::try_from(index).unwrap_or(usize::MAX));
                self.read_at(&mut hash, start + 4)?;
                Ok(hash)
            })
            .collect()
    }

    /// Removes the file: its entries are in a tile now.
    pub(crate) fn remove(self) -> Result<(), StoreError> {
        files::remove(&self.path)
    }

    fn read_at(&self, out: &mut [u8], offset: u64) -> Result<(), StoreError> {
        self.file.read_exact_at(out, offset).map_err(|error| StoreError::io(&self.path, error))
    }

    fn end_of(&self, count: usize) -> u64 {
        count.checked_sub(1).and_then(|last| self.ends.get(last)).copied().unwrap_or(0)
    }
}

/// Which segments a directory has, ascending.
pub(crate) fn list(dir: &Path) -> Result<Vec<u64>, StoreError> {
    let mut found = files::names(dir, |text| {
        let n = text.parse().ok()?;
        (name(n) == text).then_some(n)
    })?;
    found.sort_unstable();
    Ok(found)
}

fn name(n: u64) -> String {
    format!("{n:012}")
}

/// Where each record ends, up to the first that is not whole.
fn intact_records(bytes: &[u8]) -> Vec<u64> {
    let mut ends = Vec::new();
    let mut rest = bytes;
    while let Some(((header, hash), after)) = rest
        .split_first_chunk::<4>()
        .and_then(|(length, after)| after.split_first_chunk::<32>().map(|(hash, after)| ((length, hash), after)))
    {
        let length = u32::from_be_bytes(*header) as usize;
        // No entry is empty: a file that was extended but never written reads as records of length zero.
        let Some((entry, after)) = after.split_at_checked(length).filter(|_| length > 0) else { break };
        if leaf_hash(entry) != *hash || ends.len() as u64 == SEGMENT_ENTRIES {
            break;
        }
        rest = after;
        ends.push((bytes.len() - rest.len()) as u64);
    }
    ends
}
