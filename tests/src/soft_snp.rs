//! A soft SEV-SNP platform in a process of its own, for a guest in another.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use attestation::{Sha256Digest, SnpProduct, chip_platform};

use crate::process::binary;

/// A process of `soft-snp`; it ends when its stdin closes. The chip is that of its directory, also at the next start.
pub struct SoftSnp {
    child: Child,
    dir: PathBuf,
}

impl SoftSnp {
    /// Starts a Milan for a guest with this launch digest and these further options. Its report tree is plain files, so that
    /// no machine has to have FUSE.
    pub fn start(dir: &Path, measurement: [u8; 48], options: &[&str]) -> Self {
        let mut command = Command::new(binary("soft-snp"));
        command.arg("--dir").arg(dir).args(["--plain", "--measurement", &hex::encode(measurement)]).args(options);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("soft-snp was built");
        let output = child.stdout.take().expect("its stdout is a pipe");
        let mut lines = BufReader::new(output).lines().map_while(Result::ok);
        assert!(lines.any(|line| line == "ready"), "soft-snp is not ready: see what it says on stderr");
        Self { child, dir: dir.to_owned() }
    }

    /// For `--snp`.
    pub fn choice(&self) -> String {
        format!("soft:{}", self.dir.display())
    }

    /// PEM of its root.
    pub fn root(&self) -> String {
        std::fs::read_to_string(self.dir.join("ark.pem")).expect("it is there once it is ready")
    }

    /// The platform id of its chip.
    pub fn platform(&self) -> Sha256Digest {
        let chip = std::fs::read(self.dir.join("chip.json")).expect("it is there once it is ready");
        let chip: serde_json::Value = serde_json::from_slice(&chip).expect("JSON");
        let id = hex::decode(chip["chip_id"].as_str().expect("a text")).expect("hex");
        chip_platform(SnpProduct::Milan, &id.try_into().expect("64 bytes"))
    }
}

impl Drop for SoftSnp {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        let _ = self.child.wait();
    }
}
