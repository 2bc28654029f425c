//! `vault-enclave run`: one command with models of its own, as long as their leases last.

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;
use std::str::FromStr;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use rustix::process::Signal;
use tempfile::TempDir;
use tokio::signal::unix::{Signal as Signals, SignalKind, signal};
use tokio::task::JoinSet;

use super::command::{Exit, Running};
use super::fixed::FixedDir;
use super::load::{runtime, silence};
use super::namespace::{self, Privilege};
use super::numa::Numa;
use super::options::{ModelArgs, ModelRef};
use super::ready::{Readiness, Ready};
use super::served::{Beside, Loading};
use super::spec::{ModelSpec, Wanted, wanted};
use super::started::{EnvironmentArgs, Started};
use super::state;
use super::supervise::{Ended, Supervisor, first_lost};
use super::user::{User, UserArg};
use crate::failure::{Failure, Kind};
use crate::region::harden_process;

/// The command was not started, or its files could not be wiped.
pub const EXIT_FAILED: u8 = 125;
/// Where the rule says `end`, from SIGTERM to SIGKILL, and from the word to readers to the wipe.
pub(super) const END_GRACE: Duration = Duration::from_secs(2);
/// Signals that are passed on to the command.
const FORWARDED: [(SignalKind, Signal); 7] = [
    (SignalKind::terminate(), Signal::TERM),
    (SignalKind::interrupt(), Signal::INT),
    (SignalKind::hangup(), Signal::HUP),
    (SignalKind::quit(), Signal::QUIT),
    (SignalKind::user_defined1(), Signal::USR1),
    (SignalKind::user_defined2(), Signal::USR2),
    (SignalKind::window_change(), Signal::WINCH),
];

/// Options of `vault-enclave run`.
#[derive(clap::Args, Debug)]
#[command(
    after_help = "CMD sees the files at PATH, in a mount namespace of its own and in memory that is not swapped; no process \
    of another user sees them, unless it has CAP_SYS_PTRACE or is root. Needs root, or a system that lets users have \
    namespaces: there PATH must be a directory that is there or whose parent this user may write to. Signals are \
    passed on. CMD runs in a PID namespace of its own where that can be had: when CMD or this process ends, SIGKILL \
    included, what CMD left running is killed; the files are wiped, and the lease is ended. CMD gets no core dumps and can \
    gain no privileges.\n\nWhen a lease is lost or revoked, CMD gets SIGTERM, and SIGKILL after the time that \
    the rule gives (`drain 30s`), or after 2 s (`end`).\n\nWhere the rule asks what is started (`workloads`), CMD is to be named from the root, \
    or found on a PATH of such names, and begins in /.\n\nExit status: that of CMD, or 128 + N where signal N ended it; \
    75 a lease was lost; 77 a lease was revoked; 125 not loaded, or not wiped; 126 CMD can't be executed; 127 there is no CMD."
)]
pub struct RunArgs {
    /// Model and version, as in minilm@1.0.
    #[arg(value_name = "MODEL@VERSION", required_unless_present = "models")]
    model: Option<ModelRef>,
    /// Another model, which has a lease and a place of its own. Options behind commas: rule=NAME, follow=FILE,
    /// group=GROUP, units=LIST, rank=R/N, rank-dirs, tensor=PATTERN. Can be given more than once.
    #[arg(long = "model", value_name = "MODEL@VERSION[=PATH][,OPTION]…")]
    models: Vec<ModelSpec>,
    #[command(flatten)]
    from: ModelArgs,
    /// Where CMD sees the files. Nobody but root and this user may write to a directory above it [default: /models/MODEL].
    #[arg(long, value_name = "PATH", requires = "model")]
    at: Option<PathBuf>,
    /// Use the version that this file names (`VERSION` or `MODEL@VERSION`), and whenever it names another one load that beside,
    /// then put it in the place of the one before in one step. Where that fails, the one before stays.
    #[arg(long, value_name = "FILE", requires = "model")]
    follow: Option<PathBuf>,
    /// What CMD is told when another version is in place: `restart` ends it and starts it again; HUP, USR1 and USR2 are signals;
    /// `nothing`. The version before is wiped when no process uses it any more.
    #[arg(long, value_name = "WHAT", default_value = "restart")]
    on_swap: OnSwap,
    /// Wipe the files, and give their memory back, once the server has read them and is ready: a file that it writes
    /// (`file:/PATH`), a port on which it listens (`tcp:HOST:PORT`), a GET that it answers with 200
    /// (`http://HOST:PORT/PATH`). Files that a process has open or mapped stay.
    #[arg(long, value_name = "READY")]
    drop_after: Option<Ready>,
    /// With --drop-after: when this process gets this signal (HUP, USR1, USR2), the files are loaded again, and then the signal is
    /// passed on.
    #[arg(long, value_name = "SIGNAL", requires = "drop_after")]
    reload_on: Option<SignalArg>,
    /// Run CMD as this user, without supplementary groups [default: the user of this process].
    #[arg(long, value_name = "NAME|UID[:GID]")]
    user: Option<UserArg>,
    /// Take the memory from these NUMA nodes: interleave, interleave:NODES, or bind:NODES, with nodes as in 0,2-3.
    #[arg(long, value_name = "PLACEMENT")]
    numa: Option<Numa>,
    #[command(flatten)]
    environment: EnvironmentArgs,
    /// The command and its arguments.
    #[arg(last = true, required = true, value_name = "CMD")]
    command: Vec<OsString>,
}

