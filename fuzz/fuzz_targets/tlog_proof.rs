//! Proofs that an entry is in the log: their text, and the arithmetic of their paths under any size and index.
#![no_main]

use std::sync::LazyLock;

use attestation::{LogKey, Sha256Digest};
use ledger::checkpoint::LogVerifier;
use ledger::merkle::{verify_consistency, verify_inclusion};
use libfuzzer_sys::fuzz_target;

static LOG: LazyLock<LogVerifier> = LazyLock::new(|| {
    LogVerifier::new(Sha256Digest::of(b"vault"), LogKey::try_from([8; 32].as_slice()).expect("its length"))
});

fuzz_target!(|data: &[u8]| {
    if let Ok(text) = std::str::from_utf8(data) {
        assert!(LOG.verify_proof(text, b"entry").is_err());
    }
    let Some((index, rest)) = data.split_first_chunk() else { return };
    let Some((size, rest)) = rest.split_first_chunk() else { return };
    let (index, size) = (u64::from_le_bytes(*index), u64::from_le_bytes(*size));
    let (path, _) = rest.as_chunks::<32>();
    let _ = verify_inclusion(&[1; 32], index, size, path, &[2; 32]);
    let _ = verify_consistency(index, size, path, &[1; 32], &[2; 32]);
});
