//! `vaultctl propose …`

mod key_epoch;
mod leave;
mod reseal;

mod budget;
mod permit;

use std::fmt;
use std::path::Path;

use attestation::Sha256Digest;
use ledger::approvals::{ApprovalAction, ApprovalStatement};
use ledger::policy::{Lineage, Policy, describe_change};
use ledger::state::Vault;
use serde::Serialize;
use vault_proto::convert::{PolicySubmission, Proposal};

pub(crate) use budget::budget;
pub(crate) use permit::permit;

use super::Submission;
use super::policy::read_policy;
use crate::audit;
use crate::cli::Signing;
use crate::failure::{Failure, Kind};
use crate::session::Session;
use crate::signing::{self, Signed};
use crate::words::warnings;
pub(crate) use key_epoch::key_epoch;
pub(crate) use leave::leave;
pub(crate) use reseal::reseal;

/// A policy that was proposed.
#[derive(Debug, Serialize)]
pub(crate) struct ProposeReport {
    object: Sha256Digest,
    serial: u64,
    proposed_by: String,
    changes: Vec<String>,
    threshold: u32,
    entry: u64,
}

pub(crate) async fn policy(
    session: &Session,
    file: &Path,
    signing: &Signing,
) -> Result<Submission<ProposeReport>, Failure> {
    let vault_file = session.vault()?;
    let (proposed, text) = read_policy(file)?;
    let remote = session.remote_of_signer(&vault_file, signing).await?;
    let log = audit::read_log(&remote, &vault_file).await?;
    let vault = log.vault()?;
    let in_force = vault.policy();
    check_successor(vault, &proposed, file)?;
    let approvers = &in_force.approval().approvers;
    signing::check_approver(signing, approvers)?;
    let changes = describe_change(in_force, &proposed);
    session.review(&review(session, &proposed, &changes));
    let statement = ApprovalStatement {
        action: ApprovalAction::ProposePolicy,
        object: proposed.digest(),
        previous: in_force.digest(),
        vault: vault.id(),
        serial: in_force.serial(),
        not_after: session.now().plus(signing.expires),
    };
    let signature = match signing::obtain(signing, &statement, approvers, session)? {
        Signed::Later(printed) => return Ok(Submission::Printed(printed)),
        Signed::Now(signature) => signature,
    };
    let submission =
        PolicySubmission { policy: text.into_bytes(), statement: signature.statement, signature: signature.armored };
    let proposal = remote.submit_policy(submission).await?;
    check_object(&proposal, proposed.digest())?;
    Ok(Submission::Made(ProposeReport {
        object: proposed.digest(),
        serial: proposed.serial(),
        proposed_by: signature.approver.to_string(),
        changes,
        threshold: proposal.threshold,
        entry: proposal.entry,
    }))
}

/// The keeper's answer must be about what was submitted.
pub(crate) fn check_object(proposal: &Proposal, object: Sha256Digest) -> Result<(), Failure> {
    if proposal.object == object {
        return Ok(());
    }
    Err(Failure::new(Kind::NotVerified, "answer-other-object", "the answer is about another proposal")
        .why(format!("submitted {object}, and the answer names {}", proposal.object))
        .next("`vaultctl pending --vault FILE` shows what the verified log has"))
}

/// Refuses a policy that can't follow on the one in force: the keeper would.
fn check_successor(vault: &Vault, proposed: &Policy, file: &Path) -> Result<(), Failure> {
    let in_force = vault.policy();
    let serial = in_force.serial().saturating_add(1);
    let expected = Lineage::Successor { vault: vault.id(), serial, prev: in_force.digest() };
    if proposed.lineage() == expected {
        return Ok(());
    }
    Err(Failure::new(
        Kind::Usage,
        "policy-lineage",
        format!("{} does not follow on the policy in force", file.display()),
    )
    .next(format!("write in it: vault = \"{}\", serial = {serial}, prev = \"{}\"", vault.id(), in_force.digest())))
}

fn review(session: &Session, proposed: &Policy, changes: &[String]) -> String {
    let mut text = format!("Policy {}, {}, changes:\n", proposed.serial(), proposed.digest());
    if changes.is_empty() {
        text.push_str("  nothing that is decided by\n");
    }
    changes.iter().for_each(|change| text.push_str(&format!("  {change}\n")));
    warnings(proposed, session.now()).iter().for_each(|warning| text.push_str(&format!("! {warning}\n")));
    text
}

impl fmt::Display for ProposeReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{} proposed policy {} (entry {}).", self.proposed_by, self.serial, self.entry)?;
        writeln!(f, "  object: {}", self.object)?;
        writeln!(f, "Next: {} approvers run", self.threshold)?;
        writeln!(f, "  vaultctl approve {} --vault FILE --key KEY", self.object)
    }
}
