//! Refusals: exact for the operator and the log. A requester learns less.

use std::fmt;

use attestation::{EvidenceForm, Sha256Digest, Trust, UnixTime, Workload};

use crate::entry::{Action, Deny, Entry};
use crate::names::{Group, Name, Version};
use crate::policy::{AlarmOn, BootMismatch, OverBudget, PcrMismatch, SnpMismatch, WorkloadField, WorkloadMismatch};
use crate::state::BudgetRefusal;

/// A request that was refused, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Denial {
    // Boxed, so that the other path does not carry its size.
    request: Box<DeniedRequest>,
    reason: DenialReason,
}

/// Who asked for what.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeniedRequest {
    /// Load or renew.
    pub action: Action,
    /// The rule that was named.
    pub rule: String,
    /// The model; empty for the renewal of an unknown lease.
    pub model: String,
    /// Its version; empty likewise.
    pub version: String,
    /// Platform id of the requester.
    pub platform: Sha256Digest,
    /// What his evidence rests on.
    pub tier: Trust,
    /// What he starts, if he was asked.
    pub workload: Option<Workload>,
}

/// One variant for each thing that a decision checks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DenialReason {
    /// There is no vault yet.
    VaultNotOpen,
    /// `now` is before the last entry.
    TimeBehindLog {
        /// Of the last entry.
        last: UnixTime,
        /// As it was given.
        now: UnixTime,
    },
    /// Made for another vault.
    VaultMismatch {
        /// This vault.
        expected: Sha256Digest,
        /// The one in the binding.
        seen: Sha256Digest,
    },
    /// The policy changed after the challenge: ask again.
    PolicyChanged {
        /// In force now.
        in_force: Sha256Digest,
        /// In the binding.
        seen: Sha256Digest,
    },
    /// The policy is past its last moment.
    PolicyExpired {
        /// Its last moment.
        not_after: UnixTime,
        /// Now.
        now: UnixTime,
    },
    /// The policy has no such release rule.
    RuleUnknown {
        /// The name.
        rule: String,
    },
    /// The log has no such model.
    ModelNotPublished {
        /// The name.
        model: String,
        /// The version.
        version: String,
    },
    /// Another manifest than the published one.
    ManifestMismatch {
        /// In the log.
        logged: Sha256Digest,
        /// In the binding, or given.
        seen: Sha256Digest,
    },
    /// The rule does not name the model.
    ModelNotInRule {
        /// The rule.
        rule: Name,
        /// The model.
        model: Name,
    },
    /// The model has no such unit.
    UnitUnknown {
        /// Its index.
        index: u32,
    },
    /// The rule does not give a unit's group.
    GroupNotGranted {
        /// The rule.
        rule: Name,
        /// The first such unit.
        index: u32,
        /// Its group.
        group: Group,
    },
    /// The evidence rests on an anchor that the policy in force does not have, or not with this trust.
    AnchorNotInPolicy {
        /// The anchor.
        anchor: String,
        /// Its trust, as the evidence was verified.
        tier: Trust,
    },
    /// The EK has no certificate, and its platform is not enrolled any more, or not with this trust.
    PlatformNotEnrolled {
        /// The platform.
        platform: Sha256Digest,
    },
    /// The EK has no certificate, and the rule does not take such EKs.
    EkWithoutCertificate {
        /// The rule.
        rule: Name,
        /// The platform.
        platform: Sha256Digest,
    },
    /// The rule does not list the platform.
    PlatformNotListed {
        /// The rule.
        rule: Name,
        /// The platform.
        platform: Sha256Digest,
    },
    /// The rule wants another form of evidence.
    ProofMissing {
        /// The rule.
        rule: Name,
        /// What it wants.
        required: EvidenceForm,
        /// What was shown.
        seen: EvidenceForm,
    },
    /// The SNP report shows something that the rule does not allow.
    ReportNotAllowed {
        /// The rule.
        rule: Name,
        /// The claim and its value.
        mismatch: SnpMismatch,
    },
    /// The machine booted something else.
    PcrNotAllowed {
        /// The rule.
        rule: Name,
        /// The values that it allows.
        allowed: Vec<[u8; 32]>,
        /// The PCR and its value.
        mismatch: PcrMismatch,
    },
    /// The events of the boot are not there, or say something else than the rule asks.
    BootNotAllowed {
        /// The rule.
        rule: Name,
        /// What they say.
        mismatch: BootMismatch,
    },
    /// The guest starts something that the rule does not allow, or does not say what.
    WorkloadNotAllowed {
        /// The rule.
        rule: Name,
        /// What it starts.
        mismatch: WorkloadMismatch,
    },
    /// Something else runs than the release of the lease says.
    WorkloadChanged {
        /// The first part that differs.
        field: WorkloadField,
        /// The lease's.
        granted: Option<Sha256Digest>,
        /// What was shown now.
        seen: Option<Sha256Digest>,
    },
    /// The lease exists already.
    LeaseRepeated {
        /// Its id.
        lease: Sha256Digest,
    },
    /// The rule's leases are all taken.
    TooManyLeases {
        /// The rule.
        rule: Name,
        /// Its `max_leases`.
        max: u32,
        /// How many run.
        leases: u32,
    },
    /// A budget lets it not through.
    Budget(BudgetRefusal),
    /// An alarm rule holds it until approvers let it through.
    HeldByAlarm {
        /// Name of the rule.
        alarm: Name,
        /// What rang.
        on: AlarmOn,
    },
    /// The rule asks for a standing approval, and none covers the release.
    NotApproved {
        /// The rule.
        rule: Name,
        /// How many approvals it asks for.
        approvals: u32,
    },
    /// There is no such lease, or it ended.
    LeaseUnknown {
        /// Its id.
        lease: Sha256Digest,
    },
    /// The lease ran out.
    LeaseLapsed {
        /// Its last moment.
        renew_by: UnixTime,
        /// Now.
        now: UnixTime,
    },
    /// The lease was granted under another rule than the one named.
    RuleOfAnotherLease {
        /// The lease's.
        granted: Name,
        /// The one named.
        named: String,
    },
    /// Another key than the lease's.
    LeaseKeyMismatch,
    /// Another machine than the lease's.
    PlatformChanged {
        /// The lease's.
        granted: Sha256Digest,
        /// The one that asks.
        seen: Sha256Digest,
    },
    /// Another attestation key than the lease's.
    AkChanged,
    /// Another form of evidence than at the release.
    ProofChanged,
    /// Another guest than the lease's: the REPORT_ID differs.
    GuestChanged {
        /// The lease's.
        granted: [u8; 32],
        /// The one that asks.
        seen: [u8; 32],
    },
    /// The machine was reset or resumed since the release: (resetCount, restartCount).
    Rebooted {
        /// At the release.
        granted: (u32, u32),
        /// Now.
        seen: (u32, u32),
    },
    /// The proof rests on another kind of anchor than at the release.
    TierChanged {
        /// At the release.
        granted: Trust,
        /// Now.
        seen: Trust,
    },
    /// The rule no longer gives every group that it gave at the release.
    GroupsNarrowed {
        /// The rule.
        rule: Name,
    },
    /// Approvers revoked it.
    Revoked {
        /// Index of the `revoke` entry.
        revocation: u64,
    },
}

