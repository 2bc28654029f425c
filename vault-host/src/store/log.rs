//! The log on disk: what was appended, and what is under a checkpoint.
//!
//! Entries are appended to segments and flushed before the keeper hears of it. A checkpoint turns them into tiles,
//! which never change again; entries above it are the keeper's to replace, since it may have died between two of its
//! steps. Where several keepers share the log, entries under a proposed checkpoint stay too: a witness may have cosigned it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ledger::merkle::{Hash, Tree};
use vault_proto::limits::{CHECKPOINT_BYTES_MAX, ENTRIES_BYTES_MAX, ENTRY_BYTES_MAX, READ_LOG_MAX};

use super::StoreError;
use super::files::{self, Scratch};
use super::segment::{self, SEGMENT_ENTRIES, Segment};
use super::tile_files::{Dir, Tiles};

/// The log. One owner at a time.
#[derive(Debug)]
pub(crate) struct Log {
    dir: PathBuf,
    scratch: Scratch,
    tiles: Tiles<Dir>,
    /// The tree under the checkpoint, and as far as one was proposed.
    tree: Tree,
    /// Leaves of it whose entries nothing replaces any more.
    sound: u64,
    checkpoint: Option<Checkpoint>,
    /// What witnesses are asked about, where it is of more entries.
    proposed: Option<Checkpoint>,
    /// Segments by number, without a gap from the last full bundle to the end of the log.
    segments: BTreeMap<u64, Segment>,
    size: u64,
    /// Set when a failed write could not be undone: what is on disk is not known any more.
    stopped: bool,
}

/// The newest checkpoint, as the keeper signed it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Checkpoint {
    /// The signed note, exact text.
    pub(crate) text: String,
    /// How many entries it covers.
    pub(crate) size: u64,
    pub(crate) root: Hash,
}

impl Log {
    /// Opens `dir`, or begins an empty log there. Cuts what a crash left half-written above the checkpoint; the second
    /// value is how many bytes that was. Anything missing or changed below the checkpoint is refused.
    pub(crate) fn open(dir: PathBuf, scratch: Scratch) -> Result<(Self, u64), StoreError> {
        let entries = dir.join("entries");
        files::create_dirs(&entries)?;
        let checkpoint = read_checkpoint(&dir.join("checkpoint"))?;
        let proposed = read_checkpoint(&dir.join(PROPOSED))?;
        let tiles = Tiles(Dir::new(dir.clone(), scratch.clone()));
        let committed = checkpoint.as_ref().map_or(0, |checkpoint| checkpoint.size);
        let tree = tiles.tree(committed)?;
        if let Some(checkpoint) = &checkpoint
            && tree.root(committed) != Ok(checkpoint.root)
        {
            return Err(StoreError::Damaged { path: dir, what: "the tiles do not have the checkpoint's root" });
        }
        let mut expected = committed / SEGMENT_ENTRIES;
        let (segments, size) = (BTreeMap::new(), expected * SEGMENT_ENTRIES);
        let proposed = proposed.filter(|proposed| proposed.size > committed);
        let sound = committed;
        let mut log = Self { dir, scratch, tiles, tree, sound, checkpoint, proposed, segments, size, stopped: false };
        let (mut useless, mut cut) = (Vec::new(), BTreeMap::new());
        for n in segment::list(&entries)? {
            let (segment, torn) = Segment::open(&entries, n)?;
            // Below: it is in a full bundle. Beyond a segment that is not full: it was never reported as written.
            if n != expected || log.size != n * SEGMENT_ENTRIES {
                useless.push(segment);
                continue;
            }
            if torn > 0 {
                cut.insert(n, torn);
            }
            expected = n + 1;
            log.size += segment.len();
            log.segments.insert(n, segment);
        }
        // Before anything is cut: what is damaged under the checkpoint may have good entries behind it.
        if log.size < log.kept() {
            return Err(StoreError::Damaged { path: entries, what: "entries under the checkpoint are missing" });
        }
        useless.into_iter().try_for_each(Segment::remove)?;
        for n in cut.keys() {
            log.segments.get_mut(n).map_or(Ok(()), Segment::cut)?;
        }
        Ok((log, cut.values().sum()))
    }

    /// Entries stored.
    pub(crate) fn size(&self) -> u64 {
        self.size
    }

    /// The newest checkpoint.
    pub(crate) fn checkpoint(&self) -> Option<&Checkpoint> {
        self.checkpoint.as_ref()
    }

    /// The published part, which can be read while the log is written.
    pub(crate) fn tiles(&self) -> &Tiles<Dir> {
        &self.tiles
    }

    /// Entries under the newest checkpoint.
    pub(crate) fn committed(&self) -> u64 {
        self.checkpoint.as_ref().map_or(0, |checkpoint| checkpoint.size)
    }

