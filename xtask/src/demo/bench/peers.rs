//! What people keep weights encrypted with instead, beside our rows: `peers.sh` has each open the same files into the same
//! memory, from memory.

use super::data::{Sample, in_memory};
use crate::{Result, shell};
use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

/// AES-256-CTR, of which nothing is authenticated: a process for each file.
pub(super) const OPENSSL: &str = "openssl enc, nothing authenticated";
/// ChaCha20-Poly1305: a process for each file.
pub(super) const AGE: &str = "age";
/// AES-256-GCM below a file system; its own process counts.
pub(super) const GOCRYPTFS: &str = "gocryptfs";

const SCRIPT: &str = include_str!("peers.sh");

/// Rates and CPU of those that are installed, for files of `bytes` in all; says which ones are not.
pub(super) fn measure(source: &Path, huge: &Path, bytes: f64) -> Result<BTreeMap<String, Sample>> {
    let mut script = Command::new("bash");
    script.args(["-c", SCRIPT, "peers.sh"]).args([source, huge]);
    let (rows, missing) = rows_of(&shell::output(&mut in_memory(&script, huge, None))?, bytes)?;
    for what in missing {
        eprintln!("{what} is not installed: left out (`apt-get install {what}`)");
    }
    Ok(rows)
}

/// Lines `what|seconds|user|system`, added up where there are several of one thing, and `missing|what`.
fn rows_of(said: &str, bytes: f64) -> Result<(BTreeMap<String, Sample>, Vec<String>)> {
    let mut seconds = BTreeMap::<String, (f64, f64)>::new();
    let mut missing = Vec::new();
    for line in said.lines() {
        match line.split('|').collect::<Vec<_>>().as_slice() {
            ["missing", what] => missing.push((*what).to_owned()),
            [what, real, user, system] => {
                let (wall, cpu) = seconds.entry((*what).to_owned()).or_default();
                *wall += real.parse::<f64>()?;
                *cpu += user.parse::<f64>()? + system.parse::<f64>()?;
            }
            _ => return Err(format!("a line that is none: {line:?}").into()),
        }
    }
    let gigabytes = bytes / 1e9;
    let sample = |(wall, cpu): (f64, f64)| Sample { rate: gigabytes / wall, cpu: cpu / gigabytes };
    Ok((seconds.into_iter().map(|(what, seconds)| (what, sample(seconds))).collect(), missing))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_file_system_spends_in_its_own_process_is_added() {
        let said = "age|4.0|1.5|0.5\ngocryptfs|2.0|0.1|0.3\ngocryptfs|0|1600e-3|0\nmissing|openssl\n";
        let (rows, missing) = rows_of(said, 2e9).unwrap();
        assert_eq!((rows[AGE].rate, rows[AGE].cpu), (0.5, 1.0));
        assert_eq!((rows[GOCRYPTFS].rate, rows[GOCRYPTFS].cpu), (1.0, 1.0));
        assert_eq!((rows.len(), missing), (2, vec!["openssl".to_owned()]));
        assert!(rows_of("age|fast", 1e9).is_err());
    }
}
