//! `vaultctl propose key-epoch`

use std::fmt;

use attestation::Sha256Digest;
use ledger::approvals::{ApprovalAction, ApprovalStatement};
use ledger::key_epoch::NextEpoch;
use serde::Serialize;
use vault_proto::convert::KeyEpochSubmission;

use super::Submission;
use crate::audit;
use crate::cli::Signing;
use crate::failure::Failure;
use crate::session::Session;
use crate::signing::{self, Signed};

/// Keys that the keeper made and that were proposed.
#[derive(Debug, Serialize)]
pub(crate) struct KeyEpochReport {
    object: Sha256Digest,
    epoch: u32,
    proposed_by: String,
    threshold: u32,
    entry: u64,
}

pub(crate) async fn key_epoch(session: &Session, signing: &Signing) -> Result<Submission<KeyEpochReport>, Failure> {
    let vault_file = session.vault()?;
    let remote = session.remote_of_signer(&vault_file, signing).await?;
    let log = audit::read_log(&remote, &vault_file).await?;
    let vault = log.vault()?;
    let approvers = &vault.policy().approval().approvers;
    signing::check_approver(signing, approvers)?;
    let epoch = vault.epochs().present().epoch.saturating_add(1);
    session.review(&format!(
        "asks the keeper to make keys for epoch {epoch}; approvers decide on them once it has made them\n"
    ));
    let statement = ApprovalStatement {
        action: ApprovalAction::ProposeKeyEpoch,
        object: NextEpoch::request(vault.id(), epoch, &vault.keepers().current().instance),
        previous: vault.policy().digest(),
        vault: vault.id(),
        serial: vault.policy().serial(),
        not_after: session.now().plus(signing.expires),
    };
    let signature = match signing::obtain(signing, &statement, approvers, session)? {
        Signed::Later(printed) => return Ok(Submission::Printed(printed)),
        Signed::Now(signature) => signature,
    };
    let submission =
        KeyEpochSubmission { statement: signature.statement.clone(), signature: signature.armored.clone() };
    let proposal = remote.submit_key_epoch(submission).await?;
    Ok(Submission::Made(KeyEpochReport {
        object: proposal.object,
        epoch,
        proposed_by: signature.approver.to_string(),
        threshold: proposal.threshold,
        entry: proposal.entry,
    }))
}

impl fmt::Display for KeyEpochReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{} proposed keys of epoch {}, which the keeper made (entry {}).",
            self.proposed_by, self.epoch, self.entry
        )?;
        writeln!(f, "  object: {}", self.object)?;
        writeln!(f, "Next: {} approvers run", self.threshold)?;
        writeln!(f, "  vaultctl approve {} --vault FILE --key KEY", self.object)
    }
}
