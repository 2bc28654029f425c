//! Credential protection (TPM 2.0 Part 1, "Credential Protection"): what `TPM2_MakeCredential` does, without a TPM.
//!
//! RSA-OAEP is the `rsa` crate's, of which only public-key encryption is used (RUSTSEC-2023-0071 concerns private keys);
//! ring has no OAEP encryption.

use aes::Aes128;
use aes::cipher::KeyIvInit;
use ring::hmac;
use ring::rand::SecureRandom;
use rsa::rand_core::{self, CryptoRng, RngCore};
use rsa::sha2::Sha256;
use rsa::{BigUint, Oaep, RsaPublicKey};
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use super::AkName;
use crate::error::{CertificateError, CredentialError};

/// The label of the OAEP-wrapped seed; the zero byte belongs to it (TPM 2.0 Part 1, B.4 and 24.5).
const SEED_LABEL: &str = "IDENTITY\0";
const STORAGE_LABEL: &[u8] = b"STORAGE\0";
const INTEGRITY_LABEL: &[u8] = b"INTEGRITY\0";
/// Bytes of the seed, as of the EK's name algorithm SHA-256.
const SEED_BYTES: usize = 32;
/// Bytes that OAEP with SHA-256 draws: one hash.
const OAEP_SEED_BYTES: usize = 32;
const RSA_EXPONENT: u32 = 65537;

/// The 32 bytes that only a TPM with the endorsed EK *and* the named AK can give back. Wiped on drop.
///
/// It is worthless once its challenge is used; until then it must not be seen.
///
/// ```compile_fail,E0277
/// # let secret = attestation::ActivationSecret::from_bytes([0; 32]);
/// println!("{secret:?}");
/// ```
/// ```compile_fail,E0599
/// # let secret = attestation::ActivationSecret::from_bytes([0; 32]);
/// let copy = secret.clone();
/// ```
/// ```
/// # let secret = attestation::ActivationSecret::from_bytes([0; 32]);
/// let moved = secret;
/// ```
#[derive(Zeroize, ZeroizeOnDrop)]
pub struct ActivationSecret([u8; 32]);

impl ActivationSecret {
    /// 32 fresh random bytes.
    pub fn generate(rng: &dyn SecureRandom) -> Result<Self, CredentialError> {
        let mut secret = Self([0; 32]);
        rng.fill(&mut secret.0).map_err(|_| CredentialError::Randomness)?;
        Ok(secret)
    }

    /// What `TPM2_ActivateCredential` gave.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    pub(crate) const fn expose(&self) -> &[u8; 32] {
        &self.0
    }
}

/// What `TPM2_ActivateCredential` takes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Credential {
    /// TPM2B_ID_OBJECT, with its size prefix.
    pub id_object: Vec<u8>,
    /// TPM2B_ENCRYPTED_SECRET, with its size prefix.
    pub encrypted_secret: Vec<u8>,
}

/// An RSA-2048 EK of the TCG's low-range template: name algorithm SHA-256, symmetric AES-128-CFB.
pub(super) struct EkPublicKey(RsaPublicKey);

impl EkPublicKey {
    pub(super) fn new(modulus: &[u8; 256]) -> Result<Self, CertificateError> {
        RsaPublicKey::new(BigUint::from_bytes_be(modulus), BigUint::from(RSA_EXPONENT))
            .map(Self)
            .map_err(|_| CertificateError::EkKeyUnsupported)
    }

    pub(super) fn make_credential(
        &self,
        ak_name: &AkName,
        secret: &ActivationSecret,
        rng: &dyn SecureRandom,
    ) -> Result<Credential, CredentialError> {
        let mut seed = Zeroizing::new([0; SEED_BYTES]);
        rng.fill(seed.as_mut_slice()).map_err(|_| CredentialError::Randomness)?;
        Ok(Credential {
            id_object: sized(&[&protect(&seed, ak_name, secret)]),
            encrypted_secret: sized(&[&self.encrypt_seed(&seed, rng)?]),
        })
    }

    fn encrypt_seed(&self, seed: &[u8; SEED_BYTES], rng: &dyn SecureRandom) -> Result<Vec<u8>, CredentialError> {
        let mut drawn = DrawnBytes::draw(rng)?;
        let padding = Oaep::new_with_label::<Sha256, _>(SEED_LABEL);
        let encrypted = self.0.encrypt(&mut drawn, padding, seed).map_err(|_| CredentialError::Encryption)?;
        drawn.finish()?;
        Ok(encrypted)
    }
}

