use attestation::Sha256Digest;

use super::*;
use crate::derive::RootSource;
use crate::secret::TpmSecret;

fn context(instance: u8, core: &[u8]) -> KeeperContext {
    KeeperContext { instance: [instance; 32], core: Sha256Digest::of(core) }
}

fn fixed_root(byte: u8) -> Root {
    RootSource::Tpm(&TpmSecret::known([byte; 64])).root().unwrap()
}

#[test]
fn signatures_verify_under_the_public_halves() {
    let keys = VaultKeys::derive(&fixed_root(1), &context(1, b"core")).unwrap();
    let signature = keys.sign_identity(b"grant").unwrap();
    assert_eq!(keys.identity_key().verify(b"grant", &signature), Ok(()));
    assert!(keys.identity_key().verify(b"other", &signature).is_err());
    let signature = keys.sign_log(b"checkpoint").unwrap();
    assert_eq!(keys.log_key().verify(b"checkpoint", &signature), Ok(()));
    assert!(keys.log_key().verify(b"other", &signature).is_err());
}

#[test]
fn the_same_root_instance_and_core_give_the_same_keys_and_any_other_do_not() {
    let public = |root: u8, instance: u8, core: &[u8]| {
        let keys = VaultKeys::derive(&fixed_root(root), &context(instance, core)).unwrap();
        (keys.identity_key().clone(), keys.log_key().clone(), keys.wrap_key().clone())
    };
    let ours = public(1, 1, b"core");
    assert_eq!(ours, public(1, 1, b"core"));
    for other in [public(2, 1, b"core"), public(1, 2, b"core"), public(1, 1, b"other core")] {
        assert!(ours.0 != other.0 && ours.1 != other.1 && ours.2 != other.2);
    }
}

#[test]
fn keys_of_the_next_epoch_are_fresh_but_for_the_log_key_and_come_back_with_the_counter() {
    let rng = ring::rand::SystemRandom::new();
    let keys = VaultKeys::derive(&fixed_root(1), &context(1, b"core")).unwrap();
    let next = keys.renewed(&rng).unwrap();
    assert_eq!(next.log_key(), keys.log_key());
    assert_eq!(next.log_key().verify(b"checkpoint", &next.sign_log(b"checkpoint").unwrap()), Ok(()));
    assert_eq!(next.identity_key().verify(b"grant", &next.sign_identity(b"grant").unwrap()), Ok(()));
    let again = keys.renewed(&rng).unwrap();
    for (one, other) in [(&keys, &next), (&next, &again)] {
        assert!(one.identity_key() != other.identity_key() && one.wrap_key() != other.wrap_key());
        one.kek().with_bytes(|kek| other.kek().with_bytes(|other| assert_ne!(kek, other)));
    }
    let auth = CounterAuth::generate(&rng).unwrap();
    let (taken, counter) = VaultKeys::from_epoch_secrets(&next.epoch_secrets(&auth).unwrap()).unwrap();
    assert!(taken.identity_key() == next.identity_key() && taken.wrap_key() == next.wrap_key());
    assert_eq!(taken.log_key(), next.log_key());
    taken.kek().with_bytes(|taken| next.kek().with_bytes(|kek| assert_eq!(taken, kek)));
    counter.with_bytes(|counter| auth.with_bytes(|auth| assert_eq!(counter, auth)));
}

#[test]
fn a_scalar_of_zero_or_beyond_the_order_is_no_identity_key() {
    assert!(identity_key(&[0; 48]).is_none());
    assert!(identity_key(&[0xff; 48]).is_none());
    assert!(identity_key(&[1; 48]).is_some());
}

impl VaultKeys {
    /// Shows the secrets to the test that looks for them in memory.
    pub(crate) fn note_secrets(&self, note: &mut dyn FnMut(&'static str, &[u8])) {
        self.kek.with_bytes(|bytes| note("kek", bytes));
        self.identity.with_bytes(|bytes| note("identity key", bytes));
        self.log.with_bytes(|bytes| note("log key", bytes));
        self.wrap.note_secrets(note);
    }
}
