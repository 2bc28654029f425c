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
mod source;
mod worker;

use std::collections::{BTreeMap, BTreeSet};
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
pub use source::{LocalReader, LocalUnits, ReadBy, SourceError, UnitSource};

use crate::container::CHUNK_BYTES;
use crate::region::{FileMapping, prefault};
use crate::unit_keys::UnitKeys;
use files::{GrantedFile, OpenedFile, granted_files, smaller};
use worker::{Segment, Shared};

/// A model whose keys were granted.
pub struct GrantedModel<'a> {
    /// The manifest that the grant names.
    pub manifest: &'a Manifest,
    /// The keys of the units that were granted.
    pub keys: &'a UnitKeys,
    /// Whether each unit's BLAKE3 is compared with the manifest: else a node that was granted the same unit could, with
    /// the host, have forged it. A unit is then read from its start to its end by one thread.
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
        let mut segments = self.segments(&files, &mut mappings, source.run_bytes());
        if self.verify_units {
            // A long unit that came last would keep one thread busy while the others have nothing left.
            segments.sort_by_key(|segment| std::cmp::Reverse(segment.dest.len()));
        }
        shared.open_all(segments, source.threads(cores))?;
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
        let headers = files.iter().filter_map(|file| match file {
            GrantedFile::Whole(_) => None,
            GrantedFile::Tensors { header, .. } => Some(*header),
        });
        let mut headers = shared.open_headers(headers, threads)?.into_iter();
        let opened = files.into_iter().map(|file| match file {
            GrantedFile::Whole(file) => Ok(Some(file)),
            GrantedFile::Tensors { path, length, units, .. } => {
                smaller(path, &headers.next().unwrap_or_default(), length, units)
            }
        });
        opened.filter_map(Result::transpose).collect()
    }

    /// The granted ranges of the mapped files, in the order of the units, cut for the threads; of a unit that several files
    /// have, the first.
    fn segments<'m>(
        &self,
        files: &[OpenedFile<'_>],
        mappings: &'m mut [Option<FileMapping>],
        run_bytes: usize,
    ) -> Vec<Segment<'m>> {
        let longest = if self.verify_units { usize::MAX } else { run_bytes.max(CHUNK_BYTES) };
        let longest = longest / CHUNK_BYTES * CHUNK_BYTES;
        let (mut segments, mut seen) = (Vec::new(), BTreeSet::new());
        for (file, mapping) in files.iter().zip(mappings) {
            let bytes: &'m mut [u8] = mapping.as_mut().map_or(&mut [], FileMapping::bytes_mut);
            // A file is as long as its header and its units together.
            let (header, mut rest) = bytes.split_at_mut(file.header.len());
            header.copy_from_slice(&file.header);
            for (index, unit) in &file.units {
                let (mut dest, after) = std::mem::take(&mut rest).split_at_mut(unit.length as usize);
                rest = after;
                if !seen.insert(*index) {
                    continue;
                }
                let mut first = 0;
                while dest.len() > longest {
                    let (segment, more) = dest.split_at_mut(longest);
                    segments.push(Segment { unit: *index, first, dest: segment });
                    first += (longest / CHUNK_BYTES) as u64;
                    dest = more;
                }
                segments.push(Segment { unit: *index, first, dest });
            }
        }
        segments
    }
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
