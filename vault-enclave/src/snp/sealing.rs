//! What a derived key was made with, kept beside what it opens, so that the same key can be had again (FORMAT.md §5).
//!
//! A firmware update raises the TCB of the chip, and the firmware goes on deriving keys of lower ones: the record of the old
//! values is asked for, and [`SnpSealing::successor`] then offers a record of the new. The key is another one, so what it
//! opens has to be sealed anew.

use std::fmt;

use ring::rand::SecureRandom;
use serde::{Deserialize, Serialize};

use super::key_request::{GuestFields, KeyRequest, KeyRequestError, KeySpec, RootKey};
use super::{RawReport, SnpDevice, SnpDeviceError};
use crate::secret::{SecretError, SnpDerivedSecret};

/// What this guest may ask for at most. From its own report, unverified: a host that lies about it gets a refusal or another
/// key, neither of which opens anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GuestState {
    /// SVN of the ID block at launch.
    pub guest_svn: u32,
    /// COMMITTED_TCB, as it stands in the report.
    pub committed_tcb: [u8; 8],
    /// LAUNCH_MIT_VECTOR: reports of version 5 and later have it.
    pub launch_mit_vector: Option<u64>,
    /// The level that the report is of.
    pub vmpl: u8,
}

/// The record. Not secret. Policy and measurement are always mixed in: without them a guest that allows debugging, or any
/// other guest of that chip, would derive the same key. So are SVN and TCB: firmware that was found broken derives another.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "File", into = "File")]
pub struct SnpSealing {
    root_key: RootKey,
    guest_svn: u32,
    tcb: [u8; 8],
    launch_mit_vector: Option<u64>,
    vmpl: u8,
    salt: [u8; 32],
}

/// Why a sealing is not usable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SealingError {
    /// The record is not what was stored.
    Malformed,
    /// The record is of a version that this program does not know.
    Version(u32),
    /// The record does not mix in exactly policy, measurement, SVN and TCB.
    Fields,
    /// The report has no length or version that reports have.
    Report,
    /// It was sealed by a guest with a later SVN: this one is older.
    SvnWentBack {
        /// Of the record.
        sealed: u32,
        /// Of this guest.
        now: u32,
    },
    /// It was sealed under later firmware than this chip has committed: another chip, or one of which firmware was replaced.
    TcbWentBack,
    /// It was sealed with mitigations that are not on here.
    MitigationsMissing,
    /// The request.
    Request(KeyRequestError),
    /// The device.
    Device(SnpDeviceError),
    /// Memory for secrets, or randomness.
    Secret(SecretError),
}

impl GuestState {
    /// Of a report of this guest.
    ///
    /// # Errors
    /// [`SealingError::Report`].
    pub fn of(report: &RawReport) -> Result<Self, SealingError> {
        // 56860, "ATTESTATION_REPORT": VERSION 0x00, GUEST_SVN 0x04, VMPL 0x30, COMMITTED_TCB 0x1e0, LAUNCH_MIT_VECTOR 0x1f8.
        let report: &[u8; super::REPORT_BYTES] =
            report.report.as_slice().try_into().map_err(|_| SealingError::Report)?;
        let word = |at: usize| u32::from_le_bytes([report[at], report[at + 1], report[at + 2], report[at + 3]]);
        let eight = |at: usize| std::array::from_fn(|byte| report[at + byte]);
        let launch_mit_vector = match word(0) {
            2..=4 => None,
            5 => Some(u64::from_le_bytes(eight(0x1f8))),
            _ => return Err(SealingError::Report),
        };
        let vmpl = u8::try_from(word(0x30)).map_err(|_| SealingError::Report)?;
        Ok(Self { guest_svn: word(4), committed_tcb: eight(0x1e0), launch_mit_vector, vmpl })
    }
}

impl SnpSealing {
    /// A record for the guest as it is, with a salt of its own, so that a guest that starts afresh has another root.
    ///
    /// # Errors
    /// [`SealingError::Request`], [`SealingError::Secret`].
    pub fn new(state: &GuestState, root_key: RootKey, rng: &dyn SecureRandom) -> Result<Self, SealingError> {
        let mut salt = [0; 32];
        rng.fill(&mut salt).map_err(|_| SealingError::Secret(SecretError::Random))?;
        let GuestState { guest_svn, committed_tcb: tcb, launch_mit_vector, vmpl } = *state;
        let sealing = Self { root_key, guest_svn, tcb, launch_mit_vector, vmpl, salt };
        sealing.request()?;
        Ok(sealing)
    }

    /// The salt of the root, 32 random bytes; not secret.
    #[must_use]
    pub const fn salt(&self) -> &[u8; 32] {
        &self.salt
    }

    /// What to ask the firmware for: the values of the record, not those of now.
    ///
    /// # Errors
    /// [`SealingError::Request`].
    pub fn request(&self) -> Result<KeyRequest, SealingError> {
        let spec = KeySpec {
            root_key: self.root_key,
            fields: GuestFields { policy: true, measurement: true, image_id: false, family_id: false },
            guest_svn: Some(self.guest_svn),
            tcb_version: Some(self.tcb),
            launch_mit_vector: self.launch_mit_vector,
            vmpl: self.vmpl,
        };
        KeyRequest::new(spec).map_err(SealingError::Request)
    }

    /// Derives the key of this record.
    ///
    /// # Errors
    /// [`SealingError::Device`].
    pub fn derive(&self, device: &SnpDevice) -> Result<SnpDerivedSecret, SealingError> {
        device.derived_key(&self.request()?).map_err(SealingError::Device)
    }

