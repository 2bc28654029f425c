//! Extensions (FORMAT.md §7): a keeper's outage must not end a fleet. As many approvers as a policy takes sign offline that
//! leases run on for a while; agents take it where no keeper can be reached, and the keeper logs it when it is back.
//!
//! An extension file carries the text of the policy whose approvers signed: an agent knows that policy by its digest, from
//! the last word that it had of its keeper.

mod error;

use std::fmt;

use attestation::{Sha256Digest, UnixTime, lv};
use serde::{Deserialize, Serialize};

pub use error::ExtensionError;

use crate::approvals::{self, ApprovalAction, SSHSIG_BYTES_MAX, STATEMENT_BYTES_MAX};
use crate::json;
use crate::names::{Name, Version};
use crate::policy::{POLICY_BYTES_MAX, Policy};

/// Longest extension, in seconds.
pub const EXTENSION_SECS_MAX: u64 = 7 * 24 * 60 * 60;
/// Longest extension without its approvals, in bytes.
pub const EXTENSION_BYTES_MAX: usize = 1 << 10;
/// Longest extension file, in bytes.
pub const EXTENSION_FILE_BYTES_MAX: usize = 64 << 10;
/// The most approvals that a file carries: what an entry of the log has room for.
pub const EXTENSION_APPROVALS_MAX: usize = 8;

const VERSION: u64 = 1;
const TAG: &[u8] = b"weightvault/v1 extension\0";

/// Which leases run on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "by", rename_all = "kebab-case", deny_unknown_fields)]
pub enum ExtendedLeases {
    /// All of the vault.
    All {},
    /// Those of a model, or of one version of it.
    Model {
        /// Its name.
        model: Name,
        /// `None`: every version.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        version: Option<Version>,
    },
    /// One.
    Lease {
        /// Its id.
        lease: Sha256Digest,
    },
}

impl ExtendedLeases {
    /// Whether a lease is one of them.
    pub fn cover(&self, id: Sha256Digest, of: &Name, at: &Version) -> bool {
        match self {
            Self::All {} => true,
            Self::Model { model, version } => model == of && version.as_ref().is_none_or(|version| version == at),
            Self::Lease { lease } => *lease == id,
        }
    }
}

impl fmt::Display for ExtendedLeases {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::All {} => f.write_str("every lease of the vault"),
            Self::Model { model, version: Some(version) } => write!(f, "every lease of {model}@{version}"),
            Self::Model { model, version: None } => write!(f, "every lease of {model}"),
            Self::Lease { lease } => write!(f, "lease {lease}"),
        }
    }
}

/// What approvers agree to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Extension {
    v: u64,
    /// From then on it counts.
    pub not_before: UnixTime,
    /// The new last moment of the leases; at most 7 days after `not_before`.
    pub until: UnixTime,
    /// Which.
    pub leases: ExtendedLeases,
}

impl Extension {
    /// Refuses one that lasts for longer than 7 days, or for no time.
    ///
    /// # Errors
    /// [`ExtensionError::Span`].
    pub fn new(not_before: UnixTime, until: UnixTime, leases: ExtendedLeases) -> Result<Self, ExtensionError> {
        let span = until.seconds().checked_sub(not_before.seconds());
        match span.filter(|span| (1..=EXTENSION_SECS_MAX).contains(span)) {
            Some(_) => Ok(Self { v: VERSION, not_before, until, leases }),
            None => Err(ExtensionError::Span { not_before, until }),
        }
    }

    /// Reads exact bytes; any spelling but the one that [`Self::encode`] writes is refused.
    ///
    /// # Errors
    /// [`ExtensionError::Malformed`], [`ExtensionError::Span`].
    pub fn parse(bytes: &[u8]) -> Result<Self, ExtensionError> {
        if bytes.len() > EXTENSION_BYTES_MAX {
            return Err(ExtensionError::Malformed);
        }
        let read: Self = json::parse_object(bytes).map_err(|_| ExtensionError::Malformed)?;
        let (version, extension) = (read.v, Self::new(read.not_before, read.until, read.leases)?);
        if version == VERSION && extension.encode() == bytes { Ok(extension) } else { Err(ExtensionError::Malformed) }
    }

    /// The one spelling.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("texts and integers always serialise")
    }

    /// What approvals name: SHA-256(`"weightvault/v1 extension\0"` ‖ lv(extension)).
    #[must_use]
    pub fn object(&self) -> Sha256Digest {
        Sha256Digest::of(&[TAG, &lv(&[&self.encode()])].concat())
    }
}

/// One approver's statement and his signature over it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExtensionApproval {
    /// Exact bytes; its `not_after` is the extension's `until`.
    pub statement: String,
    /// Armored SSHSIG.
    pub signature: String,
}

