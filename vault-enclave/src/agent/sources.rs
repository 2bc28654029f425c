//! Where sealed units come from: a list of places, tried in order, and the vault's host last.
//!
//! None of them is trusted. What a place delivers is opened or refused where it lies; whatever is wrong with it (bytes that do
//! not open, too few, too slow, none), the next one is asked for what did not pass yet, and a person is told. A place that
//! fails several times in a row is left alone from then on.

mod cache;
mod place;
mod room;
mod s3;
#[cfg(test)]
mod tests;
mod web;

use std::collections::{BTreeSet, HashMap};
use std::io::{self, IoSliceMut, Read};
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use indicatif::DecimalBytes;
use ledger::manifest::Manifest;

pub(super) use place::SourceList;
pub use place::{Place, PlaceError, SourceArgs};

use super::fetch::RemoteUnits;
use super::stream::RangeReader;
use crate::open::{LocalReader, LocalUnits, OpenModelError, SourceError, UnitSource};
use cache::{Cache, Filling};
use web::WebUnits;

/// Failures in a row after which a place is not asked any more.
const FAILURES_MAX: u32 = 3;
/// Plaintext that a thread takes at a time where there is nothing to take it from.
const RUN_BYTES: usize = 64 << 20;
const DISK_READS_PER_CORE: usize = 4;
/// The cache as a place: the first.
const CACHE: usize = 0;
/// Warnings of one load: a copy that is wrong throughout need not be told unit by unit.
const WARNINGS_MAX: usize = 20;

/// Sealed units from the first place that has them right.
pub(super) struct Sources<'m> {
    manifest: &'m Manifest,
    list: Vec<Source<'m>>,
    cache: Option<Arc<Cache>>,
    /// Bytes that came from the cache.
    cached: Arc<AtomicU64>,
    trouble: Mutex<Trouble>,
}

struct Source<'m> {
    name: String,
    from: Origin<'m>,
    /// Bytes that it delivered.
    bytes: Arc<AtomicU64>,
}

/// A place that was opened.
pub(super) enum Origin<'m> {
    Directory(LocalUnits<'m>),
    Web(WebUnits),
    Host(RemoteUnits),
}

/// What went wrong so far.
#[derive(Default)]
struct Trouble {
    /// Places that failed for a unit.
    failed: HashMap<u32, BTreeSet<usize>>,
    /// Failures in a row of each place.
    in_a_row: HashMap<usize, u32>,
    /// Units that the cache had wrong.
    cache_failed: BTreeSet<u32>,
    warnings: usize,
    /// Somebody was told that there is no place left.
    no_place_left: bool,
}

/// Bytes of a range, from one of the places.
pub(super) struct SourceReader {
    /// `None`: the cache.
    source: Option<usize>,
    bytes: Bytes,
    delivered: Arc<AtomicU64>,
    kept: Option<Kept>,
}

/// Where what is read stays.
struct Kept {
    cache: Arc<Cache>,
    unit: Arc<Filling>,
    /// The next byte of the unit.
    at: u64,
}

enum Bytes {
    Local(LocalReader),
    Stream(RangeReader),
}

impl<'m> Sources<'m> {
    pub(super) fn new(manifest: &'m Manifest, cache: Option<Cache>) -> Self {
        let (cache, trouble) = (cache.map(Arc::new), Mutex::default());
        Self { manifest, list: Vec::new(), cache, cached: Arc::default(), trouble }
    }

    pub(super) fn add(&mut self, name: String, from: Origin<'m>) {
        self.list.push(Source { name, from, bytes: Arc::default() });
    }

    /// Those that delivered anything, for a person.
    pub(super) fn used(&self) -> Vec<String> {
        let places = self.list.iter().map(|source| (source.name.as_str(), &source.bytes));
        let all = std::iter::once(("the cache", &self.cached)).chain(places);
        let used = all.map(|(name, bytes)| (name, bytes.load(Ordering::Relaxed))).filter(|(_, bytes)| *bytes > 0);
        used.map(|(name, bytes)| format!("{name}: {}", DecimalBytes(bytes))).collect()
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
    fn failed(&self, source: usize, unit: u32, what: &str) -> bool {
        let in_a_row = {
            let mut trouble = self.trouble();
            trouble.failed.entry(unit).or_default().insert(source);
            let in_a_row = trouble.in_a_row.entry(source).or_default();
            *in_a_row += 1;
            *in_a_row
        };
        let Some(next) = self.next(unit) else {
            if let Some(told) = self.no_place_left(source, what) {
                eprintln!("{told}");
            }
            return false;
        };
        let (name, next) = (&self.list[source].name, &self.list[next].name);
        self.warn(&format!("{name}: {what}; going on from {next}"));
        if in_a_row == FAILURES_MAX {
            eprintln!("warning: {name} failed {FAILURES_MAX} times in a row and is not asked any more");
        }
        true
    }

    /// The last word of a load, said once: its failure says of what unit, and only here is known of which place.
    fn no_place_left(&self, source: usize, what: &str) -> Option<String> {
        let said = std::mem::replace(&mut self.trouble().no_place_left, true);
        (!said).then(|| format!("warning: {}: {what}; there is no other place to ask", self.list[source].name))
    }

    fn warn(&self, text: &str) {
        let warnings = {
            let mut trouble = self.trouble();
            trouble.warnings += 1;
            trouble.warnings
        };
        if let Some(told) = told(warnings, text) {
            eprintln!("{told}");
        }
    }

    /// What the cache has, unless it was wrong before.
    fn cached(&self, unit: u32, range: Range<u64>) -> Option<SourceReader> {
        let cache = self.cache.as_ref().filter(|_| !self.trouble().cache_failed.contains(&unit))?;
        let bytes = Bytes::Local(cache.read(self.manifest, unit, range)?);
        Some(SourceReader { source: None, bytes, delivered: self.cached.clone(), kept: None })
    }
}

/// What a person reads of this warning of a load.
fn told(warnings: usize, text: &str) -> Option<String> {
    match warnings {
        ..WARNINGS_MAX => Some(format!("warning: {text}")),
        WARNINGS_MAX => Some(format!("warning: {text}\nfurther warnings of this load are left out")),
        _ => None,
    }
}

impl UnitSource for Sources<'_> {
    type Reader = SourceReader;

