//! One encrypted message: Cobblestone-256 of C2SP chunked-encryption (<https://c2sp.org/chunked-encryption>), with
//! HKDF-SHA512 and AES-256-GCM.
//!
//! ```text
//! salt (24) ‖ commitment (32) ‖ chunk 0 ‖ tag ‖ chunk 1 ‖ tag ‖ … ‖ final chunk ‖ tag
//! key ‖ base nonce ‖ commitment = HKDF-Expand(input key, "c2sp.org/chunked-encryption@v1+AEAD_AES_256_GCM\0" ‖ salt ‖ context)
//! ```
//!
//! Chunks have 16 KiB, the final one less, maybe nothing; the nonce of chunk k is the base nonce XOR k. The commitment is
//! compared before any chunk is opened: AES-GCM alone lets one ciphertext open under two keys. Reordered or exchanged
//! chunks fail their tag, and a message cut at a chunk's end lacks its short final chunk.
//!
//! Sealer and opener work on *pieces*, runs of whole chunks, in any order and from several threads. Nothing of a
//! message may be used before all that was asked for has passed. A piece may be used alone only where its length is
//! known from elsewhere, as a unit's is from its context, or where the final chunk has been opened: that proves it. What
//! failed is wiped.

use std::fmt;

use ring::rand::SecureRandom;
use subtle::ConstantTimeEq;
use zeroize::Zeroize;

use crate::aead::{Aead, KEY_BYTES, NONCE_BYTES, Refused, TAG_BYTES};
use crate::derive::expand;
use crate::secret::{Secret, SecretError};
use crate::stack::wiped;

/// Plaintext bytes of every chunk but the final one.
pub const CHUNK_BYTES: usize = 16 * 1024;
/// Bytes of a sealed chunk that is not the final one.
pub const SEALED_CHUNK_BYTES: usize = CHUNK_BYTES + TAG_BYTES;
/// Bytes before the first chunk: salt and commitment.
pub const HEADER_BYTES: usize = SALT_BYTES + COMMITMENT_BYTES;
/// Longest plaintext: 2^38 chunks, the final one short.
pub const MESSAGE_BYTES_MAX: u64 = (1 << 38) * CHUNK_BYTES as u64 - 1;

/// Chunks that are brought to their place and opened at a time: 256 KiB, half of a core's own cache.
pub(crate) const BATCH_CHUNKS: usize = 16;

const SALT_BYTES: usize = 24;
const COMMITMENT_BYTES: usize = 32;
const LABEL: &[u8] = b"c2sp.org/chunked-encryption@v1+AEAD_AES_256_GCM\0";

/// Where the chunks of a message of one length lie.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Layout {
    length: u64,
}

impl Layout {
    /// Of a message of `length` plaintext bytes.
    ///
    /// # Errors
    /// [`OpenError::Length`] above [`MESSAGE_BYTES_MAX`].
    pub fn of_plaintext(length: u64) -> Result<Self, OpenError> {
        if length > MESSAGE_BYTES_MAX { Err(OpenError::Length(length)) } else { Ok(Self { length }) }
    }

    /// Of a sealed message of `sealed` bytes.
    ///
    /// # Errors
    /// [`OpenError::Length`] where no message has that length: it was cut short.
    pub fn of_sealed(sealed: u64) -> Result<Self, OpenError> {
        let wrong = OpenError::Length(sealed);
        let chunks = sealed.checked_sub(HEADER_BYTES as u64).ok_or(wrong)?;
        let (full, last) = (chunks / SEALED_CHUNK_BYTES as u64, chunks % SEALED_CHUNK_BYTES as u64);
        let last = last.checked_sub(TAG_BYTES as u64).ok_or(wrong)?;
        Self::of_plaintext(full * CHUNK_BYTES as u64 + last).map_err(|_| wrong)
    }

    /// Plaintext bytes.
    pub fn length(&self) -> u64 {
        self.length
    }

    /// Bytes of the whole sealed message.
    pub fn sealed_len(&self) -> u64 {
        HEADER_BYTES as u64 + self.length + self.chunks() * TAG_BYTES as u64
    }

    /// How many chunks, the final one included.
    pub fn chunks(&self) -> u64 {
        self.length / CHUNK_BYTES as u64 + 1
    }

    /// Offset of a chunk in the sealed message. `chunk` is at most [`Layout::chunks`].
    pub fn sealed_offset(&self, chunk: u64) -> u64 {
        let offset = HEADER_BYTES as u64 + chunk * SEALED_CHUNK_BYTES as u64;
        offset.min(self.sealed_len())
    }

