//! Set-up, demo, tests and house rules of this workspace: `cargo xtask --help`.
//!
//! A newcomer compiles this first, before anything of the system is installed. So it depends on none of our crates and on
//! nothing that needs a system library; think twice before you add a dependency.

mod attack;
mod candle;
mod ci;
mod demo;
mod fuzz;
mod model;
mod python;
mod setup;
mod shell;
mod swtpm;
mod test;
mod tidy;
mod vm;

use clap::{CommandFactory, Parser};
use std::process::ExitCode;

/// What can go wrong here is told to a person, so a text is enough.
type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

/// Tasks of this workspace.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
enum Task {
    /// Installs what building, testing and the demo need and this machine lacks.
    Setup(setup::SetupArgs),
    /// Builds everything and runs every test, on software TPMs.
    Test(test::TestArgs),
    /// What has to pass before a change lands: format, house rules, lints, docs, licences, tests, demo.
    Ci(ci::CiArgs),
    /// Seals a real model, attests a guest, loads it, and shows what is refused. Leaves nothing running.
    Demo(demo::DemoArgs),
    /// Attacks a vault of its own and prints what stopped each attack. Fails if one succeeds. Leaves nothing running.
    Attack(attack::AttackArgs),
    /// Builds a measured guest twice, boots it in QEMU, has it attest and load; refuses changed ones. Leaves nothing running.
    Vm(vm::VmArgs),
    /// Tests the Python package with PyTorch and transformers, llama.cpp under `run`, and the examples for systemd and Kubernetes.
    Python(python::PythonArgs),
    /// Builds `examples/candle-embed`, a program with vault-enclave as a library, and compares what it makes of a sealed model.
    Candle(candle::CandleArgs),
    /// Checks the house rules that the compiler does not.
    Tidy,
    /// Measures seal, upload and load beside `cp` in the same run: a table, and JSON with `ratios`.
    Bench(demo::BenchArgs),
    /// Throws bytes at every reader of what others send, guided by coverage; needs cargo-fuzz.
    Fuzz(fuzz::FuzzArgs),
    /// Makes a synthetic safetensors model of any size.
    Model(model::ModelArgs),
    /// A software TPM with an EK certificate from a throwaway CA, for any program or CI.
    Swtpm(swtpm::SwtpmArgs),
}

fn main() -> ExitCode {
    let done = match Task::parse() {
        Task::Setup(args) => setup::run(&args),
        Task::Test(args) => test::run(&args),
        Task::Ci(args) => ci::run(&args, Task::command().find_subcommand("demo").is_some()),
        Task::Demo(args) => demo::run(&args),
        Task::Attack(args) => attack::run(&args),
        Task::Vm(args) => vm::run(&args),
        Task::Python(args) => python::run(&args),
        Task::Candle(args) => candle::run(&args),
        Task::Tidy => tidy::run(),
        Task::Bench(args) => demo::bench(&args),
        Task::Fuzz(args) => fuzz::run(&args),
        Task::Model(args) => model::run(&args),
        // It ends as the command does that it ran.
        Task::Swtpm(args) => return swtpm::run(&args).unwrap_or_else(failed),
    };
    done.map_or_else(failed, |()| ExitCode::SUCCESS)
}

fn failed(error: Box<dyn std::error::Error>) -> ExitCode {
    eprintln!("xtask: {error}");
    ExitCode::FAILURE
}
