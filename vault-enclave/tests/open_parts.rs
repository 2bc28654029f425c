//! A part of a model opens into files of that part.
#![allow(clippy::unwrap_used, reason = "a test says so by panicking")]

mod support;

use std::fs;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, OnceLock};

use ledger::manifest::{Manifest, PathError, Selection};
use vault_enclave::open::{
    self, Destination, Directory, GrantedModel, LocalReader, LocalUnits, OpenModelError, ReadBy, SourceError,
    UnitSource, View,
};
use vault_enclave::place::{self, Facts};

use support::{LAYER_BYTES, World, files_of, is_empty, write_model};

/// Sealed once for all tests of this process.
struct Sealed {
    world: World,
    source: PathBuf,
    sealed: PathBuf,
    manifest: Manifest,
}

fn sealed() -> &'static Sealed {
    static SEALED: OnceLock<Sealed> = OnceLock::new();
    SEALED.get_or_init(|| {
        let world = World::new();
        let (source, sealed) = (world.path("source"), world.path("sealed"));
        write_model(&source);
        let manifest = world.seal(&source, "sealed").unwrap();
        Sealed { world, source, sealed, manifest }
    })
}

/// Index of the first unit of a group in a file.
fn index_of(file: &str, group: &str) -> u32 {
    let units = sealed().manifest.units();
    let found = units.iter().position(|unit| unit.file.as_str() == file && unit.group.as_str() == group);
    found.expect("there is one") as u32
}

fn groups(labels: &[&str]) -> Selection {
    Selection::Groups(labels.iter().map(|label| (*label).try_into().unwrap()).collect())
}

/// What is opened when only these units are granted.
fn opened_in_part(selection: Selection, into: &str) -> Result<Vec<(String, Vec<u8>)>, OpenModelError> {
    let Sealed { world, sealed, manifest, .. } = sealed();
    let keys = world.grant(manifest, sealed, manifest.select(&selection).unwrap());
    let opened = world.open(manifest, sealed, &keys, true, into)?;
    let files = files_of(&world.path(into));
    drop(opened);
    assert!(is_empty(&world.path(into)));
    Ok(files)
}

#[test]
fn a_partly_granted_file_is_a_smaller_safetensors_file_of_the_tensors_that_are_there() {
    let source = &sealed().source;
    let files = opened_in_part(groups(&["layer.1"]), "partly").unwrap();
    // Every grant has the headers, but a file of headers alone is none.
    let [(name, got)] = files.as_slice() else { panic!("{} files", files.len()) };
    assert_eq!(name, "model-1.safetensors");
    let json = format!(r#"{{"layers.1.a":{{"dtype":"U8","shape":[{LAYER_BYTES}],"data_offsets":[0,{LAYER_BYTES}]}}}}"#);
    let padded = json.len().next_multiple_of(8);
    assert_eq!(got[..8], (padded as u64).to_le_bytes());
    assert_eq!(std::str::from_utf8(&got[8..8 + padded]).unwrap().trim_end(), json);
    let all = fs::read(source.join(name)).unwrap();
    assert_eq!(got[8 + padded..], all[all.len() - LAYER_BYTES..]);

    // A file that is all there is the publisher's, beside one that is not.
    let files = opened_in_part(groups(&["layer.0", "layer.2"]), "partly-2").unwrap();
    let tensors = ledger::safetensors::Header::parse(&files[0].1, files[0].1.len() as u64).unwrap();
    let names: Vec<_> = tensors.tensors().iter().map(|tensor| tensor.name.as_str()).collect();
    assert_eq!(names, ["layers.0.a", "layers.0.b"]);
    assert!(files[1].1 == fs::read(source.join("model-2.safetensors")).unwrap());
}

#[test]
fn what_makes_no_file_is_refused_before_keys_are_asked_for() {
    let Sealed { manifest, .. } = sealed();
    let check = |units| open::check_views(manifest, &[View::of(units)]);
    let headers = manifest.select(&Selection::Units(manifest.header_units().collect())).unwrap();
    let refused = check(headers).unwrap_err();
    assert_eq!((refused.code(), refused), ("nothing-to-open", OpenModelError::NothingToOpen));
    assert_eq!(opened_in_part(groups(&["header"]), "none").err(), Some(OpenModelError::NothingToOpen));

    // A unit without the header of its file: where its tensors are nobody could tell.
    let (header, unit) = (index_of("model-1.safetensors", "header"), index_of("model-1.safetensors", "layer.0"));
    let alone = manifest.select(&Selection::Units(vec![unit])).unwrap();
    let file = "model-1.safetensors".parse().unwrap();
    let refused = check(alone).unwrap_err();
    assert_eq!(
        (refused.code(), refused),
        ("file-partly-granted", OpenModelError::FilePartlyGranted { file, missing: header })
    );
    assert_eq!(check(manifest.select(&Selection::All).unwrap()), Ok(()));
}

/// Counts how often each unit is asked for.
struct Counted<'a>(LocalUnits<'a>, Mutex<Vec<u32>>);

