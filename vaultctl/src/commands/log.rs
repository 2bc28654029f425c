//! `vaultctl log …`

use std::fmt;
use std::path::{Path, PathBuf};

use attestation::{Sha256Digest, UnixTime};
use ledger::checkpoint::Checkpoint;
use ledger::state::State;
use serde::Serialize;
use vault_proto::limits::CHECKPOINT_BYTES_MAX;

use crate::audit::{self, read_log_to};
use crate::failure::{Failure, Kind};
use crate::keeper;
use crate::print::{entries, moment};
use crate::session::{Session, read_text, write_new};
use crate::words::EntryReport;

/// The newest checkpoint.
#[derive(Debug, Serialize)]
pub(crate) struct CheckpointReport {
    vault: Sha256Digest,
    size: u64,
    root: Sha256Digest,
    note: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    file: Option<PathBuf>,
}

/// A log that was read from its first entry to its last.
#[derive(Debug, Serialize)]
pub(crate) struct VerifyReport {
    vault: Sha256Digest,
    size: u64,
    root: Sha256Digest,
    last_entry: UnixTime,
    policy_serial: Option<u64>,
    /// Size of the older checkpoint that the log continues.
    #[serde(skip_serializing_if = "Option::is_none")]
    continues: Option<u64>,
    /// Whether the keeper's own evidence names this checkpoint, or one before it.
    fresh: bool,
}

/// Entries in words.
#[derive(Debug, Serialize)]
pub(crate) struct ShowReport {
    vault: Sha256Digest,
    size: u64,
    entries: Vec<EntryReport>,
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<u64>,
}

pub(crate) async fn checkpoint(session: &Session, out: Option<&Path>) -> Result<CheckpointReport, Failure> {
    let vault = session.vault()?;
    let remote = session.remote(&vault).await?;
    let (checkpoint, note) = audit::checkpoint(&remote, &vault).await?;
    if let Some(path) = out {
        write_new(path, note.as_bytes())?;
    }
    let (size, root) = (checkpoint.size, Sha256Digest::from_bytes(checkpoint.root));
    Ok(CheckpointReport { vault: vault.id(), size, root, note, file: out.map(Path::to_owned) })
}

pub(crate) async fn verify(session: &Session, since: Option<&Path>, fresh: bool) -> Result<VerifyReport, Failure> {
    let vault = session.vault()?;
    let earlier = match since {
        Some(path) => Some(audit::verify_checkpoint(&vault, &read_text(path, CHECKPOINT_BYTES_MAX)?)?),
        None => None,
    };
    let remote = session.remote(&vault).await?;
    // The keeper first: what the host shows afterwards must not be older.
    let proved = if fresh { Some(keeper::vault_run(&remote, &vault, session).await?) } else { None };
    let (checkpoint, _) = audit::checkpoint(&remote, &vault).await?;
    let log = read_log_to(&remote, &vault, checkpoint, |_, _| ()).await?;
    for older in earlier.iter().chain(proved.as_ref().map(|run| &run.checkpoint)) {
        log.check_continues(older)?;
    }
    if let Some(run) = &proved {
        check_policy(log.state(), run.checkpoint, run.verified.statement().policy())?;
    }
    Ok(VerifyReport {
        vault: vault.id(),
        size: checkpoint.size,
        root: Sha256Digest::from_bytes(checkpoint.root),
        last_entry: log.state().time(),
        policy_serial: log.state().vault().map(|vault| vault.policy().serial()),
        continues: earlier.map(|checkpoint| checkpoint.size),
        fresh,
    })
}

/// The keeper decides by the policy that follows from the log; if the log has grown since, that may be a later one.
fn check_policy(state: &State, proved: Checkpoint, policy: Sha256Digest) -> Result<(), Failure> {
    let in_force = state.vault().map(|vault| vault.policy().digest());
    if proved.size < state.size() || in_force == Some(policy) {
        return Ok(());
    }
    Err(Failure::new(Kind::NotVerified, "policy-mismatch", "the keeper decides by another policy than the log says")
        .why(format!("its evidence names {policy}"))
        .next("keep the log and the evidence: this keeper does not do what its code should"))
}

pub(crate) async fn show(session: &Session, from: u64, count: u64) -> Result<ShowReport, Failure> {
    let vault = session.vault()?;
    let remote = session.remote(&vault).await?;
    let (checkpoint, _) = audit::checkpoint(&remote, &vault).await?;
    let end = from.saturating_add(count);
    let mut entries = Vec::new();
    let mut fault = None;
    read_log_to(&remote, &vault, checkpoint, |before, bytes| {
        if (from..end).contains(&before.size()) {
            match audit::entry(before.size(), bytes) {
                Ok(exact) => entries.push(EntryReport::new(exact.entry().clone(), before)),
                Err(error) => fault = fault.take().or(Some(error)),
            }
        }
    })
    .await?;
    match fault {
        Some(fault) => Err(fault.into()),
        None => {
            let next = (end < checkpoint.size).then_some(end);
            Ok(ShowReport { vault: vault.id(), size: checkpoint.size, entries, next })
        }
    }
}

impl fmt::Display for CheckpointReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{} entries, root {}", self.size, self.root)?;
        writeln!(f, "Signed by the log key of vault {}.", self.vault)?;
        if let Some(file) = &self.file {
            writeln!(f, "Written to {}: `vaultctl log verify --since` takes it later.", file.display())?;
        }
        Ok(())
    }
}

impl fmt::Display for VerifyReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Verified: {} of vault {}", entries(self.size), self.vault)?;
        write!(f, ", each permitted by those before it, root {} as the log key signed it", self.root)?;
        if let Some(size) = self.continues {
            write!(f, ", continuing the older checkpoint of {size}")?;
        }
        if self.fresh {
            write!(f, ", and no older than what the keeper's own evidence named just now")?;
        }
        writeln!(f, ". The last entry is of {}.", moment(self.last_entry))?;
        if !self.fresh {
            writeln!(f, "Whether the keeper's log is longer is not known: --fresh asks it.")?;
        }
        Ok(())
    }
}

impl fmt::Display for ShowReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.entries.iter().try_for_each(|entry| write!(f, "{entry}"))?;
        match self.next {
            Some(next) => writeln!(f, "Of {} entries, all verified; go on with --from {next}", self.size),
            None => writeln!(f, "Of {} entries, all verified", self.size),
        }
    }
}
