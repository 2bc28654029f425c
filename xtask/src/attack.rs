//! `cargo xtask attack`: builds the attack suite and runs it. The suite itself is in package `vault-tests`.

use crate::{Result, setup, shell};
use std::process::{Command, Stdio};

/// Arguments of `cargo xtask attack`.
#[derive(clap::Args)]
pub(crate) struct AttackArgs {
    /// Only what one running vault can be asked; leaves out hostile host, rolled-back storage, fork and stolen disk.
    #[arg(long)]
    quick: bool,
    /// Print JSON alone.
    #[arg(long)]
    json: bool,
    /// Install nothing.
    #[arg(long)]
    offline: bool,
}

/// Runs the subcommand.
pub(crate) fn run(args: &AttackArgs) -> Result<()> {
    setup::system_packages(args.offline)?;
    let mut build = shell::cargo();
    build.args(["build", "--workspace", "--bins"]);
    let status = match args.json {
        // What building says is no JSON.
        true => build.stdout(Stdio::null()).status()?,
        false => build.status()?,
    };
    if !status.success() {
        return Err(format!("`{}` ended with {status}", shell::display(&build)).into());
    }
    let mut suite = Command::new(crate::demo::binary("attack"));
    suite.args(args.quick.then_some("--quick")).args(args.json.then_some("--json"));
    let status = suite.stdin(Stdio::null()).status()?;
    if status.success() { Ok(()) } else { Err("an attack was not stopped as it should be".into()) }
}
