//! `cargo xtask fuzz`: throws bytes at every reader of what others send, guided by coverage.

mod seeds;

use crate::{Result, shell};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Arguments of `cargo xtask fuzz`.
#[derive(clap::Args)]
pub(crate) struct FuzzArgs {
    /// How long each target runs.
    #[arg(long, default_value_t = 10)]
    seconds: u64,
    /// Only these; all of `fuzz/fuzz_targets` by default.
    targets: Vec<String>,
}

/// The projects of targets. The second one takes long to build.
pub(crate) const PROJECTS: [&str; 2] = ["fuzz", "proto/fuzz"];
/// More than any input should cost: the corpus and libFuzzer itself lie in it too.
const MEMORY_MIB_MAX: &str = "-rss_limit_mb=512";
/// An input that takes longer is a finding.
const SECONDS_MAX: &str = "-timeout=5";

/// Runs the subcommand: each target in turn, also after one that found something.
pub(crate) fn run(args: &FuzzArgs) -> Result<()> {
    let targets = chosen(&args.targets)?;
    if !shell::succeeds(shell::cargo().args(["fuzz", "--version"])) {
        return Err(
            "cargo-fuzz is not installed: `cargo install cargo-fuzz --locked`. It needs a C++ compiler too.".into()
        );
    }
    let dir = shell::target_dir().join("fuzz");
    for project in PROJECTS.into_iter().filter(|project| targets.iter().any(|(_, of)| of == project)) {
        build(project, &dir)?;
    }
    let mut found = Vec::new();
    for (target, _) in &targets {
        let binary = binary(&dir, target)?;
        let Some(vectors) = seeds::vectors().or_else(|| (target != "crl").then(PathBuf::new)) else {
            println!("crl: skipped: it needs a chain of AMD's in {}", seeds::vectors_place().display());
            continue;
        };
        let corpus = dir.join("corpus").join(target);
        let seeds = seeds::write(target, &corpus)?;
        let artifacts = dir.join("artifacts").join(target);
        fs::create_dir_all(&artifacts)?;
        let log = dir.join(format!("{target}.log"));
        let mut command = Command::new(&binary);
        command.arg(format!("-max_total_time={}", args.seconds)).args([MEMORY_MIB_MAX, SECONDS_MAX]);
        command.arg("-print_final_stats=1").arg(format!("-artifact_prefix={}/", artifacts.display())).arg(&corpus);
        command.env("WEIGHTVAULT_VECTORS", vectors).stdin(Stdio::null()).stdout(Stdio::null());
        let status = command.stderr(fs::File::create(&log)?).status()?;
        let said = String::from_utf8_lossy(&fs::read(&log)?).into_owned();
        println!("{target:<18} {seeds:>3} seeds  {}", summary(&said));
        if !status.success() {
            println!("{}", shell::tail(&log, 0, 30));
            println!("{target}: {status}. Run it again: {} {}", binary.display(), artifact(&said));
            found.push(target.as_str());
        }
    }
    if found.is_empty() { Ok(()) } else { Err(format!("a target found something: {}", found.join(", ")).into()) }
}

/// The targets there are, or those of them that were asked for, each with its project.
fn chosen(asked: &[String]) -> Result<Vec<(String, &'static str)>> {
    let mut all = Vec::new();
    for project in PROJECTS {
        for file in fs::read_dir(shell::root().join(project).join("fuzz_targets"))? {
            let path = file?.path();
            all.extend(path.file_stem().and_then(|name| name.to_str()).map(|name| (name.to_owned(), project)));
        }
    }
    all.sort();
    if let Some(unknown) = asked.iter().find(|asked| !all.iter().any(|(name, _)| name == *asked)) {
        let names: Vec<&str> = all.iter().map(|(name, _)| name.as_str()).collect();
        return Err(format!("there is no target {unknown}; there are: {}", names.join(", ")).into());
    }
    all.retain(|(name, _)| asked.is_empty() || asked.contains(name));
    Ok(all)
}

/// Builds every target of a project with coverage, assertions and checks of overflow. No sanitizer: they watch over unsafe
/// code, of which these crates have none, and need another compiler.
fn build(project: &str, dir: &Path) -> Result<()> {
    // What is fuzzed is what ships: the same versions of everything.
    fs::copy(shell::root().join("Cargo.lock"), shell::root().join(project).join("Cargo.lock"))?;
    let mut command = shell::cargo();
    command.args(["fuzz", "build", "--fuzz-dir", project, "--sanitizer", "none", "--target-dir"]).arg(dir);
    shell::run(&mut command)
}

/// Where the build left a target: in the directory of the platform, beside that of what ran while building.
fn binary(dir: &Path, target: &str) -> Result<PathBuf> {
    for platform in fs::read_dir(dir)? {
        let binary = platform?.path().join("release").join(target);
        if binary.is_file() {
            return Ok(binary);
        }
    }
    Err(format!("cargo-fuzz left no {target} in {}", dir.display()).into())
}

/// What libFuzzer says at the end, in a line.
fn summary(said: &str) -> String {
    let stat = |name: &str| {
        let line = said.lines().rev().find_map(|line| line.strip_prefix(name));
        line.map_or("?", str::trim).to_owned()
    };
    let coverage = said
        .lines()
        .rev()
        .find_map(|line| line.split_once(" cov: "))
        .map_or("?", |(_, rest)| rest.split_whitespace().next().unwrap_or("?"));
    let (runs, rate) = (stat("stat::number_of_executed_units:"), stat("stat::average_exec_per_sec:"));
    format!("{runs} runs, {rate}/s, {coverage} edges, {} MiB", stat("stat::peak_rss_mb:"))
}

/// Where the input lies that failed.
fn artifact(said: &str) -> &str {
    said.lines().rev().find_map(|line| line.split_once("Test unit written to ")).map_or("(no input)", |(_, path)| path)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SAID: &str = "#7\tINITED cov: 12 ft: 13 corp: 1/1b\n#9\tNEW    cov: 34 ft: 35\nDone 9 runs in 1 second(s)\n\
                        stat::number_of_executed_units: 9\nstat::average_exec_per_sec:     8\nstat::peak_rss_mb:  40\n";

    #[test]
    fn end_of_a_run_is_a_line() {
        assert_eq!(summary(SAID), "9 runs, 8/s, 34 edges, 40 MiB");
        assert_eq!(summary(""), "? runs, ?/s, ? edges, ? MiB");
    }

    #[test]
    fn input_that_failed_is_named() {
        let said = "panicked\nartifact_prefix='/t/'; Test unit written to /t/crash-1\nBase64: AA==\n";
        assert_eq!(artifact(said), "/t/crash-1");
        assert_eq!(artifact(SAID), "(no input)");
    }

    #[test]
    fn target_that_is_not_there_is_refused_and_every_target_is_one_of_the_manifest() {
        let error = chosen(&["no_such".to_owned()]).unwrap_err().to_string();
        assert!(error.contains("no_such") && error.contains("policy"), "{error}");
        assert_eq!(chosen(&["policy".to_owned()]).unwrap(), [("policy".to_owned(), "fuzz")]);
        let all = chosen(&[]).unwrap();
        for project in PROJECTS {
            let manifest = fs::read_to_string(shell::root().join(project).join("Cargo.toml")).unwrap();
            let targets: Vec<_> = all.iter().filter(|(_, of)| *of == project).collect();
            assert!(targets.iter().all(|(target, _)| manifest.contains(&format!("fuzz_targets/{target}.rs"))));
            assert_eq!(manifest.matches("[[bin]]").count(), targets.len());
        }
    }
}
