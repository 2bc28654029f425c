//! The publisher's signature: OpenSSF Model Signing v1.0 bundles.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod vectors;

use std::collections::BTreeMap;
use std::path::Path;

use attestation::Sha256Digest;
use base64::prelude::{BASE64_STANDARD, Engine as _};
use ledger::model_signature::{BUNDLE_BYTES_MAX, ModelSignatureError, PublisherKey, SignError, sign, verify};
use proptest::prelude::*;
use ring::rand::SystemRandom;
use ring::signature::{
    ECDSA_P256_SHA256_ASN1_SIGNING, ECDSA_P384_SHA384_ASN1_SIGNING, EcdsaKeyPair, EcdsaSigningAlgorithm, KeyPair,
};
use serde_json::{Value, json};

type Refusal = ModelSignatureError;
type Files = BTreeMap<String, Sha256Digest>;

struct Publisher {
    pair: EcdsaKeyPair,
    pkcs8: Vec<u8>,
    key: PublisherKey,
}

impl Publisher {
    fn new(algorithm: &'static EcdsaSigningAlgorithm) -> Self {
        let rng = SystemRandom::new();
        let pkcs8 = EcdsaKeyPair::generate_pkcs8(algorithm, &rng).unwrap();
        let pair = EcdsaKeyPair::from_pkcs8(algorithm, pkcs8.as_ref(), &rng).unwrap();
        let key = PublisherKey::from_point(pair.public_key().as_ref()).unwrap();
        Self { pair, pkcs8: pkcs8.as_ref().to_vec(), key }
    }

    fn sign_bytes(&self, bytes: &[u8]) -> Result<Vec<u8>, ring::error::Unspecified> {
        self.pair.sign(&SystemRandom::new(), bytes).map(|signature| signature.as_ref().to_vec())
    }

    fn bundle(&self, files: &Files) -> Value {
        let bundle = sign("minilm", files, &self.key, |bytes| self.sign_bytes(bytes)).unwrap();
        serde_json::from_slice(&bundle).unwrap()
    }

    /// Changes the payload of a good bundle and signs it again.
    fn resigned(&self, change: impl FnOnce(&mut Value)) -> Vec<u8> {
        let mut bundle = self.bundle(&files());
        let payload = BASE64_STANDARD.decode(bundle["dsseEnvelope"]["payload"].as_str().unwrap()).unwrap();
        let mut statement: Value = serde_json::from_slice(&payload).unwrap();
        change(&mut statement);
        let payload = serde_json::to_vec(&statement).unwrap();
        let head = format!("DSSEv1 28 application/vnd.in-toto+json {} ", payload.len());
        let signature = self.sign_bytes(&[head.as_bytes(), &payload].concat()).unwrap();
        bundle["dsseEnvelope"]["payload"] = json!(BASE64_STANDARD.encode(payload));
        bundle["dsseEnvelope"]["signatures"][0]["sig"] = json!(BASE64_STANDARD.encode(signature));
        serde_json::to_vec(&bundle).unwrap()
    }
}

fn p384() -> Publisher {
    Publisher::new(&ECDSA_P384_SHA384_ASN1_SIGNING)
}

/// What a sealed model of two units has, with short contents.
const CONTENTS: [(&str, &str); 4] =
    [("dek.hpke", "dek"), ("manifest.json", "{}"), ("units/00000.cob", "unit 0"), ("units/00001.cob", "unit 1")];

fn files() -> Files {
    CONTENTS.map(|(name, content)| (name.to_owned(), Sha256Digest::of(content.as_bytes()))).into()
}

fn files_of(directory: &Path, names: &[(&str, &str)]) -> Files {
    let read = |(name, file): &(&str, &str)| {
        let bytes = std::fs::read(directory.join(file)).unwrap();
        (name.to_string(), Sha256Digest::of(&bytes))
    };
    names.iter().map(read).collect()
}

