//! Where sealed units come from: a list of places, tried in order, and the vault's host last.
//!
//! None of them is trusted. What a place delivers is opened or refused where it lies; whatever is wrong with it (bytes that do
//! not open, too few, too slow, none), the next one is asked for what did not pass yet, and a person is told. A place that
//! fails several times in a row is left alone from then on.

use std::collections::{BTreeSet, HashMap};
use std::fmt;
use std::io::{self, IoSliceMut, Read};
use std::ops::Range;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use indicatif::HumanBytes;
use ledger::manifest::Manifest;
use serde::{Deserialize, Serialize};
use tokio::runtime::Handle;

use super::fetch::RemoteUnits;
use super::options::absolute;
use super::stream::RangeReader;
use crate::failure::Failure;
use crate::open::{LocalReader, LocalUnits, OpenModelError, ReadBy, SourceError, UnitSource};

/// Failures in a row after which a place is not asked any more.
const FAILURES_MAX: u32 = 3;
/// Plaintext that a thread takes at a time where there is nothing to take it from.
const RUN_BYTES: usize = 64 << 20;
/// Warnings of one load: a copy that is wrong throughout need not be told unit by unit.
const WARNINGS_MAX: usize = 20;

/// Places of ciphertext, as options.
#[derive(clap::Args, Debug)]
pub struct SourceArgs {
    /// Take the sealed units from here, what `seal --out` made or a copy of it: a directory. Can be given more than once: tried
    /// in this order, and the vault's host last. None of them is trusted: what it delivers opens, or the next one is asked.
    #[arg(long, value_name = "DIR|URL")]
    source: Vec<Place>,
    /// Take the sealed units from this directory, and from nowhere else.
    #[arg(long, value_name = "DIR", conflicts_with = "source")]
    ciphertext: Option<PathBuf>,
}

/// The same, as it goes to the loader.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct SourceList {
    places: Vec<Place>,
    without_host: bool,
}

/// A place that has sealed units under the names of FORMAT.md §6.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Place {
    /// A directory of this machine, or one that it shares.
    Directory(PathBuf),
}

/// Not a place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlaceError(String);

impl SourceArgs {
    pub(super) fn list(&self) -> Result<SourceList, Failure> {
        let places = self.source.iter().cloned().chain(self.ciphertext.clone().map(Place::Directory));
        // The loader has another working directory.
        let places = places.map(|place| match place {
            Place::Directory(path) => absolute(&path).map(Place::Directory),
        });
        Ok(SourceList { places: places.collect::<Result<_, _>>()?, without_host: self.ciphertext.is_some() })
    }
}

impl SourceList {
    /// The places, and `host` behind them unless there is to be no other.
    ///
    /// # Errors
    /// A place that can't be opened is told and passed over where another follows.
    pub(super) fn open<'m>(
        &self,
        manifest: &'m Manifest,
        host: RemoteUnits,
        _runtime: &Handle,
    ) -> Result<Sources<'m>, Failure> {
        let mut sources = Sources::new();
        for place in &self.places {
            let opened = match place {
                Place::Directory(path) => LocalUnits::new(path, manifest, ReadBy::Probe)
                    .map(From::Directory)
                    .map_err(|error| Failure::io(path.display(), &error)),
            };
            match opened {
                Ok(from) => sources.add(place.to_string(), from),
                Err(failure) if self.without_host => return Err(failure),
                Err(failure) => eprintln!("warning: {failure}; the next source is asked"),
            }
        }
        if !self.without_host {
            sources.add("the vault's host".to_owned(), From::Host(host));
        }
        Ok(sources)
    }
}

/// Sealed units from the first place that has them right.
pub(super) struct Sources<'m> {
    list: Vec<Source<'m>>,
    trouble: Mutex<Trouble>,
}

struct Source<'m> {
    name: String,
    from: From<'m>,
    /// Bytes that it delivered.
    bytes: Arc<AtomicU64>,
}

/// A place that was opened.
pub(super) enum From<'m> {
    Directory(LocalUnits<'m>),
    Host(RemoteUnits),
}

/// What went wrong so far.
#[derive(Default)]
struct Trouble {
    /// Places that failed for a unit.
    failed: HashMap<u32, BTreeSet<usize>>,
    /// Failures in a row of each place.
    in_a_row: HashMap<usize, u32>,
    warnings: usize,
}

/// Bytes of a range, from one of the places.
pub(super) struct SourceReader {
    source: usize,
    bytes: Bytes,
    delivered: Arc<AtomicU64>,
}

enum Bytes {
    Local(LocalReader),
    Stream(RangeReader),
}

impl<'m> Sources<'m> {
    pub(super) fn new() -> Self {
        Self { list: Vec::new(), trouble: Mutex::default() }
    }

    pub(super) fn add(&mut self, name: String, from: From<'m>) {
        self.list.push(Source { name, from, bytes: Arc::default() });
    }

    /// Those that delivered anything, for a person.
    pub(super) fn used(&self) -> Vec<String> {
        let used = self.list.iter().map(|source| (&source.name, source.bytes.load(Ordering::Relaxed)));
        used.filter(|(_, bytes)| *bytes > 0).map(|(name, bytes)| format!("{name}: {}", HumanBytes(bytes))).collect()
    }

