//! What loads and seals are measured against: the same work on the same memory and the same threads, without format, keys
//! or files of a model; and one batch of theirs alone. Nothing here is used by a keeper or an agent: `examples/data_path.rs`
//! and `benches/data.rs` are its callers.

use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use ring::digest::{Context, SHA256};
use rustix::fs::{Mode, OFlags};

use crate::aead::{Aead, Bulk, NONCE_BYTES, Refused, TAG_BYTES};
use crate::container::{BATCH_CHUNKS, CHUNK_BYTES, Layout, OpenError, Opener, SEALED_CHUNK_BYTES, Sealer};
use crate::region::{FileMapping, RegionError, prefault};

const KEY: [u8; 32] = [7; 32];
/// Chunks that a thread takes at a time: 2 MiB.
const PIECE_CHUNKS: usize = 128;
const PIECE_BYTES: usize = PIECE_CHUNKS * CHUNK_BYTES;
const PAGE_BYTES: usize = 4096;
/// Plaintext that is hashed and written as one file.
const RUN_BYTES: u64 = 64 << 20;

/// Sealed chunks, each with its tag behind it, in a mapped file that has no name: where a load reads them, too.
pub struct SealedChunks(FileMapping);

impl SealedChunks {
    /// Of `bytes` plaintext bytes, rounded up to chunks. Nothing is at `place` before or afterwards.
    ///
    /// # Errors
    /// The file can't be made or has no room.
    pub fn new(place: &Path, bytes: u64, threads: usize) -> io::Result<Self> {
        let (_, mut mapping) = fresh(place, bytes.div_ceil(CHUNK_BYTES as u64) * SEALED_CHUNK_BYTES as u64)?;
        std::fs::remove_file(place)?;
        each(mapping.bytes_mut().chunks_mut(PIECE_CHUNKS * SEALED_CHUNK_BYTES), threads, |piece| {
            prefault(piece).map_err(memory)?;
            let aead = Bulk::new(&KEY);
            for sealed in piece.chunks_mut(SEALED_CHUNK_BYTES) {
                let (chunk, place) = sealed.split_at_mut(CHUNK_BYTES);
                place.copy_from_slice(&aead.seal([0; NONCE_BYTES], chunk).map_err(refused)?);
            }
            Ok(())
        })?;
        Ok(Self(mapping))
    }

    /// The bare loop of a load: each chunk is copied to its place in a fresh file at `place` and opened there while it is
    /// hot.
    ///
    /// # Errors
    /// The file can't be made or has no room.
    pub fn open(&mut self, place: &Path, threads: usize) -> io::Result<()> {
        let sealed: &[u8] = self.0.bytes_mut();
        let (_, mut mapping) = fresh(place, (sealed.len() / SEALED_CHUNK_BYTES * CHUNK_BYTES) as u64)?;
        let pieces = mapping.bytes_mut().chunks_mut(PIECE_BYTES).zip(sealed.chunks(PIECE_CHUNKS * SEALED_CHUNK_BYTES));
        each(pieces, threads, |(piece, sealed)| {
            prefault(piece).map_err(memory)?;
            let aead = Bulk::new(&KEY);
            for (chunk, sealed) in piece.chunks_mut(CHUNK_BYTES).zip(sealed.chunks(SEALED_CHUNK_BYTES)) {
                let (from, tag) = sealed.split_at(CHUNK_BYTES);
                chunk.copy_from_slice(from);
                let tag = tag.try_into().map_err(io::Error::other)?;
                aead.open([0; NONCE_BYTES], chunk, tag).map_err(refused)?;
            }
            Ok(())
        })
    }
}

/// What a load brings to its place and opens at a time, as a message of its own: 16 chunks, 256 KiB.
pub struct Batch {
    sealer: Sealer,
    opener: Opener,
    plain: Vec<u8>,
    sealed: Vec<u8>,
}

impl Batch {
    /// Plaintext bytes of a batch. Its message is a byte longer, so that the batch has no short chunk.
    pub const BYTES: usize = BATCH_CHUNKS * CHUNK_BYTES;

    /// Of zeros, sealed.
    ///
    /// # Errors
    /// No memory or randomness for its key.
    pub fn new() -> Result<Self, OpenError> {
        let (bytes, rng) = (Self::BYTES as u64 + 1, ring::rand::SystemRandom::new());
        let (sealer, header) = Sealer::new(&KEY, b"batch", bytes, &rng)?;
        let opener = Opener::new(&KEY, b"batch", Layout::of_plaintext(bytes)?, &header)?;
        let (plain, sealed) = (vec![0; Self::BYTES], vec![0; BATCH_CHUNKS * SEALED_CHUNK_BYTES]);
        let mut batch = Self { sealer, opener, plain, sealed };
        batch.seal()?;
        Ok(batch)
    }

    /// Seals it again, the same bytes under the same key.
    ///
    /// # Errors
    /// None that can be met.
    pub fn seal(&mut self) -> Result<(), OpenError> {
        self.sealer.seal_piece::<Bulk>(0, &self.plain, &mut self.sealed)
    }

    /// Opens it as a load does: brought to its place, and opened there.
    ///
    /// # Errors
    /// None that can be met: it is as it was sealed.
    pub fn open(&mut self) -> Result<(), OpenError> {
        let sealed = &self.sealed;
        self.opener.open_in_place::<Bulk, _>(
            0,
            &mut self.plain,
            |error| error,
            |batch, tags| {
                let parts = batch.chunks_mut(CHUNK_BYTES).zip(tags).zip(sealed.chunks(SEALED_CHUNK_BYTES));
                for ((chunk, place), sealed) in parts {
                    let (from, tag) = sealed.split_at(CHUNK_BYTES);
                    chunk.copy_from_slice(from);
                    place.copy_from_slice(tag);
                }
                Ok(())
            },
        )
    }
}

