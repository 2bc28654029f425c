//! A TPM in software: an EK that opens credentials, an AK that quotes.

use aes::cipher::KeyIvInit;
use aes::{Aes128, Aes256};
use attestation::{Credential, EkKind, Sha256Digest, TpmIdentity, TpmQuote};
use p256::elliptic_curve::sec1::ToSec1Point;
use rcgen::{PKCS_ECDSA_P256_SHA256, PKCS_ECDSA_P384_SHA384, PKCS_RSA_SHA256, PublicKeyData, SignatureAlgorithm};
use ring::rand::{SecureRandom, SystemRandom};
use ring::rsa::PublicKeyComponents;
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair, RSA_PKCS1_SHA256, RsaKeyPair};
use ring::{digest, hmac, signature};
use rsa::pkcs8::DecodePrivateKey;
use rsa::sha2::Sha256;
use rsa::{Oaep, RsaPrivateKey};

use super::attest::Attest;
use super::authority::Authority;
use super::public::{AkPublic, sized};

const EK: &[u8] = include_bytes!("keys/ek.pk8");
const AK: &[u8] = include_bytes!("keys/ak.pk8");

/// A TPM that says what it is told to.
pub struct SoftTpm {
    pub ak: SoftAk,
    pub ak_public: AkPublic,
    pub pcrs: [[u8; 32]; 24],
    pub ek: SoftEk,
}

/// An endorsement key.
pub enum SoftEk {
    /// Always the same.
    Rsa2048,
    P256(p256::SecretKey),
    P384(p384::SecretKey),
}

/// A signing key.
pub enum SoftAk {
    Ecc(EcdsaKeyPair),
    Rsa(RsaKeyPair),
}

impl SoftTpm {
    /// A TPM with a fresh P-256 AK.
    pub fn ecc() -> Self {
        let rng = SystemRandom::new();
        let algorithm = &ECDSA_P256_SHA256_FIXED_SIGNING;
        let pkcs8 = EcdsaKeyPair::generate_pkcs8(algorithm, &rng).expect("a P-256 key");
        let ak = EcdsaKeyPair::from_pkcs8(algorithm, pkcs8.as_ref(), &rng).expect("a P-256 key");
        let ak_public = AkPublic::ecc(ak.public_key().as_ref());
        Self { ak: SoftAk::Ecc(ak), ak_public, pcrs: some_pcrs(), ek: SoftEk::Rsa2048 }
    }

    /// A TPM with an RSA-2048 AK, always the same.
    pub fn rsa() -> Self {
        let ak = RsaKeyPair::from_pkcs8(AK).expect("an RSA key");
        let modulus = PublicKeyComponents::<Vec<u8>>::from(ak.public()).n;
        Self { ak: SoftAk::Rsa(ak), ak_public: AkPublic::rsa(&modulus), pcrs: some_pcrs(), ek: SoftEk::Rsa2048 }
    }

    /// A TPM with a fresh P-256 AK and an EK of this kind.
    pub fn with_ek(kind: EkKind) -> Self {
        Self { ek: SoftEk::fresh(kind), ..Self::ecc() }
    }

    /// What it sends about itself, endorsed by `authority`; `issuers` follow the EK certificate.
    pub fn identity(&self, authority: &Authority, issuers: &[&Authority]) -> TpmIdentity {
        let ek = authority.endorse(&self.ek.public(), |_| ());
        let issuers = issuers.iter().map(|issuer| issuer.der.clone());
        let ek_certificates = [ek].into_iter().chain(issuers).collect();
        TpmIdentity { ek_certificates, ek_public: Vec::new(), ak_public: self.ak_public.bytes() }
    }

    /// What it sends about itself where it has no certificate.
    pub fn bare_identity(&self) -> TpmIdentity {
        TpmIdentity { ek_certificates: Vec::new(), ek_public: self.ek.public_area(), ak_public: self.ak_public.bytes() }
    }

    /// The values of these PCRs.
    pub fn pcr_values(&self, indices: &[u32]) -> Vec<(u32, [u8; 32])> {
        indices.iter().map(|&index| (index, self.pcrs[index as usize])).collect()
    }

    /// TPM2_Quote.
    pub fn quote(&self, identity: &TpmIdentity, indices: &[u32], extra_data: &[u8]) -> TpmQuote {
        let pcrs = self.pcr_values(indices);
        let attest = Attest::quote(extra_data, &pcrs).bytes();
        let signature = self.sign(&attest);
        TpmQuote { identity: identity.clone(), attest, signature, pcrs }
    }

