//! The S3 server of the tests: `s3s-fs`, built from its release with its own lock, apart from this workspace.

use crate::{Result, shell};
use std::fs::File;
use std::path::PathBuf;

/// The newest that this workspace's compiler builds and that keeps `If-Match` on writes.
const VERSION: &str = "0.14.1";

/// Builds the server if it is not here yet; its path.
///
/// # Errors
/// It is missing and could not be built; with `offline` nothing is tried.
pub(crate) fn ensure(offline: bool) -> Result<PathBuf> {
    ensure_in("tools", &["--debug"], offline)
}

/// The same for `cargo xtask bench`: in a release build of ours an optimised one, so that the server is not what is measured.
/// `WEIGHTVAULT_S3_SERVER` names one that is there.
///
/// # Errors
/// As [`ensure`].
pub(crate) fn ensure_for_bench() -> Result<PathBuf> {
    match std::env::var_os("WEIGHTVAULT_S3_SERVER") {
        Some(server) => Ok(server.into()),
        None if cfg!(debug_assertions) => ensure(false),
        None => ensure_in("tools-release", &[], false),
    }
}

fn ensure_in(name: &str, profile: &[&str], offline: bool) -> Result<PathBuf> {
    let target = shell::target_dir();
    let tools = target.join(name);
    let server = tools.join("bin/s3s-fs");
    // Two tasks at once must not build it twice.
    std::fs::create_dir_all(&tools)?;
    let lock = File::create(target.join("tools.lock"))?;
    lock.lock()?;
    if server.exists() {
        return Ok(server);
    }
    if offline {
        return Err("the S3 server of the tests is not here; `cargo xtask test` without --offline builds it".into());
    }
    eprintln!("setup: building s3s-fs {VERSION}, the S3 server of the tests");
    let mut install = shell::cargo();
    install
        .args(["install", "--quiet", "--locked", "--version", VERSION, "--features", "binary", "s3s-fs"])
        .args(profile);
    install.arg("--root").arg(&tools).arg("--target-dir").arg(tools.join("build"));
    shell::run(install.env("CARGO_PROFILE_DEV_DEBUG", "0").env("CARGO_INCREMENTAL", "0"))?;
    Ok(server)
}
