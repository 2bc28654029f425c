//! `vaultctl evidence …`, and the files that captured evidence comes in.

use std::path::PathBuf;

use attestation::UnixTime;
use clap::{Args, Subcommand, ValueEnum};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// Exit codes of `evidence verify --kind`.
const VERIFY_EXIT_CODES: &str = "\
Exit codes with --kind, for scripts:
  0  verified; all claims are on standard output, as JSON with hex in lower case
  1  refused; code, reason, expected and seen are on standard output
  2  wrong use: arguments, or a file that cannot be read
Without --kind they are those of every command (`vaultctl --help`).";

/// `vaultctl evidence …`
#[derive(Debug, Subcommand)]
pub enum EvidenceCommand {
    /// Explain each field of a file, unverified: an evidence blob, an SNP report, an HCL report, a certificate table, a
    /// quote. Or show the evidence of the keeper, live and verified.
    Show {
        /// What it is shows by its bytes.
        #[arg(required_unless_present = "live", conflicts_with = "live")]
        file: Option<PathBuf>,
        /// Ask the keeper, and verify what it answers.
        #[arg(long)]
        live: bool,
    },
    /// Verify the evidence of the keeper, freshly; or that of an entry of the log; or, with --kind, captured evidence.
    #[command(after_help = VERIFY_EXIT_CODES)]
    Verify(Box<EvidenceVerifyArgs>),
}

/// `vaultctl evidence verify`
#[derive(Debug, Args)]
pub struct EvidenceVerifyArgs {
    /// Index of an entry: an approval of the genesis, a release, a renewal.
    #[arg(long, value_name = "INDEX",
          conflicts_with_all = ["kind", "report", "report_data", "extra_data", "policy", "now"])]
    pub entry: Option<u64>,
    /// Verify captured evidence of this kind, out of files alone. Needs no vault and no network.
    #[arg(long, value_enum)]
    pub kind: Option<VerifyKind>,
    /// The report: ATTESTATION_REPORT (1184 bytes), Azure's HCL report, or an evidence blob, which holds all the rest.
    #[arg(long, value_name = "FILE", requires = "kind")]
    pub report: Option<PathBuf>,
    /// What comes with it.
    #[command(flatten)]
    pub beside: Beside,
    /// What REPORT_DATA must be, all 64 bytes: only this shows for whom and when an SNP report was made.
    #[arg(long, value_name = "HEX", value_parser = report_data, requires = "kind")]
    pub report_data: Option<ReportData>,
    /// What the extraData of the quote must be: only this shows for whom and when a quote was made.
    #[arg(long, value_name = "HEX", value_parser = extra_data, requires = "kind")]
    pub extra_data: Option<ExtraData>,
    /// Check the claims against a release rule of this policy, under its anchors. Without one only what always holds
    /// decides: chain, dates, signatures, reserved bytes, DEBUG and MIGRATE_MA off.
    #[arg(long, value_name = "FILE", requires = "kind")]
    pub policy: Option<PathBuf>,
    /// The release rule; may be left out where the policy has one alone.
    #[arg(long, value_name = "NAME", requires = "policy")]
    pub rule: Option<String>,
    /// The moment at which everything must be valid, such as 2026-07-01T00:00:00Z. There is no default: captured
    /// evidence is judged at its own time. An event log alone has none.
    #[arg(long, value_name = "RFC3339", value_parser = moment, requires = "kind",
          required_if_eq_any([("kind", "snp"), ("kind", "azure-snp-vtpm"), ("kind", "tpm")]))]
    pub now: Option<UnixTime>,
}

/// Files beside a report.
#[derive(Debug, Clone, Default, Args)]
pub struct Beside {
    /// Certificates: VCEK or VLEK, ASK or ASVK, ARK in any order; for a TPM the EK's first, then its issuers'. PEM, also
    /// several in one file, DER, or a host's certificate table (auxblob). Several, or once for each.
    #[arg(long, value_name = "FILE", num_args = 1..)]
    pub chain: Vec<PathBuf>,
    /// Revocation list of the ARK, PEM or DER. Several, or once for each.
    #[arg(long, value_name = "FILE", num_args = 1..)]
    pub crl: Vec<PathBuf>,
    /// Azure: the runtime data as received, where the report came without its HCL frame.
    #[arg(long, value_name = "FILE")]
    pub runtime: Option<PathBuf>,
    /// The quote: TPMS_ATTEST, exactly the bytes that were signed.
    #[arg(long, value_name = "FILE", requires_all = ["quote_signature", "pcrs"])]
    pub quote: Option<PathBuf>,
    /// Its signature: TPMT_SIGNATURE, or the 256 bytes of a bare RSASSA signature.
    #[arg(long, value_name = "FILE", requires = "quote")]
    pub quote_signature: Option<PathBuf>,
    /// The PCRs of the SHA-256 bank, JSON: a list of hex from PCR 0 on, or an object {"0": "…", "7": "…"}. Those that the
    /// quote is over; with --kind event-log those that the log is compared with.
    #[arg(long, value_name = "FILE")]
    pub pcrs: Option<PathBuf>,
    /// The AK that quoted: TPMT_PUBLIC or TPM2B_PUBLIC. Azure's report names its own; given here too, it must be that one.
    #[arg(long, value_name = "FILE", requires = "quote")]
    pub ak: Option<PathBuf>,
    /// The TCG event log of that boot, such as /sys/kernel/security/tpm0/binary_bios_measurements: it must lead to the PCRs
    /// that were quoted.
    #[arg(long, value_name = "FILE")]
    pub event_log: Option<PathBuf>,
}

