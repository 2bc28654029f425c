//! Plaintext in memory of this process, and what a program sees of it.

use std::ops::Range;
use std::sync::{Arc, OnceLock};

use ledger::manifest::FilePath;
use ledger::names::Group;
use ledger::safetensors::{self, Header};

use super::OpenModelError;
use crate::region::WeightRegion;

/// All files of a load. Pieces come as they pass; what is there never changes, and is wiped when the last owner goes.
pub(crate) struct Plaintext {
    pub(super) files: Vec<PlainFile>,
    /// The groups of the units, in the order in which they are handed on.
    pub(super) layers: Vec<Group>,
    /// Dropped last: whoever waits for it knows that all is wiped.
    pub(super) _wiped: Box<dyn Send + Sync>,
}

pub(super) struct PlainFile {
    pub(super) path: FilePath,
    pub(super) length: u64,
    /// They follow each other from the start of the file to its end.
    pub(super) pieces: Vec<Piece>,
    /// Whether it begins with the header of a safetensors file, and what that says once it is there.
    pub(super) has_header: bool,
    pub(super) header: OnceLock<Result<Header, OpenModelError>>,
}

/// A run of a file.
pub(super) struct Piece {
    /// Offset in the file.
    pub(super) start: u64,
    /// Of which layer; `None` for the header of a safetensors file.
    pub(super) layer: Option<usize>,
    pub(super) bytes: OnceLock<WeightRegion>,
}

/// All weights of a model, lent to the program: as long as this lives, they are not wiped. It can go to any thread, and to
/// several (`Arc<Weights>`).
///
/// Not `Clone`, and without `Debug`: what is in it is shown to nobody by accident.
///
/// ```compile_fail
/// fn print(weights: &vault_enclave::Weights) -> String { format!("{weights:?}") }
/// ```
/// ```
/// fn lend(weights: &vault_enclave::Weights) -> Option<&[u8]> { weights.file("config.json") }
/// ```
pub struct Weights(Arc<Plaintext>);

/// The tensors of one group, all of them there while others may still be on their way. As long as this lives, no tensor of
/// the model is wiped.
pub struct Layer {
    plaintext: Arc<Plaintext>,
    index: usize,
}

/// A tensor where it lies, in a file as safetensors has it.
#[derive(Clone, Copy)]
pub struct Tensor<'w> {
    described: &'w safetensors::Tensor,
    file: &'w FilePath,
    bytes: &'w [u8],
}

impl Weights {
    pub(crate) fn new(plaintext: Arc<Plaintext>) -> Self {
        Self(plaintext)
    }

    /// The files of the model, by path: those that `load` would have made, byte for byte.
    pub fn files(&self) -> impl Iterator<Item = (&str, &[u8])> {
        self.0.files.iter().filter_map(|file| Some((file.path.as_str(), file.bytes(0..file.length)?)))
    }

    /// One file of the model.
    #[must_use]
    pub fn file(&self, path: &str) -> Option<&[u8]> {
        self.files().find(|(found, _)| *found == path).map(|(_, bytes)| bytes)
    }

    /// The tensors of all safetensors files, in the order of their bytes.
    pub fn tensors(&self) -> impl Iterator<Item = Tensor<'_>> {
        self.0.files.iter().flat_map(|file| file.tensors(None))
    }

    /// The tensor of this name.
    #[must_use]
    pub fn tensor(&self, name: &str) -> Option<Tensor<'_>> {
        self.tensors().find(|tensor| tensor.name() == name)
    }

    /// How much of the memory lies in huge pages, as far as the kernel tells.
    #[must_use]
    pub fn huge_bytes(&self) -> u64 {
        let mut pieces = self.0.files.iter().flat_map(|file| &file.pieces).filter_map(|piece| piece.bytes.get());
        pieces.next().map_or(0, WeightRegion::huge_bytes)
    }
}

impl Layer {
    pub(crate) fn new(plaintext: Arc<Plaintext>, index: usize) -> Option<Self> {
        (index < plaintext.layers.len()).then_some(Self { plaintext, index })
    }

    /// The group that its units have: `layer.0`, `other`, `files`, or what whoever sealed the model called it.
    #[must_use]
    pub fn group(&self) -> &str {
        self.plaintext.layers.get(self.index).map_or("", Group::as_str)
    }

