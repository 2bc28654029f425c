//! `vaultctl policy …`

mod draft;
mod simulate;

use std::fmt;
use std::path::Path;

use attestation::Sha256Digest;
use ledger::genesis::GENESIS_POLICY_BYTES_MAX;
use ledger::policy::{Lineage, POLICY_BYTES_MAX, Policy, describe_change};
use serde::Serialize;

pub(crate) use draft::draft;
pub(crate) use simulate::simulate;

use crate::failure::{Failure, Kind};
use crate::session::{Session, read_text};
use crate::words::PolicyReport;

/// What a vault's first policy looks like.
const TEMPLATE: &str = include_str!("policy_template.toml");

/// What to do about a policy that is too long.
pub(crate) const SHORTEN: &str =
    "take out comments (what stands behind a #); `vaultctl policy check` says whether it fits";

/// A policy to start from.
#[derive(Debug, Serialize)]
pub(crate) struct Template {
    policy: &'static str,
}

/// What a change changes.
#[derive(Debug, Serialize)]
pub(crate) struct Difference {
    old: Sha256Digest,
    new: Sha256Digest,
    changes: Vec<String>,
}

pub(crate) fn template() -> Template {
    Template { policy: TEMPLATE }
}

pub(crate) fn check(session: &Session, file: &Path) -> Result<PolicyReport, Failure> {
    let (policy, text) = read_policy(file)?;
    Ok(PolicyReport::new(&policy, session.now()).and_warning(too_long_to_begin(&policy, &text)))
}

pub(crate) fn diff(old: &Path, new: &Path) -> Result<Difference, Failure> {
    let ((old, _), (new, _)) = (read_policy(old)?, read_policy(new)?);
    Ok(Difference { old: old.digest(), new: new.digest(), changes: describe_change(&old, &new) })
}

/// A first policy may be as long as any, and yet too long for a genesis.
fn too_long_to_begin(policy: &Policy, text: &str) -> Option<String> {
    let long = policy.lineage() == Lineage::Genesis && text.len() > GENESIS_POLICY_BYTES_MAX;
    long.then(|| {
        format!(
            "it has {} bytes, and no vault can begin with more than {GENESIS_POLICY_BYTES_MAX}: take out comments",
            text.len()
        )
    })
}

/// The text of a policy file.
pub(crate) fn read_policy_text(file: &Path) -> Result<String, Failure> {
    read_text(file, POLICY_BYTES_MAX).map_err(|failure| match failure.code() {
        "file-too-long" => failure.next(SHORTEN),
        _ => failure,
    })
}

/// Reads a policy file: what it means, and its exact text.
pub(crate) fn read_policy(file: &Path) -> Result<(Policy, String), Failure> {
    let text = read_policy_text(file)?;
    match Policy::parse(&text) {
        Ok(policy) => Ok((policy, text)),
        Err(error) => Err(Failure::new(Kind::Usage, error.code(), format!("{} is not a policy", file.display()))
            .why(error)
            .next("correct it, then run `vaultctl policy check`; `vaultctl policy template` shows every key")),
    }
}

