//! What sealing and loading cost beside what bounds them: bare loops, `cp`, raw streams, a disk; beside what people use instead;
//! by how many load at once, and by the size of the model.

use super::loads::{self, Places, number_before};
use super::peers::Peers;
use super::rows::{self, Round, Sample};
use super::{BenchArgs, sources};
use crate::demo::machine::Tier;
use crate::demo::scenario::{Findings, World};
use crate::demo::{DemoModel, Details};
use crate::{Result, model, shell};
use serde_json::{Map, Value, json};
use std::path::{Path, PathBuf};
use std::process::Command;

/// Sizes of a quick run.
const QUICK_BYTES: u64 = 32 << 20;
const QUICK_SIZES: [u64; 2] = [8 << 20, 16 << 20];
const QUICK_CLIENTS: [u64; 2] = [1, 2];

/// What is measured.
struct Plan<'a> {
    bytes: u64,
    rounds: usize,
    clients: &'a [u64],
    sizes: &'a [u64],
    peers: Option<Peers<'a>>,
    /// Loads alone, whose rows have one of these in their names.
    loads: &'a [String],
}

/// Seals, publishes and loads synthetic models in vaults of their own.
pub(super) fn measure(args: &BenchArgs) -> Result<Value> {
    let peers = args.peers.then_some(Peers { tensorizer: args.tensorizer.as_deref() });
    let (bytes, rounds, loads) = (args.size, args.runs.max(1), &args.loads);
    let plan = match args.quick {
        true => Plan { bytes: QUICK_BYTES, rounds: 1, clients: &QUICK_CLIENTS, sizes: &QUICK_SIZES, peers, loads },
        false if loads.is_empty() => Plan { bytes, rounds, clients: &args.clients, sizes: &args.sizes, peers, loads },
        false => Plan { bytes, rounds, clients: &[], sizes: &args.sizes, peers, loads },
    };
    plan.peers.as_ref().map_or(Ok(()), Peers::check)?;
    let mut measured = plan.measure()?;
    let sizes = plan.sizes.iter().map(|bytes| size(*bytes, plan.rounds)).collect::<Result<Vec<_>>>()?;
    if let Some(ratios) = measured["ratios"].as_object_mut() {
        ratios.extend(linear(&sizes));
    }
    measured["sizes"] = json!(sizes);
    Ok(measured)
}

impl Plan<'_> {
    fn measure(&self) -> Result<Value> {
        let (mut world, source) = world(self.bytes)?;
        let mut left_out = Vec::new();
        let mut bytes = model_bytes(&source)?;
        let servers = match self.loads {
            [] => sources::start(&mut world, &mut left_out)?,
            _ => Vec::new(),
        };
        let (huge, plain) = (world.bench_place("huge")?, world.bench_place("plain")?);
        let mut rounds = Vec::new();
        for round in 0..self.rounds {
            note(&format!("round {} of {}", round + 1, self.rounds));
            let mut rows = Round::new();
            if self.loads.is_empty() {
                note("bare loops, local loads, cp, raw streams");
                let mut command = data_path();
                command.arg(&source).args([&huge, &plain, &world.bench_place("disk")?]);
                let said: Value = serde_json::from_str(&shell::output(&mut in_memory(&command, &huge, Some(&plain)))?)?;
                bytes = said["bytes"].as_u64().ok_or("a measurement of no bytes")?;
                rows = rows_of(&said)?;
            }
            let places = Places { huge: &huge, plain: &plain, bytes };
            rows.extend(loads::rows(&mut world, &places, &servers, self.loads)?);
            if let Some(peers) = &self.peers {
                rows.extend(peers.measure(&source, &huge, bytes as f64, &mut left_out)?);
            }
            rounds.push(rows);
        }
        let places = Places { huge: &huge, plain: &plain, bytes };
        let mut clients = Vec::new();
        for &count in self.clients {
            match loads::have_room(bytes, count)? {
                true => clients.push(loads::at_once(&mut world, &places, count)?),
                false => left_out.push(format!("{count} clients: memory has no room for so many models of this size")),
            }
        }
        let mut ratios = rows::ratios(&rounds);
        ratios.extend(loads::host_ratio(&clients).map(|ratio| ("host_memory_vs_max".to_owned(), ratio)));
        left_out.sort();
        left_out.dedup();
        let upload = number_before(&world.said("seal")?, "uploaded:", "GB/s")?;
        world.end()?;
        Ok(json!({
            "bytes": bytes, "runs": self.rounds, "rows": rows::shown(&rounds), "clients": clients, "ratios": ratios,
            "left_out": left_out, "upload_gb_s": upload,
        }))
    }
}

