//! The threads that seal units.

use std::io::Write;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use attestation::Sha256Digest;
use ledger::manifest::{Blake3Digest, PlanUnit, SealedDigests, unit_path};
use ring::digest::{Context, SHA256};
use ring::rand::SecureRandom;
use zeroize::Zeroizing;

use super::{SealError, SealTarget, SourceModel};
use crate::aead::{Bulk, TAG_BYTES};
use crate::container::{CHUNK_BYTES, SEALED_CHUNK_BYTES, Sealer};
use crate::derive::ModelContext;
use crate::unit_keys::UnitKeys;

/// Chunks that are read, sealed, hashed and written at a time: 2 MiB.
const PIECE_CHUNKS: usize = 128;
const PIECE_BYTES: usize = PIECE_CHUNKS * CHUNK_BYTES;

/// What all threads share.
pub(super) struct Worker<'a, T> {
    pub(super) source: &'a SourceModel,
    pub(super) context: ModelContext<'a>,
    pub(super) keys: &'a UnitKeys,
    pub(super) target: &'a T,
    pub(super) rng: &'a (dyn SecureRandom + Sync),
    pub(super) progress: &'a (dyn Fn(u64) + Sync),
}

/// Buffers of one thread.
struct Buffers {
    plain: Zeroizing<Vec<u8>>,
    sealed: Vec<u8>,
}

impl<T: SealTarget> Worker<'_, T> {
    /// Seals every unit, begun in the order of the plan, and returns their digests in that order.
    pub(super) fn seal_all(&self, threads: usize) -> Result<Vec<SealedDigests>, SealError> {
        let units = self.source.plan().units();
        let (next, stop) = (AtomicUsize::new(0), AtomicBool::new(false));
        let work = || {
            let mut buffers = Buffers {
                plain: Zeroizing::new(vec![0; PIECE_BYTES]),
                sealed: vec![0; PIECE_CHUNKS * SEALED_CHUNK_BYTES + TAG_BYTES],
            };
            let mut done = Vec::new();
            while !stop.load(Ordering::Relaxed) {
                let index = next.fetch_add(1, Ordering::Relaxed);
                let Some(unit) = units.get(index) else { break };
                let sealed = self.seal(index as u32, unit, &mut buffers);
                done.push((index, sealed.inspect_err(|_| stop.store(true, Ordering::Relaxed))?));
            }
            Ok(done)
        };
        let threads = threads.clamp(1, units.len());
        let mut done: Vec<(usize, SealedDigests)> = std::thread::scope(|scope| {
            let workers: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
            let joined = workers.into_iter().map(|worker| worker.join());
            let parts: Vec<_> =
                joined.map(|part| part.unwrap_or_else(|panic| std::panic::resume_unwind(panic))).collect();
            parts.into_iter().collect::<Result<Vec<_>, SealError>>().map(|parts| parts.concat())
        })?;
        done.sort_by_key(|(index, _)| *index);
        Ok(done.into_iter().map(|(_, digests)| digests).collect())
    }

    fn seal(&self, index: u32, unit: &PlanUnit, buffers: &mut Buffers) -> Result<SealedDigests, SealError> {
        let source = self.source.file(unit);
        let file = source.open()?;
        let failed = |error: std::io::Error| SealError::target(&unit_path(index), &error);
        let output = self.target.begin_unit(index, unit.sealed_len()).map_err(failed)?;
        let mut output = Hashed { output, sha256: Context::new(&SHA256), blake3: blake3::Hasher::new() };

        let key = self.keys.key(index).expect("the keys are of every unit of the plan");
        let context = self.context.unit_context(index, unit.length);
        let begun = key.with_bytes(|key| Sealer::new(key, &context, unit.length, self.rng));
        let (sealer, header) = begun.map_err(SealError::Seal)?;
        output.write(&header).map_err(failed)?;

        let mut at = 0;
        loop {
            let bytes = (unit.length - at).min(PIECE_BYTES as u64) as usize;
            let plain = &mut buffers.plain[..bytes];
            source.read(&file, plain, unit.offset + at)?;
            let last = at + bytes as u64 == unit.length;
            let tags = (bytes / CHUNK_BYTES + usize::from(last)) * TAG_BYTES;
            let sealed = &mut buffers.sealed[..bytes + tags];
            sealer.seal_piece::<Bulk>(at / CHUNK_BYTES as u64, plain, sealed).map_err(SealError::Seal)?;
            output.write(sealed).map_err(failed)?;
            (self.progress)(bytes as u64);
            at += bytes as u64;
            if last {
                break;
            }
        }
        source.check_unchanged(&file)?;
        let digests = output.digests();
        self.target.end_unit(index, output.output).map_err(failed)?;
        Ok(digests)
    }
}

/// Hashes what it writes.
struct Hashed<W> {
    output: W,
    sha256: Context,
    blake3: blake3::Hasher,
}

impl<W: Write> Hashed<W> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        self.sha256.update(bytes);
        self.blake3.update(bytes);
        self.output.write_all(bytes)
    }

    fn digests(&self) -> SealedDigests {
        let mut sha256 = [0; 32];
        sha256.copy_from_slice(self.sha256.clone().finish().as_ref());
        SealedDigests {
            sha256: Sha256Digest::from_bytes(sha256),
            blake3: Blake3Digest::from_bytes(*self.blake3.finalize().as_bytes()),
        }
    }
}
