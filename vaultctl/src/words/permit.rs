//! Standing approvals and break-glass in words.

use ledger::entry::Release;
use ledger::permit::{Permit, PermitKind};
use ledger::state::{ActivePermit, State, UsedPermits, Vault};

use crate::print::{count_of, moment};

/// A permit with its end.
pub fn permit_in_words(permit: &Permit) -> String {
    format!("{permit}, until {}", moment(permit.until))
}

/// What is left of a permit that is in force.
pub fn active_in_words(active: &ActivePermit) -> String {
    let ActivePermit { entry, permit, left, .. } = active;
    format!("{}; {left} of {} left (entry {entry})", permit_in_words(permit), permit.releases)
}

/// What an approver of a permit has to know.
pub fn permit_says(permit: &Permit, vault: &Vault) -> Vec<String> {
    let mut says = vec![format!("LOOSER: {}", permit_in_words(permit))];
    says.push(match permit.kind {
        PermitKind::Standing => "each takes what its rule asks for; a policy that does not list it ends it".to_owned(),
        PermitKind::BreakGlass => {
            "they pass every budget, every alarm that holds, and the approvals that the rule asks for; each of them rings; \
             any policy ends it"
                .to_owned()
        }
    });
    let same = vault.permits().iter().filter(|active| {
        (&active.permit.rule, &active.permit.model, active.permit.kind) == (&permit.rule, &permit.model, permit.kind)
    });
    says.extend(same.map(|active| format!("there is already a {}", active_in_words(active))));
    if let Ok(threshold) = vault.permit_threshold(permit) {
        says.push(format!("takes {}", count_of(threshold.into(), "approval")));
    }
    says
}

/// What let a release through, beside its rule.
pub(super) fn passed_by(release: &Release, before: &State) -> String {
    let used = before.vault().and_then(|vault| vault.permits_used(release)).unwrap_or_default();
    let UsedPermits { standing, break_glass } = used;
    let standing = standing.map(|entry| format!("; by the standing approval of entry {entry}"));
    let glass = break_glass.map(|entry| format!("; BY THE BREAK-GLASS of entry {entry}"));
    [standing, glass].into_iter().flatten().collect()
}
