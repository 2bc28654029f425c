//! What sealing and loading cost beside what bounds them: bare loops, `cp`, a raw stream. Every round measures each once, so
//! that what else the machine does disturbs all alike; ratios are medians of the ratios of the rounds.

use super::super::scenario::World;
use super::peers;
use crate::{Result, shell};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;

/// One row of one round: GB/s (1e9 bytes), and seconds of CPU a GB, of all processes that had a part in it.
#[derive(Clone, Copy)]
pub(super) struct Sample {
    pub(super) rate: f64,
    pub(super) cpu: f64,
}

/// The rows of one round.
type Round = BTreeMap<String, Sample>;

/// Rows in the order in which they are shown.
const ROWS: [&str; 16] = [
    "bare loop",
    "load local",
    "load local, units verified",
    "cp into huge tmpfs",
    "cp into plain tmpfs",
    "raw direct read",
    "load local, direct",
    "raw stream",
    "load over gRPC",
    "load over unix socket",
    "load over gRPC, small pages",
    "bare seal loop",
    "seal",
    peers::OPENSSL,
    peers::AGE,
    peers::GOCRYPTFS,
];

/// Whose rate to the rate of what.
const RATES: [(&str, &str, &str); 10] = [
    ("load_local_vs_bare_loop", "load local", "bare loop"),
    ("load_local_vs_cp", "load local", "cp into huge tmpfs"),
    ("load_local_vs_cp_plain", "load local", "cp into plain tmpfs"),
    ("load_direct_vs_raw_read", "load local, direct", "raw direct read"),
    ("load_grpc_vs_cp", "load over gRPC", "cp into huge tmpfs"),
    ("load_grpc_vs_bare_loop", "load over gRPC", "bare loop"),
    ("seal_vs_bare_loop", "seal", "bare seal loop"),
    ("load_local_vs_openssl", "load local", peers::OPENSSL),
    ("load_local_vs_age", "load local", peers::AGE),
    ("load_local_vs_gocryptfs", "load local", peers::GOCRYPTFS),
];

/// CPU of the parts to the CPU of the whole: a machine that others use disturbs it less than rates.
const CPUS: [(&str, &[&str], &str); 5] = [
    ("load_grpc_vs_parts", &["raw stream", "bare loop"], "load over gRPC"),
    ("load_unix_vs_parts", &["raw stream", "bare loop"], "load over unix socket"),
    ("load_local_vs_bare_loop_cpu", &["bare loop"], "load local"),
    ("load_local_vs_cp_cpu", &["cp into huge tmpfs"], "load local"),
    ("seal_vs_bare_loop_cpu", &["bare seal loop"], "seal"),
];

/// Measures a world with a model that is published and approved, whose plaintext is `source`; on request with what people
/// use instead.
pub(super) fn measure(world: &mut World, source: &Path, rounds: usize, with_peers: bool) -> Result<Value> {
    let mut measured = Vec::new();
    let mut bytes = Value::Null;
    for round in 0..rounds {
        let program = super::super::binary("examples").join("data_path");
        let (huge, plain) = (world.bench_place("huge")?, world.bench_place("plain")?);
        let mut command = Command::new(&program);
        command.arg(source).args([&huge, &plain, &world.bench_place("disk")?]);
        let said: Value = serde_json::from_str(&shell::output(&mut in_memory(&command, &huge, Some(&plain)))?)?;
        bytes = said["bytes"].clone();
        let mut rows = rows_of(&said)?;
        let loads = [
            ("load over gRPC", false, Some(&huge)),
            ("load over unix socket", true, Some(&huge)),
            ("load over gRPC, small pages", false, None),
        ];
        // Each into memory that the host of this machine has not taken back.
        for (number, (what, unix, huge)) in loads.into_iter().enumerate() {
            let mut warm = Command::new(&program);
            warm.arg(source).arg(&plain);
            shell::output(&mut in_memory(&warm, &plain, None))?;
            rows.insert(what.to_owned(), load(world, &format!("load-{round}-{number}"), unix, huge.map(|at| &**at))?);
        }
        if with_peers {
            rows.extend(peers::measure(source, &huge, bytes.as_f64().unwrap_or(f64::NAN))?);
        }
        measured.push(rows);
    }
    Ok(json!({ "bytes": bytes, "runs": rounds, "rows": shown(&measured), "ratios": ratios(&measured) }))
}

/// As a table.
pub(super) fn print(measured: &Value, profile: &str) {
    println!(
        "\n{:<28} {:>8}  {:>8} {:>8} {:>9}   GB/s, CPU s/GB; {} bytes, {} runs, {profile} build",
        "", "median", "least", "most", "CPU", measured["bytes"], measured["runs"]
    );
    for row in measured["rows"].as_array().into_iter().flatten() {
        let [rate, least, most, cpu] =
            ["gb_s", "least", "most", "cpu_s_gb"].map(|field| row[field].as_f64().unwrap_or(f64::NAN));
        println!("{:<28} {rate:>8.2}  {least:>8.2} {most:>8.2} {cpu:>9.3}", row["what"].as_str().unwrap_or("?"));
    }
}

/// A load by a real agent from a real host, into huge pages at `huge` or else into `/dev/shm` as it is.
fn load(world: &mut World, log: &str, unix: bool, huge: Option<&Path>) -> Result<Sample> {
    let before = world.host_cpu_seconds()?;
    let said = match huge {
        Some(huge) => world.load_once(log, unix, Some(&huge.join("opened")), |load| in_memory(&load, huge, None))?,
        None => world.load_once(log, unix, None, |load| load)?,
    };
    let host = world.host_cpu_seconds()? - before;
    let [rate, cpu] = ["GB/s", "CPU"].map(|unit| number_before(&said, "opened", unit));
    let bytes = number_before(&said, "opened", "bytes")?;
    Ok(Sample { rate: rate?, cpu: cpu? + host / (bytes / 1e9) })
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
        let sample = Sample { rate: row["gb_s"].as_f64()?, cpu: row["cpu_s_gb"].as_f64()? };
        Some((row["what"].as_str()?.to_owned(), sample))
    };
    let rows = said["rows"].as_array().into_iter().flatten().map(row).collect::<Option<Round>>();
    rows.ok_or_else(|| format!("a row that is none in {said}").into())
}

