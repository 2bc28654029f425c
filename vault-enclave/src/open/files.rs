//! Which files appear, and what is where in them.
//!
//! A file whose units were all granted is the publisher's, byte for byte. Of a safetensors file of which some units were
//! granted there is a smaller one, as valid as the whole: its header names the tensors that are there, their data follow each
//! other. Any other file is there as a whole or not at all: one with holes would pass for one that is all there.

use std::ops::Range;

use attestation::UnitSet;
use ledger::manifest::{FilePath, Manifest, PlanUnit, SelectError};
use ledger::safetensors::Header;

use super::{OpenModelError, granted};

/// Files of some of the units that were granted, as one program is to see them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct View {
    directory: Option<FilePath>,
    units: UnitSet,
}

/// A file, and the units that its bytes come from: behind `header` they follow each other.
pub(super) struct OpenedFile<'m> {
    pub(super) path: FilePath,
    pub(super) length: u64,
    /// What stands there in the place of the publisher's header; empty in a whole file.
    pub(super) header: Vec<u8>,
    pub(super) units: Vec<(u32, &'m PlanUnit)>,
}

/// What was granted of one file.
pub(super) enum GrantedFile<'m> {
    /// All of it.
    Whole(OpenedFile<'m>),
    /// The header and some runs of tensors.
    Tensors {
        path: FilePath,
        header: (u32, &'m PlanUnit),
        /// Bytes of the whole file.
        length: u64,
        units: Vec<(u32, &'m PlanUnit)>,
    },
}

impl<'m> GrantedFile<'m> {
    /// The header that says what a smaller file looks like.
    pub(super) fn header(&self) -> Option<(u32, &'m PlanUnit)> {
        match self {
            Self::Whole(_) => None,
            Self::Tensors { header, .. } => Some(*header),
        }
    }
}

impl View {
    /// Where the publisher has them.
    #[must_use]
    pub fn of(units: UnitSet) -> Self {
        Self { directory: None, units }
    }

    /// The same, below `directory`, which no other view has.
    #[must_use]
    pub fn below(directory: FilePath, units: UnitSet) -> Self {
        Self { directory: Some(directory), units }
    }

    /// Where they are, if not where the publisher has them.
    pub fn directory(&self) -> Option<&FilePath> {
        self.directory.as_ref()
    }

    /// The units.
    pub fn units(&self) -> &UnitSet {
        &self.units
    }

    /// Bytes of plaintext in some views together: what several have counts as often.
    ///
    /// # Errors
    /// A unit that the manifest does not have.
    pub fn bytes_of(views: &[Self], manifest: &Manifest) -> Result<u64, SelectError> {
        views.iter().map(|view| manifest.bytes_of(&view.units)).sum()
    }

    /// As many files as there can be of some views: at most one a unit, and one that is a directory for each.
    #[must_use]
    pub fn files_max(views: &[Self]) -> usize {
        views.iter().map(|view| view.units.len() + 1).sum()
    }

    /// Where a file of the model is. What is no path would be wiped by nobody.
    fn path(&self, file: &FilePath) -> Result<FilePath, OpenModelError> {
        let Some(directory) = &self.directory else { return Ok(file.clone()) };
        let refused = |error| OpenModelError::ViewPath { file: file.clone(), directory: directory.clone(), error };
        FilePath::try_from(format!("{directory}/{file}").as_str()).map_err(refused)
    }
}

/// Whether files can be made of these views, before the keys of their units are asked for.
///
/// # Errors
/// [`OpenModelError::UnknownUnit`], [`OpenModelError::FilePartlyGranted`], [`OpenModelError::NothingToOpen`],
/// [`OpenModelError::ViewPath`].
pub fn check_views(manifest: &Manifest, views: &[View]) -> Result<(), OpenModelError> {
    views.iter().try_for_each(|view| granted_files(manifest, view).map(drop))
}

/// What files there will be of a view, in their order.
pub(super) fn granted_files<'m>(manifest: &'m Manifest, view: &View) -> Result<Vec<GrantedFile<'m>>, OpenModelError> {
    let granted = granted(manifest, &view.units)?;
    let mut files = Vec::new();
    for granted in granted.chunk_by(|(_, a), (_, b)| a.file == b.file) {
        files.extend(granted_file(manifest, view, granted)?);
    }
    if files.is_empty() { Err(OpenModelError::NothingToOpen) } else { Ok(files) }
}

