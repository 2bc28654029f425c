//! The blob of a requester's evidence: one set has one encoding.
#![no_main]

use libfuzzer_sys::fuzz_target;
use vault_proto::convert::EvidenceSet;

fuzz_target!(|data: &[u8]| {
    if let Ok(set) = EvidenceSet::from_blob(data) {
        assert_eq!(set.blob(), data);
    }
});
