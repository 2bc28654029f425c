//! `cargo xtask bench`: what a seal, an upload and an attested load cost beside `cp`, in one run on one machine; what a
//! release costs a keeper; what verifying evidence costs; and, alone, what a long log costs, or many agents at once.

mod fleet;
mod log;
mod verify;

use super::machine::Tier;
use super::scenario::{Findings, World};
use super::{DemoModel, Details};
use crate::{Result, model, setup, shell};
use serde_json::{Value, json};
use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Instant;

/// Arguments of `cargo xtask bench`.
#[derive(clap::Args)]
pub(crate) struct BenchArgs {
    /// Size of the synthetic model.
    #[arg(long, default_value = "1G", value_parser = model::parse_size)]
    size: u64,
    /// Loads, of which the median counts.
    #[arg(long, default_value_t = 5)]
    runs: usize,
    /// A small model and one load: shows that it works, its numbers mean nothing.
    #[arg(long)]
    quick: bool,
    /// Verification of evidence alone: takes no TPM and no model.
    #[arg(long)]
    verify: bool,
    /// A long log alone, of so many entries: takes no model.
    #[arg(long, value_name = "ENTRIES", num_args = 0..=1, default_missing_value = "1000000", conflicts_with = "verify")]
    log: Option<u64>,
    /// So many agents at once alone, which start, renew and restart: takes no model.
    #[arg(long, value_name = "AGENTS", num_args = 0..=1, default_missing_value = "1000", conflicts_with_all = ["verify", "log"])]
    agents: Option<u32>,
    /// Beside it the same by the crate `sev`, which is downloaded and built for that.
    #[arg(long)]
    peers: bool,
    /// Print JSON alone.
    #[arg(long)]
    json: bool,
}

/// Median, least and most of some runs, in GB/s (1e9 bytes).
struct Rate {
    median: f64,
    least: f64,
    most: f64,
}

impl Rate {
    fn of(mut rates: Vec<f64>) -> Result<Self> {
        rates.sort_by(f64::total_cmp);
        let (Some(&least), Some(&most), Some(&median)) = (rates.first(), rates.last(), rates.get(rates.len() / 2))
        else {
            return Err("nothing was measured".into());
        };
        Ok(Self { median, least, most })
    }
}

/// Runs the subcommand.
pub(crate) fn run(args: &BenchArgs) -> Result<()> {
    if let Some(entries) = args.log {
        return long_log(entries, args.json);
    }
    if let Some(agents) = args.agents {
        return many_agents(agents, args.json);
    }
    let verification = verify::measure(args.quick, args.peers)?;
    if args.verify {
        match args.json {
            true => println!("{}", json!({ "verify": verification })),
            false => verify::print(&verification),
        }
        return Ok(());
    }
    let (size, runs) = if args.quick { (32 << 20, 1) } else { (args.size, args.runs.max(1)) };
    setup::system_packages(false)?;
    build()?;
    let releases = if args.quick { RELEASES_QUICK } else { RELEASES };
    let release = release_cost(releases)?;
    let dir = shell::target_dir().join("bench-model");
    model::make(size, &dir)?;
    let bytes: u64 = fs::read_dir(&dir)?.map(|file| Ok(file?.metadata()?.len())).sum::<std::io::Result<u64>>()?;
    let source = DemoModel { dir: dir.clone(), name: "bench".into(), what: "a synthetic model".into() };
    let (mut details, mut findings) = (Details::default(), Findings::default());
    let mut world = World::start(Tier::Tpm, source, None, &mut details)?;
    world.write_policy(&mut details)?;
    world.start_services(&mut details)?;
    world.genesis(&mut details)?;
    world.seal(&mut details, &mut findings)?;
    world.approve(&mut details, &mut findings)?;
    let mut loads = Vec::new();
    let mut copies = Vec::new();
    for run in 0..runs {
        loads.push(rate_in(&world.load_once(&format!("load-{run}"))?, "opened")?);
        copies.push(copy(&dir, bytes)?);
    }
    let seal = world.said("seal")?;
    let rows = [
        ("seal", Rate::of(vec![rate_in(&seal, "sealed:")?])?),
        ("upload", Rate::of(vec![rate_in(&seal, "uploaded:")?])?),
        ("load over gRPC into tmpfs", Rate::of(loads)?),
        ("cp into the same tmpfs", Rate::of(copies)?),
    ];
    world.end()?;
    print(args, bytes, runs, &rows, &release, &verification);
    Ok(())
}

fn long_log(entries: u64, as_json: bool) -> Result<()> {
    setup::system_packages(false)?;
    build()?;
    let measured = log::measure(entries)?;
    match as_json {
        true => println!("{}", json!({ "log": measured })),
        false => log::print(&measured, profile()),
    }
    Ok(())
}

fn many_agents(agents: u32, as_json: bool) -> Result<()> {
    setup::system_packages(false)?;
    build()?;
    let measured = fleet::measure(agents)?;
    match as_json {
        true => println!("{}", json!({ "agents": measured })),
        false => fleet::print(&measured, profile()),
    }
    Ok(())
}

fn profile() -> &'static str {
    if cfg!(debug_assertions) { "dev" } else { "release" }
}

const RELEASES: u32 = 200;
const RELEASES_QUICK: u32 = 5;
/// What a release may cost a keeper, apart from the thread that talks to the TPM.
const RELEASE_CPU_MS_MAX: f64 = 3.0;

