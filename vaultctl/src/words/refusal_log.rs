//! What was expected of an event log, and what was seen.

use std::collections::BTreeMap;

use attestation::{EventLog, EventLogError};

/// What was expected, and what was seen. `values` are the PCRs that it was compared with.
pub fn of_event_log(error: &EventLogError, log: &[u8], values: &BTreeMap<u32, [u8; 32]>) -> (String, String) {
    use EventLogError as E;
    let its = |expected: &str, seen: String| (expected.to_owned(), seen);
    match error {
        E::ReplayMismatch { pcr } => {
            let replayed = EventLog::parse(log).map(|log| hex::encode(log.replay().sha256_value(*pcr)));
            let quoted = values.get(pcr).map(hex::encode).unwrap_or_default();
            (format!("PCR {pcr} = {quoted}"), format!("its events lead to {}", replayed.unwrap_or_default()))
        }
        E::PcrNotQuoted { .. } => {
            let quoted: Vec<String> = values.keys().map(ToString::to_string).collect();
            its("at least one of PCRs 0 to 9 and 14, and all that are asked for", format!("PCRs {}", quoted.join(" ")))
        }
        E::DataMismatch { .. } => its("the digest of the event's own data", error.to_string()),
        E::LegacySha1 | E::SpecIdMissing | E::SpecIdMalformed | E::NoSha256 => {
            its("a crypto-agile log (\"Spec ID Event03\") with SHA-256 digests", error.to_string())
        }
        E::Truncated => its("whole events up to the end, zeros or ffh", format!("{} bytes, {error}", log.len())),
        E::TooLong { .. } | E::TooManyEvents => its("at most 1 MiB and 4096 events", error.to_string()),
        E::BootApplicationUnlisted { digest } => its("images that `boot.images` lists", hex::encode(digest)),
        E::BootApplicationMissing => its("at least one image of `boot.images` in PCR 4", error.to_string()),
        E::InitrdUnlisted { digest } => its("initrds that `boot.initrds` lists", hex::encode(digest)),
        E::InitrdMissing => its("one of `boot.initrds` behind the command line", error.to_string()),
        E::CommandLineMismatch => its("a command line of `boot.command_lines`", error.to_string()),
        E::CommandLineNotAscii => its("printable ASCII", error.to_string()),
        E::SecureBootOff | E::SecureBootNotFirst => {
            its("SecureBoot = 1 as the first event of PCR 7", error.to_string())
        }
        E::ErrorSeparator { .. } => its("separators of a firmware that measured everything", error.to_string()),
        E::PcrNotMeasured { .. } | E::QuoteMissing => {
            its("a quote of the PCRs that the events are in", error.to_string())
        }
        E::ActionNotText { .. }
        | E::AlgorithmCount { .. }
        | E::AlgorithmRepeated { .. }
        | E::AlgorithmSize { .. }
        | E::DigestAlgorithm { .. }
        | E::DigestCount { .. }
        | E::DigestRepeated { .. }
        | E::LocalityMalformed { .. }
        | E::LocalityMisplaced { .. }
        | E::PcrIndex { .. }
        | E::SeparatorMalformed { .. }
        | E::VariableMalformed { .. } => its("a log as the TCG's firmware profile has it", error.to_string()),
    }
}
