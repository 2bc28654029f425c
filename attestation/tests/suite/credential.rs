//! Credential protection.

use attestation::{ActivationSecret, EkKind, LoadChallenge};
use ring::rand::SystemRandom;

use crate::common::tpm::SoftTpm;
use crate::scene::{Scene, bind_challenge, challenge, part};

#[test]
fn a_tpm_with_that_ek_and_that_ak_opens_the_credential() {
    for tpm in [SoftTpm::ecc(), SoftTpm::rsa()] {
        let scene = Scene::new(tpm);
        let endorsed = scene.endorsed();
        let secret = ActivationSecret::from_bytes([9; 32]);
        let credential = endorsed.make_credential(&secret, &SystemRandom::new()).unwrap();
        assert_eq!((credential.id_object.len(), credential.encrypted_secret.len()), (70, 258));
        assert_eq!(scene.tpm.activate(&credential).unwrap(), [9; 32]);
    }
}

/// KDFe, ECDH and the sizes of each template, undone by an implementation that shares nothing with ours.
#[test]
fn a_credential_for_an_ecc_ek_has_the_sizes_of_its_template() {
    for (kind, sizes) in [(EkKind::EccP256, (70, 70)), (EkKind::EccP384, (86, 102))] {
        let scene = Scene::new(SoftTpm::with_ek(kind));
        let secret = ActivationSecret::from_bytes([9; 32]);
        let credential = scene.endorsed().make_credential(&secret, &SystemRandom::new()).unwrap();
        assert_eq!((credential.id_object.len(), credential.encrypted_secret.len()), sizes, "{kind:?}");
        assert_eq!(scene.tpm.activate(&credential).unwrap(), [9; 32]);
        assert_eq!(SoftTpm { ek: SoftTpm::with_ek(kind).ek, ..scene.tpm }.activate(&credential), None, "another EK");
    }
}

#[test]
fn a_tpm_with_another_ak_does_not_open_it() {
    let scene = Scene::new(SoftTpm::ecc());
    let secret = ActivationSecret::from_bytes([9; 32]);
    let credential = scene.endorsed().make_credential(&secret, &SystemRandom::new()).unwrap();
    assert_eq!(SoftTpm::ecc().activate(&credential), None);
}

#[test]
fn two_credentials_for_one_secret_have_nothing_in_common() {
    let scene = Scene::new(SoftTpm::ecc());
    let secret = ActivationSecret::from_bytes([9; 32]);
    let [one, two] = [(); 2].map(|()| scene.endorsed().make_credential(&secret, &SystemRandom::new()).unwrap());
    assert_ne!(one.encrypted_secret, two.encrypted_secret);
    assert_ne!(one.id_object[4..], two.id_object[4..]);
}

#[test]
fn what_the_tpm_opened_is_what_was_generated() {
    let scene = Scene::new(SoftTpm::ecc());
    let endorsed = scene.endorsed();
    let secret = ActivationSecret::generate(&SystemRandom::new()).unwrap();
    let credential = endorsed.make_credential(&secret, &SystemRandom::new()).unwrap();
    let opened = scene.tpm.activate(&credential).unwrap().try_into().unwrap();

    // Keeper and agent reach the same binding, each with its own copy of the secret.
    let bound = |secret| {
        let binding = bind_challenge(LoadChallenge {
            tpm: part(endorsed.ak().name(), secret),
            ..challenge(endorsed.ak().name())
        });
        *binding.digest()
    };
    assert_eq!(bound(secret), bound(ActivationSecret::from_bytes(opened)));
    assert_ne!(bound(ActivationSecret::from_bytes(opened)), bound(ActivationSecret::from_bytes([9; 32])));
}