fn granted_file<'m>(
    manifest: &'m Manifest,
    view: &View,
    granted: &[(u32, &'m PlanUnit)],
) -> Result<Option<GrantedFile<'m>>, OpenModelError> {
    let Some((&(first, start), behind)) = granted.split_first() else { return Ok(None) };
    let file = &start.file;
    let path = view.path(file)?;
    // Units are sorted by file and follow each other: the last one ends where the file does.
    let units = manifest.units();
    let all = units.partition_point(|unit| unit.file < *file)..units.partition_point(|unit| unit.file <= *file);
    let length = units[all.clone()].last().map_or(0, |last| last.offset + last.length);
    if granted.len() == all.len() {
        return Ok(Some(GrantedFile::Whole(OpenedFile { path, length, header: Vec::new(), units: granted.to_vec() })));
    }
    if !start.group.is_header() {
        let has = |index: &usize| granted.iter().any(|(granted, _)| *granted as usize == *index);
        let missing = all.clone().find(|index| !has(index)).unwrap_or(all.start) as u32;
        return Err(OpenModelError::FilePartlyGranted { file: file.clone(), missing });
    }
    // Every grant has the headers, of files too of which it has nothing else.
    let tensors = || GrantedFile::Tensors { path, header: (first, start), length, units: behind.to_vec() };
    Ok((!behind.is_empty()).then(tensors))
}

/// The smaller file of a header that was opened, and the units behind it.
///
/// # Errors
/// [`OpenModelError::Header`]: the publisher's header is none, or the units cut a tensor.
pub(super) fn smaller<'m>(
    path: FilePath,
    header: &[u8],
    length: u64,
    units: Vec<(u32, &'m PlanUnit)>,
) -> Result<Option<OpenedFile<'m>>, OpenModelError> {
    let Some(file) = units.first().map(|(_, unit)| unit.file.clone()) else { return Ok(None) };
    let ranges: Vec<Range<u64>> = units.iter().map(|(_, unit)| unit.offset..unit.offset + unit.length).collect();
    let part = Header::parse(header, length).and_then(|header| header.part(&ranges));
    let part = part.map_err(|error| OpenModelError::Header { file, error })?;
    let data: u64 = units.iter().map(|(_, unit)| unit.length).sum();
    Ok(Some(OpenedFile { path, length: part.header.len() as u64 + data, header: part.header, units }))
}

#[cfg(test)]
mod tests {
    use ledger::safetensors::SafetensorsError;

    use super::*;

    #[test]
    fn units_that_cut_a_tensor_or_a_header_that_is_none_make_no_file() {
        let json = br#"{"a":{"dtype":"U8","shape":[8],"data_offsets":[0,8]}}"#;
        let header = [&(json.len() as u64).to_le_bytes(), json.as_slice()].concat();
        let length = header.len() as u64 + 8;
        let unit = PlanUnit {
            file: "m.safetensors".parse().unwrap(),
            offset: header.len() as u64,
            length: 4,
            group: "layer.0".parse().unwrap(),
        };
        let refusal = |header: &[u8]| smaller(unit.file.clone(), header, length, vec![(1, &unit)]).err().unwrap();
        let cut = OpenModelError::Header {
            file: unit.file.clone(),
            error: SafetensorsError::CutTensor { tensor: "a".to_owned() },
        };
        assert_eq!(refusal(&header), cut);
        assert_eq!(cut.code(), "safetensors-cut-tensor");
        assert!(matches!(refusal(&header[..20]), OpenModelError::Header { .. }));
    }
}
