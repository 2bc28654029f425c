//! The vault file, with the genesis and its policy in it.
#![no_main]

use ledger::genesis::{Core, Genesis};
use ledger::vault_file::VaultFile;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let _ = VaultFile::parse(data);
    if let Ok(genesis) = Genesis::parse(data) {
        assert_eq!(genesis.bytes(), data);
    }
    if let Ok(core) = Core::parse(data) {
        assert_eq!(core.encode(), data);
    }
});
