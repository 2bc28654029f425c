//! `vaultctl propose budget`: lets something through above a budget, once.

use std::fmt;

use attestation::{Sha256Digest, UnixTime};
use ledger::approvals::{ApprovalAction, ApprovalStatement, raise_object};
use ledger::entry::{ProposedRaise, RaiseAmounts};
use ledger::names::Name;
use ledger::policy::{AlarmThen, OverBudget};
use ledger::state::Vault;
use serde::Serialize;

use super::super::Submission;
use super::check_object;
use crate::audit;
use crate::cli::BudgetArgs;
use crate::failure::{Failure, Kind};
use crate::print::moment;
use crate::session::Session;
use crate::signing::{self, Signed};
use crate::words::raise_says;

/// A raise that was proposed.
#[derive(Debug, Serialize)]
pub(crate) struct RaiseReport {
    object: Sha256Digest,
    budget: Name,
    until: UnixTime,
    proposed_by: String,
    says: Vec<String>,
    threshold: u32,
    entry: u64,
}

pub(crate) async fn budget(session: &Session, args: &BudgetArgs) -> Result<Submission<RaiseReport>, Failure> {
    let (vault_file, signing) = (session.vault()?, &args.signing);
    let remote = session.remote_of_signer(&vault_file, signing).await?;
    let log = audit::read_log(&remote, &vault_file).await?;
    let (vault, now) = (log.vault()?, audit::moment_of(session.now(), log.state()));
    let policy = vault.policy();
    check_raisable(vault, &args.budget, args.amounts())?;
    let approvers = &policy.approval().approvers;
    signing::check_approver(signing, approvers)?;
    let until = until(session, args, now)?;
    let object = raise_object(&args.budget, args.amounts(), until);
    let mut raise = unsigned(args, object, until);
    let says = raise_says(&raise, vault, now);
    session.review(&format!("{}\n(--until {})", says.join("\n"), until.seconds()));
    let statement = ApprovalStatement {
        action: ApprovalAction::ProposeBudget,
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
    raise.statement = String::from_utf8(signature.statement).expect("what was signed is JSON");
    raise.signature = signature.armored;
    let proposal = remote.submit_raise(raise).await?;
    check_object(&proposal, object)?;
    Ok(Submission::Made(RaiseReport {
        object,
        budget: args.budget.clone(),
        until,
        proposed_by: signature.approver.to_string(),
        says,
        threshold: proposal.threshold,
        entry: proposal.entry,
    }))
}

/// From now on, or the end that was signed elsewhere: the object is over it.
fn until(session: &Session, args: &BudgetArgs, now: UnixTime) -> Result<UnixTime, Failure> {
    match (args.until, args.lasts) {
        (Some(until), _) => Ok(until),
        (None, Some(_)) if args.signing.signature.is_some() => Err(Failure::new(
            Kind::Usage,
            "raise-until",
            "the statement was signed over one moment at which the raise ends",
        )
        .next("give it with --until, as the command that printed the statement showed it")),
        (None, Some(lasts)) => Ok(now.max(session.now()).plus(lasts)),
        (None, None) => {
            Err(Failure::new(Kind::Usage, "raise-until", "a raise has an end").next("give --for or --until"))
        }
    }
}

fn unsigned(args: &BudgetArgs, object: Sha256Digest, until: UnixTime) -> ProposedRaise {
    let RaiseAmounts { bytes, releases, platforms, leases } = args.amounts();
    let (statement, signature) = (String::new(), String::new());
    ProposedRaise {
        object,
        budget: args.budget.clone(),
        bytes,
        releases,
        platforms,
        leases,
        until,
        statement,
        signature,
    }
}

/// Refuses here what the keeper would refuse, before anybody signs.
fn check_raisable(vault: &Vault, name: &Name, amounts: RaiseAmounts) -> Result<(), Failure> {
    let budgets = vault.policy().budgets();
    let refused = |code: &str, why: String| Failure::new(Kind::Usage, code, why);
    let alarms = vault.policy().alarms();
    let Some(budget) = budgets.get(name) else {
        if alarms.get(name).is_some_and(|rule| rule.then == AlarmThen::Hold) {
            return match amounts == (RaiseAmounts { releases: amounts.releases, ..RaiseAmounts::default() }) {
                true if amounts.releases > 0 => Ok(()),
                _ => Err(refused("raise-of-no-limit", format!("alarm {name} holds releases"))
                    .next("name how many to let through, and nothing else: --releases 1")),
            };
        }
        let names: Vec<String> = budgets.keys().chain(alarms.keys()).map(ToString::to_string).collect();
        let has = if names.is_empty() { "it has none".to_owned() } else { format!("it has {}", names.join(", ")) };
        return Err(refused("budget-unknown", format!("the policy in force has no budget {name}")).next(has));
    };
    match budget.over {
        OverBudget::Hold => {}
        OverBudget::Refuse => {
            return Err(refused("budget-not-raisable", format!("budget {name} says over = \"refuse\""))
                .next("only another policy lets more through: vaultctl propose policy"));
        }
    }
    let limits: Vec<&str> = budget.limits.keys().map(|unit| unit.key()).collect();
    let raised = budget.limits.keys().any(|unit| amounts.of(*unit) > 0);
    let other = ledger::policy::BudgetUnit::ALL
        .into_iter()
        .find(|unit| amounts.of(*unit) > 0 && !budget.limits.contains_key(unit));
    match (other, raised) {
        (Some(unit), _) => Err(refused("raise-of-no-limit", format!("budget {name} has no limit {}", unit.key()))
            .next(format!("it limits {}", limits.join(", ")))),
        (None, false) => Err(refused("raise-empty", "the raise lets nothing through".to_owned())
            .next("name an amount: --bytes, --releases, --platforms or --leases")),
        (None, true) => Ok(()),
    }
}

impl fmt::Display for RaiseReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{} proposed to raise budget {} (entry {}).", self.proposed_by, self.budget, self.entry)?;
        writeln!(f, "  object: {}", self.object)?;
        writeln!(f, "  ends:   {}", moment(self.until))?;
        writeln!(f, "Next: {} approvers run", self.threshold)?;
        writeln!(f, "  vaultctl approve {} --vault FILE --key KEY", self.object)
    }
}
