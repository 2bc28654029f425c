//! Measures sealing and opening against the bare loop. By hand, on a quiet machine:
//!
//! ```text
//! WEIGHTVAULT_BENCH_DIR=/dev/shm WEIGHTVAULT_BENCH_MIB=2048 \
//!     cargo nextest run -p vault-enclave --release --run-ignored only --no-capture throughput
//! ```
//! The bare loop copies 16 KiB of sealed bytes to their place in a fresh mapped file and runs AES-GCM there, on the same
//! threads, without any format or key schedule. It seals where opening would: both cost the same.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::Instant;

use attestation::{LeaseKey, Sha256Digest, UnitSet};
use ledger::manifest::{Selection, unit_path};
use ring::rand::SystemRandom;

use crate::aead::{Aead, Bulk};
use crate::container::{CHUNK_BYTES, SEALED_CHUNK_BYTES};
use crate::derive::{KeeperContext, ModelContext, RootSource};
use crate::open::{Destination, GrantedModel, LocalUnits};
use crate::place::{self, Facts};
use crate::record;
use crate::region::{FileMapping, prefault};
use crate::seal::{DirectoryTarget, SealRequest, SourceModel};
use crate::secret::{Dek, TpmSecret};
use crate::test_support::{example_grant, model_id, publisher};
use crate::unit_keys::UnitKeys;
use crate::vault_keys::VaultKeys;
use crate::wrap::{HpkeKeyPair, unwrap_dek, wrap_unit_keys};

const LAYERS: usize = 8;
const THREADS: usize = 2;

#[test]
#[ignore = "measures; run it by hand on a quiet machine"]
fn throughput() {
    let megabytes: usize = variable("WEIGHTVAULT_BENCH_MIB").map_or(256, |text| text.parse().unwrap());
    let parent = variable("WEIGHTVAULT_BENCH_DIR").map_or_else(std::env::temp_dir, PathBuf::from);
    let directory = tempfile::tempdir_in(parent).unwrap();
    let path = |name: &str| directory.path().join(name);
    fs::create_dir(path("source")).unwrap();
    let source = path("source/model.safetensors");
    write_safetensors(&source, megabytes / LAYERS * 1024 * 1024);
    let bytes = fs::metadata(&source).unwrap().len();

    let rng = SystemRandom::new();
    let vault = HpkeKeyPair::generate(&rng).unwrap();
    let request = SealRequest {
        vault: Sha256Digest::of(b"vault"),
        wrap_key: vault.public_key(),
        model: "bench".try_into().unwrap(),
        version: "1".try_into().unwrap(),
        publisher: &publisher(&rng),
        threads: THREADS,
    };
    let scanned = SourceModel::scan(&path("source"), &ledger::safetensors::layer_group).unwrap();
    let seal = || request.seal(&scanned, DirectoryTarget::begin(&path("sealed")).unwrap(), &rng, &|_| {}).unwrap();
    let warm = || warm(&path("warm"), bytes);
    warm();
    let manifest = measured("seal", bytes, seal);
    let context = ModelContext::from(&manifest);
    let dek = unwrap_dek(&vault, context, &fs::read(path("sealed/dek.hpke")).unwrap()).unwrap();
    let keys = UnitKeys::derive(&dek, context, manifest.select(&Selection::All).unwrap()).unwrap();

    let units =
        (0..manifest.units().len() as u32).map(|index| fs::read(path("sealed").join(unit_path(index))).unwrap());
    let sealed = units.collect::<Vec<_>>().concat();
    for _ in 0..5 {
        warm();
        bare_loop(&path("bare"), &sealed, bytes);
        for verify_units in [false, true] {
            let model = GrantedModel { manifest: &manifest, keys: &keys, verify_units };
            let place = place::judge(&Facts::gather(directory.path()).unwrap(), bytes, true).unwrap();
            let units = LocalUnits::new(&path("sealed"), &manifest).unwrap();
            let destination = Destination::open(&path("opened"), place).unwrap();
            warm();
            let name = if verify_units { "open, units verified" } else { "open" };
            let opened = measured(name, bytes, || model.open(&units, destination, THREADS, &|_| {}).unwrap());
            measured("wipe", bytes, || opened.wipe().unwrap());
        }
        warm();
        measured("cp of the source, one thread", bytes, || fs::copy(&source, path("copied")).unwrap());
        fs::remove_file(path("copied")).unwrap();
    }
}

