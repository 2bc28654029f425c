//! What an agent refuses of a keeper's answer, and what its own TPM refuses.

use std::fmt;
use std::io::ErrorKind;
use std::path::PathBuf;

use attestation::{EvidenceForm, Sha256Digest, VerifyError};
use ledger::entry::EntryError;
use ledger::key_epoch::EpochError;
use ledger::manifest::SelectError;
use ledger::proof::ProofError;
use vault_proto::limits::EVENT_LOG_BYTES_MAX;

use crate::chip::ChipError;
use crate::secret::SecretError;
use crate::snp::NoSnpDevice;
use crate::tpm::TpmError;
use crate::wrap::WrapError;

/// Why an exchange with the keeper was broken off.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SessionError {
    /// The challenge is of another vault than the one in the vault file.
    OtherVault {
        /// In the vault file.
        expected: Sha256Digest,
        /// In the challenge.
        found: Sha256Digest,
    },
    /// The host delivered the manifest of another model, version or vault.
    OtherModel,
    /// The host delivered another manifest than the one that the challenge names.
    OtherManifest {
        /// In the challenge.
        expected: Sha256Digest,
        /// As delivered.
        found: Sha256Digest,
    },
    /// The model has no such units.
    Select(SelectError),
    /// The challenge names other units than were asked for.
    OtherUnits,
    /// This machine's TPM, or its attestation key.
    Tpm(TpmError),
    /// This guest's chip.
    Chip(ChipError),
    /// The SNP device that was named is not usable.
    ChipUnusable(NoSnpDevice),
    /// The challenge asks for a form of evidence that this machine did not offer.
    FormUnavailable(EvidenceForm),
    /// The rule asks for the event log of this boot, and it can't be read.
    EventLogUnreadable {
        /// Where it was looked for.
        path: PathBuf,
        /// What kind of failure.
        kind: ErrorKind,
        /// What the system said.
        why: String,
    },
    /// The event log is empty, or longer than a message may have it.
    EventLogLength {
        /// Where it is.
        path: PathBuf,
        /// Its bytes, or one more than are allowed.
        found: usize,
    },
    /// The attestation key is not of the kind that evidence needs.
    AttestationKey(VerifyError),
    /// No memory for a key, or no randomness.
    Secret(SecretError),
    /// The vault's identity key did not sign the grant.
    GrantSignature,
    /// The log entry of the grant is not proven to be in the vault's log.
    LogProof(ProofError),
    /// The log entry of the grant can't be read.
    Entry(EntryError),
    /// The log entry of the grant is not a release.
    NotARelease,
    /// The log entry states another release than the one asked for.
    OtherRelease {
        /// Where they differ.
        field: &'static str,
    },
    /// The vault's identity key did not sign the lease.
    LeaseSignature,
    /// What should lead to the keys of a later epoch does not.
    Epoch(EpochError),
    /// What was signed is not a lease statement.
    LeaseMalformed,
    /// The signed lease is another one.
    OtherLease {
        /// Where they differ.
        field: &'static str,
    },
    /// A renewal that was issued no later than the statement it replaces.
    LeaseNotNewer,
    /// The keys can't be unwrapped: they were wrapped for another grant, or to another key.
    Wrap(WrapError),
}

