//! `attack`: plays the attack suite on software TPMs and prints what stopped each attack. `cargo xtask attack` builds and runs
//! it.

use std::io::IsTerminal;
use std::process::ExitCode;

use clap::Parser;
use serde_json::json;
use vault_tests::attack::{Expected, Extent, Row, play};

/// Attacks a vault of its own on this machine. Ends with 1 if an attack succeeded, or was stopped by something else than
/// what is there for it.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    /// Only what one running vault can be asked.
    #[arg(long)]
    quick: bool,
    /// Print JSON alone.
    #[arg(long)]
    json: bool,
}

#[tokio::main]
async fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let mut lines = play(if arguments.quick { Extent::Quick } else { Extent::Whole });
    if !arguments.json {
        println!("{:<20} {:<52} {:<28} verdict", "attack", "tried", "stopped by");
    }
    let mut rows = Vec::new();
    loop {
        tokio::select! {
            row = lines.recv() => match row {
                Some(row) => {
                    if arguments.json { progress(&row) } else { print(&row) }
                    rows.push(row);
                }
                None => break,
            },
            // What was started ends when the runtime drops it.
            _ = tokio::signal::ctrl_c() => return ExitCode::from(130),
        }
    }
    let bad = rows.iter().filter(|row| !row.verdict().is_good()).count();
    let attacks = rows.iter().filter(|row| row.expected != Expected::Works).count();
    if arguments.json {
        let rows: Vec<serde_json::Value> = rows.iter().map(as_json).collect();
        println!("{:#}", json!({ "rows": rows, "attacks": attacks, "failed": bad }));
    } else {
        println!("\n{attacks} attacks, {} controls, {bad} not as they should be", rows.len() - attacks);
    }
    if bad == 0 && attacks > 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn print(row: &Row) {
    let stopped_by = row.seen.as_ref().err().map_or("-", String::as_str);
    println!("{:<20} {:<52} {:<28} {}", row.attack, row.tried, stopped_by, row.verdict());
    if let (false, Expected::Refused(code)) = (row.verdict().is_good(), row.expected) {
        println!("{:<20} it should have been stopped by {code}", "");
    }
}

/// JSON comes at the end: a person who waits for it sees that it goes on.
fn progress(row: &Row) {
    if std::io::stderr().is_terminal() {
        eprintln!("{}: {}: {}", row.attack, row.tried, row.verdict());
    }
}

fn as_json(row: &Row) -> serde_json::Value {
    let expected = match row.expected {
        Expected::Works => None,
        Expected::Refused(code) => Some(code),
    };
    json!({
        "attack": row.attack,
        "tried": row.tried,
        "expected": expected,
        "stopped_by": row.seen.as_ref().err(),
        "verdict": row.verdict().to_string(),
    })
}