fn shown(rounds: &[Round]) -> Vec<Value> {
    let row = |what: &&str| {
        let samples: Vec<Sample> = rounds.iter().filter_map(|rows| rows.get(*what).copied()).collect();
        let rates = sorted(samples.iter().map(|sample| sample.rate));
        let (least, most) = (*rates.first()?, *rates.last()?);
        let cpu = median(samples.iter().map(|sample| sample.cpu))?;
        Some(json!({ "what": what, "gb_s": median(rates)?, "least": least, "most": most, "cpu_s_gb": cpu }))
    };
    ROWS.iter().filter_map(row).collect()
}

fn ratios(rounds: &[Round]) -> Value {
    let rates = RATES.iter().map(|(name, ours, theirs)| {
        let ratio = |rows: &Round| Some(rows.get(*ours)?.rate / rows.get(*theirs)?.rate);
        (*name, median(rounds.iter().filter_map(ratio)))
    });
    let cpus = CPUS.iter().map(|(name, parts, ours)| {
        let cpu = |rows: &Round, what: &str| rows.get(what).map(|sample| sample.cpu);
        let ratio = |rows: &Round| {
            let parts = parts.iter().map(|part| cpu(rows, part)).sum::<Option<f64>>()?;
            Some(parts / cpu(rows, ours)?)
        };
        (*name, median(rounds.iter().filter_map(ratio)))
    });
    let known = rates.chain(cpus).filter_map(|(name, ratio)| Some((name.to_owned(), json!(ratio?))));
    Value::Object(known.collect::<Map<_, _>>())
}

fn median(values: impl IntoIterator<Item = f64>) -> Option<f64> {
    let values = sorted(values);
    values.get(values.len() / 2).copied()
}

fn sorted(values: impl IntoIterator<Item = f64>) -> Vec<f64> {
    let mut values: Vec<f64> = values.into_iter().collect();
    values.sort_by(f64::total_cmp);
    values
}

/// The number before `unit` on the line that begins so.
pub(super) fn number_before(output: &str, begins: &str, unit: &str) -> Result<f64> {
    let line = output.lines().map(str::trim).find(|line| line.starts_with(begins));
    let line = line.ok_or_else(|| format!("no line {begins:?} in:\n{output}"))?;
    let words: Vec<&str> = line.split([' ', ',']).filter(|word| !word.is_empty()).collect();
    let at = words.iter().position(|word| *word == unit).and_then(|at| at.checked_sub(1));
    let number = at.and_then(|at| words.get(at)).ok_or_else(|| format!("no {unit} in {line:?}"))?;
    Ok(number.parse()?)
}

/// CPU of all threads that a process has (proc(5), `schedstat`: nanoseconds on the CPU come first).
pub(in crate::demo) fn cpu_seconds(pid: u32) -> Result<f64> {
    let mut nanoseconds = 0.0;
    for thread in fs::read_dir(format!("/proc/{pid}/task"))? {
        // One that ended meanwhile has no file any more.
        let Ok(stat) = fs::read_to_string(thread?.path().join("schedstat")) else { continue };
        nanoseconds += stat.split_whitespace().next().and_then(|first| first.parse::<f64>().ok()).unwrap_or_default();
    }
    Ok(nanoseconds / 1e9)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_read_from_the_line_that_begins_so() {
        let output = "x\n  sealed:   91.6 MB in 0.1 s, 0.62 GB/s\nopened    13 files, 9 bytes in 0.29 s, 0.32 GB/s, 0.5 CPU s/GB, into /x";
        assert_eq!(number_before(output, "sealed:", "GB/s").unwrap(), 0.62);
        let [rate, cpu, bytes] = ["GB/s", "CPU", "bytes"].map(|unit| number_before(output, "opened", unit).unwrap());
        assert_eq!((rate, cpu, bytes), (0.32, 0.5, 9.0));
        assert!(number_before(output, "uploaded:", "GB/s").is_err());
    }

    #[test]
    fn ratios_are_medians_of_rounds_and_of_what_there_is() {
        let round = |load: f64, cp: f64| {
            let row = |what: &str, rate: f64| (what.to_owned(), Sample { rate, cpu: 1.0 / rate });
            Round::from([row("load local", load), row("cp into huge tmpfs", cp)])
        };
        let rounds = [round(2.0, 1.0), round(6.0, 2.0), round(8.0, 2.0)];
        assert_eq!(ratios(&rounds), json!({ "load_local_vs_cp": 3.0, "load_local_vs_cp_cpu": 3.0 }));
        assert_eq!(ratios(&[]), json!({}));
        let shown = shown(&rounds);
        assert_eq!((&shown[0]["gb_s"], &shown[0]["least"], &shown[0]["most"]), (&json!(6.0), &json!(2.0), &json!(8.0)));
    }

    #[test]
    fn parts_are_added() {
        let row = |what: &str, cpu: f64| (what.to_owned(), Sample { rate: 1.0, cpu });
        let round = Round::from([row("raw stream", 0.3), row("bare loop", 0.3), row("load over gRPC", 1.2)]);
        assert_eq!(ratios(&[round])["load_grpc_vs_parts"], json!(0.5));
    }
}
