//! Somebody who has all ciphertext of a model and some of its keys, and tries each on everything by the words of FORMAT.md §4
//! and §5, without any check that the format asks for.

use attestation::lv;
use ledger::manifest::Manifest;
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};

use crate::publisher::{COBBLESTONE, expand};

const HEADER: usize = 24 + 32;
const CHUNK: usize = 16 << 10;
const TAG: usize = 16;

/// What came of trying keys on one sealed unit.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Opened {
    /// Keys whose commitment is the unit's.
    pub commitments: usize,
    /// Chunks that opened under any of them.
    pub chunks: usize,
    /// What they hold.
    pub bytes: Vec<u8>,
}

/// The context of a unit's message.
pub fn context_of(manifest: &Manifest, unit: u32) -> Vec<u8> {
    let id = manifest.id();
    let names = lv(&[id.vault.as_bytes(), id.model.as_str().as_bytes(), id.version.as_str().as_bytes()]);
    let length = manifest.unit(unit).expect("a unit of it").length.to_be_bytes();
    let plan = manifest.plan().digest();
    [b"weightvault/v1 unit ctx\0".as_slice(), &names, &unit.to_be_bytes(), plan.as_bytes(), &length].concat()
}

/// How many chunks a sealed unit has.
pub fn chunks_of(sealed: &[u8]) -> usize {
    (sealed.len() - HEADER).div_ceil(CHUNK + TAG)
}

/// Tries every key, in every context, on every chunk of a sealed unit.
pub fn try_all(keys: &[Vec<u8>], contexts: &[Vec<u8>], sealed: &[u8]) -> Opened {
    let mut opened = Opened::default();
    let (salt, commitment) = sealed[..HEADER].split_at(24);
    for (key, context) in keys.iter().flat_map(|key| contexts.iter().map(move |context| (key, context))) {
        let derived = expand::<76>(key, &[COBBLESTONE, salt, context]);
        opened.commitments += usize::from(derived[44..] == *commitment);
        let aead = LessSafeKey::new(UnboundKey::new(&AES_256_GCM, &derived[..32]).expect("32 bytes"));
        for (number, chunk) in (0_u64..).zip(sealed[HEADER..].chunks(CHUNK + TAG)) {
            let mut nonce: [u8; 12] = derived[32..44].try_into().expect("12 bytes");
            nonce[4..].iter_mut().zip(number.to_be_bytes()).for_each(|(byte, number)| *byte ^= number);
            let mut chunk = chunk.to_vec();
            if let Ok(plain) = aead.open_in_place(Nonce::assume_unique_for_key(nonce), Aad::empty(), &mut chunk) {
                opened.chunks += 1;
                opened.bytes.extend_from_slice(plain);
            }
        }
    }
    opened
}
