//! Sealed units to plaintext files: what an agent does with granted keys.
//!
//! ```text
//! UnitSource ─sealed bytes, in order▶ their place in the mapped file ─opened there▶ OpenedModel
//! ```
//! Ciphertext is read straight to where its plaintext will be and opened there, by all cores at once: no buffer, no
//! second copy. Files can't be read before every unit that was granted has passed, and on any failure all that was
//! written is wiped and removed.
//!
//! Where some units were granted, the files are those that hold just them (`files.rs`).

mod adopt;
mod destination;
mod direct;
mod error;
mod files;
mod headers;
mod memory;
mod place;
mod source;
mod weights;
mod worker;

use attestation::UnitSet;
use ledger::manifest::{Manifest, PlanUnit};

pub use destination::{Destination, OpenedModel};
pub use direct::DirectReader;
pub use error::{DestinationError, OpenModelError};
pub use files::check_units;
pub use headers::{TensorsOf, UnitTensors};
pub(crate) use memory::Follower;
pub use memory::InMemory;
pub use source::{LocalReader, LocalUnits, ReadBy, SourceError, UnitSource};
pub(crate) use weights::Plaintext;
pub use weights::{Layer, Tensor, Weights};

use crate::container::CHUNK_BYTES;
use crate::region::FileMapping;
use crate::unit_keys::UnitKeys;
use files::{GrantedFile, OpenedFile, granted_files, smaller};
use place::Place;
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
        let mut opened = OpenedModel::begin(destination)?;
        let shared = Shared::new(self, source, progress);
        let files = self.files(&shared, source.threads(cores))?;
        let mut mappings = opened.create_files(&files)?;
        let places = mappings.iter_mut().map(|mapping| mapping.as_mut().map_or(&mut [][..], FileMapping::bytes_mut));
        let (_, mut segments) = self.segments(&files, places.map(Place::Lent), source.run_bytes());
        self.balance(&mut segments);
        shared.open_all(segments, source.threads(cores))?;
        opened.huge_bytes = crate::region::huge_bytes();
        opened.publish(mappings)?;
        Ok(opened)
    }

    /// The files that will be there. Headers of those that are not whole are opened first: they say what the smaller ones
    /// look like.
    fn files<S: UnitSource>(
        &self,
        shared: &Shared<'_, S>,
        threads: usize,
    ) -> Result<Vec<OpenedFile<'_>>, OpenModelError> {
        let files = granted_files(self.manifest, self.keys.units())?;
        let headers = files.iter().filter_map(|file| match file {
            GrantedFile::Whole(_) => None,
            GrantedFile::Tensors { header, .. } => Some(*header),
        });
        let mut headers = shared.open_headers(headers, threads)?.into_iter();
        let opened = files.into_iter().map(|file| match file {
            GrantedFile::Whole(file) => Ok(Some(file)),
            GrantedFile::Tensors { length, units, .. } => smaller(&headers.next().unwrap_or_default(), length, units),
        });
        opened.filter_map(Result::transpose).collect()
    }

    /// The headers that were made for smaller files, and the granted ranges of all files, in the order of the units, cut for
    /// the threads.
    fn segments<'m>(
        &self,
        files: &[OpenedFile<'_>],
        places: impl Iterator<Item = Place<'m>>,
        run_bytes: usize,
    ) -> (Vec<Place<'m>>, Vec<Segment<'m>>) {
        let longest = if self.verify_units { usize::MAX } else { run_bytes.max(CHUNK_BYTES) };
        let longest = longest / CHUNK_BYTES * CHUNK_BYTES;
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
                let mut first = 0;
                while dest.len() > longest {
                    segments.push(Segment { unit: *index, first, dest: dest.split_to(longest) });
                    first += (longest / CHUNK_BYTES) as u64;
                }
                segments.push(Segment { unit: *index, first, dest });
            }
        }
        (headers, segments)
    }

    /// Where units are opened as a whole, a long one that came last would keep one thread busy while the others have nothing
    /// left.
    fn balance(&self, segments: &mut [Segment<'_>]) {
        if self.verify_units {
            segments.sort_by_key(|segment| std::cmp::Reverse(segment.dest.len()));
        }
    }
}

fn granted<'m>(manifest: &'m Manifest, units: &UnitSet) -> Result<Vec<(u32, &'m PlanUnit)>, OpenModelError> {
    let find = |index| manifest.unit(index).map(|unit| (index, unit)).ok_or(OpenModelError::UnknownUnit(index));
    units.iter().map(find).collect()
}
