//! The log among objects: `log/tail` has the entries that the newest checkpoint may not cover yet, `log/checkpoint` and
//! `log/tile/` are a C2SP tlog-tiles log as anybody may read it.
//!
//! The tail is be64(index of its first entry), then records be32(length) ‖ bytes: the note of the newest proposed checkpoint
//! (FORMAT.md §9), of no bytes where there is none, and each entry. It is replaced whole, on condition that
//! it is still what this host last saw: of two hosts that write after the same entry, the store lets one. This keeps
//! two honest hosts apart; the keeper checks what it reads against its own head, whatever a store says.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use ledger::merkle::{Tree, leaf_hash};
use vault_proto::limits::{CHECKPOINT_BYTES_MAX, ENTRIES_BYTES_MAX, READ_LOG_MAX};

use super::place::{If, Objects, Tag, Written};
use crate::store::log::{Checkpoint, check_entries, parse_checkpoint};
use crate::store::segment::SEGMENT_ENTRIES;
use crate::store::tile_files::{TilePlace, Tiles};
use crate::store::{LogHead, ReadEntries, StoreError};

const TAIL: &str = "log/tail";
const CHECKPOINT: &str = "log/checkpoint";
/// Entries that wait for their checkpoint: several calls of the keeper.
const TAIL_BYTES_MAX: usize = 4 * ENTRIES_BYTES_MAX;

/// How often a checkpoint is tried beside those of other hosts.
const PUBLISH_TRIES_MAX: usize = 3;

/// Tiles among the other objects.
#[derive(Clone, Debug)]
pub(super) struct AmongObjects(pub(super) Arc<dyn Objects>);

/// The log, as this host last saw it. One owner at a time.
#[derive(Debug)]
pub(super) struct Log {
    objects: Arc<dyn Objects>,
    tiles: Tiles<AmongObjects>,
    published: Arc<AtomicU64>,
    checkpoint: Option<(Checkpoint, Tag)>,
    /// Some tree of the first entries.
    tree: Tree,
    tail: Tail,
    tag: Option<Tag>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Tail {
    first: u64,
    /// A note: the entries under it stay, though it is not published yet.
    proposed: String,
    entries: Vec<Vec<u8>>,
}

impl Log {
    /// `published` is told the size of the newest checkpoint that was seen.
    pub(super) fn open(objects: Arc<dyn Objects>, published: Arc<AtomicU64>) -> Result<Self, StoreError> {
        let tiles = Tiles(AmongObjects(objects.clone()));
        let (checkpoint, tree, tail) = (None, Tree::new(), Tail::default());
        let mut log = Self { objects, tiles, published, checkpoint, tree, tail, tag: None };
        log.refresh()?;
        log.grow_tree(log.committed())?;
        if log.tree.root(log.committed()) != log.checkpoint.as_ref().map_or(log.tree.root(0), |(is, _)| Ok(is.root)) {
            return Err(log.objects.damaged("log", "the tiles do not have the checkpoint's root"));
        }
        Ok(log)
    }

    pub(super) fn committed(&self) -> u64 {
        self.checkpoint.as_ref().map_or(0, |(checkpoint, _)| checkpoint.size)
    }

    fn size(&self) -> u64 {
        self.committed().max(self.tail.first + self.tail.entries.len() as u64)
    }

    /// Takes in what other hosts wrote.
    pub(super) fn refresh(&mut self) -> Result<(), StoreError> {
        // The tail first: a checkpoint that is newer than it covers no more than a newer tail had.
        let (tail, tag) = self.read_tail()?;
        let checkpoint = read_checkpoint(&*self.objects)?;
        if tail.first > checkpoint.as_ref().map_or(0, |(checkpoint, _)| checkpoint.size) {
            return Err(self.objects.damaged(CHECKPOINT, "older than the entries beside it"));
        }
        self.checkpoint = checkpoint;
        (self.tail, self.tag) = (tail, tag);
        self.published.fetch_max(self.committed(), Ordering::SeqCst);
        Ok(())
    }

    /// As [`crate::store::Store::append_log`]. What this host has seen it may replace for its keeper, what it has not seen
    /// it may not.
    pub(super) fn append(&mut self, first: u64, entries: &[Vec<u8>]) -> Result<(), StoreError> {
        check_entries(entries)?;
        if first > self.size() {
            self.refresh()?;
        }
        let (size, kept) = (self.size(), self.kept());
        if first > size {
            return Err(StoreError::LogGap { first, size });
        }
        if first < kept {
            return Err(StoreError::UnderCheckpoint { first, committed: kept });
        }
        self.replace_tail(self.tail.followed_by(self.committed(), first, entries), first)
    }

