//! The event log of a firmware, its replay, and what a kernel's command line says of dm-verity.
#![no_main]

use attestation::{EventLog, verity_root_hashes};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    if let Ok(text) = std::str::from_utf8(data) {
        let _ = verity_root_hashes(text);
    }
    let Ok(log) = EventLog::parse(data) else { return };
    for event in log.events() {
        assert!(event.data().len() <= data.len());
        let _ = (event.pcr(), event.type_name(), event.sha256(), event.measured(), format!("{:?}", event.content()));
    }
    let banks = log.banks().to_vec();
    let replayed = log.replay();
    for (index, value) in replayed.sha256() {
        assert!(banks.iter().any(|bank| replayed.pcr(*bank, index) == Some(&value[..])));
    }
});
