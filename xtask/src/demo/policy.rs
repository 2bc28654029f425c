//! The first policy of the demo's vault.

use super::machine::{Machine, TCB};
use crate::{Result, shell};
use std::process::Command;

/// What goes into the policy.
pub(super) struct Parts<'a> {
    /// `{ id = "…", key = "…" }` each.
    pub(super) approvers: Vec<String>,
    /// PEM of the publisher's key.
    pub(super) publisher: String,
    /// The `pcrs` line of the keeper.
    pub(super) keeper_pcrs: String,
    /// That of the guest, where it has to quote.
    pub(super) guest_pcrs: Option<String>,
    /// The machines.
    pub(super) keeper: &'a Machine,
    /// Likewise.
    pub(super) guest: &'a Machine,
    /// Whether a load compares each unit with what the publisher signed.
    pub(super) verify_units: bool,
    /// Name of the model, and of the rules.
    pub(super) model: &'a str,
}

/// The text.
pub(super) fn write(parts: &Parts<'_>) -> Result<String> {
    let name = parts.model;
    let [root, issuer] = parts.keeper.tpm_anchors()?;
    let mut anchors = anchor("swtpm-root", &root) + &anchor("swtpm-issuer", &issuer);
    let keeper_proof = match parts.keeper.launch()? {
        None => format!("require = [\"tpm\"]\n{}\neks = \"any\"\n", parts.keeper_pcrs),
        Some((ark, measurement)) => {
            anchors += &anchor("soft-snp", &ark);
            let snp = snp_section("keeper", measurement);
            format!("require = [\"snp\"]\n{}\neks = \"any\"\n{snp}", parts.keeper_pcrs)
        }
    };
    let (guest_proof, guest_section) = match (&parts.guest_pcrs, parts.guest.launch()?) {
        (Some(pcrs), _) => (format!("require = [\"tpm\"]\n{pcrs}\neks = \"any\""), String::new()),
        (None, Some((_, measurement))) => {
            ("require = [\"snp\"]".to_owned(), snp_section(&format!("release.{name}"), measurement))
        }
        (None, None) => return Err("the guest has nothing to prove".into()),
    };
    Ok(format!(
        r#"format = 1
vault = "genesis"
serial = 1
prev = "none"
not_after = "{not_after}"

[approval]
threshold = 2
revoke_threshold = 1
proposer_may_approve = false
approvers = [
  {approvers}
]
{anchors}
[keeper]
{keeper_proof}
[publish.{name}]
models = ["{name}"]
keys = ["""
{publisher}"""]
approvals = 2

[release.{name}]
models = ["{name}"]
groups = "any"
{guest_proof}
lease = "5m"
on_lease_end = "end"
max_leases = 16
verify_units = {verify_units}
{guest_section}
[audit]
readers = "any"
"#,
        not_after = next_year()?,
        approvers = parts.approvers.join(",\n  "),
        publisher = parts.publisher,
        verify_units = parts.verify_units,
    ))
}

fn anchor(name: &str, certificate: &str) -> String {
    format!("\n[[anchors]]\nname = \"{name}\"\ntrust = \"emulated\"\ncertificate = \"\"\"\n{certificate}\"\"\"\n")
}

/// As strict as the soft platform allows; any of its chips will do, since each start makes new ones.
fn snp_section(above: &str, measurement: &str) -> String {
    let [bootloader, tee, snp, microcode] = TCB;
    format!(
        r#"
[{above}.snp]
code_covered_by = "launch"
measurements = ["{measurement}"]
chips = "any"
min_tcb.milan = {{ bootloader = {bootloader}, tee = {tee}, snp = {snp}, microcode = {microcode} }}
vmpl = 0
min_report_version = 5
crl = "if-present"
smt = true
provisional_firmware = false
"#
    )
}

/// The end of the policy: a year from now.
fn next_year() -> Result<String> {
    let text = shell::output(Command::new("date").args(["-u", "-d", "+365 days", "+%Y-%m-%dT00:00:00Z"]))?;
    Ok(text.trim().to_owned())
}
