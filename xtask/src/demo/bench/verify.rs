//! What verifying evidence costs, beside the crate `sev` where that is asked for.

use crate::{Result, shell};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::process::Command;

const RUNS: u32 = 500;
const RUNS_QUICK: u32 = 3;
/// What a verification of an SNP report may take when its chain was verified before.
const WARM_US_MAX: f64 = 1500.0;

/// Rows and ratios. What it takes is built in a release build, which is small; with `quick` in a dev build.
pub(super) fn measure(quick: bool, peers: bool) -> Result<Value> {
    let (runs, profile) = if quick { (RUNS_QUICK, "dev") } else { (RUNS, "release") };
    let vectors = std::env::var_os("WEIGHTVAULT_VECTORS").map(PathBuf::from);
    let vectors = vectors.unwrap_or_else(|| shell::root().join("../shared/vectors"));
    shell::run(shell::cargo().args(["build", "--package=attestation", "--example=verify_cost", "--profile", profile]))?;
    let directory = if quick { "debug" } else { profile };
    let mut rows = rows_of(&shell::target_dir().join(directory).join("examples/verify_cost"), runs, &vectors)?;
    if peers {
        let target = shell::target_dir().join("sev-peer");
        let manifest = shell::root().join("attestation/tools/sev-peer/Cargo.toml");
        let mut build = shell::cargo();
        build.args(["build", "--profile", profile, "--manifest-path"]).arg(manifest).arg("--target-dir").arg(&target);
        shell::run(&mut build)?;
        rows.extend(rows_of(&target.join(directory).join("sev-peer"), runs, &vectors)?);
    }
    let ratios = ratios(&rows);
    Ok(json!({ "profile": profile, "runs": runs, "rows": rows, "ratios": ratios, "warm_us_max": WARM_US_MAX }))
}

/// As a table.
pub(super) fn print(measured: &Value) {
    let title = format!("µs, {} calls each, one thread, {} build", measured["runs"], text(&measured["profile"]));
    print_rows(&measured["rows"], &title);
    println!(
        "ratios: {}; a verification with a warm chain may take {WARM_US_MAX} µs in a release build",
        measured["ratios"]
    );
}

/// Rows of times in microseconds, under a title.
pub(super) fn print_rows(rows: &Value, title: &str) {
    println!("\n{:<28} {:>8}  {:>8} {:>8}   {title}", "", "median", "least", "most");
    for row in rows.as_array().into_iter().flatten() {
        let [us, least, most] = ["us", "least", "most"].map(|field| row[field].as_f64().unwrap_or(f64::NAN));
        println!("{:<28} {us:>8.1}  {least:>8.1} {most:>8.1}", text(&row["what"]));
    }
}

fn rows_of(program: &Path, runs: u32, vectors: &Path) -> Result<Vec<Value>> {
    let mut command = Command::new(program);
    let output = command.arg(runs.to_string()).arg(vectors).stderr(std::process::Stdio::inherit()).output()?;
    if !output.status.success() {
        return Err(format!("{} ended with {}", program.display(), output.status).into());
    }
    let measured: Value = serde_json::from_slice(&output.stdout)?;
    Ok(measured["rows"].as_array().cloned().unwrap_or_default())
}

/// Of medians: those whose both rows there are, and the share of what a verification may take.
fn ratios(rows: &[Value]) -> Value {
    let median = |what: &str| rows.iter().find(|row| row["what"] == what).and_then(|row| row["us"].as_f64());
    let pairs = [
        ("snp_warm_vs_cold", "snp, warm chain", "snp, cold"),
        ("snp_parsing_vs_warm", "snp, report parsing", "snp, warm chain"),
        ("snp_cold_vs_sev", "snp, cold", "sev: snp, cold"),
        ("snp_warm_vs_sev", "snp, warm chain", "sev: snp, warm chain"),
        ("snp_parsing_vs_sev", "snp, report parsing", "sev: snp, report parsing"),
    ];
    let known = pairs.iter().filter_map(|(name, a, b)| Some(((*name).to_owned(), json!(median(a)? / median(b)?))));
    let goal = median("snp, warm chain").map(|us| ("snp_warm_vs_max".to_owned(), json!(us / WARM_US_MAX)));
    Value::Object(known.chain(goal).collect())
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or("?")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ratios_are_of_the_rows_there_are() {
        let row = |what: &str, us: f64| json!({ "what": what, "us": us });
        let rows = [row("snp, cold", 4.0), row("snp, warm chain", 1.0), row("sev: snp, cold", 8.0)];
        let expected =
            json!({ "snp_warm_vs_cold": 0.25, "snp_cold_vs_sev": 0.5, "snp_warm_vs_max": 1.0 / WARM_US_MAX });
        assert_eq!(ratios(&rows), expected);
        assert_eq!(ratios(&[]), json!({}));
    }
}
