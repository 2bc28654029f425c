use ring::rand::SystemRandom;
use serde_json::Value;

use super::*;
use crate::test_support::{example_grant, hex_of, model_id, vectors};

/// draft-ietf-hpke-pq: exactly our suite. The crate draws for an encapsulation what the vectors call ikmE.
#[test]
fn suite_agrees_with_the_vectors_of_the_draft() {
    let Some(text) = vectors("crypto/hpke/hpke-pq-draft.json") else { return };
    let cases: Vec<Value> = serde_json::from_str(&text).unwrap();
    let ours = cases.iter().find(|case| case["kem_id"] == 0x51 && case["kdf_id"] == 2 && case["aead_id"] == 2);
    let case = ours.expect("the suite is among the vectors");
    assert_eq!(case["mode"], 0);
    let field = |name: &str| hex_of(&case[name]);

    let pair = HpkeKeyPair::derive(&field("ikmR")).unwrap();
    assert_eq!(pair.public_key().as_bytes().as_slice(), field("pkRm"));
    pair.seed.with_bytes(|seed| assert_eq!(seed.as_slice(), field("skRm")));

    // Single shot is the encryption with sequence number 0; all vectors use an aad, which we leave empty: so the key
    // schedule is compared with the AEAD done by hand.
    let mut randomness = field("ikmE");
    randomness.resize(RANDOM_BYTES, 0);
    let drawn = Drawn::known(randomness);
    let wrapped = wrap_drawn(pair.public_key(), &field("info"), b"unit keys", drawn).unwrap();
    assert_eq!(wrapped.enc, field("enc"));
    let (key, nonce) = (field("key").try_into().unwrap(), field("base_nonce").try_into().unwrap());
    let mut expected = b"unit keys".to_vec();
    let tag = <crate::aead::Small as crate::aead::Aead>::new(&key);
    let tag = crate::aead::Aead::seal(&tag, nonce, &mut expected).unwrap();
    expected.extend_from_slice(&tag);
    assert_eq!(wrapped.ciphertext, expected);
    let mut opened = [0; 9];
    pair.open(&field("info"), &wrapped.enc, &wrapped.ciphertext, &mut opened).unwrap();
    assert_eq!(&opened, b"unit keys");
}

#[test]
fn a_wrapped_dek_opens_for_its_own_vault_model_version_plan_and_publisher_alone() {
    let rng = SystemRandom::new();
    let (pair, stranger) = (HpkeKeyPair::generate(&rng).unwrap(), HpkeKeyPair::generate(&rng).unwrap());
    let dek = Dek::generate(&rng).unwrap();
    let id = model_id("minilm", "1");
    let context = ModelContext { id: &id, plan: Sha256Digest::of(b"plan") };
    let wrapped = wrap_dek(pair.public_key(), context, &dek, &rng).unwrap();
    assert_eq!(wrapped.len(), WRAPPED_DEK_BYTES);
    let opened = unwrap_dek(&pair, context, &wrapped).unwrap();
    opened.with_bytes(|opened| dek.with_bytes(|dek| assert_eq!(opened, dek)));

    assert_eq!(unwrap_dek(&stranger, context, &wrapped).err(), Some(WrapError::Refused));
    let other_plan = ModelContext { id: &id, plan: Sha256Digest::of(b"other") };
    assert_eq!(unwrap_dek(&pair, other_plan, &wrapped).err(), Some(WrapError::Refused));
    let mut other = vec![model_id("minilm", "2"), model_id("minilm2", "1"), id.clone(), id.clone()];
    other[2].publisher = Sha256Digest::of(b"other publisher");
    other[3].vault = Sha256Digest::of(b"other vault");
    for id in &other {
        assert_eq!(
            unwrap_dek(&pair, ModelContext { id, ..context }, &wrapped).err(),
            Some(WrapError::Refused),
            "{id:?}"
        );
    }
}