/// The fixtures' key lies behind a description in words.
fn fixture_key(fixtures: &Path) -> PublisherKey {
    let text = std::fs::read_to_string(fixtures.join("keys/certificate/signing-key-pub.pem")).unwrap();
    PublisherKey::from_pem(&text[text.find("-----BEGIN").unwrap()..]).unwrap()
}

/// The error of a good bundle after one change to its JSON.
fn refusal(change: impl FnOnce(&mut Value)) -> Refusal {
    let publisher = p384();
    let mut bundle = publisher.bundle(&files());
    change(&mut bundle);
    verify(&serde_json::to_vec(&bundle).unwrap(), &publisher.key, &files()).unwrap_err()
}

/// The error of a good payload after one change that the publisher signed.
fn signed_refusal(change: impl FnOnce(&mut Value)) -> Refusal {
    let publisher = p384();
    verify(&publisher.resigned(change), &publisher.key, &files()).unwrap_err()
}

#[test]
fn what_was_signed_verifies_with_either_curve() {
    for algorithm in [&ECDSA_P256_SHA256_ASN1_SIGNING, &ECDSA_P384_SHA384_ASN1_SIGNING] {
        let publisher = Publisher::new(algorithm);
        let bundle = serde_json::to_vec(&publisher.bundle(&files())).unwrap();
        assert_eq!(verify(&bundle, &publisher.key, &files()), Ok(()));
        assert_eq!(verify(&bundle, &Publisher::new(algorithm).key, &files()), Err(Refusal::OtherKey));
    }
}

#[test]
fn the_reference_signers_fixtures_verify_over_their_files() {
    let Some(fixtures) = vectors::path("crypto/oms/fixtures") else { return };
    let key = fixture_key(&fixtures);
    for (fixture, names) in [
        ("v0.3.1-elliptic-key", &[(".", "signme-1")][..]),
        ("v1.0.0-elliptic-key", &[(".", "signme-1")]),
        ("v1.1.0-elliptic-key", &[("signme-1", "signme-1"), ("signme-2", "signme-2")]),
    ] {
        let bundle = std::fs::read(fixtures.join(fixture).join("model.sig")).unwrap();
        let mut files = files_of(&fixtures.join(fixture), names);
        assert_eq!(verify(&bundle, &key, &files), Ok(()), "{fixture}");
        let first = names[0].0.to_owned();
        files.insert(first.clone(), Sha256Digest::of(b"something else"));
        assert_eq!(verify(&bundle, &key, &files), Err(Refusal::OtherContent { name: first }), "{fixture}");
    }
    let bundle = std::fs::read(fixtures.join("v1.0.0-certificate/model.sig")).unwrap();
    assert_eq!(verify(&bundle, &key, &files()), Err(Refusal::Method));
}

#[test]
fn the_specifications_bundles_are_taken_and_refused_as_it_says() {
    let Some(vectors) = vectors::path("crypto/oms/spec/test-vectors/v1.0") else { return };
    let Some(fixtures) = vectors::path("crypto/oms/fixtures") else { return };
    let key = fixture_key(&fixtures);
    let names = [("signme-1", "signme-1"), ("signme-2", "signme-2")];
    let files = files_of(&fixtures.join("v1.1.0-elliptic-key"), &names);
    let verified = |file: &str| verify(&std::fs::read(vectors.join(file)).unwrap(), &key, &files);
    assert_eq!(verified("valid/key.bundle.json"), Ok(()));
    // Other methods are not ours.
    for other in
        ["valid/certificate.bundle.json", "valid/sigstore.bundle.json", "invalid/missing-tlog-entries.bundle.json"]
    {
        assert_eq!(verified(other), Err(Refusal::Method), "{other}");
    }
    for broken in ["empty", "missing-envelope", "missing-verification-material"] {
        let error = verified(&format!("invalid/{broken}.bundle.json")).unwrap_err();
        assert!(matches!(error, Refusal::Bundle(_)), "{broken}: {error}");
    }
    // Its payload was changed without being signed again.
    assert_eq!(verified("invalid-payload/wrong-predicate.bundle.json"), Err(Refusal::Signature));
}

