//! What a publisher can and cannot seal.
#![allow(clippy::unwrap_used, reason = "a test says so by panicking")]

mod support;

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use attestation::Sha256Digest;
use ledger::manifest::{Manifest, ManifestError, PathError};
use ledger::model_signature;
use vault_enclave::seal::{DirectoryTarget, SealError, SealTarget, SealedDocuments, SourceError, SourceModel};

use support::{World, files_of, is_empty, safetensors, write_model};

/// What scanning a directory with this in it is refused for.
fn refusal(fill: impl FnOnce(&Path)) -> SourceError {
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join("config.json"), b"{}").unwrap();
    fill(directory.path());
    match SourceModel::scan(directory.path(), &ledger::safetensors::layer_group).err() {
        Some(SealError::Source { error, .. }) => error,
        other => panic!("{other:?}"),
    }
}

#[test]
fn more_files_than_a_model_may_have_are_refused() {
    let empty = |root: &Path, count: usize| (0..count).for_each(|n| fs::write(root.join(n.to_string()), b"").unwrap());
    // Beside config.json.
    assert_eq!(refusal(|root| empty(root, ledger::manifest::UNITS_MAX)), SourceError::TooManyFiles);
    let directory = tempfile::tempdir().unwrap();
    empty(directory.path(), ledger::manifest::UNITS_MAX);
    SourceModel::scan(directory.path(), &ledger::safetensors::layer_group).map(drop).unwrap();
}

#[test]
fn a_sealed_directory_has_exactly_the_signed_files_and_their_digests() {
    let world = World::new();
    write_model(&world.path("source"));
    let manifest = world.seal(&world.path("source"), "sealed").unwrap();
    let files = files_of(&world.path("sealed"));
    assert_eq!(Manifest::parse(&fs::read(world.path("sealed/manifest.json")).unwrap()).unwrap(), manifest);

    let signed: BTreeMap<String, Sha256Digest> = files
        .iter()
        .filter(|(name, _)| name != "model.sig")
        .map(|(name, content)| (name.clone(), Sha256Digest::of(content)))
        .collect();
    let bundle = fs::read(world.path("sealed/model.sig")).unwrap();
    model_signature::verify(&bundle, world.publisher.public_key(), &signed).unwrap();
    assert_eq!(manifest.id().publisher, world.publisher.public_key().digest());

    for (index, unit) in (0..).zip(manifest.units()) {
        let (_, content) = files.iter().find(|(name, _)| *name == ledger::manifest::unit_path(index)).unwrap();
        let digests = manifest.sealed(index).unwrap();
        assert_eq!(content.len() as u64, unit.sealed_len());
        assert_eq!(digests.sha256, Sha256Digest::of(content));
        assert_eq!(digests.blake3.as_bytes(), blake3::hash(content).as_bytes());
    }
}

#[test]
fn a_file_that_is_a_group_as_a_whole_has_no_other_group_but_that_of_headers() {
    let directory = tempfile::tempdir().unwrap();
    let adapter = directory.path().join("adapters/acme");
    fs::create_dir_all(&adapter).unwrap();
    write_model(&adapter);
    fs::write(directory.path().join("config.json"), b"{}").unwrap();
    let scan = |group: &'static str| {
        let whole = move |path: &str| path.starts_with("adapters/acme/").then(|| group.to_owned());
        SourceModel::scan_files(directory.path(), &ledger::safetensors::layer_group, &whole)
    };
    let source = scan("lora.acme").unwrap();
    let (mut tensors, mut others) = (0, 0);
    for unit in source.plan().units() {
        let is_adapter = unit.file.as_str().starts_with("adapters/acme/");
        let is_header = unit.file.as_str().ends_with(".safetensors") && unit.offset == 0;
        match (is_adapter, is_header) {
            (true, true) => assert_eq!(unit.group.as_str(), "header"),
            (true, false) => {
                assert_eq!(unit.group.as_str(), "lora.acme");
                if unit.file.as_str().ends_with(".safetensors") { tensors += 1 } else { others += 1 }
            }
            // And what is beside it.
            (false, _) => assert_eq!(unit.group.as_str(), "files"),
        }
    }
    assert!(tensors > 0 && others > 0, "{tensors}, {others}");
    for (group, code) in [("lora acme", "bad-group"), ("", "bad-group"), ("header", "source-reserved-group")] {
        assert_eq!(scan(group).err().map(|error| error.code()), Some(code), "{group:?}");
    }
    let weights = |path: &str| path.ends_with(".safetensors").then(|| "header".to_owned());
    let refused = SourceModel::scan_files(directory.path(), &ledger::safetensors::layer_group, &weights).err();
    assert_eq!(refused.map(|error| error.code()), Some("safetensors-reserved-group"));
}

