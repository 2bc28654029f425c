//! What a long log costs: the fold, the audit, a keeper's start with and without its snapshot, a proof.

use crate::{Result, shell};
use serde_json::{Value, json};
use std::process::Command;

/// A restart from the snapshot takes at most this long, in seconds.
const RESTART_S_MAX: f64 = 2.0;
/// An audit, evidence apart, reads at least so many entries a second.
const AUDIT_ENTRIES_S_MIN: f64 = 50_000.0;
/// A proof takes at most this long, in µs.
const PROOF_US_MAX: f64 = 1000.0;

/// Measures; `super::build` made the programs.
pub(super) fn measure(entries: u64) -> Result<Value> {
    let mut command = Command::new(super::super::binary("examples").join("long_log"));
    let mut measured: Value =
        serde_json::from_slice(shell::output(command.arg("--entries").arg(entries.to_string()))?.as_bytes())?;
    let of = |pointer: &str| measured.pointer(pointer).and_then(Value::as_f64).unwrap_or(f64::NAN);
    let ratios = json!({
        "restart_vs_max": of("/keeper_resumed/open_s") / RESTART_S_MAX,
        "audit_vs_min": of("/audit/entries_s") / AUDIT_ENTRIES_S_MIN,
        "proof_vs_max": of("/fold/recalled_proof_us") / PROOF_US_MAX,
    });
    measured["ratios"] = ratios;
    Ok(measured)
}

/// As a table.
pub(super) fn print(measured: &Value, profile: &str) {
    let of = |pointer: &str| measured.pointer(pointer).and_then(Value::as_f64).unwrap_or(f64::NAN);
    println!("\na log of {} entries, {:.0} MB, {profile} build", measured["entries"], of("/fold/entry_bytes") / 1e6);
    let rows = [
        ("fold, one thread", of("/fold/entries_s"), "entries/s"),
        ("vaultctl audit verify, evidence apart", of("/audit/entries_s"), "entries/s"),
        ("vaultctl log verify over gRPC", of("/entries") / of("/log_verify_s"), "entries/s"),
        ("keeper start, whole fold", of("/keeper_whole/open_s"), "s"),
        ("keeper start from its snapshot", of("/keeper_resumed/open_s"), "s"),
        ("keeper stop, with its snapshot", of("/keeper_stop_s"), "s"),
        ("snapshot", of("/snapshot_bytes") / 1e6, "MB"),
        ("host start", of("/keeper_resumed/host_s"), "s"),
        ("inclusion proof from a whole tree", of("/fold/proof_us"), "µs"),
        ("inclusion proof of a forgotten entry", of("/fold/recalled_proof_us"), "µs"),
        ("keeper, resident after a whole fold", of("/keeper_whole/keeper/rss_mib"), "MiB"),
        ("keeper, resident from its snapshot", of("/keeper_resumed/keeper/rss_mib"), "MiB"),
        ("host, resident", of("/keeper_resumed/host/rss_mib"), "MiB"),
    ];
    for (what, value, unit) in rows {
        println!("{what:<40} {value:>12.1} {unit}");
    }
    println!("ratios: {}", measured["ratios"]);
}
