//! The names of a model's tensors, which only its headers have: opened to choose units by them, before those are granted.

use std::ops::Range;

use ledger::manifest::{FilePath, PlanUnit};
use ledger::safetensors::Header;

use super::place::Place;
use super::work::Segment;
use super::worker::Shared;
use super::{GrantedModel, OpenModelError, UnitSource};

/// A tensor, and the units that its bytes are in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnitTensors {
    /// Its name.
    pub name: String,
    /// Its units, ascending; none where it has no bytes.
    pub units: Range<u32>,
}

/// The tensors of one file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TensorsOf {
    /// The file.
    pub file: FilePath,
    /// Its header unit.
    pub header: u32,
    /// In the order of their bytes.
    pub tensors: Vec<UnitTensors>,
}

impl GrantedModel<'_> {
    /// Opens the header units that were granted, and finds the units of each tensor. Nothing of them stays in a file.
    ///
    /// # Errors
    /// [`OpenModelError`].
    pub fn tensors<S: UnitSource>(&self, source: &S, cores: usize) -> Result<Vec<TensorsOf>, OpenModelError> {
        let shared = Shared::new(self, source, &|_| {});
        let granted = super::granted(self.manifest, self.keys.units())?;
        let headers: Vec<_> = granted.into_iter().filter(|(_, unit)| unit.group.is_header()).collect();
        let opened = shared.open_headers(headers.iter().copied(), cores)?;
        headers.into_iter().zip(opened).map(|((index, unit), bytes)| self.tensors_of(index, unit, &bytes)).collect()
    }

    fn tensors_of(&self, header: u32, unit: &PlanUnit, bytes: &[u8]) -> Result<TensorsOf, OpenModelError> {
        let file = unit.file.clone();
        let own = || (0_u32..).zip(self.manifest.units()).filter(|(_, unit)| unit.file == file);
        let length = own().map(|(_, unit)| unit.length).sum();
        let failed = |error| OpenModelError::Header { file: file.clone(), error };
        let parsed = Header::parse(bytes, length).map_err(failed)?;
        let data: Vec<(u32, Range<u64>)> =
            own().skip(1).map(|(index, unit)| (index, unit.offset..unit.offset + unit.length)).collect();
        // Both are in the order of their bytes, and without gaps.
        let units = |place: &Range<u64>| {
            let first = data.partition_point(|(_, range)| range.end <= place.start);
            let behind = data.partition_point(|(_, range)| range.start < place.end);
            let index = |at: usize| data.get(at).map_or(header + 1 + data.len() as u32, |(index, _)| *index);
            if place.is_empty() { header..header } else { index(first)..index(behind) }
        };
        let tensors =
            parsed.places().map(|(tensor, place)| UnitTensors { name: tensor.name.clone(), units: units(&place) });
        let tensors = tensors.collect();
        Ok(TensorsOf { file, header, tensors })
    }
}

impl<S: UnitSource> Shared<'_, S> {
    /// Opens whole units into memory of this process, which the caller drops soon.
    pub(super) fn open_headers<'m>(
        &self,
        units: impl Iterator<Item = (u32, &'m PlanUnit)>,
        threads: usize,
    ) -> Result<Vec<Vec<u8>>, OpenModelError> {
        let units: Vec<_> = units.collect();
        // A header unit has at most 25 MiB: what seals, and what parses, takes no longer one.
        let fits =
            |unit: &PlanUnit| usize::try_from(unit.length).ok().filter(|length| *length <= HEADER_UNIT_BYTES_MAX);
        let empty = |(_, unit): &(u32, &PlanUnit)| {
            let error = || OpenModelError::Header {
                file: unit.file.clone(),
                error: ledger::safetensors::SafetensorsError::HeaderTooLarge { bytes: unit.length },
            };
            fits(unit).map(|length| vec![0; length]).ok_or_else(error)
        };
        let mut opened = units.iter().map(empty).collect::<Result<Vec<_>, _>>()?;
        let segments = units.iter().zip(&mut opened).map(|((unit, _), dest)| Segment::new(*unit, 0, Place::Lent(dest)));
        self.open_all(segments.collect(), threads)?;
        Ok(opened)
    }
}

/// Length prefix and JSON.
const HEADER_UNIT_BYTES_MAX: usize = 8 + ledger::safetensors::HEADER_BYTES_MAX as usize;