#[test]
fn tensors_are_cut_by_layer_and_other_files_are_whole() {
    let world = World::new();
    write_model(&world.path("source"));
    let source = SourceModel::scan(&world.path("source"), &ledger::safetensors::layer_group).unwrap();
    let units: Vec<_> =
        source.plan().units().iter().map(|unit| (unit.file.as_str(), unit.group.as_str(), unit.length)).collect();
    let layer = support::LAYER_BYTES as u64;
    assert_eq!(units[0], ("config.json", "files", 13));
    assert_eq!(units[1], ("empty", "files", 0));
    assert_eq!((units[2].0, units[2].1), ("model-1.safetensors", "header"));
    assert_eq!(units[3], ("model-1.safetensors", "other", layer));
    assert_eq!(units[4], ("model-1.safetensors", "layer.0", 2 * layer));
    assert_eq!(units[5], ("model-1.safetensors", "layer.1", layer));
    assert_eq!(units[8], ("onnx/deep/model.bin", "files", 100_000));
    assert_eq!(units[9], ("onnx/tokenizer.json", "files", 6));
}

#[test]
fn anything_but_files_directories_and_links_to_files_is_refused() {
    use std::os::unix::fs::symlink;
    let fifo = refusal(|root| {
        rustix::fs::mknodat(rustix::fs::CWD, root.join("pipe"), rustix::fs::FileType::Fifo, rustix::fs::Mode::RUSR, 0)
            .unwrap();
    });
    assert_eq!(fifo, SourceError::NotRegular);
    assert_eq!(refusal(|root| symlink("/tmp", root.join("link")).unwrap()), SourceError::LinkToNoFile);
    assert_eq!(refusal(|root| symlink("/dev/zero", root.join("link")).unwrap()), SourceError::LinkToNoFile);
    let dangling = refusal(|root| symlink("nowhere", root.join("link")).unwrap());
    assert!(matches!(dangling, SourceError::Io { kind: io::ErrorKind::NotFound, .. }));
}

#[test]
fn names_without_a_form_in_the_manifest_are_refused() {
    use std::os::unix::ffi::OsStrExt;
    let name = std::ffi::OsStr::from_bytes(b"\xff");
    assert_eq!(refusal(|root| fs::write(root.join(name), b"").unwrap()), SourceError::NotUtf8);
    let refused = refusal(|root| fs::write(root.join("a\nb"), b"").unwrap());
    assert_eq!(refused, SourceError::Path(PathError::ControlCharacter));
    let refused = refusal(|root| fs::write(root.join("a\\b"), b"").unwrap());
    assert_eq!(refused, SourceError::Path(PathError::Backslash));
    let refused = refusal(|root| {
        let deep = root.join(["d"; 16].join("/"));
        fs::create_dir_all(&deep).unwrap();
        fs::write(deep.join("file"), b"").unwrap();
    });
    assert_eq!(refused, SourceError::TooDeep);
}

#[test]
fn a_directory_without_files_or_that_is_missing_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let scan = |path: &Path| SourceModel::scan(path, &ledger::safetensors::layer_group).err();
    assert_eq!(scan(directory.path()), Some(SealError::Manifest(ManifestError::NoUnits)));
    assert_eq!(scan(&directory.path().join("missing")).map(|error| error.code()), Some("source-unreadable"));
}

#[test]
fn a_safetensors_file_that_is_none_is_refused_by_name() {
    let directory = tempfile::tempdir().unwrap();
    for content in [&b""[..], b"1234567", &safetensors(&["a"])[..100]] {
        fs::write(directory.path().join("model.safetensors"), content).unwrap();
        let refused = SourceModel::scan(directory.path(), &ledger::safetensors::layer_group).err();
        assert!(matches!(refused, Some(SealError::Safetensors { file, .. }) if file.as_str() == "model.safetensors"));
    }
}