    fn read(&self, unit: u32, range: Range<u64>) -> Result<SourceReader, SourceError> {
        if let Some(reader) = self.cached(unit, range.clone()) {
            return Ok(reader);
        }
        let mut last = None;
        while let Some(at) = self.next(unit) {
            let source = &self.list[at];
            match source.from.read(unit, range.clone()) {
                Ok(bytes) => {
                    let kept = self.cache.as_ref().and_then(|cache| {
                        let unit = cache.fill(self.manifest, unit)?;
                        Some(Kept { cache: cache.clone(), unit, at: range.start })
                    });
                    return Ok(SourceReader { source: Some(at), bytes, delivered: source.bytes.clone(), kept });
                }
                Err(error) => {
                    self.failed(at, unit, &format!("sealed unit {unit}: {error}"));
                    last = Some(error);
                }
            }
        }
        Err(last.unwrap_or_else(|| SourceError::Io(io::Error::other("no source has it"))))
    }

    /// The cache, then the list.
    fn place(&self, reader: &SourceReader) -> usize {
        reader.source.map_or(CACHE, |source| source + 1)
    }

    fn refused(&self, unit: u32, place: usize, error: &OpenModelError) -> bool {
        let Some(source) = place.checked_sub(1) else {
            self.trouble().cache_failed.insert(unit);
            if let Some(cache) = &self.cache {
                cache.drop_unit(self.manifest, unit);
            }
            self.warn(&format!("the cache: {error}; it is removed and fetched again"));
            return true;
        };
        self.failed(source, unit, &error.to_string())
    }

    fn passed(&self, unit: u32, range: Range<u64>, place: usize) {
        let Some(source) = place.checked_sub(1) else { return };
        self.trouble().in_a_row.remove(&source);
        if let Some(cache) = &self.cache {
            cache.passed(unit, range);
        }
    }

    fn threads(&self, cores: usize) -> usize {
        // What is in the cache and not in memory comes from a disk, which wants several reads at a time.
        let cache = self.cache.as_ref().map(|_| cores * DISK_READS_PER_CORE);
        self.list.iter().map(|source| source.from.threads(cores)).chain(cache).max().unwrap_or(cores)
    }

    fn run_bytes(&self) -> usize {
        self.list.iter().map(|source| source.from.run_bytes()).max().unwrap_or(RUN_BYTES)
    }

    fn last_run_bytes(&self) -> usize {
        self.list.iter().map(|source| source.from.last_run_bytes()).max().unwrap_or(RUN_BYTES)
    }
}

impl Origin<'_> {
    fn read(&self, unit: u32, range: Range<u64>) -> Result<Bytes, SourceError> {
        match self {
            Self::Directory(units) => units.read(unit, range).map(Bytes::Local),
            Self::Web(units) => units.read(unit, range).map(Bytes::Stream),
            Self::Host(units) => units.read(unit, range).map(Bytes::Stream),
        }
    }

    fn threads(&self, cores: usize) -> usize {
        match self {
            Self::Directory(units) => units.threads(cores),
            Self::Web(units) => units.threads(cores),
            Self::Host(units) => units.threads(cores),
        }
    }

    fn run_bytes(&self) -> usize {
        match self {
            Self::Directory(units) => units.run_bytes(),
            Self::Web(units) => units.run_bytes(),
            Self::Host(units) => units.run_bytes(),
        }
    }

    fn last_run_bytes(&self) -> usize {
        match self {
            Self::Directory(units) => units.last_run_bytes(),
            Self::Web(units) => units.last_run_bytes(),
            Self::Host(units) => units.last_run_bytes(),
        }
    }
}

impl SourceReader {
    /// Counts what was read into the first bytes of `parts`, and keeps it.
    fn note(&mut self, read: io::Result<usize>, parts: &[&[u8]]) -> io::Result<usize> {
        let bytes = read?;
        self.delivered.fetch_add(bytes as u64, Ordering::Relaxed);
        if let Some(Kept { cache, unit, at }) = &mut self.kept {
            let mut left = bytes;
            let filled: Vec<&[u8]> = parts
                .iter()
                .map(|part| {
                    let here = part.len().min(left);
                    left -= here;
                    &part[..here]
                })
                .collect();
            cache.write(unit, *at, &filled);
            *at += bytes as u64;
        }
        Ok(bytes)
    }
}

impl Read for SourceReader {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let read = match &mut self.bytes {
            Bytes::Local(reader) => reader.read(into),
            Bytes::Stream(reader) => reader.read(into),
        };
        self.note(read, &[into])
    }

    fn read_vectored(&mut self, parts: &mut [IoSliceMut<'_>]) -> io::Result<usize> {
        let read = match &mut self.bytes {
            Bytes::Local(reader) => reader.read_vectored(parts),
            Bytes::Stream(reader) => reader.read_vectored(parts),
        };
        if self.kept.is_none() {
            return self.note(read, &[]);
        }
        let parts: Vec<&[u8]> = parts.iter().map(|part| &**part).collect();
        self.note(read, &parts)
    }
}