/// In the profile of this program, which runs what lies beside it.
fn build() -> Result<()> {
    if cfg!(debug_assertions) {
        return shell::run(shell::cargo().args(["build", "--workspace", "--bins", "--lib", "--tests", "--examples"]));
    }
    shell::run(shell::cargo().args(["build", "--release", "--workspace", "--bins", "--examples"]))
}

/// Releases by a real keeper on a software TPM to guests one after the other; what the keeper's threads spent, and what
/// the parts of a release take that have to do with keys, as JSON.
fn release_cost(releases: u32) -> Result<Value> {
    let measure = |program: &str| -> Result<Value> {
        let program = super::binary("examples").join(program);
        Ok(serde_json::from_str(&shell::output(Command::new(program).arg(releases.to_string()))?)?)
    };
    let mut release = measure("release_cost")?;
    release["parts"] = measure("release_parts")?["rows"].take();
    Ok(release)
}

/// Everything that has a goal, as a share of it or of what was measured beside it in the same run.
fn ratios(load: &Rate, seal: &Rate, copy: &Rate, release: &Value, verification: &Value) -> Value {
    let cpu = release["keeper_cpu_ms"].as_f64().map(|cpu| cpu / RELEASE_CPU_MS_MAX);
    let mut ratios = json!({
        "load_grpc_vs_cp": load.median / copy.median,
        "seal_vs_cp": seal.median / copy.median,
        "release_cpu_vs_max": cpu,
    });
    if let (Some(ratios), Some(verification)) = (ratios.as_object_mut(), verification["ratios"].as_object()) {
        ratios.extend(verification.clone());
    }
    ratios
}

fn print(args: &BenchArgs, bytes: u64, runs: usize, rows: &[(&str, Rate); 4], release: &Value, verification: &Value) {
    let [(_, seal), _, (_, load), (_, copy)] = rows;
    let profile = profile();
    let ratios = ratios(load, seal, copy, release, verification);
    if args.json {
        let rows: Vec<_> = rows
            .iter()
            .map(|(what, rate)| json!({ "what": what, "gb_s": rate.median, "least": rate.least, "most": rate.most }))
            .collect();
        let report = json!({
            "bytes": bytes, "runs": runs, "profile": profile, "rows": rows, "ratios": ratios, "release": release,
            "verify": verification,
        });
        println!("{report}");
        return;
    }
    println!(
        "\n{:<28} {:>8}  {:>8} {:>8}   GB/s, {bytes} bytes, {runs} runs, {profile} build",
        "", "median", "least", "most"
    );
    for (what, rate) in rows {
        println!("{what:<28} {:>8.2}  {:>8.2} {:>8.2}", rate.median, rate.least, rate.most);
    }
    println!("ratios: {ratios}");
    let [cpu, tpm] = ["keeper_cpu_ms", "tpm_thread_cpu_ms"].map(|field| release[field].as_f64().unwrap_or(f64::NAN));
    println!(
        "a release costs the keeper {cpu:.2} ms of CPU (at most {RELEASE_CPU_MS_MAX} in a release build), and {tpm:.2} ms on its TPM \
         thread; mean of {}",
        release["releases"]
    );
    verify::print_rows(&release["parts"], &format!("µs, one thread, {profile} build"));
    verify::print(verification);
}

/// The number before `GB/s` on the line that begins so.
fn rate_in(output: &str, begins: &str) -> Result<f64> {
    let line = output.lines().map(str::trim).find(|line| line.starts_with(begins));
    let line = line.ok_or_else(|| format!("no line {begins:?} in:\n{output}"))?;
    let words: Vec<&str> = line.split([' ', ',']).filter(|word| !word.is_empty()).collect();
    let at = words.iter().position(|word| *word == "GB/s").and_then(|at| at.checked_sub(1));
    let rate = at.and_then(|at| words.get(at)).ok_or_else(|| format!("no rate in {line:?}"))?;
    Ok(rate.parse()?)
}

/// `cp` of the source into memory that was never touched.
fn copy(source: &Path, bytes: u64) -> Result<f64> {
    let to = format!("/dev/shm/weightvault-bench-{}", std::process::id());
    let start = Instant::now();
    shell::output(Command::new("cp").arg("-r").arg(source).arg(&to))?;
    let time = start.elapsed().as_secs_f64();
    fs::remove_dir_all(&to)?;
    // A rate for people: a double holds the bytes of any model here exactly.
    #[expect(clippy::cast_precision_loss, reason = "below 2^53")]
    let bytes = bytes as f64;
    Ok(bytes / 1e9 / time)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rate_is_read_from_the_line_that_begins_so() {
        let output =
            "x\n  sealed:   91.6 MB in 0.1 s, 0.62 GB/s\nopened    13 files, 9 bytes in 0.29 s, 0.32 GB/s, into /x";
        assert_eq!(rate_in(output, "sealed:").unwrap(), 0.62);
        assert_eq!(rate_in(output, "opened").unwrap(), 0.32);
        assert!(rate_in(output, "uploaded:").is_err());
    }

    #[test]
    fn median_is_the_one_in_the_middle() {
        let rate = Rate::of(vec![3.0, 1.0, 2.0]).unwrap();
        assert_eq!((rate.median, rate.least, rate.most), (2.0, 1.0, 3.0));
        assert!(Rate::of(Vec::new()).is_err());
    }
}
