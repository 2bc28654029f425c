//! `vaultctl explain`

mod entry;
mod journal;

use std::fmt;

use attestation::UnixTime;
use serde::Serialize;

pub(crate) use self::entry::EntryExplained;
use self::entry::explain_entry;
use self::journal::{Record, find_in_log};
use crate::cli::{ExplainArgs, RefusalName};
use crate::commands::audit::PastLog;
use crate::failure::{Failure, Kind};
use crate::print::{distance, moment};
use crate::session::Session;

/// The exact reason of a refusal.
#[derive(Debug, Serialize)]
pub(crate) struct ExplainReport {
    /// As a host's journal has it: the host's word.
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    record: Option<Record>,
    /// As the log has it, decided again.
    #[serde(skip_serializing_if = "Option::is_none")]
    entry: Option<EntryExplained>,
    /// Why there is no entry of it here.
    #[serde(skip_serializing_if = "Option::is_none")]
    no_entry: Option<&'static str>,
    #[serde(skip)]
    now: UnixTime,
}

pub(crate) async fn explain(session: &Session, args: &ExplainArgs) -> Result<ExplainReport, Failure> {
    let log = || args.log.as_deref().map(|dir| PastLog::open(session.vault()?, dir)).transpose();
    let now = session.now();
    match &args.refusal {
        RefusalName::Entry(index) => {
            let log = log()?.ok_or_else(|| {
                Failure::new(Kind::Usage, "log-missing", format!("entry {index} of which log?")).next(
                    "give the folder of `vaultctl audit export` with --log DIR, and the vault file with --vault FILE",
                )
            })?;
            Ok(ExplainReport { record: None, entry: Some(explain_entry(&log, *index)?), no_entry: None, now })
        }
        RefusalName::Request(id) => {
            // A folder that is none is told before a host is asked.
            let log = log()?;
            let record = match &args.journal {
                Some(path) => Record::of_journal(path, id)?,
                None => Record::of_host(session, id).await?,
            };
            let no_entry = match &log {
                Some(_) => "the log has no entry of this refusal, or several that could be it: name one by its index",
                None => {
                    "`--log DIR`, a folder of `vaultctl audit export`, decides it again and says what would make it pass"
                }
            };
            let entry = log.map(|log| find_in_log(&log, &record)).transpose()?.flatten();
            let no_entry = entry.is_none().then_some(no_entry);
            Ok(ExplainReport { record: Some(record), entry, no_entry, now })
        }
    }
}

impl fmt::Display for ExplainReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(record) = &self.record {
            writeln!(f, "{} was refused: {}", record.method, record.code)?;
            writeln!(f, "  why:  {}", record.message)?;
            writeln!(f, "  when: {} ({})", moment(record.time), distance(record.time, self.now))?;
        }
        if let Some(entry) = &self.entry {
            entry.fmt(f)?;
        }
        self.no_entry.iter().try_for_each(|next| writeln!(f, "  next: {next}"))
    }
}
