//! The key that a publisher signs sealed models with.

use std::fmt;

use ledger::model_signature::PublisherKey;
use p384::pkcs8::SecretDocument;
use ring::rand::SecureRandom;
use ring::signature::{
    ECDSA_P256_SHA256_ASN1_SIGNING, ECDSA_P384_SHA384_ASN1_SIGNING, EcdsaKeyPair, EcdsaSigningAlgorithm, KeyPair,
};

/// ECDSA on P-256 with SHA-256 or on P-384 with SHA-384. It is the publisher's own key, in a guest of his own: `ring`
/// keeps it, and does not wipe it.
pub struct PublisherSigner {
    pair: EcdsaKeyPair,
    public: PublisherKey,
}

impl PublisherSigner {
    /// From PEM: one block `PRIVATE KEY`, which is PKCS#8 and not encrypted.
    ///
    /// # Errors
    /// [`PublisherError`].
    pub fn from_pem(pem: &str, rng: &dyn SecureRandom) -> Result<Self, PublisherError> {
        let (label, document) = SecretDocument::from_pem(pem).map_err(|_| PublisherError::NotPem)?;
        if label != "PRIVATE KEY" {
            return Err(PublisherError::Label);
        }
        let parse =
            |algorithm: &'static EcdsaSigningAlgorithm| EcdsaKeyPair::from_pkcs8(algorithm, document.as_bytes(), rng);
        let pair = parse(&ECDSA_P256_SHA256_ASN1_SIGNING)
            .or_else(|_| parse(&ECDSA_P384_SHA384_ASN1_SIGNING))
            .map_err(|_| PublisherError::Key)?;
        let public = PublisherKey::from_point(pair.public_key().as_ref()).map_err(|_| PublisherError::Key)?;
        Ok(Self { pair, public })
    }

    /// What verifies its signatures.
    pub fn public_key(&self) -> &PublisherKey {
        &self.public
    }

    /// A DER signature over `message`.
    ///
    /// # Errors
    /// [`PublisherError::Sign`] where there is no randomness.
    pub fn sign(&self, message: &[u8], rng: &dyn SecureRandom) -> Result<Vec<u8>, PublisherError> {
        self.pair.sign(rng, message).map(|signature| signature.as_ref().to_vec()).map_err(|_| PublisherError::Sign)
    }
}

/// Why a publisher's key cannot be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PublisherError {
    /// Not PEM.
    NotPem,
    /// PEM of something else, such as an encrypted or an old-style key.
    Label,
    /// Not a PKCS#8 key on P-256 or P-384 with its public half.
    Key,
    /// Signing failed.
    Sign,
}

impl PublisherError {
    /// Stable name of the refusal.
    pub fn code(&self) -> &'static str {
        match self {
            Self::NotPem => "publisher-key-not-pem",
            Self::Label => "publisher-key-label",
            Self::Key => "publisher-key-kind",
            Self::Sign => "publisher-sign-failed",
        }
    }
}

impl fmt::Display for PublisherError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NotPem => "the publisher key is not PEM",
            Self::Label => {
                "the publisher key is not an unencrypted PKCS#8 key; make one with: openssl genpkey -algorithm EC -pkeyopt \
                 ec_paramgen_curve:P-384 -out publisher.pem"
            }
            Self::Key => "the publisher key is not an ECDSA key on P-256 or P-384",
            Self::Sign => "signing with the publisher key failed",
        })
    }
}

impl std::error::Error for PublisherError {}

#[cfg(test)]
mod tests {
    use ring::rand::SystemRandom;

    use super::*;
    use crate::test_support::pem;

    #[test]
    fn keys_on_both_curves_sign_what_their_public_half_verifies() {
        let rng = SystemRandom::new();
        for algorithm in [&ECDSA_P256_SHA256_ASN1_SIGNING, &ECDSA_P384_SHA384_ASN1_SIGNING] {
            let der = EcdsaKeyPair::generate_pkcs8(algorithm, &rng).unwrap();
            let signer = PublisherSigner::from_pem(&pem("PRIVATE KEY", der.as_ref()), &rng).unwrap();
            let signature = signer.sign(b"message", &rng).unwrap();
            assert!(signer.public_key().verify(b"message", &signature).is_ok());
            assert!(signer.public_key().verify(b"other", &signature).is_err());
        }
    }

    #[test]
    fn anything_else_is_refused_by_its_own_error() {
        let rng = SystemRandom::new();
        let der = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, &rng).unwrap();
        let refused = |pem: &str| PublisherSigner::from_pem(pem, &rng).err();
        assert_eq!(refused("secret"), Some(PublisherError::NotPem));
        assert_eq!(refused(&pem("EC PRIVATE KEY", der.as_ref())), Some(PublisherError::Label));
        assert_eq!(refused(&pem("ENCRYPTED PRIVATE KEY", der.as_ref())), Some(PublisherError::Label));
        assert_eq!(refused(&pem("PRIVATE KEY", b"\x30\x00")), Some(PublisherError::Key));
        let ed25519 = ring::signature::Ed25519KeyPair::generate_pkcs8(&rng).unwrap();
        assert_eq!(refused(&pem("PRIVATE KEY", ed25519.as_ref())), Some(PublisherError::Key));
    }
}