    /// The newest proposed checkpoint, while it is of more entries than the published one.
    pub(crate) fn proposed(&self) -> Option<&Checkpoint> {
        self.proposed.as_ref()
    }

    /// Entries that nothing replaces any more.
    fn kept(&self) -> u64 {
        self.proposed.as_ref().map_or(self.committed(), |proposed| proposed.size)
    }

    /// Writes entries from index `first` on, durably, in place of whatever stood there or beyond. All or nothing.
    pub(crate) fn append(&mut self, first: u64, entries: &[Vec<u8>]) -> Result<(), StoreError> {
        self.check_running()?;
        if first > self.size {
            return Err(StoreError::LogGap { first, size: self.size });
        }
        if first < self.kept() {
            return Err(StoreError::UnderCheckpoint { first, committed: self.kept() });
        }
        check_entries(entries)?;
        if first < self.size {
            self.truncate(first)?;
        }
        let written = self.write(entries);
        if written.is_err() {
            self.truncate(first)?;
        }
        written
    }

    /// Up to `count` entries from `first` on, at most 8 MiB but at least one; empty at the end of the log.
    pub(crate) fn read(&self, first: u64, count: u32) -> Result<Vec<Vec<u8>>, StoreError> {
        self.check_running()?;
        if count > READ_LOG_MAX {
            return Err(StoreError::CallTooLarge);
        }
        let mut entries: Vec<Vec<u8>> = Vec::new();
        let mut total = 0;
        while entries.len() < count as usize {
            let next = first.saturating_add(entries.len() as u64);
            for entry in self.read_within_bundle(next, count as usize - entries.len())? {
                total += entry.len();
                if total > ENTRIES_BYTES_MAX && !entries.is_empty() {
                    return Ok(entries);
                }
                entries.push(entry);
            }
            if first.saturating_add(entries.len() as u64) == next {
                break;
            }
        }
        Ok(entries)
    }

    /// Keeps a checkpoint that a keeper has signed and no quorum has cosigned yet: its entries stay. Of the published one
    /// there is nothing to keep.
    pub(crate) fn propose(&mut self, text: &str, size: u64) -> Result<(), StoreError> {
        self.check_running()?;
        let proposed = parse_checkpoint(text)?;
        let (kept, stored) = (self.kept(), self.size);
        if proposed.size != size || size < kept || size > stored {
            return Err(StoreError::CheckpointSize { size, committed: kept, stored });
        }
        self.grow_tree(size)?;
        if self.tree.root(size) != Ok(proposed.root) {
            return Err(StoreError::CheckpointRoot);
        }
        self.sound = size;
        if size > self.committed() {
            self.scratch.write(&self.dir.join(PROPOSED), text.as_bytes())?;
            self.proposed = Some(proposed);
        }
        Ok(())
    }

    /// Publishes a checkpoint, durably: its tiles first, so that whoever sees it finds them, then what `follow` does
    /// about its entries. The keeper has committed to them, whether or not they are published here.
    pub(crate) fn put_checkpoint(
        &mut self,
        text: &str,
        size: u64,
        follow: impl FnOnce(&Self) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        self.check_running()?;
        let checkpoint = parse_checkpoint(text)?;
        let committed = self.committed();
        if checkpoint.size != size || size < committed || size > self.size {
            return Err(StoreError::CheckpointSize { size, committed, stored: self.size });
        }
        self.grow_tree(size)?;
        if self.tree.root(size) != Ok(checkpoint.root) {
            return Err(StoreError::CheckpointRoot);
        }
        self.tiles.grow(&self.tree, committed, size, |start, end| {
            let segment = self.segments.get(&(start / SEGMENT_ENTRIES));
            let count = usize::try_from(end - start).unwrap_or(usize::MAX);
            segment.map_or(Ok(Vec::new()), |segment| segment.read(start % SEGMENT_ENTRIES, count))
        })?;
        follow(self)?;
        self.scratch.write(&self.dir.join("checkpoint"), text.as_bytes())?;
        self.checkpoint = Some(checkpoint);
        self.sound = self.sound.max(size);
        // Its file may stay: one of no more entries than the published one says nothing.
        self.proposed = self.proposed.take().filter(|proposed| proposed.size > size);
        self.tiles.remove_replaced(committed, size)?;
        while let Some(first) = self.segments.first_entry().filter(|first| *first.key() < size / SEGMENT_ENTRIES) {
            first.remove().remove()?;
        }
        Ok(())
    }

