//! `vault-enclave`: keeper and agent.

use std::io::IsTerminal;
use std::process::ExitCode;

use clap::Parser;
use tracing_subscriber::EnvFilter;
use vault_enclave::agent::{command, init, load, loader, run, serve, status};
use vault_enclave::{doctor, evidence_cmd, keeper_join, keeper_main, publish};

/// Holds the keys of a weight vault (`keeper`), or uses them on an attested machine.
#[derive(Parser)]
#[command(version, about, after_help = AFTER_HELP)]
enum Cli {
    /// Hold the keys of a vault: verify evidence, decide by policy, log, and wrap keys to attested guests.
    Keeper(keeper_main::KeeperArgs),
    /// Ask the keeper of a vault to take over from it; ends once approvers have let this machine in and it has the keys.
    KeeperJoin(keeper_join::JoinArgs),
    /// Open a model into a directory of this attested machine, and keep it there as long as its lease lasts.
    Load(Box<load::LoadArgs>),
    /// Run a command with a model that it alone sees, as long as the lease lasts.
    Run(Box<run::RunArgs>),
    /// Hold models for the programs of this machine, which share one copy of each, as long as their leases last.
    Agent(serve::AgentArgs),
    /// List the models that the agent of this machine holds.
    Status(status::StatusArgs),
    /// Have the agent of this machine load or unload a model.
    Models(status::ModelsArgs),
    /// The child of `agent` that wipes its memory where it is killed.
    #[command(hide = true)]
    Wiper(serve::wiper::WiperArgs),
    /// The child of `load`, `run` and `agent` that touches unit keys; takes a job on stdin.
    #[command(hide = true)]
    Loader,
    /// The first process of the command's namespace.
    #[command(hide = true)]
    Init(command::EnterArgs),
    /// Becomes the command of `run`.
    #[command(hide = true)]
    Enter(command::EnterArgs),
    /// Seal a model for a vault, upload it, and propose it to the vault's approvers.
    Seal(publish::SealArgs),
    /// Upload and propose what `seal --out` made; goes on with an upload that was interrupted.
    Publish(publish::PublishArgs),
    /// Print what this machine would send, ready to paste into a policy.
    Evidence(evidence_cmd::EvidenceArgs),
    /// Look at this machine and its vault: what is missing, with the fix.
    Doctor(doctor::DoctorArgs),
}

const AFTER_HELP: &str =
    "WEIGHTVAULT_LOG in the environment says which log lines are written, such as debug. Without it: info.";

fn main() -> ExitCode {
    let filter = EnvFilter::try_from_env("WEIGHTVAULT_LOG").unwrap_or_else(|_| EnvFilter::new("info,tss_esapi=off"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .with_target(false)
        .init();
    match Cli::parse() {
        Cli::Keeper(args) => keeper_main::run(&args),
        Cli::KeeperJoin(args) => keeper_join::run(&args),
        Cli::Load(args) => load::run(&args),
        Cli::Run(args) => run::run(&args),
        Cli::Agent(args) => serve::run(args),
        Cli::Status(args) => status::run(&args),
        Cli::Models(args) => status::models(args),
        Cli::Wiper(args) => serve::wiper::run(&args),
        Cli::Loader => loader::run(),
        Cli::Init(args) => init::init(&args),
        Cli::Enter(args) => command::enter(&args),
        Cli::Seal(args) => publish::seal(&args),
        Cli::Publish(args) => publish::publish(&args),
        Cli::Evidence(args) => evidence_cmd::run(&args),
        Cli::Doctor(args) => doctor::run(&args),
    }
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
        let blocks = documented_commands::in_blocks(operate, "vault-enclave");
        let keepers = documented_commands::in_text(readme, "vault-enclave", "--listen");
        assert!(blocks.len() >= 6 && keepers.len() >= 2, "{blocks:?} {keepers:?}");
        documented_commands::assert_taken::<Cli>(blocks.into_iter().chain(keepers));
    }
}
