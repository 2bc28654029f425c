//! A wiped key is gone: after use no half of any key is left anywhere in the memory of this process.
//!
//! The test knows the keys only masked, so that it does not find itself.

use std::fs::File;
use std::os::unix::fs::FileExt;

use attestation::{LeaseKey, Sha256Digest, UnitSet};
use ledger::manifest::{Selection, unit_path};
use ring::rand::SystemRandom;

use crate::aead::{Aead, Bulk, Small};
use crate::container::{CHUNK_BYTES, note_message_key, open_message, seal_message};
use crate::derive::{KeeperContext, ModelContext, RootSource, head_key};
use crate::open::{Destination, Directory, GrantedModel, LocalUnits, ReadBy};
use crate::place::{self, Facts};
use crate::record;
use crate::seal::{DirectoryTarget, SealRequest, SourceModel};
use crate::secret::{Dek, TpmSecret};
use crate::test_support::{example_grant, model_id, publisher};
use crate::unit_keys::UnitKeys;
use crate::vault_keys::VaultKeys;
use crate::wrap::{self, HpkeKeyPair};

const MASK: u8 = 0xa5;
const HALF: usize = 16;

/// Halves of keys, each byte XOR [`MASK`], with the name of the key.
#[derive(Default)]
pub(crate) struct Halves(Vec<(&'static str, [u8; HALF])>);

impl Halves {
    /// Byte by byte, so that no copy of the key is made on the way.
    pub(crate) fn note(&mut self, name: &'static str, key: &[u8]) {
        for half in key.chunks_exact(HALF) {
            let mut masked = [0; HALF];
            masked.iter_mut().zip(half).for_each(|(masked, byte)| *masked = byte ^ MASK);
            self.0.push((name, masked));
        }
    }

    /// The names of those that lie somewhere in memory that this process can write.
    pub(crate) fn found(&self) -> Vec<&'static str> {
        let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
        let memory = File::open("/proc/self/mem").unwrap();
        let mut found = Vec::new();
        let mut buffer = vec![0; 1 << 20];
        let own = buffer.as_ptr().addr() as u64..buffer.as_ptr().addr() as u64 + buffer.len() as u64;
        for line in maps.lines() {
            let mut fields = line.split_whitespace();
            let (range, access) = (fields.next().unwrap(), fields.next().unwrap());
            if !access.starts_with("rw") {
                continue;
            }
            let (from, to) = range.split_once('-').unwrap();
            let (mut at, to) = (u64::from_str_radix(from, 16).unwrap(), u64::from_str_radix(to, 16).unwrap());
            while at < to {
                if own.contains(&at) {
                    at = own.end;
                    continue;
                }
                let stop = if at < own.start { to.min(own.start) } else { to };
                let wanted = buffer.len().min((stop - at) as usize);
                let Ok(bytes) = memory.read_at(&mut buffer[..wanted], at) else { break };
                self.search(&buffer[..bytes], &mut found);
                if bytes < HALF {
                    break;
                }
                // Overlap, so that what lies across two reads is seen.
                at += if at + bytes as u64 == stop { bytes } else { bytes - HALF + 1 } as u64;
            }
        }
        buffer.fill(0);
        found
    }

    fn search(&self, bytes: &[u8], found: &mut Vec<&'static str>) {
        let mut starts = [false; 256];
        self.0.iter().for_each(|(_, half)| starts[usize::from(half[0] ^ MASK)] = true);
        for window in bytes.windows(HALF).filter(|window| starts[usize::from(window[0])]) {
            let same = |half: &[u8; HALF]| window.iter().zip(half).all(|(byte, masked)| byte ^ MASK == *masked);
            found.extend(self.0.iter().filter(|(_, half)| same(half)).map(|(name, _)| *name));
        }
    }
}

#[test]
fn no_key_is_left_in_memory() {
    let mut halves = Halves::default();
    use_every_key(&mut halves);
    let left = halves.found();
    assert!(left.is_empty(), "left in memory: {left:?}");
}

#[test]
fn the_search_finds_a_key_that_is_there() {
    let rng = SystemRandom::new();
    let mut halves = Halves::default();
    let dek = Dek::generate(&rng).unwrap();
    dek.with_bytes(|dek| halves.note("dek", dek));
    assert_eq!(halves.found(), ["dek"; 4], "in locked memory, and nowhere else");
    // What the rest of this crate must not do: a copy on the heap that nobody wipes.
    let copy = dek.with_bytes(|dek| dek.to_vec());
    drop(dek);
    assert_eq!(halves.found(), ["dek"; 4]);
    drop(copy);
}

/// Without `stack::wiped` both libraries leave the key behind: were it not so, the test above would prove nothing.
#[test]
fn the_search_finds_what_a_library_leaves_on_the_stack() {
    let rng = SystemRandom::new();
    let mut halves = Halves::default();
    let key = crate::secret::Kek::generate(&rng).unwrap();
    key.with_bytes(|key| halves.note("key", key));
    key.with_bytes(|key| std::hint::black_box(Bulk::new(key)).seal([0; 12], &mut [0; 100])).unwrap();
    drop(key);
    assert!(!halves.found().is_empty());
}

/// Everything a keeper, a publisher and an agent do with keys.
#[inline(never)]
fn use_every_key(halves: &mut Halves) {
    let rng = SystemRandom::new();
    let secret = TpmSecret::generate(&rng).unwrap();
    secret.with_bytes(|bytes| halves.note("tpm secret", bytes));
    let root = RootSource::Tpm(&secret).root().unwrap();
    root.with_bytes(|bytes| halves.note("root", bytes));
    let head = head_key(&root).unwrap();
    head.with_bytes(|bytes| halves.note("head key", bytes));
    record::seal_head(&head, b"{}", &rng).unwrap();

    let context = KeeperContext { instance: [1; 32], core: Sha256Digest::of(b"core") };
    let vault = VaultKeys::derive(&root, &context).unwrap();
    vault.note_secrets(&mut |name, bytes| halves.note(name, bytes));
    vault.sign_identity(b"message").unwrap();
    vault.sign_log(b"message").unwrap();

    let id = model_id("minilm", "1");
    let context = ModelContext { id: &id, plan: Sha256Digest::of(b"plan") };
    let dek = Dek::generate(&rng).unwrap();
    dek.with_bytes(|bytes| halves.note("dek", bytes));
    let wrapped = wrap::wrap_dek(vault.wrap_key(), context, &dek, &rng).unwrap();
    let dek = vault.unwrap_dek(context, &wrapped).unwrap();
    let record = record::seal_dek((vault.kek(), 1), id.vault, context.plan, &dek, &rng).unwrap();
    let dek = record::open_dek((vault.kek(), 1), id.vault, context.plan, &record).unwrap();

    let units = UnitSet::try_from(vec![0, 1, 2]).unwrap();
    let keys = UnitKeys::derive(&dek, context, units.clone()).unwrap();
    keys.with_bytes(|bytes| halves.note("unit keys", bytes));
    let pair = HpkeKeyPair::generate(&rng).unwrap();
    pair.note_secrets(&mut |name, bytes| halves.note(name, bytes));
    let lease_key = LeaseKey::try_from([9; 32].as_slice()).unwrap();
    let info = example_grant(&units, &lease_key);
    let wrapped = wrap::wrap_unit_keys(pair.public_key(), &info, &keys, &rng).unwrap();
    let keys = wrap::unwrap_unit_keys(pair, &info, &wrapped).unwrap();
    seal_and_open(halves, &vault);
    keys.key(1).unwrap().with_bytes(|key| {
        let plain = vec![7; 3 * CHUNK_BYTES];
        let sealed = seal_message::<Bulk>(key, b"context", &plain, &rng).unwrap();
        open_message::<Bulk>(key, b"context", &sealed, &mut plain.clone()).unwrap();
        open_message::<Small>(key, b"context", &sealed, &mut plain.clone()).unwrap();
        note_message_key(key, b"context", &sealed, &mut |name, bytes| halves.note(name, bytes));
    });
}

/// A model sealed by one side and opened by the other, each with threads of its own.
fn seal_and_open(halves: &mut Halves, vault: &VaultKeys) {
    let rng = SystemRandom::new();
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name);
    std::fs::create_dir(path("source")).unwrap();
    for name in ["a", "b", "c"] {
        std::fs::write(path("source").join(name), vec![7; 40_000]).unwrap();
    }
    let publisher = publisher(&rng);
    let request = SealRequest {
        vault: Sha256Digest::of(b"vault"),
        wrap_key: vault.wrap_key(),
        model: "minilm".try_into().unwrap(),
        version: "1".try_into().unwrap(),
        publisher: &publisher,
        threads: 2,
    };
    let source = SourceModel::scan(&path("source"), &ledger::safetensors::layer_group).unwrap();
    let target = DirectoryTarget::begin(&path("sealed")).unwrap();
    let manifest = request.seal(&source, target, &rng, &|_| {}).unwrap();

    let context = ModelContext::from(&manifest);
    let dek = vault.unwrap_dek(context, &std::fs::read(path("sealed/dek.hpke")).unwrap()).unwrap();
    dek.with_bytes(|bytes| halves.note("dek of a model", bytes));
    let keys = UnitKeys::derive(&dek, context, manifest.select(&Selection::All).unwrap()).unwrap();
    keys.with_bytes(|bytes| halves.note("unit keys of a model", bytes));
    for (index, unit) in (0..).zip(manifest.units()) {
        let sealed = std::fs::read(path("sealed").join(unit_path(index))).unwrap();
        let context = context.unit_context(index, unit.length);
        let note = &mut |name, bytes: &[u8]| halves.note(name, bytes);
        keys.key(index).unwrap().with_bytes(|key| note_message_key(key, &context, &sealed, note));
    }
    for verify_units in [false, true] {
        let place = place::judge(&Facts::gather(directory.path()).unwrap(), 1, true).unwrap();
        let destination = Destination::new(Directory::make(&path("opened")).unwrap(), place).unwrap();
        let units = LocalUnits::new(&path("sealed"), &manifest, ReadBy::Probe).unwrap();
        let model = GrantedModel { manifest: &manifest, keys: &keys, verify_units };
        model.open(&units, destination, 2, &|_| {}).unwrap().wipe().unwrap();
    }
}
