//! What the sections of a policy say.

use std::collections::BTreeSet;
use std::fmt;

use attestation::{
    EndorsedTpm, EnrolledEks, EvidenceForm, Expected, Sha256Digest, TpmIdentity, TrustAnchors, UnixTime, VerifyError,
};

use super::pcrs::PcrRule;
use super::snp::SnpRule;
use super::workload::WorkloadRule;
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
    /// How many must sign a revocation, whoever proposes it included; where it is not written, as many as a policy.
    pub revoke_threshold: u32,
    /// How many must sign break-glass, at least `threshold`; `None`: there is none.
    pub break_glass_threshold: Option<u32>,
    /// The standing approvals of the policy before that go on, by object.
    pub standing: Vec<Sha256Digest>,
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
    /// An SEV-SNP report.
    Snp,
}

impl fmt::Display for Proof {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tpm => "tpm",
            Self::Snp => "snp",
        })
    }
}

/// What a TPM that its EK endorses must show.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TpmRule {
    /// What the machine must have booted.
    pub pcrs: PcrRule,
    /// Which TPMs, by platform id.
    pub platforms: Permitted<Sha256Digest>,
    /// Whether an EK without a certificate will do.
    pub bare_eks: BareEks,
}

/// `ek_without_certificate`: whether a rule takes EKs that have no certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BareEks {
    /// `false`, or the key is not there: only a certificate endorses an EK. Always so for a keeper.
    Refused,
    /// `true`: those that were enrolled will do, as far as `eks` permits them.
    Enrolled,
}

/// `[keeper]`: what a keeper must prove.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeeperRule {
    /// `require = ["tpm"]`.
    Tpm(TpmRule),
    /// `require = ["snp"]`.
    Snp {
        /// What its report must show.
        snp: Box<SnpRule>,
        /// The TPM that it seals to as well, and counts with. It stays unbound: what it quotes is checked and shown, and
        /// proves nothing about the guest.
        tpm: TpmRule,
    },
}

impl KeeperRule {
    /// The proofs that it asks for.
    pub fn require(&self) -> BTreeSet<Proof> {
        match self {
            Self::Tpm(_) => BTreeSet::from([Proof::Tpm]),
            Self::Snp { .. } => BTreeSet::from([Proof::Snp]),
        }
    }

    /// The TPM that takes part. A keeper of this version has one, whatever it has to prove: it counts there.
    pub const fn tpm(&self) -> &TpmRule {
        match self {
            Self::Tpm(tpm) | Self::Snp { tpm, .. } => tpm,
        }
    }

    /// The report, if there is one.
    pub fn snp(&self) -> Option<&SnpRule> {
        match self {
            Self::Tpm(_) => None,
            Self::Snp { snp, .. } => Some(snp),
        }
    }
}

/// What a guest must prove.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum GuestRule {
    /// `require = ["tpm"]`.
    Tpm(TpmRule),
    /// `require = ["snp"]` and `code_covered_by = "launch"`: the launch digest covers kernel, initrd and command line.
    Snp(Box<SnpRule>),
    /// `require = ["snp", "tpm"]` and `code_covered_by = "paravisor-vtpm"`: the launch digest covers the paravisor, and
    /// its virtual TPM, whose AK the report endorses, what was booted after it.
    SnpParavisorVtpm {
        /// What the report must show.
        snp: Box<SnpRule>,
        /// What the guest must have booted.
        pcrs: PcrRule,
    },
}

impl GuestRule {
    /// The proofs that it asks for.
    pub fn require(&self) -> BTreeSet<Proof> {
        match self {
            Self::Tpm(_) => BTreeSet::from([Proof::Tpm]),
            Self::Snp(_) => BTreeSet::from([Proof::Snp]),
            Self::SnpParavisorVtpm { .. } => BTreeSet::from([Proof::Snp, Proof::Tpm]),
        }
    }

