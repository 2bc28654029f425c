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