/// Made by PyPI `model-signing` 1.1.1: see `common_tools_and_we_verify_each_other`.
#[test]
fn bundles_of_the_reference_signer_verify() {
    let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/model_signature");
    for curve in ["p256", "p384"] {
        let key = PublisherKey::from_pem(&std::fs::read_to_string(data.join(curve).with_extension("pem")).unwrap());
        let bundle = std::fs::read(data.join(curve).with_extension("sig")).unwrap();
        assert_eq!(verify(&bundle, &key.unwrap(), &files()), Ok(()), "{curve}");
    }
}

/// Both directions with the reference signer, on both curves. With `WEIGHTVAULT_RECORD=DIR` its bundles are kept.
#[test]
#[ignore = "needs PyPI model-signing 1.1.1 and its program on the PATH"]
fn common_tools_and_we_verify_each_other() {
    let run = |arguments: &[&str], directory: &Path| {
        std::process::Command::new("model_signing").args(arguments).current_dir(directory).status().unwrap().success()
    };
    for (curve, algorithm) in [("p256", &ECDSA_P256_SHA256_ASN1_SIGNING), ("p384", &ECDSA_P384_SHA384_ASN1_SIGNING)] {
        let publisher = Publisher::new(algorithm);
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        std::fs::create_dir_all(at("model/units")).unwrap();
        for (name, content) in CONTENTS {
            std::fs::write(at("model").join(name), content).unwrap();
        }
        std::fs::write(at("pub.pem"), publisher.key.to_pem()).unwrap();
        let pkcs8 = BASE64_STANDARD.encode(&publisher.pkcs8);
        let private = format!("-----BEGIN PRIVATE KEY-----\n{pkcs8}\n-----END PRIVATE KEY-----\n");
        std::fs::write(at("key.pem"), private).unwrap();

        let ours = serde_json::to_vec(&publisher.bundle(&files())).unwrap();
        std::fs::write(at("model/model.sig"), ours).unwrap();
        let verify_key = ["verify", "key", "--signature", "model/model.sig", "--public_key", "pub.pem", "model"];
        assert!(run(&verify_key, directory.path()));
        std::fs::write(at("model/units/00001.cob"), "unit 2").unwrap();
        assert!(!run(&verify_key, directory.path()));
        std::fs::write(at("model/units/00001.cob"), "unit 1").unwrap();

        std::fs::remove_file(at("model/model.sig")).unwrap();
        let sign_key = ["sign", "key", "--signature", "model/model.sig", "--private_key", "key.pem", "model"];
        assert!(run(&sign_key, directory.path()));
        let theirs = std::fs::read(at("model/model.sig")).unwrap();
        assert_eq!(verify(&theirs, &publisher.key, &files()), Ok(()));
        if let Some(record) = std::env::var_os("WEIGHTVAULT_RECORD") {
            std::fs::write(Path::new(&record).join(curve).with_extension("sig"), theirs).unwrap();
            std::fs::write(Path::new(&record).join(curve).with_extension("pem"), publisher.key.to_pem()).unwrap();
        }
    }
}