    /// How many chunks a piece of `bytes` plaintext bytes has that starts at chunk `first`; it ends at a chunk's end.
    pub(crate) fn piece_chunks(&self, first: u64, bytes: usize) -> Result<usize, OpenError> {
        let end = first.checked_mul(CHUNK_BYTES as u64).and_then(|start| start.checked_add(bytes as u64));
        match end {
            Some(end) if end == self.length => Ok(bytes / CHUNK_BYTES + 1),
            Some(end) if end < self.length && bytes.is_multiple_of(CHUNK_BYTES) => Ok(bytes / CHUNK_BYTES),
            _ => Err(OpenError::Piece { first, bytes }),
        }
    }
}

/// Seals one message.
pub(crate) struct Sealer {
    key: MessageKey,
    layout: Layout,
}

impl Sealer {
    /// Begins a message of `length` bytes under a fresh salt; the second value goes in front of it.
    pub(crate) fn new(
        input_key: &[u8; KEY_BYTES],
        context: &[u8],
        length: u64,
        rng: &dyn SecureRandom,
    ) -> Result<(Self, [u8; HEADER_BYTES]), OpenError> {
        let mut salt = [0; SALT_BYTES];
        rng.fill(&mut salt).map_err(|_| SecretError::Random)?;
        Self::with_salt(input_key, context, length, salt)
    }

    /// The salt must be new for the key. Apart from [`Sealer::new`] only tests choose one.
    pub(crate) fn with_salt(
        input_key: &[u8; KEY_BYTES],
        context: &[u8],
        length: u64,
        salt: [u8; SALT_BYTES],
    ) -> Result<(Self, [u8; HEADER_BYTES]), OpenError> {
        let layout = Layout::of_plaintext(length)?;
        let key = MessageKey::derive(input_key, context, &salt)?;
        let mut header = [0; HEADER_BYTES];
        header[..SALT_BYTES].copy_from_slice(&salt);
        key.0.with_bytes(|bytes| header[SALT_BYTES..].copy_from_slice(MessageKey::commitment(bytes)));
        Ok((Self { key, layout }, header))
    }

    /// Seals the piece `plain`, which starts at chunk `first`, into `sealed`: its chunks, each with its tag behind it.
    /// Each piece once: a second one under the same numbers would break AES-GCM.
    pub(crate) fn seal_piece<A: Aead>(&self, first: u64, plain: &[u8], sealed: &mut [u8]) -> Result<(), OpenError> {
        let chunks = self.layout.piece_chunks(first, plain.len())?;
        if sealed.len() != plain.len() + chunks * TAG_BYTES {
            return Err(OpenError::Piece { first, bytes: sealed.len() });
        }
        self.key.each_chunk::<A>(first, chunks, |aead, index, nonce| {
            let from = chunk(plain, index);
            let start = index * SEALED_CHUNK_BYTES;
            let (to, tag) = sealed[start..start + from.len() + TAG_BYTES].split_at_mut(from.len());
            to.copy_from_slice(from);
            tag.copy_from_slice(&aead.seal(nonce, to)?);
            Ok(())
        })
    }
}

/// Opens one message whose commitment was right.
pub(crate) struct Opener {
    key: MessageKey,
    layout: Layout,
}

impl Opener {
    /// Checks the commitment. `layout` is what the caller knows of the length; opening the final chunk proves it.
    pub(crate) fn new(
        input_key: &[u8; KEY_BYTES],
        context: &[u8],
        layout: Layout,
        header: &[u8; HEADER_BYTES],
    ) -> Result<Self, OpenError> {
        let (salt, commitment) = header.split_at(SALT_BYTES);
        let key = MessageKey::derive(input_key, context, salt)?;
        let same = key.0.with_bytes(|bytes| MessageKey::commitment(bytes).ct_eq(commitment));
        if bool::from(same) { Ok(Self { key, layout }) } else { Err(OpenError::Commitment) }
    }

