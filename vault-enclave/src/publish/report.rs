//! What `seal` and `publish` tell when they are done.

use std::fmt;
use std::time::Duration;

use attestation::Sha256Digest;
use ledger::manifest::Manifest;
use serde::Serialize;
use vault_proto::convert::Proposal;

use super::progress::size;
use crate::failure::plain;

/// The result, for a person and as JSON.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    model: String,
    version: String,
    vault: Sha256Digest,
    manifest: Sha256Digest,
    /// Plaintext bytes.
    bytes: u64,
    units: usize,
    files: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    sealed: Option<Step>,
    /// Where the sealed model lies, if it stays.
    #[serde(skip_serializing_if = "Option::is_none")]
    directory: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    uploaded: Option<Step>,
    #[serde(skip_serializing_if = "Option::is_none")]
    proposal: Option<Proposed>,
    #[serde(skip)]
    vault_file: String,
}

/// Bytes and the time that they took.
#[derive(Debug, Clone, Copy, Serialize)]
pub(super) struct Step {
    bytes: u64,
    seconds: f64,
    gigabytes_per_second: f64,
}

/// Where the proposal stands.
#[derive(Debug, Serialize)]
struct Proposed {
    /// What approvers approve.
    object: Sha256Digest,
    entry: u64,
    approved_by: Vec<String>,
    threshold: u32,
    effective: bool,
}

impl Report {
    /// Of a sealed model.
    pub(super) fn new(manifest: &Manifest, vault_file: &std::path::Path) -> Self {
        let id = manifest.id();
        let mut files: Vec<&str> = manifest.units().iter().map(|unit| unit.file.as_str()).collect();
        files.dedup();
        Self {
            model: id.model.to_string(),
            version: id.version.to_string(),
            vault: id.vault,
            manifest: manifest.digest(),
            bytes: manifest.total_bytes(),
            units: manifest.units().len(),
            files: files.len(),
            sealed: None,
            directory: None,
            uploaded: None,
            proposal: None,
            vault_file: vault_file.display().to_string(),
        }
    }

    /// With the time that sealing took.
    pub(super) fn sealed(mut self, step: Step) -> Self {
        self.sealed = Some(step);
        self
    }

    /// With a directory that stays.
    pub(super) fn directory(mut self, path: &std::path::Path) -> Self {
        self.directory = Some(path.display().to_string());
        self
    }

    /// With what was uploaded and proposed.
    pub(super) fn published(mut self, uploaded: Step, proposal: Proposal) -> Self {
        self.uploaded = Some(uploaded);
        self.proposal = Some(Proposed {
            object: proposal.object,
            entry: proposal.entry,
            approved_by: proposal.approved_by.iter().map(ToString::to_string).collect(),
            threshold: proposal.threshold,
            effective: proposal.effective,
        });
        self
    }

    /// Prints it on standard output.
    pub(super) fn print(&self, json: bool) {
        match serde_json::to_string_pretty(self) {
            Ok(text) if json => println!("{text}"),
            _ => println!("{}", plain(self.to_string().trim_end())),
        }
    }
}

impl Step {
    /// `bytes` in `time`.
    pub(super) fn new(bytes: u64, time: Duration) -> Self {
        let seconds = time.as_secs_f64();
        // A step without any time has no rate; JSON has no infinity.
        let rate = if seconds > 0.0 { bytes as f64 / 1e9 / seconds } else { 0.0 };
        Self { bytes, seconds, gigabytes_per_second: rate }
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} in {:.1} s, {:.2} GB/s", size(self.bytes), self.seconds, self.gigabytes_per_second)
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { model, version, units, files, .. } = self;
        writeln!(f, "{model}@{version}: {files} files in {units} units, {} of plaintext", size(self.bytes))?;
        if let Some(sealed) = self.sealed {
            writeln!(f, "  sealed:   {sealed}")?;
        }
        if let Some(directory) = &self.directory {
            writeln!(f, "  lies in:  {directory}")?;
        }
        if let Some(uploaded) = self.uploaded {
            writeln!(f, "  uploaded: {uploaded}")?;
        }
        match &self.proposal {
            Some(proposal) => proposal.write(f, &self.vault_file),
            None => write!(
                f,
                "Nothing was uploaded. Next:\n  vault-enclave publish {} --vault {}",
                self.directory.as_deref().unwrap_or("DIR"),
                self.vault_file
            ),
        }
    }
}

impl Proposed {
    fn write(&self, f: &mut fmt::Formatter<'_>, vault_file: &str) -> fmt::Result {
        writeln!(f, "  proposed: entry {} of the log", self.entry)?;
        if self.effective {
            return write!(f, "It is approved: the vault releases it by its rules.");
        }
        if !self.approved_by.is_empty() {
            writeln!(f, "  signed:   {}", self.approved_by.join(", "))?;
        }
        let missing = usize::try_from(self.threshold).unwrap_or(usize::MAX).saturating_sub(self.approved_by.len());
        let approvers = if missing == 1 { "1 more approver has" } else { &format!("{missing} approvers have") };
        write!(
            f,
            "It can be loaded when {approvers} signed. Each runs\n  vaultctl approve {} --vault {vault_file} --key KEY",
            self.object
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report() -> Report {
        Report {
            model: "minilm".into(),
            version: "1".into(),
            vault: Sha256Digest::of(b"vault"),
            manifest: Sha256Digest::of(b"manifest"),
            bytes: 90_868_376,
            units: 9,
            files: 2,
            sealed: None,
            directory: None,
            uploaded: None,
            proposal: None,
            vault_file: "vault.json".into(),
        }
    }

    fn proposal(approved_by: &[&str], effective: bool) -> Option<Proposed> {
        let approved_by = approved_by.iter().map(|id| (*id).to_owned()).collect();
        Some(Proposed { object: Sha256Digest::of(b"x"), entry: 7, approved_by, threshold: 2, effective })
    }

    #[test]
    fn it_says_what_approvers_type() {
        let text = Report { proposal: proposal(&[], false), ..report() }.to_string();
        assert!(text.contains("2 approvers have signed"), "{text}");
        let command = format!("vaultctl approve {} --vault vault.json --key KEY", Sha256Digest::of(b"x"));
        assert!(text.contains(&command), "{text}");
        let text = Report { proposal: proposal(&["alice"], false), ..report() }.to_string();
        assert!(text.contains("alice") && text.contains("1 more approver has signed"), "{text}");
    }

    #[test]
    fn what_is_approved_needs_nobody() {
        assert!(Report { proposal: proposal(&["a", "b"], true), ..report() }.to_string().ends_with("by its rules."));
    }

    #[test]
    fn without_an_upload_it_says_how_to_go_on() {
        let text = report().directory(std::path::Path::new("/x/out")).to_string();
        assert!(text.ends_with("vault-enclave publish /x/out --vault vault.json"), "{text}");
    }

    #[test]
    fn a_step_without_time_has_no_rate() {
        assert_eq!(Step::new(5, Duration::ZERO).gigabytes_per_second, 0.0);
        assert_eq!(Step::new(2_000_000_000, Duration::from_secs(2)).to_string(), "2.00 GB in 2.0 s, 1.00 GB/s");
    }
}
