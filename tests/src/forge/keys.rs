//! The keys that sign: RSA for the authorities, ECDSA for the chip.

use std::fmt;
use std::sync::OnceLock;

use p384::ecdsa::signature::Signer;
use ring::hkdf::{HKDF_SHA384, KeyType, Salt};
use ring::rand::{SecureRandom, SystemRandom};
use ring::rsa::KeyPair as RsaKeyPair;
use ring::signature::KeyPair;
use rsa::pkcs8::DecodePrivateKey;
use rsa::signature::{RandomizedSigner, SignatureEncoding};

use super::der;

const RSA_ENCRYPTION: &str = "1.2.840.113549.1.1.1";
const RSASSA_PSS: &str = "1.2.840.113549.1.1.10";
const SHA256_WITH_RSA: &str = "1.2.840.113549.1.1.11";
const SHA384_WITH_RSA: &str = "1.2.840.113549.1.1.12";
const MGF1: &str = "1.2.840.113549.1.1.8";
const SHA256: &str = "2.16.840.1.101.3.4.2.1";
const SHA384: &str = "2.16.840.1.101.3.4.2.2";
const EC_PUBLIC_KEY: &str = "1.2.840.10045.2.1";
const P256: &str = "1.2.840.10045.3.1.7";
const P384: &str = "1.3.132.0.34";

/// A key of an authority. They are in this tree (`keys/README.md`): SOFT TEST ONLY.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RsaKey {
    /// Of the root.
    Ark,
    /// Of the authority over VCEKs.
    Ask,
    /// Of the authority over VLEKs.
    Asvk,
    /// Of nobody in the chain.
    Stranger,
    /// RSA-2048: smaller than AMD's.
    Small,
}

impl RsaKey {
    /// SubjectPublicKeyInfo (RFC 5280, 4.1.2.7), DER.
    pub fn public_key(self) -> Vec<u8> {
        let algorithm = der::sequence(&[der::oid(RSA_ENCRYPTION), der::null()]);
        der::sequence(&[algorithm, der::bit_string(self.pair().public_key().as_ref())])
    }

    /// The key identifier of RFC 5280, 4.2.1.2 (1): SHA-1 over the key's bits.
    pub fn identifier(self) -> Vec<u8> {
        let digest = &ring::digest::SHA1_FOR_LEGACY_USE_ONLY;
        ring::digest::digest(digest, self.pair().public_key().as_ref()).as_ref().to_vec()
    }

    /// A signature over the message.
    pub fn sign(self, scheme: Scheme, message: &[u8]) -> Vec<u8> {
        let padding: &dyn ring::signature::RsaEncoding = match scheme {
            Scheme::PssSha384 { salt: 48 } => &ring::signature::RSA_PSS_SHA384,
            Scheme::PssSha384 { salt } => return self.sign_with_salt(salt, message),
            Scheme::PssSha256 => &ring::signature::RSA_PSS_SHA256,
            Scheme::Pkcs1Sha256 => &ring::signature::RSA_PKCS1_SHA256,
            Scheme::Pkcs1Sha384 => &ring::signature::RSA_PKCS1_SHA384,
        };
        let pair = self.pair();
        let mut signature = vec![0; pair.public().modulus_len()];
        pair.sign(padding, &SystemRandom::new(), message, &mut signature).expect("the key signs");
        signature
    }

    fn sign_with_salt(self, salt: usize, message: &[u8]) -> Vec<u8> {
        let key = rsa::RsaPrivateKey::from_pkcs8_der(self.pkcs8()).expect("an RSA key");
        let key = rsa::pss::SigningKey::<rsa::sha2::Sha384>::new_with_salt_len(key, salt);
        key.sign_with_rng(&mut Random, message).to_vec()
    }

    /// Each is read once: to check a key of this size takes longer than to sign with it.
    fn pair(self) -> &'static RsaKeyPair {
        static PAIRS: [OnceLock<RsaKeyPair>; 5] = [const { OnceLock::new() }; 5];
        PAIRS[self as usize].get_or_init(|| RsaKeyPair::from_pkcs8(self.pkcs8()).expect("an RSA key"))
    }

    fn pkcs8(self) -> &'static [u8] {
        match self {
            Self::Ark => include_bytes!("keys/ark.pk8"),
            Self::Ask => include_bytes!("keys/ask.pk8"),
            Self::Asvk => include_bytes!("keys/asvk.pk8"),
            Self::Stranger => include_bytes!("keys/stranger.pk8"),
            Self::Small => include_bytes!("../../../attestation/tests/common/keys/authority.pk8"),
        }
    }
}

/// How a certificate is signed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scheme {
    /// RSASSA-PSS, SHA-384, MGF1 with SHA-384: AMD's, with a salt of 48 bytes.
    PssSha384 {
        /// Bytes of salt.
        salt: usize,
    },
    /// RSASSA-PSS, SHA-256, MGF1 with SHA-256, salt of 32 bytes.
    PssSha256,
    /// RSASSA-PKCS1-v1_5, SHA-256.
    Pkcs1Sha256,
    /// RSASSA-PKCS1-v1_5, SHA-384.
    Pkcs1Sha384,
}

