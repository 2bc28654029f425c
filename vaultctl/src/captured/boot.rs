//! An event log beside a quote: whether it leads to what was quoted, and what it then says.

use std::collections::BTreeMap;

use attestation::{EventLog, EventLogError, PcrSelection, ReplayedLog};

use crate::words::BootSays;

/// PCRs that are complete when the firmware's log ends: firmware, boot loader, the kernel's EFI stub and shim extend them.
/// IMA extends 10 and systemd 11 to 13 and 15 after that, and neither writes into this log.
const BOOT_PCRS: [u32; 11] = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 14];

/// A log that leads to the PCR values beside it.
#[derive(Debug)]
pub struct BootHolds {
    /// How many events it has.
    pub events: usize,
    /// PCRs whose values it leads to.
    pub agreed: Vec<u32>,
    /// PCRs that have other values than it leads to: something that it does not hold extended them later.
    pub other: Vec<u32>,
    /// What its events in the PCRs that agree say.
    pub says: BootSays,
}

impl BootHolds {
    /// Replays a log and compares it with PCR values of the SHA-256 bank. Every one of `BOOT_PCRS` among them must agree, and
    /// there must be one.
    ///
    /// # Errors
    /// What is wrong with the log; [`EventLogError::ReplayMismatch`]; [`EventLogError::PcrNotQuoted`].
    pub fn of(bytes: &[u8], values: &BTreeMap<u32, [u8; 32]>) -> Result<Self, EventLogError> {
        let log = EventLog::parse(bytes)?.replay();
        let boot: Vec<u32> = BOOT_PCRS.into_iter().filter(|pcr| values.contains_key(pcr)).collect();
        let selection = PcrSelection::try_from(boot.as_slice()).map_err(|_| EventLogError::PcrNotQuoted { pcr: 0 })?;
        log.compare(values, &selection)?;
        let (agreed, other) = values.keys().partition(|pcr| agrees(&log, values, **pcr));
        let says = BootSays::of(log.log(), |pcr| agrees(&log, values, pcr));
        Ok(Self { events: log.log().events().len(), agreed, other, says })
    }
}

fn agrees(log: &ReplayedLog<'_>, values: &BTreeMap<u32, [u8; 32]>, pcr: u32) -> bool {
    values.get(&pcr).is_some_and(|value| log.sha256_value(pcr) == *value)
}
