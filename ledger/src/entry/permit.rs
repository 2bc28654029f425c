//! Entries about permits: standing approvals and break-glass.

use attestation::{Sha256Digest, UnixTime};
use serde::{Deserialize, Serialize};

use crate::permit::{Permit, PermitKind};

/// A permit that waits for approvals.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProposedPermit {
    /// What approvals name: [`Permit::object`].
    pub object: Sha256Digest,
    /// The permit.
    pub permit: Permit,
    /// The proposer's statement, exact bytes.
    pub statement: String,
    /// Armored SSHSIG over the statement.
    pub signature: String,
}

/// A permit has its approvals and counts from here on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PermitInForce {
    /// When.
    pub time: UnixTime,
    /// Index of its `propose` entry.
    pub proposal: u64,
    /// What the approvals named.
    pub object: Sha256Digest,
    /// Which of the two it is.
    pub kind: PermitKind,
}
