//! Platforms whose EKs have no certificate: what is proposed of them, and what came of it.

use attestation::{Sha256Digest, Trust, UnixTime, lv};
use serde::{Deserialize, Serialize};

use crate::names::Name;

const PLATFORM_TAG: &[u8] = b"weightvault/v1 platform\0";

/// What is to become of a platform.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PlatformAct {
    /// Its EK is enrolled.
    Add,
    /// It no longer is.
    Remove,
}

impl PlatformAct {
    /// As entries and requests spell it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Add => "add",
            Self::Remove => "remove",
        }
    }
}

/// A change of the platforms, all that approvers agree to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlatformChange {
    /// Add or remove.
    pub act: PlatformAct,
    /// Platform id of the EK: SHA-256 of its SubjectPublicKeyInfo.
    pub platform: Sha256Digest,
    /// What people call the machine; one label is of one platform.
    pub label: Name,
    /// What its TPM counts as. There is no default, and a removal repeats what was said.
    pub counts_as: Trust,
    /// How many changes of this platform there have been under the policy in force: so no approval of one counts for
    /// another, though all else be the same.
    pub revision: u64,
}

impl PlatformChange {
    /// What approvals name: SHA-256(tag ‖ lv(act, platform, label, counts_as, be64(revision))).
    pub fn object(&self) -> Sha256Digest {
        let counts_as = self.counts_as.to_string();
        let fields = lv(&[
            self.act.as_str().as_bytes(),
            self.platform.as_bytes(),
            self.label.as_str().as_bytes(),
            counts_as.as_bytes(),
            &self.revision.to_be_bytes(),
        ]);
        Sha256Digest::of(&[PLATFORM_TAG, &fields].concat())
    }
}

/// A change of the platforms that waits for approvals, signed by an approver of the policy in force.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProposedPlatform {
    /// [`PlatformChange::object`].
    pub object: Sha256Digest,
    /// As in [`PlatformChange`].
    pub act: PlatformAct,
    /// As in [`PlatformChange`].
    pub platform: Sha256Digest,
    /// As in [`PlatformChange`].
    pub label: Name,
    /// As in [`PlatformChange`].
    pub counts_as: Trust,
    /// As in [`PlatformChange`].
    pub revision: u64,
    /// The proposer's statement, exact bytes.
    pub statement: String,
    /// Armored SSHSIG over the statement.
    pub signature: String,
}

impl ProposedPlatform {
    /// A proposal of this change.
    pub fn new(change: PlatformChange, statement: String, signature: String) -> Self {
        let object = change.object();
        let PlatformChange { act, platform, label, counts_as, revision } = change;
        Self { object, act, platform, label, counts_as, revision, statement, signature }
    }

    /// What is proposed.
    pub fn change(&self) -> PlatformChange {
        PlatformChange {
            act: self.act,
            platform: self.platform,
            label: self.label.clone(),
            counts_as: self.counts_as,
            revision: self.revision,
        }
    }
}

/// A platform was enrolled, or removed, from here on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PlatformInForce {
    /// When.
    pub time: UnixTime,
    /// Index of its `propose` entry.
    pub proposal: u64,
    /// What the approvals named.
    pub object: Sha256Digest,
    /// Add or remove.
    pub act: PlatformAct,
    /// Which platform.
    pub platform: Sha256Digest,
}
