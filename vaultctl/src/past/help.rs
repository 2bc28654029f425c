//! What there was when something was refused, and what somebody would have to propose so that it passes.

use ledger::decide::DenialReason;
use ledger::entry::Deny;
use ledger::permit::PermitKind;
use ledger::policy::{BudgetUnit, OverBudget};
use ledger::state::{ActivePermit, BudgetExcess, BudgetRefusal, Vault};

use super::Why;
use crate::print::moment;
use crate::words::{active_in_words, used};

/// A refusal that came out the same again, with all that is known of it.
pub(super) fn explained(deny: &Deny, vault: &Vault, reason: &DenialReason) -> Why {
    let mut why = Why::from(reason);
    match reason {
        DenialReason::Budget(refusal) => {
            budget(&mut why, deny, vault, refusal);
        }
        DenialReason::HeldByAlarm { alarm, .. } => {
            why.facts.extend(vault.policy().alarms().get(alarm).map(|rule| format!("the alarm: {rule}")));
            why.facts.extend(raises(vault, alarm.as_str(), BudgetUnit::Releases));
            why.propose.push(command(&format!("propose budget {alarm} --releases 1 --for 1h")));
            why.propose.extend(break_glass(deny, vault));
        }
        DenialReason::NotApproved { .. } => {
            why.facts.extend(permits(deny, vault));
            why.propose.push(permit(deny, PermitKind::Standing, "1d"));
            why.propose.extend(break_glass(deny, vault));
        }
        DenialReason::TooManyLeases { rule, .. } => {
            let next = vault.leases(deny.time).filter(|(_, lease)| lease.rule == *rule);
            let next = next.map(|(_, lease)| lease.renew_by).min();
            why.facts.extend(next.map(|at| format!("the first of them ends at {}, unless it is renewed", moment(at))));
        }
        _ => {}
    }
    why
}

/// A refusal for a revocation.
pub(super) fn lift(vault: &Vault, entry: u64) -> Why {
    let mut why = Why::from(&DenialReason::Revoked { revocation: entry });
    if let Some((_, revocation)) = vault.revocations().find(|(index, _)| *index == entry) {
        let (scope, proposer, time) = (&revocation.scope, &revocation.proposer, moment(revocation.time));
        why.facts.push(format!("revoked: {scope}, proposed by {proposer}, since {time}"));
    }
    why.propose.push(command(&format!("revoke --lift {entry}")));
    why
}

fn budget(why: &mut Why, deny: &Deny, vault: &Vault, refusal: &BudgetRefusal) {
    let BudgetRefusal::Over(excess) = refusal else { return };
    let BudgetExcess { budget, of, unit, limit, used: counted, asked, raised, over, .. } = excess.as_ref();
    if *unit == BudgetUnit::Bytes {
        why.facts.push(format!(
            "how much it asked for is not in the log: {asked} bytes are the whole model, the most it can be"
        ));
    }
    let uses = vault.budget_uses(deny.time);
    let uses = uses.iter().filter(|line| (&line.budget, &line.of) == (budget, of));
    why.facts.extend(uses.map(|line| format!("used then: {}", used(line, deny.time))));
    why.facts.extend(raises(vault, budget.as_str(), *unit));
    match over {
        OverBudget::Refuse => {
            why.facts.push("the budget says over = \"refuse\": no raise lets more through".to_owned())
        }
        OverBudget::Hold => {
            let need = counted.saturating_add(*asked).saturating_sub(*limit).min(*asked).saturating_sub(*raised).max(1);
            let amount = match unit {
                BudgetUnit::Bytes => format!("--bytes {need}B"),
                BudgetUnit::Releases => format!("--releases {need}"),
                BudgetUnit::Platforms => format!("--platforms {need}"),
                BudgetUnit::Leases => format!("--leases {need}"),
            };
            why.propose.push(command(&format!("propose budget {budget} {amount} --for 1h")));
        }
    }
    why.propose.extend(break_glass(deny, vault));
}

/// The raises that there were, used up or not.
fn raises<'a>(vault: &'a Vault, name: &'a str, unit: BudgetUnit) -> impl Iterator<Item = String> + 'a {
    let of_name = vault.raises().iter().filter(move |raise| raise.budget.as_str() == name);
    of_name.map(move |raise| {
        let (left, until) = (raise.left.of(unit), moment(raise.until));
        format!("the raise of entry {} lets {left} {unit} more through, until {until}", raise.entry)
    })
}

/// The permits for such a release, and why each lets it not through.
fn permits(deny: &Deny, vault: &Vault) -> Vec<String> {
    let same = |active: &&ActivePermit| (&active.permit.rule, &active.permit.model) == (&deny.rule, &deny.model);
    let said: Vec<String> = vault.permits().iter().filter(same).map(|active| one(deny, active)).collect();
    match said.is_empty() {
        true => vec![format!("no permit for {} under rule {} was there", deny.model, deny.rule)],
        false => said,
    }
}

fn one(deny: &Deny, active: &ActivePermit) -> String {
    let ActivePermit { permit, left, .. } = active;
    let why_not = if *left == 0 {
        "it is used up"
    } else if deny.time > permit.until {
        "it is over"
    } else if permit.version.as_ref().is_some_and(|version| *version != deny.version) {
        "it is for another version"
    } else if permit.platform.is_some_and(|platform| platform != deny.platform) {
        "it is for another machine"
    } else {
        "it is for another measurement"
    };
    format!("{}; {why_not}", active_in_words(active))
}

fn break_glass(deny: &Deny, vault: &Vault) -> Option<String> {
    vault.policy().approval().break_glass_threshold.map(|_| permit(deny, PermitKind::BreakGlass, "1h"))
}

fn permit(deny: &Deny, kind: PermitKind, lasts: &str) -> String {
    let (kind, rule, model) = (kind.as_str(), &deny.rule, &deny.model);
    let (version, platform) = (&deny.version, &deny.platform);
    command(&format!(
        "propose {kind} {rule} --model {model} --version {version} --platform {platform} --releases 1 --for {lasts}"
    ))
}

/// As an approver types it, with a vault file and a key of his.
fn command(what: &str) -> String {
    format!("vaultctl {what} --vault FILE --key KEY")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::tests::takes;

    #[test]
    fn what_is_to_be_proposed_is_a_command() {
        let platform = format!("sha256:{}", "4".repeat(64));
        for what in [
            "propose budget fleet --releases 1 --for 1h",
            "propose budget fleet --bytes 17B --for 1h",
            "propose budget fleet --platforms 1 --for 1h",
            "propose budget fleet --leases 1 --for 1h",
            &format!("propose standing serve --model m --version 1 --platform {platform} --releases 1 --for 1d"),
            &format!("propose break-glass serve --model m --version 1 --platform {platform} --releases 1 --for 1h"),
            "revoke --lift 7",
        ] {
            assert!(takes(&command(what)), "{what}");
            assert!(!takes(&format!("vaultctl {what}")), "{what}: somebody has to sign");
        }
    }
}
