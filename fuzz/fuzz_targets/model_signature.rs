//! The signature of a model: a Sigstore bundle, and a publisher's key.
#![no_main]

use std::collections::BTreeMap;
use std::sync::LazyLock;

use ledger::model_signature::{self, PublisherKey};
use libfuzzer_sys::fuzz_target;

static KEY: LazyLock<PublisherKey> = LazyLock::new(|| {
    PublisherKey::from_pem(include_str!("../../ledger/tests/data/model_signature/p256.pem")).expect("a key")
});

fuzz_target!(|data: &[u8]| {
    let _ = model_signature::verify(data, &KEY, &BTreeMap::new());
    if let Ok(key) = PublisherKey::from_spki_der(data) {
        assert_eq!(key.spki_der(), data);
    }
    if let Ok(text) = std::str::from_utf8(data) {
        let _ = PublisherKey::from_pem(text);
    }
});
