//! A sealed model opens into exactly its source, or not at all.
#![allow(clippy::unwrap_used, reason = "a test says so by panicking")]

mod support;

use std::fs;
use std::io::{self, Read};
use std::ops::Range;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use ledger::manifest::{Manifest, unit_path};
use proptest::prelude::*;
use vault_enclave::container::OpenError;
use vault_enclave::open::{
    Destination, DestinationError, Directory, GrantedModel, LocalReader, LocalUnits, OpenModelError, ReadBy,
    SourceError, UnitSource,
};
use vault_enclave::place::{self, Facts, MountFacts};
use vault_enclave::unit_keys::UnitKeys;

use support::{World, files_of, is_empty, pattern, write_model};

/// Sealed once for all tests of this process.
struct Sealed {
    world: World,
    source: PathBuf,
    sealed: PathBuf,
    manifest: Manifest,
    keys: UnitKeys,
}

fn sealed() -> &'static Sealed {
    static SEALED: OnceLock<Sealed> = OnceLock::new();
    SEALED.get_or_init(|| {
        let world = World::new();
        let (source, sealed) = (world.path("source"), world.path("sealed"));
        write_model(&source);
        let manifest = world.seal(&source, "sealed").unwrap();
        let keys = world.grant_all(&manifest, &sealed);
        Sealed { world, source, sealed, manifest, keys }
    })
}

/// A copy of the sealed model in which `damage` changed something.
fn damaged(name: &str, damage: impl FnOnce(&Path)) -> PathBuf {
    let copy = sealed().world.path(name);
    fs::create_dir_all(copy.join("units")).unwrap();
    for (name, content) in files_of(&sealed().sealed) {
        fs::write(copy.join(name), content).unwrap();
    }
    damage(&copy);
    copy
}

/// Opens a damaged model with and without `verify_units`: neither leaves anything behind, and both say the same.
fn refusal(name: &str, damage: impl FnOnce(&Path)) -> OpenModelError {
    let Sealed { world, manifest, keys, .. } = sealed();
    let copy = damaged(name, damage);
    let refusals = [false, true].map(|verify_units| {
        let into = format!("{name}-opened-{verify_units}");
        let refused = world.open(manifest, &copy, keys, verify_units, &into).err().expect("refused");
        assert!(is_empty(&world.path(&into)), "something is left behind");
        refused
    });
    assert_eq!(refusals[0], refusals[1]);
    refusals[0].clone()
}

fn unit(directory: &Path, index: u32) -> PathBuf {
    directory.join(unit_path(index))
}

fn change(path: &Path, change: impl FnOnce(&mut Vec<u8>)) {
    let mut bytes = fs::read(path).unwrap();
    change(&mut bytes);
    fs::write(path, bytes).unwrap();
}

/// Index of the first unit of a group in a file.
fn index_of(file: &str, group: &str) -> u32 {
    let units = sealed().manifest.units();
    let found = units.iter().position(|unit| unit.file.as_str() == file && unit.group.as_str() == group);
    found.expect("there is one") as u32
}

#[test]
fn an_opened_model_is_the_source_byte_for_byte() {
    let Sealed { world, source, sealed, manifest, keys } = sealed();
    for verify_units in [false, true] {
        let into = format!("whole-{verify_units}");
        let opened = world.open(manifest, sealed, keys, verify_units, &into).unwrap();
        assert_eq!(files_of(&world.path(&into)), files_of(source));
        for (file, _) in files_of(source) {
            let mode = fs::metadata(world.path(&into).join(file)).unwrap().mode();
            assert_eq!(mode & 0o777, 0o400);
        }
        opened.wipe().unwrap();
        assert!(is_empty(&world.path(&into)));
    }
}

