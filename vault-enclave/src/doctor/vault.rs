//! The vault: its hosts, its keeper, and whether its policy knows this machine.

use std::collections::BTreeMap;

use attestation::{EndorsedEk, Sha256Digest, Trust, UnixTime};
use ledger::policy::{GuestRule, Policy, TpmRule};
use ledger::vault_file::VaultFile;
use ring::rand::SystemRandom;

use super::tpm::Seen;
use super::{Check, DoctorArgs};
use crate::failure::Failure;
use crate::publish::{VaultArgs, runtime, unix_now};

/// Clocks may differ by this much.
const CLOCK_SKEW_SECS: u64 = 60;

/// Asks each host, then the keeper, then the policy.
pub(super) fn checks(args: &DoctorArgs, seen: Option<&Seen>) -> Vec<Check> {
    let Some(path) = &args.vault else { return Vec::new() };
    let link = VaultArgs { vault: path.clone(), host: args.host.clone(), ca: args.ca.clone() };
    let vault = match link.read() {
        Ok(vault) => vault,
        Err(failure) => return vec![Check::failure("vault file", &failure)],
    };
    let now = unix_now();
    let mut checks = vec![Check::ok("vault file", vault.id()), time(&vault, now)];
    let policy = match runtime() {
        Ok(runtime) => runtime.block_on(hosts(&link, &vault, now, &mut checks)),
        Err(failure) => {
            checks.push(Check::failure("host", &failure));
            None
        }
    };
    match (seen, policy) {
        (Some(seen), Some(policy)) if policy == vault.policy().digest() => {
            checks.extend(permission(vault.policy(), seen, now));
        }
        (Some(_), Some(_)) => checks.push(Check::ok(
            "policy",
            "a later one than the vault file's is in force; `vaultctl status --vault FILE` says which, and `vaultctl vault-file \
             --vault FILE --out NEW` writes a vault file that knows it",
        )),
        _ => {}
    }
    checks
}

/// Gives the digest of the policy in force, by the keeper's verified word.
async fn hosts(link: &VaultArgs, vault: &VaultFile, now: UnixTime, checks: &mut Vec<Check>) -> Option<Sha256Digest> {
    let addresses = link.host.as_ref().map_or(vault.hosts(), std::slice::from_ref);
    let mut policy = None;
    for address in addresses {
        let one = VaultArgs { host: Some(address.clone()), ..link.clone() };
        match host(&one, vault, now, checks).await {
            Ok(found) => policy = policy.or(found),
            Err(failure) => checks.push(Check::failure(format!("host {address}"), &failure)),
        }
    }
    policy
}

async fn host(
    link: &VaultArgs,
    vault: &VaultFile,
    now: UnixTime,
    checks: &mut Vec<Check>,
) -> Result<Option<Sha256Digest>, Failure> {
    let remote = link.connect(vault).await?;
    let status = remote.status().await.map_err(Failure::from)?;
    checks.push(Check::ok(format!("host {}", remote.address()), "answers"));
    if status.state != "open" {
        let found = format!("{}: {}", status.state, status.reason);
        checks.push(Check::fail("keeper", found, next_step(&status.state)));
        return Ok(None);
    }
    let followed = remote.follow(vault.clone()).await?;
    match remote.check_keeper(&followed, now, &SystemRandom::new()).await {
        Ok(keeper) if keeper.claims().trust() == Trust::Emulated => {
            checks.push(Check::warn(
                "keeper",
                "its evidence verifies, and is EMULATED",
                "for anything but tests: a keeper with a hardware TPM",
            ));
            Ok(Some(keeper.statement().policy()))
        }
        Ok(keeper) => {
            checks.push(Check::ok("keeper", "its evidence verifies, on a hardware TPM"));
            Ok(Some(keeper.statement().policy()))
        }
        Err(failure) => {
            checks.push(Check::failure("keeper", &failure));
            Ok(None)
        }
    }
}

/// How to go on with a keeper that is not open.
fn next_step(state: &str) -> &'static str {
    match state {
        "recovering" => {
            "custodians give their shares, approvers sign: `vaultctl recover status --vault FILE` says what it waits for"
        }
        "retired" => "the vault has another keeper: have the host dial that one",
        "ceremony" | "empty" => "approvers sign the genesis: `vaultctl init status --vault FILE` says who is missing",
        _ => "see the keeper's own log; `vaultctl status --vault FILE` says more",
    }
}

fn time(vault: &VaultFile, now: UnixTime) -> Check {
    const CHECK: &str = "clock and vault";
    if now.plus(CLOCK_SKEW_SECS) < vault.genesis().time() {
        return Check::fail(
            CHECK,
            "this machine's clock stands before the vault's genesis",
            "timedatectl set-ntp true",
        );
    }
    Check::ok(CHECK, "after the vault's genesis")
}

/// Whether the policy would release anything to this machine.
fn permission(policy: &Policy, seen: &Seen, now: UnixTime) -> Vec<Check> {
    if policy.is_expired(now) {
        return vec![Check::fail(
            "policy",
            "past its end",
            "propose a new one: vaultctl propose policy NEW --vault FILE --key KEY",
        )];
    }
    let ek = match EndorsedEk::verify(&seen.ek_certificates, policy.trust_anchors(), now) {
        Ok(ek) => ek,
        Err(error) => {
            let fix = "add the issuer of this TPM's EK certificate to [[anchors]] of the policy";
            return vec![Check::fail("policy knows this tpm", format_args!("{error} ({})", error.code()), fix)];
        }
    };
    let known = Check::ok("policy knows this tpm", format_args!("by the anchor {} ({})", ek.anchor(), ek.trust()));
    let rules = policy.release_rules().iter().map(|(name, rule)| {
        let check = format!("release.{name}");
        let rule = match &rule.guest {
            GuestRule::Tpm(rule) => rule,
            GuestRule::Snp(_) | GuestRule::SnpParavisorVtpm { .. } => {
                return Check::ok(
                    check,
                    "asks for an SNP report: the checks of the SNP devices say whether there is one",
                );
            }
        };
        let values = seen.tpm.read_pcrs(rule.pcrs.selection()).wait();
        match values {
            Ok(values) => {
                let values = values.iter().map(|(index, value)| (index, *value)).collect();
                release(check, rule, ek.platform(), &values)
            }
            Err(error) => Check::warn(check, error, "see the checks of the TPM"),
        }
    });
    std::iter::once(known).chain(rules).collect()
}

fn release(check: String, rule: &TpmRule, platform: Sha256Digest, pcrs: &BTreeMap<u32, [u8; 32]>) -> Check {
    if !rule.platforms.permits(&platform) {
        return Check::warn(
            check,
            format_args!("`eks` does not list this TPM, {platform}"),
            "add it if this machine is meant",
        );
    }
    match rule.pcrs.check(pcrs) {
        Ok(()) => Check::ok(check, "permits this machine"),
        Err(mismatch) => {
            Check::warn(check, mismatch, "boot what the rule names, or propose what `vault-enclave evidence` prints")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_of_a_next_step_name_the_vault() {
        for state in ["recovering", "ceremony", "empty", "stopped"] {
            let command = next_step(state).split('`').nth(1).unwrap();
            assert!(command.starts_with("vaultctl ") && command.ends_with(" --vault FILE"), "{state}: {command}");
        }
        assert!(next_step("retired").contains("another keeper"));
    }
}
