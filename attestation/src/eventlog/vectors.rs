//! The twelve recorded logs (shared vectors, eventlog/README.md): each agrees with its PCRs, or is refused for its reason.

use std::path::PathBuf;

use serde_json::Value;

use super::content::{Content, EV_IPL};
use super::{Bank, EventLog};
use crate::error::EventLogError;
use crate::tpm::PcrSelection;

/// Nothing where the vectors are not; that is a failure only in CI.
fn folder() -> Option<PathBuf> {
    let default = concat!(env!("CARGO_MANIFEST_DIR"), "/../../shared/vectors");
    let root = std::env::var("WEIGHTVAULT_VECTORS").unwrap_or_else(|_| default.to_owned());
    let root = PathBuf::from(root).join("eventlog");
    if root.is_dir() {
        return Some(root);
    }
    assert_ne!(std::env::var("CI").as_deref(), Ok("true"), "no vectors at {}", root.display());
    println!("skipped: there are no vectors at {}", root.display());
    None
}

const GOOD: [&str; 9] = [
    "arch-linux-workstation",
    "cos-101-amd-sev",
    "eventlogwithsp800155",
    "gdc-host",
    "ovmf-swtpm-debian12",
    "rhel8-uefi",
    "ubuntu-1804-amd-sev",
    "ubuntu-2104-no-secure-boot",
    "ubuntu-2404-amd-sevsnp",
];

#[test]
fn recorded_logs_replay_to_the_recorded_pcrs_in_every_bank() {
    let Some(folder) = folder() else { return };
    for name in GOOD {
        let bytes = std::fs::read(folder.join(format!("{name}.bin"))).unwrap();
        let pcrs = std::fs::read(folder.join(format!("{name}.pcrs.json"))).unwrap();
        let pcrs: Value = serde_json::from_slice(&pcrs).unwrap();
        let replayed = EventLog::parse(&bytes).unwrap().replay();
        let mut compared = 0;
        for bank in [Bank::Sha1, Bank::Sha256, Bank::Sha384] {
            let Some(recorded) = pcrs["pcrs"][bank.name()].as_object() else { continue };
            for (index, value) in recorded {
                let index: u32 = index.parse().unwrap();
                let replayed = replayed.pcr(bank, index).map(hex::encode);
                let zeros = "0".repeat(bank.algorithm().output_len() * 2);
                // PCR 10 of our own boot is IMA's, which keeps its own log.
                if !(index == 10 && name == "ovmf-swtpm-debian12") {
                    assert_eq!(replayed.unwrap_or(zeros), value.as_str().unwrap(), "{name} {} {index}", bank.name());
                    compared += 1;
                }
            }
        }
        assert!(compared >= 9, "{name}");
    }
}

#[test]
fn recorded_logs_of_other_forms_are_refused_for_their_reasons() {
    let Some(folder) = folder() else { return };
    let refused = |name: &str| EventLog::parse(&std::fs::read(folder.join(name)).unwrap()).unwrap_err();
    assert_eq!(refused("debian-10.bin"), EventLogError::LegacySha1);
    assert_eq!(refused("go-attestation-ebs-sha1.bin"), EventLogError::LegacySha1);
    assert_eq!(refused("neg-short-no-action.bin"), EventLogError::SpecIdMissing);
}

#[test]
fn recorded_logs_answer_rules_as_their_machines_were() {
    let Some(folder) = folder() else { return };
    let answers = |name: &str| {
        let bytes = std::fs::read(folder.join(format!("{name}.bin"))).unwrap();
        let replayed = EventLog::parse(&bytes).unwrap().replay();
        let pcrs = PcrSelection::try_from([4, 7].as_slice()).unwrap();
        let values = replayed.sha256().collect();
        replayed.against_values(&values, &pcrs).unwrap().secure_boot()
    };
    for on in ["rhel8-uefi", "cos-101-amd-sev", "eventlogwithsp800155"] {
        assert_eq!(answers(on), Ok(()), "{on}");
    }
    for off in ["ovmf-swtpm-debian12", "arch-linux-workstation", "gdc-host", "ubuntu-2104-no-secure-boot"] {
        assert_eq!(answers(off), Err(EventLogError::SecureBootOff), "{off}");
    }
}

#[test]
fn text_of_recorded_loader_events_is_measured_behind_their_prefix() {
    let Some(folder) = folder() else { return };
    let bytes = std::fs::read(folder.join("ubuntu-2404-amd-sevsnp.bin")).unwrap();
    let log = EventLog::parse(&bytes).unwrap();
    let pcr8 = log.events().iter().filter(|event| event.event_type() == EV_IPL && event.pcr() == 8);
    assert!(pcr8.clone().count() > 10 && pcr8.clone().all(|event| event.measured().is_some()));
    let images = log.events().iter().filter(|event| *event.content() == Content::BootApplication);
    assert!(images.clone().count() >= 2 && images.clone().all(|event| event.measured().is_none()));
}
