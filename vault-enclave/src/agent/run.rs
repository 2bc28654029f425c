//! `vault-enclave run`: one command with a model of its own, as long as the lease lasts.

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;
use std::task::Poll;
use std::time::Duration;

use ledger::policy::LeaseEnd;
use ring::rand::SystemRandom;
use rustix::process::Signal;
use tokio::signal::unix::{Signal as Signals, SignalKind, signal};

use super::child::Load;
use super::command::{Exit, Running};
use super::holder::{Lease, Lost};
use super::lease_signer::LeaseSigner;
use super::load::{begin, end, hold, runtime};
use super::look::look;
use super::mount::{PrivateMount, enter_namespace};
use super::numa::Numa;
use super::options::{ModelArgs, Request};
use super::report;
use super::state;
use super::user::{User, UserArg};
use crate::failure::{Failure, Kind};
use crate::open::Destination;
use crate::place::{Facts, judge};

/// The command was not started, or its files could not be wiped.
pub const EXIT_FAILED: u8 = 125;
/// Where the rule says `end`, from SIGTERM to SIGKILL, and from the word to readers to the wipe.
pub(super) const END_GRACE: Duration = Duration::from_secs(2);
/// Signals that are passed on to the command.
const FORWARDED: [(SignalKind, Signal); 6] = [
    (SignalKind::terminate(), Signal::TERM),
    (SignalKind::interrupt(), Signal::INT),
    (SignalKind::hangup(), Signal::HUP),
    (SignalKind::quit(), Signal::QUIT),
    (SignalKind::user_defined1(), Signal::USR1),
    (SignalKind::user_defined2(), Signal::USR2),
];

/// Options of `vault-enclave run`.
#[derive(clap::Args, Debug)]
#[command(
    after_help = "Needs root, to mount. CMD sees the files at PATH, in a mount namespace of its own and in memory \
    that is not swapped; no process of another user sees them, unless it has CAP_SYS_PTRACE or is root. Signals are \
    passed on. CMD runs in a PID namespace of its own where that can be had: when CMD or this process ends, SIGKILL \
    included, what CMD left running is killed; the files are wiped, and the lease is ended. CMD gets no core dumps and can gain no privileges.\n\nWhen the lease is lost or revoked, CMD gets SIGTERM, and SIGKILL after the time that \
    the rule gives (`drain 30s`), or after 2 s (`end`).\n\nExit status: that of CMD, or 128 + N where signal N ended it; \
    75 the lease was lost; 77 the lease was revoked; 125 not loaded, or not wiped; 126 CMD can't be executed; 127 there is no CMD."
)]
pub struct RunArgs {
    #[command(flatten)]
    model: ModelArgs,
    /// Where CMD sees the files [default: /models/MODEL].
    #[arg(long, value_name = "PATH")]
    at: Option<PathBuf>,
    /// Run CMD as this user, without supplementary groups [default: the user of this process].
    #[arg(long, value_name = "NAME|UID[:GID]")]
    user: Option<UserArg>,
    /// Take the memory from these NUMA nodes: interleave, interleave:NODES, or bind:NODES, with nodes as in 0,2-3.
    #[arg(long, value_name = "PLACEMENT")]
    numa: Option<Numa>,
    /// The command and its arguments.
    #[arg(last = true, required = true, value_name = "CMD")]
    command: Vec<OsString>,
}

/// Runs the command to its end, or to the end of the lease.
#[must_use]
pub fn run(args: &RunArgs) -> ExitCode {
    match run_command(args) {
        Ok(code) => code,
        Err(failure) => {
            // Its own exit code could be mistaken for the command's.
            let _ = failure.report(false);
            ExitCode::from(EXIT_FAILED)
        }
    }
}

