//! `cargo xtask candle`: a program that takes `vault-enclave` as a library, with MiniLM itself: `examples/candle-embed` against
//! a vault, and against the plain files.

use crate::setup::{self, PythonSet, Venv};
use crate::{Result, shell, test};
use std::path::PathBuf;

/// Arguments of `cargo xtask candle`.
#[derive(clap::Args)]
pub(crate) struct CandleArgs {
    /// Install and fetch nothing; say what is missing.
    #[arg(long)]
    offline: bool,
    /// Take the programs of the workspace as they were built last.
    #[arg(long)]
    no_build: bool,
}

/// The example, which is a workspace of its own: candle is nobody else's.
pub(crate) const PROJECT: &str = "examples/candle-embed";

/// Runs the subcommand.
pub(crate) fn run(args: &CandleArgs) -> Result<()> {
    setup::system_packages(args.offline)?;
    let model = Venv::ensure(&[PythonSet::Demo], args.offline)?.minilm()?;
    let program = build(args.offline)?;
    if !args.no_build {
        test::build()?;
    }
    let mut tests = shell::cargo();
    if shell::succeeds(shell::cargo().args(["nextest", "--version"])) {
        tests.args(["nextest", "run", "--workspace", "--test", "candle", "--no-fail-fast"]);
        tests.args(["--success-output", "final"]);
    } else {
        tests.args(["test", "--workspace", "--test", "candle", "--no-fail-fast", "--", "--nocapture"]);
    }
    tests.env("WEIGHTVAULT_CANDLE", program).env("WEIGHTVAULT_MINILM", model);
    shell::run(&mut tests)
}

/// Builds it where the workspace is built: what both have in the same version is built once.
fn build(offline: bool) -> Result<PathBuf> {
    let target = shell::target_dir();
    let mut build = shell::cargo();
    build.args(["build", "--locked", "--manifest-path"]).arg(format!("{PROJECT}/Cargo.toml"));
    build.arg("--target-dir").arg(&target).args(offline.then_some("--offline"));
    shell::run(&mut build)?;
    Ok(target.join("debug/candle-embed"))
}
