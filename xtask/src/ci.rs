//! `cargo xtask ci`: all that has to pass before a change lands, in one order, here and on the CI machine.

use crate::{Result, candle, fuzz, python, setup, shell, tidy, vm};
use std::process::Command;
use std::time::{Duration, Instant};

/// Arguments of `cargo xtask ci`.
#[derive(clap::Args)]
pub(crate) struct CiArgs {
    /// Leave out tests and demo: what is left takes little time once the workspace is built.
    #[arg(long)]
    quick: bool,
}

struct Step {
    name: &'static str,
    run: fn() -> Result<()>,
}

/// Runs every step, also after one that failed: one run then shows all that is wrong.
pub(crate) fn run(args: &CiArgs, has_demo: bool) -> Result<()> {
    let mut steps = vec![
        Step { name: "format", run: format },
        Step { name: "tidy", run: tidy::run },
        Step { name: "setup", run: || setup::system_packages(false) },
        Step { name: "clippy", run: clippy },
        Step { name: "doc", run: doc },
        Step { name: "deny", run: deny },
    ];
    if !args.quick {
        // The README's own commands, as a person types them. The tests come last: their summary ends the output.
        if has_demo {
            steps.push(Step { name: "demo", run: || shell::run(shell::cargo().args(["xtask", "demo"])) });
            let snp = || shell::run(shell::cargo().args(["xtask", "demo", "--tier", "snp"]));
            steps.push(Step { name: "demo snp", run: snp });
            // Five boots in an emulator.
            steps.push(Step { name: "vm", run: vm::in_ci });
            steps.push(Step { name: "bench", run: bench });
        }
        steps.push(Step { name: "python", run: python::in_ci });
        steps.push(Step { name: "candle", run: || shell::run(shell::cargo().args(["xtask", "candle"])) });
        steps.push(Step { name: "test", run: || shell::run(shell::cargo().args(["xtask", "test"])) });
    }
    let before = tree_state()?;
    let mut done = Vec::new();
    for step in &steps {
        println!("\n== {}", step.name);
        let start = Instant::now();
        let result = (step.run)();
        if let Err(error) = &result {
            println!("xtask: {}: {error}", step.name);
        }
        done.push((step.name, start.elapsed(), result.is_ok()));
    }
    let clean = check_clean(&before, &tree_state()?);
    if let Err(error) = &clean {
        println!("xtask: {error}");
    }
    done.push(("clean tree", Duration::ZERO, clean.is_ok()));
    report(&done)
}

fn report(done: &[(&str, Duration, bool)]) -> Result<()> {
    println!();
    for (name, time, passed) in done {
        println!("ci: {name:<12} {:>6.1} s  {}", time.as_secs_f64(), if *passed { "ok" } else { "FAILED" });
    }
    let failed: Vec<&str> = done.iter().filter(|(_, _, passed)| !passed).map(|(name, _, _)| *name).collect();
    if failed.is_empty() { Ok(()) } else { Err(format!("failed: {}", failed.join(", ")).into()) }
}

/// The workspace, and what stands alone beside it.
fn format() -> Result<()> {
    shell::run(shell::cargo().args(["fmt", "--all", "--check"]))?;
    let tools = ["attestation/tools/launch-digest-check", "attestation/tools/sev-peer", candle::PROJECT];
    let alone = fuzz::PROJECTS.into_iter().chain(tools);
    for manifest in alone.map(|project| format!("{project}/Cargo.toml")) {
        shell::run(shell::cargo().args(["fmt", "--check", "--manifest-path", &manifest]))?;
    }
    Ok(())
}

fn clippy() -> Result<()> {
    shell::run(shell::cargo().args(["clippy", "--workspace", "--all-targets", "--", "--deny=warnings"]))
}

/// That every row of the bench runs: what it measures means nothing here. And that no hot function takes more instructions
/// than recorded, which are the same on a busy machine.
fn bench() -> Result<()> {
    shell::run(shell::cargo().args(["xtask", "bench", "--data", "--quick", "--peers"]))?;
    if !shell::is_ci() && shell::which("valgrind").is_none() {
        println!(
            "valgrind is not installed: instructions are not counted (`cargo xtask bench --instructions` installs it)"
        );
        return Ok(());
    }
    shell::run(shell::cargo().args(["xtask", "bench", "--instructions"]))
}

fn doc() -> Result<()> {
    shell::run(shell::cargo().env("RUSTDOCFLAGS", "--deny=warnings").args(["doc", "--workspace", "--no-deps"]))
}

/// Licences, bans and sources. Advisories need a database that is not on a package registry: `cargo deny check` has them.
fn deny() -> Result<()> {
    if !shell::succeeds(shell::cargo().args(["deny", "--version"])) {
        println!("cargo-deny is not installed: skipped (tidy holds the bans as well)");
        return Ok(());
    }
    shell::run(shell::cargo().args(["deny", "check", "bans", "licenses", "sources"]))
}

/// What git sees as changed or new. In a clone without changes: nothing.
fn tree_state() -> Result<String> {
    shell::output(Command::new("git").current_dir(shell::root()).args([
        "status",
        "--porcelain",
        "--untracked-files=all",
    ]))
}

fn check_clean(before: &str, after: &str) -> Result<()> {
    let new: Vec<&str> = after.lines().filter(|line| !before.lines().any(|old| old == *line)).collect();
    if new.is_empty() { Ok(()) } else { Err(format!("this run changed the tree:\n{}", new.join("\n")).into()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn file_left_behind_is_named_and_older_changes_are_not() {
        let error = check_clean(" M a.rs\n", " M a.rs\n?? left.txt\n").unwrap_err().to_string();
        assert!(error.contains("left.txt") && !error.contains("a.rs"), "{error}");
        assert!(check_clean(" M a.rs\n", " M a.rs\n").is_ok());
    }

    #[test]
    fn one_failed_step_fails_the_run_and_is_named() {
        let done = [("format", Duration::ZERO, true), ("clippy", Duration::ZERO, false)];
        assert_eq!(report(&done).unwrap_err().to_string(), "failed: clippy");
        assert!(report(&done[..1]).is_ok());
    }
}
