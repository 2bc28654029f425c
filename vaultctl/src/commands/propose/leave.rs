//! `vaultctl propose keeper-leave`

use std::fmt;

use attestation::Sha256Digest;
use ledger::approvals::{ApprovalAction, ApprovalStatement};
use ledger::keepers::leave_object;
use serde::Serialize;
use vault_proto::convert::LeaveSubmission;

use super::{Submission, check_object};
use crate::audit;
use crate::cli::ProposeLeaveArgs;
use crate::failure::{Failure, Kind};
use crate::session::Session;
use crate::signing::{self, Signed};
use crate::words::leave_in_words;

/// That a keeper leaves was proposed.
#[derive(Debug, Serialize)]
pub(crate) struct LeaveReport {
    object: Sha256Digest,
    instance: String,
    proposed_by: String,
    threshold: u32,
    entry: u64,
}

pub(crate) async fn leave(session: &Session, args: &ProposeLeaveArgs) -> Result<Submission<LeaveReport>, Failure> {
    let vault_file = session.vault()?;
    let remote = session.remote_of_signer(&vault_file, &args.signing).await?;
    let log = audit::read_log(&remote, &vault_file).await?;
    let vault = log.vault()?;
    let instance = args.instance;
    vault
        .check_leave(instance)
        .map_err(|error| Failure::new(Kind::Usage, error.code(), "that keeper can't leave").why(error))?;
    let approvers = &vault.policy().approval().approvers;
    signing::check_approver(&args.signing, approvers)?;
    session.review(&leave_in_words(instance, vault).join("\n"));
    let revision = vault.keepers().revision();
    let object = leave_object(vault.id(), revision, instance);
    let statement = ApprovalStatement {
        action: ApprovalAction::ProposeKeeperLeave,
        object,
        previous: vault.policy().digest(),
        vault: vault.id(),
        serial: vault.policy().serial(),
        not_after: session.now().plus(args.signing.expires),
    };
    let signature = match signing::obtain(&args.signing, &statement, approvers, session)? {
        Signed::Later(printed) => return Ok(Submission::Printed(printed)),
        Signed::Now(signature) => signature,
    };
    let (statement, armored) = (signature.statement.clone(), signature.armored.clone());
    let submission = LeaveSubmission { revision, instance, statement, signature: armored };
    let proposal = remote.submit_keeper_leave(submission).await?;
    check_object(&proposal, object)?;
    Ok(Submission::Made(LeaveReport {
        object,
        instance: hex::encode(instance),
        proposed_by: signature.approver.to_string(),
        threshold: proposal.threshold,
        entry: proposal.entry,
    }))
}

impl fmt::Display for LeaveReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{} proposed that keeper {} leaves (entry {}).", self.proposed_by, self.instance, self.entry)?;
        writeln!(f, "  object: {}", self.object)?;
        writeln!(f, "Next: {} approvers run", self.threshold)?;
        writeln!(f, "  vaultctl approve {} --vault FILE --key KEY", self.object)
    }
}