#[test]
fn a_bundle_with_one_thing_wrong_is_refused() {
    assert_eq!(
        refusal(|b| b["mediaType"] = json!("application/vnd.dev.sigstore.bundle.v0.2+json")),
        Refusal::MediaType
    );
    assert_eq!(refusal(|b| b["dsseEnvelope"]["payloadType"] = json!("text/plain")), Refusal::PayloadType);
    let material = |name: &str, value: Value| {
        refusal(|b| b["verificationMaterial"].as_object_mut().unwrap().insert(name.to_owned(), value).map_or((), drop))
    };
    assert_eq!(material("publicKey", json!({"hint": "00"})), Refusal::OtherKey);
    assert_eq!(material("publicKey", json!({"rawBytes": "AAAA"})), Refusal::OtherKey);
    assert_eq!(material("publicKey", json!({})), Refusal::Method);
    assert_eq!(material("publicKey", Value::Null), Refusal::Method);
    assert_eq!(material("certificate", json!({"rawBytes": ""})), Refusal::Method);
    assert_eq!(material("x509CertificateChain", json!({})), Refusal::Method);
    assert_eq!(material("tlogEntries", json!([{}])), Refusal::Method);
    assert_eq!(material("timestampVerificationData", json!({})), Refusal::Method);
    assert!(matches!(material("other", json!(1)), Refusal::Bundle(_)));

    let signatures = |value: Value| refusal(|b| b["dsseEnvelope"]["signatures"] = value);
    assert_eq!(signatures(json!([])), Refusal::SignatureCount { count: 0 });
    let twice = refusal(|b| {
        let one = b["dsseEnvelope"]["signatures"][0].clone();
        b["dsseEnvelope"]["signatures"] = json!([one, one]);
    });
    assert_eq!(twice, Refusal::SignatureCount { count: 2 });
    assert_eq!(signatures(json!([{"sig": "AAAA", "keyid": "x"}])), Refusal::KeyId);
    assert_eq!(signatures(json!([{"sig": "AAA"}])), Refusal::Base64);
    assert_eq!(signatures(json!([{"sig": "AAAA", "keyid": null}])), Refusal::Signature);
    assert_eq!(refusal(|b| b["dsseEnvelope"]["payload"] = json!("*")), Refusal::Base64);
    // Not parsed before it is verified: this payload is not even JSON.
    assert_eq!(refusal(|b| b["dsseEnvelope"]["payload"] = json!("AAAA")), Refusal::Signature);
    assert!(matches!(refusal(|b| b["messageSignature"] = json!({})), Refusal::Bundle(_)));
    let publisher = p384();
    let large = vec![b' '; BUNDLE_BYTES_MAX + 1];
    let too_large = Err(Refusal::TooLarge { bytes: BUNDLE_BYTES_MAX + 1 });
    assert_eq!(verify(&large, &publisher.key, &files()), too_large);
}

#[test]
fn a_signed_statement_with_one_thing_wrong_is_refused() {
    let predicate = |field: &str, value: Value| signed_refusal(|s| s["predicate"]["serialization"][field] = value);
    assert_eq!(signed_refusal(|s| s["_type"] = json!("https://in-toto.io/Statement/v0.1")), Refusal::StatementType);
    let old = json!("https://model_signing/Digests/v0.1");
    assert_eq!(signed_refusal(|s| s["predicateType"] = old), Refusal::PredicateType);
    assert_eq!(predicate("method", json!("shards")), Refusal::Method);
    assert_eq!(predicate("hash_type", json!("blake3")), Refusal::Algorithm);
    assert!(matches!(predicate("shard_size", json!(1)), Refusal::Statement(_)));
    assert!(matches!(predicate("allow_symlinks", json!("no")), Refusal::Statement(_)));
    assert!(matches!(signed_refusal(|s| s["x"] = json!(1)), Refusal::Statement(_)));
    assert!(matches!(signed_refusal(|s| *s = json!([])), Refusal::Statement(_)));
    assert_eq!(signed_refusal(|s| s["subject"][0]["name"] = json!("")), Refusal::Subject);
    assert_eq!(signed_refusal(|s| s["subject"][0]["digest"]["sha256"] = json!("00".repeat(32))), Refusal::Subject);
    assert_eq!(signed_refusal(|s| s["subject"] = json!([])), Refusal::Subject);
    let twice = signed_refusal(|s| s["subject"] = json!([s["subject"][0], s["subject"][0]]));
    assert_eq!(twice, Refusal::Subject);

    let resource = |field: &str, value: Value| signed_refusal(|s| s["predicate"]["resources"][1][field] = value);
    let name = || "manifest.json".to_owned();
    assert_eq!(resource("algorithm", json!("blake3")), Refusal::Algorithm);
    assert_eq!(resource("digest", json!("AB".repeat(32))), Refusal::Digest { name: name() });
    assert_eq!(resource("digest", json!("ab".repeat(31))), Refusal::Digest { name: name() });
    assert_eq!(signed_refusal(|s| s["predicate"]["resources"] = json!([])), Refusal::NoFiles);
    let swapped = signed_refusal(|s| s["predicate"]["resources"].as_array_mut().unwrap().swap(0, 1));
    assert_eq!(swapped, Refusal::Unordered { name: "dek.hpke".to_owned() });
    let repeated = signed_refusal(|s| {
        let first = s["predicate"]["resources"][0].clone();
        s["predicate"]["resources"].as_array_mut().unwrap().insert(0, first);
    });
    assert_eq!(repeated, Refusal::Unordered { name: "dek.hpke".to_owned() });
}