    /// TPMT_SIGNATURE over any bytes, which no restricted key of a real TPM would give.
    pub fn sign(&self, message: &[u8]) -> Vec<u8> {
        let rng = SystemRandom::new();
        match &self.ak {
            SoftAk::Ecc(ak) => {
                let fixed = ak.sign(&rng, message).expect("signs");
                let (r, s) = fixed.as_ref().split_at(32);
                [vec![0x00, 0x18, 0x00, 0x0b], sized(r), sized(s)].concat()
            }
            SoftAk::Rsa(ak) => {
                let padding: &dyn signature::RsaEncoding = &RSA_PKCS1_SHA256;
                let mut bytes = vec![0; ak.public().modulus_len()];
                ak.sign(padding, &rng, message, &mut bytes).expect("signs");
                [vec![0x00, 0x14, 0x00, 0x0b], sized(&bytes)].concat()
            }
        }
    }

    /// TPM2_ActivateCredential (TPM 2.0 Part 3, 12.5): nothing unless the credential is for this EK and this AK.
    pub fn activate(&self, credential: &Credential) -> Option<Vec<u8>> {
        let (hash, key_bytes) = self.ek.sizes();
        let seed = self.ek.seed(unsized_all(&credential.encrypted_secret)?)?;
        let name = [&[0x00, 0x0b], Sha256Digest::of(&self.ak_public.bytes()).as_bytes().as_slice()].concat();
        let (mac, encrypted) = take_sized(unsized_all(&credential.id_object)?)?;

        let bits = 8 * u32::try_from(seed.len()).ok()?;
        let key = hmac::Key::new(hash, &kdfa(hash, &seed, b"INTEGRITY\0", b"", bits));
        hmac::verify(&key, &[encrypted, name.as_slice()].concat(), mac).ok()?;
        let key = kdfa(hash, &seed, b"STORAGE\0", &name, 8 * u32::try_from(key_bytes).ok()?);
        let mut opened = encrypted.to_vec();
        let iv = &[0; 16].into();
        if key_bytes == 16 {
            let key: [u8; 16] = key[..16].try_into().ok()?;
            cfb_mode::Decryptor::<Aes128>::new(&key.into(), iv).decrypt(&mut opened);
        } else {
            let key: [u8; 32] = key[..32].try_into().ok()?;
            cfb_mode::Decryptor::<Aes256>::new(&key.into(), iv).decrypt(&mut opened);
        }
        unsized_all(&opened).map(<[u8]>::to_vec)
    }
}

impl SoftEk {
    fn fresh(kind: EkKind) -> Self {
        let mut scalar = [0; 48];
        SystemRandom::new().fill(&mut scalar).expect("randomness");
        // Below the order of P-384, and of P-256 almost surely.
        scalar[0] &= 0x7f;
        match kind {
            EkKind::Rsa2048 => Self::Rsa2048,
            EkKind::EccP256 => Self::P256(p256::SecretKey::from_slice(&scalar[16..]).expect("a scalar")),
            EkKind::EccP384 => Self::P384(p384::SecretKey::from_slice(&scalar).expect("a scalar")),
        }
    }

    /// Its public key, for a certificate.
    pub fn public(&self) -> EkPublic {
        match self {
            Self::Rsa2048 => EkPublic::new(),
            Self::P256(_) => EkPublic(self.unique(), &PKCS_ECDSA_P256_SHA256),
            Self::P384(_) => EkPublic(self.unique(), &PKCS_ECDSA_P384_SHA384),
        }
    }

    /// TPMT_PUBLIC, as its template has it.
    pub fn public_area(&self) -> Vec<u8> {
        let unique = self.unique();
        match self {
            Self::Rsa2048 => [EkKind::Rsa2048.template_prefix(), sized(&unique)].concat(),
            Self::P256(_) => [EkKind::EccP256.template_prefix(), sized(&unique[1..33]), sized(&unique[33..])].concat(),
            Self::P384(_) => [EkKind::EccP384.template_prefix(), sized(&unique[1..49]), sized(&unique[49..])].concat(),
        }
    }