/// A refusal in words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Explanation {
    /// What was checked.
    pub claim: &'static str,
    /// What it should have been.
    pub expected: String,
    /// What it was.
    pub seen: String,
    /// The key of the policy that asks for it, such as `release.llama.pcrs.11`.
    pub policy_key: Option<String>,
}

impl Denial {
    pub(super) fn new(request: DeniedRequest, reason: DenialReason) -> Self {
        Self { request: Box::new(request), reason }
    }

    /// Who asked for what.
    pub fn request(&self) -> &DeniedRequest {
        &self.request
    }

    /// Why not.
    pub fn reason(&self) -> &DenialReason {
        &self.reason
    }

    /// Stable code.
    pub fn code(&self) -> &'static str {
        self.reason.code()
    }

    /// The `deny` entry. `None` where what was named cannot be a name, which no challenge is ever made for, or where the
    /// lease to renew is unknown, and with it the model.
    pub fn entry(&self, now: UnixTime, evidence: Sha256Digest) -> Option<Entry> {
        Some(Entry::Deny(Deny {
            time: now,
            code: Name::try_from(self.code()).ok()?,
            action: self.request.action,
            rule: Name::try_from(self.request.rule.as_str()).ok()?,
            model: Name::try_from(self.request.model.as_str()).ok()?,
            version: Version::try_from(self.request.version.as_str()).ok()?,
            platform: self.request.platform,
            evidence,
            workload: self.request.workload,
        }))
    }
}

