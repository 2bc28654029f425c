//! `vaultctl explain` and `vaultctl policy simulate`: looking back.

use std::path::PathBuf;
use std::str::FromStr;

use clap::Args;

/// Exit codes of `policy simulate`, for its `--help`.
pub(super) const SIMULATE_EXIT_CODES: &str = "\
Each release of the log is decided again by NEW, at its time and from its stored evidence, and so is each refusal that has an
entry, with what NEW would have left of its budgets, alarms and approvals: it counts as in force since the vault began. Raises and
permits that approvers gave count until their end, revocations as long as they were in force. What NEW would have let through
takes its part, what it would not takes none; a refusal that NEW would grant takes as much as the whole model, since the log does not
say how much was asked for, and no lease. A lease lasts as long as it did. Changes of who may approve, publish or read are not
simulated: see `policy diff`.

Exit codes:
  0  every decision would be what it was
  1  some would not: somebody loses or gains access, or would have to wait for approvers
  2  wrong use, or something could not be read
  4  the folder is not the log of this vault
  5  none is known to be another, and some could not be judged";

/// `vaultctl explain`
#[derive(Debug, Args)]
pub struct ExplainArgs {
    /// The request id of an error message, 32 hex digits; or, with --log, the index of a `deny` entry.
    #[arg(value_name = "REQUEST_ID|ENTRY")]
    pub refusal: RefusalName,
    /// A folder of `vaultctl audit export`: the refusal is decided again from the log and its evidence, with the line of the
    /// policy. Needs --vault.
    #[arg(long, value_name = "DIR")]
    pub log: Option<PathBuf>,
    /// A copy of a host's refusals.jsonl, which lies in its data_dir, in the place of asking a host for the request id.
    #[arg(long, value_name = "FILE")]
    pub journal: Option<PathBuf>,
}

/// Names a refusal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RefusalName {
    /// As an error message does.
    Request(String),
    /// By the index of its entry.
    Entry(u64),
}

/// `vaultctl policy simulate`
#[derive(Debug, Args)]
pub struct PolicySimulateArgs {
    /// The candidate, TOML.
    #[arg(value_name = "NEW")]
    pub new: PathBuf,
    /// The folder that `vaultctl audit export` wrote. Needs --vault.
    #[arg(long, value_name = "DIR")]
    pub log: PathBuf,
    /// The manifest.json of a model that was released, so that its units can be judged by their groups where NEW gives
    /// fewer. May be repeated.
    #[arg(long, value_name = "FILE")]
    pub manifest: Vec<PathBuf>,
}

impl FromStr for RefusalName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let is_digit = |digit: u8| digit.is_ascii_digit() || (b'a'..=b'f').contains(&digit);
        if text.len() == 32 && text.bytes().all(is_digit) {
            return Ok(Self::Request(text.to_owned()));
        }
        let malformed = || "a request id is 32 hex digits, an entry is a number".to_owned();
        match text.bytes().all(|digit| digit.is_ascii_digit()) {
            true => text.parse().map(Self::Entry).map_err(|_| malformed()),
            false => Err(malformed()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_id_is_32_hex_digits_and_an_entry_a_number() {
        let id = "0f".repeat(16);
        assert_eq!(id.parse(), Ok(RefusalName::Request(id)));
        let digits = "1".repeat(32);
        assert_eq!(digits.parse(), Ok(RefusalName::Request(digits)));
        assert_eq!("17".parse(), Ok(RefusalName::Entry(17)));
        for wrong in ["", "0f", "-1", "+1", &"0F".repeat(16), &"9".repeat(25)] {
            assert!(wrong.parse::<RefusalName>().is_err(), "{wrong}");
        }
    }
}