/// An extension with its approvals, as it goes from hand to hand. Claims, until it is verified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExtensionFile {
    /// The text of the policy whose approvers sign.
    pub policy: String,
    /// What they sign.
    pub extension: Extension,
    /// Their signatures.
    pub approvals: Vec<ExtensionApproval>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct FileFields {
    v: u64,
    extension: String,
    approvals: Vec<ExtensionApproval>,
    policy: String,
}

impl ExtensionFile {
    /// Reads a file of at most 64 KiB.
    ///
    /// # Errors
    /// [`ExtensionError::FileMalformed`], and of the extension in it.
    pub fn parse(bytes: &[u8]) -> Result<Self, ExtensionError> {
        if bytes.len() > EXTENSION_FILE_BYTES_MAX {
            return Err(ExtensionError::FileMalformed);
        }
        let fields: FileFields = json::parse_object(bytes).map_err(|_| ExtensionError::FileMalformed)?;
        let short = |approval: &ExtensionApproval| {
            approval.statement.len() <= STATEMENT_BYTES_MAX && approval.signature.len() <= SSHSIG_BYTES_MAX
        };
        let bounded = fields.approvals.len() <= EXTENSION_APPROVALS_MAX && fields.approvals.iter().all(short);
        if fields.v != VERSION || !bounded || fields.policy.len() > POLICY_BYTES_MAX {
            return Err(ExtensionError::FileMalformed);
        }
        let extension = Extension::parse(fields.extension.as_bytes())?;
        Ok(Self { policy: fields.policy, extension, approvals: fields.approvals })
    }

    /// The file.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let extension = String::from_utf8(self.extension.encode()).expect("JSON is text");
        let (approvals, policy) = (self.approvals.clone(), self.policy.clone());
        serde_json::to_vec_pretty(&FileFields { v: VERSION, extension, approvals, policy })
            .expect("texts and integers always serialise")
    }

    /// Checks the signatures of enough approvers of the policy that the agent knows to be in force.
    ///
    /// # Errors
    /// [`ExtensionError`].
    pub fn verify(&self, vault: Sha256Digest, in_force: Sha256Digest) -> Result<ApprovedExtension, ExtensionError> {
        if Sha256Digest::of(self.policy.as_bytes()) != in_force {
            return Err(ExtensionError::PolicyNotInForce);
        }
        let policy = Policy::parse(&self.policy).map_err(|_| ExtensionError::PolicyNotInForce)?;
        approved(&self.extension, &self.approvals, vault, &policy)
    }
}

/// An extension that enough approvers have signed. Only a verification makes one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApprovedExtension(Extension);

impl ApprovedExtension {
    /// What was approved.
    pub fn extension(&self) -> &Extension {
        &self.0
    }

    /// The new last moment of a lease, if this is about it and counts at `now`.
    ///
    /// # Errors
    /// [`ExtensionError::OtherLease`], [`ExtensionError::NotYet`], [`ExtensionError::Expired`].
    pub fn until(
        &self,
        lease: Sha256Digest,
        model: &Name,
        version: &Version,
        now: UnixTime,
    ) -> Result<UnixTime, ExtensionError> {
        let Extension { not_before, until, leases, .. } = &self.0;
        if !leases.cover(lease, model, version) {
            return Err(ExtensionError::OtherLease);
        }
        if now < *not_before {
            return Err(ExtensionError::NotYet { not_before: *not_before });
        }
        if now > *until {
            return Err(ExtensionError::Expired { until: *until });
        }
        Ok(*until)
    }
}

/// As many approvals as the policy takes, by distinct approvers of it, each of exactly this.
pub(crate) fn approved(
    extension: &Extension,
    approvals: &[ExtensionApproval],
    vault: Sha256Digest,
    policy: &Policy,
) -> Result<ApprovedExtension, ExtensionError> {
    let mut signed: Vec<Name> = Vec::new();
    for ExtensionApproval { statement, signature } in approvals {
        let approval = approvals::verify(statement.as_bytes(), signature, &policy.approval().approvers)
            .map_err(ExtensionError::Approval)?;
        let said = approval.statement();
        if said.vault != vault {
            return Err(ExtensionError::OtherVault);
        }
        if said.action != ApprovalAction::Extend || said.object != extension.object() {
            return Err(ExtensionError::OtherObject);
        }
        if (said.previous, said.serial) != (policy.digest(), policy.serial()) {
            return Err(ExtensionError::PolicyNotInForce);
        }
        if said.not_after != extension.until {
            return Err(ExtensionError::OtherEnd);
        }
        if signed.contains(approval.approver()) {
            return Err(ExtensionError::ApproverRepeated { approver: approval.approver().clone() });
        }
        signed.push(approval.approver().clone());
    }
    let threshold = policy.approval().threshold;
    match u32::try_from(signed.len()) {
        Ok(given) if given < threshold => Err(ExtensionError::TooFew { given, threshold }),
        _ => Ok(ApprovedExtension(extension.clone())),
    }
}
