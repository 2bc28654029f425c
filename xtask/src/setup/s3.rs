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
    let target = shell::target_dir();
    let tools = target.join("tools");
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
    println!("setup: building s3s-fs {VERSION}, the S3 server of the tests");
    let mut install = shell::cargo();
    install.args(["install", "--quiet", "--debug", "--locked", "--version", VERSION, "--features", "binary", "s3s-fs"]);
    install.arg("--root").arg(&tools).arg("--target-dir").arg(tools.join("build"));
    shell::run(install.env("CARGO_PROFILE_DEV_DEBUG", "0").env("CARGO_INCREMENTAL", "0"))?;
    Ok(server)
}
