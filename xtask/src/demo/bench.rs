//! `cargo xtask bench`: what a seal, an upload and attested loads cost beside what bounds them, in one run on one machine; what a
//! release costs a keeper; what verifying evidence costs; and, alone, what a long log costs, many agents at once, or how many
//! instructions hot functions take.

mod data;
mod fleet;
mod instructions;
mod loads;
mod log;
mod peers;
mod plot;
mod process;
mod rows;
mod show;
mod sources;
mod verify;

use crate::{Result, model, setup, shell};
use serde_json::{Value, json};
use std::path::PathBuf;
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
    /// Loads by an agent alone, those of these names, as in `gRPC,unix`: to compare two builds within minutes.
    #[arg(long, value_name = "LIST", value_delimiter = ',', requires = "data")]
    loads: Vec<String>,
    /// Verification of evidence alone: takes no TPM and no model.
    #[arg(long)]
    verify: bool,
    /// A long log alone, of so many entries: takes no model.
    #[arg(long, value_name = "ENTRIES", num_args = 0..=1, default_missing_value = "1000000", conflicts_with = "verify")]
    log: Option<u64>,
    /// So many agents at once alone, which start, renew and restart: takes no model.
    #[arg(long, value_name = "AGENTS", num_args = 0..=1, default_missing_value = "1000", conflicts_with_all = ["verify", "log"])]
    agents: Option<u32>,
    /// How many agents load at once from one host; as many models must fit into half of the free memory.
    #[arg(long, value_name = "LIST", value_delimiter = ',', default_value = "1,2,4,8")]
    clients: Vec<u64>,
    /// Models of these sizes besides, each in a vault of its own: whether cost is linear, as in 256M,1G,4G.
    #[arg(long, value_name = "LIST", value_delimiter = ',', value_parser = model::parse_size)]
    sizes: Vec<u64>,
    /// Draw what sealing and loading cost into this file, as SVG.
    #[arg(long, value_name = "FILE")]
    plot: Option<PathBuf>,
    /// Beside it what others use: openssl, age, gocryptfs and LUKS as far as they are here, and to verify evidence the crate
    /// `sev`, which is downloaded and built for that.
    #[arg(long)]
    peers: bool,
    /// A Python that has torch, safetensors and tensorizer, for `--peers`.
    #[arg(long, value_name = "PYTHON", env = "WEIGHTVAULT_TENSORIZER_PYTHON")]
    tensorizer: Option<PathBuf>,
    /// Instructions of hot functions alone, by callgrind: fails where they are more than recorded.
    #[arg(long, conflicts_with_all = ["data", "verify", "log", "agents"])]
    instructions: bool,
    /// Record them as they are now.
    #[arg(long, requires = "instructions")]
    record: bool,
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
    if args.instructions {
        return instructions::run(args.record, args.quick, args.json);
    }
    if args.data {
        let data = data_path(args)?;
        match args.json {
            true => println!("{}", json!({ "profile": profile(), "data": data })),
            false => show::print(&data, profile()),
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

fn data_path(args: &BenchArgs) -> Result<Value> {
    setup::system_packages(false)?;
    build_data_path()?;
    let measured = data::measure(args)?;
    if let Some(file) = &args.plot {
        plot::write(&measured, profile(), file)?;
    }
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
        // As the tests are built: nothing of it twice.
        let targets = ["--bins", "--lib", "--tests", "--example=data_path"];
        return shell::run(shell::cargo().args(["build", "--workspace"]).args(targets));
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
    show::print(data, profile);
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
