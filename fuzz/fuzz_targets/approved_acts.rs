//! What approvers sign besides policies and models: revocations, permits, extensions, and the file of one.
#![no_main]

use ledger::extension::{EXTENSION_FILE_BYTES_MAX, Extension, ExtensionFile};
use ledger::permit::Permit;
use ledger::revocation::RevocationAct;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    if let Ok(act) = RevocationAct::parse(data) {
        assert_eq!(act.encode(), data);
    }
    if let Ok(permit) = Permit::parse(data) {
        assert_eq!(permit.encode(), data);
    }
    if let Ok(extension) = Extension::parse(data) {
        assert_eq!(extension.encode(), data);
    }
    if let Ok(file) = ExtensionFile::parse(data) {
        // What escapes to more than the limit is read and never written.
        let again = file.encode();
        assert!(again.len() > EXTENSION_FILE_BYTES_MAX || ExtensionFile::parse(&again) == Ok(file));
    }
});
