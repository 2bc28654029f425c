//! Approvers and publishers made from seeds, so that every run has the same.

use attestation::IdentityKey;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use p384::ecdsa::signature::Signer;
use p384::ecdsa::{Signature, SigningKey};
use ring::digest::{SHA512, digest};
use ring::signature::{Ed25519KeyPair, KeyPair};

/// An approver with an Ed25519 key.
pub struct Person {
    pair: Ed25519KeyPair,
}

impl Person {
    pub fn new(seed: u8) -> Self {
        Self { pair: Ed25519KeyPair::from_seed_unchecked(&[seed; 32]).unwrap() }
    }

    fn blob(&self) -> Vec<u8> {
        [ssh_string(b"ssh-ed25519"), ssh_string(self.pair.public_key().as_ref())].concat()
    }

    /// The line of the `.pub` file.
    pub fn key_line(&self) -> String {
        format!("ssh-ed25519 {}", STANDARD.encode(self.blob()))
    }

    /// What `ssh-keygen -Y sign -n weightvault` writes.
    pub fn sign(&self, message: &[u8]) -> String {
        sshsig(&self.blob(), "weightvault", b"", message, |signed| {
            [ssh_string(b"ssh-ed25519"), ssh_string(self.pair.sign(signed).as_ref())].concat()
        })
    }
}

/// An identity key of a keeper.
pub fn identity_key(seed: u8) -> IdentityKey {
    let point = identity(seed).verifying_key().to_sec1_point(false);
    IdentityKey::try_from(point.as_bytes()).unwrap()
}

/// What that key signs, the same at every run (RFC 6979).
pub fn identity_sign(seed: u8, message: &[u8]) -> [u8; 96] {
    let signature: Signature = identity(seed).sign(message);
    signature.to_bytes().into()
}

fn identity(seed: u8) -> SigningKey {
    SigningKey::from_slice(&[seed; 48]).unwrap()
}

/// An armored SSHSIG (OpenSSH PROTOCOL.sshsig) with SHA-512.
pub fn sshsig(
    key_blob: &[u8],
    namespace: &str,
    reserved: &[u8],
    message: &[u8],
    sign: impl FnOnce(&[u8]) -> Vec<u8>,
) -> String {
    let head = [ssh_string(namespace.as_bytes()), ssh_string(reserved), ssh_string(b"sha512")].concat();
    let hash = digest(&SHA512, message);
    let signed = [b"SSHSIG".as_slice(), &head, &ssh_string(hash.as_ref())].concat();
    let signature = ssh_string(&sign(&signed));
    let blob = [b"SSHSIG\0\0\0\x01".as_slice(), &ssh_string(key_blob), &head, &signature].concat();
    armor(&blob)
}

/// Lines of 70 characters, as `ssh-keygen` writes them.
pub fn armor(blob: &[u8]) -> String {
    let text = STANDARD.encode(blob);
    let lines: Vec<&str> = text.as_bytes().chunks(70).map(|line| std::str::from_utf8(line).unwrap()).collect();
    format!("-----BEGIN SSH SIGNATURE-----\n{}\n-----END SSH SIGNATURE-----\n", lines.join("\n"))
}

/// `string` of RFC 4251 §5.
pub fn ssh_string(bytes: &[u8]) -> Vec<u8> {
    [&u32::try_from(bytes.len()).unwrap().to_be_bytes(), bytes].concat()
}