    /// As [`crate::store::Store::propose_checkpoint`].
    pub(super) fn propose(&mut self, text: &str, size: u64) -> Result<(), StoreError> {
        let proposed = parse_checkpoint(text)?;
        if size > self.size() {
            self.refresh()?;
        }
        let (committed, stored) = (self.kept(), self.size());
        if proposed.size != size || size < committed || size > stored {
            return Err(StoreError::CheckpointSize { size, committed, stored });
        }
        self.grow_tree(size)?;
        if self.tree.root(size) != Ok(proposed.root) {
            self.tree = Tree::new();
            return Err(StoreError::CheckpointRoot);
        }
        if size == self.committed() {
            return Ok(());
        }
        self.replace_tail(Tail { proposed: proposed.text, ..self.tail.clone() }, size)
    }

    /// How far it is.
    pub(super) fn head(&self) -> LogHead {
        let checkpoint = self.checkpoint.as_ref().map(|(checkpoint, _)| checkpoint.text.clone());
        LogHead { size: self.size(), checkpoint, proposed: self.proposed().map(|proposed| proposed.text) }
    }

    fn proposed(&self) -> Option<Checkpoint> {
        parse_checkpoint(&self.tail.proposed).ok().filter(|proposed| proposed.size > self.committed())
    }

    /// Entries that nothing replaces any more.
    fn kept(&self) -> u64 {
        self.proposed().map_or(self.committed(), |proposed| proposed.size)
    }

    /// On condition that it is what this host last saw.
    fn replace_tail(&mut self, tail: Tail, first: u64) -> Result<(), StoreError> {
        let bytes = tail.encode();
        if bytes.len() > TAIL_BYTES_MAX {
            return Err(StoreError::CallTooLarge);
        }
        match self.objects.put(TAIL, bytes, If::Unchanged(self.tag.as_ref()))? {
            Written::Yes(tag) => (self.tail, self.tag) = (tail, Some(tag)),
            Written::Changed => {
                // An answer may have been lost on its way, and the request sent again: then it is what we wrote. Else
                // nothing is taken in until the keeper reads: what it does not know it may not replace.
                let (stored, tag) = self.read_tail()?;
                if stored != tail {
                    return Err(StoreError::LogConflict { first });
                }
                (self.tail, self.tag) = (stored, tag);
            }
        }
        Ok(())
    }

    /// As [`crate::store::Store::read_log`].
    pub(super) fn read(&self, first: u64, count: u32) -> Result<Vec<Vec<u8>>, StoreError> {
        if count > READ_LOG_MAX {
            return Err(StoreError::CallTooLarge);
        }
        let mut entries: Vec<Vec<u8>> = Vec::new();
        let mut total = 0;
        while entries.len() < count as usize {
            let next = first.saturating_add(entries.len() as u64);
            let more = self.some(next)?;
            if more.is_empty() {
                break;
            }
            for entry in more.into_iter().take(count as usize - entries.len()) {
                total += entry.len();
                if total > ENTRIES_BYTES_MAX && !entries.is_empty() {
                    return Ok(entries);
                }
                entries.push(entry);
            }
        }
        Ok(entries)
    }

    /// As [`crate::store::Store::put_checkpoint`].
    pub(super) fn put_checkpoint(
        &mut self,
        text: &str,
        size: u64,
        follow: impl FnOnce(&Self, u64) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        let checkpoint = parse_checkpoint(text)?;
        if size > self.size() {
            self.refresh()?;
        }
        let (committed, stored) = (self.committed(), self.size());
        if checkpoint.size != size || size < committed || size > stored {
            return Err(StoreError::CheckpointSize { size, committed, stored });
        }
        self.grow_tree(size)?;
        if self.tree.root(size) != Ok(checkpoint.root) {
            self.tree = Tree::new();
            return Err(StoreError::CheckpointRoot);
        }
        self.tiles.grow(&self.tree, committed, size, |start, end| self.bundle(start, end))?;
        follow(self, committed)?;
        self.publish(checkpoint)?;
        self.published.fetch_max(size, Ordering::SeqCst);
        // Whoever reads by an older checkpoint takes a wider tile; what is left here takes room, no more.
        if let Err(error) = self.tiles.remove_replaced(committed, size) {
            tracing::warn!(code = error.code(), %error, "can't remove tiles that wider ones replaced");
        }
        Ok(())
    }

