//! TPMS_ATTEST, TPMT_SIGNATURE and the public areas of an AK and of an EK. An attestation is read only once its signature holds, so this
//! target signs what it is given with an AK of its own.
#![no_main]

use std::sync::LazyLock;

use attestation::{
    ActivationSecret, Anchor, AttestationKey, Binding, EkKind, EkPublic, EndorsedTpm, HpkePublicKey, LeaseKey, Load,
    LoadChallenge, PcrSelection, Sha256Digest, TpmIdentity, TpmPart, TpmQuote, Trust, TrustAnchors, UnitSet, UnixTime,
    verify_tpm,
};
use libfuzzer_sys::fuzz_target;
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair};
use weightvault_fuzz::Recorded;

struct Scene {
    rng: SystemRandom,
    ak: EcdsaKeyPair,
    identity: TpmIdentity,
    tpm: EndorsedTpm,
    pcrs: PcrSelection,
}

/// The EK is the recorded one. That an AK is of the same TPM only the activation shows, which is not part of this.
static SCENE: LazyLock<Scene> = LazyLock::new(|| {
    let recorded = Recorded::read();
    let (rng, algorithm) = (SystemRandom::new(), &ECDSA_P256_SHA256_FIXED_SIGNING);
    let key = EcdsaKeyPair::generate_pkcs8(algorithm, &rng).expect("a key");
    let ak = EcdsaKeyPair::from_pkcs8(algorithm, key.as_ref(), &rng).expect("that key");
    let identity = TpmIdentity {
        ek_certificates: recorded.ek_certificates,
        ek_public: Vec::new(),
        ak_public: public(ak.public_key().as_ref()),
    };
    let anchor = Anchor { name: "recorded".to_owned(), trust: Trust::Emulated, certificate: recorded.anchor };
    let anchors = TrustAnchors::built_in().with(anchor).expect("an authority");
    let tpm = EndorsedTpm::verify(&identity, &anchors, UnixTime(recorded.now)).expect("the recorded chain holds");
    Scene { rng, ak, identity, tpm, pcrs: PcrSelection::try_from([0, 1, 2, 7, 11].as_slice()).expect("a selection") }
});

fuzz_target!(|data: &[u8]| {
    let scene = &*SCENE;
    let _ = AttestationKey::parse(data);
    let _ = EkPublic::parse(data);
    for kind in [EkKind::Rsa2048, EkKind::EccP256, EkKind::EccP384] {
        let _ = EkPublic::parse(&[kind.template_prefix().as_slice(), data].concat());
    }
    let verify = |attest: &[u8], signature: Vec<u8>| {
        let (identity, pcrs) = (scene.identity.clone(), Vec::new());
        let quote = TpmQuote { identity, attest: attest.to_vec(), signature, pcrs };
        assert!(verify_tpm(quote, &scene.tpm, binding(&scene.tpm), &scene.pcrs).is_err());
    };
    verify(b"", data.to_vec());
    let fixed = scene.ak.sign(&scene.rng, data).expect("signs");
    let (r, s) = fixed.as_ref().split_at(32);
    verify(data, [&[0x00, 0x18, 0x00, 0x0b, 0, 32][..], r, &[0, 32], s].concat());
});

/// TPMT_PUBLIC of a restricted signing key on P-256.
fn public(point: &[u8]) -> Vec<u8> {
    let head =
        [0x00, 0x23, 0x00, 0x0b, 0x00, 0x05, 0x04, 0x72, 0, 0, 0x00, 0x10, 0x00, 0x18, 0x00, 0x0b, 0, 3, 0, 0x10];
    [&head[..], &[0, 32], &point[1..33], &[0, 32], &point[33..]].concat()
}

fn binding(tpm: &EndorsedTpm) -> Binding<Load> {
    let secret = ActivationSecret::from_bytes([7; 32]);
    let challenge = LoadChallenge {
        rule: "serve".to_owned(),
        model: "model".to_owned(),
        version: "1".to_owned(),
        session: [1; 16],
        nonce: [2; 32],
        vault: Sha256Digest::of(b"vault"),
        policy: Sha256Digest::of(b"policy"),
        manifest: Sha256Digest::of(b"manifest"),
        units: UnitSet::try_from(vec![0]).expect("one unit"),
        tpm: TpmPart::Activated { ak_name: *tpm.ak().name(), secret },
    };
    let hpke = HpkePublicKey::try_from([3; 1665].as_slice()).expect("its length");
    challenge.bind(hpke, LeaseKey::try_from([4; 32].as_slice()).expect("its length"))
}
