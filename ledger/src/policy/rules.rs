//! What the sections of a policy say.

use std::collections::BTreeSet;
use std::fmt;

use attestation::Sha256Digest;

use super::pcrs::PcrRule;
use crate::approvals::ApproverKey;
use crate::model_signature::PublisherKey;
use crate::names::{Group, Name};

/// Everything, which has to be spelled out, or only what is listed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Permitted<T> {
    /// `"any"`.
    Any,
    /// These; at least one, none twice.
    Only(Vec<T>),
}

impl<T: PartialEq> Permitted<T> {
    /// Whether `item` is permitted.
    pub fn permits(&self, item: &T) -> bool {
        match self {
            Self::Any => true,
            Self::Only(items) => items.contains(item),
        }
    }

    /// Whether all that this permits, `other` permits too.
    pub fn is_within(&self, other: &Self) -> bool {
        match self {
            Self::Any => matches!(other, Self::Any),
            Self::Only(items) => items.iter().all(|item| other.permits(item)),
        }
    }
}

impl<T: fmt::Display> fmt::Display for Permitted<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Any => f.write_str("any"),
            Self::Only(items) => items
                .iter()
                .enumerate()
                .try_for_each(|(index, item)| if index > 0 { write!(f, ", {item}") } else { write!(f, "{item}") }),
        }
    }
}

/// `[approval]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Approval {
    /// How many approvers must sign a policy.
    pub threshold: u32,
    /// Whether the signature of the one who proposed a policy counts.
    pub proposer: ProposerRule,
    /// All approvers; ids and keys are distinct.
    pub approvers: Vec<Approver>,
}

/// `proposer_may_approve`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProposerRule {
    /// Four eyes become three: the proposer's own approval counts.
    MayApprove,
    /// Others must approve.
    MayNotApprove,
}

/// An approver, or a reader of the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Approver {
    /// What the log calls him.
    pub id: Name,
    /// His key.
    pub key: ApproverKey,
}

impl fmt::Display for Approver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.id, self.key)
    }
}

/// A kind of evidence that a rule requires.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Proof {
    /// A TPM 2.0 quote.
    Tpm,
}

impl fmt::Display for Proof {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tpm => "tpm",
        })
    }
}

/// `[keeper]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeeperRule {
    /// The proofs that are needed, all of them.
    pub require: BTreeSet<Proof>,
    /// What it must have booted.
    pub pcrs: PcrRule,
    /// Which TPMs, by platform id.
    pub platforms: Permitted<Sha256Digest>,
}

/// `[publish.NAME]`.
#[derive(Debug, Clone)]
pub struct PublishRule {
    /// Which models.
    pub models: Permitted<Name>,
    /// Whose signature.
    pub keys: Vec<PublisherKey>,
    /// How many approvers must sign.
    pub approvals: u32,
}

impl PublishRule {
    /// Whether the rule names the model and has the key.
    pub fn covers(&self, model: &Name, publisher: Sha256Digest) -> bool {
        self.models.permits(model) && self.keys.iter().any(|key| key.digest() == publisher)
    }
}

/// `[release.NAME]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReleaseRule {
    /// Which models.
    pub models: Permitted<Name>,
    /// Which groups of units, besides the header units, which every grant may have.
    pub groups: Permitted<Group>,
    /// The proofs that are needed, all of them.
    pub require: BTreeSet<Proof>,
    /// What the guest must have booted.
    pub pcrs: PcrRule,
    /// Which TPMs, by platform id.
    pub platforms: Permitted<Sha256Digest>,
    /// How long a grant lasts without a renewal.
    pub lease: LeaseTime,
    /// What an agent does when its lease is over.
    pub lease_end: LeaseEnd,
    /// How many leases of this rule may run at once; at least 1.
    pub max_leases: u32,
    /// Whether an agent checks the hash of each unit.
    pub unit_check: UnitCheck,
}

impl ReleaseRule {
    /// Whether the rule gives units of this group.
    pub fn grants(&self, group: &Group) -> bool {
        group.is_header() || self.groups.permits(group)
    }
}

/// The length of a lease: 60 seconds to 7 days.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct LeaseTime(u32);

impl LeaseTime {
    /// Shortest lease, in seconds.
    pub const SECS_MIN: u64 = 60;
    /// Longest lease, in seconds.
    pub const SECS_MAX: u64 = 7 * 24 * 60 * 60;

    /// `None` outside of the bounds.
    pub(super) fn from_seconds(seconds: u64) -> Option<Self> {
        let seconds = (Self::SECS_MIN..=Self::SECS_MAX).contains(&seconds).then_some(seconds)?;
        u32::try_from(seconds).ok().map(Self)
    }

    /// In seconds.
    pub fn seconds(self) -> u64 {
        u64::from(self.0)
    }
}

/// `on_lease_end`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LeaseEnd {
    /// The program that reads the weights ends at once.
    End,
    /// It is told to stop, and ended after this time.
    Drain {
        /// From 1 up, at most an hour.
        seconds: u32,
    },
}

impl LeaseEnd {
    /// Longest drain, in seconds.
    pub const DRAIN_SECS_MAX: u64 = 60 * 60;
}

impl fmt::Display for LeaseEnd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::End => f.write_str("end"),
            Self::Drain { seconds } => write!(f, "drain {seconds}s"),
        }
    }
}

/// `verify_units`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UnitCheck {
    /// `true`: each sealed unit is hashed and compared with the manifest. Only this stops a node that was granted a unit
    /// from forging it for others.
    Hashed,
    /// `false`: the seal of the unit is all.
    SealOnly,
}
