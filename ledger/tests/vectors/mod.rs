//! Public test vectors are read where they lie; the project holds no copy of them.

use std::path::{Path, PathBuf};

/// A vector file or directory, or `None` where this machine has no vectors. With `CI=true` they must be there.
pub(crate) fn path(relative: &str) -> Option<PathBuf> {
    let default = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/vectors");
    let root = std::env::var_os("WEIGHTVAULT_VECTORS").map_or(default, PathBuf::from);
    let path = root.join(relative);
    if path.exists() {
        return Some(path);
    }
    assert!(std::env::var("CI").as_deref() != Ok("true"), "{} is missing", path.display());
    eprintln!("skipped: {} is missing; set WEIGHTVAULT_VECTORS", path.display());
    None
}

/// A JSON vector file.
#[allow(dead_code, reason = "not every test reads JSON")]
pub(crate) fn json(relative: &str) -> Option<serde_json::Value> {
    let bytes = std::fs::read(path(relative)?).unwrap();
    Some(serde_json::from_slice(&bytes).unwrap())
}