    /// Opens the piece at chunk `first` from `sealed` (chunks and tags) into `dest`, chunk by chunk: copied to its place
    /// and opened there while it is hot. On failure all of `dest` is wiped.
    pub(crate) fn open_piece<A: Aead>(&self, first: u64, sealed: &[u8], dest: &mut [u8]) -> Result<(), OpenError> {
        let chunks = self.layout.piece_chunks(first, dest.len())?;
        if sealed.len() != dest.len() + chunks * TAG_BYTES {
            return Err(OpenError::Piece { first, bytes: sealed.len() });
        }
        self.open_each::<A>(first, chunks, dest, |index, place| {
            let start = index * SEALED_CHUNK_BYTES;
            let (from, tag) = sealed[start..start + place.len() + TAG_BYTES].split_at(place.len());
            place.copy_from_slice(from);
            tag.try_into().map_err(|_| Refused)
        })
    }

    /// Opens the piece at chunk `first` in place. `feed` brings ciphertext to where its plaintext will be, and the tags apart,
    /// of at most [`BATCH_CHUNKS`] chunks at a time, which are opened while they are in the cache. On failure all of `dest`
    /// is wiped; `refused` makes the error of what was not what was sealed.
    pub(crate) fn open_in_place<A: Aead, E>(
        &self,
        first: u64,
        dest: &mut [u8],
        refused: impl Fn(OpenError) -> E,
        mut feed: impl FnMut(&mut [u8], &mut [[u8; TAG_BYTES]]) -> Result<(), E>,
    ) -> Result<(), E> {
        let chunks = self.layout.piece_chunks(first, dest.len()).map_err(&refused)?;
        let opened = self.key.with_cipher::<A, _>(|aead, base| {
            let mut tags = [[0; TAG_BYTES]; BATCH_CHUNKS];
            for begin in (0..chunks).step_by(BATCH_CHUNKS) {
                let end = chunks.min(begin + BATCH_CHUNKS);
                let last = dest.len().min(end * CHUNK_BYTES);
                let (batch, tags) = (&mut dest[begin * CHUNK_BYTES..last], &mut tags[..end - begin]);
                feed(batch, tags)?;
                for (index, tag) in tags.iter().enumerate() {
                    let number = first + (begin + index) as u64;
                    let opened = aead.open(nonce(base, number), chunk_mut(batch, index), tag);
                    opened.map_err(|Refused| refused(OpenError::Chunk(number)))?;
                }
            }
            Ok(())
        });
        if opened.is_err() {
            dest.zeroize();
        }
        opened
    }

    fn open_each<A: Aead>(
        &self,
        first: u64,
        chunks: usize,
        dest: &mut [u8],
        mut place: impl FnMut(usize, &mut [u8]) -> Result<[u8; TAG_BYTES], Refused>,
    ) -> Result<(), OpenError> {
        let opened = self.key.each_chunk::<A>(first, chunks, |aead, index, nonce| {
            let chunk = chunk_mut(dest, index);
            let tag = place(index, chunk)?;
            aead.open(nonce, chunk, &tag)
        });
        if opened.is_err() {
            dest.zeroize();
        }
        opened
    }
}

/// Seals a short message whole.
pub(crate) fn seal_message<A: Aead>(
    input_key: &[u8; KEY_BYTES],
    context: &[u8],
    plain: &[u8],
    rng: &dyn SecureRandom,
) -> Result<Vec<u8>, OpenError> {
    let (sealer, header) = Sealer::new(input_key, context, plain.len() as u64, rng)?;
    finish_message::<A>(&sealer, &header, plain)
}

/// Opens a short message whole into `dest`, which has exactly its length.
pub(crate) fn open_message<A: Aead>(
    input_key: &[u8; KEY_BYTES],
    context: &[u8],
    sealed: &[u8],
    dest: &mut [u8],
) -> Result<(), OpenError> {
    let wrong = OpenError::Length(sealed.len() as u64);
    let layout = Layout::of_sealed(sealed.len() as u64)?;
    let (header, chunks) = sealed.split_first_chunk().ok_or(wrong)?;
    if layout.length() != dest.len() as u64 {
        return Err(wrong);
    }
    Opener::new(input_key, context, layout, header)?.open_piece::<A>(0, chunks, dest)
}

pub(crate) fn finish_message<A: Aead>(
    sealer: &Sealer,
    header: &[u8; HEADER_BYTES],
    plain: &[u8],
) -> Result<Vec<u8>, OpenError> {
    let tags = (plain.len() / CHUNK_BYTES + 1) * TAG_BYTES;
    let mut sealed = vec![0; HEADER_BYTES + plain.len() + tags];
    let (start, chunks) = sealed.split_at_mut(HEADER_BYTES);
    start.copy_from_slice(header);
    sealer.seal_piece::<A>(0, plain, chunks)?;
    Ok(sealed)
}

