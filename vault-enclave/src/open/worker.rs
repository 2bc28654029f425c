//! The threads that open segments.

use std::collections::HashMap;
use std::io::{self, IoSliceMut, Read};
use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use ledger::manifest::PlanUnit;

use super::work::{Opened, Segment, Work};
use super::{GrantedModel, OpenModelError, UnitSource};
use crate::aead::{Bulk, TAG_BYTES};
use crate::container::{BATCH_CHUNKS, CHUNK_BYTES, HEADER_BYTES, Layout, Opener};
use crate::derive::ModelContext;
use crate::region::prefault;
use crate::tree_hash::PartHasher;

/// Chunks whose memory is had, and whose cipher is made, at a time: 2 MiB, a huge page.
const PIECE_CHUNKS: usize = 128;
/// How often header and chunks are asked for again where they come from two places, as one of them failed meanwhile. More than
/// there are places changes nothing.
const PLACES_TRIED_MAX: u32 = 8;

/// What all threads share.
pub(super) struct Shared<'a, S> {
    model: &'a GrantedModel<'a>,
    context: ModelContext<'a>,
    source: &'a S,
    progress: &'a (dyn Fn(u64) + Sync),
    passed: &'a (dyn Fn(Segment<'_>) + Sync),
    headers: KnownHeaders,
    stop: AtomicBool,
}

impl<'a, S: UnitSource> Shared<'a, S> {
    pub(super) fn new(model: &'a GrantedModel<'a>, source: &'a S, progress: &'a (dyn Fn(u64) + Sync)) -> Self {
        let (headers, stop) = (KnownHeaders::default(), AtomicBool::new(false));
        Self { model, context: model.manifest.into(), source, progress, passed: &|_| {}, headers, stop }
    }

