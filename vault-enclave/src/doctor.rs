//! `vault-enclave doctor`: what this machine lacks to hold weights, and how to get it.

mod event_log;
mod keeper_dir;
mod machine;
mod snp;
mod tpm;
mod vault;

use std::fmt;
use std::path::PathBuf;
use std::process::ExitCode;

use serde::Serialize;

use crate::agent::event_log::EVENT_LOG;
use crate::ek_args::EkArgs;
use crate::failure::plain;
use crate::snp::SnpChoice;
use crate::tpm::silence_libtss2;

/// Options of `vault-enclave doctor`.
#[derive(Debug, clap::Args)]
pub struct DoctorArgs {
    /// The TPM: `device:/dev/tpmrm0`, or `swtpm:host=127.0.0.1,port=2321`.
    #[arg(long, default_value = "device:/dev/tpmrm0", env = "WEIGHTVAULT_TPM", value_name = "TCTI")]
    tpm: String,
    #[command(flatten)]
    ek: EkArgs,
    /// The SEV-SNP device: `auto`, `configfs:/sys/kernel/config/tsm/report`, `sev-guest:/dev/sev-guest`, `azure` (its virtual
    /// TPM), or `soft:/DIR`, a soft platform.
    #[arg(long, default_value = "auto", env = "WEIGHTVAULT_SNP", value_name = "DEVICE")]
    snp: SnpChoice,
    /// The event log of this boot, which rules on events ask for.
    #[arg(long, value_name = "FILE", default_value = EVENT_LOG, env = "WEIGHTVAULT_EVENT_LOG")]
    event_log: PathBuf,
    /// The vault file: its hosts, its keeper, and whether its policy knows this machine.
    #[arg(long, value_name = "FILE")]
    vault: Option<PathBuf>,
    /// A host, in the place of those of the vault file.
    #[arg(long, value_name = "URL", requires = "vault")]
    host: Option<String>,
    /// PEM of the certificate authority of https hosts.
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,
    /// A keeper's directory: what it is, and how to go on with it.
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// Where weights are to lie.
    #[arg(long, value_name = "DIR", default_value = "/dev/shm")]
    into: PathBuf,
    /// Bytes of the largest model; K, M, G or T for powers of 1000.
    #[arg(long, value_name = "N", value_parser = bytes, default_value = "0")]
    bytes: u64,
    /// JSON on standard output.
    #[arg(long)]
    json: bool,
}

/// How a check went.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Level {
    Ok,
    Warn,
    Fail,
}

/// One check: what was looked at, what was found, and the fix where there is something to fix.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
struct Check {
    level: Level,
    check: String,
    found: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    fix: Option<String>,
}

#[derive(Debug, Serialize)]
struct Report {
    healthy: bool,
    checks: Vec<Check>,
}

/// `vault-enclave doctor`. Exit code 1 where a check failed.
#[must_use]
pub fn run(args: &DoctorArgs) -> ExitCode {
    if let Err(error) = silence_libtss2() {
        eprintln!("warning: {error}");
    }
    let (mut checks, tpm, seen) = tpm::checks(&args.tpm, &args.ek);
    checks.push(event_log::check(&args.event_log, tpm.as_ref()));
    checks.extend(snp::checks(&args.snp, tpm.as_ref()));
    checks.extend(machine::checks(&args.into, args.bytes));
    checks.extend(args.dir.as_deref().map(keeper_dir::check));
    if args.vault.is_some() {
        checks.extend(vault::checks(args, seen.as_ref()));
    }
    let report = Report { healthy: checks.iter().all(|check| check.level != Level::Fail), checks };
    match serde_json::to_string_pretty(&report) {
        Ok(text) if args.json => println!("{text}"),
        _ => report.checks.iter().for_each(|check| println!("{}", plain(&check.to_string()))),
    }
    if report.healthy { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

impl Check {
    fn ok(check: impl Into<String>, found: impl fmt::Display) -> Self {
        Self { level: Level::Ok, check: check.into(), found: found.to_string(), fix: None }
    }

    fn warn(check: impl Into<String>, found: impl fmt::Display, fix: impl Into<String>) -> Self {
        Self { level: Level::Warn, check: check.into(), found: found.to_string(), fix: Some(fix.into()) }
    }

    fn fail(check: impl Into<String>, found: impl fmt::Display, fix: impl Into<String>) -> Self {
        Self { level: Level::Fail, check: check.into(), found: found.to_string(), fix: Some(fix.into()) }
    }

    /// As a failure says it.
    fn failure(check: impl Into<String>, failure: &crate::failure::Failure) -> Self {
        let fix = failure.next_step().map(str::to_owned);
        Self {
            level: Level::Fail,
            check: check.into(),
            found: format!("{} ({})", failure.message(), failure.code()),
            fix,
        }
    }
}

impl fmt::Display for Check {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let level = match self.level {
            Level::Ok => "ok  ",
            Level::Warn => "warn",
            Level::Fail => "FAIL",
        };
        write!(f, "{level}  {}: {}", self.check, self.found)?;
        match &self.fix {
            Some(fix) => write!(f, "\n      fix: {}", fix.replace('\n', "\n           ")),
            None => Ok(()),
        }
    }
}

/// A size such as `90000000`, `16G` or `1.5T`.
fn bytes(text: &str) -> Result<u64, String> {
    let malformed = || format!("{text:?} is no size: write 16G, 900M or a number of bytes");
    let scale = match text.bytes().last() {
        Some(b'K') => 1e3,
        Some(b'M') => 1e6,
        Some(b'G') => 1e9,
        Some(b'T') => 1e12,
        _ => return text.parse().map_err(|_| malformed()),
    };
    let number: f64 = text.get(..text.len() - 1).and_then(|digits| digits.parse().ok()).ok_or_else(malformed)?;
    // At most 1e18, so that it is a u64 for sure.
    if (0.0..=1e18 / scale).contains(&number) { Ok((number * scale) as u64) } else { Err(malformed()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read() {
        assert_eq!(bytes("123"), Ok(123));
        assert_eq!(bytes("16G"), Ok(16_000_000_000));
        assert_eq!(bytes("1.5T"), Ok(1_500_000_000_000));
        for wrong in ["", "G", "-1G", "1X", "nanG", "1e30T", "-1"] {
            assert!(bytes(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_check_says_what_was_found_and_the_fix() {
        assert_eq!(Check::ok("swap", "off").to_string(), "ok    swap: off");
        assert_eq!(Check::fail("tpm", "none", "a\nb").to_string(), "FAIL  tpm: none\n      fix: a\n           b");
        assert_eq!(Check::warn("x", "y", "z").level, Level::Warn);
    }
}