/// What a command is told, and by what it is told.
#[derive(Clone, Copy, Debug)]
pub(super) struct Told {
    pub(super) on_swap: OnSwap,
    pub(super) reload_on: Option<Signal>,
}

/// What happens to a command whose model has another version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnSwap {
    /// It is ended and started again.
    Restart,
    /// It gets a signal.
    Signal(Signal),
    /// It finds out by itself.
    Nothing,
}

/// A signal that means what the command says it does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SignalArg(Signal);

/// Runs the command to its end, or to the end of the lease.
#[must_use]
pub fn run(args: &RunArgs) -> ExitCode {
    match run_command(args) {
        Ok(code) => code,
        Err(failure) => {
            // Its own exit code could be mistaken for the command's.
            let _ = failure.report(false);
            ExitCode::from(failure.lost_lease().unwrap_or(EXIT_FAILED))
        }
    }
}

fn run_command(args: &RunArgs) -> Result<ExitCode, Failure> {
    silence()?;
    let first = args.model.clone().map(|model| ModelSpec::new(model, args.at.clone(), args.follow.clone()));
    let specs: Vec<ModelSpec> = first.into_iter().chain(args.models.iter().cloned()).collect();
    let wanted = wanted(&specs, &args.from)?;
    let user = match &args.user {
        Some(user) => user.resolve()?,
        None => User::this(),
    };
    // Like the places of the models: where owners of directories are known.
    let replaces = args.reload_on.is_some() || wanted.iter().any(|wanted| wanted.follow.is_some());
    let beside = replaces.then(beside).transpose()?;
    // Before the namespace, in which who is not root does not see whose a file is.
    let command = Started::new(&args.command, &args.environment, &user);
    if namespace::enter()? == Privilege::User && user.owner != User::this().owner {
        return Err(Failure::new(Kind::Usage, "user-not-root", "without root, CMD can only be of this user")
            .next("leave --user out, or run as root"));
    }
    harden_process()?;
    // Also for the loader and everything else from here on.
    rustix::thread::set_no_new_privs(true).map_err(|errno| Failure::io("no_new_privs", &errno.into()))?;
    runtime()?.block_on(async {
        let mut caught = Caught::new()?;
        let beside = beside.map(|(directory, fixed)| Beside::new(directory, &fixed)).transpose()?;
        let supervisor = load(args, wanted, command, user, beside, &mut caught).await?;
        match supervisor.run(&mut caught).await? {
            Ended::ByItself(exit) => Ok(exit.into()),
            Ended::Lost(lost) => Ok(ExitCode::from(lost.exit_code())),
        }
    })
}