#[test]
fn a_model_that_is_read_around_the_page_cache_is_the_source_byte_for_byte() {
    let Sealed { world, source, sealed, manifest, keys } = sealed();
    let units = LocalUnits::new(sealed, manifest, ReadBy::Direct).unwrap();
    for verify_units in [false, true] {
        let opened = world.open_from(&units, manifest, keys, verify_units, "direct").unwrap();
        assert_eq!(files_of(&world.path("direct")), files_of(source));
        drop(opened);
    }
    let probed = LocalUnits::new(sealed, manifest, ReadBy::Probe).unwrap();
    assert!(units.is_direct() && !probed.is_direct(), "what was just sealed is in the page cache");
    let index = index_of("model-1.safetensors", "layer.0");
    let copy = damaged("direct-damaged", |copy| change(&unit(copy, index), |bytes| bytes[56 + 16_400] ^= 1));
    let units = LocalUnits::new(&copy, manifest, ReadBy::Direct).unwrap();
    let refused = world.open_from(&units, manifest, keys, false, "direct").err();
    assert_eq!(refused, Some(OpenModelError::Unit { unit: index, error: OpenError::Chunk(1) }));
    assert!(is_empty(&world.path("direct")));
}

#[test]
fn a_granted_set_does_not_open_other_units() {
    let Sealed { manifest, keys, .. } = sealed();
    assert_eq!(keys.units().len(), manifest.units().len());
    // Two manifests of other plans have other keys; a set that the manifest does not have is refused at once.
    let more: Vec<u32> = (0..manifest.units().len() as u32 + 1).collect();
    let keys = sealed().world.grant(manifest, &sealed().sealed, more.try_into().unwrap());
    let refused = sealed().world.open(manifest, &sealed().sealed, &keys, false, "more").err();
    assert_eq!(refused, Some(OpenModelError::UnknownUnit(manifest.units().len() as u32)));
}

#[test]
fn a_model_of_another_version_or_vault_does_not_open() {
    let Sealed { world, source, sealed, manifest, .. } = sealed();
    let other = World::new();
    let sealed_for_other = other.seal(source, "sealed").unwrap();
    let keys = other.grant_all(&sealed_for_other, &other.path("sealed"));
    let refused = world.open(manifest, sealed, &keys, false, "other").err();
    assert!(matches!(refused, Some(OpenModelError::Unit { error: OpenError::Commitment, .. })), "{refused:?}");
}

#[test]
fn a_cut_or_lengthened_unit_is_refused() {
    let index = index_of("model-1.safetensors", "layer.0");
    let length = fs::metadata(unit(&sealed().sealed, index)).unwrap().len();
    for (name, by) in [("cut", -1_i64), ("cut-chunk", -16_400), ("cut-all", -(length as i64)), ("longer", 1)] {
        let found = length.checked_add_signed(by).unwrap();
        let refused = refusal(name, |copy| change(&unit(copy, index), |bytes| bytes.resize(found as usize, 0)));
        assert_eq!(refused, OpenModelError::Length { unit: index, expected: length, found });
        assert_eq!(refused.code(), "sealed-length");
    }
}

#[test]
fn swapped_units_of_one_length_are_refused() {
    // layer.1 of one file and layer.2 of the other have the same length.
    let (a, b) = (index_of("model-1.safetensors", "layer.1"), index_of("model-2.safetensors", "layer.2"));
    let refused = refusal("swapped", |copy| {
        fs::rename(unit(copy, a), copy.join("a")).unwrap();
        fs::rename(unit(copy, b), unit(copy, a)).unwrap();
        fs::rename(copy.join("a"), unit(copy, b)).unwrap();
    });
    assert!(matches!(refused, OpenModelError::Unit { unit, error: OpenError::Commitment } if unit == a || unit == b));
    assert_eq!(refused.code(), "key-commitment");
}

#[test]
fn reordered_chunks_are_refused() {
    let index = index_of("model-1.safetensors", "layer.0");
    let refused = refusal("reordered", |copy| {
        change(&unit(copy, index), |bytes| {
            let (first, second) = bytes[56..56 + 2 * 16_400].split_at_mut(16_400);
            first.swap_with_slice(second);
        })
    });
    assert_eq!(refused, OpenModelError::Unit { unit: index, error: OpenError::Chunk(0) });
    assert_eq!(refused.code(), "chunk-refused");
}

#[test]
fn chunks_spliced_from_another_unit_are_refused() {
    let (a, b) = (index_of("model-1.safetensors", "layer.1"), index_of("model-2.safetensors", "layer.2"));
    let refused = refusal("spliced", |copy| {
        let other = fs::read(unit(copy, b)).unwrap();
        change(&unit(copy, a), |bytes| bytes[56 + 16_400..].copy_from_slice(&other[56 + 16_400..]))
    });
    assert_eq!(refused, OpenModelError::Unit { unit: a, error: OpenError::Chunk(1) });
}

