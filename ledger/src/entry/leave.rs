//! Entries about a keeper that leaves the others.

use attestation::{Sha256Digest, UnixTime};
use serde::{Deserialize, Serialize};

use super::field;
use crate::keepers::leave_object;

/// That a keeper leaves, which waits for approvals. An approver of the policy in force signed it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProposedLeave {
    /// What approvals name: [`leave_object`].
    pub object: Sha256Digest,
    /// How many changes of keepers there were before.
    pub revision: u64,
    /// The keeper's instance.
    #[serde(with = "field::base64")]
    pub instance: [u8; 32],
    /// The proposer's statement, exact bytes.
    pub statement: String,
    /// Armored SSHSIG over the statement.
    pub signature: String,
}

/// A keeper decides no more: the others go on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeeperLeave {
    /// When.
    pub time: UnixTime,
    /// Index of its `propose` entry.
    pub proposal: u64,
    /// What the approvals named.
    pub object: Sha256Digest,
    /// The keeper's instance.
    #[serde(with = "field::base64")]
    pub instance: [u8; 32],
}

impl ProposedLeave {
    /// What is proposed, in the vault as it is.
    pub fn new(vault: Sha256Digest, revision: u64, instance: [u8; 32], statement: String, signature: String) -> Self {
        Self { object: leave_object(vault, revision, instance), revision, instance, statement, signature }
    }
}