/// TPMS_ID_OBJECT: the secret under a key that depends on the AK's name, and a MAC over both.
fn protect(seed: &[u8; SEED_BYTES], ak_name: &AkName, secret: &ActivationSecret) -> Vec<u8> {
    let mut symmetric_key = Zeroizing::new([0; 16]);
    let derived = kdfa(seed, STORAGE_LABEL, ak_name.as_bytes(), 128);
    symmetric_key.copy_from_slice(&derived[..16]);
    // A zero IV is right here: each key is for one message, since each seed is.
    let cipher = cfb_mode::Encryptor::<Aes128>::new((&*symmetric_key).into(), &[0; 16].into());
    let mut identity = sized(&[secret.expose()]);
    cipher.encrypt(&mut identity);

    let integrity_key = kdfa(seed, INTEGRITY_LABEL, b"", 256);
    let integrity_key = hmac::Key::new(hmac::HMAC_SHA256, integrity_key.as_slice());
    let mac = hmac::sign(&integrity_key, &[identity.as_slice(), ak_name.as_bytes()].concat());
    [sized(&[mac.as_ref()]), identity].concat()
}

/// KDFa with SHA-256 for at most one block (TPM 2.0 Part 1, "KDFa()"): SP 800-108 in counter mode, one HMAC over
/// counter ‖ label ‖ contextU ‖ contextV ‖ bits, whose first `bits` count. contextV is empty here.
fn kdfa(key: &[u8], label: &[u8], context_u: &[u8], bits: u32) -> Zeroizing<[u8; 32]> {
    let message = [&1_u32.to_be_bytes(), label, context_u, &bits.to_be_bytes()].concat();
    let mac = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), &message);
    let mut block = Zeroizing::new([0; 32]);
    block.copy_from_slice(mac.as_ref());
    block
}

/// A TPM2B: 2 bytes of length, then the parts.
fn sized(parts: &[&[u8]]) -> Vec<u8> {
    let bytes = parts.concat();
    let length = u16::try_from(bytes.len()).expect("a MAC, a secret or a block of RSA-2048");
    [&length.to_be_bytes(), bytes.as_slice()].concat()
}

/// Random bytes drawn before they are needed, because `rand_core` lets a source fail only by panic: a failing source
/// is an error here, and taking more or less than was drawn is one too, never zeros in the place of randomness.
struct DrawnBytes {
    bytes: Zeroizing<[u8; OAEP_SEED_BYTES]>,
    taken: usize,
}

impl DrawnBytes {
    fn draw(rng: &dyn SecureRandom) -> Result<Self, CredentialError> {
        let mut bytes = Zeroizing::new([0; OAEP_SEED_BYTES]);
        rng.fill(bytes.as_mut_slice()).map_err(|_| CredentialError::Randomness)?;
        Ok(Self { bytes, taken: 0 })
    }

    fn finish(self) -> Result<(), CredentialError> {
        if self.taken == OAEP_SEED_BYTES { Ok(()) } else { Err(CredentialError::Randomness) }
    }
}

impl RngCore for DrawnBytes {
    fn next_u32(&mut self) -> u32 {
        rand_core::impls::next_u32_via_fill(self)
    }

    fn next_u64(&mut self) -> u64 {
        rand_core::impls::next_u64_via_fill(self)
    }

    fn fill_bytes(&mut self, out: &mut [u8]) {
        let drawn = self.bytes.get(self.taken..).and_then(|rest| rest.get(..out.len()));
        match drawn {
            Some(drawn) => out.copy_from_slice(drawn),
            // Too little was drawn: `taken` goes past the end, and `finish` refuses what was made with this.
            None => out.fill(0),
        }
        self.taken = self.taken.saturating_add(out.len());
    }

    fn try_fill_bytes(&mut self, out: &mut [u8]) -> Result<(), rand_core::Error> {
        self.fill_bytes(out);
        Ok(())
    }
}

/// The bytes are those of a `SecureRandom`.
impl CryptoRng for DrawnBytes {}

#[cfg(test)]
mod tests {
    use super::*;
    use ring::rand::SystemRandom;

    #[test]
    fn oaep_gets_the_drawn_bytes_and_no_others() {
        let mut drawn = DrawnBytes::draw(&SystemRandom::new()).unwrap();
        let expected = *drawn.bytes;
        let mut out = [0; OAEP_SEED_BYTES];
        drawn.fill_bytes(&mut out);
        assert_eq!(out, expected);
        assert_eq!(drawn.finish(), Ok(()));
    }

    #[test]
    fn taking_more_or_less_than_was_drawn_is_an_error() {
        let mut more = DrawnBytes::draw(&SystemRandom::new()).unwrap();
        more.fill_bytes(&mut [0; OAEP_SEED_BYTES]);
        more.next_u32();
        assert_eq!(more.finish(), Err(CredentialError::Randomness));
        let mut less = DrawnBytes::draw(&SystemRandom::new()).unwrap();
        less.next_u64();
        assert_eq!(less.finish(), Err(CredentialError::Randomness));
    }

    /// SP 800-108 in counter mode as TPM 2.0 Part 1 writes it, recomputed by hand with another HMAC implementation.
    #[test]
    fn kdfa_is_hmac_over_counter_label_context_and_bits() {
        let block = kdfa(&[7; 32], b"STORAGE\0", b"context", 128);
        let expected = "7bce1b50cf48ae26c7e07979ed99cf23605d7f2a6e1f2592b63c3257dc632373";
        assert_eq!(hex::encode(block.as_slice()), expected);
    }
}