    fn trouble(&self) -> MutexGuard<'_, Trouble> {
        self.trouble.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The place to ask for a unit: the last one is asked however often it failed, unless it did for this unit.
    fn next(&self, unit: u32) -> Option<usize> {
        let trouble = self.trouble();
        let last = self.list.len().checked_sub(1)?;
        let failed = |at: &usize| trouble.failed.get(&unit).is_some_and(|failed| failed.contains(at));
        let left_alone = |at: &usize| trouble.in_a_row.get(at).is_some_and(|failures| *failures >= FAILURES_MAX);
        (0..=last).find(|at| !failed(at) && (*at == last || !left_alone(at)))
    }

    /// Notes a failure and tells of it; whether there is another place.
    fn failed(&self, source: usize, unit: u32, error: &dyn fmt::Display) -> bool {
        let in_a_row = {
            let mut trouble = self.trouble();
            trouble.failed.entry(unit).or_default().insert(source);
            let in_a_row = trouble.in_a_row.entry(source).or_default();
            *in_a_row += 1;
            *in_a_row
        };
        let Some(next) = self.next(unit) else { return false };
        let (name, next) = (&self.list[source].name, &self.list[next].name);
        let mut trouble = self.trouble();
        trouble.warnings += 1;
        if trouble.warnings <= WARNINGS_MAX {
            eprintln!("warning: {name}: sealed unit {unit}: {error}; going on from {next}");
        }
        if in_a_row == FAILURES_MAX {
            eprintln!("warning: {name} failed {FAILURES_MAX} times in a row and is not asked any more");
        }
        true
    }
}

impl UnitSource for Sources<'_> {
    type Reader = SourceReader;

    fn read(&self, unit: u32, range: Range<u64>) -> Result<SourceReader, SourceError> {
        let mut last = None;
        while let Some(at) = self.next(unit) {
            let source = &self.list[at];
            match source.from.read(unit, range.clone()) {
                Ok(bytes) => return Ok(SourceReader { source: at, bytes, delivered: source.bytes.clone() }),
                Err(error) => {
                    self.failed(at, unit, &error);
                    last = Some(error);
                }
            }
        }
        Err(last.unwrap_or_else(|| SourceError::Io(io::Error::other("no source has it"))))
    }

    fn refused(&self, unit: u32, reader: &SourceReader, error: &OpenModelError) -> bool {
        self.failed(reader.source, unit, error)
    }

    fn passed(&self, _: u32, _: Range<u64>, reader: &SourceReader) {
        self.trouble().in_a_row.remove(&reader.source);
    }

    fn threads(&self, cores: usize) -> usize {
        self.list.iter().map(|source| source.from.threads(cores)).max().unwrap_or(cores)
    }

    fn run_bytes(&self) -> usize {
        self.list.iter().map(|source| source.from.run_bytes()).max().unwrap_or(RUN_BYTES)
    }
}

impl From<'_> {
    fn read(&self, unit: u32, range: Range<u64>) -> Result<Bytes, SourceError> {
        match self {
            Self::Directory(units) => units.read(unit, range).map(Bytes::Local),
            Self::Host(units) => units.read(unit, range).map(Bytes::Stream),
        }
    }

    fn threads(&self, cores: usize) -> usize {
        match self {
            Self::Directory(units) => units.threads(cores),
            Self::Host(units) => units.threads(cores),
        }
    }

    fn run_bytes(&self) -> usize {
        match self {
            Self::Directory(units) => units.run_bytes(),
            Self::Host(units) => units.run_bytes(),
        }
    }
}

impl SourceReader {
    fn count(&self, read: io::Result<usize>) -> io::Result<usize> {
        read.inspect(|bytes| {
            self.delivered.fetch_add(*bytes as u64, Ordering::Relaxed);
        })
    }
}

impl Read for SourceReader {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let read = match &mut self.bytes {
            Bytes::Local(reader) => reader.read(into),
            Bytes::Stream(reader) => reader.read(into),
        };
        self.count(read)
    }

    fn read_vectored(&mut self, parts: &mut [IoSliceMut<'_>]) -> io::Result<usize> {
        let read = match &mut self.bytes {
            Bytes::Local(reader) => reader.read_vectored(parts),
            Bytes::Stream(reader) => reader.read_vectored(parts),
        };
        self.count(read)
    }
}

impl FromStr for Place {
    type Err = PlaceError;

    fn from_str(text: &str) -> Result<Self, PlaceError> {
        if text.is_empty() || text.contains("://") {
            return Err(PlaceError(text.to_owned()));
        }
        Ok(Self::Directory(text.into()))
    }
}

impl TryFrom<String> for Place {
    type Error = PlaceError;

    fn try_from(text: String) -> Result<Self, PlaceError> {
        text.parse()
    }
}

impl std::convert::From<Place> for String {
    fn from(place: Place) -> Self {
        place.to_string()
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Directory(path) => write!(f, "{}", path.display()),
        }
    }
}

impl fmt::Display for PlaceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} is not a place of sealed units: want a directory", self.0)
    }
}

impl std::error::Error for PlaceError {}
