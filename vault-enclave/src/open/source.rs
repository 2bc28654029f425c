//! Where sealed units come from. It is not trusted: what it delivers opens or is refused.

use std::fmt;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::ops::Range;
use std::os::fd::OwnedFd;
use std::path::Path;

use ledger::manifest::{Manifest, unit_path};
use rustix::fs::{Mode, OFlags, ResolveFlags};

/// Delivers ranges of sealed units. Called from several threads; each reader is read by one.
pub trait UnitSource: Sync {
    /// The bytes of one range, in order.
    type Reader: Read;

    /// Begins to read `range` of the sealed bytes of `unit`. No more of them is asked of the reader.
    ///
    /// # Errors
    /// [`SourceError`].
    fn read(&self, unit: u32, range: Range<u64>) -> Result<Self::Reader, SourceError>;
}

/// Why sealed bytes could not be had.
#[derive(Debug)]
pub enum SourceError {
    /// The sealed unit has not the length that its plan gives it.
    Length {
        /// By the plan.
        expected: u64,
        /// As it is.
        found: u64,
    },
    /// It could not be read.
    Io(io::Error),
}

impl fmt::Display for SourceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Length { expected, found } => write!(f, "{found} bytes instead of {expected}"),
            Self::Io(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for SourceError {}

impl From<io::Error> for SourceError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

/// The sealed units of a local directory (FORMAT.md §6).
pub struct LocalUnits<'m> {
    directory: OwnedFd,
    manifest: &'m Manifest,
}

impl<'m> LocalUnits<'m> {
    /// The units beside the manifest in `directory`.
    ///
    /// # Errors
    /// Where the directory cannot be opened.
    pub fn new(directory: &Path, manifest: &'m Manifest) -> io::Result<Self> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        Ok(Self { directory: rustix::fs::open(directory, flags, Mode::empty())?, manifest })
    }
}

impl UnitSource for LocalUnits<'_> {
    type Reader = File;

    fn read(&self, unit: u32, range: Range<u64>) -> Result<Self::Reader, SourceError> {
        // Nothing in the directory is trusted: a link out of it would be read as a unit, or never end.
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
        let file = rustix::fs::openat2(&self.directory, unit_path(unit), flags, Mode::empty(), resolve);
        let mut file = File::from(file.map_err(io::Error::from)?);
        let metadata = file.metadata()?;
        if !metadata.is_file() {
            return Err(io::Error::other("not a regular file").into());
        }
        let expected = self.manifest.unit(unit).map_or(0, |unit| unit.sealed_len());
        if metadata.len() != expected {
            return Err(SourceError::Length { expected, found: metadata.len() });
        }
        file.seek(SeekFrom::Start(range.start))?;
        // Reads go on to the end of the file where they are let, which the caller does not.
        Ok(file)
    }
}