    /// The modulus, or an uncompressed point.
    fn unique(&self) -> Vec<u8> {
        match self {
            Self::Rsa2048 => {
                PublicKeyComponents::<Vec<u8>>::from(RsaKeyPair::from_pkcs8(EK).expect("an RSA key").public()).n
            }
            Self::P256(key) => key.public_key().to_sec1_point(false).as_bytes().to_vec(),
            Self::P384(key) => key.public_key().to_sec1_point(false).as_bytes().to_vec(),
        }
    }

    /// The hash of its template, and the bytes of its AES key.
    fn sizes(&self) -> (hmac::Algorithm, usize) {
        match self {
            Self::Rsa2048 | Self::P256(_) => (hmac::HMAC_SHA256, 16),
            Self::P384(_) => (hmac::HMAC_SHA384, 32),
        }
    }

    fn seed(&self, secret: &[u8]) -> Option<Vec<u8>> {
        let point = |secret| {
            let (x, rest) = take_sized(secret)?;
            let (y, rest) = take_sized(rest)?;
            rest.is_empty().then(|| (x, [&[4], x, y].concat()))
        };
        let agreed = match self {
            Self::Rsa2048 => {
                let key = RsaPrivateKey::from_pkcs8_der(EK).expect("an RSA key");
                return key.decrypt(Oaep::new_with_label::<Sha256, _>("IDENTITY\0"), secret).ok();
            }
            Self::P256(key) => {
                let (x, point) = point(secret)?;
                let theirs = p256::PublicKey::from_sec1_bytes(&point).ok()?;
                let shared = (theirs.to_projective() * *key.to_nonzero_scalar()).to_affine();
                (&digest::SHA256, shared.to_sec1_point(false).as_bytes()[1..33].to_vec(), x)
            }
            Self::P384(key) => {
                let (x, point) = point(secret)?;
                let theirs = p384::PublicKey::from_sec1_bytes(&point).ok()?;
                let shared = (theirs.to_projective() * *key.to_nonzero_scalar()).to_affine();
                (&digest::SHA384, shared.to_sec1_point(false).as_bytes()[1..49].to_vec(), x)
            }
        };
        let (hash, shared_x, their_x) = agreed;
        let our_x = &self.unique()[1..][..their_x.len()].to_vec();
        let message = [&[0, 0, 0, 1], shared_x.as_slice(), b"IDENTITY\0", their_x, our_x].concat();
        Some(digest::digest(hash, &message).as_ref().to_vec())
    }
}

/// The content of one TPM2B, and what follows it.
fn take_sized(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = bytes.split_first_chunk::<2>()?;
    rest.split_at_checked(usize::from(u16::from_be_bytes(*length)))
}

/// The content of exactly one TPM2B.
fn unsized_all(bytes: &[u8]) -> Option<&[u8]> {
    take_sized(bytes).filter(|(_, rest)| rest.is_empty()).map(|(content, _)| content)
}

/// The public key of the EK, for a certificate.
pub struct EkPublic(Vec<u8>, &'static SignatureAlgorithm);

impl EkPublic {
    /// The RSA EK, which is always the same.
    pub fn new() -> Self {
        Self(RsaKeyPair::from_pkcs8(EK).expect("an RSA key").public_key().as_ref().to_vec(), &PKCS_RSA_SHA256)
    }

    /// The RSA EK with its RSAPublicKey changed.
    pub fn changed(change: impl FnOnce(&mut Vec<u8>)) -> Self {
        let mut ek = Self::new();
        change(&mut ek.0);
        ek
    }
}

impl EkPublic {
    /// These bytes as a key of this algorithm.
    pub fn of(bytes: &[u8], algorithm: &'static SignatureAlgorithm) -> Self {
        Self(bytes.to_vec(), algorithm)
    }
}

impl PublicKeyData for EkPublic {
    fn der_bytes(&self) -> &[u8] {
        &self.0
    }

    fn algorithm(&self) -> &'static SignatureAlgorithm {
        self.1
    }
}

fn kdfa(algorithm: hmac::Algorithm, key: &[u8], label: &[u8], context: &[u8], bits: u32) -> Vec<u8> {
    let message = [&[0, 0, 0, 1], label, context, &bits.to_be_bytes()].concat();
    hmac::sign(&hmac::Key::new(algorithm, key), &message).as_ref().to_vec()
}

fn some_pcrs() -> [[u8; 32]; 24] {
    std::array::from_fn(|index| *Sha256Digest::of(format!("pcr {index}").as_bytes()).as_bytes())
}
