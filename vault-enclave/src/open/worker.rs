//! The threads that open segments.

use std::io::{self, IoSliceMut, Read};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use ledger::manifest::PlanUnit;

use super::{GrantedModel, OpenModelError, UnitSource};
use crate::aead::{Bulk, TAG_BYTES};
use crate::container::{BATCH_CHUNKS, CHUNK_BYTES, HEADER_BYTES, Layout, Opener};
use crate::derive::ModelContext;
use crate::region::prefault;

/// Chunks whose memory is had, and whose cipher is made, at a time: 2 MiB, a huge page.
const PIECE_CHUNKS: usize = 128;

/// A run of plaintext within one unit, for one thread.
pub(super) struct Segment<'m> {
    pub(super) unit: u32,
    /// Number of its first chunk.
    pub(super) first: u64,
    /// Its place in the mapped file.
    pub(super) dest: &'m mut [u8],
}

/// What all threads share.
pub(super) struct Shared<'a, S> {
    model: &'a GrantedModel<'a>,
    context: ModelContext<'a>,
    source: &'a S,
    progress: &'a (dyn Fn(u64) + Sync),
    stop: AtomicBool,
}

impl<'a, S: UnitSource> Shared<'a, S> {
    pub(super) fn new(model: &'a GrantedModel<'a>, source: &'a S, progress: &'a (dyn Fn(u64) + Sync)) -> Self {
        Self { model, context: model.manifest.into(), source, progress, stop: AtomicBool::new(false) }
    }

    /// Opens every segment, or returns the first error that a thread met.
    pub(super) fn open_all(&self, segments: Vec<Segment<'_>>, threads: usize) -> Result<(), OpenModelError> {
        let threads = threads.clamp(1, segments.len().max(1));
        let queue = Mutex::new(segments.into_iter());
        // A poisoned lock means that a thread panicked, which the scope passes on.
        let next = || queue.lock().ok().and_then(|mut queue| queue.next());
        let work = || {
            while !self.stop.load(Ordering::Relaxed)
                && let Some(segment) = next()
            {
                self.open(segment).inspect_err(|_| self.stop.store(true, Ordering::Relaxed))?;
            }
            Ok(())
        };
        std::thread::scope(|scope| {
            let workers: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
            let joined = workers.into_iter().map(|worker| worker.join());
            let results: Vec<_> =
                joined.map(|done| done.unwrap_or_else(|panic| std::panic::resume_unwind(panic))).collect();
            results.into_iter().collect()
        })
    }

    fn open(&self, segment: Segment<'_>) -> Result<(), OpenModelError> {
        let index = segment.unit;
        let unit = self.model.manifest.unit(index).ok_or(OpenModelError::UnknownUnit(index))?;
        let refused = |error| OpenModelError::Unit { unit: index, error };
        let layout = Layout::of_plaintext(unit.length).map_err(refused)?;
        let (mut input, opener) = self.begin(&segment, unit, layout)?;
        let mut first = segment.first;
        // An empty unit is one piece without bytes.
        let mut rest = Some(segment.dest);
        while let Some(dest) = rest.take() {
            if self.stop.load(Ordering::Relaxed) {
                return Ok(());
            }
            let (piece, more) = split_piece(dest);
            rest = (!more.is_empty()).then_some(more);
            let chunks = layout.piece_chunks(first, piece.len()).map_err(refused)?;
            if !piece.is_empty() {
                prefault(piece).map_err(|error| OpenModelError::Memory { file: unit.file.clone(), error })?;
            }
            if input.digest.is_some() {
                let sealed = input.read_and_hash(piece.len() + chunks * TAG_BYTES)?;
                opener.open_piece::<Bulk>(first, sealed, piece).map_err(refused)?;
            } else {
                opener
                    .open_in_place::<Bulk, _>(first, piece, refused, |batch, tags| input.read_in_place(batch, tags))?;
            }
            first += chunks as u64;
            (self.progress)(piece.len() as u64);
        }
        self.finish(input)
    }