/// `--kind` of `evidence verify`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum VerifyKind {
    /// A report of AMD SEV-SNP.
    Snp,
    /// A report of Azure's paravisor, and a quote of the virtual TPM whose AK it endorses.
    AzureSnpVtpm,
    /// A TPM quote, and the chain of its EK.
    Tpm,
    /// A TCG event log and PCR values that nobody signed: --event-log FILE --pcrs FILE.
    EventLog,
}

impl VerifyKind {
    /// What evidence it is; none for a log, which is not evidence by itself.
    pub const fn evidence(self) -> Option<EvidenceKind> {
        match self {
            Self::Snp => Some(EvidenceKind::Snp),
            Self::AzureSnpVtpm => Some(EvidenceKind::AzureSnpVtpm),
            Self::Tpm => Some(EvidenceKind::Tpm),
            Self::EventLog => None,
        }
    }
}

/// `--kind`
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum EvidenceKind {
    /// A report of AMD SEV-SNP.
    Snp,
    /// A report of Azure's paravisor, and a quote of the virtual TPM whose AK it endorses.
    AzureSnpVtpm,
    /// A TPM quote, and the chain of its EK.
    Tpm,
}

impl EvidenceKind {
    /// As it is typed.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Snp => "snp",
            Self::AzureSnpVtpm => "azure-snp-vtpm",
            Self::Tpm => "tpm",
        }
    }
}

/// The 64 bytes of `--report-data`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReportData(pub [u8; 64]);

/// The bytes of `--extra-data`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExtraData(pub Vec<u8>);

fn report_data(text: &str) -> Result<ReportData, String> {
    let mut bytes = [0; 64];
    hex::decode_to_slice(text, &mut bytes)
        .map_err(|_| "write all 64 bytes as 128 hex digits, the zeros behind a shorter value too".to_owned())?;
    Ok(ReportData(bytes))
}

fn extra_data(text: &str) -> Result<ExtraData, String> {
    hex::decode(text).map(ExtraData).map_err(|_| "write the bytes as hex digits".to_owned())
}

/// A moment as RFC 3339, from 1970 on.
pub(super) fn moment(text: &str) -> Result<UnixTime, String> {
    let malformed = || "write a moment such as 2026-07-01T00:00:00Z".to_owned();
    let time = OffsetDateTime::parse(text, &Rfc3339).map_err(|_| malformed())?;
    u64::try_from(time.unix_timestamp()).map(UnixTime).map_err(|_| malformed())
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::cli::Cli;

    fn verify(args: &[&str]) -> Result<Cli, clap::Error> {
        Cli::try_parse_from([&["vaultctl", "evidence", "verify"], args].concat())
    }

    #[test]
    fn the_three_ways_to_verify_do_not_mix() {
        let now = ["--now", "2026-07-01T00:00:00Z"];
        assert!(verify(&[]).is_ok());
        assert!(verify(&["--entry", "1"]).is_ok());
        assert!(verify(&[&["--kind", "snp", "--report", "r"], &now[..]].concat()).is_ok());
        assert!(verify(&[&["--kind", "snp", "--entry", "1"], &now[..]].concat()).is_err());
        assert!(verify(&["--kind", "snp", "--report", "r"]).is_err(), "there is no default for the time");
        assert!(verify(&["--report", "r"]).is_err());
        assert!(verify(&["--entry", "1", "--report-data", &"0".repeat(128)]).is_err());
        assert!(verify(&["--kind", "event-log", "--event-log", "l", "--pcrs", "p"]).is_ok());
        assert!(verify(&[&["--kind", "sev", "--report", "r"], &now[..]].concat()).is_err());
    }

    #[test]
    fn report_data_has_64_bytes_and_a_moment_its_zone() {
        assert_eq!(report_data(&"ab".repeat(64)), Ok(ReportData([0xab; 64])));
        for wrong in ["", "ab", &"ab".repeat(63), &"ab".repeat(65), &"xy".repeat(64)] {
            assert!(report_data(wrong).is_err(), "{wrong}");
        }
        assert_eq!(moment("2027-01-15T08:00:00Z"), Ok(UnixTime(1_800_000_000)));
        assert_eq!(moment("2027-01-15T09:00:00+01:00"), Ok(UnixTime(1_800_000_000)));
        for wrong in ["2027-01-15", "2027-01-15T08:00:00", "1969-12-31T23:59:59Z", "yesterday"] {
            assert!(moment(wrong).is_err(), "{wrong}");
        }
    }
}