/// The bare loop of a seal: read, seal, both hashes, write and sync, in runs of 64 MiB.
///
/// # Errors
/// A file can't be read or written.
pub fn seal_loop(sources: &[&Path], into: &Path, threads: usize) -> io::Result<()> {
    let mut runs = Vec::new();
    for source in sources {
        let length = source.metadata()?.len();
        runs.extend((0..length).step_by(RUN_BYTES as usize).map(|at| (*source, at, length.min(at + RUN_BYTES))));
    }
    each(runs.into_iter().enumerate(), threads, |(number, (source, mut at, end))| {
        let (input, mut output) = (File::open(source)?, File::create_new(into.join(number.to_string()))?);
        let (mut plain, mut sealed) = (vec![0; PIECE_BYTES], vec![0; PIECE_CHUNKS * SEALED_CHUNK_BYTES]);
        let (aead, mut sha256, mut blake3) = (Bulk::new(&KEY), Context::new(&SHA256), blake3::Hasher::new());
        while at < end {
            let plain = &mut plain[..(end - at).min(PIECE_BYTES as u64) as usize];
            input.read_exact_at(plain, at)?;
            for (chunk, sealed) in plain.chunks(CHUNK_BYTES).zip(sealed.chunks_mut(SEALED_CHUNK_BYTES)) {
                let (to, tag) = sealed.split_at_mut(chunk.len());
                to.copy_from_slice(chunk);
                tag[..TAG_BYTES].copy_from_slice(&aead.seal([0; NONCE_BYTES], to).map_err(refused)?);
            }
            let written = &sealed[..plain.len() + plain.len().div_ceil(CHUNK_BYTES) * TAG_BYTES];
            sha256.update(written);
            blake3.update(written);
            output.write_all(written)?;
            at += plain.len() as u64;
        }
        std::hint::black_box((sha256.finish(), blake3.finalize()));
        output.sync_all()
    })
}

/// Reads files around the page cache, 1 MiB at a time, as a disk can at best: so many threads at once.
///
/// # Errors
/// A file can't be read so.
pub fn read_direct(sources: &[PathBuf], threads: usize) -> io::Result<()> {
    each(sources.iter(), threads, |source| {
        let file = rustix::fs::open(source, OFlags::RDONLY | OFlags::DIRECT | OFlags::CLOEXEC, Mode::empty())?;
        let mut memory = vec![0; (1 << 20) + PAGE_BYTES];
        let aligned = memory.as_ptr().align_offset(PAGE_BYTES);
        let mut at = 0;
        loop {
            match rustix::io::pread(&file, &mut memory[aligned..aligned + (1 << 20)], at)? {
                read @ 1.. if read.is_multiple_of(PAGE_BYTES) => at += read as u64,
                _ => return Ok(()),
            }
        }
    })
}

/// As much memory of a file system as a measurement will use, used and given back. In a virtual machine, memory that was
/// given back to the host costs ten times as much at its next first use.
///
/// # Errors
/// There is not so much.
pub fn warm(place: &Path, bytes: u64) -> io::Result<()> {
    let (_, mut mapping) = fresh(place, bytes)?;
    let touched = prefault(mapping.bytes_mut());
    std::fs::remove_file(place)?;
    touched.map_err(memory)
}

fn fresh(place: &Path, bytes: u64) -> io::Result<(File, FileMapping)> {
    let file = File::options().read(true).write(true).create_new(true).open(place)?;
    file.set_len(bytes)?;
    let mapping = FileMapping::new(&file, bytes, true).map_err(memory)?;
    Ok((file, mapping))
}

/// Shares `work` among threads: whoever is done takes the next.
fn each<T: Send>(
    work: impl Iterator<Item = T> + Send,
    threads: usize,
    act: impl Fn(T) -> io::Result<()> + Sync,
) -> io::Result<()> {
    let queue = Mutex::new(work);
    let next = || queue.lock().ok().and_then(|mut queue| queue.next());
    let run = || std::iter::from_fn(next).try_for_each(&act);
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads.max(1)).map(|_| scope.spawn(run)).collect();
        let mut joined = workers.into_iter().map(|worker| worker.join());
        joined.try_for_each(|done| done.unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
    })
}

fn refused(_: Refused) -> io::Error {
    io::Error::other("AES-GCM refused a chunk")
}

fn memory(error: RegionError) -> io::Error {
    io::Error::other(error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_loops_do_what_they_are_measured_for() {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        let length = 3 * PIECE_BYTES + CHUNK_BYTES;
        let mut sealed = SealedChunks::new(&path("chunks"), length as u64, 2).unwrap();
        sealed.open(&path("opened"), 2).unwrap();
        assert!(std::fs::read(path("opened")).unwrap() == vec![0; length], "the chunks were zeros");

        std::fs::create_dir(path("sealed")).unwrap();
        seal_loop(&[&path("opened")], &path("sealed"), 2).unwrap();
        assert!(std::fs::read(path("sealed/0")).unwrap() == sealed.0.bytes_mut());
        sealed.0.bytes_mut()[SEALED_CHUNK_BYTES] ^= 1;
        assert!(sealed.open(&path("damaged"), 2).is_err());
    }

    #[test]
    fn a_batch_opens_to_what_was_sealed() {
        let mut batch = Batch::new().unwrap();
        batch.plain.fill(7);
        batch.seal().unwrap();
        batch.plain.fill(0);
        batch.open().unwrap();
        assert!(batch.plain == vec![7; Batch::BYTES]);
        batch.sealed[Batch::BYTES] ^= 1;
        assert_eq!(batch.open(), Err(OpenError::Chunk(15)));
    }
}