    /// The record to seal to from now on, or `None` where this one is of the present state.
    ///
    /// # Errors
    /// That this guest, its chip or its firmware is behind the record: the key of the record is not derived here.
    pub fn successor(&self, now: &GuestState, rng: &dyn SecureRandom) -> Result<Option<Self>, SealingError> {
        if now.guest_svn < self.guest_svn {
            return Err(SealingError::SvnWentBack { sealed: self.guest_svn, now: now.guest_svn });
        }
        // Component by component: in which byte each is differs between generations, and every byte is one or zero.
        if now.committed_tcb.iter().zip(&self.tcb).any(|(now, sealed)| now < sealed) {
            return Err(SealingError::TcbWentBack);
        }
        if self.launch_mit_vector.unwrap_or(0) & !now.launch_mit_vector.unwrap_or(0) != 0 {
            return Err(SealingError::MitigationsMissing);
        }
        let current = (now.guest_svn, now.committed_tcb, now.launch_mit_vector);
        match (self.guest_svn, self.tcb, self.launch_mit_vector) == current {
            true => Ok(None),
            false => Self::new(now, self.root_key, rng).map(Some),
        }
    }

    /// As JSON.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("strings and numbers are JSON")
    }

    /// Reads what [`encode`](Self::encode) wrote.
    ///
    /// # Errors
    /// [`SealingError::Malformed`], [`SealingError::Version`], [`SealingError::Fields`], [`SealingError::Request`].
    pub fn parse(json: &[u8]) -> Result<Self, SealingError> {
        serde_json::from_slice::<File>(json).map_err(|_| SealingError::Malformed)?.try_into()
    }
}

/// What is mixed in, as the record says it.
const FIELDS: [&str; 4] = ["policy", "measurement", "guest-svn", "tcb"];
const MITIGATIONS: &str = "launch-mit-vector";

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    v: u32,
    root_key: String,
    fields: Vec<String>,
    guest_svn: u32,
    tcb: String,
    launch_mit_vector: Option<String>,
    vmpl: u8,
    salt: String,
}

impl From<SnpSealing> for File {
    fn from(sealing: SnpSealing) -> Self {
        let more = sealing.launch_mit_vector.map(|_| MITIGATIONS);
        Self {
            v: 1,
            root_key: sealing.root_key.as_str().to_owned(),
            fields: FIELDS.into_iter().chain(more).map(str::to_owned).collect(),
            guest_svn: sealing.guest_svn,
            tcb: hex::encode(sealing.tcb),
            launch_mit_vector: sealing.launch_mit_vector.map(|vector| hex::encode(vector.to_be_bytes())),
            vmpl: sealing.vmpl,
            salt: hex::encode(sealing.salt),
        }
    }
}

impl TryFrom<File> for SnpSealing {
    type Error = SealingError;

    fn try_from(file: File) -> Result<Self, SealingError> {
        if file.v != 1 {
            return Err(SealingError::Version(file.v));
        }
        let keys = [RootKey::Default, RootKey::Vcek, RootKey::Vlek, RootKey::Vmrk];
        let root_key = keys.into_iter().find(|key| key.as_str() == file.root_key).ok_or(SealingError::Malformed)?;
        let more = file.launch_mit_vector.as_ref().map(|_| MITIGATIONS);
        if !file.fields.iter().map(String::as_str).eq(FIELDS.into_iter().chain(more)) {
            return Err(SealingError::Fields);
        }
        let vector = file.launch_mit_vector.as_deref().map(bytes::<8>).transpose()?;
        let (tcb, salt) = (bytes(&file.tcb)?, bytes(&file.salt)?);
        let launch_mit_vector = vector.map(u64::from_be_bytes);
        let sealing = Self { root_key, guest_svn: file.guest_svn, tcb, launch_mit_vector, vmpl: file.vmpl, salt };
        sealing.request()?;
        Ok(sealing)
    }
}

/// Hex digits in lower case, exactly as many as that.
fn bytes<const N: usize>(text: &str) -> Result<[u8; N], SealingError> {
    let mut bytes = [0; N];
    hex::decode_to_slice(text, &mut bytes).map_err(|_| SealingError::Malformed)?;
    if hex::encode(bytes) == text { Ok(bytes) } else { Err(SealingError::Malformed) }
}

impl SealingError {
    /// Stable name of the refusal.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::Malformed => "snp-sealing-malformed",
            Self::Version(_) => "snp-sealing-version",
            Self::Fields => "snp-sealing-fields",
            Self::Report => "snp-sealing-report",
            Self::SvnWentBack { .. } => "snp-svn-went-back",
            Self::TcbWentBack => "snp-tcb-went-back",
            Self::MitigationsMissing => "snp-mitigations-missing",
            Self::Request(error) => error.code(),
            Self::Device(error) => error.code(),
            Self::Secret(error) => error.code(),
        }
    }
}

impl fmt::Display for SealingError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Malformed => {
                write!(f, "the record of the SNP key is damaged: restore it from a copy, it is not secret")
            }
            Self::Version(version) => {
                write!(f, "the record of the SNP key has version {version}, this program knows 1")
            }
            Self::Fields => write!(f, "the record of the SNP key does not mix in policy, measurement, SVN and TCB"),
            Self::Report => write!(f, "the guest's report has a length, version or level that reports do not have"),
            Self::SvnWentBack { sealed, now } => {
                write!(f, "sealed by a guest with SVN {sealed}, and this one has {now}: boot that one, or a later one")
            }
            Self::TcbWentBack => {
                write!(
                    f,
                    "sealed under later firmware than this chip has: this is another chip, or it needs its update"
                )
            }
            Self::MitigationsMissing => write!(f, "sealed with firmware mitigations that are not on at this launch"),
            Self::Request(error) => error.fmt(f),
            Self::Device(error) => error.fmt(f),
            Self::Secret(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for SealingError {}

#[cfg(test)]
mod tests;
