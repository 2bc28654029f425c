//! Why a model was not opened.

use std::fmt;
use std::io;

use ledger::manifest::{FilePath, PathError};
use ledger::safetensors::SafetensorsError;
use rustix::io::Errno;

use super::SourceError;
use crate::container::OpenError;
use crate::region::RegionError;

/// Why a model was not opened. Nothing of it is left behind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OpenModelError {
    /// A unit was granted that the manifest does not have.
    UnknownUnit(u32),
    /// Some units of a file were granted that is there as a whole or not at all.
    FilePartlyGranted {
        /// Which.
        file: FilePath,
        /// The first unit of it that was not granted.
        missing: u32,
    },
    /// No file has a unit that was granted, headers aside.
    NothingToOpen,
    /// A file of the model has no path in the directory of a view.
    ViewPath {
        /// Which.
        file: FilePath,
        /// The directory.
        directory: FilePath,
        /// Why.
        error: PathError,
    },
    /// A file of which some tensors were granted has no header that says where they are, or one of them is cut.
    Header {
        /// Which.
        file: FilePath,
        /// Why.
        error: SafetensorsError,
    },
    /// The destination.
    Destination(DestinationError),
    /// A file could not be made in memory.
    Memory {
        /// Which.
        file: FilePath,
        /// Why.
        error: RegionError,
    },
    /// Sealed bytes could not be read.
    Source {
        /// Of this unit.
        unit: u32,
        /// What kind of failure.
        kind: io::ErrorKind,
        /// In words.
        message: String,
    },
    /// A sealed unit has not the length that its plan gives it: cut short or lengthened.
    Length {
        /// Which unit.
        unit: u32,
        /// By the plan.
        expected: u64,
        /// As it is, or how far it could be read.
        found: u64,
    },
    /// A sealed unit is not what was sealed for this place.
    Unit {
        /// Which.
        unit: u32,
        /// Why.
        error: OpenError,
    },
    /// A sealed unit opens, but is not the one that the publisher signed.
    Digest(u32),
}

/// What was wrong with the place for the plaintext.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DestinationError {
    /// It is not an empty directory.
    NotEmpty,
    /// It has nothing but files as a load leaves them that was killed.
    LeftBehind,
    /// It belongs to another user, who could put other files in the place of the model's.
    OtherOwner {
        /// The user's id.
        uid: u32,
    },
    /// Others may take files away in it, and put their own there.
    OthersWrite {
        /// Its permissions.
        mode: u32,
    },
    /// Another directory has taken the place of the one that a load began in.
    Replaced,
    /// The memory for a file could not be set aside.
    NoRoom {
        /// Which.
        file: FilePath,
        /// How much of it.
        bytes: u64,
    },
    /// The directory itself failed.
    Directory {
        /// What was tried.
        action: &'static str,
        /// What the kernel said.
        errno: Errno,
    },
    /// A file in it failed.
    File {
        /// Which.
        file: FilePath,
        /// What was tried.
        action: &'static str,
        /// What the kernel said.
        errno: Errno,
    },
}

impl OpenModelError {
    /// Stable name of the refusal.
    pub fn code(&self) -> &'static str {
        match self {
            Self::UnknownUnit(_) => "unit-unknown",
            Self::FilePartlyGranted { .. } => "file-partly-granted",
            Self::NothingToOpen => "nothing-to-open",
            Self::ViewPath { .. } => "view-path",
            Self::Header { error, .. } => error.code(),
            Self::Destination(error) => error.code(),
            Self::Memory { error, .. } => error.code(),
            Self::Source { .. } => "unit-unreadable",
            Self::Length { .. } => "sealed-length",
            Self::Unit { error, .. } => error.code(),
            Self::Digest(_) => "unit-digest",
        }
    }

    /// Whether another source may have what is right.
    pub(super) fn is_of_source(&self) -> bool {
        match self {
            Self::Source { .. } | Self::Length { .. } | Self::Unit { .. } | Self::Digest(_) => true,
            Self::UnknownUnit(_)
            | Self::FilePartlyGranted { .. }
            | Self::NothingToOpen
            | Self::ViewPath { .. }
            | Self::Header { .. }
            | Self::Destination(_)
            | Self::Memory { .. } => false,
        }
    }

    pub(super) fn source(unit: u32, error: SourceError) -> Self {
        match error {
            SourceError::Length { expected, found } => Self::Length { unit, expected, found },
            SourceError::Io(error) => Self::Source { unit, kind: error.kind(), message: error.to_string() },
        }
    }
}

