//! What the machines of the demo attest with.

use super::{Children, Place, binary};
use crate::swtpm::{BootLog, SoftTpm, TpmOptions};
use crate::{Result, shell};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// What the machines attest with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Tier {
    /// Software TPMs.
    Tpm,
    /// Guests of a soft SEV-SNP platform; the keeper has a software TPM too, in which it counts.
    Snp,
}

/// The TCB of the demo's chips, and the lowest that its policy takes: boot loader, TEE, SNP firmware, microcode.
pub(super) const TCB: [u8; 4] = [4, 0, 22, 213];
/// The time that a soft platform has to be ready.
const READY: Duration = Duration::from_secs(60);

/// A machine: a software TPM, or a guest of a soft SNP platform, or both.
pub(super) struct Machine {
    tpm: Option<SoftTpm>,
    snp: Option<SoftGuest>,
}

/// A guest of a soft SNP platform.
struct SoftGuest {
    dir: PathBuf,
    measurement: String,
}

impl Machine {
    /// A machine with a software TPM of this authority, on which `program` was started.
    pub(super) fn with_tpm(place: &Place, name: &str, ca: &str, program: &Path) -> Result<Self> {
        let tpm = SoftTpm::start(&TpmOptions {
            state: place.path(&format!("tpm-{name}")),
            ca: place.path(ca),
            name: name.to_owned(),
            port: None,
            boot_log: BootLog::Recorded,
            measure: Some(program.to_owned()),
        })?;
        Ok(Self { tpm: Some(tpm), snp: None })
    }

    /// The same machine as a guest of a soft SNP platform, which launched `program` on a chip of its own.
    pub(super) fn and_snp(self, children: &mut Children, place: &Place, name: &str, program: &Path) -> Result<Self> {
        Ok(Self { snp: Some(SoftGuest::start(children, place, name, program, TCB)?), ..self })
    }

    /// A guest without a TPM, on a chip with this TCB.
    pub(super) fn snp(
        children: &mut Children,
        place: &Place,
        name: &str,
        program: &Path,
        tcb: [u8; 4],
    ) -> Result<Self> {
        Ok(Self { tpm: None, snp: Some(SoftGuest::start(children, place, name, program, tcb)?) })
    }

    /// The options by which our programs find it.
    pub(super) fn arguments(&self) -> Vec<String> {
        let mut arguments = vec!["--tpm".to_owned(), self.tcti().unwrap_or_else(|| "none".to_owned())];
        if let Some(snp) = &self.snp {
            arguments.extend(["--snp".to_owned(), format!("soft:{}", snp.dir.display())]);
        }
        arguments
    }

    /// Where its TPM is, if it has one.
    pub(super) fn tcti(&self) -> Option<String> {
        self.tpm.as_ref().map(SoftTpm::tcti)
    }

    /// The certificates that endorse its TPM: root and issuer.
    pub(super) fn tpm_anchors(&self) -> Result<[String; 2]> {
        let tpm = self.tpm.as_ref().ok_or("this machine has no TPM")?;
        Ok([fs::read_to_string(tpm.ca_root())?, fs::read_to_string(tpm.ca_issuer())?])
    }

    /// The root of its soft SNP platform, and its launch digest.
    pub(super) fn launch(&self) -> Result<Option<(String, &str)>> {
        match &self.snp {
            Some(snp) => Ok(Some((fs::read_to_string(snp.dir.join("ark.pem"))?, &snp.measurement))),
            None => Ok(None),
        }
    }

    /// In a line.
    pub(super) fn describe(&self) -> String {
        let snp = self.snp.as_ref().map(|snp| format!("soft SNP guest, launched {}…", &snp.measurement[..16]));
        let parts: Vec<String> = self.tcti().into_iter().chain(snp).collect();
        parts.join("; ")
    }
}

impl SoftGuest {
    /// What is launched is the program: its SHA-384 stands for the launch digest of an image that has it inside.
    fn start(children: &mut Children, place: &Place, name: &str, program: &Path, tcb: [u8; 4]) -> Result<Self> {
        let digest = shell::output(Command::new("sha384sum").arg(program))?;
        let measurement = digest.split_whitespace().next().ok_or("sha384sum gave no digest")?.to_owned();
        let dir = place.path(&format!("snp-{name}"));
        let tcb = tcb.map(|part| part.to_string()).join(",");
        let mut soft = Command::new(binary("soft-snp"));
        soft.arg("--dir").arg(&dir).args(["--measurement", &measurement, "--tcb", &tcb, "--plain"]);
        let log = format!("snp-{name}");
        children.spawn(&log, &soft)?;
        children.wait_for_line(&log, READY, "ready")?;
        Ok(Self { dir, measurement })
    }
}