#[test]
fn a_unit_of_the_same_model_sealed_again_is_refused() {
    let Sealed { world, source, .. } = sealed();
    world.seal(source, "again").unwrap();
    let index = index_of("config.json", "files");
    let refused = refusal("resealed", |copy| {
        fs::copy(unit(&world.path("again"), index), unit(copy, index)).unwrap();
    });
    assert_eq!(refused, OpenModelError::Unit { unit: index, error: OpenError::Commitment });
}

#[test]
fn a_unit_that_opens_but_was_not_signed_is_refused_where_units_are_verified() {
    let Sealed { world, sealed, manifest, keys, .. } = sealed();
    // Whoever has the key can seal other bytes for the same place. The keys do not depend on the digests in the
    // manifest, so a manifest with another digest shows the same.
    let index = index_of("config.json", "files");
    let mut digests: Vec<_> = (0..manifest.units().len() as u32).map(|i| *manifest.sealed(i).unwrap()).collect();
    digests[index as usize].blake3 = digests[index as usize + 1].blake3;
    let other = Manifest::build(manifest.id().clone(), manifest.plan().clone(), digests).unwrap();
    let refused = world.open(&other, sealed, keys, true, "unsigned").err();
    assert_eq!(refused, Some(OpenModelError::Digest(index)));
    assert!(is_empty(&world.path("unsigned")));
    assert!(world.open(&other, sealed, keys, false, "unsigned").is_ok());
}

#[test]
fn a_missing_unit_a_link_and_a_directory_in_its_place_are_refused() {
    let index = index_of("config.json", "files");
    let kind = |refused| match refused {
        OpenModelError::Source { unit, kind, .. } if unit == index => kind,
        other => panic!("{other:?}"),
    };
    assert_eq!(kind(refusal("missing", |copy| fs::remove_file(unit(copy, index)).unwrap())), io::ErrorKind::NotFound);
    let linked = refusal("linked", |copy| {
        fs::rename(unit(copy, index), copy.join("elsewhere")).unwrap();
        std::os::unix::fs::symlink(copy.join("elsewhere"), unit(copy, index)).unwrap();
    });
    // ELOOP: its kind has no stable name.
    assert_eq!(kind(linked), io::Error::from_raw_os_error(rustix::io::Errno::LOOP.raw_os_error()).kind());
    let directory = refusal("directory", |copy| {
        fs::remove_file(unit(copy, index)).unwrap();
        fs::create_dir(unit(copy, index)).unwrap();
    });
    assert_eq!(kind(directory), io::ErrorKind::Other);
}

#[test]
fn a_destination_that_is_not_empty_is_refused_and_left_alone() {
    let Sealed { world, sealed, manifest, keys, .. } = sealed();
    fs::create_dir(world.path("full")).unwrap();
    fs::write(world.path("full/precious"), b"mine").unwrap();
    let refused = world.open(manifest, sealed, keys, false, "full").err();
    assert_eq!(refused, Some(OpenModelError::Destination(DestinationError::NotEmpty)));
    assert_eq!(fs::read(world.path("full/precious")).unwrap(), b"mine");
}

#[test]
fn a_reader_of_a_wiped_file_reads_zeros() {
    let Sealed { world, sealed, manifest, keys, .. } = sealed();
    let opened = world.open(manifest, sealed, keys, false, "wiped").unwrap();
    let reader = fs::File::open(world.path("wiped/onnx/deep/model.bin")).unwrap();
    let mut bytes = vec![0; 100_000];
    reader.read_exact_at(&mut bytes, 0).unwrap();
    assert_eq!(bytes, pattern(100_000, 9));
    opened.wipe().unwrap();
    reader.read_exact_at(&mut bytes, 0).unwrap();
    assert_eq!(bytes, vec![0; 100_000]);
}