    /// As [`crate::store::Store::import_log`]: the tiles are made of what `read` gives, since no tail would hold it all.
    pub(super) fn import(
        &mut self,
        text: &str,
        size: u64,
        read: ReadEntries<'_>,
        follow: impl FnOnce(u64) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        let checkpoint = parse_checkpoint(text)?;
        self.refresh()?;
        let committed = self.committed();
        if checkpoint.size != size || size < committed {
            return Err(StoreError::CheckpointSize { size, committed, stored: self.size() });
        }
        self.grow_tree(committed)?;
        while self.tree.len() < size {
            let wanted = u32::try_from(size - self.tree.len()).unwrap_or(u32::MAX).min(READ_LOG_MAX);
            let entries = read(self.tree.len(), wanted)?;
            if entries.is_empty() {
                return Err(StoreError::NotFound { what: "entry" });
            }
            entries.iter().for_each(|entry| self.tree.push(leaf_hash(entry)));
        }
        if self.tree.root(size) != Ok(checkpoint.root) {
            self.tree = Tree::new();
            return Err(StoreError::CheckpointRoot);
        }
        self.tiles.grow(&self.tree, committed, size, |start, end| {
            read(start, u32::try_from(end - start).unwrap_or(u32::MAX))
        })?;
        follow(committed)?;
        self.publish(checkpoint)?;
        self.published.fetch_max(size, Ordering::SeqCst);
        if let Err(error) = self.tiles.remove_replaced(committed, size) {
            tracing::warn!(code = error.code(), %error, "can't remove tiles that wider ones replaced");
        }
        Ok(())
    }

    /// Some entries from `next` on: of one bundle, or of the tail.
    fn some(&self, next: u64) -> Result<Vec<Vec<u8>>, StoreError> {
        if let Some(offset) = next.checked_sub(self.tail.first).filter(|_| next >= self.committed()) {
            let offset = usize::try_from(offset).unwrap_or(usize::MAX);
            return Ok(self.tail.entries.get(offset..).unwrap_or_default().to_vec());
        }
        let bundle = self.tiles.bundle(self.committed(), next / SEGMENT_ENTRIES)?.unwrap_or_default();
        Ok(bundle.into_iter().skip(usize::try_from(next % SEGMENT_ENTRIES).unwrap_or(usize::MAX)).collect())
    }

    /// Entries `start..end`, all of one bundle.
    fn bundle(&self, start: u64, end: u64) -> Result<Vec<Vec<u8>>, StoreError> {
        let mut entries = Vec::new();
        while start + (entries.len() as u64) < end {
            let more = self.some(start + entries.len() as u64)?;
            if more.is_empty() {
                break;
            }
            entries.extend(more);
        }
        entries.truncate(usize::try_from(end - start).unwrap_or(usize::MAX));
        Ok(entries)
    }

    /// Makes the tree that of the first `size` entries.
    fn grow_tree(&mut self, size: u64) -> Result<(), StoreError> {
        let committed = self.committed();
        if self.tree.len() != committed {
            self.tree = self.tiles.tree(committed)?;
        }
        while self.tree.len() < size {
            let more = self.some(self.tree.len())?;
            if more.is_empty() {
                return Err(self.objects.damaged(TAIL, "entries are missing"));
            }
            let wanted = usize::try_from(size - self.tree.len()).unwrap_or(usize::MAX);
            more.iter().take(wanted).for_each(|entry| self.tree.push(leaf_hash(entry)));
        }
        Ok(())
    }

    fn read_tail(&self) -> Result<(Tail, Option<Tag>), StoreError> {
        let Some((bytes, tag)) = self.objects.get(TAIL, TAIL_BYTES_MAX)? else { return Ok((Tail::default(), None)) };
        let tail = Tail::decode(&bytes).ok_or_else(|| self.objects.damaged(TAIL, "not the end of a log"))?;
        Ok((tail, Some(tag)))
    }