/// What a GB costs in a model of this size.
fn size(bytes: u64, rounds: usize) -> Result<Value> {
    let (mut world, source) = world(bytes)?;
    let (huge, plain) = (world.bench_place("huge")?, world.bench_place("plain")?);
    let places = Places { huge: &huge, plain: &plain, bytes: model_bytes(&source)? };
    let local = ["--source".to_owned(), sources::directory(&world)?.display().to_string()];
    let mut samples = Vec::new();
    let mut host = super::process::Watch::of(world.host_pid()?);
    for _ in 0..rounds {
        let grpc = loads::one(&mut world, &places, rows::GRPC, &[], Some(&huge), None)?;
        host.look();
        let local = loads::one(&mut world, &places, rows::DIRECTORY, &local, Some(&huge), None)?;
        samples.push((grpc, local));
    }
    let sealed = world.said("seal")?;
    world.end()?;
    let of = |value: fn(&(Sample, Sample)) -> f64| rows::median(samples.iter().map(value));
    let agent = of(|(grpc, local)| {
        [grpc, local].iter().filter_map(|sample| sample.load).map(|load| load.agent_mib).fold(0.0, f64::max)
    });
    Ok(json!({
        "bytes": places.bytes, "agent_mib": agent, "host_peak_mib": host.most.peak,
        "seal_s_gb": 1.0 / number_before(&sealed, "sealed:", "GB/s")?,
        "load_grpc_s_gb": of(|(grpc, _)| 1.0 / grpc.rate), "load_grpc_cpu_s_gb": of(|(grpc, _)| grpc.cpu),
        "load_directory_s_gb": of(|(_, local)| 1.0 / local.rate), "load_directory_cpu_s_gb": of(|(_, local)| local.cpu),
    }))
}

/// What a GB costs in the largest model to what it costs in the smallest: 1 where cost is linear.
fn linear(sizes: &[Value]) -> Map<String, Value> {
    let by_size = |row: &&Value| row["bytes"].as_u64();
    let (least, most) = (sizes.iter().min_by_key(by_size), sizes.iter().max_by_key(by_size));
    let ratio = |field: &str| Some(json!(most?[field].as_f64()? / least?[field].as_f64()?));
    let fields = ["seal_s_gb", "load_grpc_cpu_s_gb", "load_directory_cpu_s_gb", "agent_mib", "host_peak_mib"];
    let known = fields.map(|field| Some((format!("linear_{field}"), ratio(field)?)));
    if sizes.len() < 2 { Map::new() } else { known.into_iter().flatten().collect() }
}

/// A vault with a model of this size that is published and approved, and its plaintext.
fn world(bytes: u64) -> Result<(World, PathBuf)> {
    note(&format!("a vault and a model of {:.2} GB: made, sealed, published", bytes as f64 / 1e9));
    // A model is made once for each size.
    let dir = shell::target_dir().join(format!("bench-model-{bytes}"));
    model::make(bytes, &dir)?;
    let source = DemoModel { dir: dir.clone(), name: "bench".into(), what: "a synthetic model".into() };
    let (mut details, mut findings) = (Details::default(), Findings::default());
    let mut world = World::start(Tier::Tpm, source, None, &mut details)?;
    // As the bare loop: hashing has a row of its own.
    world.write_policy(false, &mut details)?;
    world.start_services(&mut details)?;
    world.genesis(&mut details)?;
    world.seal(&mut details, &mut findings)?;
    world.approve(&mut details, &mut findings)?;
    Ok((world, dir))
}

fn model_bytes(source: &Path) -> Result<u64> {
    let mut bytes = 0;
    for entry in std::fs::read_dir(source)? {
        bytes += entry?.metadata()?.len();
    }
    Ok(bytes)
}

/// Said while it goes on; the result is on the other output.
pub(super) fn note(what: &str) {
    eprintln!("bench: {what}");
}

/// The program that measures what needs no vault.
pub(super) fn data_path() -> Command {
    Command::new(crate::demo::binary("examples").join("data_path"))
}

/// The same command where memory is mounted at `huge`, of huge pages, and at `plain`: in a mount namespace of its own, which
/// ends with it.
pub(super) fn in_memory(command: &Command, huge: &Path, plain: Option<&Path>) -> Command {
    const MOUNT: &str = "mount -t tmpfs -o mode=0700,size=90%,huge=within_size weightvault \"$1\" && \
        { [ \"$1\" = \"$2\" ] || mount -t tmpfs -o mode=0700,size=90%,huge=never weightvault \"$2\"; } && shift 2 && exec \"$@\"";
    let mut inside = Command::new("unshare");
    inside.args(["--mount", "--propagation", "private"]);
    if !shell::is_root() {
        inside.arg("--map-root-user");
    }
    inside.args(["sh", "-c", MOUNT, "sh"]).args([huge, plain.unwrap_or(huge)]);
    inside.arg(command.get_program()).args(command.get_args());
    inside
}

fn rows_of(said: &Value) -> Result<Round> {
    let row = |row: &Value| {
        let sample = Sample { rate: row["gb_s"].as_f64()?, cpu: row["cpu_s_gb"].as_f64()?, load: None };
        Some((row["what"].as_str()?.to_owned(), sample))
    };
    let rows = said["rows"].as_array().into_iter().flatten().map(row).collect::<Option<Round>>();
    rows.ok_or_else(|| format!("a row that is none in {said}").into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn linear_is_one_where_a_gb_costs_the_same() {
        let row = |bytes: u64, seal: f64| json!({ "bytes": bytes, "seal_s_gb": seal, "agent_mib": 40.0 });
        let sizes = [row(4, 0.5), row(1, 0.4)];
        assert_eq!(Value::Object(linear(&sizes)), json!({ "linear_seal_s_gb": 1.25, "linear_agent_mib": 1.0 }));
        assert!(linear(&sizes[..1]).is_empty() && linear(&[]).is_empty());
    }

    #[test]
    fn rows_of_the_program_are_read_whole_or_not_at_all() {
        let good = json!({ "rows": [{ "what": "seal", "gb_s": 1.0, "cpu_s_gb": 2.0 }] });
        assert_eq!(rows_of(&good).unwrap()["seal"].cpu, 2.0);
        assert!(rows_of(&json!({ "rows": [{ "what": "seal" }] })).is_err());
    }
}
