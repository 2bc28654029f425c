//! `vaultctl revoke`: proposes and signs; where no other approval is missing, waits until the leases have ended.

use std::fmt;
use std::time::{Duration, Instant};

use attestation::{Sha256Digest, UnixTime};
use ledger::approvals::ApprovalStatement;
use ledger::revocation::{RevocationAct, Scope};
use ledger::state::Vault;
use ledger::vault_file::VaultFile;
use serde::Serialize;
use vault_proto::convert::RevocationSubmission;

use super::Submission;
use super::leases::worst_case;
use super::propose::check_object;
use crate::audit::{self, VerifiedLog};
use crate::cli::RevokeArgs;
use crate::client::Remote;
use crate::failure::Failure;
use crate::print::{count_of, moment};
use crate::session::Session;
use crate::signing::{self, Signed};
use crate::words::act_in_words;

/// How often the log is asked whether leases have ended.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// A revocation, or a lift, that was proposed.
#[derive(Debug, Serialize)]
pub(crate) struct RevokeReport {
    object: Sha256Digest,
    what: String,
    proposed_by: String,
    effective: bool,
    approvals: usize,
    threshold: u32,
    /// What became of the leases; only where it is in force.
    #[serde(skip_serializing_if = "Option::is_none")]
    leases: Option<Ends>,
}

/// What became of the leases that a revocation ended.
#[derive(Debug, Serialize)]
struct Ends {
    /// Their holders said so.
    ended: Vec<Sha256Digest>,
    /// Their time is over, and nobody said anything.
    ran_out: Vec<Sha256Digest>,
    /// Neither yet.
    open: Vec<Sha256Digest>,
    /// Last moment of the open ones.
    #[serde(skip_serializing_if = "Option::is_none")]
    last_ends_by: Option<UnixTime>,
    #[serde(skip)]
    now: UnixTime,
}

