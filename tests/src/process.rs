//! Child processes that end with the test.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

/// How long anything may take to become ready.
const READY_WITHIN: Duration = Duration::from_secs(60);

/// The memory of a process that is in RAM, in MiB (proc_pid_status(5)).
#[derive(Clone, Copy, Debug)]
pub struct Resident {
    /// Now: VmRSS.
    pub now: u64,
    /// The most since its start: VmHWM.
    pub peak: u64,
}

/// A process that is killed when this is dropped.
pub struct Running {
    child: Child,
    log: PathBuf,
}

impl Running {
    /// Starts a process; both its outputs go to `log`.
    pub fn start(command: &mut Command, log: &Path) -> Self {
        let file = std::fs::File::options().create(true).append(true).open(log).expect("the log can be written");
        let errors = file.try_clone().expect("a file can be cloned");
        let child = command
            .stdin(Stdio::null())
            .stdout(file)
            .stderr(errors)
            .spawn()
            .unwrap_or_else(|error| panic!("{command:?}: {error}: `cargo build --workspace --bins` makes it"));
        Self { child, log: log.to_owned() }
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What it has in memory.
    pub fn resident(&self) -> Resident {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid())).expect("it runs");
        let of = |name: &str| {
            let line = status.lines().find(|line| line.starts_with(name)).expect("a line of every process");
            line.split_whitespace().nth(1).and_then(|kib| kib.parse::<u64>().ok()).expect("a number of KiB") / 1024
        };
        Resident { now: of("VmRSS:"), peak: of("VmHWM:") }
    }

    /// SIGKILL, and the end of it.
    pub fn kill(mut self) {
        self.stop_with(Signal::KILL);
    }

    /// SIGTERM, and the end of it: its exit code.
    pub fn terminate(mut self) -> Option<i32> {
        self.stop_with(Signal::TERM)
    }

    /// Waits for it to end by itself: its exit code, and its log.
    pub fn wait(mut self) -> (Option<i32>, String) {
        let start = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().expect("it is our child") {
                return (status.code(), self.log());
            }
            assert!(start.elapsed() < READY_WITHIN, "it does not end; its log:\n{}", self.log());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Waits until a line of the log has this text, or it ends: whether the text came.
    pub fn ready_or_end(&mut self, text: &str) -> bool {
        let start = Instant::now();
        loop {
            let ended = self.child.try_wait().expect("it is our child").is_some();
            let ready = self.log().lines().any(|line| line.contains(text));
            if ended || ready {
                return ready;
            }
            assert!(start.elapsed() < READY_WITHIN, "neither {text:?} nor its end; its log:\n{}", self.log());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Waits for a line of the log that has this text.
    pub fn wait_for(&mut self, text: &str) -> String {
        let start = Instant::now();
        loop {
            let log = self.log();
            if let Some(line) = log.lines().find(|line| line.contains(text)) {
                return line.to_owned();
            }
            let ended = self.child.try_wait().expect("it is our child");
            assert!(ended.is_none(), "it ended before {text:?}; its log:\n{log}");
            assert!(start.elapsed() < READY_WITHIN, "no {text:?} in its log:\n{log}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// What it wrote so far.
    pub fn log(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(&self.log).unwrap_or_default()).into_owned()
    }

    fn stop_with(&mut self, signal: Signal) -> Option<i32> {
        if self.child.try_wait().expect("it is our child").is_none() {
            kill_process(Pid::from_child(&self.child), signal).expect("it is our child");
        }
        let start = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().expect("it is our child") {
                return status.code();
            }
            assert!(start.elapsed() < READY_WITHIN, "{signal:?} does not end it; its log:\n{}", self.log());
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Sends a signal to a process that the test started, or that one of those did.
pub fn signal(pid: u32, signal: Signal) {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw).expect("a process id");
    kill_process(pid, signal).expect("it runs");
}

/// What a software TPM measures at every start.
#[derive(Clone)]
pub struct Boot {
    /// Event log of the firmware; `None` for the one in xtask/data.
    pub firmware: Option<PathBuf>,
    /// The file whose digest PCR 11 is extended by.
    pub image: PathBuf,
}

/// A software TPM of `cargo xtask swtpm`; it ends when its stdin closes.
pub struct Swtpm {
    child: Child,
    /// For `--tpm`.
    pub tcti: String,
    /// PEM of the throwaway CA's root and of the issuer of its EK certificates.
    pub authorities: [PathBuf; 2],
}

impl Swtpm {
    /// Starts the TPM of `state`: made on first use, the same one after a reboot later. It booted the firmware that was
    /// recorded for this project, and then `measure`.
    pub fn start(state: &Path, ca: &Path, measure: &Path) -> Self {
        Self::booted(state, ca, &Boot { firmware: None, image: measure.to_owned() })
    }

    /// As [`Swtpm::start`], after this boot.
    pub fn booted(state: &Path, ca: &Path, boot: &Boot) -> Self {
        let mut command = Command::new(binary("xtask"));
        command.args(["swtpm", "--state"]).arg(state).arg("--ca").arg(ca).arg("--measure").arg(&boot.image);
        if let Some(log) = &boot.firmware {
            command.arg("--boot-log").arg(log);
        }
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("xtask was built");
        let output = child.stdout.take().expect("its stdout is a pipe");
        let (mut tcti, mut root, mut issuer) = (None, None, None);
        for line in BufReader::new(output).lines().map_while(Result::ok) {
            match line.split_once('=') {
                Some(("tcti", value)) => tcti = Some(value.to_owned()),
                Some(("ca_root", value)) => root = Some(PathBuf::from(value)),
                Some(("ca_issuer", value)) => issuer = Some(PathBuf::from(value)),
                _ => {}
            }
            if tcti.is_some() {
                break;
            }
        }
        let tcti = tcti.expect("swtpm is ready: `cargo xtask setup` installs what it needs");
        Self { child, tcti, authorities: [root.expect("it names its CA"), issuer.expect("it names its CA")] }
    }

    /// Shuts it down in order, as a machine that is switched off.
    pub fn stop(mut self) {
        drop(self.child.stdin.take());
        let _ = self.child.wait();
    }
}

impl Drop for Swtpm {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        let _ = self.child.wait();
    }
}

/// A binary of the workspace, beside the directory of the tests.
pub fn binary(name: &str) -> PathBuf {
    let test = std::env::current_exe().expect("a test has a path");
    let deps = test.parent().expect("it lies in a directory");
    let beside = deps.ends_with("deps") || deps.ends_with("examples");
    let debug = if beside { deps.parent().expect("it lies in the directory of the binaries") } else { deps };
    let path = debug.join(name);
    assert!(path.exists(), "{}: run the tests by `cargo xtask test`, which builds it", path.display());
    path
}

/// Runs a command to its end; its output, both streams.
pub fn run(command: &mut Command) -> (Option<i32>, String) {
    let Output { status, stdout, stderr } = command.stdin(Stdio::null()).output().expect("it can be started");
    (status.code(), String::from_utf8_lossy(&[stdout, stderr].concat()).into_owned())
}

/// Runs a command that must succeed.
pub fn run_ok(command: &mut Command) -> String {
    let (code, output) = run(command);
    assert_eq!(code, Some(0), "{command:?}:\n{output}");
    output
}

/// Copies a directory, as somebody with root on the host does.
pub fn copy(from: &Path, to: &Path) {
    let _ = std::fs::remove_dir_all(to);
    run_ok(Command::new("cp").arg("-a").arg(from).arg(to));
}