/// A place of which nothing is known that speaks against it.
fn roomy(directory: &Path) -> place::SafePlace {
    let facts = Facts::gather(directory).unwrap();
    let mount = MountFacts { free_bytes: None, ..facts.mount };
    let facts = Facts { mount, available_memory: u64::MAX, cgroup_memory: None, ..facts };
    place::judge(&facts, sealed().manifest.total_bytes(), true).unwrap()
}

/// Nobody is to ask it.
struct Untouched;

impl UnitSource for Untouched {
    type Reader = io::Empty;

    fn read(&self, unit: u32, _: Range<u64>) -> Result<io::Empty, SourceError> {
        panic!("unit {unit} is fetched though there is no room for it");
    }
}

#[test]
fn memory_that_is_too_small_is_found_before_anything_is_fetched() {
    let Sealed { world, manifest, keys, .. } = sealed();
    let at = world.path("small");
    fs::create_dir(&at).unwrap();
    // In a thread of its own, which alone gets the namespace.
    let mount = {
        let at = at.clone();
        move || {
            #[expect(deprecated, reason = "deprecated for UnshareFlags::FILES alone, which is not asked for here")]
            rustix::thread::unshare(rustix::thread::UnshareFlags::NEWNS)?;
            let private = rustix::mount::MountPropagationFlags::PRIVATE | rustix::mount::MountPropagationFlags::REC;
            rustix::mount::mount_change("/", private)?;
            rustix::mount::mount("small", &at, "tmpfs", rustix::mount::MountFlags::empty(), c"size=64k,mode=0700")
        }
    };
    let test = move || {
        if let Err(errno) = mount() {
            eprintln!("skipped: only root mounts: {errno}");
            return;
        }
        let destination = Destination::new(Directory::open(&at).unwrap(), roomy(&at)).unwrap();
        let model = GrantedModel { manifest, keys, verify_units: false };
        let refused = model.open(&Untouched, destination, 2, &|_| {}).map(drop).unwrap_err();
        assert!(matches!(refused, OpenModelError::Destination(DestinationError::NoRoom { .. })), "{refused}");
        assert_eq!(refused.code(), "destination-full");
        assert_eq!(fs::read_dir(&at).unwrap().count(), 0);
    };
    std::thread::spawn(test).join().unwrap();
}

#[test]
fn where_only_locks_keep_a_place_safe_the_pages_are_locked_until_the_model_is_wiped() {
    let Sealed { world, source, sealed, manifest, keys } = sealed();
    let mount = MountFacts {
        mount_point: "/mnt".to_owned(),
        filesystem: "tmpfs".to_owned(),
        noswap: false,
        huge: false,
        free_bytes: None,
    };
    let bytes = manifest.total_bytes();
    let swapping = Facts {
        mount,
        swap_is_on: true,
        cgroup_never_swaps: false,
        lockable_bytes: bytes,
        available_memory: bytes,
        cgroup_memory: None,
    };
    let place = place::judge(&swapping, bytes, false).unwrap();
    let destination = Destination::new(Directory::make(&world.path("locked")).unwrap(), place).unwrap();
    let before = locked_kilobytes();
    let model = GrantedModel { manifest, keys, verify_units: false };
    let opened =
        model.open(&LocalUnits::new(sealed, manifest, ReadBy::Probe).unwrap(), destination, 2, &|_| {}).unwrap();
    assert!(locked_kilobytes() >= before + bytes / 1024);
    assert_eq!(files_of(&world.path("locked")), files_of(source));
    opened.wipe().unwrap();
    assert!(locked_kilobytes() < before + bytes / 1024);
}

/// `VmLck` of this process: proc(5).
fn locked_kilobytes() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmLck:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