    /// The same, giving each segment of which every chunk has passed to `passed`, from the thread that opened it.
    pub(super) fn handing(self, passed: &'a (dyn Fn(Segment<'_>) + Sync)) -> Self {
        Self { passed, ..self }
    }

    /// Opens every segment, or returns the first error that a thread met.
    pub(super) fn open_all(&self, segments: Vec<Segment<'_>>, threads: usize) -> Result<(), OpenModelError> {
        let threads = threads.clamp(1, segments.len().max(1));
        let work = Mutex::new(Work::new(segments));
        // A poisoned lock means that a thread panicked, which the scope passes on.
        let next = || work.lock().ok().and_then(|mut work| work.next());
        let run = || {
            let mut buffer = Vec::new();
            while !self.stop.load(Ordering::Relaxed)
                && let Some(segment) = next()
            {
                let opened = self.open(segment, &mut buffer);
                let passed = opened.and_then(|opened| opened.map_or(Ok(()), |opened| self.pass(opened, &work)));
                passed.inspect_err(|_| self.stop.store(true, Ordering::Relaxed))?;
            }
            Ok::<_, OpenModelError>(())
        };
        std::thread::scope(|scope| {
            let workers: Vec<_> = (0..threads).map(|_| scope.spawn(run)).collect();
            let joined = workers.into_iter().map(|worker| worker.join());
            let results: Vec<_> =
                joined.map(|done| done.unwrap_or_else(|panic| std::panic::resume_unwind(panic))).collect();
            results.into_iter().collect::<Result<(), _>>()
        })?;
        // Nothing is left; and were it, it would not pass for checked.
        let unchecked = work.into_inner().ok().and_then(|work| work.unchecked());
        unchecked.map_or(Ok(()), |unit| Err(OpenModelError::Digest(unit)))
    }

    /// Opens one segment, from wherever the source has it: what has passed is not read again. `None` where another thread met
    /// an error.
    fn open<'m>(&self, segment: Segment<'m>, buffer: &mut Vec<u8>) -> Result<Option<Opened<'m>>, OpenModelError> {
        let index = segment.unit;
        let unit = self.model.manifest.unit(index).ok_or(OpenModelError::UnknownUnit(index))?;
        let refused = |error| OpenModelError::Unit { unit: index, error };
        let layout = Layout::of_plaintext(unit.length).map_err(refused)?;
        let chunks = layout.piece_chunks(segment.first, segment.dest.len()).map_err(refused)? as u64;
        let start = if segment.first == 0 { 0 } else { layout.sealed_offset(segment.first) };
        let sealed = start..layout.sealed_offset(segment.first + chunks);
        let hasher = self.model.verify_units.then(|| PartHasher::new(sealed.clone()));
        let mut run = Run { segment, unit, layout, sealed, passed: 0, header: None, hasher };
        loop {
            let mut input = None;
            let error = match self.attempt(&mut run, &mut input, buffer) {
                Ok(Outcome::Passed) => return Ok(input.map(|input| run.end(self.source.place(&input.reader)))),
                Ok(Outcome::Stopped) => return Ok(None),
                Err(error) => error,
            };
            let elsewhere = |input: Input<S::Reader>| {
                let place = self.source.place(&input.reader);
                self.headers.forget(index, place);
                self.source.refused(index, place, &error)
            };
            if self.stop.load(Ordering::Relaxed) || !error.is_of_source() || !input.is_some_and(elsewhere) {
                return Err(error);
            }
        }
    }

    /// Takes a segment as passed: where units are hashed, with the last of its unit, and only if all together are what the
    /// publisher signed. Otherwise all of them are opened again from elsewhere.
    fn pass<'m>(&self, opened: Opened<'m>, work: &Mutex<Work<'m>>) -> Result<(), OpenModelError> {
        let index = opened.segment.unit;
        if !self.model.verify_units {
            self.source.passed(index, opened.sealed, opened.place);
            (self.passed)(opened.segment);
            return Ok(());
        }
        let Some(all) = work.lock().ok().and_then(|mut work| work.gather(opened)) else { return Ok(()) };
        let signed = self.model.manifest.sealed(index).ok_or(OpenModelError::UnknownUnit(index))?;
        if all.is_signed(signed) {
            for (range, place) in all.ranges() {
                self.source.passed(index, range, place);
            }
            all.into_segments().for_each(self.passed);
            return Ok(());
        }
        let error = OpenModelError::Digest(index);
        // Whichever place forged its part: one after the other is left out, those first that others were asked after.
        let first = all.ranges().map(|(_, place)| place).min().unwrap_or_default();
        self.headers.forget(index, first);
        if !self.source.refused(index, first, &error) {
            return Err(error);
        }
        // Threads that found nothing left to do have ended: it may take longer.
        if let Ok(mut work) = work.lock() {
            work.again(all);
        }
        Ok(())
    }

    /// Opens what did not pass yet from one reader, which stays in `input` where that fails.
    fn attempt(
        &self,
        run: &mut Run<'_, '_>,
        input: &mut Option<Input<S::Reader>>,
        buffer: &mut Vec<u8>,
    ) -> Result<Outcome, OpenModelError> {
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
            if let Some(hasher) = &mut run.hasher {
                // BLAKE3 wants long runs: chunk by chunk, with the tags between them, it is three times slower than
                // AES-GCM. So here ciphertext goes through a buffer, which stays in the cache.
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
            let told = &mut run.segment.told;
            if run.passed > *told {
                (self.progress)((run.passed - *told) as u64);
                *told = run.passed;
            }
        }
        Ok(Outcome::Passed)
    }

    /// Stands at the first chunk that did not pass yet, with the header of its message, whose commitment is checked.
    fn begin(&self, run: &mut Run<'_, '_>, input: &mut Option<Input<S::Reader>>) -> Result<Opener, OpenModelError> {
        let index = run.segment.unit;
        let header = self.header(run, input)?;
        // Whoever was granted the unit may have sealed it anew: chunks of two messages don't make one.
        if run.header.is_some_and(|before| before != header) {
            run.restart();
            return self.begin(run, input);
        }
        let key = self.model.keys.key(index).ok_or(OpenModelError::UnknownUnit(index))?;
        let context = self.context.unit_context(index, run.unit.length);
        let opener = key.with_bytes(|key| Opener::new(key, &context, run.layout, &header));
        let opener = opener.map_err(|error| OpenModelError::Unit { unit: index, error })?;
        if let Some(input) = input {
            self.headers.know(index, self.source.place(&input.reader), header);
        }
        if run.header.replace(header).is_none()
            && run.segment.first == 0
            && let Some(hasher) = &mut run.hasher
        {
            hasher.update(&header);
        }
        Ok(opener)
    }

    /// Begins to read at the first chunk that did not pass yet. The header stands before it, or is known from another segment of
    /// the unit, or is read beside it. It is of the place that the chunks come from: under that of another one they would not
    /// open, and a good place would be blamed for it.
    fn header(
        &self,
        run: &Run<'_, '_>,
        input: &mut Option<Input<S::Reader>>,
    ) -> Result<[u8; HEADER_BYTES], OpenModelError> {
        let (index, expected) = (run.segment.unit, run.layout.sealed_len());
        let read = |range: Range<u64>| {
            let at = range.start;
            let reader = self.source.read(index, range).map_err(|error| OpenModelError::source(index, error))?;
            Ok::<_, OpenModelError>(Input { reader, unit: index, expected, at })
        };
        if run.segment.first == 0 && run.passed == 0 {
            return input.insert(read(0..run.sealed.end)?).header();
        }
        let from = run.layout.sealed_offset(run.chunk());
        let mut tries = 0;
        loop {
            let place = self.source.place(&input.insert(read(from..run.sealed.end)?).reader);
            if let Some(header) = self.headers.of(index, place) {
                return Ok(header);
            }
            let mut beside = read(0..HEADER_BYTES as u64)?;
            tries += 1;
            if self.source.place(&beside.reader) == place || tries == PLACES_TRIED_MAX {
                return beside.header();
            }
        }
    }
}

