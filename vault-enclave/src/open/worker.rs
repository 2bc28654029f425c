//! The threads that open segments.

use std::io::{self, IoSliceMut, Read};
use std::ops::Range;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use ledger::manifest::PlanUnit;

use super::place::Place;
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
    /// Its place in the mapped file, or memory of its own.
    pub(super) dest: Place<'m>,
}

/// What all threads share.
pub(super) struct Shared<'a, S> {
    model: &'a GrantedModel<'a>,
    context: ModelContext<'a>,
    source: &'a S,
    progress: &'a (dyn Fn(u64) + Sync),
    passed: &'a (dyn Fn(Segment<'_>) + Sync),
    stop: AtomicBool,
}

impl<'a, S: UnitSource> Shared<'a, S> {
    pub(super) fn new(model: &'a GrantedModel<'a>, source: &'a S, progress: &'a (dyn Fn(u64) + Sync)) -> Self {
        Self { model, context: model.manifest.into(), source, progress, passed: &|_| {}, stop: AtomicBool::new(false) }
    }

    /// The same, giving each segment of which every chunk has passed to `passed`, from the thread that opened it.
    pub(super) fn handing(self, passed: &'a (dyn Fn(Segment<'_>) + Sync)) -> Self {
        Self { passed, ..self }
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
                let opened = self.open(segment).inspect_err(|_| self.stop.store(true, Ordering::Relaxed))?;
                if let Some(segment) = opened {
                    (self.passed)(segment);
                }
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

    /// Opens one segment, from wherever the source has it: what has passed is not read again. `None` where another thread
    /// met an error before all of it had passed.
    fn open<'m>(&self, segment: Segment<'m>) -> Result<Option<Segment<'m>>, OpenModelError> {
        let index = segment.unit;
        let unit = self.model.manifest.unit(index).ok_or(OpenModelError::UnknownUnit(index))?;
        let refused = |error| OpenModelError::Unit { unit: index, error };
        let layout = Layout::of_plaintext(unit.length).map_err(refused)?;
        let chunks = layout.piece_chunks(segment.first, segment.dest.len()).map_err(refused)? as u64;
        let whole = segment.first == 0;
        let start = if whole { 0 } else { layout.sealed_offset(segment.first) };
        let sealed = start..layout.sealed_offset(segment.first + chunks);
        let digest = (whole && self.model.verify_units).then(Digest::default);
        let mut run = Run { segment, unit, layout, sealed, passed: 0, told: 0, header: None, digest };
        loop {
            let mut input = None;
            let error = match self.attempt(&mut run, &mut input) {
                Ok(Outcome::Passed) => {
                    if let Some(input) = &input {
                        self.source.passed(index, run.sealed.clone(), &input.reader);
                    }
                    return Ok(Some(run.segment));
                }
                Ok(Outcome::Stopped) => return Ok(None),
                Err(error) => error,
            };
            if matches!(error, OpenModelError::Digest(_)) {
                run.restart();
            }
            let elsewhere = |input: Input<S::Reader>| self.source.refused(index, &input.reader, &error);
            if self.stop.load(Ordering::Relaxed) || !error.is_of_source() || !input.is_some_and(elsewhere) {
                return Err(error);
            }
        }
    }

    /// Opens what did not pass yet from one reader, which stays in `input` where that fails.
    fn attempt(&self, run: &mut Run<'_, '_>, input: &mut Option<Input<S::Reader>>) -> Result<Outcome, OpenModelError> {
        let index = run.segment.unit;
        let refused = |error| OpenModelError::Unit { unit: index, error };
        let opener = self.begin(run, input)?;
        let input = input.as_mut().expect("what has begun has a reader");
        // An empty unit is one piece without bytes.
        let mut more = true;
        while more {
            if self.stop.load(Ordering::Relaxed) {
                return Ok(Outcome::Stopped);
            }
            let first = run.chunk();
            let (piece, rest) = split_piece(&mut run.segment.dest[run.passed..]);
            more = !rest.is_empty();
            let chunks = run.layout.piece_chunks(first, piece.len()).map_err(refused)?;
            if !piece.is_empty() {
                prefault(piece).map_err(|error| OpenModelError::Memory { file: run.unit.file.clone(), error })?;
            }
            if let Some(Digest { hasher, buffer }) = &mut run.digest {
                buffer.resize(piece.len() + chunks * TAG_BYTES, 0);
                input.read(&mut [IoSliceMut::new(buffer)])?;
                opener.open_piece::<Bulk>(first, buffer, piece).map_err(refused)?;
                // Not before: what did not pass is read again.
                hasher.update(buffer);
            } else {
                opener
                    .open_in_place::<Bulk, _>(first, piece, refused, |batch, tags| input.read_in_place(batch, tags))?;
            }
            run.passed += piece.len();
            if run.passed > run.told {
                (self.progress)((run.passed - run.told) as u64);
                run.told = run.passed;
            }
        }
        self.check_digest(run)?;
        Ok(Outcome::Passed)
    }

    /// Reads the header, checks the commitment, and stands at the first chunk that did not pass yet.
    fn begin(&self, run: &mut Run<'_, '_>, input: &mut Option<Input<S::Reader>>) -> Result<Opener, OpenModelError> {
        let index = run.segment.unit;
        let expected = run.layout.sealed_len();
        let read = |range: Range<u64>| {
            let at = range.start;
            let reader = self.source.read(index, range).map_err(|error| OpenModelError::source(index, error))?;
            Ok::<_, OpenModelError>(Input { reader, unit: index, expected, at })
        };
        let from_start = run.segment.first == 0 && run.passed == 0;
        let begun = input.insert(read(0..if from_start { run.sealed.end } else { HEADER_BYTES as u64 })?);
        let mut header = [0; HEADER_BYTES];
        begun.read(&mut [IoSliceMut::new(&mut header)])?;
        let key = self.model.keys.key(index).ok_or(OpenModelError::UnknownUnit(index))?;
        let context = self.context.unit_context(index, run.unit.length);
        let opener = key.with_bytes(|key| Opener::new(key, &context, run.layout, &header));
        let opener = opener.map_err(|error| OpenModelError::Unit { unit: index, error })?;
        // Whoever was granted the unit may have sealed it anew: chunks of two messages don't make one.
        if run.header.is_some_and(|before| before != header) {
            run.restart();
        }
        if run.header.replace(header).is_none()
            && let Some(digest) = &mut run.digest
        {
            digest.hasher.update(&header);
        }
        if !from_start {
            *input = None;
            let from = run.layout.sealed_offset(run.chunk());
            *input = Some(read(from..run.sealed.end)?);
        }
        Ok(opener)
    }

    /// Compares the whole unit with what the publisher signed, where that was asked for.
    fn check_digest(&self, run: &Run<'_, '_>) -> Result<(), OpenModelError> {
        let Some(digest) = &run.digest else { return Ok(()) };
        let index = run.segment.unit;
        let signed = self.model.manifest.sealed(index).ok_or(OpenModelError::UnknownUnit(index))?;
        // blake3's own comparison, in constant time.
        if digest.hasher.finalize() == *signed.blake3.as_bytes() { Ok(()) } else { Err(OpenModelError::Digest(index)) }
    }
}

enum Outcome {
    Passed,
    /// Another thread met an error.
    Stopped,
}

/// How far a segment has come.
struct Run<'u, 'm> {
    segment: Segment<'m>,
    unit: &'u PlanUnit,
    layout: Layout,
    /// Its range of the sealed unit, header included where it is the first.
    sealed: Range<u64>,
    /// Bytes of plaintext that passed.
    passed: usize,
    /// And of how many somebody was told: not fewer, after a new start.
    told: usize,
    /// The header of the message that they are of.
    header: Option<[u8; HEADER_BYTES]>,
    /// Where the whole unit is compared with what the publisher signed.
    digest: Option<Digest>,
}

impl Run<'_, '_> {
    /// The chunk that is next: pieces but the last have whole chunks.
    fn chunk(&self) -> u64 {
        self.segment.first + (self.passed / CHUNK_BYTES) as u64
    }

    fn restart(&mut self) {
        (self.passed, self.header) = (0, None);
        if let Some(digest) = &mut self.digest {
            digest.hasher.reset();
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
