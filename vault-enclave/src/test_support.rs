//! What the tests of the data and key side share.

use std::path::PathBuf;

use attestation::{LeaseKey, Sha256Digest, UnitSet, UnixTime};
use base64::Engine;
use ledger::manifest::ModelId;
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair};

use crate::publisher::PublisherSigner;
use crate::wrap::GrantInfo;

/// A public test vector of text, read in place. Without the vectors the test is skipped and says so; in CI it fails.
pub(crate) fn vectors(path: &str) -> Option<String> {
    vector_bytes(path).map(|bytes| String::from_utf8(bytes).expect("a text"))
}

/// As [`vectors`], of any bytes.
pub(crate) fn vector_bytes(path: &str) -> Option<Vec<u8>> {
    let workspace = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("..");
    let vectors = std::env::var_os("WEIGHTVAULT_VECTORS").map_or(workspace.join("../shared/vectors"), PathBuf::from);
    let file = vectors.join(path);
    match std::fs::read(&file) {
        Ok(bytes) => Some(bytes),
        Err(error) if in_ci() => panic!("{}: {error}", file.display()),
        Err(error) => {
            eprintln!("skipped: {}: {error}; set WEIGHTVAULT_VECTORS to the folder of the vectors", file.display());
            None
        }
    }
}

/// Whether a test that cannot run must fail.
pub(crate) fn in_ci() -> bool {
    std::env::var_os("CI").is_some_and(|ci| ci == "true")
}

/// The bytes of a JSON string of hex digits.
pub(crate) fn hex_of(value: &serde_json::Value) -> Vec<u8> {
    hex::decode(value.as_str().expect("a string")).expect("hex digits")
}

/// A model of one vault and publisher.
pub(crate) fn model_id(model: &str, version: &str) -> ModelId {
    ModelId {
        vault: Sha256Digest::of(b"vault"),
        model: model.try_into().expect("a name"),
        version: version.try_into().expect("a version"),
        publisher: Sha256Digest::of(b"publisher"),
    }
}

/// RFC 7468.
pub(crate) fn pem(label: &str, der: &[u8]) -> String {
    let text = base64::engine::general_purpose::STANDARD.encode(der);
    let lines: Vec<&str> = text.as_bytes().chunks(64).map(|line| std::str::from_utf8(line).expect("ASCII")).collect();
    format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", lines.join("\n"))
}

/// A publisher with a fresh key.
pub(crate) fn publisher(rng: &SystemRandom) -> PublisherSigner {
    let der = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, rng).expect("randomness");
    PublisherSigner::from_pem(&pem("PRIVATE KEY", der.as_ref()), rng).expect("a key just made")
}

/// A grant of these units.
pub(crate) fn example_grant<'a>(units: &'a UnitSet, lease_key: &'a LeaseKey) -> GrantInfo<'a> {
    GrantInfo {
        vault: Sha256Digest::of(b"vault"),
        session: [1; 16],
        nonce: [2; 32],
        evidence: Sha256Digest::of(b"evidence"),
        policy: Sha256Digest::of(b"policy"),
        manifest: Sha256Digest::of(b"manifest"),
        units,
        lease_key,
        lease: Sha256Digest::of(b"lease"),
        renew_by: UnixTime(1_800_000_000),
        leaf: [3; 32],
    }
}