impl SessionError {
    /// Stable name of the refusal.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::OtherVault { .. } => "challenge-other-vault",
            Self::OtherModel => "manifest-other-model",
            Self::OtherManifest { .. } => "manifest-mismatch",
            Self::Select(error) => error.code(),
            Self::OtherUnits => "challenge-other-units",
            Self::Tpm(error) => error.code(),
            Self::Chip(error) => error.code(),
            Self::ChipUnusable(error) => error.code(),
            Self::FormUnavailable(_) => "challenge-form",
            Self::EventLogUnreadable { .. } => "event-log-unreadable",
            Self::EventLogLength { .. } => "event-log-length",
            Self::AttestationKey(error) => error.code(),
            Self::Secret(error) => error.code(),
            Self::GrantSignature => "grant-signature",
            Self::LogProof(error) => error.code(),
            Self::Entry(error) => error.code(),
            Self::NotARelease => "grant-not-a-release",
            Self::OtherRelease { .. } => "grant-other-release",
            Self::LeaseSignature => "lease-signature",
            Self::Epoch(error) => error.code(),
            Self::LeaseMalformed => "lease-malformed",
            Self::OtherLease { .. } => "lease-other",
            Self::LeaseNotNewer => "lease-not-newer",
            Self::Wrap(error) => error.code(),
        }
    }
}

impl fmt::Display for SessionError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::OtherVault { expected, found } => {
                write!(f, "the host's challenge is of vault {found}; the vault file says {expected}")
            }
            Self::OtherModel => f.write_str("the host delivered the manifest of another model, version or vault"),
            Self::OtherManifest { expected, found } => {
                write!(f, "the host delivered manifest {found}; the keeper's challenge names {expected}")
            }
            Self::Select(error) => error.fmt(f),
            Self::OtherUnits => f.write_str("the host's challenge is for other units than were asked for"),
            Self::Tpm(error) => error.fmt(f),
            Self::Chip(error) => error.fmt(f),
            Self::ChipUnusable(error) => error.fmt(f),
            Self::FormUnavailable(form) => {
                write!(f, "the host's challenge asks for evidence of the form {form}, which this machine did not offer")
            }
            Self::EventLogUnreadable { path, kind, why } => {
                let path = path.display();
                let next = match kind {
                    ErrorKind::PermissionDenied => "run as root, who alone may read it",
                    _ => {
                        "boot by UEFI with the TPM on and mount securityfs (mount -t securityfs none /sys/kernel/security)"
                    }
                };
                write!(
                    f,
                    "the rule asks for the event log of this boot, and {path} can't be read ({why}): {next}, or say \
                           where it is with --event-log FILE"
                )
            }
            Self::EventLogLength { path, found } => {
                let path = path.display();
                write!(
                    f,
                    "{path} has {found} bytes, where an event log has 1 to {EVENT_LOG_BYTES_MAX}: name another with \
                           --event-log FILE"
                )
            }
            Self::AttestationKey(error) => write!(f, "this machine's attestation key: {error}"),
            Self::Secret(error) => error.fmt(f),
            Self::GrantSignature => f.write_str("the grant is not signed by the vault's identity key"),
            Self::LogProof(error) => write!(f, "the release is not proven to be in the vault's log: {error}"),
            Self::Entry(error) => write!(f, "the log entry of the release: {error}"),
            Self::NotARelease => f.write_str("the log entry of the grant is not a release"),
            Self::OtherRelease { field } => {
                write!(f, "the log entry states another release than the one asked for: its {field} differs")
            }
            Self::Epoch(error) => error.fmt(f),
            Self::LeaseSignature => f.write_str("the lease is not signed by the vault's identity key"),
            Self::LeaseMalformed => f.write_str("what the vault signed is not a lease statement of this version"),
            Self::OtherLease { field } => write!(f, "the signed lease is another one: its {field} differs"),
            Self::LeaseNotNewer => f.write_str("the renewal is no newer than the lease that is held"),
            Self::Wrap(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for SessionError {}

/// Errors of the parts that a session is made of.
macro_rules! from {
    ($($variant:ident: $error:ty),+) => { $(
        impl From<$error> for SessionError {
            fn from(error: $error) -> Self {
                Self::$variant(error)
            }
        }
    )+ };
}

from! {
    Select: SelectError, Tpm: TpmError, Chip: ChipError, ChipUnusable: NoSnpDevice, AttestationKey: VerifyError, Secret: SecretError, LogProof: ProofError,
    Entry: EntryError, Wrap: WrapError
}
