//! Rows of a measurement and the ratios between them. Every round measures each row once, so that what else the machine does
//! disturbs all alike; ratios are medians of the ratios of the rounds.

use super::peers;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

pub(super) const GRPC: &str = "load over gRPC";
pub(super) const UNIX: &str = "load over unix socket";
pub(super) const TLS: &str = "load over gRPC with TLS";
pub(super) const SMALL: &str = "load over gRPC, small pages";
pub(super) const GROUP: &str = "load of one group";
pub(super) const RANK: &str = "load of rank 0 of 4";
pub(super) const DIRECTORY: &str = "load from a directory";
pub(super) const HTTP: &str = "load from http";
pub(super) const S3: &str = "load from s3";
pub(super) const CACHE_COLD: &str = "load, cache empty";
pub(super) const CACHE_WARM: &str = "load, cache full";

pub(super) const RUN: &str = "load by run, for a program";

/// Loads by a real agent, to its first tensor and with its memory.
pub(super) const LOADS: [&str; 12] =
    [GRPC, UNIX, TLS, SMALL, GROUP, RANK, DIRECTORY, RUN, HTTP, S3, CACHE_COLD, CACHE_WARM];

/// Rows in the order in which they are shown, before those of [`LOADS`] and of [`peers::ALL`].
const BARE: [&str; 11] = [
    "bare loop",
    "load local",
    "load local, units verified",
    "cp into huge tmpfs",
    "cp into plain tmpfs",
    "raw direct read",
    "load local, direct",
    "raw stream",
    "raw TLS stream",
    "bare seal loop",
    "seal",
];

/// Whose rate to the rate of what.
const RATES: [(&str, &str, &str); 9] = [
    ("load_local_vs_bare_loop", "load local", "bare loop"),
    ("load_local_vs_cp", "load local", "cp into huge tmpfs"),
    ("load_local_vs_cp_plain", "load local", "cp into plain tmpfs"),
    ("load_direct_vs_raw_read", "load local, direct", "raw direct read"),
    ("load_grpc_vs_cp", GRPC, "cp into huge tmpfs"),
    ("load_grpc_vs_bare_loop", GRPC, "bare loop"),
    ("load_tls_vs_raw_tls", TLS, "raw TLS stream"),
    ("load_cache_vs_grpc", CACHE_WARM, GRPC),
    ("seal_vs_bare_loop", "seal", "bare seal loop"),
];

/// CPU of the parts to the CPU of the whole: a machine that others use disturbs it less than rates.
const CPUS: [(&str, &[&str], &str); 6] = [
    ("load_grpc_vs_parts", &["raw stream", "bare loop"], GRPC),
    ("load_unix_vs_parts", &["raw stream", "bare loop"], UNIX),
    ("load_tls_vs_parts", &["raw TLS stream", "bare loop"], TLS),
    ("load_local_vs_bare_loop_cpu", &["bare loop"], "load local"),
    ("load_local_vs_cp_cpu", &["cp into huge tmpfs"], "load local"),
    ("seal_vs_bare_loop_cpu", &["bare seal loop"], "seal"),
];

/// What an agent's memory may come to beyond the weights, in MiB. What requests at once may take besides is not added.
const AGENT_MIB_MAX: f64 = 64.0;

/// One row of one round.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Sample {
    /// GB/s (1e9 bytes).
    pub(super) rate: f64,
    /// Seconds of CPU a GB, of all processes that had a part in it.
    pub(super) cpu: f64,
    /// Where an agent loaded.
    pub(super) load: Option<Load>,
}

/// What else a load by an agent shows.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Load {
    /// Plaintext.
    pub(super) bytes: f64,
    /// Until it had its keys, in seconds since it started.
    pub(super) keys_s: f64,
    /// Until the first tensor can be read.
    pub(super) first_s: f64,
    /// From the start of the command until it says that files are there, or until a program that it started has read one.
    pub(super) whole_s: f64,
    /// Memory beyond the weights.
    pub(super) agent_mib: f64,
}

/// The rows of one round.
pub(super) type Round = BTreeMap<String, Sample>;

/// Medians and spread of each row, in the order in which they are shown.
pub(super) fn shown(rounds: &[Round]) -> Vec<Value> {
    let row = |what: &&str| {
        let samples: Vec<Sample> = rounds.iter().filter_map(|rows| rows.get(*what).copied()).collect();
        let of = |value: fn(&Sample) -> f64| median(samples.iter().map(value));
        let rates = sorted(samples.iter().map(|sample| sample.rate));
        let (least, most) = (*rates.first()?, *rates.last()?);
        let mut row = json!({
            "what": what, "gb_s": median(rates)?, "least": least, "most": most, "cpu_s_gb": of(|sample| sample.cpu)?,
        });
        let loads: Vec<Load> = samples.iter().filter_map(|sample| sample.load).collect();
        let of = |value: fn(&Load) -> f64| median(loads.iter().map(value));
        for (name, value) in [
            ("bytes", of(|load| load.bytes)),
            ("keys_s", of(|load| load.keys_s)),
            ("first_tensor_s", of(|load| load.first_s)),
            ("agent_mib", of(|load| load.agent_mib)),
        ] {
            if let Some(value) = value {
                row[name] = json!(value);
            }
        }
        Some(row)
    };
    BARE.iter().chain(&LOADS).chain(&peers::ALL.map(|peer| peer.what)).filter_map(row).collect()
}

