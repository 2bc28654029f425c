//! A sealed model, copies of it, and loads from them.

use std::fs;
use std::io::Read;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use ledger::manifest::{Manifest, Selection, unit_path};
use tokio::runtime::Runtime;

use super::super::cache::Cache;
use super::super::place::Place;
use super::super::web::{Pace, WebUnits};
use super::super::{Origin, Sources};
use crate::aead::Bulk;
use crate::container::{HEADER_BYTES, seal_message};
use crate::derive::ModelContext;
use crate::open::{LocalUnits, OpenModelError, ReadBy, SourceError, UnitSource};
use crate::unit_keys::UnitKeys;

#[path = "../../../../tests/support/mod.rs"]
#[allow(clippy::pedantic, reason = "shared with the tests beside src")]
mod support;

/// Bytes of the longest unit: several of the pieces that a thread opens at a time.
pub(super) const BIG: usize = 9 << 20;

pub(super) struct Scene {
    pub(super) world: support::World,
    runtime: Runtime,
    pub(super) sealed: PathBuf,
    pub(super) manifest: Manifest,
    pub(super) keys: UnitKeys,
}

impl Scene {
    pub(super) fn new() -> Self {
        let world = support::World::new();
        let (source, sealed) = (world.path("source"), world.path("sealed"));
        support::write_model(&source);
        fs::write(source.join("big.bin"), support::pattern(BIG, 7)).unwrap();
        let manifest = world.seal(&source, "sealed").unwrap();
        let keys = world.grant_all(&manifest, &sealed);
        Self { runtime: Runtime::new().unwrap(), world, sealed, manifest, keys }
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.world.path(name)
    }

    pub(super) fn big(&self) -> u32 {
        let units = self.manifest.units();
        units.iter().position(|unit| unit.file.as_str() == "big.bin").unwrap() as u32
    }

    pub(super) fn sealed_bytes(&self) -> u64 {
        self.manifest.units().iter().map(|unit| unit.sealed_len()).sum()
    }

    /// A copy of the sealed model.
    pub(super) fn copy(&self, name: &str) -> PathBuf {
        let copy = self.path(name);
        fs::create_dir_all(copy.join("units")).unwrap();
        for unit in 0..self.manifest.units().len() as u32 {
            fs::copy(self.sealed.join(unit_path(unit)), copy.join(unit_path(unit))).unwrap();
        }
        copy
    }

    /// Puts other bytes in the place of a unit, sealed under its key.
    pub(super) fn seal_anew(&self, copy: &Path, unit: u32) {
        let length = self.manifest.unit(unit).unwrap().length;
        let context = ModelContext::from(&self.manifest).unit_context(unit, length);
        let other = vec![0x5a; length as usize];
        let sealed = self
            .keys
            .key(unit)
            .unwrap()
            .with_bytes(|key| seal_message::<Bulk>(key, &context, &other, &self.world.rng).unwrap());
        fs::write(copy.join(unit_path(unit)), sealed).unwrap();
    }

    /// These places: addresses of web servers, and directories.
    pub(super) fn sources(&self, places: &[&dyn AsRef<Path>], within: Duration, cache: Option<Cache>) -> Sources<'_> {
        let mut sources = Sources::new(&self.manifest, cache);
        for place in places {
            let text = place.as_ref().to_str().unwrap().to_owned();
            let origin = match text.parse().unwrap() {
                Place::Directory(path) => {
                    Origin::Directory(LocalUnits::new(&path, &self.manifest, ReadBy::Probe).unwrap())
                }
                Place::Web(url) => {
                    let service = vault_proto::http::Service::new(url, None);
                    let pace = Pace { bytes: 1 << 20, within };
                    Origin::Web(WebUnits::new(service, String::new(), None, self.runtime.handle().clone(), pace))
                }
                place @ Place::Bucket { .. } => panic!("{place}"),
            };
            sources.add(text, origin);
        }
        sources
    }

    /// A cache for all of the model.
    pub(super) fn cache(&self, name: &str, bound: u64) -> Cache {
        let units = self.manifest.select(&Selection::All).unwrap();
        Cache::open(&self.path(name), bound, &self.manifest, &units).unwrap()
    }

    /// Opens all of it and compares it with what was sealed.
    pub(super) fn open(&self, sources: &impl UnitSource, verify_units: bool) -> Result<(), OpenModelError> {
        let opened = self.world.open_from(sources, &self.manifest, &self.keys, verify_units, "opened")?;
        let same = support::files_of(&self.path("opened")) == support::files_of(&self.path("source"));
        drop(opened);
        assert!(same, "what was opened differs");
        Ok(())
    }
}

/// Sources of which threads take 1 MiB at a time: even here a unit has many segments.
pub(super) struct Short<'a, 'm>(pub(super) &'a Sources<'m>);

impl<'m> UnitSource for Short<'_, 'm> {
    type Reader = <Sources<'m> as UnitSource>::Reader;

    fn read(&self, unit: u32, range: Range<u64>) -> Result<Self::Reader, SourceError> {
        self.0.read(unit, range)
    }

    fn place(&self, reader: &Self::Reader) -> usize {
        self.0.place(reader)
    }

    fn refused(&self, unit: u32, place: usize, error: &OpenModelError) -> bool {
        self.0.refused(unit, place, error)
    }

    fn passed(&self, unit: u32, range: Range<u64>, place: usize) {
        self.0.passed(unit, range, place);
    }

    fn run_bytes(&self) -> usize {
        1 << 20
    }
}

/// The same, where headers of one unit that are asked for alone count: the first few of them are of another place.
pub(super) struct Apart<'a, 'm> {
    pub(super) unit: u32,
    pub(super) chunks: &'a Sources<'m>,
    pub(super) headers: &'a Sources<'m>,
    /// How many are.
    pub(super) other: usize,
    /// How often one was asked for.
    pub(super) asked: AtomicUsize,
}

/// A reader of this place.
pub(super) struct At<R>(usize, R);

impl<R: Read> Read for At<R> {
    fn read(&mut self, into: &mut [u8]) -> std::io::Result<usize> {
        self.1.read(into)
    }
}

impl std::fmt::Debug for Apart<'_, '_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "headers were asked for alone {} times", self.asked.load(Ordering::Relaxed))
    }
}

impl<'m> UnitSource for Apart<'_, 'm> {
    type Reader = At<<Sources<'m> as UnitSource>::Reader>;

    fn read(&self, unit: u32, range: Range<u64>) -> Result<Self::Reader, SourceError> {
        let alone = unit == self.unit && range == (0..HEADER_BYTES as u64);
        if alone && self.asked.fetch_add(1, Ordering::Relaxed) < self.other {
            return Ok(At(0, self.headers.read(unit, range)?));
        }
        // The thread that has the first segment knows the header of itself: the other one comes first.
        while unit == self.unit && range.start == 0 && self.asked.load(Ordering::Relaxed) <= self.other {
            std::thread::yield_now();
        }
        Ok(At(1, self.chunks.read(unit, range)?))
    }

    fn place(&self, reader: &Self::Reader) -> usize {
        reader.0
    }

    fn run_bytes(&self) -> usize {
        1 << 20
    }
}

/// Bytes that came from the place whose name ends so.
pub(super) fn delivered(sources: &Sources<'_>, name: &str) -> u64 {
    let of = |source: &&super::super::Source<'_>| source.name.ends_with(name);
    sources.list.iter().find(of).unwrap().bytes.load(Ordering::Relaxed)
}