#[test]
fn a_unit_of_several_segments_opens_from_any_thread_and_is_checked_in_each() {
    const SEGMENT: u64 = 64 * 1024 * 1024;
    let world = World::new();
    fs::create_dir(world.path("big")).unwrap();
    let file = fs::File::create(world.path("big/model.bin")).unwrap();
    // Mostly a hole. The second segment ends with the message: its final chunk is empty.
    file.set_len(2 * SEGMENT).unwrap();
    for at in [0, SEGMENT - 3, 2 * SEGMENT - 6] {
        file.write_all_at(b"marked", at).unwrap();
    }
    let manifest = world.seal(&world.path("big"), "sealed").unwrap();
    let keys = world.grant_all(&manifest, &world.path("sealed"));
    let same = |into: &str| {
        let (a, b) = (fs::read(world.path("big/model.bin")).unwrap(), fs::read(world.path(into)).unwrap());
        assert!(a == b);
    };
    let opened = world.open(&manifest, &world.path("sealed"), &keys, false, "opened").unwrap();
    same("opened/model.bin");
    drop(opened);
    let first_of_second = SEGMENT / 16_384;
    change(&unit(&world.path("sealed"), 0), |bytes| bytes[56 + first_of_second as usize * 16_400] ^= 1);
    let refused = world.open(&manifest, &world.path("sealed"), &keys, false, "opened").err();
    assert_eq!(refused, Some(OpenModelError::Unit { unit: 0, error: OpenError::Chunk(first_of_second) }));
    assert!(is_empty(&world.path("opened")));
}

/// Delivers one byte at a time, ends early, fails, or looks at the destination meanwhile.
struct Slow<'a> {
    units: LocalUnits<'a>,
    ends_after: Option<u64>,
    destination: Option<PathBuf>,
}

struct Trickle(LocalReader, Option<u64>);

impl Read for Trickle {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let wanted = buffer.len().min(1000);
        match &mut self.1 {
            Some(0) => return Ok(0),
            Some(left) => *left = left.saturating_sub(wanted as u64),
            None => {}
        }
        self.0.read(&mut buffer[..wanted])
    }
}

impl UnitSource for Slow<'_> {
    type Reader = Trickle;

    fn read(&self, unit: u32, range: Range<u64>) -> Result<Trickle, SourceError> {
        for (_, mode) in self.destination.iter().flat_map(|directory| modes_of(directory)) {
            assert_eq!(mode & 0o777, 0, "a file can be read before everything passed");
        }
        Ok(Trickle(self.units.read(unit, range)?, self.ends_after))
    }
}

fn modes_of(directory: &Path) -> Vec<(String, u32)> {
    let files = files_of(directory).into_iter();
    files.map(|(name, _)| (name.clone(), fs::metadata(directory.join(name)).unwrap().mode())).collect()
}

#[test]
fn files_cannot_be_read_before_everything_passed_and_slow_sources_are_good_enough() {
    let Sealed { world, source, sealed, manifest, keys } = sealed();
    let units = LocalUnits::new(sealed, manifest, ReadBy::Probe).unwrap();
    let slow = Slow { units, ends_after: None, destination: Some(world.path("slow")) };
    let opened = world.open_from(&slow, manifest, keys, true, "slow").unwrap();
    assert_eq!(files_of(&world.path("slow")), files_of(source));
    drop(opened);
}

#[test]
fn a_source_that_ends_early_is_refused() {
    let Sealed { world, sealed, manifest, keys, .. } = sealed();
    let slow = Slow {
        units: LocalUnits::new(sealed, manifest, ReadBy::Probe).unwrap(),
        ends_after: Some(20_000),
        destination: None,
    };
    let refused = world.open_from(&slow, manifest, keys, false, "early").err().unwrap();
    assert!(matches!(refused, OpenModelError::Length { expected, found, .. } if found < expected), "{refused:?}");
    assert!(is_empty(&world.path("early")));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn a_sealed_model_with_any_bit_of_a_unit_flipped_does_not_open(
        which: prop::sample::Index, bit: prop::sample::Index, verify_units: bool, name: u64,
    ) {
        let Sealed { world, manifest, keys, .. } = sealed();
        let index = which.index(manifest.units().len()) as u32;
        let name = format!("flipped-{name:x}");
        let copy = damaged(&name, |copy| {
            change(&unit(copy, index), |bytes| {
                let bit = bit.index(bytes.len() * 8);
                bytes[bit / 8] ^= 1 << (bit % 8);
            })
        });
        let into = format!("{name}-opened");
        let refused = world.open(manifest, &copy, keys, verify_units, &into).err();
        let expected = matches!(
            refused,
            Some(OpenModelError::Unit { unit, error: OpenError::Commitment | OpenError::Chunk(_) }) if unit == index
        );
        prop_assert!(expected, "{:?}", refused);
        prop_assert!(is_empty(&world.path(&into)));
    }
}
