//! `vault-enclave load`: a model in a directory, as long as its lease lasts.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use ledger::policy::LeaseEnd;
use ring::rand::SystemRandom;
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::child::Load;
use super::fixed::FixedDir;
use super::holder::{Lease, Lost};
use super::lease_signer::LeaseSigner;
use super::look::look;
use super::options::{ModelArgs, ModelRef};
use super::report;
use super::state;
use crate::failure::Failure;
use crate::open::{Destination, Directory, OpenedModel};
use crate::place::{Facts, judge};
use crate::region::harden_process;
use crate::tpm::silence_libtss2;

/// The lease was lost and the plaintext wiped.
pub const EXIT_LEASE_LOST: u8 = 75;
/// The lease was revoked and the plaintext wiped.
pub const EXIT_REVOKED: u8 = 77;

/// Options of `vault-enclave load`.
#[derive(clap::Args, Debug)]
#[command(after_help = "Stays in the foreground: prints `ready DIR` on stdout when the files are there, renews the \
    lease, and wipes the files when it ends.\n\nExit status: 0 ended by a signal; 1 failed; 2 wrong use; 3 refused by the \
    vault; 4 something does not verify; 75 the lease was lost; 77 the lease was revoked. The files are wiped in every case, but for SIGKILL.")]
pub struct LoadArgs {
    /// Model and version, as in minilm@1.0.
    #[arg(value_name = "MODEL@VERSION")]
    model: ModelRef,
    #[command(flatten)]
    from: ModelArgs,
    /// Empty directory for the plaintext, made where it is missing, in memory that never reaches a disk: a tmpfs where no
    /// swap is on, a tmpfs mounted noswap, a ramfs.
    #[arg(long, value_name = "DIR")]
    into: PathBuf,
    /// Take any directory, though plaintext may then reach a disk and stay there.
    #[arg(long)]
    insecure_plaintext_on_disk: bool,
}

/// How a load ended.
enum Ended {
    Asked,
    Lost(Lost),
}

/// Runs until a signal, or until the lease is lost.
#[must_use]
pub fn run(args: &LoadArgs) -> ExitCode {
    match load(args) {
        Ok(Ended::Asked) => ExitCode::SUCCESS,
        Ok(Ended::Lost(lost)) => ExitCode::from(lost.exit_code()),
        Err(failure) => failure.report(false),
    }
}

fn load(args: &LoadArgs) -> Result<Ended, Failure> {
    begin()?;
    let mut request = args.from.request(&args.model)?;
    let (into, directory) = directory(&args.into)?;
    // Asked once more by the loader when it knows the size: a place that is not safe is refused before anything is asked.
    let place = judge(&Facts::of(&directory)?, 0, args.insecure_plaintext_on_disk)?;
    let destination = Destination::new(directory, place)?;
    runtime()?.block_on(async {
        let mut signals = Signals::new()?;
        let identity = state::identity(&request.devices, request.state.as_deref())?;
        if look(&mut request, &identity, signals.next()).await?.is_none() {
            return Ok(Ended::Asked);
        }
        let signer = Arc::new(LeaseSigner::generate(&SystemRandom::new())?);
        let load = Load {
            request: &request,
            identity: &identity,
            signer: &signer,
            into: Some(&into),
            owner: None,
            insecure_plaintext_on_disk: args.insecure_plaintext_on_disk,
        };
        let Some(held) = load.run(destination, signals.next()).await? else { return Ok(Ended::Asked) };
        report::loaded(&held, &into);
        println!("ready {}", into.display());
        keep(held.model, held.lease, held.statement.lease_end, &mut signals).await
    })
}

/// Waits for the end, wipes, and ends the lease where it still runs.
async fn keep(model: OpenedModel, lease: Lease, lease_end: LeaseEnd, signals: &mut Signals) -> Result<Ended, Failure> {
    let lost = tokio::select! { () = signals.next() => None, lost = lease.lost() => Some(lost) };
    if let Some(lost) = &lost {
        eprintln!("error: {lost}");
        if let LeaseEnd::Drain { seconds } = lease_end {
            eprintln!("the files go in {seconds} s, as the rule says");
            let drained = tokio::time::sleep(Duration::from_secs(seconds.into()));
            tokio::select! { () = signals.next() => {}, () = drained => {} }
        }
    }
    model.wipe()?;
    eprintln!("wiped");
    end(lease).await;
    Ok(lost.map_or(Ended::Asked, Ended::Lost))
}

/// Ends a lease whose plaintext is gone. One that ran out has ended by itself.
pub(super) async fn end(lease: Lease) {
    if lease.term().is_over() {
        return;
    }
    if let Err(failure) = lease.end().await {
        eprintln!("warning: {failure}");
    }
}

/// What every command of the agent does first.
pub(super) fn begin() -> Result<(), Failure> {
    harden_process()?;
    silence()
}

/// Starts the program again where that is needed to keep libtss2 quiet.
pub(super) fn silence() -> Result<(), Failure> {
    silence_libtss2().map_err(|error| Failure::io("the program can't be started again", &error))
}

/// One thread: what blocks has its own.
pub(super) fn runtime() -> Result<tokio::runtime::Runtime, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.map_err(|error| Failure::io("no runtime", &error))
}

/// Made where it is missing, for this user alone, and named from the root: the loader has the same working directory, the
/// person who reads `ready` may not. A link that is there is followed, once. Refused where others could put another directory
/// there, which whoever reads `ready` would then take for this one.
fn directory(path: &Path) -> Result<(PathBuf, Directory), Failure> {
    use std::os::unix::fs::DirBuilderExt;
    let failed = |error| Failure::io(path.display(), &error);
    match std::fs::DirBuilder::new().mode(0o700).create(path) {
        Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => return Err(failed(error)),
        _ => {}
    }
    let path = path.canonicalize().map_err(failed)?;
    let fixed = FixedDir::new(&path)?;
    let directory = Directory::of(fixed.open()?)?;
    Ok((fixed.path().to_owned(), directory))
}

/// The signals that ask for an end.
pub(super) struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
}

impl Signals {
    pub(super) fn new() -> Result<Self, Failure> {
        let on = |kind| signal(kind).map_err(|error| Failure::io("signals can't be caught", &error));
        Ok(Self {
            terminate: on(SignalKind::terminate())?,
            interrupt: on(SignalKind::interrupt())?,
            hangup: on(SignalKind::hangup())?,
        })
    }

    /// The next of them.
    pub(super) async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
            _ = self.hangup.recv() => {}
        }
    }
}
