//! The publisher's one signature over a sealed model: an OpenSSF Model Signing v1.0 bundle, `key` method.
//!
//! Whoever has the public key can check it with common tools and without any secret. Here the signed files must be exactly
//! those expected: not one more, not one less.
//!
//! ```
//! use std::collections::BTreeMap;
//! use attestation::Sha256Digest;
//! use ledger::model_signature::{PublisherKey, sign, verify};
//! use ring::{rand::SystemRandom, signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair}};
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let (rng, algorithm) = (SystemRandom::new(), &ECDSA_P256_SHA256_ASN1_SIGNING);
//! let pkcs8 = EcdsaKeyPair::generate_pkcs8(algorithm, &rng).expect("random numbers");
//! let pair = EcdsaKeyPair::from_pkcs8(algorithm, pkcs8.as_ref(), &rng).expect("a key just made");
//! let key = PublisherKey::from_point(pair.public_key().as_ref())?;
//!
//! let files = BTreeMap::from([("manifest.json".to_owned(), Sha256Digest::of(b"{}"))]);
//! let bundle = sign("minilm", &files, &key, |bytes| pair.sign(&rng, bytes).map(|signature| signature.as_ref().to_vec()));
//! verify(&bundle?, &key, &files)?;
//! # Ok(()) }
//! ```
//!
//! References: OpenSSF Model Signing Specification v1.0; DSSE protocol v1.0; in-toto Statement v1; Sigstore bundle v0.3.

mod bundle;
mod error;
mod publisher_key;
mod statement;

use std::collections::BTreeMap;

use attestation::Sha256Digest;

pub use error::{ModelSignatureError, SignError};
pub use publisher_key::{PublisherKey, PublisherKeyError};

/// Longest bundle, in bytes.
pub const BUNDLE_BYTES_MAX: usize = 8 << 20;

const PAYLOAD_TYPE: &str = "application/vnd.in-toto+json";

/// Checks that the bundle is signed by this key and names exactly these files with these SHA-256 digests.
///
/// Nothing of the payload is parsed before its signature has been verified.
pub fn verify(
    bundle: &[u8],
    key: &PublisherKey,
    files: &BTreeMap<String, Sha256Digest>,
) -> Result<(), ModelSignatureError> {
    if bundle.len() > BUNDLE_BYTES_MAX {
        return Err(ModelSignatureError::TooLarge { bytes: bundle.len() });
    }
    let envelope = bundle::read(bundle, key)?;
    key.verify(&pae(&envelope.payload), &envelope.signature).map_err(|_| ModelSignatureError::Signature)?;
    statement::check(&envelope.payload, files)
}

/// Makes the bundle of these files. `subject` is the model's name, for people. `sign` gives the DER ECDSA signature over
/// the bytes it gets, with the hash of the key's curve; a signature that does not verify is refused.
pub fn sign<E>(
    subject: &str,
    files: &BTreeMap<String, Sha256Digest>,
    key: &PublisherKey,
    sign: impl FnOnce(&[u8]) -> Result<Vec<u8>, E>,
) -> Result<Vec<u8>, SignError<E>> {
    let payload = statement::write(subject, files);
    let signature = sign(&pae(&payload)).map_err(SignError::Signer)?;
    let bundle = bundle::write(&payload, &signature, key);
    verify(&bundle, key, files).map_err(SignError::Bundle)?;
    Ok(bundle)
}

/// DSSE pre-authentication encoding: what is signed.
fn pae(payload: &[u8]) -> Vec<u8> {
    let head = format!("DSSEv1 {} {PAYLOAD_TYPE} {} ", PAYLOAD_TYPE.len(), payload.len());
    [head.as_bytes(), payload].concat()
}
