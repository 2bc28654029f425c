//! The thread of a load.

use std::cell::Cell;
use std::io::{self, IoSliceMut, Read};
use std::ops::Range;
use std::sync::Arc;

use ledger::policy::UnitCheck;
use ring::rand::SystemRandom;
use tokio::runtime::Runtime;
use tokio::sync::oneshot;

use super::held::{Guard, Overdue, Shared};
use crate::agent::attester::AgentIdentity;
use crate::agent::child::Load;
use crate::agent::holder::Holder;
use crate::agent::lease_signer::LeaseSigner;
use crate::agent::loader::{Asked, RECEIVERS, ask, cores, look};
use crate::agent::options::Request;
use crate::agent::outage::Outage;
use crate::agent::part::Part;
use crate::agent::session::Granted;
use crate::agent::term::Term;
use crate::failure::Failure;
use crate::open::{GrantedModel, InMemory, OpenModelError, SourceError, UnitSource, View, check_views};
use crate::place::{Facts, SafePlace, judge};

/// All that a load needs.
pub(super) struct Work {
    pub(super) request: Request,
    pub(super) identity: AgentIdentity,
    pub(super) shared: Arc<Shared>,
    pub(super) overdue: Overdue,
    pub(super) in_order: bool,
    pub(super) insecure_swappable_memory: bool,
    /// Told when the lease is over.
    pub(super) told: oneshot::Sender<Result<(), Failure>>,
}

/// What there is to say of a load that succeeded.
pub(super) struct Report {
    pub(super) bytes: u64,
    pub(super) place: SafePlace,
    pub(super) sources: Vec<String>,
    pub(super) index: u64,
}

impl Work {
    pub(super) fn run(self) {
        let shared = Arc::clone(&self.shared);
        shared.run(|| self.load());
    }

    fn load(mut self) -> Result<Report, Failure> {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(RECEIVERS).enable_all().build();
        let runtime = runtime.map_err(|error| Failure::io("no threads", &error))?;
        self.find_units(&runtime)?;
        let signer = Arc::new(LeaseSigner::generate(&SystemRandom::new())?);
        let load = in_this_process(&self.request, &self.identity, &signer);
        let job = load.job(None)?;
        let about = Asked::of(&job, &runtime)?;
        let selection = job.part.selection(&about.manifest)?;
        let units = about.manifest.select(&selection)?;
        let bytes = about.manifest.bytes_of(&units)?;
        // Before anything is released: a grant that can't be used would count against the limits of the rule.
        check_views(&about.manifest, &[View::of(units.clone())])?;
        let place = judge(&Facts::of_memory()?, bytes, self.insecure_swappable_memory)?;
        let sources = about.sources(&job, &units, &runtime)?;
        let session = Cell::new(None);
        let granted = ask(&about.wanted(&job, &selection), &job, &about.remote, &runtime, &noting(&session));
        // A lease may have come of it all the same.
        let (asked, granted) = granted.inspect_err(|_| runtime.block_on(load.end(session.get())))?;

        let Granted { keys, release, index, lease: newest, statement, .. } = granted;
        let (term, lease_end) = (Term::first(asked, &statement), statement.lease_end);
        let (verify_units, workload) = (statement.unit_check == UnitCheck::Hashed, release.workload);
        let Self {
            request: Request { hosts, model, extensions, .. }, identity, shared, overdue, in_order, told, ..
        } = self;
        let (vault, outage) = (about.vault.clone(), Outage::default());
        let holder = Holder { vault, hosts, model, workload, identity, signer, newest, statement, extensions, outage };
        let (still_there, wiped) = oneshot::channel();
        // From here on the lease is renewed, however long the load takes, and ended with the last byte of it.
        Guard { holder, term, lease_end, overdue, wiped, shared: Arc::clone(&shared), told }.start()?;
        shared.receive_by(runtime);
        let granted = GrantedModel { manifest: &about.manifest, keys: &keys, verify_units };
        let source = Stoppable { source: &sources, shared: &shared };
        let into = InMemory { place, in_order, wiped: Box::new(still_there) };
        granted.open_in_memory(&source, into, cores(), &|_| {}, &*shared)?;
        Ok(Report { bytes, place, sources: sources.used(), index })
    }

    /// Where tensors are named, the headers are released first, alone, under a lease that ends before the next begins.
    fn find_units(&mut self, runtime: &Runtime) -> Result<(), Failure> {
        if self.request.part.by_name().is_none() {
            return Ok(());
        }
        let signer = Arc::new(LeaseSigner::generate(&SystemRandom::new())?);
        let load = in_this_process(&self.request, &self.identity, &signer);
        let job = load.job(None)?;
        let asked = Cell::new(None);
        let found = look(&job, runtime, &noting(&asked));
        runtime.block_on(load.end(asked.get()));
        self.request.part = Part::Of(found?.named);
        Ok(())
    }
}

fn in_this_process<'a>(request: &'a Request, identity: &'a AgentIdentity, signer: &'a Arc<LeaseSigner>) -> Load<'a> {
    Load { request, identity, signer, into: None, owner: None, insecure_plaintext_on_disk: false }
}

/// Keeps the last session that keys were asked under.
fn noting(asked: &Cell<Option<[u8; 16]>>) -> impl Fn([u8; 16]) -> Result<(), Failure> {
    |session| {
        asked.set(Some(session));
        Ok(())
    }
}

/// A source that ends when the load is to end.
struct Stoppable<'a, S> {
    source: &'a S,
    shared: &'a Shared,
}

struct StoppableReader<'a, R> {
    reader: R,
    shared: &'a Shared,
}

fn check(shared: &Shared) -> io::Result<()> {
    if shared.is_stopped() { Err(io::Error::other("the load was given up")) } else { Ok(()) }
}

impl<'a, S: UnitSource> UnitSource for Stoppable<'a, S> {
    type Reader = StoppableReader<'a, S::Reader>;

    fn read(&self, unit: u32, range: Range<u64>) -> Result<Self::Reader, SourceError> {
        check(self.shared)?;
        Ok(StoppableReader { reader: self.source.read(unit, range)?, shared: self.shared })
    }

    fn place(&self, reader: &Self::Reader) -> usize {
        self.source.place(&reader.reader)
    }

    fn refused(&self, unit: u32, place: usize, error: &OpenModelError) -> bool {
        !self.shared.is_stopped() && self.source.refused(unit, place, error)
    }

    fn passed(&self, unit: u32, range: Range<u64>, place: usize) {
        self.source.passed(unit, range, place);
    }

    fn threads(&self, cores: usize) -> usize {
        self.source.threads(cores)
    }

    fn run_bytes(&self) -> usize {
        self.source.run_bytes()
    }

    fn last_run_bytes(&self) -> usize {
        self.source.last_run_bytes()
    }
}

impl<R: Read> Read for StoppableReader<'_, R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        check(self.shared)?;
        self.reader.read(into)
    }

    fn read_vectored(&mut self, parts: &mut [IoSliceMut<'_>]) -> io::Result<usize> {
        check(self.shared)?;
        self.reader.read_vectored(parts)
    }
}