#[test]
fn unknown_fields_of_a_file_are_ignored_as_the_specification_says() {
    let publisher = p384();
    let bundle = publisher.resigned(|s| s["predicate"]["resources"][0]["media_type"] = json!("x/y"));
    assert_eq!(verify(&bundle, &publisher.key, &files()), Ok(()));
    let bundle =
        publisher.resigned(|s| drop(s["predicate"]["serialization"].as_object_mut().unwrap().remove("ignore_paths")));
    assert_eq!(verify(&bundle, &publisher.key, &files()), Ok(()));
}

#[test]
fn files_that_are_not_exactly_those_signed_are_refused() {
    let publisher = p384();
    let bundle = serde_json::to_vec(&publisher.bundle(&files())).unwrap();
    let with = |change: &dyn Fn(&mut Files)| {
        let mut files = files();
        change(&mut files);
        verify(&bundle, &publisher.key, &files).unwrap_err()
    };
    let name = |name: &str| name.to_owned();
    let missing = with(&|files| {
        files.insert(name("units/00002.cob"), Sha256Digest::of(b""));
    });
    assert_eq!(missing, Refusal::MissingFile { name: name("units/00002.cob") });
    let extra = with(&|files| {
        files.remove("units/00001.cob");
    });
    assert_eq!(extra, Refusal::ExtraFile { name: name("units/00001.cob") });
    let renamed = with(&|files| {
        let digest = files.remove("dek.hpke").unwrap();
        files.insert(name("dek2.hpke"), digest);
    });
    assert_eq!(renamed, Refusal::ExtraFile { name: name("dek.hpke") });
    let changed = with(&|files| {
        files.insert(name("dek.hpke"), Sha256Digest::of(b"other"));
    });
    assert_eq!(changed, Refusal::OtherContent { name: name("dek.hpke") });
    let swapped = with(&|files| {
        let (a, b) = (files["units/00000.cob"], files["units/00001.cob"]);
        files.extend([(name("units/00000.cob"), b), (name("units/00001.cob"), a)]);
    });
    assert_eq!(swapped, Refusal::OtherContent { name: name("units/00000.cob") });
}

#[test]
fn a_bundle_that_would_not_verify_is_not_made() {
    let (publisher, other) = (p384(), p384());
    let made = sign("m", &files(), &publisher.key, |bytes| other.sign_bytes(bytes));
    assert_eq!(made, Err(SignError::Bundle(Refusal::Signature)));
    let made = sign("m", &files(), &publisher.key, |_| Err("no token"));
    assert_eq!(made, Err(SignError::Signer("no token")));
    let made = sign("", &files(), &publisher.key, |bytes| publisher.sign_bytes(bytes));
    assert_eq!(made, Err(SignError::Bundle(Refusal::Subject)));
    let made = sign("m", &Files::new(), &publisher.key, |bytes| publisher.sign_bytes(bytes));
    assert_eq!(made, Err(SignError::Bundle(Refusal::NoFiles)));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn a_changed_byte_of_the_envelope_is_never_accepted(at: usize, byte: u8) {
        let publisher = p384();
        let good = serde_json::to_vec(&publisher.bundle(&files())).unwrap();
        let mut bundle = good.clone();
        let at = at % bundle.len();
        prop_assume!(bundle[at] != byte);
        bundle[at] = byte;
        // White space instead of white space changes nothing; there is none.
        prop_assert!(verify(&bundle, &publisher.key, &files()).is_err());
    }
}
