//! How the source files of a model are cut into units. Known before anything is sealed.

use std::collections::BTreeSet;

use attestation::{Sha256Digest, UNITS_MAX};
use ring::digest::{Context, SHA256};

use super::{FilePath, ManifestError};
use crate::names::Group;

/// Longest unit, in bytes of plaintext.
pub const UNIT_BYTES_MAX: u64 = 4 << 30;

const PLAN_TAG: &[u8] = b"weightvault/v1 plan\0";

/// A contiguous byte range of one source file, with a key of its own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlanUnit {
    /// The source file.
    pub file: FilePath,
    /// First byte of the range in the file.
    pub offset: u64,
    /// Bytes of the range, at most 4 GiB.
    pub length: u64,
    /// Its label.
    pub group: Group,
}

impl PlanUnit {
    /// The units of a file that is not cut at borders of its own: one, or more where it has more than 4 GiB.
    pub fn whole_file(file: FilePath, length: u64) -> Vec<Self> {
        if length == 0 {
            return vec![Self { file, offset: 0, length: 0, group: Group::files() }];
        }
        Self::pieces(&file, 0, length, &Group::files())
    }

    /// Units of at most 4 GiB that cover `length` bytes from `start`; none where `length` is 0. Stops after one more than
    /// a plan may have, so that a sparse file of any length costs little.
    pub(crate) fn pieces(file: &FilePath, start: u64, length: u64, group: &Group) -> Vec<Self> {
        let piece = |at| Self {
            file: file.clone(),
            offset: start + at,
            length: UNIT_BYTES_MAX.min(length - at),
            group: group.clone(),
        };
        (0..length).step_by(UNIT_BYTES_MAX as usize).map(piece).take(UNITS_MAX + 1).collect()
    }

    /// Bytes of the sealed unit: a Cobblestone-256 message of salt, commitment and chunks (FORMAT.md §6).
    pub fn sealed_len(&self) -> u64 {
        sealed_len(self.length)
    }
}

/// Bytes of a sealed unit of `length` bytes, which is at most 4 GiB.
///
/// ```
/// assert_eq!(ledger::manifest::sealed_len(0), 56 + 16);
/// assert_eq!(ledger::manifest::sealed_len(16_384), 56 + 16_384 + 2 * 16);
/// ```
pub fn sealed_len(length: u64) -> u64 {
    debug_assert!(length <= UNIT_BYTES_MAX);
    56 + length + 16 * (length / 16_384 + 1)
}

/// Units that cover each of their files exactly once, in the order of (file, offset). A unit's index is its place here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan(Vec<PlanUnit>);

impl Plan {
    /// Checks the rules of FORMAT.md §6. The order of the units is checked, not made.
    pub fn new(units: Vec<PlanUnit>) -> Result<Self, ManifestError> {
        if units.is_empty() {
            return Err(ManifestError::NoUnits);
        }
        if units.len() > UNITS_MAX {
            return Err(ManifestError::TooManyUnits { count: units.len() });
        }
        let mut previous: Option<&PlanUnit> = None;
        for (index, unit) in (0u32..).zip(&units) {
            check_unit(index, unit, previous)?;
            previous = Some(unit);
        }
        check_no_file_is_a_directory(&units)?;
        Ok(Self(units))
    }

    /// The units, by index.
    pub fn units(&self) -> &[PlanUnit] {
        &self.0
    }

    /// SHA-256 over every unit's index, file, offset, length and group (FORMAT.md §6).
    pub fn digest(&self) -> Sha256Digest {
        let mut hash = Context::new(&SHA256);
        hash.update(PLAN_TAG);
        let mut field = |bytes: &[u8]| {
            // At most 1024 bytes: the bound of a path.
            let length = bytes.len() as u32;
            hash.update(&length.to_be_bytes());
            hash.update(bytes);
        };
        for (index, unit) in (0u32..).zip(&self.0) {
            field(&index.to_be_bytes());
            field(unit.file.as_str().as_bytes());
            field(&unit.offset.to_be_bytes());
            field(&unit.length.to_be_bytes());
            field(unit.group.as_str().as_bytes());
        }
        let mut digest = [0; 32];
        digest.copy_from_slice(hash.finish().as_ref());
        Sha256Digest::from_bytes(digest)
    }

    /// Bytes of plaintext of all units: the sum of the files' lengths.
    pub fn total_bytes(&self) -> u64 {
        // 16,384 units of 4 GiB are 2^46 bytes.
        self.0.iter().map(|unit| unit.length).sum()
    }
}

/// A unit continues the file of the one before it, or starts a later file at 0.
fn check_unit(index: u32, unit: &PlanUnit, previous: Option<&PlanUnit>) -> Result<(), ManifestError> {
    if unit.length > UNIT_BYTES_MAX {
        return Err(ManifestError::UnitTooLong { index });
    }
    match previous {
        Some(previous) if previous.file == unit.file => {
            // No overflow: 16,384 units of 4 GiB that follow each other.
            let end = previous.offset + previous.length;
            if unit.offset < end {
                return Err(ManifestError::Overlap { index });
            }
            if unit.offset > end {
                return Err(ManifestError::Gap { index });
            }
            if unit.length == 0 || previous.length == 0 {
                return Err(ManifestError::EmptyUnit { index });
            }
        }
        Some(previous) if previous.file > unit.file => {
            return Err(ManifestError::Unordered { index });
        }
        Some(_) | None => {
            if unit.offset != 0 {
                return Err(ManifestError::Gap { index });
            }
        }
    }
    // Every grant has the header units: a tensor must not pass for one.
    if unit.group.is_header() && unit.offset != 0 {
        return Err(ManifestError::HeaderNotAtStart { index });
    }
    Ok(())
}

fn check_no_file_is_a_directory(units: &[PlanUnit]) -> Result<(), ManifestError> {
    let files: BTreeSet<&str> = units.iter().map(|unit| unit.file.as_str()).collect();
    for (index, unit) in (0u32..).zip(units) {
        if unit.file.parents().any(|parent| files.contains(parent)) {
            return Err(ManifestError::FileIsDirectory { index });
        }
    }
    Ok(())
}
