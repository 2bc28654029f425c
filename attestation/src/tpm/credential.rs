//! Credential protection (TPM 2.0 Part 1, "Credential Protection"): what `TPM2_MakeCredential` does, without a TPM.
//!
//! How the seed reaches the TPM depends on the EK: RSA-OAEP (Part 1, B.4), or ECDH with an ephemeral key and KDFe (Part 1,
//! C.6.3). The rest is one scheme, in the sizes of the EK's template.
//!
//! RSA-OAEP is the `rsa` crate's, of which only public-key encryption is used (RUSTSEC-2023-0071 concerns private keys);
//! ring has no OAEP encryption. ECDH is ring's.

use aes::cipher::KeyIvInit;
use aes::{Aes128, Aes256};
use ring::agreement::{self, EphemeralPrivateKey, UnparsedPublicKey};
use ring::rand::SecureRandom;
use ring::{digest, hmac};
use rsa::rand_core::{self, CryptoRng, RngCore};
use rsa::sha2::Sha256;
use rsa::{Oaep, RsaPublicKey};
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use super::AkName;
use super::ek::EkKey;
use crate::error::CredentialError;

/// The label of the seed; the zero byte belongs to it (TPM 2.0 Part 1, B.4, C.6.3 and 24.5).
const SEED_LABEL: &str = "IDENTITY\0";
const STORAGE_LABEL: &[u8] = b"STORAGE\0";
const INTEGRITY_LABEL: &[u8] = b"INTEGRITY\0";
/// Bytes that OAEP with SHA-256 draws: one hash.
const OAEP_SEED_BYTES: usize = 32;

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

/// What the EK's template fixes: its name algorithm, as long as which the seed is, and its symmetric cipher in CFB mode.
struct Scheme {
    hash: &'static digest::Algorithm,
    hmac: hmac::Algorithm,
    cipher: Cipher,
}

#[derive(Clone, Copy)]
enum Cipher {
    Aes128,
    Aes256,
}

/// Templates L-1 and L-2 (TCG EK Credential Profile, B.3).
const LOW_RANGE: Scheme = Scheme { hash: &digest::SHA256, hmac: hmac::HMAC_SHA256, cipher: Cipher::Aes128 };
/// Template H-3 (TCG EK Credential Profile, B.4).
const HIGH_RANGE: Scheme = Scheme { hash: &digest::SHA384, hmac: hmac::HMAC_SHA384, cipher: Cipher::Aes256 };

impl EkKey {
    pub(super) fn make_credential(
        &self,
        ak_name: &AkName,
        secret: &ActivationSecret,
        rng: &dyn SecureRandom,
    ) -> Result<Credential, CredentialError> {
        let (scheme, (seed, encrypted)) = match self {
            Self::Rsa2048(key) => (LOW_RANGE, encrypted_seed(key, rng)?),
            Self::P256(point) => (LOW_RANGE, agreed_seed(point, &agreement::ECDH_P256, LOW_RANGE.hash, rng)?),
            Self::P384(point) => (HIGH_RANGE, agreed_seed(point, &agreement::ECDH_P384, HIGH_RANGE.hash, rng)?),
        };
        Ok(Credential {
            id_object: sized(&[&scheme.protect(&seed, ak_name, secret)]),
            encrypted_secret: sized(&[&encrypted]),
        })
    }
}

/// The seed, and what goes to the TPM for it.
type Seed = (Zeroizing<Vec<u8>>, Vec<u8>);

/// A random seed of 32 bytes under RSA-OAEP (TPM 2.0 Part 1, B.4).
fn encrypted_seed(key: &RsaPublicKey, rng: &dyn SecureRandom) -> Result<Seed, CredentialError> {
    let mut seed = Zeroizing::new(vec![0; LOW_RANGE.hash.output_len()]);
    rng.fill(seed.as_mut_slice()).map_err(|_| CredentialError::Randomness)?;
    let mut drawn = DrawnBytes::draw(rng)?;
    let padding = Oaep::new_with_label::<Sha256, _>(SEED_LABEL);
    let encrypted = key.encrypt(&mut drawn, padding, &seed).map_err(|_| CredentialError::Encryption)?;
    drawn.finish()?;
    Ok((seed, encrypted))
}

/// KDFe over what an ephemeral key and the EK agree on (TPM 2.0 Part 1, C.6.3). To the TPM goes the ephemeral point, as
/// TPMS_ECC_POINT: TPM2B of x, TPM2B of y, both as long as the field.
fn agreed_seed(
    ek: &[u8],
    curve: &'static agreement::Algorithm,
    hash: &'static digest::Algorithm,
    rng: &dyn SecureRandom,
) -> Result<Seed, CredentialError> {
    let ephemeral = EphemeralPrivateKey::generate(curve, rng).map_err(|_| CredentialError::Randomness)?;
    let point = ephemeral.compute_public_key().map_err(|_| CredentialError::Randomness)?;
    let (x, y) = coordinates(point.as_ref()).ok_or(CredentialError::Encryption)?;
    let (ek_x, _) = coordinates(ek).ok_or(CredentialError::Encryption)?;
    let seed = agreement::agree_ephemeral(ephemeral, &UnparsedPublicKey::new(curve, ek), |shared_x| {
        kdfe(hash, shared_x, SEED_LABEL.as_bytes(), x, ek_x)
    });
    // ring refuses a point that is not on the curve; an `EkKey` has none.
    let seed = seed.map_err(|_| CredentialError::Encryption)?;
    Ok((seed, [sized(&[x]), sized(&[y])].concat()))
}

/// x and y of an uncompressed SEC1 point.
fn coordinates(point: &[u8]) -> Option<(&[u8], &[u8])> {
    let (form, coordinates) = point.split_first()?;
    (*form == 4).then(|| coordinates.split_at(coordinates.len() / 2))
}