/// Headers under which a segment began, by unit and by the place that they are of: 56 bytes need not be asked for by a call of
/// their own for each segment.
#[derive(Default)]
struct KnownHeaders(Mutex<HashMap<(u32, usize), [u8; HEADER_BYTES]>>);

impl KnownHeaders {
    fn of(&self, unit: u32, place: usize) -> Option<[u8; HEADER_BYTES]> {
        self.all().get(&(unit, place)).copied()
    }

    fn know(&self, unit: u32, place: usize, header: [u8; HEADER_BYTES]) {
        self.all().insert((unit, place), header);
    }

    /// What came from there did not pass: it may be of another message by now.
    fn forget(&self, unit: u32, place: usize) {
        self.all().remove(&(unit, place));
    }

    fn all(&self) -> MutexGuard<'_, HashMap<(u32, usize), [u8; HEADER_BYTES]>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

enum Outcome {
    Passed,
    /// Another thread met an error.
    Stopped,
}

/// How far a segment has come.
struct Run<'a, 'm> {
    segment: Segment<'m>,
    unit: &'a PlanUnit,
    layout: Layout,
    /// Its range of the sealed unit, header included where it is the first.
    sealed: Range<u64>,
    /// Bytes of plaintext that passed.
    passed: usize,
    /// The header of the message that they are of.
    header: Option<[u8; HEADER_BYTES]>,
    /// Where the unit is compared with what the publisher signed.
    hasher: Option<PartHasher>,
}

impl<'m> Run<'_, 'm> {
    /// The chunk that is next: pieces but the last have whole chunks.
    fn chunk(&self) -> u64 {
        self.segment.first + (self.passed / CHUNK_BYTES) as u64
    }

    fn restart(&mut self) {
        (self.passed, self.header) = (0, None);
        if let Some(hasher) = &mut self.hasher {
            *hasher = PartHasher::new(self.sealed.clone());
        }
    }

    /// All of it has been opened, the end of it from this place.
    fn end(self, place: usize) -> Opened<'m> {
        let Self { segment, sealed, header, hasher, .. } = self;
        Opened { segment, sealed, header, part: hasher.and_then(PartHasher::finish), place }
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

impl<R: Read> Input<R> {
    fn header(&mut self) -> Result<[u8; HEADER_BYTES], OpenModelError> {
        let mut header = [0; HEADER_BYTES];
        self.read(&mut [IoSliceMut::new(&mut header)])?;
        Ok(header)
    }

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