    /// Its tensors; those without a byte are in none.
    pub fn tensors(&self) -> impl Iterator<Item = Tensor<'_>> {
        self.plaintext.files.iter().flat_map(|file| file.tensors(Some(self.index)))
    }

    /// The files that have no tensors and lie in this group as a whole.
    pub fn files(&self) -> impl Iterator<Item = (&str, &[u8])> {
        let own = |piece: &Piece| piece.layer == Some(self.index);
        let whole = self.plaintext.files.iter().filter(move |file| !file.has_header && file.pieces.iter().all(own));
        whole.filter_map(|file| Some((file.path.as_str(), file.bytes(0..file.length)?)))
    }
}

impl<'w> Tensor<'w> {
    /// Its name.
    #[must_use]
    pub fn name(&self) -> &'w str {
        &self.described.name
    }

    /// Its type, as safetensors calls it: `F32`, `BF16`, …
    #[must_use]
    pub fn dtype(&self) -> &'w str {
        self.described.dtype()
    }

    /// Its dimensions.
    #[must_use]
    pub fn shape(&self) -> &'w [u64] {
        self.described.shape()
    }

    /// The file that it is in.
    #[must_use]
    pub fn file(&self) -> &'w str {
        self.file.as_str()
    }

    /// Its bytes, little-endian, row by row. Aligned as the file has them, which is to 8 bytes as a rule.
    #[must_use]
    pub fn bytes(&self) -> &'w [u8] {
        self.bytes
    }
}

impl Plaintext {
    /// Of no files.
    #[cfg(test)]
    pub(crate) fn of_nothing() -> Self {
        Self { files: Vec::new(), layers: Vec::new(), _wiped: Box::new(()) }
    }

    /// Reads the headers that are there.
    ///
    /// # Errors
    /// [`OpenModelError::Header`].
    pub(crate) fn check(&self) -> Result<(), OpenModelError> {
        self.files
            .iter()
            .filter_map(PlainFile::header)
            .try_for_each(|header| header.as_ref().map(drop).map_err(Clone::clone))
    }
}

impl PlainFile {
    /// What its header says; `None` where it has none, or it is not there yet.
    fn header(&self) -> Option<&Result<Header, OpenModelError>> {
        let end = self.pieces.iter().find(|piece| piece.layer.is_some()).map_or(self.length, |piece| piece.start);
        let bytes = self.bytes(0..end).filter(|_| self.has_header)?;
        let parse = || {
            let failed = |error| OpenModelError::Header { file: self.path.clone(), error };
            Header::parse(bytes, self.length).map_err(failed)
        };
        Some(self.header.get_or_init(parse))
    }

    /// The tensors that are there: of one layer, or all.
    fn tensors(&self, layer: Option<usize>) -> impl Iterator<Item = Tensor<'_>> {
        let header = self.header().and_then(|header| header.as_ref().ok());
        let places = header.into_iter().flat_map(Header::places);
        let wanted = move |place: &Range<u64>| {
            layer.is_none() || !place.is_empty() && self.piece(place.start).is_some_and(|piece| piece.layer == layer)
        };
        let there = places.filter(move |(_, place)| wanted(place));
        there.filter_map(|(described, place)| Some(Tensor { described, file: &self.path, bytes: self.bytes(place)? }))
    }

    /// The piece that has this byte.
    fn piece(&self, at: u64) -> Option<&Piece> {
        let behind = self.pieces.partition_point(|piece| piece.start <= at);
        self.pieces.get(behind.checked_sub(1)?)
    }

    /// These bytes, once all of them have passed.
    fn bytes(&self, range: Range<u64>) -> Option<&[u8]> {
        if range.is_empty() {
            return Some(&[]);
        }
        let first = self.pieces.partition_point(|piece| piece.start <= range.start).checked_sub(1)?;
        let behind = self.pieces.partition_point(|piece| piece.start < range.end);
        let pieces = self.pieces.get(first..behind)?;
        let there: Option<Vec<&WeightRegion>> = pieces.iter().map(|piece| piece.bytes.get()).collect();
        let bytes = WeightRegion::joined(there?.into_iter())?;
        let start = range.start - pieces.first()?.start;
        bytes.get(usize::try_from(start).ok()?..usize::try_from(start + (range.end - range.start)).ok()?)
    }
}
