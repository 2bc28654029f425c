//! Public test vectors are read where they lie; the project holds no copy of them.

use std::path::{Path, PathBuf};

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
