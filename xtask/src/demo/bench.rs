//! `cargo xtask bench`: what a seal, an upload and an attested load cost beside `cp`, in one run on one machine; what a
//! release costs a keeper; what verifying evidence costs; and, alone, what a long log costs, or many agents at once.

pub(super) mod data;
mod fleet;
mod log;
mod peers;
mod verify;

use super::machine::Tier;
use super::scenario::{Findings, World};
use super::{DemoModel, Details};
use crate::{Result, model, setup, shell};
use serde_json::{Value, json};
use std::process::Command;

/// Arguments of `cargo xtask bench`.
#[derive(clap::Args)]
pub(crate) struct BenchArgs {
    /// Size of the synthetic model.
    #[arg(long, default_value = "1G", value_parser = model::parse_size)]
    size: u64,
    /// Rounds, of which the median counts.
    #[arg(long, default_value_t = 5)]
    runs: usize,
    /// A small model and one load: shows that it works, its numbers mean nothing.
    #[arg(long)]
    quick: bool,
    /// Sealing and loading alone.
    #[arg(long, conflicts_with_all = ["verify", "log"])]
    data: bool,
    /// Verification of evidence alone: takes no TPM and no model.
    #[arg(long)]
    verify: bool,
    /// A long log alone, of so many entries: takes no model.
    #[arg(long, value_name = "ENTRIES", num_args = 0..=1, default_missing_value = "1000000", conflicts_with = "verify")]
    log: Option<u64>,
    /// So many agents at once alone, which start, renew and restart: takes no model.
    #[arg(long, value_name = "AGENTS", num_args = 0..=1, default_missing_value = "1000", conflicts_with_all = ["verify", "log"])]
    agents: Option<u32>,
    /// Beside it what others use: openssl, age and gocryptfs as far as they are installed, and to verify evidence the crate
    /// `sev`, which is downloaded and built for that.
    #[arg(long)]
    peers: bool,
    /// Print JSON alone.
    #[arg(long)]
    json: bool,
}

/// Runs the subcommand.
pub(crate) fn run(args: &BenchArgs) -> Result<()> {
    if let Some(entries) = args.log {
        return long_log(entries, args.json);
    }
    if let Some(agents) = args.agents {
        return many_agents(agents, args.json);
    }
    if args.data {
        let data = data_path(args)?;
        match args.json {
            true => println!("{}", json!({ "profile": profile(), "data": data })),
            false => print_data(&data),
        }
        return Ok(());
    }
    let verification = verify::measure(args.quick, args.peers)?;
    if args.verify {
        match args.json {
            true => println!("{}", json!({ "verify": verification })),
            false => verify::print(&verification),
        }
        return Ok(());
    }
    let data = data_path(args)?;
    build()?;
    let release = release_cost(if args.quick { RELEASES_QUICK } else { RELEASES })?;
    print(args, &data, &release, &verification);
    Ok(())
}

/// Seals, publishes and loads a synthetic model in a vault of its own.
fn data_path(args: &BenchArgs) -> Result<Value> {
    let (size, rounds) = if args.quick { (32 << 20, 1) } else { (args.size, args.runs.max(1)) };
    setup::system_packages(false)?;
    build_data_path()?;
    let dir = shell::target_dir().join("bench-model");
    model::make(size, &dir)?;
    let source = DemoModel { dir: dir.clone(), name: "bench".into(), what: "a synthetic model".into() };
    let (mut details, mut findings) = (Details::default(), Findings::default());
    let mut world = World::start(Tier::Tpm, source, None, &mut details)?;
    // As the bare loop: hashing has a row of its own.
    world.write_policy(false, &mut details)?;
    world.start_services(&mut details)?;
    world.genesis(&mut details)?;
    world.seal(&mut details, &mut findings)?;
    world.approve(&mut details, &mut findings)?;
    let mut measured = data::measure(&mut world, &dir, rounds, args.peers)?;
    measured["upload_gb_s"] = json!(data::number_before(&world.said("seal")?, "uploaded:", "GB/s")?);
    world.end()?;
    Ok(measured)
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

/// What the data path takes, of the same.
fn build_data_path() -> Result<()> {
    if cfg!(debug_assertions) {
        return build();
    }
    let packages = ["--package=vault-enclave", "--package=vault-host", "--package=vaultctl"];
    shell::run(shell::cargo().args(["build", "--release", "--bins", "--example=data_path"]).args(packages))
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
fn ratios(data: &Value, release: &Value, verification: &Value) -> Value {
    let cpu = release["keeper_cpu_ms"].as_f64().map(|cpu| cpu / RELEASE_CPU_MS_MAX);
    let mut ratios = serde_json::Map::from_iter([("release_cpu_vs_max".to_owned(), json!(cpu))]);
    for more in [&data["ratios"], &verification["ratios"]] {
        ratios.extend(more.as_object().cloned().unwrap_or_default());
    }
    Value::Object(ratios)
}

fn print(args: &BenchArgs, data: &Value, release: &Value, verification: &Value) {
    let profile = profile();
    let ratios = ratios(data, release, verification);
    if args.json {
        let report = json!({
            "profile": profile, "ratios": ratios, "data": data, "release": release, "verify": verification,
        });
        println!("{report}");
        return;
    }
    print_data(data);
    let [cpu, tpm] = ["keeper_cpu_ms", "tpm_thread_cpu_ms"].map(|field| release[field].as_f64().unwrap_or(f64::NAN));
    println!(
        "\na release costs the keeper {cpu:.2} ms of CPU (at most {RELEASE_CPU_MS_MAX} in a release build), and {tpm:.2} ms on its TPM \
         thread; mean of {}",
        release["releases"]
    );
    verify::print_rows(&release["parts"], &format!("µs, one thread, {profile} build"));
    verify::print(verification);
    println!("\nall ratios: {ratios}");
}

fn print_data(data: &Value) {
    data::print(data, profile());
    println!("upload, once: {:.2} GB/s", data["upload_gb_s"].as_f64().unwrap_or(f64::NAN));
    println!("ratios: {}", data["ratios"]);
}
