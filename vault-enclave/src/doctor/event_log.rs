//! The event log of this boot.

use std::path::Path;

use attestation::{EventLog, PcrSelection};

use super::Check;
use crate::agent::event_log::read_event_log;
use crate::tpm::Tpm;

/// PCRs that firmware and boot loader alone extend.
const BOOT_PCRS: [u32; 8] = [0, 1, 2, 3, 4, 5, 6, 7];
const ONLY_FOR: &str = "only rules with a [release.NAME.boot] section need it; they refuse this machine";

/// Whether the log can be read, and leads to the PCRs of the TPM. Only rules that ask for events need it.
pub(super) fn check(path: &Path, tpm: Option<&Tpm>) -> Check {
    let warn = |found: String| Check::warn("event log", found, ONLY_FOR);
    let log = match read_event_log(path) {
        Ok(log) => log,
        Err(error) => return warn(format!("{error} ({})", error.code())),
    };
    let replayed = match EventLog::parse(&log) {
        Ok(log) => log.replay(),
        Err(error) => return warn(format!("{}: {error} ({})", path.display(), error.code())),
    };
    let events = replayed.log().events().len();
    let (Some(tpm), Ok(pcrs)) = (tpm, PcrSelection::try_from(&BOOT_PCRS[..])) else {
        return Check::ok("event log", format_args!("{}: {events} events", path.display()));
    };
    let values = match tpm.read_pcrs(pcrs).wait() {
        Ok(values) => values.iter().map(|(index, value)| (index, *value)).collect(),
        Err(error) => return warn(format!("the TPM's PCRs can't be compared: {error}")),
    };
    match replayed.compare(&values, &pcrs) {
        Ok(()) => {
            Check::ok("event log", format_args!("{}: {events} events, which lead to PCRs 0 to 7", path.display()))
        }
        Err(error) => warn(format!("{}: {error} ({}): it is of another boot or TPM", path.display(), error.code())),
    }
}

#[cfg(test)]
mod tests {
    use super::super::Level;
    use super::*;

    #[test]
    fn a_log_that_is_not_there_or_is_none_is_a_warning() {
        let file = tempfile::NamedTempFile::new().unwrap();
        for (content, code) in [(&b""[..], "event-log-length"), (&b"\0\0\0\0\x08\0\0\0"[..], "event-log-truncated")] {
            std::fs::write(file.path(), content).unwrap();
            let check = check(file.path(), None);
            assert_eq!(check.level, Level::Warn);
            assert!(check.found.contains(code), "{}", check.found);
        }
        assert!(check(Path::new("/nonexistent"), None).found.contains("event-log-unreadable"));
    }
}
