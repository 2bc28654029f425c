//! Security keys without the hardware: what their authenticator signs, as OpenSSH's PROTOCOL.u2f has it.

use attestation::Sha256Digest;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair};

use super::keys::{ssh_string, sshsig};

/// What an authenticator does with the bytes that it gets.
type Sign = dyn Fn(&[u8]) -> Vec<u8>;

/// A security key: its authenticator signs SHA-256(application) ‖ flags ‖ counter ‖ SHA-256(message).
pub struct SecurityKey {
    pub algorithm: &'static str,
    pub blob: Vec<u8>,
    sign: Box<Sign>,
}

/// What OpenSSH calls itself to an authenticator.
pub const APPLICATION: &[u8] = b"ssh:";

/// One of its own seed.
pub fn sk_ed25519() -> SecurityKey {
    let algorithm = "sk-ssh-ed25519@openssh.com";
    let pair = Ed25519KeyPair::from_seed_unchecked(&[9; 32]).unwrap();
    let point = ssh_string(pair.public_key().as_ref());
    let blob = [ssh_string(algorithm.as_bytes()), point, ssh_string(APPLICATION)].concat();
    SecurityKey { algorithm, blob, sign: Box::new(move |message| pair.sign(message).as_ref().to_vec()) }
}

/// Another one each time.
pub fn sk_ecdsa() -> SecurityKey {
    let algorithm = "sk-ecdsa-sha2-nistp256@openssh.com";
    let rng = SystemRandom::new();
    let pkcs8 = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &rng).unwrap();
    let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, pkcs8.as_ref(), &rng).unwrap();
    let (curve, point) = (ssh_string(b"nistp256"), ssh_string(pair.public_key().as_ref()));
    let blob = [ssh_string(algorithm.as_bytes()), curve, point, ssh_string(APPLICATION)].concat();
    let sign = move |message: &[u8]| {
        let fixed = pair.sign(&rng, message).unwrap();
        let (r, s) = fixed.as_ref().split_at(32);
        [mpint(r), mpint(s)].concat()
    };
    SecurityKey { algorithm, blob, sign: Box::new(sign) }
}

/// A positive mpint of RFC 4251 §5.
pub fn mpint(bytes: &[u8]) -> Vec<u8> {
    let start = bytes.iter().position(|byte| *byte != 0).unwrap_or(bytes.len());
    let sign: &[u8] = if bytes.get(start).is_some_and(|byte| byte & 0x80 != 0) { &[0] } else { &[] };
    ssh_string(&[sign, &bytes[start..]].concat())
}

impl SecurityKey {
    /// The line of its `.pub` file.
    pub fn line(&self) -> String {
        format!("{} {}", self.algorithm, STANDARD.encode(&self.blob))
    }

    /// What it signs with these flags, for this application.
    pub fn sign(&self, message: &[u8], flags: u8, application: &[u8]) -> String {
        let trailer = [flags, 0, 0, 1, 2];
        sshsig(&self.blob, "weightvault", b"", message, |signed| {
            let (application, message) = (Sha256Digest::of(application), Sha256Digest::of(signed));
            let authenticated = [application.as_bytes().as_slice(), &trailer, message.as_bytes()].concat();
            let signature = ssh_string(&(self.sign)(&authenticated));
            [ssh_string(self.algorithm.as_bytes()), signature, trailer.to_vec()].concat()
        })
    }
}
