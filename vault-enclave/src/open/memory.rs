//! Units opened into memory of this process, for programs that have no use for files.
//!
//! Each unit passes as a whole, and with it each chunk of it, before a byte of it can be seen. Where layers are handed on one
//! after the other, whoever has one does not know yet whether the others will come: it has the publisher's tensors, and
//! not the model.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use ledger::names::Group;

use super::files::OpenedFile;
use super::place::Place;
use super::weights::{Piece, PlainFile, Plaintext};
use super::work::Segment;
use super::worker::Shared;
use super::{GrantedModel, OpenModelError, UnitSource, View, segments};
use crate::place::SafePlace;
use crate::region::WeightRegion;

/// Files begin at multiples of this, as a mapped one would.
const FILE_ALIGNMENT: usize = 4096;

/// Memory of this process as the destination of a load.
pub struct InMemory {
    /// Why plaintext may lie there.
    pub place: SafePlace,
    /// Opens layer by layer, not what is quickest.
    pub in_order: bool,
    /// Dropped once all is wiped, also where nothing was opened.
    pub wiped: Box<dyn Send + Sync>,
}

/// Told how far a load is, from any of its threads.
pub(crate) trait Follower: Sync {
    /// The memory is there; nothing has passed yet.
    fn begun(&self, plaintext: &Arc<Plaintext>);

    /// So many layers, from the first on, have passed.
    fn ready(&self, layers: usize);
}

impl GrantedModel<'_> {
    /// Opens the granted units of `source` into memory, for `cores` cores; `progress` is told of each run of plaintext bytes
    /// that passed, from any thread.
    ///
    /// # Errors
    /// [`OpenModelError`]: the first that any thread met. What was written has been wiped, but for what `follower` still has.
    pub(crate) fn open_in_memory<S: UnitSource>(
        &self,
        source: &S,
        into: InMemory,
        cores: usize,
        progress: &(dyn Fn(u64) + Sync),
        follower: &dyn Follower,
    ) -> Result<Arc<Plaintext>, OpenModelError> {
        let shared = Shared::new(self, source, progress);
        let (views, threads) = ([View::of(self.keys.units().clone())], source.threads(cores));
        let files = self.files(&views, &shared, threads)?;
        let places = places(&files, into.place)?.into_iter();
        let (headers, mut segments) = segments(&files, places, (source.run_bytes(), source.last_run_bytes()), threads);
        let group = |unit: u32| self.manifest.unit(unit).map(|unit| &unit.group);
        let layers = layers(segments.iter().filter_map(|segment| group(segment.unit)));
        // A header says where the tensors of each layer are: it belongs to the first.
        let layer =
            |unit: u32| group(unit).and_then(|group| layers.iter().position(|layer| layer == group)).unwrap_or(0);
        let mut left = vec![0; layers.len()];
        segments.iter().for_each(|segment| left[layer(segment.unit)] += 1);
        let (files, index) = plain_files(&files, headers, &segments, |unit| {
            group(unit).is_some_and(|group| !group.is_header()).then(|| layer(unit))
        });
        let arrivals = Arrivals { index, left: Mutex::new(Left { left, ready: 0 }) };
        if into.in_order {
            segments.sort_by_key(|segment| layer(segment.unit));
        }
        let plaintext = Arc::new(Plaintext { files, layers: layers.clone(), _wiped: into.wiped });
        follower.begun(&plaintext);
        let passed = |segment: Segment<'_>| {
            let layer = layer(segment.unit);
            arrivals.put(&plaintext, segment);
            arrivals.count(layer, follower);
        };
        shared.handing(&passed).open_all(segments, threads)?;
        plaintext.check()?;
        Ok(plaintext)
    }
}