fn bare_loop(place: &Path, sealed: &[u8], bytes: u64) {
    let file = File::options().read(true).write(true).create_new(true).open(place).unwrap();
    file.set_len(bytes).unwrap();
    measured("bare loop", bytes, || {
        let mut mapping = FileMapping::new(&file, bytes, true).unwrap();
        let half = bytes as usize / THREADS / CHUNK_BYTES * CHUNK_BYTES;
        std::thread::scope(|scope| {
            for (index, part) in mapping.bytes_mut().chunks_mut(half.max(1)).enumerate() {
                let sealed = &sealed[index * half / CHUNK_BYTES * SEALED_CHUNK_BYTES..];
                scope.spawn(move || {
                    let aead = Bulk::new(&[7; 32]);
                    for (piece, sealed) in
                        part.chunks_mut(128 * CHUNK_BYTES).zip(sealed.chunks(128 * SEALED_CHUNK_BYTES))
                    {
                        prefault(piece).unwrap();
                        for (place, sealed) in piece.chunks_mut(CHUNK_BYTES).zip(sealed.chunks(SEALED_CHUNK_BYTES)) {
                            place.copy_from_slice(&sealed[..place.len()]);
                            aead.seal([0; 12], place).unwrap();
                        }
                    }
                });
            }
        });
    });
    fs::remove_file(place).unwrap();
}

/// In a virtual machine memory that was given back to the host costs ten times as much at its next first use: so as much
/// is used and freed right before each measurement.
fn warm(place: &Path, bytes: u64) {
    let file = File::options().read(true).write(true).create_new(true).open(place).unwrap();
    file.set_len(bytes).unwrap();
    prefault(FileMapping::new(&file, bytes, true).unwrap().bytes_mut()).unwrap();
    fs::remove_file(place).unwrap();
}

fn write_safetensors(path: &Path, layer: usize) {
    let tensor = |index: usize| {
        let (start, end) = (index * layer, (index + 1) * layer);
        format!("\"layers.{index}.w\":{{\"dtype\":\"U8\",\"shape\":[{layer}],\"data_offsets\":[{start},{end}]}}")
    };
    let header = format!("{{{}}}", (0..LAYERS).map(tensor).collect::<Vec<_>>().join(","));
    let mut file = (header.len() as u64).to_le_bytes().to_vec();
    file.extend_from_slice(header.as_bytes());
    file.extend((0..LAYERS * layer).map(|index| index as u8));
    fs::write(path, file).unwrap();
}

fn measured<R>(what: &str, bytes: u64, act: impl FnOnce() -> R) -> R {
    let (start, cpu, gigabytes) = (Instant::now(), cpu_seconds(), bytes as f64 / 1e9);
    let result = act();
    let (seconds, cpu) = (start.elapsed().as_secs_f64(), cpu_seconds() - cpu);
    eprintln!("{what:30} {:6.2} GB/s {:6.2} cpu-s/GB", gigabytes / seconds, cpu / gigabytes);
    result
}

/// Of all threads of this process: on a busy machine it says more than the time on the wall.
fn cpu_seconds() -> f64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    time.tv_sec as f64 + time.tv_nsec as f64 * 1e-9
}

fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

/// What a keeper computes for one release, apart from evidence and log.
#[test]
#[ignore = "measures; run it by hand on a quiet machine"]
fn release_operations() {
    let rng = SystemRandom::new();
    let root = RootSource::Tpm(&TpmSecret::generate(&rng).unwrap()).root().unwrap();
    let context = KeeperContext { instance: [1; 32], core: Sha256Digest::of(b"core") };
    let vault = VaultKeys::derive(&root, &context).unwrap();
    let id = model_id("bench", "1");
    let context = ModelContext { id: &id, plan: Sha256Digest::of(b"plan") };
    let record =
        record::seal_dek((vault.kek(), 1), id.vault, context.plan, &Dek::generate(&rng).unwrap(), &rng).unwrap();
    let agent = HpkeKeyPair::generate(&rng).unwrap();
    let lease_key = LeaseKey::try_from([9; 32].as_slice()).unwrap();

    let dek = milliseconds("open the DEK record", || {
        record::open_dek((vault.kek(), 1), id.vault, context.plan, &record).unwrap()
    });
    for count in [1, 200, 16_384] {
        let units = UnitSet::try_from((0..count).collect::<Vec<u32>>()).unwrap();
        let derive = || UnitKeys::derive(&dek, context, units.clone()).unwrap();
        let keys = milliseconds(&format!("derive {count} unit keys"), derive);
        let info = example_grant(&units, &lease_key);
        let wrap = || wrap_unit_keys(agent.public_key(), &info, &keys, &rng).unwrap();
        milliseconds(&format!("wrap {count} unit keys"), wrap);
    }
    milliseconds("sign a grant", || vault.sign_identity(b"message").unwrap());
    milliseconds("sign a checkpoint", || vault.sign_log(b"message").unwrap());
}

fn milliseconds<R>(what: &str, mut act: impl FnMut() -> R) -> R {
    const TIMES: u32 = 20;
    let cpu = cpu_seconds();
    (1..TIMES).for_each(|_| drop(act()));
    let result = act();
    eprintln!("{what:30} {:7.3} ms", (cpu_seconds() - cpu) * 1e3 / f64::from(TIMES));
    result
}
