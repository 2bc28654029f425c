//! BLAKE3 of one message whose parts are hashed by several threads, in any order, each while it is in their cache.
//!
//! ```text
//! message: │ part ┆     part      ┆ part │      cut wherever the parts are
//! tree:    │0 │1 │2 │3 │4 │5 │6 │7 │8 │9│      chunks of 1 KiB
//!            subtrees ▲   ▲ loose bytes: a chunk that a cut goes through, which only the neighbours together have
//! ```
//! A part is hashed to subtrees that lie whole in it, and keeps the bytes at its ends. [`join`] hashes those, and the nodes
//! above. The digest is that of plain BLAKE3: it is compared with what a publisher signed, so a mistake here refuses what is
//! good and lets nothing through.

use std::ops::Range;

use blake3::hazmat::{
    ChainingValue, HasherExt, Mode, left_subtree_len, max_subtree_len, merge_subtrees_non_root, merge_subtrees_root,
};
use blake3::{CHUNK_LEN, Hash, Hasher};

const CHUNK: u64 = CHUNK_LEN as u64;

/// A part that was hashed to its end.
#[derive(Debug, Clone)]
pub(crate) struct Part {
    range: Range<u64>,
    /// Bytes before the first of its own chunks, and behind the last; never a whole message's last chunk before them.
    before: Vec<u8>,
    subtrees: Vec<Subtree>,
    behind: Vec<u8>,
}

/// Hashes one part, from its start to its end.
pub(crate) struct PartHasher {
    part: Part,
    /// The next byte of the message.
    at: u64,
    /// Chunks that are its own, to be hashed here.
    own: Range<u64>,
    /// The subtree that it stands in, and where that ends.
    hasher: Hasher,
    end: u64,
}

#[derive(Debug, Clone, Copy)]
struct Subtree {
    bytes: u64,
    value: ChainingValue,
}

impl PartHasher {
    /// Begins with the bytes at `range` of the message.
    pub(crate) fn new(range: Range<u64>) -> Self {
        let start = range.start.next_multiple_of(CHUNK).min(range.end);
        // The last bytes stay loose even where they are a whole chunk: should they be the end of the message, the root
        // has to be made of at least two nodes.
        let end = (range.end.saturating_sub(1) / CHUNK * CHUNK).max(start);
        let part = Part { range: range.clone(), before: Vec::new(), subtrees: Vec::new(), behind: Vec::new() };
        Self { part, at: range.start, own: start..end, hasher: Hasher::new(), end: start }
    }

    /// Takes the next bytes. Not more than the range has.
    pub(crate) fn update(&mut self, mut bytes: &[u8]) {
        debug_assert!(bytes.len() as u64 <= self.part.range.end - self.at, "more bytes than the part has");
        while !bytes.is_empty() {
            if self.at == self.end && self.own.contains(&self.at) {
                self.begin_subtree();
            }
            let is_own = self.own.contains(&self.at);
            let until = match is_own {
                true => self.end,
                false if self.at < self.own.start => self.own.start,
                false => self.part.range.end,
            };
            let wanted = usize::try_from(until - self.at).unwrap_or(usize::MAX).clamp(1, bytes.len());
            let (here, rest) = bytes.split_at(wanted);
            match is_own {
                true => drop(self.hasher.update(here)),
                false if self.at < self.own.start => self.part.before.extend_from_slice(here),
                false => self.part.behind.extend_from_slice(here),
            }
            self.at += wanted as u64;
            bytes = rest;
            if is_own && self.at == self.end {
                self.end_subtree();
            }
        }
    }

    /// The largest subtree that begins here and lies whole in the part.
    fn begin_subtree(&mut self) {
        let left = self.own.end - self.at;
        let most = max_subtree_len(self.at).unwrap_or(left).min(left);
        // Whole chunks are left: at least one.
        self.end = self.at + (1 << most.ilog2());
        self.hasher = Hasher::new();
        self.hasher.set_input_offset(self.at);
    }

    fn end_subtree(&mut self) {
        let bytes = self.hasher.count();
        self.part.subtrees.push(Subtree { bytes, value: self.hasher.finalize_non_root() });
    }

    /// The part, where all of its bytes have come.
    pub(crate) fn finish(self) -> Option<Part> {
        (self.at == self.part.range.end).then_some(self.part)
    }
}

/// The digest of the message that these parts make up, in any order; `None` where some of it is missing or there twice.
pub(crate) fn join(mut parts: Vec<Part>) -> Option<Hash> {
    parts.sort_by_key(|part| (part.range.start, part.range.end));
    let (mut nodes, mut loose, mut at) = (Vec::new(), Vec::new(), 0);
    for part in &parts {
        if part.range.start != at {
            return None;
        }
        take_loose(&mut loose, &part.before, &mut nodes);
        if !part.subtrees.is_empty() {
            end_chunk(&mut loose, &mut nodes);
            nodes.extend_from_slice(&part.subtrees);
        }
        take_loose(&mut loose, &part.behind, &mut nodes);
        at = part.range.end;
    }
    if nodes.is_empty() {
        return Some(blake3::hash(&loose));
    }
    end_chunk(&mut loose, &mut nodes);
    let (left, right) = split(&nodes);
    Some(merge_subtrees_root(&value(left), &value(right), Mode::Hash))
}

