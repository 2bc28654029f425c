//! Sealed units to plaintext files: what an agent does with granted keys.
//!
//! ```text
//! UnitSource ─sealed bytes, in order▶ their place in the mapped file ─opened there▶ OpenedModel
//! ```
//! Ciphertext is read straight to where its plaintext will be and opened there, by all cores at once: no buffer, no
//! second copy. Files can't be read before every unit that was granted has passed, and on any failure all that was
//! written is wiped and removed.
//!
//! Where some units were granted, the files are those that hold just them (`files.rs`). Programs that want different files of
//! one grant have a view each; a unit of several views is fetched and opened once, and copied.

mod adopt;
mod destination;
mod direct;
mod directory;
mod error;
mod files;
mod headers;
mod memory;
mod place;
mod source;
mod weights;
mod work;
mod worker;

use std::collections::BTreeMap;
use std::ops::Range;

use attestation::UnitSet;
use ledger::manifest::{Manifest, PlanUnit};

pub(crate) use destination::raise_file_limit;
pub use destination::{Destination, OpenedModel};
pub use direct::DirectReader;
pub use directory::{Directory, DirectoryId};
pub use error::{DestinationError, OpenModelError};
pub use files::{View, check_views};
pub use headers::{TensorsOf, UnitTensors};
pub(crate) use memory::Follower;
pub use memory::InMemory;
pub use source::{LocalReader, LocalUnits, ReadBy, SourceError, UnitSource};
pub(crate) use weights::Plaintext;
pub use weights::{Layer, Tensor, Weights};

use crate::container::CHUNK_BYTES;
use crate::region::{FileMapping, prefault};
use crate::unit_keys::UnitKeys;
use files::{GrantedFile, OpenedFile, granted_files, smaller};
use place::Place;
use work::Segment;
use worker::Shared;

/// A model whose keys were granted.
pub struct GrantedModel<'a> {
    /// The manifest that the grant names.
    pub manifest: &'a Manifest,
    /// The keys of the units that were granted.
    pub keys: &'a UnitKeys,
    /// Whether each unit's BLAKE3 is compared with the manifest: else a node that was granted the same unit could, with
    /// the host, have forged it. Each thread hashes what it opens.
    pub verify_units: bool,
}

impl GrantedModel<'_> {
    /// Bytes of plaintext that were granted.
    ///
    /// # Errors
    /// [`OpenModelError::UnknownUnit`].
    pub fn granted_bytes(&self) -> Result<u64, OpenModelError> {
        granted(self.manifest, self.keys.units()).map(|units| units.iter().map(|(_, unit)| unit.length).sum())
    }

    /// Opens the granted units of `source` into `destination`, for `cores` cores; `progress` is told of each run
    /// of plaintext bytes that passed, from any thread.
    ///
    /// # Errors
    /// [`OpenModelError`]: the first that any thread met. Everything written has been wiped and removed.
    pub fn open<S: UnitSource>(
        &self,
        source: &S,
        destination: Destination,
        cores: usize,
        progress: &(dyn Fn(u64) + Sync),
    ) -> Result<OpenedModel, OpenModelError> {
        self.open_views(&[View::of(self.keys.units().clone())], source, destination, cores, progress)
    }

    /// The same as the files of some views.
    ///
    /// # Errors
    /// As [`GrantedModel::open`].
    pub fn open_views<S: UnitSource>(
        &self,
        views: &[View],
        source: &S,
        destination: Destination,
        cores: usize,
        progress: &(dyn Fn(u64) + Sync),
    ) -> Result<OpenedModel, OpenModelError> {
        let mut opened = OpenedModel::begin(destination)?;
        let shared = Shared::new(self, source, progress);
        let files = self.files(views, &shared, source.threads(cores))?;
        let mut mappings = opened.create_files(&files)?;
        let threads = source.threads(cores);
        let places = mappings.iter_mut().map(|mapping| mapping.as_mut().map_or(&mut [][..], FileMapping::bytes_mut));
        let runs = (source.run_bytes(), source.last_run_bytes());
        let (_, segments) = segments(&files, places.map(Place::Lent), runs, threads);
        shared.open_all(segments, threads)?;
        copy_repeated(&files, &mut mappings)?;
        opened.huge_bytes = crate::region::huge_bytes();
        opened.publish(mappings)?;
        Ok(opened)
    }

    /// The files that will be there. Headers of those that are not whole are opened first: they say what the smaller ones
    /// look like.
    fn files<S: UnitSource>(
        &self,
        views: &[View],
        shared: &Shared<'_, S>,
        threads: usize,
    ) -> Result<Vec<OpenedFile<'_>>, OpenModelError> {
        let mut files = Vec::new();
        for view in views {
            files.extend(granted_files(self.manifest, view)?);
        }
        // Files of several views may have the same one.
        let headers: BTreeMap<u32, &PlanUnit> = files.iter().filter_map(GrantedFile::header).collect();
        let opened = shared.open_headers(headers.iter().map(|(index, unit)| (*index, *unit)), threads)?;
        let headers: BTreeMap<u32, Vec<u8>> = headers.into_keys().zip(opened).collect();
        let opened = files.into_iter().map(|file| match file {
            GrantedFile::Whole(file) => Ok(Some(file)),
            GrantedFile::Tensors { path, header: (index, _), length, units } => {
                smaller(path, headers.get(&index).map_or(&[], Vec::as_slice), length, units)
            }
        });
        opened.filter_map(Result::transpose).collect()
    }
}

