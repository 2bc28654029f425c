//! Refusals as a host's journal has them, and their entry in a log.

use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;

use attestation::UnixTime;
use ledger::entry::Entry;
use serde::{Deserialize, Serialize};

use super::entry::{EntryExplained, explain_entry};
use crate::commands::audit::PastLog;
use crate::failure::{Failure, Kind};
use crate::session::Session;

/// A line of the journal is shorter.
const LINE_BYTES_MAX: u64 = 64 << 10;
/// How far the clocks of host and keeper may be apart, and how long a commit may take, in seconds.
const APART_SECS_MAX: u64 = 300;

/// One refusal, by the host's word.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Record {
    pub(super) request_id: String,
    pub(super) code: String,
    pub(super) message: String,
    pub(super) method: String,
    pub(super) time: UnixTime,
}

impl Record {
    /// Asks the host.
    pub(super) async fn of_host(session: &Session, request_id: &str) -> Result<Self, Failure> {
        let remote = match session.vault_if_named()? {
            Some(vault) => session.remote(&vault).await?,
            None => session.named_host().await?,
        };
        let found = remote.explain(request_id).await?;
        Ok(Self {
            request_id: request_id.to_owned(),
            code: found.code,
            message: found.message,
            method: found.method,
            time: UnixTime(found.time),
        })
    }

    /// Looks into a copy of a host's `refusals.jsonl`, line by line. A line that was cut by a crash is none.
    pub(super) fn of_journal(path: &Path, request_id: &str) -> Result<Self, Failure> {
        let failed = |error: std::io::Error| Failure::file("read", path, &error);
        let mut journal = BufReader::new(File::open(path).map_err(failed)?);
        let mut line = Vec::new();
        while (&mut journal).take(LINE_BYTES_MAX).read_until(b'\n', &mut line).map_err(failed)? > 0 {
            match serde_json::from_slice::<Self>(&line) {
                Ok(record) if record.request_id == request_id => return Ok(record),
                Ok(_) | Err(_) => line.clear(),
            }
        }
        Err(Failure::new(Kind::Usage, "request-unknown", "no refusal with this id is in the journal")
            .next("a journal has two files, refusals.jsonl and an older one beside it"))
    }
}

/// The entry of this refusal: the only one of its code about then. `None`: it has none (not every refusal has), or there are
/// several, which a journal does not tell apart.
pub(super) fn find_in_log(log: &PastLog, record: &Record) -> Result<Option<EntryExplained>, Failure> {
    let near = |time: UnixTime| time.seconds().abs_diff(record.time.seconds()) <= APART_SECS_MAX;
    let mut found = Vec::new();
    log.fold(|before, entry| {
        if let Entry::Deny(deny) = entry
            && deny.code.as_str() == record.code
            && near(deny.time)
            && found.len() < 2
        {
            found.push(before.size());
        }
        Ok(())
    })?;
    match found.as_slice() {
        [index] => explain_entry(log, *index).map(Some),
        [] | [_, _, ..] => Ok(None),
    }
}
