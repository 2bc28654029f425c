//! The manifest of a sealed model: one manifest has one text.
#![no_main]

use ledger::manifest::{Manifest, Selection};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Ok(manifest) = Manifest::parse(data) else { return };
    assert_eq!(manifest.bytes(), data);
    let units = manifest.select(&Selection::All).expect("a manifest has units");
    let _ = manifest.bytes_of(&units);
    let _ = manifest.total_bytes();
});