/// The headers that were made for smaller files, and the granted ranges of all files, in the order of the units, cut for the
/// threads: runs, and shorter ones at the end, where a thread that has a long one keeps the others waiting. Of a unit that
/// several files have, those of the first.
fn segments<'m>(
    files: &[OpenedFile<'_>],
    places: impl Iterator<Item = Place<'m>>,
    (longest, shortest): (usize, usize),
    threads: usize,
) -> (Vec<Place<'m>>, Vec<Segment<'m>>) {
    let units = files.iter().flat_map(|file| &file.units);
    let mut missing: BTreeMap<u32, u64> = units.map(|(index, unit)| (*index, unit.length)).collect();
    let mut left: u64 = missing.values().sum();
    let (mut headers, mut segments) = (Vec::new(), Vec::new());
    for (file, mut rest) in files.iter().zip(places) {
        // A file is as long as its header and its units together.
        let mut header = rest.split_to(file.header.len());
        if !file.header.is_empty() {
            header.copy_from_slice(&file.header);
        }
        headers.push(header);
        for (index, unit) in &file.units {
            let mut dest = rest.split_to(unit.length as usize);
            if missing.remove(index).is_none() {
                continue;
            }
            let mut first = 0;
            loop {
                let share = usize::try_from(left / (2 * threads as u64)).unwrap_or(usize::MAX);
                let bytes = share.clamp(shortest.min(longest), longest).max(CHUNK_BYTES) / CHUNK_BYTES * CHUNK_BYTES;
                let segment = dest.split_to(dest.len().min(bytes));
                left -= segment.len() as u64;
                segments.push(Segment::new(*index, first, segment));
                if dest.is_empty() {
                    break;
                }
                first += (bytes / CHUNK_BYTES) as u64;
            }
        }
    }
    (headers, segments)
}

/// Brings units that were opened for one file to the others that have them.
fn copy_repeated(files: &[OpenedFile<'_>], mappings: &mut [Option<FileMapping>]) -> Result<(), OpenModelError> {
    let mut opened: BTreeMap<u32, (usize, Range<usize>)> = BTreeMap::new();
    for (at, file) in files.iter().enumerate() {
        let mut end = file.header.len();
        for (unit, plan) in &file.units {
            let place = end..end + plan.length as usize;
            end = place.end;
            let Some((first, from)) = opened.get(unit) else {
                opened.insert(*unit, (at, place));
                continue;
            };
            // No file has a unit twice, so the first one is before this.
            let (before, behind) = mappings.split_at_mut(at);
            if let (Some(Some(source)), Some(Some(mapping))) = (before.get_mut(*first), behind.first_mut()) {
                let dest = &mut mapping.bytes_mut()[place];
                prefault(dest).map_err(|error| OpenModelError::Memory { file: file.path.clone(), error })?;
                dest.copy_from_slice(&source.bytes_mut()[from.clone()]);
            }
        }
    }
    Ok(())
}

fn granted<'m>(manifest: &'m Manifest, units: &UnitSet) -> Result<Vec<(u32, &'m PlanUnit)>, OpenModelError> {
    let find = |index| manifest.unit(index).map(|unit| (index, unit)).ok_or(OpenModelError::UnknownUnit(index));
    units.iter().map(find).collect()
}
