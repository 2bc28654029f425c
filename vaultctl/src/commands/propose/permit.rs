//! `vaultctl propose standing` and `break-glass`: lets be released what waits for approvers.

use std::fmt;

use attestation::{Sha256Digest, UnixTime};
use ledger::approvals::ApprovalStatement;
use ledger::entry::ProposedPermit;
use ledger::permit::{PERMIT_RELEASES_MAX, Permit, PermitKind};
use ledger::state::{FoldError, Vault};
use serde::Serialize;

use super::super::Submission;
use super::check_object;
use crate::audit;
use crate::cli::PermitArgs;
use crate::failure::{Failure, Kind};
use crate::print::{moment, span};
use crate::session::Session;
use crate::signing::{self, Signed};
use crate::words::permit_says;

/// A permit that was proposed.
#[derive(Debug, Serialize)]
pub(crate) struct PermitReport {
    object: Sha256Digest,
    permit: Permit,
    proposed_by: String,
    says: Vec<String>,
    threshold: u32,
    entry: u64,
}

pub(crate) async fn permit(
    session: &Session,
    kind: PermitKind,
    args: &PermitArgs,
) -> Result<Submission<PermitReport>, Failure> {
    let (vault_file, signing) = (session.vault()?, &args.signing);
    let remote = session.remote_of_signer(&vault_file, signing).await?;
    let log = audit::read_log(&remote, &vault_file).await?;
    let (vault, now) = (log.vault()?, audit::moment_of(session.now(), log.state()).max(session.now()));
    let policy = vault.policy();
    let permit = args.permit(kind, until(args, now)?);
    check(vault, &permit, now)?;
    let approvers = &policy.approval().approvers;
    signing::check_approver(signing, approvers)?;
    let says = permit_says(&permit, vault);
    session.review(&format!("{}\n(--until {})", says.join("\n"), permit.until.seconds()));
    let object = permit.object();
    let statement = ApprovalStatement {
        action: kind.proposal(),
        object,
        previous: policy.digest(),
        vault: vault.id(),
        serial: policy.serial(),
        not_after: session.now().plus(signing.expires),
    };
    let signature = match signing::obtain(signing, &statement, approvers, session)? {
        Signed::Later(printed) => return Ok(Submission::Printed(printed)),
        Signed::Now(signature) => signature,
    };
    let proposed = ProposedPermit {
        object,
        permit: permit.clone(),
        statement: String::from_utf8(signature.statement).expect("what was signed is JSON"),
        signature: signature.armored,
    };
    let proposal = remote.submit_permit(proposed).await?;
    check_object(&proposal, object)?;
    Ok(Submission::Made(PermitReport {
        object,
        permit,
        proposed_by: signature.approver.to_string(),
        says,
        threshold: proposal.threshold,
        entry: proposal.entry,
    }))
}

/// From now on, or the end that was signed elsewhere: the object is over it.
fn until(args: &PermitArgs, now: UnixTime) -> Result<UnixTime, Failure> {
    match (args.until, args.lasts) {
        (Some(until), _) => Ok(until),
        (None, Some(_)) if args.signing.signature.is_some() => Err(Failure::new(
            Kind::Usage,
            "permit-until",
            "the statement was signed over one moment at which the permit ends",
        )
        .next("give it with --until, as the command that printed the statement showed it")),
        (None, Some(lasts)) => Ok(now.plus(lasts)),
        (None, None) => {
            Err(Failure::new(Kind::Usage, "permit-until", "a permit has an end").next("give --for or --until"))
        }
    }
}

/// Refuses here what the keeper would refuse, before anybody signs.
fn check(vault: &Vault, permit: &Permit, now: UnixTime) -> Result<(), Failure> {
    let names = |names: Vec<String>| match names.is_empty() {
        true => "it has none".to_owned(),
        false => format!("it has {}", names.join(", ")),
    };
    vault.permit_threshold(permit).map_err(|error| {
        let next = match error {
            FoldError::RuleUnknown => {
                names(vault.policy().release_rules().keys().map(|name| format!("release.{name}")).collect())
            }
            _ => "only another policy changes that: vaultctl propose policy".to_owned(),
        };
        Failure::new(Kind::Usage, error.code(), error.to_string()).next(next)
    })?;
    if permit.releases == 0 || permit.releases > PERMIT_RELEASES_MAX {
        let error = FoldError::PermitReleases { releases: permit.releases };
        return Err(Failure::new(Kind::Usage, error.code(), error.to_string()).next("give another number: --releases"));
    }
    let secs_max = permit.kind.secs_max();
    if permit.until < now || permit.until > now.plus(secs_max) {
        let error = FoldError::PermitUntil { kind: permit.kind, until: permit.until };
        return Err(Failure::new(Kind::Usage, error.code(), error.to_string())
            .next(format!("it may last {} at most: --for", span(secs_max))));
    }
    Ok(())
}

impl fmt::Display for PermitReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{} proposed a {} (entry {}).", self.proposed_by, self.permit, self.entry)?;
        writeln!(f, "  object: {}", self.object)?;
        writeln!(f, "  ends:   {}", moment(self.permit.until))?;
        writeln!(f, "Next: {} approvers run", self.threshold)?;
        writeln!(f, "  vaultctl approve {} --vault FILE --key KEY", self.object)
    }
}
