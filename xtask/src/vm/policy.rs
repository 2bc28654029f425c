//! The rules by which the guest is served, made of its image before it boots.

use super::guest::MEMORY_MIB;
use crate::Result;
use crate::demo::binary;
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Each PCR has the value that was computed.
pub(super) const VALUES: &str = "guest-values";
/// The firmware's PCRs and the agent's have; kernel, command line and initrd are asked by their events, so that a refusal says
/// which of them is another one.
pub(super) const EVENTS: &str = "guest-events";
/// Firmware, option ROMs, kernel, Secure Boot, command line and initrd, agent.
const PCRS: [&str; 6] = ["0", "2", "4", "7", "9", "11"];
/// What [`EVENTS`] asks by events.
const BY_EVENTS: [&str; 2] = ["4", "9"];

/// What will be measured.
pub(super) struct Measured {
    pcrs: BTreeMap<String, String>,
    /// Keys of a `boot` section.
    boot: String,
}

/// What a boot of the same firmware showed.
pub(super) struct Reference {
    /// Its event log.
    log: PathBuf,
    /// How its kernel came to the firmware, as `vaultctl measure pcr --loader` names it.
    pub(super) loader: String,
}

impl Measured {
    /// What `vaultctl measure pcr` makes of kernel, initrd and command line; the firmware's PCRs are out of the log of another
    /// boot of the same firmware.
    pub(super) fn compute(
        kernel: &Path,
        initrd: &Path,
        line: &str,
        reference: &Reference,
        agent: &Path,
    ) -> Result<Self> {
        let said = measure(kernel, initrd, line, &reference.log, &reference.loader)?;
        let values = said["pcrs"].as_object().ok_or("vaultctl measure gave no PCRs")?;
        let mut pcrs: BTreeMap<String, String> =
            values.iter().filter_map(|(index, value)| Some((index.clone(), value.as_str()?.to_owned()))).collect();
        pcrs.insert("11".into(), hex::encode(extended(&std::fs::read(agent)?)));
        let boot = said["boot"].as_str().ok_or("vaultctl measure gave no boot section")?.to_owned();
        match PCRS.iter().find(|index| !pcrs.contains_key(**index)) {
            Some(index) => Err(format!("vaultctl measure gave no PCR {index}: {}", said["notes"]).into()),
            None => Ok(Self { pcrs, boot }),
        }
    }

    /// The value of a PCR, in hex.
    pub(super) fn pcr(&self, index: &str) -> &str {
        self.pcrs.get(index).map_or("", String::as_str)
    }

    /// Both rules, for a policy.
    pub(super) fn rules(&self, model: &str) -> String {
        let rule = |name: &str, open: &[&str]| {
            let pcr = |index: &&str| match open.contains(index) {
                true => format!("{index} = \"any\""),
                false => format!("{index} = [\"{}\"]", self.pcr(index)),
            };
            let pcrs: Vec<String> = PCRS.iter().map(pcr).collect();
            format!(
                "\n[release.{name}]\nmodels = [\"{model}\"]\ngroups = \"any\"\nrequire = [\"tpm\"]\npcrs = {{ {} }}\n\
                 eks = \"any\"\nlease = \"5m\"\non_lease_end = \"end\"\nmax_leases = 8\nverify_units = true\n",
                pcrs.join(", ")
            )
        };
        format!("{}{}\n[release.{EVENTS}.boot]\n{}", rule(VALUES, &[]), rule(EVENTS, &BY_EVENTS), self.boot)
    }
}

impl Reference {
    /// Older QEMU fills in the kernel's header, a newer one may hand the file over as it is: what explains PCR 4 of this boot
    /// is what it did.
    pub(super) fn find(kernel: &Path, initrd: &Path, line: &str, log: PathBuf, pcr4: &str) -> Result<Self> {
        for loader in [format!("qemu-q35:{MEMORY_MIB}"), "file".to_owned()] {
            if measure(kernel, initrd, line, &log, &loader)?["pcrs"]["4"] == pcr4 {
                return Ok(Self { log, loader });
            }
        }
        Err("this QEMU hands kernels to its firmware in a way that `vaultctl measure pcr` does not know".into())
    }
}

fn measure(kernel: &Path, initrd: &Path, line: &str, log: &Path, loader: &str) -> Result<Value> {
    let mut measure = Command::new(binary("vaultctl"));
    measure.args(["--json", "measure", "pcr", "--kernel"]).arg(kernel).arg("--initrd").arg(initrd);
    measure.args(["--append", line, "--loader", loader, "--base-eventlog"]).arg(log);
    Ok(serde_json::from_str(&crate::shell::output(&mut measure)?)?)
}

/// PCR 11 after the guest's init has measured this file into it.
fn extended(file: &[u8]) -> [u8; 32] {
    let sha256 = |bytes: &[u8]| ring::digest::digest(&ring::digest::SHA256, bytes);
    let value = sha256(&[&[0; 32], sha256(file).as_ref()].concat());
    let mut array = [0; 32];
    array.copy_from_slice(value.as_ref());
    array
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_rule_has_every_value_and_the_other_asks_events() {
        let pcrs = PCRS.iter().map(|index| ((*index).to_owned(), format!("v{index}"))).collect();
        let rules = Measured { pcrs, boot: "secure_boot = false\n".into() }.rules("m");
        let (values, events) = rules.split_once("[release.guest-events]").unwrap();
        assert!(
            values.contains("4 = [\"v4\"]") && values.contains("9 = [\"v9\"]") && !values.contains("any\","),
            "{rules}"
        );
        assert!(events.contains("4 = \"any\"") && events.contains("11 = [\"v11\"]"), "{rules}");
        assert!(events.ends_with("[release.guest-events.boot]\nsecure_boot = false\n"), "{rules}");
    }

    #[test]
    fn agent_is_measured_by_its_digest() {
        // Of 32 zeros and the digest of nothing, by Python's hashlib.
        let value = "1c9ecec90e28d2461650418635878a5c91e49f47586ecf75f2b0cbb94e897112";
        assert_eq!(hex::encode(extended(b"")), value);
    }
}
