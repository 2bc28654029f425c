//! A TPM in software: an EK that opens credentials, an AK that quotes.

use aes::Aes128;
use aes::cipher::KeyIvInit;
use attestation::{Credential, Sha256Digest, TpmIdentity, TpmQuote};
use rcgen::{PKCS_RSA_SHA256, PublicKeyData, SignatureAlgorithm};
use ring::rand::SystemRandom;
use ring::rsa::PublicKeyComponents;
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair, RSA_PKCS1_SHA256, RsaKeyPair};
use ring::{hmac, signature};
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
        Self { ak: SoftAk::Ecc(ak), ak_public, pcrs: some_pcrs() }
    }

    /// A TPM with an RSA-2048 AK, always the same.
    pub fn rsa() -> Self {
        let ak = RsaKeyPair::from_pkcs8(AK).expect("an RSA key");
        let modulus = PublicKeyComponents::<Vec<u8>>::from(ak.public()).n;
        Self { ak: SoftAk::Rsa(ak), ak_public: AkPublic::rsa(&modulus), pcrs: some_pcrs() }
    }

    /// What it sends about itself, endorsed by `authority`; `issuers` follow the EK certificate.
    pub fn identity(&self, authority: &Authority, issuers: &[&Authority]) -> TpmIdentity {
        let ek = authority.endorse(&EkPublic::new(), |_| ());
        let issuers = issuers.iter().map(|issuer| issuer.der.clone());
        TpmIdentity { ek_certificates: [ek].into_iter().chain(issuers).collect(), ak_public: self.ak_public.bytes() }
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
        let ek = RsaPrivateKey::from_pkcs8_der(EK).expect("an RSA key");
        let padding = Oaep::new_with_label::<Sha256, _>("IDENTITY\0");
        let seed = ek.decrypt(padding, credential.encrypted_secret.get(2..)?).ok()?;
        let name = [&[0x00, 0x0b], Sha256Digest::of(&self.ak_public.bytes()).as_bytes().as_slice()].concat();
        let (mac, encrypted) = credential.id_object.get(4..)?.split_at_checked(32)?;

        let key = hmac::Key::new(hmac::HMAC_SHA256, &kdfa(&seed, b"INTEGRITY\0", b"", 256));
        hmac::verify(&key, &[encrypted, name.as_slice()].concat(), mac).ok()?;
        let mut key = [0; 16];
        key.copy_from_slice(&kdfa(&seed, b"STORAGE\0", &name, 128)[..16]);
        let mut opened = encrypted.to_vec();
        cfb_mode::Decryptor::<Aes128>::new(&key.into(), &[0; 16].into()).decrypt(&mut opened);
        let sizes = credential.encrypted_secret.starts_with(&[0x01, 0x00])
            && credential.id_object.starts_with(&[0x00, 0x44, 0x00, 0x20])
            && opened.starts_with(&[0x00, 0x20]);
        sizes.then(|| opened[2..].to_vec())
    }
}

/// The public key of the EK, for a certificate.
pub struct EkPublic(Vec<u8>);

impl EkPublic {
    /// Every TPM of the forge has the same EK.
    pub fn new() -> Self {
        Self(RsaKeyPair::from_pkcs8(EK).expect("an RSA key").public_key().as_ref().to_vec())
    }

    /// The EK with its RSAPublicKey changed.
    pub fn changed(change: impl FnOnce(&mut Vec<u8>)) -> Self {
        let mut ek = Self::new();
        change(&mut ek.0);
        ek
    }
}

impl PublicKeyData for EkPublic {
    fn der_bytes(&self) -> &[u8] {
        &self.0
    }

    fn algorithm(&self) -> &'static SignatureAlgorithm {
        &PKCS_RSA_SHA256
    }
}

fn kdfa(key: &[u8], label: &[u8], context: &[u8], bits: u32) -> Vec<u8> {
    let message = [&[0, 0, 0, 1], label, context, &bits.to_be_bytes()].concat();
    hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), &message).as_ref().to_vec()
}

fn some_pcrs() -> [[u8; 32]; 24] {
    std::array::from_fn(|index| *Sha256Digest::of(format!("pcr {index}").as_bytes()).as_bytes())
}
