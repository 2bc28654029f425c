//! `cargo xtask python`: what Python programs, systemd and Kubernetes make of us, with their own code: the package
//! `weightvault` as it installs, PyTorch, transformers, the stock gRPC, llama.cpp, the units and manifests of `examples/`.

mod examples;

use crate::setup::{self, Venv};
use crate::{Result, shell, test};
use std::fs;
use std::path::Path;
use std::process::Command;

/// Arguments of `cargo xtask python`.
#[derive(clap::Args)]
pub(crate) struct PythonArgs {
    /// Install and fetch nothing; say what is missing.
    #[arg(long)]
    offline: bool,
    /// Take the programs as they were built last.
    #[arg(long)]
    no_build: bool,
}

/// What must be importable, so that no test may skip itself for want of it. vLLM is not among them: it brings
/// gigabytes more. Its test runs where it is importable.
const WANTED: &str = "weightvault torch transformers safetensors numpy grpc_tools gguf xllamacpp";

/// The test programs of `vault-tests` that run Python.
const TESTS: [&str; 2] = ["python_client", "python_run"];

/// The step of `cargo xtask ci`: in a CI always, elsewhere only where the packages are here already.
pub(crate) fn in_ci() -> Result<()> {
    if !shell::is_ci() && !Venv::has_frameworks() {
        println!("PyTorch and its like are not installed: skipped (`cargo xtask python` fetches 2.5 GB)");
        return Ok(());
    }
    shell::run(shell::cargo().args(["xtask", "python"]))
}

/// Runs the subcommand.
pub(crate) fn run(args: &PythonArgs) -> Result<()> {
    setup::system_packages(args.offline)?;
    setup::systemd(args.offline)?;
    let venv = Venv::with_frameworks(args.offline)?;
    install_package(&venv)?;
    if !args.no_build {
        test::build()?;
    }
    examples::check(&venv)?;
    let mut tests = shell::cargo();
    let named = TESTS.iter().flat_map(|name| ["--test", name]);
    if shell::succeeds(shell::cargo().args(["nextest", "--version"])) {
        tests.args(["nextest", "run", "--workspace"]).args(named);
        tests.args(["--no-fail-fast", "--success-output", "final"]);
    } else {
        tests.args(["test", "--workspace"]).args(named).args(["--no-fail-fast", "--", "--nocapture"]);
    }
    tests.env("WEIGHTVAULT_PYTHON", venv.python()).env("WEIGHTVAULT_PYTHON_WANTED", WANTED);
    shell::run(&mut tests)
}

/// Installs `weightvault` from a copy of its source, since what builds it writes beside that.
fn install_package(venv: &Venv) -> Result<()> {
    let (source, copy) = (shell::root().join("clients/python"), shell::target_dir().join("python-package"));
    if copy.exists() {
        fs::remove_dir_all(&copy)?;
    }
    copy_dir(&source, &copy)?;
    let mut pip = Command::new(venv.python());
    pip.args(["-m", "pip", "install", "--no-input", "--no-deps", "--no-build-isolation", "--no-index"]);
    let log = shell::target_dir().join("setup.log");
    shell::run_logged(pip.args(["--force-reinstall", "--no-cache-dir"]).arg(&copy), &log)
}

fn copy_dir(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy_dir(&entry.path(), &target)?
        } else {
            fs::copy(entry.path(), target).map(drop)?
        }
    }
    Ok(())
}