impl Scheme {
    /// What AMD uses everywhere.
    pub const AMD: Self = Self::PssSha384 { salt: 48 };

    /// AlgorithmIdentifier, DER. AMD's authorities spell out the default `trailerField` (RFC 4055, 3.1), its leaves do not.
    pub fn identifier(self, trailer: bool) -> Vec<u8> {
        let (hash, salt) = match self {
            Self::PssSha384 { salt } => (SHA384, salt),
            Self::PssSha256 => (SHA256, 32),
            Self::Pkcs1Sha256 => return der::sequence(&[der::oid(SHA256_WITH_RSA), der::null()]),
            Self::Pkcs1Sha384 => return der::sequence(&[der::oid(SHA384_WITH_RSA), der::null()]),
        };
        let hash = der::sequence(&[der::oid(hash), der::null()]);
        let mask = der::sequence(&[der::oid(MGF1), hash.clone()]);
        let mut parameters =
            vec![der::explicit(0, &hash), der::explicit(1, &mask), der::explicit(2, &der::integer(salt as u64))];
        if trailer {
            parameters.push(der::explicit(3, &der::integer(1)));
        }
        der::sequence(&[der::oid(RSASSA_PSS), der::sequence(&parameters)])
    }
}

/// The key that signs reports: a VCEK or VLEK. A function of what the chip has in its fuses and of a TCB, as AMD's is.
pub struct VekKey(p384::ecdsa::SigningKey);

impl VekKey {
    /// Derives it: HKDF-SHA384 (RFC 5869) from the chip's secret, the label naming everything else that it depends on.
    pub fn derive(chip_secret: &[u8; 32], label: &[u8]) -> Self {
        // The first candidate fails with a probability of 2^-190; there is a second one for the sake of being total.
        let candidates = (0u8..=255).map(|round| {
            let mut scalar = [0; 48];
            expand(chip_secret, b"soft snp vek", &[label, &[round]], &mut scalar);
            p384::ecdsa::SigningKey::from_slice(&scalar)
        });
        Self(candidates.flatten().next().expect("one of 256 candidates is a scalar"))
    }

    /// SubjectPublicKeyInfo (RFC 5480), DER.
    pub fn public_key(&self) -> Vec<u8> {
        ec_public_key(P384, self.0.verifying_key().to_sec1_point(false).as_bytes())
    }

    /// ECDSA P-384 with SHA-384: r and s, 48 bytes each, big-endian.
    pub fn sign(&self, message: &[u8]) -> [u8; 96] {
        let signature: p384::ecdsa::Signature = self.0.sign(message);
        signature.to_bytes().into()
    }
}

impl fmt::Debug for VekKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("VekKey(..)")
    }
}

/// The public key of some P-256 pair: what no VEK has.
pub fn p256_public_key() -> Vec<u8> {
    let algorithm = &ring::signature::ECDSA_P256_SHA256_FIXED_SIGNING;
    let rng = SystemRandom::new();
    let pkcs8 = ring::signature::EcdsaKeyPair::generate_pkcs8(algorithm, &rng).expect("a key");
    let pair = ring::signature::EcdsaKeyPair::from_pkcs8(algorithm, pkcs8.as_ref(), &rng).expect("a key");
    ec_public_key(P256, pair.public_key().as_ref())
}

/// HKDF-SHA384.
pub(super) fn expand(secret: &[u8], salt: &[u8], info: &[&[u8]], out: &mut [u8]) {
    struct Length(usize);
    impl KeyType for Length {
        fn len(&self) -> usize {
            self.0
        }
    }
    let key = Salt::new(HKDF_SHA384, salt).extract(secret);
    let stream = key.expand(info, Length(out.len())).expect("a short output");
    stream.fill(out).expect("the length asked for");
}

/// Random bytes of the operating system.
pub fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    SystemRandom::new().fill(&mut bytes).expect("the system has random bytes");
    bytes
}

fn ec_public_key(curve: &str, point: &[u8]) -> Vec<u8> {
    der::sequence(&[der::sequence(&[der::oid(EC_PUBLIC_KEY), der::oid(curve)]), der::bit_string(point)])
}

/// The operating system's random numbers in the form that the crate `rsa` asks for.
struct Random;

impl rsa::rand_core::CryptoRng for Random {}

impl rsa::rand_core::RngCore for Random {
    fn next_u32(&mut self) -> u32 {
        u32::from_le_bytes(random())
    }

    fn next_u64(&mut self) -> u64 {
        u64::from_le_bytes(random())
    }

    fn fill_bytes(&mut self, bytes: &mut [u8]) {
        SystemRandom::new().fill(bytes).expect("the system has random bytes");
    }

    fn try_fill_bytes(&mut self, bytes: &mut [u8]) -> Result<(), rsa::rand_core::Error> {
        self.fill_bytes(bytes);
        Ok(())
    }
}