/// Of the rows there are.
pub(super) fn ratios(rounds: &[Round]) -> Map<String, Value> {
    let peers = peers::ALL.iter().flat_map(|peer| {
        [("local", "load local"), ("grpc", GRPC)]
            .map(|(ours, row)| (format!("load_{ours}_vs_{}", peer.name), row, peer.what))
    });
    let all = RATES.iter().map(|(name, ours, theirs)| ((*name).to_owned(), *ours, *theirs)).chain(peers);
    let rates = all.map(|(name, ours, theirs)| {
        let ratio = |rows: &Round| Some(rows.get(ours)?.rate / rows.get(theirs)?.rate);
        (name, median(rounds.iter().filter_map(ratio)))
    });
    let cpus = CPUS.iter().map(|(name, parts, ours)| {
        let cpu = |rows: &Round, what: &str| rows.get(what).map(|sample| sample.cpu);
        let ratio = |rows: &Round| {
            let parts = parts.iter().map(|part| cpu(rows, part)).sum::<Option<f64>>()?;
            Some(parts / cpu(rows, ours)?)
        };
        ((*name).to_owned(), median(rounds.iter().filter_map(ratio)))
    });
    let loads = rounds.iter().flat_map(|rows| rows.values().filter_map(|sample| sample.load));
    let agent = loads.map(|load| load.agent_mib / AGENT_MIB_MAX).reduce(f64::max);
    let run = median(rounds.iter().filter_map(|rows| {
        let seconds = |what: &str| rows.get(what)?.load.map(|load| load.whole_s);
        Some(seconds(RUN)? / seconds(DIRECTORY)?)
    }));
    let known =
        rates.chain(cpus).chain([("agent_memory_vs_max".to_owned(), agent), ("run_time_vs_load".to_owned(), run)]);
    known.filter_map(|(name, ratio)| Some((name, json!(ratio?)))).collect()
}

pub(super) fn median(values: impl IntoIterator<Item = f64>) -> Option<f64> {
    let values = sorted(values);
    values.get(values.len() / 2).copied()
}

fn sorted(values: impl IntoIterator<Item = f64>) -> Vec<f64> {
    let mut values: Vec<f64> = values.into_iter().collect();
    values.sort_by(f64::total_cmp);
    values
}

#[cfg(test)]
mod tests {
    use super::*;

    fn round(rows: &[(&str, f64, f64)]) -> Round {
        let row =
            |(what, rate, cpu): &(&str, f64, f64)| ((*what).to_owned(), Sample { rate: *rate, cpu: *cpu, load: None });
        rows.iter().map(row).collect()
    }

    #[test]
    fn ratios_are_medians_of_rounds_and_of_what_there_is() {
        let rounds = [(2.0, 1.0), (6.0, 2.0), (8.0, 2.0)].map(|(load, cp): (f64, f64)| {
            round(&[("load local", load, 1.0 / load), ("cp into huge tmpfs", cp, 1.0 / cp)])
        });
        let expected = json!({ "load_local_vs_cp": 3.0, "load_local_vs_cp_cpu": 3.0 });
        assert_eq!(Value::Object(ratios(&rounds)), expected);
        assert!(ratios(&[]).is_empty());
        let shown = shown(&rounds);
        assert_eq!((&shown[0]["gb_s"], &shown[0]["least"], &shown[0]["most"]), (&json!(6.0), &json!(2.0), &json!(8.0)));
        assert_eq!(shown[0].get("keys_s"), None);
    }

    #[test]
    fn parts_are_added() {
        let rounds = [round(&[("raw stream", 1.0, 0.3), ("bare loop", 1.0, 0.3), (GRPC, 1.0, 1.2)])];
        assert_eq!(ratios(&rounds)["load_grpc_vs_parts"], json!(0.5));
        let rounds = [round(&[("raw TLS stream", 1.0, 0.6), ("bare loop", 1.0, 0.3), (TLS, 1.0, 1.2)])];
        assert_eq!(ratios(&rounds)["load_tls_vs_parts"], json!(0.9 / 1.2));
    }

    #[test]
    fn each_peer_has_a_ratio_to_both_ways() {
        let rounds = [round(&[("load local", 8.0, 0.0), (GRPC, 4.0, 0.0), (peers::AGE.what, 2.0, 0.0)])];
        assert_eq!(
            (&ratios(&rounds)["load_local_vs_age"], &ratios(&rounds)["load_grpc_vs_age"]),
            (&json!(4.0), &json!(2.0))
        );
    }

    #[test]
    fn a_run_is_held_to_a_load_from_start_to_end() {
        let load = |whole_s: f64| Load { whole_s, ..Load::default() };
        let sample = |load: Load| Sample { load: Some(load), ..Sample::default() };
        let rows = Round::from([(RUN.to_owned(), sample(load(3.0))), (DIRECTORY.to_owned(), sample(load(2.0)))]);
        assert_eq!(ratios(&[rows])["run_time_vs_load"], json!(1.5));
    }

    #[test]
    fn the_most_memory_of_any_load_counts() {
        let row = |agent_mib| Sample { load: Some(Load { agent_mib, ..Load::default() }), ..Sample::default() };
        let rounds = [Round::from([(GRPC.to_owned(), row(16.0)), (S3.to_owned(), row(32.0))])];
        assert_eq!(ratios(&rounds)["agent_memory_vs_max"], json!(0.5));
        assert_eq!(shown(&rounds)[0]["agent_mib"], json!(16.0));
    }
}
