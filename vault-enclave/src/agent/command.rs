//! The command that `run` gives the weights to: started as its user, signalled, and ended with all that it started.

use std::io::{ErrorKind, IsTerminal};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::sync::mpsc::{Sender, channel};
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::process::{Pid, Signal, WaitOptions, WaitStatus};
use rustix::thread::{Gid, Uid, UnshareFlags};

use super::job::Owner;
use super::namespace;
use super::started::Started;
use super::user::User;
use crate::failure::{Failure, Kind};
use crate::tpm::starting_child;

/// The command can't be executed, and it is not there: as shells say it.
const EXIT_NOT_EXECUTABLE: u8 = 126;
const EXIT_NOT_FOUND: u8 = 127;
/// Set by this program for its own libtss2.
pub(super) const TSS2_LOG: &str = "TSS2_LOG";
/// How long killed processes may take to be gone.
const KILL_TIME_MAX: Duration = Duration::from_secs(10);

/// How long the first process of a namespace may take until it passes signals on.
const READY_TIME_MAX: Duration = Duration::from_secs(5);

/// Options of the hidden commands between `run` and its command.
#[derive(clap::Args, Clone, Debug)]
pub struct EnterArgs {
    /// User to become.
    #[arg(long)]
    uid: u32,
    /// Group to become.
    #[arg(long)]
    gid: u32,
    /// Process whose death is to end the command.
    #[arg(long)]
    parent: i32,
    /// The file to execute, where it was found already.
    #[arg(long)]
    program: Option<PathBuf>,
    /// What to execute.
    #[arg(last = true, required = true)]
    command: Vec<std::ffi::OsString>,
}

impl EnterArgs {
    fn hidden_command(&self, name: &str) -> Command {
        let mut command = Command::new("/proc/self/exe");
        command.arg(name).arg(format!("--uid={}", self.uid)).arg(format!("--gid={}", self.gid));
        command.arg(format!("--parent={}", self.parent));
        if let Some(program) = &self.program {
            command.arg("--program").arg(program);
        }
        command.arg("--").args(&self.command);
        command
    }

    pub(super) fn parent(&self) -> i32 {
        self.parent
    }
}

/// Gives up what the command must not have, then becomes it.
#[must_use]
pub fn enter(args: &EnterArgs) -> ExitCode {
    if let Err(failure) = drop_privileges(Owner { uid: args.uid, gid: args.gid }, args.parent) {
        eprintln!("error: {failure}");
        return ExitCode::from(super::run::EXIT_FAILED);
    }
    let Some((name, arguments)) = args.command.split_first() else {
        return ExitCode::from(super::run::EXIT_FAILED);
    };
    let program = args.program.as_ref().map_or(name.as_os_str(), |program| program.as_os_str());
    let error = Command::new(program).arg0(name).args(arguments).env_remove(TSS2_LOG).exec();
    eprintln!("error: {}: {error}", name.display());
    ExitCode::from(if error.kind() == ErrorKind::NotFound { EXIT_NOT_FOUND } else { EXIT_NOT_EXECUTABLE })
}

/// Supplementary groups go, then root, then every way back. Nothing of it is undone by the execution.
fn drop_privileges(owner: Owner, parent: i32) -> Result<(), Failure> {
    let failed = |errno: Errno| Failure::io("privileges can't be dropped", &errno.into());
    keep_memory_out_of_cores()?;
    let (uid, gid) = (Uid::from_raw(owner.uid), Gid::from_raw(owner.gid));
    let now = (rustix::process::geteuid(), rustix::process::getegid());
    if (uid, gid) != now {
        rustix::thread::set_thread_groups(&[]).map_err(failed)?;
        rustix::thread::set_thread_res_gid(gid, gid, gid).map_err(failed)?;
        rustix::thread::set_thread_res_uid(uid, uid, uid).map_err(failed)?;
    }
    namespace::stop_mounting();
    rustix::thread::set_no_new_privs(true).map_err(failed)?;
    // After the change of user, which would clear it. Where `run` is killed, nobody would end the command or wipe.
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL)).map_err(failed)?;
    if rustix::process::getppid() != Pid::from_raw(parent) {
        return Err(Failure::new(Kind::Failed, "parent-gone", "the parent ended before the command began"));
    }
    Ok(())
}

/// Whatever makes a core of the command, there is nothing of its memory in it (core(5), `/proc/PID/coredump_filter`). Unlike
/// "not dumpable" this outlives the execution; unlike the limit on cores, which is 1 and stops those that are piped to a
/// program too, it also holds where the command sets another limit: to 0, which pipes ignore, or, as root, to none.
fn keep_memory_out_of_cores() -> Result<(), Failure> {
    match std::fs::write("/proc/self/coredump_filter", "0") {
        // A kernel that makes no cores has no such file.
        Err(error) if error.kind() != ErrorKind::NotFound => {
            Err(Failure::io("memory can't be kept out of core dumps", &error))
        }
        Ok(()) | Err(_) => Ok(()),
    }
}

