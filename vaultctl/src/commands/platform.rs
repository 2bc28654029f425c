//! `vaultctl platform`: EKs without a certificate.

use std::fmt;

use attestation::{Sha256Digest, Trust};
use ledger::approvals::{ApprovalAction, ApprovalStatement};
use ledger::entry::{PlatformAct, PlatformChange};
use ledger::names::Name;
use ledger::state::Vault;
use serde::Serialize;
use vault_proto::convert::PlatformSubmission;

use super::Submission;
use super::propose::check_object;
use crate::audit;
use crate::cli::Signing;
use crate::failure::{Failure, Kind};
use crate::print::indented;
use crate::session::Session;
use crate::signing::{self, Signed};
use crate::words::platform_in_words;

/// A change of the platforms that was proposed.
#[derive(Debug, Serialize)]
pub(crate) struct PlatformReport {
    object: Sha256Digest,
    act: &'static str,
    platform: Sha256Digest,
    label: String,
    counts_as: Trust,
    proposed_by: String,
    threshold: u32,
    entry: u64,
    effective: bool,
}

/// The enrolled platforms.
#[derive(Debug, Serialize)]
pub(crate) struct PlatformsReport {
    vault: Sha256Digest,
    /// Approvals that a change takes; none can be made where there is no `[platforms]`.
    threshold: Option<u32>,
    platforms: Vec<Enrolled>,
}

#[derive(Debug, Serialize)]
struct Enrolled {
    platform: Sha256Digest,
    label: String,
    counts_as: Trust,
    entry: u64,
}

/// What is asked for.
pub(crate) enum Wanted<'a> {
    Add { platform: Sha256Digest, label: &'a Name, counts_as: Trust },
    Remove { platform: Sha256Digest },
}

pub(crate) async fn propose(
    session: &Session,
    wanted: Wanted<'_>,
    signing: &Signing,
) -> Result<Submission<PlatformReport>, Failure> {
    let vault_file = session.vault()?;
    let remote = session.remote_of_signer(&vault_file, signing).await?;
    let log = audit::read_log(&remote, &vault_file).await?;
    let vault = log.vault()?;
    let in_force = vault.policy();
    if in_force.platform_threshold().is_none() {
        return Err(Failure::new(Kind::Usage, "platforms-not-allowed", "the policy in force lets nobody enrol EKs")
            .why("it has no [platforms]")
            .next(
                "propose a policy with [platforms] and its threshold, and rules with ek_without_certificate = true",
            ));
    }
    let approvers = &in_force.approval().approvers;
    signing::check_approver(signing, approvers)?;
    let change = change(vault, wanted)?;
    let says = platform_in_words(&change, vault).join("\n");
    session.review(&format!("Platform {}:\n{}", change.act.as_str(), indented(says)));
    let object = change.object();
    let statement = ApprovalStatement {
        action: ApprovalAction::ProposePlatform,
        object,
        previous: in_force.digest(),
        vault: vault.id(),
        serial: in_force.serial(),
        not_after: session.now().plus(signing.expires),
    };
    let signature = match signing::obtain(signing, &statement, approvers, session)? {
        Signed::Later(printed) => return Ok(Submission::Printed(printed)),
        Signed::Now(signature) => signature,
    };
    let (statement, armored) = (signature.statement, signature.armored);
    let submission = PlatformSubmission { change: change.clone(), statement, signature: armored };
    let proposal = remote.submit_platform(submission).await?;
    check_object(&proposal, object)?;
    Ok(Submission::Made(PlatformReport {
        object,
        act: change.act.as_str(),
        platform: change.platform,
        label: change.label.to_string(),
        counts_as: change.counts_as,
        proposed_by: signature.approver.to_string(),
        threshold: proposal.threshold,
        entry: proposal.entry,
        effective: proposal.effective,
    }))
}

pub(crate) async fn list(session: &Session) -> Result<PlatformsReport, Failure> {
    let file = session.vault()?;
    let remote = session.remote(&file).await?;
    let log = audit::read_log(&remote, &file).await?;
    let vault = log.vault()?;
    let platforms = vault.platforms().iter().map(|(platform, enrolled)| Enrolled {
        platform,
        label: enrolled.label.to_string(),
        counts_as: enrolled.counts_as,
        entry: enrolled.entry,
    });
    Ok(PlatformsReport {
        vault: file.id(),
        threshold: vault.policy().platform_threshold(),
        platforms: platforms.collect(),
    })
}

const LIST: &str = "vaultctl platform list --vault FILE";

/// The change, with its revision, as the verified log has it.
fn change(vault: &Vault, wanted: Wanted<'_>) -> Result<PlatformChange, Failure> {
    let enrolled = |platform| vault.platforms().get(platform);
    let change = match wanted {
        Wanted::Add { platform, label, counts_as } => {
            if let Some(enrolled) = enrolled(platform) {
                let what = format!("{platform} is enrolled already, as {}", enrolled.label);
                return Err(Failure::new(Kind::Usage, "platform-enrolled", what).next(LIST));
            }
            PlatformChange { act: PlatformAct::Add, platform, label: label.clone(), counts_as, revision: 0 }
        }
        Wanted::Remove { platform } => {
            let enrolled = enrolled(platform).ok_or_else(|| {
                Failure::new(Kind::Usage, "platform-not-enrolled", format!("{platform} is not enrolled")).next(LIST)
            })?;
            let (label, counts_as) = (enrolled.label.clone(), enrolled.counts_as);
            PlatformChange { act: PlatformAct::Remove, platform, label, counts_as, revision: 0 }
        }
    };
    let revision = vault.platforms().revision(change.platform);
    Ok(PlatformChange { revision, ..change })
}

impl fmt::Display for PlatformReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { act, label, counts_as, proposed_by, entry, .. } = self;
        writeln!(f, "{proposed_by} proposed: platform {act} {label} as {counts_as} (entry {entry}).")?;
        writeln!(f, "  EK:     {}\n  object: {}", self.platform, self.object)?;
        if self.effective {
            return writeln!(f, "It took effect.");
        }
        writeln!(f, "Next: {} approvers run", self.threshold)?;
        writeln!(f, "  vaultctl approve {} --vault FILE --key KEY", self.object)
    }
}

impl fmt::Display for PlatformsReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for enrolled in &self.platforms {
            let Enrolled { platform, label, counts_as, entry } = enrolled;
            writeln!(f, "{label}  {counts_as}  EK {platform} (entry {entry})")?;
        }
        if self.platforms.is_empty() {
            writeln!(f, "No EK without a certificate is enrolled.")?;
        }
        match self.threshold {
            Some(threshold) => writeln!(f, "A change takes {threshold} approvals: vaultctl platform add, remove"),
            None => writeln!(f, "The policy in force has no [platforms]: none can be enrolled."),
        }
    }
}
