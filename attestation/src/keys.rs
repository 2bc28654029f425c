//! Public keys that a binding names. Public only: no secret key is ever in this crate.

use std::fmt;

use ring::signature::{ECDSA_P384_SHA384_FIXED, ED25519, UnparsedPublicKey};

use crate::encoding::{Sha256Digest, exactly};
use crate::error::{DecodeError, SignatureInvalid};

/// Bytes of an MLKEM1024-P384 encapsulation key (HPKE KEM 0x0051).
pub const HPKE_PUBLIC_KEY_BYTES: usize = 1665;

/// The key that unit keys or DEKs are wrapped to: HPKE, MLKEM1024-P384, 1665 bytes as the KEM serialises it.
#[derive(Clone, PartialEq, Eq)]
pub struct HpkePublicKey(Box<[u8; HPKE_PUBLIC_KEY_BYTES]>);

impl HpkePublicKey {
    /// The serialised key.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; HPKE_PUBLIC_KEY_BYTES] {
        &self.0
    }
}

/// Signs renewals and the end of a lease: Ed25519, 32 bytes (RFC 8032).
#[derive(Clone, PartialEq, Eq)]
pub struct LeaseKey([u8; 32]);

impl LeaseKey {
    /// The key as RFC 8032 encodes it.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// Checks a 64-byte Ed25519 signature over `message`.
    pub fn verify(&self, message: &[u8], signature: &[u8]) -> Result<(), SignatureInvalid> {
        verify_ed25519(&self.0, message, signature)
    }
}

/// Signs what a keeper answers: ECDSA P-384, a SEC1 uncompressed point of 97 bytes.
#[derive(Clone, PartialEq, Eq)]
pub struct IdentityKey([u8; 97]);

impl IdentityKey {
    /// `04`, x, y (SEC1 §2.3.3).
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; 97] {
        &self.0
    }

    /// Checks a 96-byte ECDSA P-384 SHA-384 signature (r‖s) over `message`.
    pub fn verify(&self, message: &[u8], signature: &[u8]) -> Result<(), SignatureInvalid> {
        UnparsedPublicKey::new(&ECDSA_P384_SHA384_FIXED, self.0)
            .verify(message, signature)
            .map_err(|_| SignatureInvalid)
    }
}

/// Signs the checkpoints of a vault's log: Ed25519, 32 bytes (RFC 8032).
#[derive(Clone, PartialEq, Eq)]
pub struct LogKey([u8; 32]);

impl LogKey {
    /// The key as RFC 8032 encodes it.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// Checks a 64-byte Ed25519 signature over `message`.
    pub fn verify(&self, message: &[u8], signature: &[u8]) -> Result<(), SignatureInvalid> {
        verify_ed25519(&self.0, message, signature)
    }
}

impl TryFrom<&[u8]> for HpkePublicKey {
    type Error = DecodeError;

    /// Takes exactly 1665 bytes. Whether they are a key is for the KEM to say, when it encapsulates.
    fn try_from(bytes: &[u8]) -> Result<Self, DecodeError> {
        exactly(bytes).map(|bytes| Self(Box::new(bytes)))
    }
}

impl TryFrom<&[u8]> for LeaseKey {
    type Error = DecodeError;

    /// Takes exactly 32 bytes.
    fn try_from(bytes: &[u8]) -> Result<Self, DecodeError> {
        exactly(bytes).map(Self)
    }
}

impl TryFrom<&[u8]> for IdentityKey {
    type Error = DecodeError;

    /// Takes exactly 97 bytes that start with `04`. Whether they are a point on the curve shows when they verify.
    fn try_from(bytes: &[u8]) -> Result<Self, DecodeError> {
        let point: [u8; 97] = exactly(bytes)?;
        if point[0] != 0x04 {
            return Err(DecodeError::PointCompressed);
        }
        Ok(Self(point))
    }
}

impl TryFrom<&[u8]> for LogKey {
    type Error = DecodeError;

    /// Takes exactly 32 bytes.
    fn try_from(bytes: &[u8]) -> Result<Self, DecodeError> {
        exactly(bytes).map(Self)
    }
}

impl fmt::Debug for HpkePublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "HpkePublicKey({})", Sha256Digest::of(self.as_bytes()))
    }
}

impl fmt::Debug for LeaseKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "LeaseKey({})", hex::encode(self.0))
    }
}

impl fmt::Debug for IdentityKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "IdentityKey({})", hex::encode(self.0))
    }
}

impl fmt::Debug for LogKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "LogKey({})", hex::encode(self.0))
    }
}

fn verify_ed25519(key: &[u8; 32], message: &[u8], signature: &[u8]) -> Result<(), SignatureInvalid> {
    UnparsedPublicKey::new(&ED25519, key).verify(message, signature).map_err(|_| SignatureInvalid)
}

#[cfg(test)]
mod tests {
    use ring::rand::SystemRandom;
    use ring::signature::{ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair};

    use super::*;

    #[test]
    fn lease_and_log_keys_verify_only_their_own_signature() {
        let pair = Ed25519KeyPair::from_seed_unchecked(&[9; 32]).unwrap();
        let signature = pair.sign(b"message");
        let lease = LeaseKey::try_from(pair.public_key().as_ref()).unwrap();
        let log = LogKey::try_from(pair.public_key().as_ref()).unwrap();
        assert_eq!(lease.verify(b"message", signature.as_ref()), Ok(()));
        assert_eq!(log.verify(b"message", signature.as_ref()), Ok(()));
        assert_eq!(lease.verify(b"massage", signature.as_ref()), Err(SignatureInvalid));
        assert_eq!(log.verify(b"message", &signature.as_ref()[..63]), Err(SignatureInvalid));
        let stranger = LeaseKey::try_from([1; 32].as_slice()).unwrap();
        assert_eq!(stranger.verify(b"message", signature.as_ref()), Err(SignatureInvalid));
        assert_eq!(SignatureInvalid.code(), "signature-invalid");
    }

    #[test]
    fn identity_key_verifies_only_its_own_signature() {
        let rng = SystemRandom::new();
        let algorithm = &ECDSA_P384_SHA384_FIXED_SIGNING;
        let pkcs8 = EcdsaKeyPair::generate_pkcs8(algorithm, &rng).unwrap();
        let pair = EcdsaKeyPair::from_pkcs8(algorithm, pkcs8.as_ref(), &rng).unwrap();
        let key = IdentityKey::try_from(pair.public_key().as_ref()).unwrap();
        let signature = pair.sign(&rng, b"message").unwrap();
        assert_eq!(key.verify(b"message", signature.as_ref()), Ok(()));
        assert_eq!(key.verify(b"messages", signature.as_ref()), Err(SignatureInvalid));
    }

    #[test]
    fn keys_of_another_length_or_form_are_refused() {
        let wrong = |expected, found| Some(DecodeError::Length { expected, found });
        assert_eq!(HpkePublicKey::try_from([0; 1664].as_slice()).err(), wrong(1665, 1664));
        assert_eq!(LeaseKey::try_from([0; 33].as_slice()).err(), wrong(32, 33));
        assert_eq!(LogKey::try_from([0; 31].as_slice()).err(), wrong(32, 31));
        assert_eq!(IdentityKey::try_from([4; 96].as_slice()).err(), wrong(97, 96));
        assert_eq!(IdentityKey::try_from([2; 97].as_slice()), Err(DecodeError::PointCompressed));
    }
}