    /// The form of evidence that fulfils it.
    pub const fn form(&self) -> EvidenceForm {
        match self {
            Self::Tpm(_) => EvidenceForm::Tpm,
            Self::Snp(_) => EvidenceForm::Snp,
            Self::SnpParavisorVtpm { .. } => EvidenceForm::AzureSnpVtpm,
        }
    }

    /// What evidence for it is checked against. Where an EK has to endorse a TPM, that of `identity` is verified; one that is
    /// `enrolled` will do only where the rule says so.
    pub fn expected(
        &self,
        identity: Option<&TpmIdentity>,
        anchors: &TrustAnchors,
        enrolled: &EnrolledEks,
        now: UnixTime,
    ) -> Result<Expected, VerifyError> {
        match self {
            Self::Tpm(rule) => {
                let identity = identity.ok_or(VerifyError::QuoteMissing)?;
                let tpm = match rule.bare_eks {
                    BareEks::Refused => EndorsedTpm::verify(identity, anchors, now)?,
                    BareEks::Enrolled => EndorsedTpm::verify_or_enrolled(identity, anchors, enrolled, now)?,
                };
                Ok(Expected::Tpm { tpm, pcrs: rule.pcrs.selection() })
            }
            Self::Snp(snp) => Ok(Expected::Snp { crl: snp.crl }),
            Self::SnpParavisorVtpm { snp, pcrs } => Ok(Expected::AzureSnpVtpm { crl: snp.crl, pcrs: pcrs.selection() }),
        }
    }

    /// The PCRs that have to be quoted, if any.
    pub const fn pcrs(&self) -> Option<&PcrRule> {
        match self {
            Self::Tpm(tpm) => Some(&tpm.pcrs),
            Self::Snp(_) => None,
            Self::SnpParavisorVtpm { pcrs, .. } => Some(pcrs),
        }
    }

    /// What the report must show, if there is one.
    pub fn snp(&self) -> Option<&SnpRule> {
        match self {
            Self::Tpm(_) => None,
            Self::Snp(snp) | Self::SnpParavisorVtpm { snp, .. } => Some(snp),
        }
    }

    /// The EKs that it permits, if it asks for one.
    pub const fn eks(&self) -> Option<&Permitted<Sha256Digest>> {
        match self {
            Self::Tpm(tpm) => Some(&tpm.platforms),
            Self::Snp(_) | Self::SnpParavisorVtpm { .. } => None,
        }
    }

    /// Whether it takes EKs without a certificate.
    pub const fn bare_eks(&self) -> BareEks {
        match self {
            Self::Tpm(tpm) => tpm.bare_eks,
            Self::Snp(_) | Self::SnpParavisorVtpm { .. } => BareEks::Refused,
        }
    }

    /// Whether evidence of this platform can fulfil it at all: for the fold, which has no evidence.
    pub fn permits_platform(&self, platform: Sha256Digest) -> bool {
        match self {
            Self::Tpm(tpm) => tpm.platforms.permits(&platform),
            Self::Snp(snp) | Self::SnpParavisorVtpm { snp, .. } => snp.permits_platform(platform),
        }
    }
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
    /// What the guest must prove.
    pub guest: GuestRule,
    /// What it must start.
    pub workloads: WorkloadRule,
    /// How long a grant lasts without a renewal.
    pub lease: LeaseTime,
    /// What an agent does when its lease is over.
    pub lease_end: LeaseEnd,
    /// How many leases of this rule may run at once; at least 1.
    pub max_leases: u32,
    /// Whether an agent checks the hash of each unit.
    pub unit_check: UnitCheck,
    /// How many approvers must sign the standing approval that a release waits for; `None`: it waits for none.
    pub approvals: Option<u32>,
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

    /// For how long an agent still holds weights after its lease is lost, but for the moment that an end takes.
    pub fn drain_seconds(self) -> u64 {
        match self {
            Self::End => 0,
            Self::Drain { seconds } => seconds.into(),
        }
    }
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
