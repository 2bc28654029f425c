//! `vaultctl approve`: what is approved is read from the verified log, checked against its digest, shown in words, and
//! only then signed.

mod model;

use std::fmt;

use attestation::{Sha256Digest, UnixTime};
use ledger::approvals::{ApprovalAction, ApprovalStatement};
use ledger::state::{PendingProposal, Subject, Vault};
use ledger::vault_file::VaultFile;
use serde::Serialize;
use vault_proto::convert::{Approval, Proposal};

use super::Submission;
use super::propose::check_object;
use crate::audit::{self, VerifiedLog};
use crate::cli::ApproveArgs;
use crate::client::Remote;
use crate::failure::{Failure, Kind};
use crate::keeper;
use crate::print::moment;
use crate::session::Session;
use crate::signing::{self, Signature, Signed};
use crate::words::ProposalReport;

/// An approval that was given.
#[derive(Debug, Serialize)]
pub(crate) struct ApproveReport {
    object: Sha256Digest,
    approved_by: String,
    counts_until: UnixTime,
    all_approved_by: Vec<String>,
    threshold: u32,
    effective: bool,
}

pub(crate) async fn approve(session: &Session, args: &ApproveArgs) -> Result<Submission<ApproveReport>, Failure> {
    let file = session.vault()?;
    let remote = session.remote_of_signer(&file, &args.signing).await?;
    let log = audit::read_log(&remote, &file).await?;
    let (vault, now) = (log.vault()?, audit::moment_of(session.now(), log.state()));
    let proposal = find(vault, args, now)?;
    let approvers = &vault.policy().approval().approvers;
    signing::check_approver(&args.signing, approvers)?;
    let action = match proposal.subject() {
        // The fold has checked that the object is the digest of this text.
        Subject::Policy { .. } => ApprovalAction::Policy,
        Subject::Platform { .. } => ApprovalAction::Platform,
        Subject::Reseal { .. } => ApprovalAction::Reseal,
        Subject::Join(_) => ApprovalAction::KeeperJoin,
        Subject::Escrow { .. } => ApprovalAction::Escrow,
        // The keeper that writes it writes its effect too: it never waits in a log that anybody reads.
        Subject::Recover(_) => ApprovalAction::Recover,
        Subject::Leave { .. } => ApprovalAction::KeeperLeave,
        Subject::KeyEpoch { .. } => {
            check_keeper(session, (&remote, &file), &log, proposal).await?;
            ApprovalAction::KeyEpoch
        }
        Subject::Raise { .. } => ApprovalAction::Budget,
        Subject::Permit { permit, .. } => permit.kind.approval(),
        Subject::Model(proposed) => {
            model::check(&remote, vault, proposed).await?;
            ApprovalAction::Model
        }
        Subject::Revocation { act, .. } => act.kind().approval(),
    };
    session.review(&ProposalReport::new(proposal, vault, now).to_string());
    let statement = ApprovalStatement {
        action,
        object: proposal.object(),
        previous: vault.policy().digest(),
        vault: vault.id(),
        serial: vault.policy().serial(),
        not_after: session.now().plus(args.signing.expires),
    };
    let signature = match signing::obtain(&args.signing, &statement, approvers, session)? {
        Signed::Later(printed) => return Ok(Submission::Printed(printed)),
        Signed::Now(signature) => signature,
    };
    let approval =
        Approval { statement: signature.statement.clone(), signature: signature.armored.clone(), witness: None };
    let answer = remote.submit_approval(approval).await?;
    check_object(&answer, proposal.object())?;
    Ok(Submission::Made(ApproveReport::new(&signature, &answer)))
}

/// That the keys come from the keeper: it shows itself anew, over a log in which it has written them. A log key that an older
/// image still has could sign another log, which the keeper does not quote.
async fn check_keeper(
    session: &Session,
    (remote, file): (&Remote, &VaultFile),
    read: &VerifiedLog,
    proposal: &PendingProposal,
) -> Result<(), Failure> {
    let quoted = keeper::vault_run(remote, file, session).await?.checkpoint;
    let now = audit::read_log(remote, file).await?;
    now.check_continues(&read.checkpoint())?;
    now.check_continues(&quoted)?;
    if quoted.size > proposal.entry() {
        return Ok(());
    }
    Err(Failure::new(Kind::NotVerified, "epoch-not-shown", "the keeper did not show that it proposed these keys")
        .why("its evidence is of a log that ends before the proposal")
        .next("ask again; do not approve keys that the keeper does not show"))
}

fn find<'a>(vault: &'a Vault, args: &ApproveArgs, now: UnixTime) -> Result<&'a PendingProposal, Failure> {
    let found = match args.object {
        Some(object) => vault.pending(now).find(|proposal| proposal.object() == object),
        // Without a person to look at it, "the newest" is whatever somebody has just slipped in.
        None if args.signing.yes && vault.pending(now).nth(1).is_some() => {
            return Err(Failure::new(Kind::Usage, "proposal-ambiguous", "several proposals wait for approvals")
                .why("with --yes nobody would see which one is the newest")
                .next("name it: `vaultctl pending --vault FILE` lists them"));
        }
        None => vault.pending(now).last(),
    };
    found.ok_or_else(|| {
        Failure::new(Kind::Usage, "proposal-unknown", "no such proposal waits for approvals")
            .why("it has taken effect, ran out, was voided by a change of policy, or was never made")
            .next("`vaultctl pending --vault FILE` lists what waits")
    })
}

impl ApproveReport {
    fn new(signature: &Signature, proposal: &Proposal) -> Self {
        Self {
            object: proposal.object,
            approved_by: signature.approver.to_string(),
            counts_until: signature.not_after,
            all_approved_by: proposal.approved_by.iter().map(ToString::to_string).collect(),
            threshold: proposal.threshold,
            effective: proposal.effective,
        }
    }
}

impl fmt::Display for ApproveReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{} approved {}.", self.approved_by, self.object)?;
        if self.effective {
            return writeln!(f, "It took effect.");
        }
        writeln!(f, "  approved by: {}; it takes {}", self.all_approved_by.join(", "), self.threshold)?;
        writeln!(f, "  your approval counts until {}", moment(self.counts_until))
    }
}