/// An empty directory where nobody looks.
fn beside() -> Result<(TempDir, FixedDir), Failure> {
    let directory = tempfile::Builder::new().prefix("weightvault-").tempdir();
    let directory = directory.map_err(|error| Failure::io("no directory for another version", &error))?;
    let fixed = FixedDir::new(directory.path())?;
    Ok((directory, fixed))
}

/// Loads all models, one after the other: each uses all cores. Where the lease of one that is there is lost meanwhile, the load
/// of the next is given up.
async fn load(
    args: &RunArgs,
    mut wanted: Vec<Wanted>,
    command: Started,
    user: User,
    beside: Option<Beside>,
    caught: &mut Caught,
) -> Result<Supervisor, Failure> {
    for wanted in &mut wanted {
        wanted.request.workload = command.workload();
    }

    let Some(request) = wanted.first().map(|wanted| &wanted.request) else {
        return Err(Failure::new(Kind::Usage, "no-model", "no model is named"));
    };
    let identity = state::identity(&request.devices, request.state.as_deref())?;
    let loading = Arc::new(Loading { identity, owner: user.owner, numa: args.numa.clone(), beside });
    let mut supervisor = Supervisor {
        loading: Arc::clone(&loading),
        wanted,
        served: Vec::new(),
        retiring: Vec::new(),
        readiness: args.drop_after.clone().map(Readiness::new),
        told: Told { on_swap: args.on_swap, reload_on: args.reload_on.map(|signal| signal.0) },
        command,
        user,
        job: None,
        failed: None,
        reload_later: None,
        waits_said: false,
        ends: JoinSet::new(),
    };
    for index in 0..supervisor.wanted.len() {
        let mut lost = None;
        let stop = async {
            tokio::select! {
                () = caught.end_asked() => {}
                (which, _) = first_lost(supervisor.served.iter()) => lost = Some(which),
            }
        };
        let loaded = loading.load(&supervisor.wanted[index], stop).await;
        let interrupted = || match &lost {
            Some(lost) => Failure::from(lost),
            None => Failure::new(Kind::Failed, "interrupted", "a signal came before the model was there"),
        };
        match loaded.and_then(|served| served.ok_or_else(interrupted)) {
            Ok(served) => supervisor.served.push(served),
            Err(failure) => {
                supervisor.command.explain(&failure);
                supervisor.release().await?;
                return Err(failure);
            }
        }
    }
    Ok(supervisor)
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
        while !asks_for_end(next(&mut self.forwarded).await) {}
    }

    /// Passes signals on until the command ends.
    pub(super) async fn exit(&mut self, running: &Running) -> Exit {
        loop {
            match self.next(running).await {
                Happened::Exit(exit) => return exit,
                Happened::Signal(signal) => running.forward(signal),
            }
        }
    }

    /// The end of the command, or the next signal. Nothing is lost where this is given up.
    pub(super) async fn next(&mut self, running: &Running) -> Happened {
        loop {
            if let Some(exit) = running.reap() {
                return Happened::Exit(exit);
            }
            tokio::select! {
                _ = self.child.recv() => {}
                signal = next(&mut self.forwarded) => return Happened::Signal(signal),
            }
        }
    }
}

/// What this process is woken by.
pub(super) enum Happened {
    Exit(Exit),
    Signal(Signal),
}

/// Whether whoever sends it wants the command to end.
pub(super) fn asks_for_end(signal: Signal) -> bool {
    !matches!(signal, Signal::USR1 | Signal::USR2 | Signal::WINCH)
}

impl FromStr for SignalArg {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.strip_prefix("SIG").unwrap_or(text) {
            "HUP" => Ok(Self(Signal::HUP)),
            "USR1" => Ok(Self(Signal::USR1)),
            "USR2" => Ok(Self(Signal::USR2)),
            _ => Err("want HUP, USR1 or USR2"),
        }
    }
}

impl FromStr for OnSwap {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "restart" => Ok(Self::Restart),
            "nothing" => Ok(Self::Nothing),
            _ => text
                .parse()
                .map(|SignalArg(signal)| Self::Signal(signal))
                .map_err(|_| "want restart, HUP, USR1, USR2 or nothing"),
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