/// A place for each file, all in one mapping.
fn places(files: &[OpenedFile<'_>], place: SafePlace) -> Result<Vec<Place<'static>>, OpenModelError> {
    let Some(first) = files.first() else { return Err(OpenModelError::NothingToOpen) };
    let failed = |error| OpenModelError::Memory { file: first.path.clone(), error };
    let lengths = files.iter().map(|file| usize::try_from(file.length).unwrap_or(usize::MAX));
    let rounded = |length: usize| length.checked_next_multiple_of(FILE_ALIGNMENT).unwrap_or(usize::MAX);
    let total = lengths.clone().map(rounded).fold(0_usize, usize::saturating_add);
    let mut rest = WeightRegion::new(total.max(1), place.keep_locked()).map_err(failed)?;
    Ok(lengths.map(|length| Place::Own(rest.split_to(rounded(length)).split_to(length))).collect())
}

/// The groups in the order in which a model uses them, as far as names say: files, what has no number (an embedding), then
/// by number. Headers are no layer, unless there is nothing else.
fn layers<'m>(groups: impl Iterator<Item = &'m Group>) -> Vec<Group> {
    let mut layers: Vec<Group> = groups.cloned().collect();
    layers.sort_by_cached_key(|group| {
        let parts: Vec<_> = group.as_str().split('.').map(|part| (part.parse::<u64>().ok(), part.to_owned())).collect();
        let has_number = parts.iter().any(|(number, _)| number.is_some());
        (*group != Group::files(), has_number, parts)
    });
    layers.dedup();
    if layers.iter().any(|layer| !layer.is_header()) {
        layers.retain(|layer| !layer.is_header());
    }
    layers
}

/// File and piece of each segment, by unit and first chunk.
type Index = HashMap<(u32, u64), (usize, usize)>;

/// The files without their bytes, but for the headers that were made for them.
fn plain_files(
    files: &[OpenedFile<'_>],
    headers: Vec<Place<'_>>,
    segments: &[Segment<'_>],
    layer: impl Fn(u32) -> Option<usize>,
) -> (Vec<PlainFile>, Index) {
    let (mut plain, mut index, mut segments) = (Vec::new(), Index::new(), segments.iter().peekable());
    for (file, header) in files.iter().zip(headers) {
        let (mut pieces, mut start) = (Vec::new(), 0);
        if let Place::Own(region) = header
            && !region.is_empty()
        {
            start = region.len() as u64;
            pieces.push(Piece { start: 0, layer: None, bytes: OnceLock::from(region) });
        }
        let units = || file.units.iter();
        let first_is_header = units().next().is_some_and(|(_, unit)| unit.group.is_header());
        let has_header = !pieces.is_empty() || first_is_header;
        while let Some(segment) = segments.next_if(|segment| units().any(|(unit, _)| *unit == segment.unit)) {
            index.insert((segment.unit, segment.first), (plain.len(), pieces.len()));
            pieces.push(Piece { start, layer: layer(segment.unit), bytes: OnceLock::new() });
            start += segment.dest.len() as u64;
        }
        let (path, length) = (file.path.clone(), file.length);
        plain.push(PlainFile { path, length, pieces, has_header, header: OnceLock::new() });
    }
    (plain, index)
}

/// Takes segments as they pass.
struct Arrivals {
    index: Index,
    left: Mutex<Left>,
}

struct Left {
    /// Segments that are missing of each layer.
    left: Vec<usize>,
    /// Layers from the first on that miss none.
    ready: usize,
}

impl Arrivals {
    fn put(&self, plaintext: &Plaintext, segment: Segment<'_>) {
        let Place::Own(region) = segment.dest else { return };
        let piece = self.index.get(&(segment.unit, segment.first));
        let piece = piece.and_then(|(file, piece)| plaintext.files.get(*file)?.pieces.get(*piece));
        if let Some(piece) = piece {
            // Each segment is opened once; a second one would be wiped here.
            let _ = piece.bytes.set(region);
        }
    }

    fn count(&self, layer: usize, follower: &dyn Follower) {
        // Whoever panicked here left numbers that are right.
        let mut counts = self.left.lock().unwrap_or_else(PoisonError::into_inner);
        let Left { left, ready } = &mut *counts;
        if let Some(left) = left.get_mut(layer) {
            *left = left.saturating_sub(1);
        }
        let now = left.iter().take_while(|left| **left == 0).count();
        if now > *ready {
            *ready = now;
            follower.ready(now);
        }
    }
}

#[cfg(test)]
mod tests;
