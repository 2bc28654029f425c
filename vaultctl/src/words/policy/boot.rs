//! A rule on events in words.

use ledger::policy::{BootRule, PcrRule, Permitted, SecureBoot};

/// What must have been booted, a sentence each.
pub(super) fn says(rule: &PcrRule) -> Vec<String> {
    let mut says = Vec::new();
    if !rule.open().is_empty() {
        let open: Vec<String> = rule.open().iter().map(ToString::to_string).collect();
        says.push(format!("PCRs of any value, asked by their events alone: {}", open.join(", ")));
    }
    says.extend(rule.boot().map(events).unwrap_or_default());
    says
}

fn events(rule: &BootRule) -> Vec<String> {
    let mut says = vec!["must send the event log of its boot, which leads to the quoted PCRs".to_owned()];
    match rule.secure_boot {
        SecureBoot::Required => says.push("secure boot on".to_owned()),
        SecureBoot::NotAsked => {}
    }
    match &rule.images {
        Permitted::Only(_) => says.push(format!("may have started, by Authenticode digest, only: {}", rule.images)),
        Permitted::Any => {}
    }
    if let Some(lines) = &rule.command_lines {
        says.extend(lines.lines.iter().map(|line| format!("kernel command line: {line:?}")));
        let initrds: Vec<String> = lines.initrds.iter().map(ToString::to_string).collect();
        says.push(format!("initrds: {}", if initrds.is_empty() { "none".to_owned() } else { initrds.join(", ") }));
    }
    says
}
