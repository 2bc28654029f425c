//! Agents that all ask at once: how long the last of them waits, and the memory of keeper and host.

use crate::{Result, shell};
use serde_json::{Value, json};
use std::process::Command;

/// What keeper and host may need at most beyond what they need idle, in KiB an agent. The host keeps a connection each; the
/// keeper a lease, a challenge and an answer that may be asked for again.
const HOST_KIB_MAX: f64 = 256.0;
const KEEPER_KIB_MAX: f64 = 128.0;

/// Measures; `super::build` made the programs.
pub(super) fn measure(agents: u32) -> Result<Value> {
    let mut command = Command::new(super::super::binary("examples").join("fleet"));
    // It ends without a line where one agent was refused.
    let mut measured: Value = serde_json::from_str(&shell::output(command.arg(agents.to_string()))?)?;
    let rows = measured["rows"].as_array().cloned().unwrap_or_default();
    let peak = |who: &str| {
        let of = |row: &Value| row[who]["peak_mib"].as_f64();
        let idle = rows.first().and_then(of)?;
        rows.iter().filter_map(of).reduce(f64::max).map(|most| (most - idle) * 1024.0 / f64::from(agents))
    };
    let ratios = json!({
        "keeper_memory_vs_max": peak("keeper").map(|kib| kib / KEEPER_KIB_MAX),
        "host_memory_vs_max": peak("host").map(|kib| kib / HOST_KIB_MAX),
    });
    measured["ratios"] = ratios;
    Ok(measured)
}

/// As a table.
pub(super) fn print(measured: &Value, profile: &str) {
    println!("\n{} agents at once, all served, {profile} build", measured["agents"]);
    println!("{:<40} {:>8} {:>14} {:>14}", "", "s", "keeper MiB", "host MiB");
    for row in measured["rows"].as_array().into_iter().flatten() {
        let memory = |who: &str| format!("{} ({})", row[who]["rss_mib"], row[who]["peak_mib"]);
        let (what, seconds) = (row["what"].as_str().unwrap_or_default(), row["seconds"].as_f64().unwrap_or(f64::NAN));
        println!("{what:<40} {seconds:>8.2} {:>14} {:>14}", memory("keeper"), memory("host"));
    }
    println!("memory is resident, its peak in brackets; ratios: {}", measured["ratios"]);
}
