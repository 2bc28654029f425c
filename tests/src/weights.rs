//! Models of a test's own making: safetensors files with the tensors that it names.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use ledger::safetensors::Header;

/// Files by path.
pub type Files = BTreeMap<String, Vec<u8>>;
/// Tensors by name.
pub type Tensors = BTreeMap<String, Vec<u8>>;

/// Weights of so many bytes: two chunks and a short rest.
pub const BYTES: usize = (32 << 10) + 700;

/// A safetensors file of these tensors, in this order, each with so many bytes that no other file or place has.
pub fn safetensors(file: &str, tensors: &[(String, usize)]) -> Vec<u8> {
    let (mut header, mut data) = (serde_json::Map::new(), Vec::new());
    for (name, bytes) in tensors {
        let start = data.len();
        data.resize(start + bytes, 0);
        let mut generator = blake3::Hasher::new().update(format!("{file}\0{name}").as_bytes()).finalize_xof();
        generator.fill(&mut data[start..]);
        let tensor = serde_json::json!({ "dtype": "U8", "shape": [bytes], "data_offsets": [start, data.len()] });
        header.insert(name.clone(), tensor);
    }
    let json = serde_json::to_vec(&header).expect("JSON");
    [(json.len() as u64).to_le_bytes().as_slice(), &json, &data].concat()
}

/// The tensors of a safetensors file.
pub fn tensors(file: &[u8]) -> Tensors {
    let header = Header::parse(file, file.len() as u64).expect("a safetensors file");
    let places = header.places().map(|(tensor, place)| {
        let bytes = &file[usize::try_from(place.start).expect("small")..usize::try_from(place.end).expect("small")];
        (tensor.name.clone(), bytes.to_vec())
    });
    places.collect()
}

/// Those whose names `have` says so of.
pub fn those(all: &Tensors, have: impl Fn(&str) -> bool) -> Tensors {
    all.iter().filter(|(name, _)| have(name)).map(|(name, bytes)| (name.clone(), bytes.clone())).collect()
}

/// Writes files, with their directories.
pub fn write(dir: &Path, files: &Files) {
    for (path, bytes) in files {
        let path = dir.join(path);
        fs::create_dir_all(path.parent().expect("it lies in a directory")).expect("the directory is ours");
        fs::write(path, bytes).expect("the directory is ours");
    }
}

/// All files below a directory.
pub fn read(dir: &Path) -> Files {
    let mut files = Files::new();
    for entry in fs::read_dir(dir).unwrap_or_else(|error| panic!("{}: {error}", dir.display())) {
        let path = entry.expect("the directory").path();
        let name = path.file_name().expect("a name").to_string_lossy().into_owned();
        if path.is_dir() {
            files.extend(read(&path).into_iter().map(|(inner, bytes)| (format!("{name}/{inner}"), bytes)));
        } else {
            files.insert(name, fs::read(&path).expect("a file"));
        }
    }
    files
}

/// What `save_sharded_state` of vLLM writes for four tensor-parallel ranks.
pub fn sharded_state() -> Files {
    let mut model = Files::from([("config.json".to_owned(), b"{}".to_vec())]);
    for (rank, part) in [(0, 0), (0, 1), (1, 0), (1, 1), (2, 0), (2, 1), (3, 0), (3, 1)] {
        let name = format!("model-rank-{rank}-part-{part}.safetensors");
        // Every rank has the same names: its own slice of each tensor.
        let tensors = [part * 2, part * 2 + 1].map(|layer| (format!("model.layers.{layer}.qkv_proj.weight"), BYTES));
        model.insert(name.clone(), safetensors(&name, &tensors));
    }
    model
}

/// The files of these ranks, and those that are no rank's.
pub fn of_ranks(model: &Files, ranks: &[u32]) -> Files {
    let own = |path: &str| {
        !path.starts_with("model-rank-")
            || ranks.iter().any(|rank| path.starts_with(&format!("model-rank-{rank}-part-")))
    };
    model.iter().filter(|(path, _)| own(path)).map(|(path, bytes)| (path.clone(), bytes.clone())).collect()
}

/// As `seal` takes it: the files of each rank are a group.
pub const BY_RANK: [&str; 2] = ["--file-group", r"model-(rank-\d+)-part-"];
