//! Where sealed units come from. It is not trusted: what it delivers opens or is refused.

use std::fmt;
use std::fs::File;
use std::io::{self, IoSliceMut, Read, Seek, SeekFrom};
use std::ops::Range;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use ledger::manifest::{Manifest, unit_path};
use rustix::fs::{Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

use super::OpenModelError;
use super::direct::{DirectReader, is_cached};

/// A disk wants several reads at a time. Each thread makes one.
const DIRECT_READS_PER_CORE: usize = 4;
/// Units that are looked at to know whether a model is in the page cache.
const PROBES: usize = 16;

/// Delivers ranges of sealed units. Called from several threads; each reader is read by one.
pub trait UnitSource: Sync {
    /// The bytes of one range, in order.
    type Reader: Read;

    /// Begins to read `range` of the sealed bytes of `unit`. No more of them is asked of the reader.
    ///
    /// # Errors
    /// [`SourceError`].
    fn read(&self, unit: u32, range: Range<u64>) -> Result<Self::Reader, SourceError>;

    /// Which place a reader delivers from, where there are several: a number in the order in which they are asked.
    fn place(&self, _reader: &Self::Reader) -> usize {
        0
    }

    /// Told that what came from this place was refused, or ended: whether to ask [`UnitSource::read`] again, for the bytes
    /// that did not pass yet.
    fn refused(&self, _unit: u32, _place: usize, _error: &OpenModelError) -> bool {
        false
    }

    /// Told that all of a range has passed, the end of it from this place.
    fn passed(&self, _unit: u32, _range: Range<u64>, _place: usize) {}

    /// How many threads open, where there are so many cores.
    fn threads(&self, cores: usize) -> usize {
        cores
    }

    /// Bytes of plaintext that a thread takes at a time, about: few where a range costs little, so that no thread is left
    /// with much when the others are done.
    fn run_bytes(&self) -> usize {
        64 << 20
    }

    /// And about how many at the end: what remains is shared out more and more finely.
    fn last_run_bytes(&self) -> usize {
        self.run_bytes() / 8
    }
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
    direct: bool,
}

/// How local files are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReadBy {
    /// Through the page cache where most of a sample is in it, else around it.
    Probe,
    /// Through the page cache.
    PageCache,
    /// Around it (`O_DIRECT`), where the file system can.
    Direct,
}

/// Bytes of a local file.
pub enum LocalReader {
    /// Through the page cache.
    Cached(File),
    /// Around it.
    Direct(DirectReader),
}

impl LocalReader {
    /// Reads `range` of a file of `length` bytes, around the page cache where it is not in it. `open` opens it, with
    /// these flags beside its own.
    ///
    /// # Errors
    /// [`SourceError`].
    pub(crate) fn open(
        length: u64,
        range: Range<u64>,
        open: impl Fn(OFlags) -> Result<OwnedFd, Errno>,
    ) -> Result<Self, SourceError> {
        let mut file = File::from(open(OFlags::empty()).map_err(io::Error::from)?);
        let metadata = file.metadata()?;
        if !metadata.is_file() || metadata.len() != length {
            return Err(SourceError::Length { expected: length, found: metadata.len() });
        }
        if !is_cached(&file, length / 2)
            && let Ok(direct) = open(OFlags::DIRECT)
        {
            return Ok(Self::Direct(DirectReader::new(direct, range)));
        }
        file.seek(SeekFrom::Start(range.start))?;
        Ok(Self::Cached(file))
    }
}

impl AsFd for LocalReader {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Cached(file) => file.as_fd(),
            Self::Direct(reader) => reader.file(),
        }
    }
}

impl Read for LocalReader {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Cached(file) => file.read(into),
            Self::Direct(reader) => reader.read(into),
        }
    }

    fn read_vectored(&mut self, parts: &mut [IoSliceMut<'_>]) -> io::Result<usize> {
        match self {
            Self::Cached(file) => file.read_vectored(parts),
            Self::Direct(reader) => reader.read_vectored(parts),
        }
    }
}

impl<'m> LocalUnits<'m> {
    /// The units beside the manifest in `directory`.
    ///
    /// # Errors
    /// Where the directory cannot be opened.
    pub fn new(directory: &Path, manifest: &'m Manifest, read_by: ReadBy) -> io::Result<Self> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let directory = rustix::fs::open(directory, flags, Mode::empty())?;
        let mut units = Self { directory, manifest, direct: read_by == ReadBy::Direct };
        if read_by == ReadBy::Probe {
            units.direct = !units.is_mostly_cached();
        }
        Ok(units)
    }

    /// Whether files are read around the page cache.
    #[must_use]
    pub fn is_direct(&self) -> bool {
        self.direct
    }

    /// Looks at the middle of some units. One that can't be opened says nothing here, and is refused when it is read.
    fn is_mostly_cached(&self) -> bool {
        let units = self.manifest.units();
        let step = units.len().div_ceil(PROBES).max(1);
        let found = (0_u32..).zip(units).step_by(step).filter_map(|(index, unit)| {
            let file = self.open(index, OFlags::empty()).ok()?;
            Some(is_cached(&File::from(file), unit.sealed_len() / 2))
        });
        let found: Vec<bool> = found.collect();
        found.iter().filter(|cached| **cached).count() * 2 >= found.len()
    }

    fn open(&self, unit: u32, more: OFlags) -> Result<OwnedFd, Errno> {
        // Nothing in the directory is trusted: a link out of it would be read as a unit, or never end.
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY | more;
        rustix::fs::openat2(&self.directory, unit_path(unit), flags, Mode::empty(), resolve)
    }
}

impl UnitSource for LocalUnits<'_> {
    type Reader = LocalReader;

    fn read(&self, unit: u32, range: Range<u64>) -> Result<Self::Reader, SourceError> {
        let direct = if self.direct { self.open(unit, OFlags::DIRECT) } else { Err(Errno::INVAL) };
        let (file, direct) = match direct {
            // Not asked for, or a file system that has no direct reads.
            Err(Errno::INVAL | Errno::OPNOTSUPP) => (self.open(unit, OFlags::empty()), false),
            opened => (opened, true),
        };
        let mut file = File::from(file.map_err(io::Error::from)?);
        let metadata = file.metadata()?;
        if !metadata.is_file() {
            return Err(io::Error::other("not a regular file").into());
        }
        let expected = self.manifest.unit(unit).map_or(0, |unit| unit.sealed_len());
        if metadata.len() != expected {
            return Err(SourceError::Length { expected, found: metadata.len() });
        }
        // Reads go on to the end of the file where they are let, which the caller does not.
        if direct {
            return Ok(LocalReader::Direct(DirectReader::new(file.into(), range)));
        }
        file.seek(SeekFrom::Start(range.start))?;
        Ok(LocalReader::Cached(file))
    }

    fn threads(&self, cores: usize) -> usize {
        if self.direct { cores * DIRECT_READS_PER_CORE } else { cores }
    }

    fn run_bytes(&self) -> usize {
        16 << 20
    }
}
