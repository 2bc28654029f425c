//! A lease and the weights under it: who has them, until when, and what becomes of them.
//!
//! Weights are never wiped under a reader. To Rust, bytes behind a `&[u8]` do not change, and to a computation, zeros pass
//! for weights. So they are lent: when the lease is lost the program is told, nothing more is lent, and with the last borrow
//! they are wiped. Who does not let go in time is what [`Overdue`] is about.

use std::convert::Infallible;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::time::Duration;

use ledger::policy::LeaseEnd;
use tokio::runtime::Runtime;
use tokio::sync::{oneshot, watch};

use super::work::Report;
use crate::agent::holder::{Holder, Lease, Lost};
use crate::agent::load::{EXIT_LEASE_LOST, EXIT_REVOKED, runtime};
use crate::agent::run::END_GRACE;
use crate::agent::term::{BootTime, Term};
use crate::failure::{Failure, Kind};
use crate::open::{Follower, Plaintext};

/// What happens where the program still has weights two seconds after it was told to let go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Overdue {
    /// The process aborts, as `run` kills its command. So copies go, too, which only the program knows of.
    EndProcess,
    /// They are wiped whenever the program lets go, which may be never.
    InsecureWait,
}

/// Why a lease is lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LeaseLost {
    /// It was not renewed by its deadline.
    NotRenewed,
    /// Its vault has revoked it.
    Revoked {
        /// The entry of the vault's log that says so.
        entry: u64,
    },
}

/// Where a lease stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LeaseState {
    /// Nothing was granted yet.
    Asking,
    /// It runs, and is renewed.
    Held,
    /// It is lost. Weights are lent for as long as the rule lets them drain.
    Draining(LeaseLost),
    /// It is lost, and nothing is lent any more: let go of what you have.
    Lost(LeaseLost),
    /// All that was opened under it is wiped. Whether it was lost before.
    Wiped(Option<LeaseLost>),
}

/// Tells how a lease is. Does not keep the model.
#[derive(Clone)]
pub struct LeaseWatch {
    state: watch::Receiver<LeaseState>,
    terms: Arc<OnceLock<watch::Receiver<Term>>>,
}

/// What program, load and lease have in common.
pub(super) struct Shared {
    plaintext: Mutex<Slot>,
    state: watch::Sender<LeaseState>,
    terms: Arc<OnceLock<watch::Receiver<Term>>>,
    stage: watch::Sender<Stage>,
    stop: AtomicBool,
    /// What receives for the load: threads that wait for a source wake when it ends.
    receivers: Mutex<Option<Runtime>>,
    /// Whoever has it.
    begun: OnceLock<Weak<Plaintext>>,
    /// Whether the load's threads have ended.
    done: watch::Sender<bool>,
}

/// How far a load is.
#[derive(Default)]
pub(super) struct Stage {
    /// Layers, from the first on, that have passed.
    pub(super) ready: usize,
    pub(super) result: Option<Result<Arc<Report>, Failure>>,
}

enum Slot {
    Coming,
    There(Arc<Plaintext>),
    Closed,
}

/// The program's hold on a load or a model; with it goes what nobody borrows.
pub(super) struct Handle(Arc<Shared>);

impl LeaseWatch {
    /// Where it stands now.
    #[must_use]
    pub fn state(&self) -> LeaseState {
        *self.state.borrow()
    }

    /// How long it still runs unless it is renewed; zero where it was not granted yet.
    #[must_use]
    pub fn left(&self) -> Duration {
        let deadline = self.terms.get().map(|terms| terms.borrow().deadline());
        deadline.map_or(Duration::ZERO, |deadline| BootTime::now().until(deadline))
    }

    /// Resolves when it is lost: the program is to let go of all weights, of copies too. `None` where it ended otherwise.
    pub async fn lost(&self) -> Option<LeaseLost> {
        self.wait(|state| !matches!(state, LeaseState::Asking | LeaseState::Held)).await.and_then(LeaseState::lost)
    }

    /// Resolves when all that was opened under it is wiped.
    pub async fn wiped(&self) {
        self.wait(|state| matches!(state, LeaseState::Wiped(_))).await;
    }

    async fn wait(&self, is: impl Fn(&LeaseState) -> bool) -> Option<LeaseState> {
        let mut state = self.state.clone();
        // Where nobody is left to say it, all is gone.
        state.wait_for(is).await.ok().map(|state| *state)
    }
}

impl LeaseState {
    fn lost(self) -> Option<LeaseLost> {
        match self {
            Self::Asking | Self::Held | Self::Wiped(None) => None,
            Self::Draining(lost) | Self::Lost(lost) | Self::Wiped(Some(lost)) => Some(lost),
        }
    }
}