    /// Makes the tree that of the first `size` entries. A root that was refused before may have left it with others.
    fn grow_tree(&mut self, size: u64) -> Result<(), StoreError> {
        if self.tree.len() != self.sound {
            self.tree = self.tiles.tree(self.committed())?;
            self.sound = self.committed();
        }
        for (n, segment) in &self.segments {
            let start = n * SEGMENT_ENTRIES;
            let from = self.tree.len().max(start);
            let until = size.min(start + segment.len());
            if from < until {
                let leaves = segment.leaf_hashes(from - start, until - start)?;
                leaves.into_iter().for_each(|leaf| self.tree.push(leaf));
            }
        }
        Ok(())
    }

    fn read_within_bundle(&self, first: u64, count: usize) -> Result<Vec<Vec<u8>>, StoreError> {
        let (n, offset) = (first / SEGMENT_ENTRIES, first % SEGMENT_ENTRIES);
        if let Some(segment) = self.segments.get(&n) {
            return segment.read(offset, count);
        }
        let bundle = self.tiles.bundle(self.committed(), n)?.unwrap_or_default();
        let offset = usize::try_from(offset).unwrap_or(usize::MAX);
        Ok(bundle.into_iter().skip(offset).take(count).collect())
    }

    fn check_running(&self) -> Result<(), StoreError> {
        if self.stopped { Err(StoreError::LogStopped) } else { Ok(()) }
    }

    fn write(&mut self, entries: &[Vec<u8>]) -> Result<(), StoreError> {
        let mut rest = entries;
        while !rest.is_empty() {
            let n = self.size / SEGMENT_ENTRIES;
            let room = usize::try_from(SEGMENT_ENTRIES - self.size % SEGMENT_ENTRIES).unwrap_or(usize::MAX);
            let (now, later) = rest.split_at(room.min(rest.len()));
            if !self.segments.contains_key(&n) {
                let (mut segment, torn) = Segment::open(&self.dir.join("entries"), n)?;
                if torn > 0 {
                    segment.cut()?;
                }
                self.segments.insert(n, segment);
            }
            let segment = self.segments.get_mut(&n).expect("inserted above");
            segment.append(now)?;
            self.size += now.len() as u64;
            rest = later;
        }
        Ok(())
    }

    /// Drops everything from index `size` on, also what a failed write left behind the last whole entry.
    fn truncate(&mut self, size: u64) -> Result<(), StoreError> {
        let stopped = std::mem::replace(&mut self.stopped, true);
        let last = size / SEGMENT_ENTRIES;
        while let Some(segment) = self.segments.last_entry().filter(|segment| *segment.key() > last) {
            segment.remove().remove()?;
        }
        if let Some(segment) = self.segments.get_mut(&last) {
            segment.truncate(size % SEGMENT_ENTRIES)?;
        }
        files::sync_dir(&self.dir.join("entries"))?;
        self.size = size;
        self.stopped = stopped;
        Ok(())
    }
}

/// Refuses what no call may bring.
pub(crate) fn check_entries(entries: &[Vec<u8>]) -> Result<(), StoreError> {
    let mut total = 0;
    for entry in entries {
        if entry.is_empty() || entry.len() > ENTRY_BYTES_MAX {
            return Err(StoreError::EntrySize { bytes: entry.len() });
        }
        total += entry.len();
    }
    if total > ENTRIES_BYTES_MAX { Err(StoreError::CallTooLarge) } else { Ok(()) }
}
/// File of the newest proposed checkpoint.
const PROPOSED: &str = "proposed";

fn read_checkpoint(path: &Path) -> Result<Option<Checkpoint>, StoreError> {
    let damaged = || StoreError::Damaged { path: path.to_owned(), what: "not a checkpoint" };
    let Some(bytes) = files::read(path, CHECKPOINT_BYTES_MAX)? else { return Ok(None) };
    let text = String::from_utf8(bytes).map_err(|_| damaged())?;
    parse_checkpoint(&text).map(Some).map_err(|_| damaged())
}

/// Reads size and root of a tlog-checkpoint. Its signature is for those who trust it: this host decides nothing by it,
/// and holds it against the entries only so that a damaged disk shows early.
pub(crate) fn parse_checkpoint(text: &str) -> Result<Checkpoint, StoreError> {
    if text.len() > CHECKPOINT_BYTES_MAX {
        return Err(StoreError::CheckpointForm);
    }
    let mut lines = text.lines().skip(1);
    let size = lines.next().and_then(|size| size.parse().ok()).ok_or(StoreError::CheckpointForm)?;
    let root = lines.next().and_then(|root| STANDARD.decode(root).ok()).and_then(|root| root.try_into().ok());
    Ok(Checkpoint { text: text.to_owned(), size, root: root.ok_or(StoreError::CheckpointForm)? })
}

#[cfg(test)]
mod tests;