    /// Replaces the checkpoint, unless another host published one that is no beginning of this one's log.
    fn publish(&mut self, checkpoint: Checkpoint) -> Result<(), StoreError> {
        for _ in 0..PUBLISH_TRIES_MAX {
            let before = self.checkpoint.as_ref().map(|(_, tag)| tag);
            match self.objects.put(CHECKPOINT, checkpoint.text.as_bytes().to_vec(), If::Unchanged(before))? {
                Written::Yes(tag) => {
                    self.checkpoint = Some((checkpoint, tag));
                    return Ok(());
                }
                Written::Changed => self.refresh()?,
            }
            match &self.checkpoint {
                Some((stored, _)) if *stored == checkpoint => return Ok(()),
                Some((stored, _)) if stored.size > checkpoint.size => break,
                Some((stored, _)) if self.tree.root(stored.size) != Ok(stored.root) => break,
                Some(_) | None => {}
            }
        }
        Err(StoreError::CheckpointConflict { size: checkpoint.size })
    }
}

/// The newest checkpoint that is stored.
pub(super) fn read_checkpoint(objects: &dyn Objects) -> Result<Option<(Checkpoint, Tag)>, StoreError> {
    let Some((bytes, tag)) = objects.get(CHECKPOINT, CHECKPOINT_BYTES_MAX)? else { return Ok(None) };
    let damaged = || objects.damaged(CHECKPOINT, "not a checkpoint");
    let text = String::from_utf8(bytes).map_err(|_| damaged())?;
    Ok(Some((parse_checkpoint(&text).map_err(|_| damaged())?, tag)))
}

impl Tail {
    /// Without what is under the checkpoint, and with `entries` in the place of what stood at `first` or beyond.
    fn followed_by(&self, committed: u64, first: u64, entries: &[Vec<u8>]) -> Self {
        let from = usize::try_from(committed.saturating_sub(self.first)).unwrap_or(usize::MAX);
        let kept = self.entries.iter().skip(from).take(usize::try_from(first - committed).unwrap_or(usize::MAX));
        Self { first: committed, proposed: self.proposed.clone(), entries: kept.chain(entries).cloned().collect() }
    }

    fn encode(&self) -> Vec<u8> {
        let mut bytes = self.first.to_be_bytes().to_vec();
        for record in std::iter::once(self.proposed.as_bytes()).chain(self.entries.iter().map(Vec::as_slice)) {
            let length = u32::try_from(record.len()).expect("a note or an entry: both have their bounds");
            bytes.extend_from_slice(&length.to_be_bytes());
            bytes.extend_from_slice(record);
        }
        bytes
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let (first, mut rest) = bytes.split_first_chunk::<8>()?;
        let mut records = Vec::new();
        while !rest.is_empty() {
            let (length, after) = rest.split_first_chunk::<4>()?;
            let (record, after) = after.split_at_checked(u32::from_be_bytes(*length) as usize)?;
            records.push(record.to_vec());
            rest = after;
        }
        let mut records = records.into_iter();
        let proposed = String::from_utf8(records.next()?).ok()?;
        Some(Self { first: u64::from_be_bytes(*first), proposed, entries: records.collect() })
    }
}

impl TilePlace for AmongObjects {
    fn read(&self, name: &str, max: usize) -> Result<Option<Vec<u8>>, StoreError> {
        Ok(self.0.get(&format!("log/{name}"), max)?.map(|(bytes, _)| bytes))
    }

    fn write(&self, name: &str, bytes: Vec<u8>) -> Result<(), StoreError> {
        self.0.write(&format!("log/{name}"), bytes)
    }

    fn remove(&self, name: &str) -> Result<(), StoreError> {
        self.0.remove(&format!("log/{name}"))
    }

    fn remove_all(&self, name: &str) -> Result<(), StoreError> {
        self.0.list(&format!("log/{name}"))?.iter().try_for_each(|listed| self.0.remove(&listed.name))
    }

    fn path(&self, name: &str) -> PathBuf {
        format!("log/{name}").into()
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::Careless;
    use super::*;

    fn tail(first: u64, texts: &[&str]) -> Tail {
        let entries = texts.iter().map(|text| text.as_bytes().to_vec()).collect();
        Tail { first, proposed: String::new(), entries }
    }

    #[test]
    fn a_tail_reads_as_it_was_written_and_no_cut_one_is_taken() {
        let bytes = tail(7, &["a", "bcd"]).encode();
        assert_eq!(Tail::decode(&bytes), Some(tail(7, &["a", "bcd"])));
        for cut in (1..bytes.len()).filter(|cut| ![12, 17].contains(cut)) {
            assert_eq!(Tail::decode(&bytes[..cut]), None, "{cut}");
        }
    }

    #[test]
    fn what_is_refused_is_not_taken_in() {
        let objects = Arc::new(Careless { keeps_create: true, keeps_match: true, ..Careless::default() });
        let mut log = Log::open(objects.clone(), Arc::default()).unwrap();
        log.append(0, &[b"0".to_vec()]).unwrap();
        objects.write(TAIL, tail(3, &["3"]).encode()).unwrap();
        assert_eq!(log.refresh().unwrap_err().code(), "store-damaged");
        assert_eq!((log.size(), log.read(0, 9).unwrap()), (1, vec![b"0".to_vec()]));
    }

    #[test]
    fn a_tail_drops_what_is_covered_and_what_is_replaced() {
        let before = tail(4, &["4", "5", "6", "7"]);
        assert_eq!(before.followed_by(6, 7, &[b"x".to_vec()]), tail(6, &["6", "x"]));
        assert_eq!(before.followed_by(8, 8, &[b"8".to_vec()]), tail(8, &["8"]));
    }
}