impl LeaseLost {
    /// The status with which `load` and `run` end by this.
    #[must_use]
    pub fn exit_code(self) -> u8 {
        match self {
            Self::NotRenewed => EXIT_LEASE_LOST,
            Self::Revoked { .. } => EXIT_REVOKED,
        }
    }
}

impl From<&Lost> for LeaseLost {
    fn from(lost: &Lost) -> Self {
        match lost {
            Lost::NotRenewed => Self::NotRenewed,
            Lost::Revoked(revoked) => Self::Revoked { entry: revoked.index() },
        }
    }
}

impl fmt::Display for LeaseLost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotRenewed => f.write_str("the lease is lost: it was not renewed in time"),
            Self::Revoked { entry } => write!(f, "the lease is revoked, by entry {entry} of the vault's log"),
        }
    }
}

impl std::error::Error for LeaseLost {}

impl From<LeaseLost> for Failure {
    fn from(lost: LeaseLost) -> Self {
        match lost {
            LeaseLost::NotRenewed => Self::new(Kind::Failed, "lease-lost", lost),
            LeaseLost::Revoked { .. } => Self::new(Kind::Refused, "lease-revoked", lost),
        }
    }
}

impl Handle {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self(shared)
    }

    pub(super) fn lease(&self) -> LeaseWatch {
        LeaseWatch { state: self.0.state.subscribe(), terms: Arc::clone(&self.0.terms) }
    }

    /// What has come so far.
    ///
    /// # Errors
    /// [`LeaseLost`]. (A load that was given up or failed has no handle that lends.)
    pub(super) fn lend(&self) -> Result<Arc<Plaintext>, LeaseLost> {
        match &*self.0.slot() {
            Slot::There(plaintext) => Ok(Arc::clone(plaintext)),
            Slot::Coming | Slot::Closed => Err(self.0.state.borrow().lost().unwrap_or(LeaseLost::NotRenewed)),
        }
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.0.close();
    }
}

impl Shared {
    pub(super) fn new() -> (Arc<Self>, watch::Receiver<Stage>) {
        let (stage, receiver) = watch::channel(Stage::default());
        let shared = Self {
            plaintext: Mutex::new(Slot::Coming),
            state: watch::Sender::new(LeaseState::Asking),
            terms: Arc::default(),
            stage,
            stop: AtomicBool::new(false),
            receivers: Mutex::default(),
            begun: OnceLock::new(),
            done: watch::Sender::new(false),
        };
        (Arc::new(shared), receiver)
    }

    /// Whether the load is to end.
    pub(super) fn is_stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    /// Runs a load and tells what became of it.
    pub(super) fn run(&self, load: impl FnOnce() -> Result<Report, Failure>) {
        // A panic would be a bug of ours. Whoever waits must hear of that, too; what was written is wiped as it unwinds.
        let result = catch_unwind(AssertUnwindSafe(load)).unwrap_or_else(|_| Err(super::died()));
        self.stop_receiving();
        self.done.send_replace(true);
        self.finish(result);
    }

    /// Keeps what receives for a load until that is to end.
    pub(super) fn receive_by(&self, runtime: Runtime) {
        *self.receivers() = Some(runtime);
        if self.is_stopped() {
            self.stop_receiving();
        }
    }

    /// Whether nobody but the threads of a load, which may wait for a disk, can have anything of what was opened.
    fn is_loads_alone(&self) -> bool {
        let owners = self.begun.get().map_or(0, Weak::strong_count);
        // The load itself is one of them.
        !*self.done.borrow() && owners <= 1
    }

    /// Resolves when the threads of the load have ended.
    async fn load_done(&self) {
        let mut done = self.done.subscribe();
        // It fails where there is no sender, and `self` is one.
        let _ = done.wait_for(|done| *done).await;
    }

    fn stop_receiving(&self) {
        let runtime = self.receivers().take();
        // Whoever comes here may be on a runtime of his own, where nothing may wait.
        if let Some(runtime) = runtime {
            runtime.shutdown_background();
        }
    }

    fn receivers(&self) -> MutexGuard<'_, Option<Runtime>> {
        self.receivers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn finish(&self, result: Result<Report, Failure>) {
        let result = match (result, self.state.borrow().lost()) {
            // What a load that was stopped says is not the reason.
            (Err(_), Some(lost)) => Err(lost.into()),
            (result, _) => result.map(Arc::new),
        };
        if result.is_err() {
            self.close();
        }
        self.tell(result);
    }

    /// Lends no more, since the lease is lost. Whoever waits for a load hears it now, however long that takes to stop.
    fn lose(&self, lost: LeaseLost) {
        // By one lock: whoever hears of it is lent nothing.
        let slot = self.slot();
        self.state.send_replace(LeaseState::Lost(lost));
        self.close_slot(slot);
        self.tell(Err(lost.into()));
    }

