//! Public test vectors are read where they lie; the project holds no copy of them.

use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

/// The vector files of this name below a folder of vectors, or none where this machine has no vectors. With `CI=true` they
/// must be there.
pub(crate) fn files(folder: &str, name: &str) -> Vec<(String, Vec<u8>)> {
    let default = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/vectors");
    let root = std::env::var_os("WEIGHTVAULT_VECTORS").map_or(default, PathBuf::from).join(folder);
    let Ok(entries) = std::fs::read_dir(&root) else {
        assert!(std::env::var("CI").as_deref() != Ok("true"), "{} is missing", root.display());
        eprintln!("skipped: {} is missing; set WEIGHTVAULT_VECTORS", root.display());
        return Vec::new();
    };
    let read = |path: PathBuf| Some((path.display().to_string(), std::fs::read(path.join(name)).ok()?));
    let found: Vec<_> = entries.filter_map(|entry| read(entry.unwrap().path())).collect();
    assert!(!found.is_empty(), "{} has no {name}", root.display());
    found
}

/// The certificates of a PEM file, DER.
pub(crate) fn certificates(pem: &[u8]) -> Vec<Vec<u8>> {
    let text = String::from_utf8(pem.to_vec()).unwrap();
    let blocks = text.split("-----BEGIN CERTIFICATE-----").skip(1);
    let body = |block: &str| block.split("-----END").next().unwrap_or_default().lines().collect::<String>();
    blocks.map(|block| STANDARD.decode(body(block)).unwrap()).collect()
}