impl UnitSource for Counted<'_> {
    type Reader = LocalReader;

    fn read(&self, unit: u32, range: Range<u64>) -> Result<LocalReader, SourceError> {
        self.1.lock().unwrap().push(unit);
        self.0.read(unit, range)
    }
}

#[test]
fn each_view_has_its_own_files_of_units_that_are_opened_once_for_all_of_them() {
    let Sealed { world, source, sealed, manifest } = sealed();
    let units = |labels: &[&str]| manifest.select(&groups(labels)).unwrap();
    let all = manifest.select(&Selection::All).unwrap();
    let keys = world.grant(manifest, sealed, all);
    let below = |directory: &str, units| View::below(directory.parse().unwrap(), units);
    let views = [
        below("rank0", units(&["files", "other", "layer.0"])),
        below("rank1", units(&["files", "other", "layer.1", "layer.2"])),
    ];
    for verify_units in [true, false] {
        let counted = Counted(LocalUnits::new(sealed, manifest, ReadBy::PageCache).unwrap(), Mutex::default());
        let model = GrantedModel { manifest, keys: &keys, verify_units };
        let place = place::judge(&Facts::gather(world.directory.path()).unwrap(), 1, true).unwrap();
        fs::create_dir_all(world.path("views")).unwrap();
        let destination = Destination::new(Directory::open(&world.path("views")).unwrap(), place).unwrap();
        let opened = model.open_views(&views, &counted, destination, 2, &|_| {}).unwrap();
        let files = files_of(&world.path("views"));
        let get = |path: &str| &files.iter().find(|(name, _)| name == path).unwrap_or_else(|| panic!("no {path}")).1;
        let names = |path: &str| {
            let header = ledger::safetensors::Header::parse(get(path), get(path).len() as u64).unwrap();
            header.tensors().iter().map(|tensor| tensor.name.clone()).collect::<Vec<_>>()
        };
        assert_eq!(names("rank0/model-1.safetensors"), ["embed", "layers.0.a", "layers.0.b"]);
        assert_eq!(names("rank1/model-1.safetensors"), ["embed", "layers.1.a"]);
        let whole = fs::read(source.join("model-1.safetensors")).unwrap();
        let data = whole.len() - 4 * LAYER_BYTES;
        let end = |path: &str, bytes: usize| &get(path)[get(path).len() - bytes..];
        let embed = &whole[data..data + LAYER_BYTES];
        assert!(*end("rank0/model-1.safetensors", 3 * LAYER_BYTES) == whole[data..data + 3 * LAYER_BYTES]);
        assert!(
            *end("rank1/model-1.safetensors", 2 * LAYER_BYTES) == *[embed, &whole[data + 3 * LAYER_BYTES..]].concat()
        );
        assert!(*get("rank1/model-2.safetensors") == fs::read(source.join("model-2.safetensors")).unwrap());
        for (path, bytes) in
            [("config.json", "config.json"), ("empty", "empty"), ("onnx/deep/model.bin", "onnx/deep/model.bin")]
        {
            let plain = fs::read(source.join(bytes)).unwrap();
            assert!(["rank0", "rank1"].iter().all(|rank| *get(&format!("{rank}/{path}")) == plain), "{path}");
        }
        assert!(
            files.iter().all(|(name, _)| name.starts_with("rank"))
                && !files.iter().any(|(name, _)| name == "rank0/model-2.safetensors")
        );

        // A header says what each smaller file looks like; all else comes once.
        let mut asked = counted.1.into_inner().unwrap();
        asked.retain(|unit| !manifest.unit(*unit).unwrap().group.is_header());
        asked.sort_unstable();
        assert!(asked.is_sorted_by(|a, b| a < b), "{asked:?}");
        // With its directories.
        drop(opened);
        assert!(is_empty(&world.path("views")));
    }

    // What adopts the files has to find them again, so that they are wiped.
    let deep = "d/".repeat(15) + "d";
    let refused = open::check_views(manifest, &[below(&deep, units(&["files"]))]).unwrap_err();
    let file = "config.json".parse().unwrap();
    let expected = OpenModelError::ViewPath { file, directory: deep.parse().unwrap(), error: PathError::TooDeep };
    assert_eq!((refused.code(), refused), ("view-path", expected));
    assert_eq!(open::check_views(manifest, &views), Ok(()));
}

