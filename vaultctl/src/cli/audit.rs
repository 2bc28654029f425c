//! `vaultctl audit …`

use std::path::PathBuf;
use std::str::FromStr;

use attestation::UnixTime;
use clap::{Args, Subcommand};

use super::evidence::moment;

/// Exit codes of `audit verify`, for its `--help`.
const EXIT_CODES: &str = "\
Exit codes:
  0   everything verifies and nothing is missing
  1   could not read it
  2   wrong use, or the folder is not a bundle of this vault file
  10  the checkpoint is not signed by the vault's log key
  11  the entries are not those of the checkpoint, or of the older one of --since
  12  an entry is one that no keeper should have written
  13  evidence does not bear the entry that names it
  14  gaps: what is there verifies, and evidence that entries name is missing";

/// `vaultctl audit …`
#[derive(Debug, Subcommand)]
pub enum AuditCommand {
    /// Write the log and its evidence to a folder, for an auditor without access to anything.
    ///
    /// Can be run again after an interruption: it goes on with what is there.
    Export(AuditExportArgs),
    /// Verify such a folder, offline, and report what happened: who could cause a release, what was released to which platform,
    /// what was refused, what is missing.
    #[command(after_help = EXIT_CODES)]
    Verify(AuditVerifyArgs),
}

/// `vaultctl audit export`
#[derive(Debug, Args)]
pub struct AuditExportArgs {
    /// The folder; made where it is missing.
    #[arg(long, value_name = "DIR")]
    pub out: PathBuf,
    /// Evidence of entries from here on: an index, or a moment such as 2026-07-01T00:00:00Z. The entries are always all there,
    /// since each is permitted by those before it.
    #[arg(long, value_name = "INDEX|RFC3339")]
    pub from: Option<Position>,
    /// Evidence of entries before this one.
    #[arg(long, value_name = "INDEX|RFC3339")]
    pub to: Option<Position>,
}

/// `vaultctl audit verify`
#[derive(Debug, Args)]
pub struct AuditVerifyArgs {
    /// The folder that `audit export` wrote.
    pub dir: PathBuf,
    /// An older checkpoint, kept by the auditor: the log must be a continuation of that one.
    #[arg(long, value_name = "FILE")]
    pub since: Option<PathBuf>,
    /// Also write the report as one page with plots; it loads nothing from elsewhere.
    #[arg(long, value_name = "FILE")]
    pub html: Option<PathBuf>,
}

/// A place in the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Position {
    /// This entry.
    Index(u64),
    /// The first entry at or after this moment.
    Time(UnixTime),
}

impl Position {
    /// Whether an entry lies at this place or after it.
    pub fn is_reached(self, index: u64, time: UnixTime) -> bool {
        match self {
            Self::Index(first) => index >= first,
            Self::Time(first) => time >= first,
        }
    }
}

impl FromStr for Position {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text.bytes().all(|digit| digit.is_ascii_digit()) {
            return text.parse().map(Self::Index).map_err(|_| "write an index, or a moment".to_owned());
        }
        moment(text).map(Self::Time)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_in_the_log_is_an_index_or_a_moment() {
        assert_eq!("17".parse(), Ok(Position::Index(17)));
        let new_year = Position::Time(UnixTime(1_767_225_600));
        assert_eq!("2026-01-01T00:00:00Z".parse(), Ok(new_year));
        assert!(new_year.is_reached(0, UnixTime(1_767_225_600)) && !new_year.is_reached(9, UnixTime(1_767_225_599)));
        for wrong in ["", "-1", "yesterday", "99999999999999999999999"] {
            assert!(wrong.parse::<Position>().is_err(), "{wrong}");
        }
    }
}
