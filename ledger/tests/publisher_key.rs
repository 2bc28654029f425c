//! Publisher keys, and the signatures that they verify.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod vectors;

use attestation::{Sha256Digest, SignatureInvalid};
use ledger::model_signature::{PublisherKey, PublisherKeyError};
use ring::rand::SystemRandom;
use ring::signature::{
    ECDSA_P256_SHA256_ASN1_SIGNING, ECDSA_P384_SHA384_ASN1_SIGNING, EcdsaKeyPair, EcdsaSigningAlgorithm, KeyPair,
};

fn new_key(algorithm: &'static EcdsaSigningAlgorithm) -> PublisherKey {
    let rng = SystemRandom::new();
    let pkcs8 = EcdsaKeyPair::generate_pkcs8(algorithm, &rng).unwrap();
    let pair = EcdsaKeyPair::from_pkcs8(algorithm, pkcs8.as_ref(), &rng).unwrap();
    PublisherKey::from_point(pair.public_key().as_ref()).unwrap()
}

/// Every valid case verifies and every invalid one is refused; these files have no others.
#[test]
fn signatures_agree_with_wycheproof() {
    for file in ["ecdsa_secp256r1_sha256_test.json", "ecdsa_secp384r1_sha384_test.json"] {
        let Some(cases) = vectors::json(&format!("crypto/wycheproof/{file}")) else { return };
        let mut count = 0;
        for group in cases["testGroups"].as_array().unwrap() {
            let hex = |value: &serde_json::Value| hex::decode(value.as_str().unwrap()).unwrap();
            let key = PublisherKey::from_spki_der(&hex(&group["publicKeyDer"])).unwrap();
            assert_eq!(PublisherKey::from_pem(group["publicKeyPem"].as_str().unwrap()).as_ref(), Ok(&key));
            for case in group["tests"].as_array().unwrap() {
                let verified = key.verify(&hex(&case["msg"]), &hex(&case["sig"])).is_ok();
                let valid = match case["result"].as_str().unwrap() {
                    "valid" => true,
                    "invalid" => false,
                    other => panic!("a case of a new kind: {other}"),
                };
                assert_eq!(verified, valid, "{file} {}", case["tcId"]);
                count += 1;
            }
        }
        assert_eq!(count, cases["numberOfTests"].as_u64().unwrap());
    }
}

#[test]
fn a_publisher_key_has_one_form() {
    for (algorithm, point_bytes) in [(&ECDSA_P256_SHA256_ASN1_SIGNING, 65), (&ECDSA_P384_SHA384_ASN1_SIGNING, 97)] {
        let key = new_key(algorithm);
        let (der, pem) = (key.spki_der(), key.to_pem());
        assert_eq!(PublisherKey::from_pem(&pem).as_ref(), Ok(&key));
        assert_eq!(PublisherKey::from_pem(pem.trim_end()).as_ref(), Ok(&key));
        assert_eq!(PublisherKey::from_spki_der(&der).as_ref(), Ok(&key));
        assert_eq!(key.digest(), Sha256Digest::of(&der));
        assert!(pem.lines().all(|line| line.len() <= 64));
        for wrong in [
            String::new(),
            format!("{pem}{pem}"),
            format!(" {pem}"),
            format!("{pem}\n"),
            pem.replace("PUBLIC", "PRIVATE"),
            pem.replace("\nM", "\n*"),
            pem.replace("=", ""),
            "-----BEGIN PUBLIC KEY-----".to_owned(),
            format!("{pem}{}", "x".repeat(2000)),
        ] {
            if wrong != pem {
                assert_eq!(PublisherKey::from_pem(&wrong), Err(PublisherKeyError::Pem), "{wrong}");
            }
        }
        let kind = |der: &[u8]| PublisherKey::from_spki_der(der).map(drop);
        assert_eq!(kind(&der[..der.len() - 1]), Err(PublisherKeyError::Kind));
        assert_eq!(kind(&[der.as_slice(), &[0]].concat()), Err(PublisherKeyError::Kind));
        for at in 0..der.len() - point_bytes + 1 {
            let mut der = der.clone();
            der[at] ^= 1;
            assert_eq!(kind(&der), Err(PublisherKeyError::Kind), "byte {at}");
        }
        assert_eq!(PublisherKey::from_point(&[0; 65]), Err(PublisherKeyError::Kind));
        assert_eq!(key.verify(b"", b""), Err(SignatureInvalid));
    }
}
