//! Signed notes, verifier keys and checkpoints. A checkpoint is read only once its signature holds, so this target signs the
//! text that it is given.
#![no_main]

use std::sync::LazyLock;

use attestation::{LogKey, Sha256Digest};
use ledger::checkpoint::LogVerifier;
use ledger::note::VerifierKey;
use libfuzzer_sys::fuzz_target;
use ring::signature::{Ed25519KeyPair, KeyPair};

static SIGNER: LazyLock<(Ed25519KeyPair, LogVerifier)> = LazyLock::new(|| {
    let key = Ed25519KeyPair::from_seed_unchecked(&[7; 32]).expect("a seed");
    let log_key = LogKey::try_from(key.public_key().as_ref()).expect("its length");
    (key, LogVerifier::new(Sha256Digest::of(b"vault"), log_key))
});

fuzz_target!(|text: &str| {
    let (signer, log) = &*SIGNER;
    let _ = VerifierKey::parse(text);
    assert!(log.verify_checkpoint(text).is_err());
    // Behind the origin, without which nothing of a checkpoint is read.
    for text in [text.to_owned(), format!("{}\n{text}", log.origin())] {
        let signature = signer.sign(text.as_bytes());
        let signature: &[u8; 64] = signature.as_ref().try_into().expect("its length");
        let Ok(note) = log.key().assemble(&text, signature) else { continue };
        if let Ok(checkpoint) = log.verify_checkpoint(&note) {
            assert_eq!(log.checkpoint_text(&checkpoint), text);
        }
    }
});