impl fmt::Display for Template {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.policy)
    }
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.changes.is_empty() {
            return writeln!(f, "Nothing changes.");
        }
        self.changes.iter().try_for_each(|change| writeln!(f, "{change}"))
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use attestation::UnixTime;
    use ledger::genesis::{AntiRollback, Core, SealTo};

    use super::*;
    use crate::words::warnings;

    #[test]
    fn the_template_says_what_is_missing_first() {
        let error = Policy::parse(TEMPLATE).unwrap_err();
        assert_eq!(error.code(), "policy-not-after-malformed");
    }

    #[test]
    fn the_template_parses_once_keys_and_pcr_values_are_filled_in() {
        let policy = Policy::parse(&filled(TEMPLATE)).unwrap();
        assert_eq!((policy.serial(), policy.approval().threshold), (1, 2));
    }

    /// Room for keys and values that are longer than those of this test.
    const SPARE_BYTES: usize = 256;

    #[test]
    fn the_template_filled_in_begins_a_vault_with_its_comments_on() {
        let text = filled(TEMPLATE);
        assert!(text.len() + SPARE_BYTES <= GENESIS_POLICY_BYTES_MAX, "{} bytes", text.len());
        Core::new(AntiRollback::Counter, SealTo::Tpm, &text).unwrap();
        Core::new(AntiRollback::None, SealTo::SnpTpm, &with_snp()).unwrap();
    }

    #[test]
    fn a_first_policy_that_no_vault_can_begin_with_is_told_so() {
        let long = format!("{}#{}\n", filled(TEMPLATE), "x".repeat(1 << 10));
        let warns = |text: &str| too_long_to_begin(&Policy::parse(text).unwrap(), text);
        assert_eq!(warns(&filled(TEMPLATE)), None);
        assert!(warns(&long).unwrap().contains("more than 10240: take out comments"));
        let later = long.replace("vault = \"genesis\"", &format!("vault = \"{}\"", Sha256Digest::of(b"vault")));
        let later = later.replace("serial = 1", "serial = 2");
        let later = later.replace("prev = \"none\"", &format!("prev = \"{}\"", Sha256Digest::of(b"before")));
        assert_eq!(warns(&later), None);
    }

    #[test]
    fn a_file_that_is_longer_than_any_policy_is_told_what_to_take_out() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("policy.toml");
        std::fs::write(&file, vec![b'#'; POLICY_BYTES_MAX + 1]).unwrap();
        let failure = read_policy(&file).unwrap_err();
        assert_eq!((failure.code(), failure.next_step()), ("file-too-long", Some(SHORTEN)));
        let failure = read_policy(&dir.path().join("none")).unwrap_err();
        assert_eq!((failure.code(), failure.next_step()), ("file", None));
    }

    #[test]
    fn the_sections_for_budgets_and_alarms_parse_and_every_key_counts() {
        let text =
            format!("{}\n{}", filled(TEMPLATE), section("# [budget.default]") + &section("# [alarm.new-machines]"));
        let policy = Policy::parse(&text).unwrap_or_else(|error| panic!("{error}\n{text}"));
        assert_eq!(policy.alarms().len(), 1);
        assert_eq!(policy.budgets()[&"default".parse().unwrap()].limits.len(), 4);
    }

    #[test]
    fn the_section_for_witnesses_parses() {
        let policy = Policy::parse(&format!("{}\n{}", filled(TEMPLATE), section("# [witnesses]"))).unwrap();
        assert_eq!(policy.witnesses().unwrap().quorum(), 1);
    }

    #[test]
    fn the_line_for_workloads_parses_and_says_what_is_open() {
        let pinned = |arguments: &str| {
            let line = TEMPLATE.lines().find_map(|line| line.strip_prefix("# workloads = ")).unwrap();
            let line = line.replacen("arguments = \"sha256:…\"", &format!("arguments = \"{arguments}\""), 1);
            let line = line.replace("sha256:…", &format!("sha256:{}", "4".repeat(64)));
            let text =
                filled(TEMPLATE).replace("verify_units = true", &format!("workloads = {line}\nverify_units = true"));
            Policy::parse(&text).unwrap_or_else(|error| panic!("{error}\n{text}"))
        };
        let warns = |policy: &Policy| {
            let warnings = warnings(policy, UnixTime(0));
            warnings.iter().any(|warning| warning.contains("any arguments"))
        };
        let (closed, open) = (pinned("sha256:…"), pinned("any"));
        assert!(closed.release_rules().values().all(|rule| rule.workloads.asks()));
        assert!(!warns(&closed) && warns(&open));
    }

    /// A section of comments, as text of a policy.
    fn section(heading: &str) -> String {
        let start = TEMPLATE.find(heading).unwrap();
        let comments = TEMPLATE[start..].lines().take_while(|line| line.starts_with('#'));
        let lines = comments.map(|line| line.strip_prefix("# ").unwrap_or_default());
        lines.map(|line| format!("{line}\n")).collect()
    }

    fn snp_section() -> String {
        let text = section("# [release.default.snp]");
        text.replace("CHIP_ID", &format!("sha256:{}", "1".repeat(64)))
            .replace("ID_KEY_DIGEST", &"2".repeat(96))
            .replace("HOST_DATA\"", &format!("{}\"", "3".repeat(64)))
    }

    /// The template for guests in SEV-SNP, as its comments say to write it.
    fn with_snp() -> String {
        let guest = snp_section().replace("LAUNCH_DIGEST", &"4".repeat(96));
        let keeper = snp_section().replace("LAUNCH_DIGEST", &"5".repeat(96)).replace("release.default", "keeper");
        let text = filled(TEMPLATE).replace("require = [\"tpm\"]", "require = [\"snp\"]");
        let (before, rule) = text.split_once("\n[release.default]\n").unwrap();
        let rule: String = rule
            .split_inclusive('\n')
            .filter(|line| !line.starts_with("pcrs =") && !line.starts_with("eks ="))
            .collect();
        let rule = rule.replace("[audit]", &format!("{guest}\n[audit]"));
        let before = before.replace("[publish.default]", &format!("{keeper}\n[publish.default]"));
        let text = format!("{before}\n[release.default]\n{rule}");
        // As its third line says.
        text.split_inclusive('\n').filter(|line| !line.starts_with('#')).collect()
    }

    #[test]
    fn the_section_for_snp_parses_once_it_is_filled_in_and_every_key_counts() {
        let policy = Policy::parse(&with_snp()).unwrap_or_else(|error| panic!("{error}\n{}", with_snp()));
        let rule = policy.release_rule(&"default".parse().unwrap()).unwrap();
        let snp = rule.guest.snp().unwrap();
        assert_eq!((snp.measurements.len(), snp.csps.len(), snp.platform.len()), (1, 1, 2));
        assert_eq!(snp.min_tcb.iter().count(), 3);
        assert!(snp.host_data.is_some() && snp.id_keys.is_some() && snp.author_keys.is_some());
        assert!(snp.min_guest_svn.is_some() && snp.min_firmware.is_some());
        assert!(policy.keeper().snp().is_some());
    }

    /// The template with keys and values, for other tests of this crate.
    pub(crate) fn template_filled_in() -> String {
        filled(TEMPLATE)
    }

    fn filled(template: &str) -> String {
        let publisher = "-----BEGIN PUBLIC KEY-----\n\
            MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEaxfR8uEsQkf4vOblY6RA8ncDfYEt\n\
            6zOg9KE5RdiYwpZP40Li/hp/m47n60p8D54WK84zV2sxXs7LtkBoN79R9Q==\n\
            -----END PUBLIC KEY-----";
        let mut filled = template.to_owned();
        for (index, name) in ["ALICE", "BOB", "CAROL"].into_iter().enumerate() {
            filled = filled.replace(&format!("{name}_KEY"), KEYS[index]);
        }
        filled = filled.replace("PUBLISHER_KEY", publisher).replace("END_OF_POLICY", "2027-03-01T00:00:00Z");
        for (index, pcr) in filled.clone().match_indices("PCR_VALUE").enumerate().map(|(index, (_, pcr))| (index, pcr))
        {
            filled = filled.replacen(pcr, &format!("{:064x}", index + 1), 1);
        }
        filled
    }

    const KEYS: [&str; 3] = [
        "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIBVDBTmwHVi0DWcFS9xzs3BHy2lDCFDdgeL5JJ3hbMJd",
        "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIKcfXfCLdGZd9VQYPnEpmNJZjyXa8SZPmZSbrIRTJ6rG",
        "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGPKIOm4m9Tj6UbPNzMRhiz6f5JQHN9IsRHpWUvXKeQY",
    ];
}
