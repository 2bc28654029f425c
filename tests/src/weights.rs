//! Models of a test's own making: safetensors files with the tensors that it names.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use ledger::safetensors::Header;

/// Files by path.
pub type Files = BTreeMap<String, Vec<u8>>;
/// Tensors by name.
pub type Tensors = BTreeMap<String, Vec<u8>>;

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
