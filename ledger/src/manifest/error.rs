//! Why a manifest or a selection is refused.

use std::fmt;

use super::PathError;
use crate::json::JsonError;
use crate::names::{Group, NameError};

/// Why a manifest or a plan is refused. `index` is the unit's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ManifestError {
    /// More than 8 MiB.
    TooLarge {
        /// Its bytes.
        bytes: usize,
    },
    /// Not the JSON object of FORMAT.md §6: a field is unknown, repeated, missing or of another kind.
    Json(JsonError),
    /// A format that this version does not know.
    Format {
        /// The number given.
        format: u64,
    },
    /// `model` is not a name.
    Model(NameError),
    /// `version` is not a version.
    Version(NameError),
    /// A file is not a safe path.
    File {
        /// The unit.
        index: u32,
        /// What is wrong with the path.
        error: PathError,
    },
    /// A group is not a label.
    Group {
        /// The unit.
        index: u32,
        /// What is wrong with the label.
        error: NameError,
    },
    /// `blake3` is not `blake3:` and 64 lower-case hex digits.
    Blake3,
    /// No unit at all.
    NoUnits,
    /// More than 16,384 units.
    TooManyUnits {
        /// How many.
        count: usize,
    },
    /// A unit has more than 4 GiB.
    UnitTooLong {
        /// The unit.
        index: u32,
    },
    /// A unit's file is before that of the unit before it.
    Unordered {
        /// The unit.
        index: u32,
    },
    /// A unit starts before the end of the one before it in the same file.
    Overlap {
        /// The unit.
        index: u32,
    },
    /// A unit starts after the end of the one before it, or the first one of its file not at 0.
    Gap {
        /// The unit.
        index: u32,
    },
    /// A unit without bytes that is not an empty file, or follows one in it.
    EmptyUnit {
        /// The unit.
        index: u32,
    },
    /// A unit labelled `header` that is not the start of its file.
    HeaderNotAtStart {
        /// The unit.
        index: u32,
    },
    /// A unit's file lies in a directory that is also a file.
    FileIsDirectory {
        /// The unit.
        index: u32,
    },
    /// Another number of digests than units.
    DigestCount {
        /// Units of the plan.
        units: usize,
        /// Digests given.
        digests: usize,
    },
}

impl ManifestError {
    /// Stable code.
    pub fn code(&self) -> &'static str {
        match self {
            ManifestError::TooLarge { .. } => "manifest-too-large",
            ManifestError::Json(_) => "manifest-json",
            ManifestError::Format { .. } => "manifest-format",
            ManifestError::Model(_) => "manifest-model",
            ManifestError::Version(_) => "manifest-version",
            ManifestError::File { error, .. } => error.code(),
            ManifestError::Group { .. } => "manifest-group",
            ManifestError::Blake3 => "manifest-blake3",
            ManifestError::NoUnits => "manifest-no-units",
            ManifestError::TooManyUnits { .. } => "manifest-too-many-units",
            ManifestError::UnitTooLong { .. } => "manifest-unit-too-long",
            ManifestError::Unordered { .. } => "manifest-unordered",
            ManifestError::Overlap { .. } => "manifest-overlap",
            ManifestError::Gap { .. } => "manifest-gap",
            ManifestError::EmptyUnit { .. } => "manifest-empty-unit",
            ManifestError::HeaderNotAtStart { .. } => "manifest-header-not-at-start",
            ManifestError::FileIsDirectory { .. } => "manifest-file-is-directory",
            ManifestError::DigestCount { .. } => "manifest-digest-count",
        }
    }
}

impl fmt::Display for ManifestError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ManifestError::TooLarge { bytes } => {
                write!(f, "the manifest has {bytes} bytes, more than 8 MiB")
            }
            ManifestError::Json(error) => write!(f, "the manifest is not as it should be: {error}"),
            ManifestError::Format { format } => {
                write!(f, "the manifest has format {format}; only 1 is known")
            }
            ManifestError::Model(error) | ManifestError::Version(error) => error.fmt(f),
            ManifestError::File { index, error } => write!(f, "unit {index}: {error}"),
            ManifestError::Group { index, error } => write!(f, "unit {index}: {error}"),
            ManifestError::Blake3 => f.write_str("a BLAKE3 digest is 'blake3:' and 64 lower-case hex digits"),
            ManifestError::NoUnits => f.write_str("the model has no units"),
            ManifestError::TooManyUnits { count } => {
                write!(f, "the model has {count} units, more than 16384")
            }
            ManifestError::UnitTooLong { index } => write!(f, "unit {index} has more than 4 GiB"),
            ManifestError::Unordered { index } => {
                write!(f, "unit {index}: its file is before that of unit {}", index - 1)
            }
            ManifestError::Overlap { index } => {
                write!(f, "unit {index} overlaps unit {}", index - 1)
            }
            ManifestError::Gap { index } => write!(f, "unit {index} leaves a gap before it"),
            ManifestError::EmptyUnit { index } => {
                write!(f, "unit {index}: an empty unit in a file with others")
            }
            ManifestError::HeaderNotAtStart { index } => {
                write!(f, "unit {index} is labelled 'header' but is not the start of its file")
            }
            ManifestError::FileIsDirectory { index } => {
                write!(f, "unit {index}: its file lies in a directory that is also a file")
            }
            ManifestError::DigestCount { units, digests } => {
                write!(f, "{digests} digests for {units} units")
            }
        }
    }
}

impl std::error::Error for ManifestError {}

/// Why a selection names no set of units of this model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SelectError {
    /// No groups, or no units.
    Nothing,
    /// No unit has this label.
    NoSuchGroup {
        /// The label.
        group: Group,
    },
    /// A label was given twice.
    GroupTwice {
        /// The label.
        group: Group,
    },
    /// The model has fewer units.
    NoSuchUnit {
        /// The index.
        index: u32,
    },
    /// Unit indices must ascend, so that each set has one encoding.
    NotAscending,
    /// More than 16,384 units.
    TooMany,
}

impl SelectError {
    /// Stable code.
    pub fn code(&self) -> &'static str {
        match self {
            SelectError::Nothing => "select-nothing",
            SelectError::NoSuchGroup { .. } => "select-no-such-group",
            SelectError::GroupTwice { .. } => "select-group-twice",
            SelectError::NoSuchUnit { .. } => "select-no-such-unit",
            SelectError::NotAscending => "select-not-ascending",
            SelectError::TooMany => "select-too-many",
        }
    }
}

impl fmt::Display for SelectError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SelectError::Nothing => f.write_str("no units are selected"),
            SelectError::NoSuchGroup { group } => write!(f, "the model has no group '{group}'"),
            SelectError::GroupTwice { group } => write!(f, "group '{group}' is selected twice"),
            SelectError::NoSuchUnit { index } => write!(f, "the model has no unit {index}"),
            SelectError::NotAscending => f.write_str("unit indices must ascend, none twice"),
            SelectError::TooMany => f.write_str("more than 16384 units are selected"),
        }
    }
}

impl std::error::Error for SelectError {}
