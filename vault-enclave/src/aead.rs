//! AES-256-GCM. The only file that names an AEAD crate.
//!
//! Two backends with the same bytes: [`Bulk`] is `ring`, three times as fast, for weights; [`Small`] is `aes-gcm` with
//! `zeroize`, for records of a keeper. `ring` wipes nothing, so a caller makes either inside [`crate::stack::wiped`],
//! keeps it on the stack and lets it go there.

use aes_gcm::aead::inout::InOutBuf;
use aes_gcm::{AeadInOut, KeyInit};
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};

/// Bytes of a key.
pub(crate) const KEY_BYTES: usize = 32;
/// Bytes of a nonce.
pub(crate) const NONCE_BYTES: usize = 12;
/// Bytes of a tag.
pub(crate) const TAG_BYTES: usize = 16;

/// The ciphertext is not what was sealed under this key and nonce, or is too long. Says nothing more on purpose.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Refused;

/// AES-256-GCM with empty associated data. The caller never repeats a nonce under one key.
pub(crate) trait Aead {
    /// Expands a key.
    fn new(key: &[u8; KEY_BYTES]) -> Self;

    /// Encrypts in place and returns the tag.
    fn seal(&self, nonce: [u8; NONCE_BYTES], data: &mut [u8]) -> Result<[u8; TAG_BYTES], Refused>;

    /// Checks the tag and decrypts in place. On refusal `data` may hold anything, and the caller wipes it.
    fn open(&self, nonce: [u8; NONCE_BYTES], data: &mut [u8], tag: &[u8; TAG_BYTES]) -> Result<(), Refused>;
}

/// `ring`, for weights.
pub(crate) struct Bulk(LessSafeKey);

/// `aes-gcm`, for small records.
pub(crate) struct Small(aes_gcm::Aes256Gcm);

impl Aead for Bulk {
    fn new(key: &[u8; KEY_BYTES]) -> Self {
        Self(LessSafeKey::new(UnboundKey::new(&AES_256_GCM, key).expect("the key has the length of the algorithm")))
    }

    fn seal(&self, nonce: [u8; NONCE_BYTES], data: &mut [u8]) -> Result<[u8; TAG_BYTES], Refused> {
        let nonce = Nonce::assume_unique_for_key(nonce);
        let tag = self.0.seal_in_place_separate_tag(nonce, Aad::empty(), data).map_err(|_| Refused)?;
        tag.as_ref().try_into().map_err(|_| Refused)
    }

    fn open(&self, nonce: [u8; NONCE_BYTES], data: &mut [u8], tag: &[u8; TAG_BYTES]) -> Result<(), Refused> {
        let nonce = Nonce::assume_unique_for_key(nonce);
        let opened = self.0.open_in_place_separate_tag(nonce, Aad::empty(), (*tag).into(), data, 0..);
        opened.map(drop).map_err(|_| Refused)
    }
}

impl Aead for Small {
    fn new(key: &[u8; KEY_BYTES]) -> Self {
        Self(aes_gcm::Aes256Gcm::new(key.into()))
    }

    fn seal(&self, nonce: [u8; NONCE_BYTES], data: &mut [u8]) -> Result<[u8; TAG_BYTES], Refused> {
        let sealed = self.0.encrypt_inout_detached(&nonce.into(), &[], InOutBuf::from(data));
        sealed.map(Into::into).map_err(|_| Refused)
    }

    fn open(&self, nonce: [u8; NONCE_BYTES], data: &mut [u8], tag: &[u8; TAG_BYTES]) -> Result<(), Refused> {
        let opened = self.0.decrypt_inout_detached(&nonce.into(), &[], InOutBuf::from(data), tag.into());
        opened.map_err(|_| Refused)
    }
}