/// Adds bytes to the chunk that has begun. One that is full is ended only when another one begins.
fn take_loose(chunk: &mut Vec<u8>, mut bytes: &[u8], nodes: &mut Vec<Subtree>) {
    while !bytes.is_empty() {
        if chunk.len() == CHUNK_LEN {
            end_chunk(chunk, nodes);
        }
        let (here, rest) = bytes.split_at(bytes.len().min(CHUNK_LEN - chunk.len()));
        chunk.extend_from_slice(here);
        bytes = rest;
    }
}

/// Makes a node of the chunk that has begun, where one has.
fn end_chunk(chunk: &mut Vec<u8>, nodes: &mut Vec<Subtree>) {
    if chunk.is_empty() {
        return;
    }
    let at = nodes.iter().map(|node| node.bytes).sum();
    let value = Hasher::new().set_input_offset(at).update(chunk).finalize_non_root();
    nodes.push(Subtree { bytes: chunk.len() as u64, value });
    chunk.clear();
}

/// The left and the right subtree of a node above several. Each node lies whole in one of them, since it is as large as a
/// power of two and begins at a multiple of it.
fn split(nodes: &[Subtree]) -> (&[Subtree], &[Subtree]) {
    let left = left_subtree_len(nodes.iter().map(|node| node.bytes).sum());
    let mut bytes = 0;
    let of_left = |node: &&Subtree| {
        bytes += node.bytes;
        bytes <= left
    };
    let count = nodes.iter().take_while(of_left).count();
    nodes.split_at(count)
}

fn value(nodes: &[Subtree]) -> ChainingValue {
    match nodes {
        [one] => one.value,
        _ => {
            let (left, right) = split(nodes);
            merge_subtrees_non_root(&value(left), &value(right), Mode::Hash)
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn bytes(length: usize) -> Vec<u8> {
        (0..length).map(|index| (index / 3 % 251) as u8).collect()
    }

    /// `message` in parts that end there, each given `step` bytes at a time; the parts in the order of their ends reversed.
    fn by_parts(message: &[u8], cuts: &[usize], step: usize) -> Option<Hash> {
        let ends = cuts.iter().copied().chain([message.len()]);
        let starts = [0].into_iter().chain(cuts.iter().copied());
        let part = |(start, end): (usize, usize)| {
            let mut hasher = PartHasher::new(start as u64..end as u64);
            message[start..end].chunks(step).for_each(|bytes| hasher.update(bytes));
            hasher.finish().unwrap()
        };
        let mut parts: Vec<Part> = starts.zip(ends).map(part).collect();
        parts.reverse();
        join(parts)
    }

    #[test]
    fn lengths_around_every_power_of_two_hash_as_plain_blake3_does() {
        for power in 0..18 {
            for length in [(1_usize << power) - 1, 1 << power, (1 << power) + 1] {
                let message = bytes(length);
                let expected = Some(blake3::hash(&message));
                assert_eq!(by_parts(&message, &[], 1 << 14), expected, "{length} whole");
                assert_eq!(by_parts(&message, &[length / 2], 1000), expected, "{length} in two");
                assert_eq!(by_parts(&message, &[0, length, length], 1 << 20), expected, "{length} and empty parts");
            }
        }
    }

    #[test]
    fn parts_as_units_are_cut_hash_as_plain_blake3_does() {
        let sealed_chunk = 16 * 1024 + 16;
        for (chunks, of_part) in [(1, 1), (5, 1), (64, 8), (67, 16)] {
            let message = bytes(56 + chunks * sealed_chunk + 16);
            let cuts: Vec<usize> = (of_part..chunks).step_by(of_part).map(|chunk| 56 + chunk * sealed_chunk).collect();
            assert_eq!(by_parts(&message, &cuts, 7 * sealed_chunk), Some(blake3::hash(&message)));
        }
    }

    #[test]
    fn what_is_not_the_whole_message_has_no_digest() {
        let part = |range: Range<u64>| {
            let mut hasher = PartHasher::new(range.clone());
            hasher.update(&bytes((range.end - range.start) as usize));
            hasher.finish().unwrap()
        };
        assert!(join(vec![part(0..5000), part(6000..7000)]).is_none());
        assert!(join(vec![part(0..5000), part(4000..7000)]).is_none());
        assert!(join(vec![part(0..5000), part(0..5000)]).is_none());
        assert!(join(vec![part(1..5000)]).is_none());
        let mut cut_short = PartHasher::new(0..10);
        cut_short.update(&[1; 9]);
        assert!(cut_short.finish().is_none());
    }

    proptest! {
        #[test]
        fn any_parts_hash_as_plain_blake3_does(
            length in 0_usize..200_000, cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..12),
            step in 1_usize..70_000, flipped: prop::sample::Index,
        ) {
            let mut message = bytes(length);
            let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(length + 1)).collect();
            cuts.sort_unstable();
            let digest = by_parts(&message, &cuts, step);
            prop_assert_eq!(digest, Some(blake3::hash(&message)));
            if length > 0 {
                message[flipped.index(length)] ^= 1;
                prop_assert_ne!(by_parts(&message, &cuts, step), digest);
            }
        }
    }
}
