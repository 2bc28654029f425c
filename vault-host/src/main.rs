//! `vault-host`: the command.
#![forbid(unsafe_code)]

use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::{Parser, Subcommand};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::signal::unix::{SignalKind, signal};
use vault_host::{BoundHost, CONFIG_TEMPLATE, Config, Copied, WORK_MAX, check_store, check_tls, copy_store};

/// Threads for the keepers' use of the disk.
const KEEPER_THREADS: usize = 32;
/// Open files beside connections: listeners, the log, uploads, models that are read.
const FILES_BESIDE: u64 = 256;

/// The untrusted gRPC broker of a weight vault: stores ciphertext and log, relays to the keeper.
#[derive(Parser)]
#[command(version, after_help = AFTER_HELP)]
struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Serve until SIGTERM or SIGINT.
    Serve {
        /// Configuration file; `vault-host config` prints one to start from.
        #[arg(long)]
        config: PathBuf,
    },
    /// Say whether a configuration is good, and what to change where it is not. Serves nothing.
    CheckConfig {
        /// Configuration file; `vault-host config` prints one to start from.
        #[arg(long)]
        config: PathBuf,
    },
    /// Print a configuration to start from, with every key and what it is for.
    Config,
    /// Work on what hosts store.
    #[command(subcommand)]
    Store(StoreCommand),
}

#[derive(Subcommand)]
enum StoreCommand {
    /// Copy a store to another, of any two kinds, and check the copy. Stop the hosts that use them first. A copy that
    /// was cut short goes on where it was.
    Copy {
        /// Configuration file of a host on the store that is copied.
        #[arg(long)]
        from: PathBuf,
        /// Configuration file of a host on the store that it goes to.
        #[arg(long)]
        to: PathBuf,
    },
}

const AFTER_HELP: &str = "WEIGHTVAULT_LOG in the environment says which log lines are written, such as debug, or \
                          vault_host=debug,info. Without it: info.";

/// How often a copy says how far it is.
const SAY_EVERY: Duration = Duration::from_secs(1);

fn main() -> ExitCode {
    let done = match Args::parse().command {
        Command::Serve { config } => serve(&config),
        Command::CheckConfig { config } => check(&config),
        Command::Config => print_template(),
        Command::Store(StoreCommand::Copy { from, to }) => copy(&from, &to),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("vault-host: {message}");
            ExitCode::FAILURE
        }
    }
}

/// A reader that goes away, as `head` does, is no failure.
fn print_template() -> Result<(), String> {
    match std::io::stdout().write_all(CONFIG_TEMPLATE.as_bytes()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => Err(format!("can't write to standard output: {error}")),
        _ => Ok(()),
    }
}

fn check(path: &Path) -> Result<(), String> {
    let config = read(path)?;
    check_tls(&config).map_err(|error| format!("{}: {error}", error.code()))?;
    let runtime = tokio::runtime::Runtime::new().map_err(|error| format!("can't start threads: {error}"))?;
    check_store(&config, runtime.handle().clone()).map_err(|error| format!("{}: {error}", error.code()))?;
    println!("{} is good", path.display());
    Ok(())
}

fn copy(from: &Path, to: &Path) -> Result<(), String> {
    let (from, to) = (read(from)?, read(to)?);
    let runtime = tokio::runtime::Runtime::new().map_err(|error| format!("can't start threads: {error}"))?;
    let mut said = Instant::now();
    let say = |line: String| {
        if said.elapsed() >= SAY_EVERY {
            eprintln!("{line}");
            said = Instant::now();
        }
    };
    let copied = copy_store(&from, &to, runtime.handle(), say);
    let Copied { blobs, models, entries, above } = copied.map_err(|error| format!("{}: {error}", error.code()))?;
    println!(
        "copied and checked: {entries} entries under the checkpoint, {above} above it, {blobs} blobs, {models} models"
    );
    Ok(())
}

fn serve(path: &Path) -> Result<(), String> {
    let config = read(path)?;
    vault_host::init_log_lines(config.log_format);
    raise_file_limit(config.limits.connections);
    // A stream keeps a thread that writes, or one that reads; other callers have theirs, and the keeper's calls the rest.
    let blocking_threads = config.limits.streams as usize + WORK_MAX + KEEPER_THREADS;
    let runtime =
        tokio::runtime::Builder::new_multi_thread().enable_all().max_blocking_threads(blocking_threads).build();
    let runtime = runtime.map_err(|error| format!("can't start threads: {error}"))?;
    runtime.block_on(async {
        let host = BoundHost::bind(config).await.map_err(|error| format!("{}: {error}", error.code()))?;
        let stop = stop_signal().map_err(|error| format!("can't wait for signals: {error}"))?;
        host.serve(stop).await.map_err(|error| format!("{}: {error}", error.code()))
    })
}

/// As many open files as the system lets this process have: every agent is one, and shells and service managers start a
/// program with 1,024.
fn raise_file_limit(connections: u32) {
    let most = getrlimit(Resource::Nofile).maximum;
    let raised = setrlimit(Resource::Nofile, Rlimit { current: most, maximum: most });
    if raised.is_err() || most.is_some_and(|most| most < u64::from(connections) + FILES_BESIDE) {
        tracing::warn!(
            ?most,
            connections,
            "fewer files may be open than limits.connections: raise the limit (LimitNOFILE=)"
        );
    }
}

fn read(path: &Path) -> Result<Config, String> {
    Config::read(path).map_err(|error| format!("{}: {}: {error}", path.display(), error.code()))
}

/// Ends on SIGTERM or SIGINT.
fn stop_signal() -> std::io::Result<impl Future<Output = ()> + Send> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    })
}

#[cfg(test)]
#[path = "../../tests/documented_commands.rs"]
mod documented_commands;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_of_the_documents_are_taken() {
        let operate = include_str!("../../docs/operate.md");
        let readme = include_str!("../../README.md");
        let blocks = documented_commands::in_blocks(operate, "vault-host");
        let copies = documented_commands::in_text(readme, "vault-host", "--");
        assert!(blocks.len() >= 3 && copies.len() >= 2, "{blocks:?} {copies:?}");
        documented_commands::assert_taken::<Args>(blocks.into_iter().chain(copies));
    }
}
