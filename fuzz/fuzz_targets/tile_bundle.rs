//! A bundle of entries as the log's tiles hold them; the first byte is how many there should be.
#![no_main]

use ledger::tiles::{decode_bundle, encode_bundle};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Some((&width, bundle)) = data.split_first() else { return };
    let Ok(entries) = decode_bundle(bundle, width.into()) else { return };
    assert_eq!(entries.len(), usize::from(width));
    assert_eq!(encode_bundle(&entries).as_deref(), Ok(bundle));
});