impl DestinationError {
    /// Stable name of the refusal.
    pub fn code(&self) -> &'static str {
        match self {
            Self::NotEmpty => "destination-not-empty",
            Self::LeftBehind => "destination-left-behind",
            Self::OtherOwner { .. } => "destination-other-owner",
            Self::OthersWrite { .. } => "destination-others-write",
            Self::Replaced => "destination-replaced",
            Self::NoRoom { .. } => "destination-full",
            Self::Directory { .. } | Self::File { .. } => "destination-failed",
        }
    }
}

impl fmt::Display for OpenModelError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::UnknownUnit(unit) => write!(f, "unit {unit} was granted, but the manifest has no such unit"),
            Self::FilePartlyGranted { file, missing } => write!(
                f,
                "{file} is no safetensors file, and so is there as a whole or not at all: ask for its unit {missing} too"
            ),
            Self::NothingToOpen => f.write_str("no file has any of these units, but for headers"),
            Self::ViewPath { file, directory, error } => {
                write!(f, "{file} can't lie in {directory}: {error}; load the ranks without directories of their own")
            }
            Self::Header { file, error } => write!(f, "{file}: {error}"),
            Self::Destination(error) => error.fmt(f),
            Self::Memory { file, error } => write!(f, "{file}: {error}"),
            Self::Source { unit, message, .. } => write!(f, "sealed unit {unit} cannot be read: {message}"),
            Self::Length { unit, expected, found } => {
                write!(f, "sealed unit {unit} has {found} bytes instead of {expected}: cut short or lengthened")
            }
            Self::Unit { unit, error } => write!(f, "sealed unit {unit}: {error}"),
            Self::Digest(unit) => write!(f, "sealed unit {unit} is not the one that the publisher signed"),
        }
    }
}

impl fmt::Display for DestinationError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotEmpty => f.write_str("the destination is not an empty directory; name one that is, or that is not there yet"),
            Self::LeftBehind => f.write_str(
                "the destination has files as a load leaves them that was killed by SIGKILL: plaintext that nothing wipes any more. See \
                 that no load runs there, then remove them (in memory rm -r is all; on a disk first shred -u each), and load again",
            ),
            Self::OtherOwner { uid } => {
                write!(
                    f,
                    "the destination belongs to user {uid}; give a directory of this user's own, or one that is not there yet"
                )
            }
            Self::OthersWrite { mode } => write!(
                f,
                "others may write to the destination (mode {mode:04o}), and so replace files of the model; chmod 0700 it, or give \
                 a directory that is not there yet"
            ),
            Self::Replaced => f.write_str(
                "another directory took the place of the destination while the load began; give one whose parent directories \
                 nobody else may write to",
            ),
            Self::NoRoom { file, bytes } => write!(
                f,
                "no room for {bytes} bytes of {file}: the destination, this machine's memory or that of its cgroup is full; \
                 free memory, raise the limit, or load fewer groups"
            ),
            Self::Directory { action, errno } => write!(f, "cannot {action} the destination: {errno}"),
            Self::File { file, action, errno } => write!(f, "cannot {action} {file} in the destination: {errno}"),
        }
    }
}

impl std::error::Error for OpenModelError {}
impl std::error::Error for DestinationError {}

impl From<DestinationError> for OpenModelError {
    fn from(error: DestinationError) -> Self {
        Self::Destination(error)
    }
}
