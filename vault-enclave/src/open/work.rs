//! What is to be opened, and what has been of units that are hashed: their segments pass together or not at all.

use std::collections::{HashMap, VecDeque};
use std::ops::Range;

use ledger::manifest::SealedDigests;

use super::place::Place;
use crate::container::HEADER_BYTES;
use crate::tree_hash::{Part, join};

/// A run of plaintext within one unit, for one thread.
pub(super) struct Segment<'m> {
    pub(super) unit: u32,
    /// Number of its first chunk.
    pub(super) first: u64,
    /// Its place in the mapped file, or memory of its own.
    pub(super) dest: Place<'m>,
    /// Of how many of its bytes somebody was told: not fewer, after a new start.
    pub(super) told: usize,
}

impl<'m> Segment<'m> {
    pub(super) fn new(unit: u32, first: u64, dest: Place<'m>) -> Self {
        Self { unit, first, dest, told: 0 }
    }
}

/// A segment that was opened to its end.
pub(super) struct Opened<'m> {
    pub(super) segment: Segment<'m>,
    /// Its range of the sealed unit.
    pub(super) sealed: Range<u64>,
    /// The header under which it was opened.
    pub(super) header: Option<[u8; HEADER_BYTES]>,
    /// What was hashed of it, where units are.
    pub(super) part: Option<Part>,
    /// Where the end of it came from.
    pub(super) place: usize,
}

/// All segments of one unit.
pub(super) struct OpenedUnit<'m>(Vec<Opened<'m>>);

/// What the threads share out.
pub(super) struct Work<'m> {
    queue: VecDeque<Segment<'m>>,
    /// How many segments each unit has.
    segments: HashMap<u32, usize>,
    opened: HashMap<u32, Vec<Opened<'m>>>,
}

impl<'m> Work<'m> {
    pub(super) fn new(segments: Vec<Segment<'m>>) -> Self {
        let mut counts = HashMap::new();
        for segment in &segments {
            *counts.entry(segment.unit).or_default() += 1;
        }
        Self { queue: segments.into(), segments: counts, opened: HashMap::new() }
    }

    pub(super) fn next(&mut self) -> Option<Segment<'m>> {
        self.queue.pop_front()
    }

    /// Keeps a segment until all of its unit are there, and gives those.
    pub(super) fn gather(&mut self, opened: Opened<'m>) -> Option<OpenedUnit<'m>> {
        let unit = opened.segment.unit;
        let all = self.opened.entry(unit).or_default();
        all.push(opened);
        if Some(&all.len()) != self.segments.get(&unit) {
            return None;
        }
        self.opened.remove(&unit).map(OpenedUnit)
    }

    /// A unit that was not looked at as a whole.
    pub(super) fn unchecked(&self) -> Option<u32> {
        self.opened.keys().next().copied()
    }

    /// Has all segments of a unit opened once more.
    pub(super) fn again(&mut self, unit: OpenedUnit<'m>) {
        self.queue.extend(unit.into_segments());
    }
}

impl<'m> OpenedUnit<'m> {
    pub(super) fn into_segments(self) -> impl Iterator<Item = Segment<'m>> {
        self.0.into_iter().map(|opened| opened.segment)
    }

    /// The range that each segment has of the sealed unit, and the place that it came from.
    pub(super) fn ranges(&self) -> impl Iterator<Item = (Range<u64>, usize)> {
        self.0.iter().map(|opened| (opened.sealed.clone(), opened.place))
    }

    /// Whether this is the unit that the publisher signed. One header is in what is hashed: none of the segments may have been
    /// opened under another one.
    pub(super) fn is_signed(&self, signed: &SealedDigests) -> bool {
        let header = self.0.first().and_then(|first| first.header);
        let same = header.is_some() && self.0.iter().all(|opened| opened.header == header);
        let parts: Option<Vec<Part>> = self.0.iter().map(|opened| opened.part.clone()).collect();
        // blake3's own comparison, in constant time.
        same && parts.and_then(join).is_some_and(|digest| digest == *signed.blake3.as_bytes())
    }
}
