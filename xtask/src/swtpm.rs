//! `cargo xtask swtpm`: a software TPM with an EK certificate from a throwaway CA and the PCRs of a recorded boot.
//!
//! It runs in the foreground and takes the TPM down with it. Any project's CI can use it:
//! ```text
//! cargo xtask swtpm --state DIR                 # prints tcti=…, serves until SIGINT, SIGTERM or the end of a piped stdin
//! cargo xtask swtpm --state DIR -- tpm2_pcrread # runs one command against it, and returns that command's exit code
//! ```

mod eventlog;
mod launch;
mod listener;
mod manufacture;
mod wire;

pub(crate) use launch::{BootLog, SoftTpm, TpmOptions, make as make_tpm};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;
use std::error::Error;
use std::io::{self, Read, Write};
use std::os::unix::fs::FileTypeExt;
use std::path::PathBuf;
use std::process::{Command, ExitCode};
use std::sync::mpsc::{self, Sender};
use std::thread;
use std::time::Duration;

/// Arguments of `cargo xtask swtpm`.
#[derive(clap::Args, Debug)]
pub(crate) struct SwtpmArgs {
    /// Directory of this TPM; made on first use. The same directory is the same TPM after a reboot.
    #[arg(long, value_name = "DIR")]
    state: PathBuf,
    /// Directory of the throwaway CA; made on first use, may serve many TPMs. Default: STATE/ca.
    #[arg(long, value_name = "DIR")]
    ca: Option<PathBuf>,
    /// Name in the EK certificate (its CN), used when the TPM is made.
    #[arg(long, value_name = "NAME", default_value = "swtpm")]
    vmid: String,
    /// Data port; the control port is the next one. Default: a free pair.
    #[arg(long, value_name = "PORT")]
    port: Option<u16>,
    /// What PCRs 0-9 and 14 are extended by at every start: `recorded`, `none`, or the path of an event log.
    #[arg(long, value_name = "LOG", default_value = "recorded")]
    boot_log: BootLog,
    /// Extend PCR 11 by the SHA-256 of this file at every start (the vault-enclave binary, say).
    #[arg(long, value_name = "FILE")]
    measure: Option<PathBuf>,
    /// Print one line of JSON instead of key=value lines.
    #[arg(long)]
    json: bool,
    /// Run this against the TPM, then end with its exit code. Its environment has TPM2TOOLS_TCTI, SWTPM_TCTI and SWTPM_CA_ROOT.
    #[arg(last = true, value_name = "CMD")]
    command: Vec<String>,
}

/// Starts the TPM, prints where it is, and serves until told to stop.
///
/// # Errors
/// What kept the TPM from starting, in words that name the fix where there is one.
pub(crate) fn run(args: &SwtpmArgs) -> Result<ExitCode, Box<dyn Error>> {
    // Before the TPM exists, so that no signal can fall between its start and its guard.
    let stop = stop_signals()?;
    let tpm = SoftTpm::start(&TpmOptions {
        state: args.state.clone(),
        ca: args.ca.clone().unwrap_or_else(|| args.state.join("ca")),
        name: args.vmid.clone(),
        port: args.port,
        boot_log: args.boot_log.clone(),
        measure: args.measure.clone(),
    })?;
    if args.command.is_empty() {
        print(&tpm, args.json)?;
        return serve(tpm, &stop);
    }
    run_command(&tpm, &args.command, &stop)
}

/// What ends the launcher.
enum Stop {
    Signal(i32),
    StdinClosed,
}

fn stop_signals() -> io::Result<(mpsc::Receiver<Stop>, Sender<Stop>)> {
    use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
    let (sender, receiver) = mpsc::channel();
    let mut signals = signal_hook::iterator::Signals::new([SIGINT, SIGTERM, SIGHUP])?;
    let signalled = sender.clone();
    thread::spawn(move || {
        for signal in signals.forever() {
            if signalled.send(Stop::Signal(signal)).is_err() {
                return;
            }
        }
    });
    Ok((receiver, sender))
}

fn print(tpm: &SoftTpm, as_json: bool) -> io::Result<()> {
    let facts = [
        ("state", json!(tpm.state())),
        ("ca_root", json!(tpm.ca_root())),
        ("ca_issuer", json!(tpm.ca_issuer())),
        ("pid", json!(tpm.pid())),
        ("tcti", json!(tpm.tcti())),
    ];
    let mut out = io::stdout().lock();
    if as_json {
        let object: serde_json::Map<_, _> = facts.into_iter().map(|(key, value)| (key.to_owned(), value)).collect();
        writeln!(out, "{}", serde_json::Value::Object(object))?;
    } else {
        for (key, value) in facts {
            match value.as_str() {
                Some(text) => writeln!(out, "{key}={text}")?,
                None => writeln!(out, "{key}={value}")?,
            }
        }
    }
    out.flush()
}

const POLL: Duration = Duration::from_millis(100);

fn serve(mut tpm: SoftTpm, (stop, sender): &(mpsc::Receiver<Stop>, Sender<Stop>)) -> Result<ExitCode, Box<dyn Error>> {
    if stdin_is_pipe() {
        let sender = sender.clone();
        thread::spawn(move || {
            let mut buffer = [0u8; 64];
            while matches!(io::stdin().read(&mut buffer), Ok(1..)) {}
            sender.send(Stop::StdinClosed)
        });
    }
    loop {
        match stop.recv_timeout(POLL) {
            Ok(_) => return Ok(ExitCode::SUCCESS),
            Err(_) if tpm.ended()? => {
                return Err("swtpm ended by itself; see the log in the state directory".into());
            }
            Err(_) => {}
        }
    }
}

/// A background job of a script has /dev/null as stdin, which is at its end at once: only the end of a pipe, which
/// somebody held open, means "stop".
fn stdin_is_pipe() -> bool {
    std::fs::metadata("/proc/self/fd/0").is_ok_and(|meta| meta.file_type().is_fifo() || meta.file_type().is_socket())
}

fn run_command(
    tpm: &SoftTpm,
    command: &[String],
    (stop, _): &(mpsc::Receiver<Stop>, Sender<Stop>),
) -> Result<ExitCode, Box<dyn Error>> {
    let (program, arguments) = command.split_first().ok_or("no command")?;
    let mut child = Command::new(program)
        .args(arguments)
        .env("TPM2TOOLS_TCTI", tpm.tcti())
        .env("SWTPM_TCTI", tpm.tcti())
        .env("SWTPM_CA_ROOT", tpm.ca_root())
        .spawn()
        .map_err(|error| format!("{program} does not start: {error}"))?;
    loop {
        if let Some(status) = child.try_wait()? {
            let code = status.code().and_then(|code| u8::try_from(code).ok());
            return Ok(code.map_or(ExitCode::FAILURE, ExitCode::from));
        }
        if let Ok(Stop::Signal(signal)) = stop.recv_timeout(POLL / 10) {
            // A terminal's Ctrl-C reaches the command by itself; a kill of the launcher alone does not.
            // Not the program `kill`: a minimal Debian has none.
            if let Some(signal) = Signal::from_named_raw(signal) {
                kill_process(Pid::from_child(&child), signal)?;
            }
        }
    }
}