/// A command that runs, or the first process of its namespace, which stands for it. Where it has none, what the command
/// starts and leaves behind becomes a child of this process.
pub(super) struct Running {
    pid: Pid,
    /// Other children of this process are what the command left behind, and nobody else waits for them.
    adopts: bool,
    /// Ends the thread that is its parent, whose death is its own.
    _parent: Option<Sender<()>>,
}

/// How it ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Exit(u8);

impl Running {
    /// Starts `command` as `user`, in a PID namespace of its own where that can be had; in `directory`, or else where this process
    /// is.
    ///
    /// # Errors
    /// `io`. A command that is not there is started all the same, and ends with 127.
    pub(super) fn start(command: &Started, user: &User, directory: Option<&'static Path>) -> Result<Self, Failure> {
        let failed = |error| Failure::io("the command can't be started", &error);
        rustix::process::set_child_subreaper(Some(rustix::process::getpid())).map_err(|errno| failed(errno.into()))?;
        let args = EnterArgs {
            uid: user.owner.uid,
            gid: user.owner.gid,
            parent: rustix::process::getpid().as_raw_nonzero().get(),
            program: command.path().map(ToOwned::to_owned),
            command: command.line().to_vec(),
        };
        let environment = command.environment().clone();
        let (started, wait) = channel();
        let (parent, ended) = channel();
        // The namespace is that of one thread's children, and a thread that asked for one can start no other thread.
        let start = move || {
            let namespace = namespace::unshare(UnshareFlags::NEWPID);
            if namespace.is_ok() && !rustix::process::geteuid().is_root() {
                // Without it the first process has no /proc of its own, and says so.
                let _ = namespace::keep_mounting();
            }
            let mut child = args.hidden_command(if namespace.is_ok() { "init" } else { "enter" });
            child.env_clear().envs(environment);
            if let Some(directory) = directory {
                child.current_dir(directory);
            }
            let _ = started.send((namespace, starting_child(|| child.spawn())));
            // A child has the death signal of the thread that started it.
            let _ = ended.recv();
        };
        std::thread::Builder::new().name("command".to_owned()).spawn(start).map_err(failed)?;
        let (namespace, child) = wait.recv().map_err(|_| failed(ErrorKind::BrokenPipe.into()))?;
        let pid = Pid::from_child(&child.map_err(failed)?);
        let running = Self { pid, adopts: namespace.is_err(), _parent: Some(parent) };
        match namespace {
            Ok(()) => running.wait_until_it_listens(),
            Err(errno) => eprintln!(
                "warning: no PID namespace of its own: {errno}; where this process is killed with SIGKILL, what the command \
                 has started may go on, and reads the files as long as it does"
            ),
        }
        Ok(running)
    }

    /// Starts the command itself, as a child of the first process of its namespace.
    ///
    /// # Errors
    /// `io`.
    pub(super) fn enter(args: &EnterArgs) -> Result<Self, Failure> {
        let args = EnterArgs { parent: rustix::process::getpid().as_raw_nonzero().get(), ..args.clone() };
        let child = args.hidden_command("enter").spawn();
        let child = child.map_err(|error| Failure::io("the command can't be started", &error))?;
        // Waited for by `reap`, together with what it leaves behind.
        Ok(Self { pid: Pid::from_child(&child), adopts: true, _parent: None })
    }