impl Scheme {
    /// TPMS_ID_OBJECT: the secret under a key that depends on the AK's name, and a MAC over both.
    fn protect(&self, seed: &[u8], ak_name: &AkName, secret: &ActivationSecret) -> Vec<u8> {
        let mut identity = sized(&[secret.expose()]);
        self.encrypt(seed, ak_name, &mut identity);
        let bits = u32::try_from(8 * self.hash.output_len()).expect("384 at most");
        let integrity_key = kdfa(self.hmac, seed, INTEGRITY_LABEL, b"", bits);
        let integrity_key = hmac::Key::new(self.hmac, &integrity_key);
        let mac = hmac::sign(&integrity_key, &[identity.as_slice(), ak_name.as_bytes()].concat());
        [sized(&[mac.as_ref()]), identity].concat()
    }

    /// CFB mode. A zero IV is right here: each key is for one message, since each seed is.
    fn encrypt(&self, seed: &[u8], ak_name: &AkName, identity: &mut [u8]) {
        let key = |bits| kdfa(self.hmac, seed, STORAGE_LABEL, ak_name.as_bytes(), bits);
        match self.cipher {
            Cipher::Aes128 => {
                let mut fixed = Zeroizing::new([0; 16]);
                fixed.copy_from_slice(&key(128));
                cfb_mode::Encryptor::<Aes128>::new((&*fixed).into(), &[0; 16].into()).encrypt(identity);
            }
            Cipher::Aes256 => {
                let mut fixed = Zeroizing::new([0; 32]);
                fixed.copy_from_slice(&key(256));
                cfb_mode::Encryptor::<Aes256>::new((&*fixed).into(), &[0; 16].into()).encrypt(identity);
            }
        }
    }
}

/// KDFa for at most one block (TPM 2.0 Part 1, "KDFa()"): SP 800-108 in counter mode, one HMAC over
/// counter ‖ label ‖ contextU ‖ contextV ‖ bits, whose first `bits` count. contextV is empty here.
fn kdfa(algorithm: hmac::Algorithm, key: &[u8], label: &[u8], context_u: &[u8], bits: u32) -> Zeroizing<Vec<u8>> {
    let message = [&1_u32.to_be_bytes(), label, context_u, &bits.to_be_bytes()].concat();
    let mac = hmac::sign(&hmac::Key::new(algorithm, key), &message);
    Zeroizing::new(mac.as_ref().iter().copied().take(bits as usize / 8).collect())
}

/// KDFe for exactly one block (TPM 2.0 Part 1, "KDFe for ECDH"): SP 800-56A, one hash over
/// counter ‖ Z ‖ label ‖ PartyUInfo ‖ PartyVInfo, the label with its zero byte, the others x coordinates.
fn kdfe(
    hash: &'static digest::Algorithm,
    shared_x: &[u8],
    label: &[u8],
    party_u: &[u8],
    party_v: &[u8],
) -> Zeroizing<Vec<u8>> {
    let message = Zeroizing::new([&1_u32.to_be_bytes(), shared_x, label, party_u, party_v].concat());
    Zeroizing::new(digest::digest(hash, &message).as_ref().to_vec())
}

/// A TPM2B: 2 bytes of length, then the parts.
fn sized(parts: &[&[u8]]) -> Vec<u8> {
    let bytes = parts.concat();
    let length = u16::try_from(bytes.len()).expect("a MAC, a secret, a point or a block of RSA-2048");
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
        let block = |bits| hex::encode(kdfa(hmac::HMAC_SHA256, &[7; 32], b"STORAGE\0", b"context", bits).as_slice());
        assert_eq!(block(128), "7bce1b50cf48ae26c7e07979ed99cf23");
        let other_bits = kdfa(hmac::HMAC_SHA384, &[7; 32], b"STORAGE\0", b"context", 256);
        assert_eq!(
            hex::encode(other_bits.as_slice()),
            "e084b9f7d87ff30414136a373406bfbdfea285f64b8e47f9f6ca76957d59977f"
        );
    }

    /// Recomputed with another implementation of the hashes.
    #[test]
    fn kdfe_is_a_hash_over_counter_shared_x_label_and_parties() {
        let seed = kdfe(&digest::SHA256, &[1; 32], b"IDENTITY\0", &[2; 32], &[3; 32]);
        assert_eq!(hex::encode(seed.as_slice()), "2073a3306eedcfb178183d8a721f949bba9c3d4501b6c2839487bbdd3b973070");
        let seed = kdfe(&digest::SHA384, &[1; 48], b"IDENTITY\0", &[2; 48], &[3; 48]);
        assert_eq!(
            hex::encode(seed.as_slice()),
            "10946a465edaff6eda9436dcf859018c43d565b01f5250109de29d5b9a856e2b279a5578a1dfab18767276f8d123c785"
        );
    }

    /// No certificate and no public area gives such a key: this is what stands behind that check.
    #[test]
    fn nothing_is_agreed_with_a_point_that_is_not_on_the_curve() {
        let name = AkName::try_from([&[0, 0x0b][..], &[7; 32]].concat().as_slice()).unwrap();
        let secret = ActivationSecret::from_bytes([9; 32]);
        let refused = |key: EkKey| key.make_credential(&name, &secret, &SystemRandom::new()).err().unwrap();
        let off_curve = [EkKey::P256([4; 65]), EkKey::P384([4; 97]), EkKey::P256([2; 65])];
        for error in off_curve.map(refused) {
            assert_eq!((error, error.code()), (CredentialError::Encryption, "credential-encryption-failed"));
        }
    }
}
