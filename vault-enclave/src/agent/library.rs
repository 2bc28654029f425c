//! The agent as a library: a program attests, gets a model, and has its tensors in memory of its own.
//!
//! ```text
//! Session::open ▶ stream ▶ Loading ─next▶ Layer, Layer, … ─finish▶ Model ─weights▶ Weights ─tensors▶ Tensor
//!                 load ────────────────────────────────────────▶ Model
//! ```
//! It is the way of `load` with another destination: the same exchange with the keeper, the same checks, sources and threads.
//! But it is in this process: there is no child that takes the keys with it when it ends. They lie in locked pages as long as
//! units are opened and are wiped then, and so is the stack that was used with them.
//!
//! A whole model is [`Session::load`], as the example of the crate has it. Layers that are used while later ones load:
//!
//! ```no_run
//! use vault_enclave::{Failure, ModelRequest, Overdue, Session};
//! # fn use_layer(_: &vault_enclave::Layer) {}
//! # async fn begin(session: Session) -> Result<(), Failure> {
//! let request = ModelRequest::new("minilm@1".parse().expect("a name and a version"), Overdue::EndProcess);
//! let mut loading = session.stream(request)?;
//! while let Some(layer) = loading.next().await? {
//!     println!("{} is here: {} tensors", layer.group(), layer.tensors().count());
//!     use_layer(&layer);
//! }
//! // Only now is it the model that was published: what was computed before is to be used from here on.
//! let model = loading.finish().await?;
//! # model.close().await
//! # }
//! ```
//!
//! **What a program owes.** It holds [`Weights`] no longer than it uses them, and as long as it has copies of
//! them: as long as somebody has them, the library knows that it has to wait, and whom to end. It waits for
//! [`LeaseWatch::lost`] and lets go then. It takes its embeddings, tokens and logs for what they are: nobody wipes those.
//!
//! **What it gets.** The memory is anonymous, in huge pages where the kernel has them, in no core dump, in no forked child,
//! and locked wherever it could else be swapped ([`crate::place`]). No byte of a tensor is copied: a chunk is read to its
//! place, opened there, and borrowed there.

mod held;
mod work;

use std::sync::Arc;

use ledger::names::Name;
use tokio::sync::{oneshot, watch};

pub use held::{LeaseLost, LeaseState, LeaseWatch, Overdue};

use self::held::{Handle, Shared, Stage};
use self::work::{Report, Work};
use super::attester::AgentIdentity;
use super::machine::MachineArgs;
use super::options::{ModelRef, Order};
use super::part::PartArgs;
use super::sources::SourceArgs;
use super::state;
use crate::failure::{Failure, Kind};
use crate::open::{Layer, Weights};
use crate::region::harden_process;

/// A vault as this machine reaches it, and what this machine attests with.
///
/// Its futures need no runtime of their own kind: what waits for the network, the TPM or the disk has threads of its own.
/// Messages about leases and sources go to standard error, as those of `vault-enclave load` do. libtss2 writes there too,
/// unless the program is started with `TSS2_LOG=all+none`.
pub struct Session {
    machine: MachineArgs,
    identity: AgentIdentity,
}

/// Which model, and how much of it.
#[derive(Clone, Debug)]
pub struct ModelRequest {
    /// Name and version: `"minilm@1".parse()`.
    pub model: ModelRef,
    /// The release rule; `None` for the one that is named like the model.
    pub rule: Option<Name>,
    /// Which part; all of it by default.
    pub part: PartArgs,
    /// Where the ciphertext comes from; by default the vault's host.
    pub sources: SourceArgs,
    /// What happens where the program does not let go of weights whose lease has ended.
    pub overdue: Overdue,
    /// Take memory that can be swapped to a disk, where there is no other.
    pub insecure_swappable_memory: bool,
}

/// A model on its way. Dropped, it is given up: what has come is wiped, and its lease ended.
pub struct Loading {
    handle: Handle,
    stage: watch::Receiver<Stage>,
    next: usize,
    ended: oneshot::Receiver<Result<(), Failure>>,
}

/// A model all of which has passed, under a lease that is renewed in the background.
///
/// Dropped, it is wiped as soon as nobody has [`Weights`] or a [`Layer`] of it any more, and then its lease is ended.
/// [`Model::close`] waits for that.
///
/// ```
/// fn use_it(model: &vault_enclave::Model) -> u64 { model.bytes() }
/// ```
/// ```compile_fail
/// fn copy(model: &vault_enclave::Model) -> vault_enclave::Model { model.clone() }
/// ```
pub struct Model {
    handle: Handle,
    report: Arc<Report>,
    ended: oneshot::Receiver<Result<(), Failure>>,
}

impl Session {
    /// Reads the vault file, finds the hardware that this machine attests with, and closes this process to debuggers and core
    /// dumps, for good.
    ///
    /// # Errors
    /// What is wrong with a file, a device or the TPM.
    pub async fn open(machine: MachineArgs) -> Result<Self, Failure> {
        let open = move || {
            harden_process()?;
            // So that a file that is none is refused now.
            machine.vault_file()?;
            let identity = state::identity(&machine.devices()?, machine.state())?;
            Ok(Self { machine, identity })
        };
        let (told, opened) = oneshot::channel();
        spawn("attester", move || drop(told.send(open())))?;
        opened.await.map_err(|_| died())?
    }