    /// What is told first stays.
    fn tell(&self, result: Result<Arc<Report>, Failure>) {
        self.stage.send_modify(|stage| stage.result = stage.result.take().or(Some(result)));
    }

    /// Lends no more, and wipes what nobody borrows.
    fn close(&self) {
        self.close_slot(self.slot());
    }

    fn close_slot(&self, mut slot: MutexGuard<'_, Slot>) {
        self.stop.store(true, Ordering::Relaxed);
        let before = std::mem::replace(&mut *slot, Slot::Closed);
        // To wipe takes a while, in which others may ask.
        drop(slot);
        drop(before);
        self.stop_receiving();
    }

    fn slot(&self) -> MutexGuard<'_, Slot> {
        self.plaintext.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Follower for Shared {
    fn begun(&self, plaintext: &Arc<Plaintext>) {
        let _ = self.begun.set(Arc::downgrade(plaintext));
        let mut slot = self.slot();
        if matches!(*slot, Slot::Coming) {
            *slot = Slot::There(Arc::clone(plaintext));
        }
    }

    fn ready(&self, layers: usize) {
        self.stage.send_modify(|stage| stage.ready = layers);
    }
}

/// Holds a lease until what was opened under it is wiped.
pub(super) struct Guard {
    pub(super) holder: Holder,
    pub(super) term: Term,
    pub(super) lease_end: LeaseEnd,
    pub(super) overdue: Overdue,
    /// Fails when all is wiped.
    pub(super) wiped: oneshot::Receiver<Infallible>,
    pub(super) shared: Arc<Shared>,
    pub(super) told: oneshot::Sender<Result<(), Failure>>,
}

impl Guard {
    /// The lease is held from here on; the rest is a thread of its own.
    ///
    /// # Errors
    /// There is none.
    pub(super) fn start(self) -> Result<(), Failure> {
        let Self { holder, term, lease_end, overdue, wiped, shared, told } = self;
        let runtime = runtime()?;
        let entered = runtime.enter();
        let lease = Lease::hold(holder, term)?;
        drop(entered);
        let _ = shared.terms.set(lease.terms());
        shared.state.send_replace(LeaseState::Held);
        let guarded = Guarded { lease, lease_end, overdue, shared };
        super::spawn("lease", move || drop(told.send(runtime.block_on(guarded.run(wiped)))))
    }
}

/// The same, of a lease that is held.
struct Guarded {
    lease: Lease,
    lease_end: LeaseEnd,
    overdue: Overdue,
    shared: Arc<Shared>,
}

impl Guarded {
    /// Until all is wiped; whether the lease was ended.
    async fn run(self, mut wiped: oneshot::Receiver<Infallible>) -> Result<(), Failure> {
        let Self { lease, lease_end, overdue, shared } = self;
        let lost = tokio::select! {
            lost = lease.lost() => Some(LeaseLost::from(&lost)),
            _ = &mut wiped => None,
        };
        if let Some(lost) = lost {
            eprintln!("error: {lost}");
            let _ = tokio::time::timeout(drain(&shared, lost, lease_end), &mut wiped).await;
            shared.lose(lost);
            while !wiped.is_terminated() && tokio::time::timeout(END_GRACE, &mut wiped).await.is_err() {
                if shared.is_loads_alone() {
                    // The program has nothing, and gets nothing any more: it is not ended for a disk that does not answer.
                    tokio::select! { _ = &mut wiped => {}, () = shared.load_done() => {} }
                } else {
                    let_go_or_end(overdue, &mut wiped).await;
                }
            }
        }
        shared.state.send_replace(LeaseState::Wiped(lost));
        match lost {
            // It has ended by itself.
            Some(LeaseLost::NotRenewed) => Ok(()),
            Some(LeaseLost::Revoked { .. }) | None => lease.end().await,
        }
    }
}

/// For how long weights are lent on.
fn drain(shared: &Shared, lost: LeaseLost, lease_end: LeaseEnd) -> Duration {
    match lease_end {
        LeaseEnd::End => Duration::ZERO,
        LeaseEnd::Drain { seconds } => {
            shared.state.send_replace(LeaseState::Draining(lost));
            Duration::from_secs(seconds.into())
        }
    }
}

async fn let_go_or_end(overdue: Overdue, wiped: &mut oneshot::Receiver<Infallible>) {
    match overdue {
        Overdue::EndProcess => {
            eprintln!("error: this process still uses weights whose lease has ended: it ends");
            // Not `exit`: what the program would have done at its end may take for ever.
            std::process::abort();
        }
        Overdue::InsecureWait => {
            eprintln!("warning: this process still uses weights whose lease has ended");
            let _ = wiped.await;
        }
    }
}

#[cfg(test)]
mod tests;
