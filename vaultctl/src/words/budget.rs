//! Budgets, raises and clock jumps in words.

use attestation::UnixTime;
use ledger::entry::{AlarmEntry, ClockJump, ProposedRaise};
use ledger::policy::BudgetUnit;
use ledger::state::{BudgetUse, State, Vault};

use crate::print::{distance, moment, size, span};

/// `budget daily by 3 releases in one hour until 2026-…`.
pub(super) fn raise_in_words(raise: &ProposedRaise) -> String {
    let amounts = raise.amounts();
    let parts = BudgetUnit::ALL.into_iter().filter(|unit| amounts.of(*unit) > 0);
    let parts: Vec<String> = parts.map(|unit| amount(unit, amounts.of(unit))).collect();
    format!("budget {} by {}, once, until {}", raise.budget, parts.join(" and "), moment(raise.until))
}

/// What an approver of a raise has to know: what it lets through, what the budget is, and what of it is used.
pub fn raise_says(raise: &ProposedRaise, vault: &Vault, now: UnixTime) -> Vec<String> {
    let mut says = vec![format!("LOOSER: raises {}", raise_in_words(raise))];
    let policy = vault.policy();
    match (policy.budgets().get(&raise.budget), policy.alarms().get(&raise.budget)) {
        (Some(budget), _) => says.push(format!("the budget: {budget}")),
        (None, Some(rule)) => says.push(format!("it lets through what this alarm holds: {rule}")),
        (None, None) => says.push("the policy in force has neither a budget nor an alarm of this name".to_owned()),
    }
    let uses = vault.budget_uses(now);
    says.extend(uses.iter().filter(|line| line.budget == raise.budget).map(|line| format!("now: {}", used(line, now))));
    says
}

/// A line of `status`.
pub fn used(line: &BudgetUse, now: UnixTime) -> String {
    let BudgetUse { budget, of, unit, limit, raised, frees_at, .. } = line;
    let mut text = format!("{budget}, {of}: {} of {}", number(*unit, line.used), amount(*unit, *limit));
    if *raised > 0 {
        text.push_str(&format!(", and {} raised", number(*unit, *raised)));
    }
    if let Some(at) = frees_at {
        text.push_str(&format!("; the oldest counts until {} ({})", moment(*at), distance(*at, now)));
    }
    text
}

/// What a clock entry means.
pub(super) fn clock_jump(jump: &ClockJump) -> String {
    format!("THE KEEPER'S CLOCK WAS SET AHEAD by {}: no budget refills by it", span(jump.unmeasured))
}

/// What an alarm entry means: each rule with what it rings on.
pub(super) fn alarm_rings(alarm: &AlarmEntry, before: &State) -> String {
    let rules = before.vault().map(|vault| vault.policy().alarms());
    let words = alarm.rules.iter().map(|name| match rules.and_then(|rules| rules.get(name)) {
        Some(rule) => format!("{name} ({})", rule.on),
        None => name.to_string(),
    });
    let words: Vec<String> = words.collect();
    format!("ALARM: {}; the release with lease {} follows", words.join(", "), alarm.lease)
}

fn amount(unit: BudgetUnit, amount: u64) -> String {
    match unit {
        // Exact: it is what somebody signs.
        BudgetUnit::Bytes => format!("{amount} {unit} ({})", size(amount)),
        BudgetUnit::Releases | BudgetUnit::Platforms | BudgetUnit::Leases => format!("{amount} {unit}"),
    }
}

fn number(unit: BudgetUnit, amount: u64) -> String {
    match unit {
        BudgetUnit::Bytes => size(amount),
        BudgetUnit::Releases | BudgetUnit::Platforms | BudgetUnit::Leases => amount.to_string(),
    }
}
