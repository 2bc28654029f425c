//! A software TPM of the test's own, through `xtask swtpm`.
#![allow(dead_code, clippy::unwrap_used, reason = "not every test needs every part, and a test fails by panicking")]

pub(crate) mod link;
pub(crate) mod raw;

use std::ffi::OsStr;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use attestation::PcrSelection;
use vault_enclave::tpm::Tpm;

/// A running software TPM. Dropping it shuts it down as a machine does.
pub(crate) struct SoftTpm {
    launcher: Child,
    facts: serde_json::Value,
}

impl SoftTpm {
    /// Starts the TPM of this directory: a new one at first, the same after a reboot later.
    pub(crate) fn start(state: &Path) -> Self {
        Self::boot(state, &[])
    }

    /// As `start`, with the file as the measured program: another boot state.
    pub(crate) fn start_measuring(state: &Path, file: &Path) -> Self {
        Self::boot(state, &["--measure".as_ref(), file.as_os_str()])
    }

    /// As `start`, on a port of the caller's choice.
    pub(crate) fn start_at(state: &Path, port: u16) -> Self {
        Self::boot(state, &["--port".as_ref(), port.to_string().as_ref()])
    }

    fn boot(state: &Path, more: &[&OsStr]) -> Self {
        let mut launcher = Command::new(xtask())
            .args(["swtpm", "--json", "--ca"])
            .arg(shared_ca())
            .arg("--state")
            .arg(state)
            .args(more)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(launcher.stdout.take().unwrap()).read_line(&mut line).unwrap();
        if line.is_empty() {
            let _ = launcher.wait();
            panic!("no software TPM; its launcher says above what is missing (cargo xtask setup installs it)");
        }
        Self { launcher, facts: serde_json::from_str(&line).unwrap() }
    }

    /// Its address.
    pub(crate) fn tcti(&self) -> &str {
        self.facts["tcti"].as_str().unwrap()
    }

    /// PEM of the throwaway root.
    pub(crate) fn ca_root(&self) -> PathBuf {
        self.facts["ca_root"].as_str().unwrap().into()
    }

    /// PEM of the certificate that signed the EK certificate.
    pub(crate) fn ca_issuer(&self) -> PathBuf {
        self.facts["ca_issuer"].as_str().unwrap().into()
    }

    /// Process id of swtpm.
    pub(crate) fn pid(&self) -> i32 {
        self.facts["pid"].as_i64().unwrap().try_into().unwrap()
    }

    /// A connection.
    pub(crate) fn connect(&self) -> Tpm {
        Tpm::open(self.tcti().parse().unwrap()).unwrap()
    }

    /// Data port; the control port is the next.
    pub(crate) fn port(&self) -> u16 {
        self.tcti().rsplit('=').next().unwrap().parse().unwrap()
    }
}

impl Drop for SoftTpm {
    fn drop(&mut self) {
        drop(self.launcher.stdin.take());
        let _ = self.launcher.wait();
    }
}

/// PCRs 0, 7 and 11.
pub(crate) fn pcrs() -> PcrSelection {
    PcrSelection::try_from(&[0, 7, 11][..]).unwrap()
}

/// One CA for all software TPMs of this build.
fn shared_ca() -> PathBuf {
    target().join("tmp/swtpm-ca")
}

/// `xtask` beside this test's own directory, built if it is not there.
fn xtask() -> PathBuf {
    let xtask = profile().join("xtask");
    if !xtask.exists() {
        let mut build = Command::new(env!("CARGO"));
        build.args(["build", "--quiet", "--package", "xtask", "--target-dir"]).arg(target());
        assert!(build.status().unwrap().success(), "xtask does not build");
    }
    xtask
}

fn target() -> PathBuf {
    profile().parent().unwrap().to_owned()
}

fn profile() -> PathBuf {
    let test = std::env::current_exe().unwrap();
    test.parent().and_then(Path::parent).unwrap().to_owned()
}
