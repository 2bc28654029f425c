//! Sealed units to plaintext files: what an agent does with granted keys.
//!
//! ```text
//! UnitSource ─sealed bytes, in order▶ their place in the mapped file ─opened there▶ OpenedModel
//! ```
//! Ciphertext is read straight to where its plaintext will be and opened there, by all cores at once: no buffer, no
//! second copy. Files can't be read before every unit that was granted has passed, and on any failure all that was
//! written is wiped and removed.
//!
//! Files of which no unit was granted are absent. A file of which some units were granted has its full length and its
//! granted bytes; the rest is a hole that reads as zeros and takes no memory, so that a node of a pipeline can map the
//! usual file and touch its own tensors.

mod adopt;
mod destination;
mod direct;
mod error;
mod source;
mod worker;

use attestation::UnitSet;
use ledger::manifest::{Manifest, PlanUnit};

pub use destination::{Destination, OpenedModel};
pub use direct::DirectReader;
pub use error::{DestinationError, OpenModelError};
pub use source::{LocalReader, LocalUnits, ReadBy, SourceError, UnitSource};

use crate::container::CHUNK_BYTES;
use crate::region::FileMapping;
use crate::unit_keys::UnitKeys;
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
        let granted = granted(self.manifest, self.keys.units())?;
        let mut opened = OpenedModel::begin(destination)?;
        let mut mappings = opened.create_files(self.manifest.units(), &granted)?;
        let shared = Shared::new(self, source, progress);
        let mut segments = self.segments(&granted, &mut mappings, source.run_bytes());
        if self.verify_units {
            // A long unit that came last would keep one thread busy while the others have nothing left.
            segments.sort_by_key(|segment| std::cmp::Reverse(segment.dest.len()));
        }
        shared.open_all(segments, source.threads(cores))?;
        opened.huge_bytes = crate::region::huge_bytes();
        opened.publish(mappings)?;
        Ok(opened)
    }

    /// The granted ranges of the mapped files, in the order of the units, cut for the threads.
    fn segments<'m>(
        &self,
        granted: &[(u32, &PlanUnit)],
        mappings: &'m mut [Option<FileMapping>],
        run_bytes: usize,
    ) -> Vec<Segment<'m>> {
        let longest = if self.verify_units { usize::MAX } else { run_bytes.max(CHUNK_BYTES) };
        let longest = longest / CHUNK_BYTES * CHUNK_BYTES;
        let mut segments = Vec::new();
        let mut files = mappings.iter_mut();
        let mut rest: &'m mut [u8] = &mut [];
        let mut at = 0;
        let mut current = None;
        for (index, unit) in granted {
            if current != Some(&unit.file) {
                // One mapping for each granted file, in the same order; an empty file has none.
                rest = files.next().and_then(Option::as_mut).map_or(&mut [], FileMapping::bytes_mut);
                (current, at) = (Some(&unit.file), 0);
            }
            // Units of one file follow each other, and the file is as long as all of them: Plan::new.
            let (_, from_unit) = std::mem::take(&mut rest).split_at_mut((unit.offset - at) as usize);
            let (mut dest, after) = from_unit.split_at_mut(unit.length as usize);
            (rest, at) = (after, unit.offset + unit.length);
            let mut first = 0;
            while dest.len() > longest {
                let (segment, more) = dest.split_at_mut(longest);
                segments.push(Segment { unit: *index, first, dest: segment });
                first += (longest / CHUNK_BYTES) as u64;
                dest = more;
            }
            segments.push(Segment { unit: *index, first, dest });
        }
        segments
    }
}

fn granted<'m>(manifest: &'m Manifest, units: &UnitSet) -> Result<Vec<(u32, &'m PlanUnit)>, OpenModelError> {
    let find = |index| manifest.unit(index).map(|unit| (index, unit)).ok_or(OpenModelError::UnknownUnit(index));
    units.iter().map(find).collect()
}