#[test]
fn units_are_found_by_the_names_of_their_tensors() {
    let Sealed { world, sealed, manifest, .. } = sealed();
    let headers = manifest.select(&Selection::Units(manifest.header_units().collect())).unwrap();
    let keys = world.grant(manifest, sealed, headers);
    let model = GrantedModel { manifest, keys: &keys, verify_units: true };
    let found = model.tensors(&LocalUnits::new(sealed, manifest, ReadBy::Probe).unwrap(), 2).unwrap();
    let units_of = |name: &str| {
        let mut all = found.iter().flat_map(|file| &file.tensors);
        all.find(|tensor| tensor.name == name).map(|tensor| tensor.units.clone()).unwrap()
    };
    let first = index_of("model-1.safetensors", "layer.0");
    // Tensors of one layer that lie beside each other are one unit.
    assert_eq!([units_of("layers.0.a"), units_of("layers.0.b")], [first..first + 1, first..first + 1]);
    assert_eq!(units_of("embed"), first - 1..first);
    let other = index_of("model-2.safetensors", "layer.2");
    assert_eq!(units_of("layers.2.a"), other..other + 1);
    assert_eq!(found.iter().map(|file| file.header).collect::<Vec<_>>(), manifest.header_units().collect::<Vec<_>>());
}

/// Prints each tensor: name, bytes, and the first and last of them.
const READER: &str = "
import sys
from safetensors.numpy import load_file
for name, tensor in sorted(load_file(sys.argv[1]).items()):
    print(name, tensor.nbytes, tensor[0], tensor[-1])
";

#[test]
fn the_safetensors_library_reads_a_part_as_it_is() {
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    let python =
        std::env::var_os("WEIGHTVAULT_PYTHON").map_or_else(|| package.join("../target/venv/bin/python"), PathBuf::from);
    if !python.exists() {
        assert!(std::env::var("CI").as_deref() != Ok("true"), "{} is missing", python.display());
        eprintln!("skipped: {} is missing; `cargo xtask setup --python` makes it", python.display());
        return;
    }
    let Sealed { world, source, sealed, manifest, .. } = sealed();
    let read = |file: &Path| {
        let output = Command::new(&python).args(["-c", READER]).arg(file).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    let name = "model-1.safetensors";
    let keys = world.grant(manifest, sealed, manifest.select(&groups(&["layer.1", "other"])).unwrap());
    let opened = world.open(manifest, sealed, &keys, true, "library").unwrap();
    let whole = read(&source.join(name));
    let wanted: Vec<_> = whole.lines().filter(|line| !line.starts_with("layers.0.")).collect();
    assert_eq!(read(&world.path("library").join(name)).lines().collect::<Vec<_>>(), wanted);
    drop(opened);
}