    /// Loads a model; ready when all of it has passed.
    ///
    /// # Errors
    /// Whatever the vault, the network, this machine or a check says: [`Failure::code`] names it, as in `vault-enclave load`.
    pub async fn load(&self, request: ModelRequest) -> Result<Model, Failure> {
        self.begin(request, false)?.finish().await
    }

    /// Begins to load a model layer by layer, in the order in which a program uses them.
    ///
    /// # Errors
    /// What is wrong with the request.
    pub fn stream(&self, request: ModelRequest) -> Result<Loading, Failure> {
        self.begin(request, true)
    }

    fn begin(&self, request: ModelRequest, in_order: bool) -> Result<Loading, Failure> {
        let ModelRequest { model, rule, part, sources, overdue, insecure_swappable_memory } = request;
        let order = Order { model: model.0, rule, part: part.part()?, sources: sources.list()? };
        let request = self.machine.request(order)?;
        let (told, ended) = oneshot::channel();
        let (shared, stage) = Shared::new();
        let handle = Handle::new(Arc::clone(&shared));
        let identity = self.identity.clone();
        let work = Work { request, identity, shared, overdue, in_order, insecure_swappable_memory, told };
        spawn("load", move || work.run())?;
        Ok(Loading { handle, stage, next: 0, ended })
    }
}

impl ModelRequest {
    /// All of a model, from the vault's host, by the rule that is named like it.
    #[must_use]
    pub fn new(model: ModelRef, overdue: Overdue) -> Self {
        let (part, sources) = (PartArgs::default(), SourceArgs::default());
        Self { model, rule: None, part, sources, overdue, insecure_swappable_memory: false }
    }
}

impl Loading {
    /// The next layer, once all of its units have passed: files first, then what belongs to no numbered layer, then by
    /// number. `None` when there are no more.
    ///
    /// What a layer has is what the publisher signed, however the load ends. That the others will come is not said before
    /// [`Loading::finish`]: an answer that was computed with some of the layers is none of the model's.
    ///
    /// # Errors
    /// The load has failed. Nothing more is handed on, and all is wiped once the program drops the layers that it has.
    pub async fn next(&mut self) -> Result<Option<Layer>, Failure> {
        let next = self.next;
        let reached = |stage: &Stage| stage.ready > next || stage.result.is_some();
        let (ready, result) = match self.stage.wait_for(reached).await {
            Ok(stage) => (stage.ready, stage.result.clone()),
            Err(_) => return Err(died()),
        };
        // A failure comes before layers that had passed before it.
        let done = result.transpose()?;
        if ready <= next && done.is_some() {
            return Ok(None);
        }
        self.next += 1;
        Ok(Layer::new(self.handle.lend()?, next))
    }

    /// The model, once all of it has passed.
    ///
    /// # Errors
    /// As [`Session::load`].
    pub async fn finish(mut self) -> Result<Model, Failure> {
        let result = match self.stage.wait_for(|stage| stage.result.is_some()).await {
            Ok(stage) => stage.result.clone(),
            Err(_) => return Err(died()),
        };
        let report = result.unwrap_or_else(|| Err(died()))?;
        Ok(Model { handle: self.handle, report, ended: self.ended })
    }

    /// Its lease.
    #[must_use]
    pub fn lease(&self) -> LeaseWatch {
        self.handle.lease()
    }
}

impl Model {
    /// Its weights, which are not wiped as long as the caller has them. Hold them for as long as one piece of work takes, and
    /// look at [`Model::lease`] in between.
    ///
    /// # Errors
    /// [`LeaseLost`]: nothing is lent any more.
    pub fn weights(&self) -> Result<Weights, LeaseLost> {
        self.handle.lend().map(Weights::new)
    }

    /// Its lease.
    #[must_use]
    pub fn lease(&self) -> LeaseWatch {
        self.handle.lease()
    }

    /// Bytes of plaintext.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.report.bytes
    }

    /// Why plaintext may lie where it does: locked, or no swap is on.
    #[must_use]
    pub fn place(&self) -> String {
        self.report.place.to_string()
    }

    /// Where the ciphertext came from.
    #[must_use]
    pub fn sources(&self) -> &[String] {
        &self.report.sources
    }

    /// The place of its `release` entry in the vault's log.
    #[must_use]
    pub fn release_index(&self) -> u64 {
        self.report.index
    }

    /// Lends no more, waits until all is wiped, and ends the lease.
    ///
    /// # Errors
    /// The lease could not be ended in time: it ends by itself, and counts until then.
    pub async fn close(self) -> Result<(), Failure> {
        drop(self.handle);
        self.ended.await.map_err(|_| died())?
    }
}

fn spawn(name: &str, work: impl FnOnce() + Send + 'static) -> Result<(), Failure> {
    let thread = std::thread::Builder::new().name(format!("vault-{name}")).spawn(work);
    thread.map(drop).map_err(|error| Failure::io("no thread", &error))
}

fn died() -> Failure {
    Failure::new(Kind::Failed, "load-died", "the thread of a load ended without a word")
}
