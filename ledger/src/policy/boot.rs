//! What the events of a boot must say.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use attestation::{EventLogError, MeasuredLog, PcrSelection, Sha256Digest};

use super::rules::Permitted;

/// PCR of the images that ran, PCR of secure boot, PCR of the options of the kernel's EFI stub.
const PCR_IMAGES: u32 = 4;
const PCR_SECURE_BOOT: u32 = 7;
const PCR_COMMAND_LINE: u32 = 9;

/// `[release.NAME.boot]`. It asks for something: a section that asks for nothing is refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BootRule {
    /// `secure_boot`.
    pub secure_boot: SecureBoot,
    /// `images`: Authenticode digests of all that the firmware and what it started may have run.
    pub images: Permitted<Sha256Digest>,
    /// `command_lines` and `initrds`; `None` for `"any"`.
    pub command_lines: Option<CommandLines>,
}

/// `secure_boot`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SecureBoot {
    /// `true`.
    Required,
    /// `false`: whether it was on is not asked.
    NotAsked,
}

/// The options that the kernel's EFI stub may have got, and what it may have loaded then.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CommandLines {
    /// Each in full, root hashes filled in; printable ASCII; at least one.
    pub lines: Vec<String>,
    /// SHA-256 of initrds; none for `"none"`.
    pub initrds: Vec<Sha256Digest>,
    /// Root hashes of dm-verity, of which each line names one and no other; `None` for `"any"`.
    pub verity_root_hashes: Option<Vec<String>>,
}

/// Why the events of a boot are not allowed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BootMismatch {
    /// There is no event log.
    LogMissing,
    /// The events say something else than a key asks.
    Events {
        /// The key, within the section.
        key: &'static str,
        /// What they say.
        error: EventLogError,
    },
}

impl BootRule {
    /// The PCRs that the answers are in. They have to be quoted, and the log has to lead to their values.
    pub fn pcrs(&self) -> PcrSelection {
        let asked = [
            (PCR_IMAGES, matches!(self.images, Permitted::Only(_))),
            (PCR_SECURE_BOOT, self.secure_boot == SecureBoot::Required),
            (PCR_COMMAND_LINE, self.command_lines.is_some()),
        ];
        let indices: Vec<u32> = asked.iter().filter(|(_, asked)| *asked).map(|(pcr, _)| *pcr).collect();
        PcrSelection::try_from(indices.as_slice()).expect("the parser refuses a section that asks for nothing")
    }

    /// Whether nothing says which images may start though the other answers rest on it. A kernel of the machine's owner
    /// extends PCR 9 by the digests of a listed command line and initrd, and runs with others; and secure boot, where PCR 7
    /// may have any value, may be by keys that he enrolled.
    pub(super) fn leaves_images_open(&self, allowed: &BTreeMap<u32, Vec<[u8; 32]>>, open: &BTreeSet<u32>) -> bool {
        let any_keys = self.secure_boot == SecureBoot::Required && open.contains(&PCR_SECURE_BOOT);
        let rests_on_images = self.command_lines.is_some() || any_keys;
        rests_on_images && self.images == Permitted::Any && !allowed.contains_key(&PCR_IMAGES)
    }

    /// Holds a log against the rule. Only a log that led to quoted values can be.
    pub fn check(&self, log: Option<&MeasuredLog>) -> Result<(), BootMismatch> {
        let log = log.ok_or(BootMismatch::LogMissing)?;
        let of = |key| move |error| BootMismatch::Events { key, error };
        match self.secure_boot {
            SecureBoot::Required => log.secure_boot().map_err(of("secure_boot"))?,
            SecureBoot::NotAsked => {}
        }
        match &self.images {
            Permitted::Only(images) => log.boot_applications_only(images).map_err(of("images"))?,
            Permitted::Any => {}
        }
        match &self.command_lines {
            Some(lines) => lines.check(log).map_err(of("command_lines")),
            None => Ok(()),
        }
    }
}

impl CommandLines {
    fn check(&self, log: &MeasuredLog) -> Result<(), EventLogError> {
        let mut refusal = EventLogError::CommandLineMismatch;
        for line in &self.lines {
            match log.kernel_command_line(line, &self.initrds) {
                Ok(_) => return Ok(()),
                // Where one of the lines is the one that was booted, what is wrong with the rest says more.
                Err(error) if refusal == EventLogError::CommandLineMismatch => refusal = error,
                Err(_) => {}
            }
        }
        Err(refusal)
    }
}

impl BootMismatch {
    /// Stable code.
    pub const fn code(&self) -> &'static str {
        match self {
            Self::LogMissing => "event-log-missing",
            Self::Events { error, .. } => error.code(),
        }
    }

    /// The key of the policy that asks, within the rule.
    pub fn key(&self) -> String {
        match self {
            Self::LogMissing => "boot".to_owned(),
            Self::Events { key, .. } => format!("boot.{key}"),
        }
    }

    /// What is expected.
    pub fn expected(&self) -> &'static str {
        match self {
            Self::LogMissing => {
                "the event log of the boot beside the quote: `--event-log FILE` of the agent says where it is"
            }
            Self::Events { key: "secure_boot", .. } => "secure boot on, by the first event of PCR 7",
            Self::Events { key: "images", .. } => "images that the rule lists, and no other",
            Self::Events { .. } => "a command line that the rule lists, and then listed initrds alone, at least one",
        }
    }
}

impl fmt::Display for BootMismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::LogMissing => f.write_str("no event log"),
            Self::Events { error, .. } => error.fmt(f),
        }
    }
}