pub(crate) async fn revoke(session: &Session, args: &RevokeArgs) -> Result<Submission<RevokeReport>, Failure> {
    let file = session.vault()?;
    let remote = session.remote_of_signer(&file, &args.signing).await?;
    let log = audit::read_log(&remote, &file).await?;
    let (vault, now) = (log.vault()?, audit::moment_of(session.now(), log.state()));
    let act = act(args, vault);
    let approvers = &vault.policy().approval().approvers;
    signing::check_approver(&args.signing, approvers)?;
    session.review(&review(&act, vault, now));
    let object = act.object();
    let statement = ApprovalStatement {
        action: act.kind().approval(),
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
    let what = act_in_words(&act, Some(vault));
    let submission =
        RevocationSubmission { revocation: act.encode(), statement: signature.statement, signature: signature.armored };
    let proposal = remote.submit_revocation(submission).await?;
    check_object(&proposal, object)?;
    let leases = match &act {
        RevocationAct::Revoke { scope, .. } if proposal.effective => {
            let covered = vault.leases_covered(scope, now);
            let covered = covered.into_iter().filter_map(|id| Some((id, vault.lease(id)?.renew_by))).collect();
            Some(ends(session, args, &remote, &file, log, covered).await?)
        }
        RevocationAct::Revoke { .. } | RevocationAct::Lift { .. } => None,
    };
    Ok(Submission::Made(RevokeReport {
        object,
        what,
        proposed_by: signature.approver.to_string(),
        effective: proposal.effective,
        approvals: proposal.approved_by.len(),
        threshold: proposal.threshold,
        leases,
    }))
}

fn act(args: &RevokeArgs, vault: &Vault) -> RevocationAct {
    let what = &args.what;
    let scope = match (&what.model, &what.group, what.platform, &what.measurement, what.lease) {
        (Some(model), ..) => Scope::Model { model: model.clone(), version: args.version.clone() },
        (_, Some(group), ..) => Scope::Group { group: group.clone() },
        (_, _, Some(platform), ..) => Scope::Platform { platform },
        (_, _, _, Some(measurement), _) => measurement.clone(),
        (_, _, _, _, Some(lease)) => Scope::Lease { lease },
        // The command line has exactly one of them.
        (None, None, None, None, None) => return RevocationAct::Lift { entry: what.lift.unwrap_or_default() },
    };
    RevocationAct::Revoke { serial: vault.next_revocation(), scope }
}

/// What somebody is about to sign.
fn review(act: &RevocationAct, vault: &Vault, now: UnixTime) -> String {
    let approval = vault.policy().approval();
    let mut text = format!("To {}.\n", act_in_words(act, Some(vault)));
    match act {
        RevocationAct::Revoke { scope, .. } => {
            let covered = vault.leases_covered(scope, now);
            let last = covered.iter().filter_map(|id| vault.lease(*id)).map(|lease| vault.ends_by(lease, now)).max();
            match last {
                None => text.push_str("  no running lease is covered: look twice at what it names\n"),
                Some(last) => text.push_str(&format!("  {}\n", worst_case(covered.len(), last, now))),
            }
            text.push_str(&format!(
                "  takes {}, yours included\n",
                count_of(approval.revoke_threshold.into(), "approval")
            ));
        }
        RevocationAct::Lift { .. } => {
            text.push_str("  LOOSER: it may be released again\n");
            text.push_str(&format!("  takes {}\n", count_of(approval.threshold.into(), "approval")));
        }
    }
    text
}

/// Follows the log until every lease of the revocation has ended or run out, or does not wait.
async fn ends(
    session: &Session,
    args: &RevokeArgs,
    remote: &Remote,
    file: &VaultFile,
    mut log: VerifiedLog,
    mut open: Vec<(Sha256Digest, UnixTime)>,
) -> Result<Ends, Failure> {
    let begun = Instant::now();
    let before = log.state().size();
    let mut ends =
        Ends { ended: Vec::new(), ran_out: Vec::new(), open: Vec::new(), last_ends_by: None, now: session.now() };
    loop {
        log = audit::read_on(remote, file, log).await?;
        let vault = log.vault()?;
        let now = audit::moment_of(session.now().plus(begun.elapsed().as_secs()), log.state());
        // Those that came between.
        let others = vault.leases(now).filter(|(_, lease)| lease.revoked.is_some_and(|entry| entry >= before));
        let others: Vec<_> = others.map(|(id, lease)| (id, lease.renew_by)).collect();
        let known =
            |id| ends.ended.contains(&id) || ends.ran_out.contains(&id) || open.iter().any(|(open, _)| *open == id);
        let others: Vec<_> = others.into_iter().filter(|(id, _)| !known(*id)).collect();
        open.extend(others);
        let mut left = Vec::new();
        for (id, renew_by) in std::mem::take(&mut open) {
            match vault.lease(id) {
                Some(lease) if now <= vault.ends_by(lease, now) => left.push((id, lease.renew_by)),
                None if log.state().time() <= renew_by => {
                    session.review(&format!("{} ended: {id}", moment(now)));
                    ends.ended.push(id);
                }
                Some(_) | None => {
                    session.review(&format!("{} ran out, its holder said nothing: {id}", moment(now)));
                    ends.ran_out.push(id);
                }
            }
        }
        ends.open = left.iter().map(|(id, _)| *id).collect();
        ends.last_ends_by =
            ends.open.iter().filter_map(|id| vault.lease(*id)).map(|lease| vault.ends_by(lease, now)).max();
        ends.now = now;
        if left.is_empty() || args.no_wait {
            return Ok(ends);
        }
        open = left;
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

impl fmt::Display for RevokeReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { object, what, proposed_by, approvals, threshold, .. } = self;
        if !self.effective {
            writeln!(f, "{proposed_by} proposed to {what}.")?;
            writeln!(f, "  object: {object}")?;
            writeln!(f, "  approved by {approvals} of {threshold}")?;
            writeln!(f, "Next: other approvers run")?;
            return writeln!(f, "  vaultctl approve {object} --vault FILE --key KEY");
        }
        writeln!(f, "In force, proposed by {proposed_by}: {what}.")?;
        let Some(ends) = &self.leases else { return Ok(()) };
        let all = ends.ended.len() + ends.ran_out.len() + ends.open.len();
        if all == 0 {
            return writeln!(f, "  no lease was running of it");
        }
        writeln!(f, "  {} of {} ended by their holders", ends.ended.len(), count_of(all as u64, "lease"))?;
        if !ends.ran_out.is_empty() {
            writeln!(f, "  {} ran out: their holders said nothing", ends.ran_out.len())?;
        }
        match ends.last_ends_by {
            Some(last) => {
                writeln!(f, "  {}", worst_case(ends.open.len(), last, ends.now))?;
                writeln!(f, "Next: vaultctl leases --vault FILE shows which are left")
            }
            None => writeln!(f, "  nothing of it runs any more"),
        }
    }
}
