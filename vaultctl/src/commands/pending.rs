//! `vaultctl pending`

use std::fmt;

use attestation::{Sha256Digest, UnixTime};
use serde::Serialize;

use crate::audit;
use crate::failure::Failure;
use crate::print::moment;
use crate::session::Session;
use crate::words::ProposalReport;

/// What waits for approvals, from the verified log.
#[derive(Debug, Serialize)]
pub(crate) struct PendingReport {
    vault: Sha256Digest,
    log_size: u64,
    log_time: UnixTime,
    pending: Vec<ProposalReport>,
}

pub(crate) async fn pending(session: &Session) -> Result<PendingReport, Failure> {
    let file = session.vault()?;
    let remote = session.remote(&file).await?;
    let log = audit::read_log(&remote, &file).await?;
    let (vault, now) = (log.vault()?, audit::moment_of(session.now(), log.state()));
    Ok(PendingReport {
        vault: file.id(),
        log_size: log.state().size(),
        log_time: log.state().time(),
        pending: vault.pending(now).map(|proposal| ProposalReport::new(proposal, vault, now)).collect(),
    })
}

impl fmt::Display for PendingReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.pending.is_empty() {
            writeln!(f, "Nothing waits for approvals.")?;
        }
        for proposal in &self.pending {
            writeln!(f, "{proposal}")?;
        }
        if !self.pending.is_empty() {
            writeln!(f, "Next: vaultctl approve OBJECT --vault FILE --key KEY")?;
        }
        writeln!(f, "By the verified log: {} entries, the last of {}", self.log_size, moment(self.log_time))
    }
}