    /// Reads the header, checks the commitment, and stands at the first chunk of the segment.
    fn begin(
        &self,
        segment: &Segment<'_>,
        unit: &PlanUnit,
        layout: Layout,
    ) -> Result<(Input<S::Reader>, Opener), OpenModelError> {
        let index = segment.unit;
        let read = |range| self.source.read(index, range).map_err(|error| OpenModelError::source(index, error));
        let refused = |error| OpenModelError::Unit { unit: index, error };
        let chunks = layout.piece_chunks(segment.first, segment.dest.len()).map_err(refused)?;
        let (start, end) = (layout.sealed_offset(segment.first), layout.sealed_offset(segment.first + chunks as u64));

        let whole = segment.first == 0;
        let reader = read(0..if whole { end } else { HEADER_BYTES as u64 })?;
        let digest = (whole && self.model.verify_units).then(Digest::default);
        let mut input = Input { reader, unit: index, expected: layout.sealed_len(), at: 0, digest };
        let mut header = [0; HEADER_BYTES];
        input.read(&mut [IoSliceMut::new(&mut header)])?;
        if let Some(digest) = &mut input.digest {
            digest.hasher.update(&header);
        }
        if !whole {
            (input.reader, input.at) = (read(start..end)?, start);
        }

        let key = self.model.keys.key(index).ok_or(OpenModelError::UnknownUnit(index))?;
        let context = self.context.unit_context(index, unit.length);
        let opener = key.with_bytes(|key| Opener::new(key, &context, layout, &header)).map_err(refused)?;
        Ok((input, opener))
    }

    /// Compares the whole unit with what the publisher signed, where that was asked for.
    fn finish(&self, input: Input<S::Reader>) -> Result<(), OpenModelError> {
        let Some(digest) = input.digest else { return Ok(()) };
        let signed = self.model.manifest.sealed(input.unit).ok_or(OpenModelError::UnknownUnit(input.unit))?;
        // blake3's own comparison, in constant time.
        if digest.hasher.finalize() == *signed.blake3.as_bytes() {
            Ok(())
        } else {
            Err(OpenModelError::Digest(input.unit))
        }
    }
}

/// The sealed bytes of one segment, as they are read.
struct Input<R> {
    reader: R,
    unit: u32,
    /// Bytes of the whole sealed unit.
    expected: u64,
    /// Offset in the sealed unit.
    at: u64,
    /// Where the whole unit is compared with what the publisher signed.
    digest: Option<Digest>,
}

/// BLAKE3 wants long runs: chunk by chunk, with the tags between them, it is three times slower than AES-GCM. So here
/// ciphertext goes through a buffer, which stays in the cache.
#[derive(Default)]
struct Digest {
    hasher: blake3::Hasher,
    buffer: Vec<u8>,
}

impl<R: Read> Input<R> {
    /// Reads chunks to their place and their tags apart, in one call where the reader can.
    fn read_in_place(&mut self, batch: &mut [u8], tags: &mut [[u8; TAG_BYTES]]) -> Result<(), OpenModelError> {
        let (full, last) = batch.split_at_mut(batch.len() / CHUNK_BYTES * CHUNK_BYTES);
        // A batch that ends the message has a short final chunk, which may be empty; another one has none.
        let chunks = full.chunks_mut(CHUNK_BYTES).chain(std::iter::once(last));
        let pairs = chunks.zip(tags.iter_mut());
        let mut parts = pairs.flat_map(|(chunk, tag)| [IoSliceMut::new(chunk), IoSliceMut::new(tag)]);
        let mut parts: [_; 2 * BATCH_CHUNKS] =
            std::array::from_fn(|_| parts.next().unwrap_or_else(|| IoSliceMut::new(&mut [])));
        self.read(&mut parts)
    }

    /// Reads sealed bytes and hashes them.
    fn read_and_hash(&mut self, bytes: usize) -> Result<&[u8], OpenModelError> {
        let mut digest = self.digest.take().unwrap_or_default();
        digest.buffer.resize(bytes, 0);
        self.read(&mut [IoSliceMut::new(&mut digest.buffer)])?;
        digest.hasher.update(&digest.buffer);
        Ok(&self.digest.insert(digest).buffer)
    }

    fn read(&mut self, mut parts: &mut [IoSliceMut<'_>]) -> Result<(), OpenModelError> {
        IoSliceMut::advance_slices(&mut parts, 0);
        while !parts.is_empty() {
            match self.reader.read_vectored(parts) {
                Ok(0) => {
                    return Err(OpenModelError::Length { unit: self.unit, expected: self.expected, found: self.at });
                }
                Ok(read) => {
                    self.at += read as u64;
                    IoSliceMut::advance_slices(&mut parts, read);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(OpenModelError::source(self.unit, error.into())),
            }
        }
        Ok(())
    }
}

/// The next piece of a segment, and what remains.
fn split_piece(dest: &mut [u8]) -> (&mut [u8], &mut [u8]) {
    let bytes = dest.len().min(PIECE_CHUNKS * CHUNK_BYTES);
    dest.split_at_mut(bytes)
}