#[test]
fn a_file_that_changes_while_it_is_sealed_is_refused_and_nothing_is_left() {
    let world = World::new();
    for change in [
        (|path: &Path| fs::write(path, b"longer than before").unwrap()) as fn(&Path),
        |path| fs::write(path, b"").unwrap(),
        |path| {
            let same_bytes = fs::read(path).unwrap();
            fs::remove_file(path).unwrap();
            fs::write(path, same_bytes).unwrap();
        },
    ] {
        let source = world.directory.path().join("changing");
        let _ = fs::remove_dir_all(&source);
        fs::create_dir(&source).unwrap();
        fs::write(source.join("a"), b"first").unwrap();
        fs::write(source.join("b"), b"second").unwrap();
        let scanned = SourceModel::scan(&source, &ledger::safetensors::layer_group).unwrap();
        let once = AtomicBool::new(true);
        let target = DirectoryTarget::begin(&world.path("changed")).unwrap();
        let mut request = world.request();
        request.threads = 1;
        // The first unit is sealed; now the second file changes.
        let progress = |_| {
            if once.swap(false, Ordering::Relaxed) {
                change(&source.join("b"));
            }
        };
        let refused = request.seal(&scanned, target, &world.rng, &progress).err();
        let changed = SealError::Source { path: source.join("b"), error: SourceError::Changed };
        assert_eq!(refused, Some(changed));
        let left: Vec<_> = fs::read_dir(world.directory.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
        assert_eq!(left, ["changing"], "a partial model is left");
    }
}

#[test]
fn what_a_killed_seal_left_is_removed_by_the_next_and_what_another_is_at_stays() {
    let world = World::new();
    let dead = world.path(".weightvault-sealing-dead");
    fs::create_dir_all(dead.join("units")).unwrap();
    fs::write(dead.join("units/00000.cob"), b"half of a unit").unwrap();
    fs::create_dir(world.path(".weightvault-sealing")).unwrap();
    std::os::unix::fs::symlink(world.path(".weightvault-sealing"), world.path(".weightvault-sealing-link")).unwrap();
    let names = || {
        let entries = fs::read_dir(world.directory.path()).unwrap().map(|entry| entry.unwrap().file_name());
        entries.collect::<std::collections::BTreeSet<_>>()
    };
    let before = names().len();
    let running = DirectoryTarget::begin(&world.path("one")).unwrap();
    assert_eq!((dead.exists(), names().len()), (false, before));
    let another = DirectoryTarget::begin(&world.path("two")).unwrap();
    assert_eq!(names().len(), before + 1, "one that is sealed is taken for abandoned");
    drop((running, another));
    assert_eq!(names().len(), before - 1);
}

#[test]
fn a_directory_that_exists_is_not_replaced() {
    let world = World::new();
    write_model(&world.path("source"));
    world.seal(&world.path("source"), "sealed").unwrap();
    let begun = DirectoryTarget::begin(&world.path("sealed"));
    assert_eq!(begun.err().map(|error| error.kind()), Some(io::ErrorKind::AlreadyExists));
    // Nor where it comes into being meanwhile.
    let source = SourceModel::scan(&world.path("source"), &ledger::safetensors::layer_group).unwrap();
    let target = DirectoryTarget::begin(&world.path("late")).unwrap();
    fs::create_dir(world.path("late")).unwrap();
    let refused = world.request().seal(&source, target, &world.rng, &|_| {}).err();
    assert!(matches!(refused, Some(SealError::Target { kind: io::ErrorKind::AlreadyExists, .. })), "{refused:?}");
    assert!(is_empty(&world.path("late")));
}

/// Takes no second unit.
struct Full;

impl SealTarget for Full {
    type Unit = io::Sink;

    fn begin_unit(&self, index: u32, _: u64) -> io::Result<io::Sink> {
        if index == 0 { Ok(io::sink()) } else { Err(io::ErrorKind::StorageFull.into()) }
    }

    fn end_unit(&self, _: u32, _: io::Sink) -> io::Result<()> {
        Ok(())
    }

    fn finish(self, _: SealedDocuments) -> io::Result<()> {
        panic!("a model without all its units was finished");
    }
}

#[test]
fn a_target_that_is_full_ends_the_seal() {
    let world = World::new();
    write_model(&world.path("source"));
    let source = SourceModel::scan(&world.path("source"), &ledger::safetensors::layer_group).unwrap();
    let refused = world.request().seal(&source, Full, &world.rng, &|_| {}).err();
    assert!(matches!(refused, Some(SealError::Target { kind: io::ErrorKind::StorageFull, .. })), "{refused:?}");
}