impl DenialReason {
    /// Stable code.
    pub fn code(&self) -> &'static str {
        match self {
            Self::VaultNotOpen => "vault-not-open",
            Self::TimeBehindLog { .. } => "time-behind-log",
            Self::VaultMismatch { .. } => "vault-mismatch",
            Self::PolicyChanged { .. } => "policy-changed",
            Self::PolicyExpired { .. } => "policy-expired",
            Self::RuleUnknown { .. } => "rule-unknown",
            Self::ModelNotPublished { .. } => "model-not-published",
            Self::ManifestMismatch { .. } => "manifest-mismatch",
            Self::ModelNotInRule { .. } => "model-not-in-rule",
            Self::UnitUnknown { .. } => "unit-unknown",
            Self::GroupNotGranted { .. } => "group-not-granted",
            Self::AnchorNotInPolicy { .. } => "anchor-not-in-policy",
            Self::PlatformNotEnrolled { .. } => "platform-not-enrolled",
            Self::EkWithoutCertificate { .. } => "ek-without-certificate",
            Self::PlatformNotListed { .. } => "platform-not-listed",
            Self::ProofMissing { .. } => "proof-missing",
            Self::ReportNotAllowed { mismatch, .. } => mismatch.code(),
            Self::PcrNotAllowed { .. } => "pcr-not-allowed",
            Self::BootNotAllowed { mismatch, .. } => mismatch.code(),
            Self::WorkloadNotAllowed { mismatch, .. } => mismatch.code(),
            Self::WorkloadChanged { .. } => "workload-changed",
            Self::LeaseRepeated { .. } => "lease-repeated",
            Self::TooManyLeases { .. } => "too-many-leases",
            Self::Budget(refusal) => refusal.code(),
            Self::HeldByAlarm { .. } => "held-by-alarm",
            Self::NotApproved { .. } => "release-not-approved",
            Self::LeaseUnknown { .. } => "lease-unknown",
            Self::LeaseLapsed { .. } => "lease-lapsed",
            Self::RuleOfAnotherLease { .. } => "rule-of-another-lease",
            Self::LeaseKeyMismatch => "lease-key-mismatch",
            Self::PlatformChanged { .. } => "platform-changed",
            Self::AkChanged => "ak-changed",
            Self::ProofChanged => "proof-changed",
            Self::GuestChanged { .. } => "guest-changed",
            Self::Rebooted { .. } => "rebooted",
            Self::TierChanged { .. } => "tier-changed",
            Self::GroupsNarrowed { .. } => "groups-narrowed",
            Self::Revoked { .. } => "revoked",
        }
    }

    /// Whether it waits for approvers, who can let it through as it is.
    pub fn waits(&self) -> bool {
        matches!(self, Self::HeldByAlarm { .. } | Self::NotApproved { .. })
            || matches!(self, Self::Budget(BudgetRefusal::Over(excess)) if excess.over == OverBudget::Hold)
    }

    /// The refusal in words: claim, expected, seen, key of the policy.
    pub fn explain(&self) -> Explanation {
        let of = |claim, expected: String, seen: String| Explanation { claim, expected, seen, policy_key: None };
        let by = |claim, expected: String, seen: String, rule: &Name, key: &str| Explanation {
            policy_key: Some(format!("release.{rule}.{key}")),
            ..of(claim, expected, seen)
        };
        match self {
            Self::VaultNotOpen => of("vault", "open".into(), "approvals of the genesis are missing".into()),
            Self::TimeBehindLog { last, now } => of("time", format!("not before {last}"), now.to_string()),
            Self::VaultMismatch { expected, seen } => of("vault", expected.to_string(), seen.to_string()),
            Self::PolicyChanged { in_force, seen } => of("policy", in_force.to_string(), seen.to_string()),
            Self::PolicyExpired { not_after, now } => Explanation {
                policy_key: Some("not_after".into()),
                ..of("time", format!("at most {not_after}"), now.to_string())
            },
            Self::RuleUnknown { rule } => {
                of("rule", "a release rule of the policy in force".into(), format!("{rule:?}"))
            }
            Self::ModelNotPublished { model, version } => {
                of("model", "a model that the log has".into(), format!("{model:?}, version {version:?}"))
            }
            Self::ManifestMismatch { logged, seen } => of("manifest", logged.to_string(), seen.to_string()),
            Self::ModelNotInRule { rule, model } => {
                by("model", "a model that the rule names".into(), model.to_string(), rule, "models")
            }
            Self::UnitUnknown { index } => of("unit", "a unit of the manifest".into(), index.to_string()),
            Self::GroupNotGranted { rule, index, group } => {
                by("group", "a group that the rule gives".into(), format!("{group} (unit {index})"), rule, "groups")
            }
            Self::AnchorNotInPolicy { anchor, tier } => Explanation {
                policy_key: Some("anchors".into()),
                ..of("anchor", "an anchor of the policy in force".into(), format!("{anchor}, {tier}"))
            },
            Self::PlatformNotEnrolled { platform } => {
                of("platform", "one that is enrolled".into(), format!("{platform}, whose EK has no certificate"))
            }
            Self::EkWithoutCertificate { rule, platform } => {
                let seen = format!("{platform}, which was enrolled");
                by("EK", "one with a certificate".into(), seen, rule, "ek_without_certificate")
            }
            Self::PlatformNotListed { rule, platform } => {
                by("platform", "a platform that the rule lists".into(), platform.to_string(), rule, "eks")
            }
            Self::ProofMissing { rule, required, seen } => {
                by("evidence", required.to_string(), seen.to_string(), rule, "require")
            }
            Self::ReportNotAllowed { rule, mismatch } => {
                let (claim, expected, seen) = mismatch.words();
                by(claim, expected, seen, rule, &format!("snp.{}", mismatch.key()))
            }
            Self::PcrNotAllowed { rule, allowed, mismatch } => {
                let allowed: Vec<String> = allowed.iter().map(hex::encode).collect();
                let key = format!("pcrs.{}", mismatch.index);
                by("boot state", format!("one of {}", allowed.join(", ")), mismatch.to_string(), rule, &key)
            }
            Self::BootNotAllowed { rule, mismatch } => {
                by("boot events", mismatch.expected().into(), mismatch.to_string(), rule, &mismatch.key())
            }
            Self::WorkloadNotAllowed { rule, mismatch } => {
                let (claim, expected, seen) = mismatch.words();
                by(claim, expected, seen, rule, "workloads")
            }
            Self::WorkloadChanged { field, granted, seen } => {
                let of_it = |digest: &Option<Sha256Digest>| digest.map_or("none".to_owned(), |it| it.to_string());
                of("workload of the lease", format!("{field} {}", of_it(granted)), of_it(seen))
            }
            Self::LeaseRepeated { lease } => of("lease", "a new one".into(), format!("{lease}, which is in the log")),
            Self::TooManyLeases { rule, max, leases } => {
                by("leases", format!("fewer than {max} running"), leases.to_string(), rule, "max_leases")
            }
            Self::Budget(refusal) => {
                Explanation { policy_key: refusal.policy_key(), ..of("budget", refusal.expected(), refusal.seen()) }
            }
            Self::HeldByAlarm { alarm, on } => Explanation {
                policy_key: Some(format!("alarm.{alarm}.on")),
                ..of(
                    "alarm",
                    format!("not {on}"),
                    format!("that; approvers let it through: vaultctl propose budget {alarm}"),
                )
            },
            Self::NotApproved { rule, approvals } => Explanation {
                policy_key: Some(format!("release.{rule}.approvals")),
                ..of(
                    "approval",
                    format!("a standing approval by {approvals}, not used up"),
                    "none that covers it".into(),
                )
            },
            Self::LeaseUnknown { lease } => of("lease", "one that runs".into(), lease.to_string()),
            Self::LeaseLapsed { renew_by, now } => of("time", format!("at most {renew_by}"), now.to_string()),
            Self::RuleOfAnotherLease { granted, named } => of("rule", granted.to_string(), format!("{named:?}")),
            Self::LeaseKeyMismatch => of("lease key", "the lease's own".into(), "another".into()),
            Self::PlatformChanged { granted, seen } => of("platform", granted.to_string(), seen.to_string()),
            Self::AkChanged => of("attestation key", "the lease's own".into(), "another".into()),
            Self::ProofChanged => of("evidence", "of the form that was shown at the release".into(), "another".into()),
            Self::GuestChanged { granted, seen } => of("report id", hex::encode(granted), hex::encode(seen)),
            Self::Rebooted { granted, seen } => {
                let counts = |(reset, restart): &(u32, u32)| format!("resetCount {reset}, restartCount {restart}");
                of("boot", counts(granted), counts(seen))
            }
            Self::TierChanged { granted, seen } => of("tier", granted.to_string(), seen.to_string()),
            Self::GroupsNarrowed { rule } => {
                by("groups", "all that the rule gave at the release".into(), "fewer".into(), rule, "groups")
            }
            Self::Revoked { revocation } => of(
                "revocations",
                "none that covers this".into(),
                format!("entry {revocation}, which approvers can lift"),
            ),
        }
    }
}

impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: expected {}, seen {}", self.claim, self.expected, self.seen)?;
        match &self.policy_key {
            Some(key) => write!(f, " (policy key {key})"),
            None => Ok(()),
        }
    }
}

impl fmt::Display for DenialReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.explain().fmt(f)
    }
}

impl fmt::Display for Denial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.reason.fmt(f)
    }
}

impl std::error::Error for Denial {}
