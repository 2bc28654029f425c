//! An `snp` section in words.

use attestation::CrlRule;
use ledger::policy::{Allowed, Permitted, SnpRule};

use super::either_of;

/// What it asks for.
pub(super) fn says(rule: &SnpRule) -> Vec<String> {
    let mut says = vec![format!("launched: {}", either_of(&rule.measurements)), chips(rule)];
    for (product, tcb) in rule.min_tcb.iter() {
        says.push(format!("{product}: TCB from {tcb} on"));
    }
    let crl = match rule.crl {
        CrlRule::Required => "a revocation list in force must be there",
        CrlRule::IfPresent => "a revocation list counts if there is one",
    };
    says.push(format!("VMPL {}, report version {} or later; {crl}", rule.vmpl, rule.min_report_version));
    says.extend(narrowing(rule));
    says
}

fn chips(rule: &SnpRule) -> String {
    let chips = match &rule.chips {
        Permitted::Any => "any of AMD's".to_owned(),
        only @ Permitted::Only(_) => format!("only {only}"),
    };
    match rule.csps.as_slice() {
        [] => format!("chips: {chips}"),
        clouds => format!("chips: {chips}; or a key of the cloud {}", clouds.join(", ")),
    }
}

fn narrowing(rule: &SnpRule) -> Vec<String> {
    let mut says = Vec::new();
    if let Some(listed) = &rule.host_data {
        says.push(format!("host data: {}", either_of(listed)));
    }
    if let Some(listed) = &rule.id_keys {
        says.push(format!("ID block signed by the key {}", either_of(listed)));
    }
    if let Some(listed) = &rule.author_keys {
        says.push(format!("ID key signed by the key {}", either_of(listed)));
    }
    says.extend(rule.min_guest_svn.map(|min| format!("guest SVN from {min} on")));
    says.extend(rule.min_firmware.map(|min| format!("firmware from {min} on")));
    if !rule.platform.is_empty() {
        let features: Vec<String> = rule.platform.iter().map(ToString::to_string).collect();
        says.push(format!("the platform has: {}", features.join(", ")));
    }
    says
}

/// What deserves a second look.
pub(super) fn warnings(rule: &SnpRule) -> Vec<String> {
    let mut warnings = Vec::new();
    if rule.chips == Permitted::Any {
        warnings.push("any chip will do, also one in a thief's cellar: physical attacks are his to try".to_owned());
    }
    if !rule.csps.is_empty() {
        warnings.push("a cloud's key proves a cloud, not a chip".to_owned());
    }
    if rule.crl == CrlRule::IfPresent {
        warnings.push("whoever keeps the revocation list away keeps a revoked key in use".to_owned());
    }
    if rule.smt == Allowed::Yes {
        warnings.push("two threads may share a core: side channels are open".to_owned());
    }
    if rule.provisional_firmware == Allowed::Yes {
        warnings.push("the host may roll its firmware back".to_owned());
    }
    if rule.min_report_version == 2 {
        warnings.push("reports of version 2 do not say of which generation the chip is".to_owned());
    }
    warnings
}