/// Key, base nonce and commitment of one message.
struct MessageKey(Secret<{ KEY_BYTES + NONCE_BYTES + COMMITMENT_BYTES }>);

impl MessageKey {
    fn derive(input_key: &[u8; KEY_BYTES], context: &[u8], salt: &[u8]) -> Result<Self, OpenError> {
        let secret = Secret::init_with(|bytes| {
            expand(input_key, &[LABEL, salt, context], bytes);
            Ok::<_, SecretError>(())
        })?;
        Ok(Self(secret))
    }

    fn commitment(bytes: &[u8; KEY_BYTES + NONCE_BYTES + COMMITMENT_BYTES]) -> &[u8] {
        &bytes[KEY_BYTES + NONCE_BYTES..]
    }

    /// Calls `act` with the cipher, the index within the piece and the nonce of each of `chunks` chunks from `first` on.
    fn each_chunk<A: Aead>(
        &self,
        first: u64,
        chunks: usize,
        mut act: impl FnMut(&A, usize, [u8; NONCE_BYTES]) -> Result<(), Refused>,
    ) -> Result<(), OpenError> {
        self.with_cipher::<A, _>(|aead, base| {
            (0..chunks).zip(first..).try_for_each(|(index, number)| {
                act(aead, index, nonce(base, number)).map_err(|Refused| OpenError::Chunk(number))
            })
        })
    }

    /// Calls `act` with the cipher and the base nonce.
    fn with_cipher<A: Aead, R>(&self, act: impl FnOnce(&A, &[u8; NONCE_BYTES]) -> R) -> R {
        self.0.with_bytes(|bytes| {
            wiped(|| {
                let (key, rest) = bytes.split_first_chunk().expect("key, nonce and commitment");
                let (base, _) = rest.split_first_chunk().expect("nonce and commitment");
                act(&A::new(key), base)
            })
        })
    }
}

/// The base nonce XOR the chunk's number as a big-endian integer of the same width.
fn nonce(base: &[u8; NONCE_BYTES], chunk: u64) -> [u8; NONCE_BYTES] {
    let mut nonce = *base;
    for (byte, number) in nonce[NONCE_BYTES - 8..].iter_mut().zip(chunk.to_be_bytes()) {
        *byte ^= number;
    }
    nonce
}

/// Chunk `index` of a piece; the final one may be short or empty.
fn chunk(piece: &[u8], index: usize) -> &[u8] {
    &piece[index * CHUNK_BYTES..piece.len().min((index + 1) * CHUNK_BYTES)]
}

fn chunk_mut(piece: &mut [u8], index: usize) -> &mut [u8] {
    let end = piece.len().min((index + 1) * CHUNK_BYTES);
    &mut piece[index * CHUNK_BYTES..end]
}

/// Why a message was not opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OpenError {
    /// No message has this many bytes, or not the one expected: cut short or lengthened.
    Length(u64),
    /// Sealed under another key or for another context: another vault, model, version, unit or length.
    Commitment,
    /// This chunk is not what was sealed there.
    Chunk(u64),
    /// A piece that is not a run of whole chunks of this message.
    Piece {
        /// Number of its first chunk.
        first: u64,
        /// Its bytes.
        bytes: usize,
    },
    /// No memory or randomness for the key.
    Secret(SecretError),
}

impl OpenError {
    /// Stable name of the refusal.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Length(_) => "sealed-length",
            Self::Commitment => "key-commitment",
            Self::Chunk(_) => "chunk-refused",
            Self::Piece { .. } => "piece-misplaced",
            Self::Secret(error) => error.code(),
        }
    }
}

impl fmt::Display for OpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Length(bytes) => {
                write!(f, "{bytes} bytes are not a whole sealed message: it was cut short or lengthened")
            }
            Self::Commitment => f.write_str("sealed under another key or for another context"),
            Self::Chunk(number) => write!(f, "chunk {number} is not what was sealed there"),
            Self::Piece { first, bytes } => write!(f, "{bytes} bytes from chunk {first} are not a run of whole chunks"),
            Self::Secret(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for OpenError {}

impl From<SecretError> for OpenError {
    fn from(error: SecretError) -> Self {
        Self::Secret(error)
    }
}

impl From<crate::region::RegionError> for OpenError {
    fn from(error: crate::region::RegionError) -> Self {
        Self::Secret(error.into())
    }
}

#[cfg(test)]
mod tests;
#[cfg(test)]
pub(crate) use tests::note_message_key;