    /// The kernel keeps signals from the first process of a namespace that does not handle them yet: one that came too
    /// early would be lost.
    fn wait_until_it_listens(&self) {
        let start = Instant::now();
        while start.elapsed() < READY_TIME_MAX {
            // One that ended already listens to nothing, and has no signals of its own any more.
            let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid.as_raw_nonzero()));
            if !status.is_ok_and(|status| is_deaf(&status)) {
                return;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// Sends it a signal.
    pub(super) fn signal(&self, signal: Signal) {
        // It may be gone already.
        let _ = rustix::process::kill_process(self.pid, signal);
    }

    /// Passes on a signal that this process got. What a terminal sends goes to the command as well as to this process.
    pub(super) fn forward(&self, signal: Signal) {
        let from_terminal =
            matches!(signal, Signal::INT | Signal::QUIT | Signal::WINCH) && std::io::stdin().is_terminal();
        if !from_terminal {
            self.signal(signal);
        }
    }

    /// How the command ended, if it did. What it left behind is collected, too.
    pub(super) fn reap(&self) -> Option<Exit> {
        if !self.adopts {
            // A loader that ended is another's to wait for.
            let ended = rustix::process::waitpid(Some(self.pid), WaitOptions::NOHANG);
            return ended.ok().flatten().and_then(|(_, status)| Exit::of(status));
        }
        let mut exit = None;
        while let Ok(Some((pid, status))) = rustix::process::wait(WaitOptions::NOHANG) {
            if pid == self.pid {
                exit = Exit::of(status);
            }
        }
        exit
    }

    /// Kills every process that the command started and that still runs. It returns when none has the files open.
    ///
    /// # Errors
    /// `not-ended`: one that the kernel does not let go.
    pub(super) fn kill_all(&self) -> Result<(), Failure> {
        let start = Instant::now();
        loop {
            self.reap();
            let children = children()?;
            if children.is_empty() {
                return Ok(());
            }
            if start.elapsed() > KILL_TIME_MAX {
                let message = format!("{} processes do not end: {children:?}", children.len());
                return Err(Failure::new(Kind::Failed, "not-ended", message));
            }
            // Those that they leave behind become children of this process, and are killed in the next round.
            for pid in children {
                let _ = rustix::process::kill_process(pid, Signal::KILL);
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Exit {
    /// By SIGKILL.
    pub(super) const KILLED: Self = Self(128 + 9);

    fn of(status: WaitStatus) -> Option<Self> {
        let code = status.exit_status().or_else(|| status.terminating_signal().map(|signal| 128 + signal))?;
        u8::try_from(code & 0xff).ok().map(Self)
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit.0)
    }
}

/// Children of this process that have not ended, by what /proc says of all processes: proc(5), stat.
fn children() -> Result<Vec<Pid>, Failure> {
    let failed = |error| Failure::io("/proc", &error);
    let this = rustix::process::getpid();
    let mut children = Vec::new();
    for entry in std::fs::read_dir("/proc").map_err(failed)? {
        let name = entry.map_err(failed)?.file_name();
        let Some(pid) = name.to_str().and_then(|name| name.parse().ok()).and_then(Pid::from_raw) else { continue };
        // One that is gone meanwhile has no file.
        let Ok(stat) = std::fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_nonzero())) else { continue };
        if parent(&stat) == Some(this) && !has_ended(&stat) {
            children.push(pid);
        }
    }
    Ok(children)
}

/// The parent of this process, by the numbers of the namespace that /proc is of.
pub(super) fn parent_of_this() -> Option<Pid> {
    parent(&std::fs::read_to_string("/proc/self/stat").ok()?)
}

/// Whether a process that lives does not handle SIGTERM: proc(5), status, `State` and `SigCgt`.
fn is_deaf(status: &str) -> bool {
    let field = |name: &str| status.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
    let lives = field("State:").is_some_and(|state| !state.starts_with(['Z', 'X']));
    let caught = field("SigCgt:").and_then(|mask| u64::from_str_radix(mask, 16).ok()).unwrap_or(0);
    lives && caught & (1 << (Signal::TERM.as_raw() - 1)) == 0
}

/// A zombie has no memory and no files any more; who waits for it may take his time.
fn has_ended(stat: &str) -> bool {
    stat.rsplit_once(") ").is_some_and(|(_, after)| after.starts_with(['Z', 'X']))
}

/// The fourth field, after a name in parentheses that may hold anything.
fn parent(stat: &str) -> Option<Pid> {
    let (_, after) = stat.rsplit_once(") ")?;
    after.split(' ').nth(1)?.parse().ok().and_then(Pid::from_raw)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_parent_is_found_behind_any_name() {
        assert_eq!(parent("7 (sh) S 5 7 7 0"), Pid::from_raw(5));
        assert_eq!(parent("7 (a) S 9) R 5 7 7 0"), Pid::from_raw(5));
        assert_eq!(parent("7 (sh) S 0 7"), None);
        assert_eq!(parent(""), None);
        assert!(has_ended("7 (sh) Z 5 7 7 0") && !has_ended("7 (a) Z) S 5 7 7 0"));
    }

    #[test]
    fn a_process_is_deaf_until_it_handles_sigterm_or_ends() {
        assert!(is_deaf("Name:\tinit\nState:\tR (running)\nSigCgt:\t0000000000000440\n"));
        assert!(!is_deaf("Name:\tinit\nState:\tS (sleeping)\nSigCgt:\t0000000000004a03\n"));
        assert!(!is_deaf("Name:\tinit\nState:\tZ (zombie)\nSigCgt:\t0000000000000000\n"));
    }

    #[test]
    fn a_child_is_among_the_children() {
        let mut child = Command::new("sleep").arg("60").spawn().unwrap();
        let pid = Pid::from_child(&child);
        assert!(children().unwrap().contains(&pid));
        child.kill().unwrap();
        while children().unwrap().contains(&pid) {
            std::thread::sleep(Duration::from_millis(1));
        }
        child.wait().unwrap();
        assert!(!children().unwrap().contains(&pid));
    }
}