#[test]
fn a_wrapped_dek_changed_anywhere_or_cut_is_refused() {
    let rng = SystemRandom::new();
    let pair = HpkeKeyPair::generate(&rng).unwrap();
    let id = model_id("minilm", "1");
    let context = ModelContext { id: &id, plan: Sha256Digest::of(b"plan") };
    let wrapped = wrap_dek(pair.public_key(), context, &Dek::generate(&rng).unwrap(), &rng).unwrap();
    for position in [0, 1567, 1568, 1600, ENC_BYTES - 1, ENC_BYTES, WRAPPED_DEK_BYTES - 1] {
        let mut changed = wrapped.clone();
        changed[position] ^= 1;
        assert_eq!(unwrap_dek(&pair, context, &changed).err(), Some(WrapError::Refused), "byte {position}");
    }
    let length = |found| Some(WrapError::Length { expected: WRAPPED_DEK_BYTES, found });
    assert_eq!(unwrap_dek(&pair, context, &wrapped[1..]).err(), length(WRAPPED_DEK_BYTES - 1));
    assert_eq!(unwrap_dek(&pair, context, &[]).err(), length(0));
}

#[test]
fn granted_keys_open_for_exactly_what_was_granted() {
    let rng = SystemRandom::new();
    let dek = Dek::generate(&rng).unwrap();
    let id = model_id("minilm", "1");
    let context = ModelContext { id: &id, plan: Sha256Digest::of(b"plan") };
    let units = UnitSet::try_from(vec![0, 2, 5]).unwrap();
    let keys = UnitKeys::derive(&dek, context, units.clone()).unwrap();
    let lease_key = LeaseKey::try_from([9; 32].as_slice()).unwrap();
    let info = example_grant(&units, &lease_key);

    let pair = HpkeKeyPair::generate(&rng).unwrap();
    let seed = pair.seed.with_bytes(|seed| *seed);
    let again = || HpkeKeyPair::from_seed(Secret::known(seed));
    let wrapped = wrap_unit_keys(pair.public_key(), &info, &keys, &rng).unwrap();
    let opened = unwrap_unit_keys(pair, &info, &wrapped).unwrap();
    keys.with_bytes(|keys| opened.with_bytes(|opened| assert_eq!(opened, keys)));
    assert_eq!(opened.units(), &units);

    let other_units = UnitSet::try_from(vec![0, 2, 6]).unwrap();
    let other_key = LeaseKey::try_from([8; 32].as_slice()).unwrap();
    let other = Sha256Digest::of(b"other");
    for changed in [
        GrantInfo { vault: other, ..info },
        GrantInfo { session: [9; 16], ..info },
        GrantInfo { nonce: [9; 32], ..info },
        GrantInfo { evidence: other, ..info },
        GrantInfo { policy: other, ..info },
        GrantInfo { manifest: other, ..info },
        GrantInfo { units: &other_units, ..info },
        GrantInfo { lease_key: &other_key, ..info },
        GrantInfo { lease: other, ..info },
        GrantInfo { renew_by: UnixTime(9), ..info },
        GrantInfo { leaf: [9; 32], ..info },
    ] {
        assert_eq!(unwrap_unit_keys(again(), &changed, &wrapped).err(), Some(WrapError::Refused), "{changed:?}");
    }
    let fewer = UnitSet::try_from(vec![0, 2]).unwrap();
    let refused = unwrap_unit_keys(again(), &GrantInfo { units: &fewer, ..info }, &wrapped);
    assert_eq!(refused.err(), Some(WrapError::Length { expected: 80, found: 112 }));
    assert_eq!(
        wrap_unit_keys(again().public_key(), &GrantInfo { units: &fewer, ..info }, &keys, &rng),
        Err(WrapError::Units)
    );
}

#[test]
fn a_public_key_that_is_none_is_refused() {
    let rng = SystemRandom::new();
    let none = HpkePublicKey::try_from([0xff; HPKE_PUBLIC_KEY_BYTES].as_slice()).unwrap();
    let id = model_id("minilm", "1");
    let context = ModelContext { id: &id, plan: Sha256Digest::of(b"plan") };
    assert_eq!(wrap_dek(&none, context, &Dek::generate(&rng).unwrap(), &rng), Err(WrapError::PublicKey));
}

impl HpkeKeyPair {
    /// Shows the secret to the test that looks for it in memory.
    pub(crate) fn note_secrets(&self, note: &mut dyn FnMut(&'static str, &[u8])) {
        self.seed.with_bytes(|bytes| note("hpke seed", bytes));
    }
}
