//! The key of a lease: one for each load, in locked memory, held by the process that renews.

use attestation::LeaseKey;
use ring::rand::SecureRandom;
use ring::signature::{Ed25519KeyPair, KeyPair};

use crate::secret::{Secret, SecretError};
use crate::stack::wiped_deep;

/// Signs renewals and the end of one lease.
pub struct LeaseSigner {
    seed: Secret<32>,
    public: LeaseKey,
}

impl LeaseSigner {
    /// A fresh key.
    ///
    /// # Errors
    /// [`SecretError`].
    pub fn generate(rng: &dyn SecureRandom) -> Result<Self, SecretError> {
        let seed = Secret::generate(rng)?;
        let public = seed.with_bytes(|seed| wiped_deep(|| pair(seed).map(|pair| *pair.public_key())))?;
        let public = LeaseKey::try_from(public.as_ref()).map_err(|_| SecretError::Random)?;
        Ok(Self { seed, public })
    }

    /// What the evidence and the lease name.
    #[must_use]
    pub fn public(&self) -> &LeaseKey {
        &self.public
    }

    /// Ed25519 over `message`.
    ///
    /// # Errors
    /// [`SecretError`], where the library refuses a key of its own: it does not.
    pub fn sign(&self, message: &[u8]) -> Result<[u8; 64], SecretError> {
        let signature = self.seed.with_bytes(|seed| wiped_deep(|| pair(seed).map(|pair| pair.sign(message))))?;
        signature.as_ref().try_into().map_err(|_| SecretError::Random)
    }
}

/// Every 32 bytes are a seed.
fn pair(seed: &[u8; 32]) -> Result<Ed25519KeyPair, SecretError> {
    Ed25519KeyPair::from_seed_unchecked(seed).map_err(|_| SecretError::Random)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_it_signs_verifies_under_its_public_half() {
        let rng = ring::rand::SystemRandom::new();
        let (one, other) = (LeaseSigner::generate(&rng).unwrap(), LeaseSigner::generate(&rng).unwrap());
        let signature = one.sign(b"end").unwrap();
        assert!(one.public().verify(b"end", &signature).is_ok());
        assert!(one.public().verify(b"renew", &signature).is_err());
        assert!(other.public().verify(b"end", &signature).is_err());
    }
}
