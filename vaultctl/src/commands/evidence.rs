//! `vaultctl evidence …`

mod captured;
mod entry;
mod event_log;
mod show;

use std::fmt;

use attestation::Sha256Digest;
use serde::Serialize;

pub(crate) use captured::verify as verify_captured;
pub(crate) use entry::verify_entry;
pub(crate) use event_log::verify as verify_event_log;
pub(crate) use show::show;

use crate::failure::Failure;
use crate::keeper;
use crate::print::indented;
use crate::session::Session;
use crate::words::ClaimsReport;

/// What the keeper proved just now.
#[derive(Debug, Serialize)]
pub(crate) struct KeeperReport {
    verified: bool,
    vault: Sha256Digest,
    policy: Sha256Digest,
    log_size: u64,
    log_root: Sha256Digest,
    claims: ClaimsReport,
}

pub(crate) async fn verify_keeper(session: &Session) -> Result<KeeperReport, Failure> {
    let vault = session.vault()?;
    let remote = session.remote(&vault).await?;
    let run = keeper::vault_run(&remote, &vault, session).await?;
    Ok(KeeperReport {
        verified: true,
        vault: run.verified.statement().vault(),
        policy: run.verified.statement().policy(),
        log_size: run.checkpoint.size,
        log_root: Sha256Digest::from_bytes(run.checkpoint.root),
        claims: ClaimsReport::from(run.verified.claims()),
    })
}

impl fmt::Display for KeeperReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "Verified now, with a nonce of this run: the keeper of vault {}", self.vault)?;
        writeln!(f, "  policy in force: {}", self.policy)?;
        writeln!(f, "  log:             {} entries, root {}", self.log_size, self.log_root)?;
        f.write_str(&indented(&self.claims))
    }
}