fn run_command(args: &RunArgs) -> Result<ExitCode, Failure> {
    begin()?;
    let mut request = args.model.request()?;
    let user = match &args.user {
        Some(user) => user.resolve()?,
        None => User::this(),
    };
    let at = args.at.clone().unwrap_or_else(|| PathBuf::from("/models").join(args.model.model().as_str()));
    enter_namespace()?;
    // Also for the loader and everything else from here on.
    rustix::thread::set_no_new_privs(true).map_err(|errno| Failure::io("no_new_privs", &errno.into()))?;
    runtime()?.block_on(async {
        let mut caught = Caught::new()?;
        let identity = state::identity(&request.devices, request.state.as_deref())?;
        let interrupted = || Failure::new(Kind::Failed, "interrupted", "a signal came before the model was there");
        look(&mut request, &identity, caught.end_asked()).await?.ok_or_else(interrupted)?;
        let (bytes, files) = size(&request).await?;
        let mount = PrivateMount::new(&at, bytes, files, args.numa.as_ref())?;
        let place = judge(&Facts::gather(mount.path())?, bytes, false)?;
        let destination = Destination::open(mount.path(), place)?;
        let signer = LeaseSigner::generate(&SystemRandom::new())?;
        let load = Load {
            request: &request,
            identity: &identity,
            signer: &signer,
            into: Some(mount.path()),
            owner: Some(user.owner),
            insecure_plaintext_on_disk: false,
        };
        let held = load.run(destination, caught.end_asked()).await?.ok_or_else(interrupted)?;
        report::loaded(&held, mount.path());
        mount.give(user.owner)?;
        let lease_end = held.statement.lease_end;
        let (model, lease) = hold(request, identity, signer, held)?;
        let ended = match Running::start(&args.command, &user) {
            Ok(running) => watch(&running, &lease, lease_end, &mut caught).await,
            Err(failure) => Err(failure),
        };
        // Nothing that the command started runs any more.
        model.wipe()?;
        drop(mount);
        match ended? {
            Ended::ByItself(exit) => {
                end(lease).await;
                Ok(exit.into())
            }
            Ended::Lost(lost) => {
                if matches!(lost, Lost::Revoked(_)) {
                    end(lease).await;
                }
                Ok(ExitCode::from(lost.exit_code()))
            }
        }
    })
}

/// Bytes and files of what will be loaded, as the host tells them: for the size of the mount, no more. The loader checks.
pub(super) async fn size(request: &Request) -> Result<(u64, usize), Failure> {
    let manifest = request.hosts.connect().await?.manifest(request.model.clone()).await?;
    let units = manifest.select(&request.part.selection(&manifest)?)?;
    // At most one file a unit.
    Ok((manifest.bytes_of(&units)?, units.len()))
}

enum Ended {
    ByItself(Exit),
    Lost(Lost),
}

/// Until the command ends or the lease is lost. Nothing of the command is left afterwards.
async fn watch(running: &Running, lease: &Lease, lease_end: LeaseEnd, caught: &mut Caught) -> Result<Ended, Failure> {
    let ended = tokio::select! {
        exit = caught.exit(running) => Ended::ByItself(exit),
        lost = lease.lost() => Ended::Lost(lost),
    };
    if let Ended::Lost(lost) = &ended {
        let grace = match lease_end {
            LeaseEnd::End => END_GRACE,
            LeaseEnd::Drain { seconds } => Duration::from_secs(seconds.into()),
        };
        eprintln!("error: {lost}; the command has {} s", grace.as_secs());
        running.signal(Signal::TERM);
        let _ = tokio::time::timeout(grace, caught.exit(running)).await;
    }
    running.kill_all()?;
    Ok(ended)
}

impl User {
    /// Who this process runs as.
    fn this() -> Self {
        let (uid, gid) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
        Self { owner: super::job::Owner { uid, gid }, account: None }
    }
}

/// Signals, caught before the first child is started.
pub(super) struct Caught {
    forwarded: Vec<(Signals, Signal)>,
    child: Signals,
}

impl Caught {
    pub(super) fn new() -> Result<Self, Failure> {
        let on = |kind| signal(kind).map_err(|error| Failure::io("signals can't be caught", &error));
        let forwarded = FORWARDED.iter().map(|(kind, signal)| Ok((on(*kind)?, *signal)));
        Ok(Self { forwarded: forwarded.collect::<Result<_, Failure>>()?, child: on(SignalKind::child())? })
    }

    /// The next signal that asks for an end.
    async fn end_asked(&mut self) {
        while matches!(next(&mut self.forwarded).await, Signal::USR1 | Signal::USR2) {}
    }

    /// Passes signals on until the command ends.
    pub(super) async fn exit(&mut self, running: &Running) -> Exit {
        loop {
            if let Some(exit) = running.reap() {
                return exit;
            }
            tokio::select! {
                _ = self.child.recv() => {}
                signal = next(&mut self.forwarded) => running.forward(signal),
            }
        }
    }
}

/// The next of these signals.
async fn next(signals: &mut [(Signals, Signal)]) -> Signal {
    std::future::poll_fn(|context| {
        let mut caught =
            signals.iter_mut().filter_map(|(caught, signal)| caught.poll_recv(context).is_ready().then_some(*signal));
        caught.next().map_or(Poll::Pending, Poll::Ready)
    })
    .await
}
