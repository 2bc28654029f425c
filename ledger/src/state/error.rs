use std::fmt;

use attestation::UnixTime;

use super::budgets::{BudgetRefusal, RAISE_SECS_MAX, RAISES_MAX};
use super::permits::PERMITS_MAX;
use crate::approvals::ApprovalError;
use crate::entry::EntryError;
use crate::escrow::EscrowError;
use crate::extension::ExtensionError;
use crate::genesis::GenesisError;
use crate::keepers::JoinError;
use crate::key_epoch::EpochError;
use crate::names::Name;
use crate::permit::{PERMIT_RELEASES_MAX, PermitKind};
use crate::policy::PolicyError;
use crate::policy::WorkloadMismatch;
use crate::reseal::ResealError;
use crate::upgrade::UpgradeError;

/// Why an entry may not stand where it stands. A keeper writes none of these: whoever meets one has found a keeper, or a
/// log, that is not what it says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FoldError {
    /// An entry is missing, or stands there twice.
    IndexMismatch {
        /// Index of the next entry.
        expected: u64,
        /// Index given.
        found: u64,
    },
    /// Not an entry.
    Entry(EntryError),
    /// An entry is older than the one before.
    TimeWentBack {
        /// Time of the entry before.
        last: UnixTime,
        /// Time of this one.
        found: UnixTime,
    },
    /// The first entry is not a genesis.
    GenesisMissing,
    /// A second genesis.
    GenesisRepeated,
    /// The genesis breaks a rule.
    Genesis(GenesisError),
    /// Something other than approvals of the genesis, before the vault is open.
    VaultNotOpen {
        /// Type of the entry.
        found: &'static str,
    },
    /// A run starts twice.
    RunRepeated,
    /// A statement or its signature.
    Approval(ApprovalError),
    /// A statement or an effect is of another action than what it is used for.
    ActionMismatch,
    /// The object is not the digest of what it names.
    ObjectMismatch,
    /// A statement follows something other than the policy in force (for the genesis, the core).
    PreviousMismatch,
    /// A statement is about another vault.
    VaultMismatch,
    /// A serial is another than it must be.
    SerialMismatch {
        /// What it must be.
        expected: u64,
        /// What it is.
        found: u64,
    },
    /// A statement is past its last moment.
    StatementExpired {
        /// Its last moment.
        not_after: UnixTime,
    },
    /// An approval of the genesis, or of a recovery, names no evidence.
    WitnessMissing,
    /// An approval of something else names evidence.
    WitnessUnexpected,
    /// Two approvals of the genesis, or of a recovery, name the same evidence.
    WitnessRepeated,
    /// An approver signs the same twice.
    AlreadyApproved {
        /// Who.
        approver: Name,
    },
    /// The proposer approves his own policy, and the policy in force forbids it.
    ProposerMayNotApprove {
        /// Who.
        approver: Name,
    },
    /// Nothing is proposed there, or under that digest.
    ProposalUnknown,
    /// The same waits already.
    ProposalRepeated,
    /// A proposal is past its last moment.
    ProposalExpired {
        /// Its last moment.
        not_after: UnixTime,
    },
    /// One proposer has too much waiting.
    TooManyProposals,
    /// An effect without its approvals.
    ThresholdNotReached {
        /// Approvals that count.
        given: u32,
        /// How many it takes.
        threshold: u32,
    },
    /// A proposed text is not a policy.
    Policy(PolicyError),
    /// A proposed policy is a first one.
    PolicyIsFirst,
    /// A proposed policy is for another vault.
    PolicyOfAnotherVault,
    /// A proposed policy's serial is not the next.
    PolicySerial {
        /// Serial of the policy in force.
        in_force: u64,
        /// Serial of the proposed one.
        found: u64,
    },
    /// A proposed policy does not follow the policy in force.
    PolicyPrev,
    /// A proposed policy makes the keeper prove other hardware than the genesis says that its root is sealed to.
    PolicyKeeperProof,
    /// The proposed policy names other witnesses, or another quorum of them, than the vault began with.
    PolicyWitnesses,
    /// A policy is past its last moment.
    PolicyExpired {
        /// Its last moment.
        not_after: UnixTime,
    },
    /// No publish rule names the model and has the publisher's key.
    PublisherNotAllowed,
    /// This version of the model is published.
    ModelAlreadyPublished,
    /// The policy in force has no `[platforms]`.
    PlatformsNotAllowed,
    /// A change of a platform has another revision than the next.
    PlatformRevision,
    /// The platform is enrolled already.
    PlatformEnrolled,
    /// The label is of another platform.
    PlatformLabelTaken,
    /// No such platform is enrolled, with this label and trust.
    PlatformNotEnrolled,
    /// As many platforms are enrolled, or were changed under the policy in force, as can be.
    TooManyPlatforms,
    /// A release names another policy than the one in force.
    PolicyNotInForce,
    /// The policy in force has no such release rule.
    RuleUnknown,
    /// The rule does not name the model.
    ModelNotInRule,
    /// The model is not published.
    ModelUnknown,
    /// The manifest is another than the published one.
    ManifestMismatch,
    /// More units or bytes than the model has, or none.
    UnitsImpossible,
    /// No anchor in force can give evidence this tier.
    TierImpossible,
    /// The rule does not list the platform.
    PlatformNotListed,
    /// The lease id is not that of session and lease key.
    LeaseIdMismatch,
    /// A lease begins at another time than it can have.
    IssuedMismatch,
    /// A lease runs longer or shorter than its rule says.
    RenewByMismatch,
    /// A lease is granted, or renewed in one entry, twice.
    LeaseRepeated,
    /// The rule's leases are all taken.
    TooManyLeases {
        /// The rule's `max_leases`.
        max: u32,
    },
    /// A renew entry renews nothing.
    RenewalsEmpty,
    /// There is no such lease, or it ran out long ago.
    LeaseUnknown,
    /// A lease was over before its renewal.
    LeaseLapsed {
        /// Its last moment.
        renew_by: UnixTime,
    },
    /// The rule no longer gives every group that the lease was granted under.
    GroupsNarrowed,
    /// A summary begins after its end.
    SinceAfterTime,
    /// A keeper may not be sealed so, or an entry about it says something else than the log.
    Reseal(ResealError),
    /// Another keeper may not take over.
    Join(JoinError),
    /// About custodians of the vault's keys, or a recovery by them.
    Escrow(EscrowError),
    /// About the keys of an epoch.
    Epoch(EpochError),
    /// A release passes a budget.
    Budget(BudgetRefusal),
    /// A clock entry says nothing, or more than the time since the entry before.
    UnmeasuredImpossible,
    /// The policy in force has no such budget.
    BudgetUnknown,
    /// The budget says `over = "refuse"`: only a policy raises it.
    BudgetNotRaisable,
    /// A raise lets nothing through.
    RaiseEmpty,
    /// A raise of what the budget does not limit.
    RaiseOfNoLimit {
        /// The limit's key.
        key: &'static str,
    },
    /// A raise ends too late, or before it begins.
    RaiseUntil {
        /// Its last moment.
        until: UnixTime,
    },
    /// The same raise was approved before.
    RaiseRepeated,
    /// Too many raises are not yet past their end.
    TooManyRaises,
    /// The rule asks for a standing approval, and none covers the release.
    ReleaseNotApproved,
    /// A standing approval under a rule that asks for none.
    StandingNotAsked,
    /// The policy in force has no `approval.break_glass_threshold`.
    BreakGlassNotAllowed,
    /// A permit for no release, or for more than one can be for.
    PermitReleases {
        /// How many.
        releases: u64,
    },
    /// A permit ends too late, or before it begins.
    PermitUntil {
        /// Which of the two it is.
        kind: PermitKind,
        /// Its last moment.
        until: UnixTime,
    },
    /// The same permit was approved before.
    PermitRepeated,
    /// Too many permits of a kind are not yet past their end.
    TooManyPermits,
    /// An alarm of no rule.
    AlarmEmpty,
    /// The rules of an alarm are not ascending.
    AlarmUnordered,
    /// The policy in force has no such alarm rule.
    AlarmUnknown,
    /// An alarm says what was measured where no rule asks, or does not where one does.
    AlarmMeasurement,
    /// The rules that ring for a release are not those of the alarm before it.
    AlarmMismatch,
    /// A release that waits for approvers.
    AlarmHeld {
        /// The rule.
        alarm: Name,
    },
    /// It was revoked.
    Revoked {
        /// Index of the `revoke` entry.
        revocation: u64,
    },
    /// The same is revoked already.
    AlreadyRevoked {
        /// Index of the `revoke` entry.
        revocation: u64,
    },
    /// No revocation of that entry is in force.
    RevocationUnknown {
        /// The index.
        entry: u64,
    },
    /// A revocation does not name the next serial.
    RevocationSerial {
        /// The next.
        expected: u64,
        /// The one named.
        found: u64,
    },
    /// So many are in force, of all or of this proposer, that there is no room for another.
    TooManyRevocations,
    /// A revocation or an extension is about another number of leases than its entry says, or an extension about none.
    LeaseCountMismatch {
        /// How many it is about.
        expected: usize,
        /// How many the entry says.
        found: u32,
    },
    /// A release says that it has labels, a launch digest or PCRs that its rule does not allow.
    MarksImpossible,
    /// A release says that its guest starts something that its rule does not allow, or does not say what; or what runs under
    /// a lease is not allowed any more.
    Workload(WorkloadMismatch),
    /// An extension does not count.
    Extension(ExtensionError),
    /// About the program that a keeper runs, or that reads its log.
    Upgrade(UpgradeError),
}

impl FoldError {
    /// Stable code.
    pub fn code(&self) -> &'static str {
        match self {
            Self::IndexMismatch { .. } => "index-mismatch",
            Self::Entry(error) => error.code(),
            Self::TimeWentBack { .. } => "time-went-back",
            Self::GenesisMissing => "genesis-missing",
            Self::GenesisRepeated => "genesis-repeated",
            Self::Genesis(error) => error.code(),
            Self::VaultNotOpen { .. } => "vault-not-open",
            Self::RunRepeated => "run-repeated",
            Self::Approval(error) => error.code(),
            Self::ActionMismatch => "action-mismatch",
            Self::ObjectMismatch => "object-mismatch",
            Self::PreviousMismatch => "previous-mismatch",
            Self::VaultMismatch => "vault-mismatch",
            Self::SerialMismatch { .. } => "serial-mismatch",
            Self::StatementExpired { .. } => "statement-expired",
            Self::WitnessMissing => "witness-missing",
            Self::WitnessUnexpected => "witness-unexpected",
            Self::WitnessRepeated => "witness-repeated",
            Self::AlreadyApproved { .. } => "already-approved",
            Self::ProposerMayNotApprove { .. } => "proposer-may-not-approve",
            Self::ProposalUnknown => "proposal-unknown",
            Self::ProposalRepeated => "proposal-repeated",
            Self::ProposalExpired { .. } => "proposal-expired",
            Self::TooManyProposals => "too-many-proposals",
            Self::ThresholdNotReached { .. } => "threshold-not-reached",
            Self::Policy(error) => error.code(),
            Self::PolicyIsFirst => "policy-is-first",
            Self::PolicyOfAnotherVault => "policy-of-another-vault",
            Self::PolicySerial { .. } => "policy-serial",
            Self::PolicyPrev => "policy-prev",
            Self::PolicyKeeperProof => "policy-keeper-proof",
            Self::PolicyWitnesses => "policy-witnesses-changed",
            Self::PolicyExpired { .. } => "policy-expired",
            Self::PublisherNotAllowed => "publisher-not-allowed",
            Self::ModelAlreadyPublished => "model-already-published",
            Self::PlatformsNotAllowed => "platforms-not-allowed",
            Self::PlatformRevision => "platform-revision",
            Self::PlatformEnrolled => "platform-enrolled",
            Self::PlatformLabelTaken => "platform-label-taken",
            Self::PlatformNotEnrolled => "platform-not-enrolled",
            Self::TooManyPlatforms => "too-many-platforms",
            Self::PolicyNotInForce => "policy-not-in-force",
            Self::RuleUnknown => "rule-unknown",
            Self::ModelNotInRule => "model-not-in-rule",
            Self::ModelUnknown => "model-not-published",
            Self::ManifestMismatch => "manifest-mismatch",
            Self::UnitsImpossible => "units-impossible",
            Self::TierImpossible => "tier-impossible",
            Self::PlatformNotListed => "platform-not-listed",
            Self::LeaseIdMismatch => "lease-id-mismatch",
            Self::IssuedMismatch => "issued-mismatch",
            Self::RenewByMismatch => "renew-by-mismatch",
            Self::LeaseRepeated => "lease-repeated",
            Self::TooManyLeases { .. } => "too-many-leases",
            Self::RenewalsEmpty => "renewals-empty",
            Self::LeaseUnknown => "lease-unknown",
            Self::LeaseLapsed { .. } => "lease-lapsed",
            Self::GroupsNarrowed => "groups-narrowed",
            Self::SinceAfterTime => "since-after-time",
            Self::Reseal(error) => error.code(),
            Self::Join(error) => error.code(),
            Self::Escrow(error) => error.code(),
            Self::Epoch(error) => error.code(),
            Self::Budget(refusal) => refusal.code(),
            Self::UnmeasuredImpossible => "unmeasured-impossible",
            Self::BudgetUnknown => "budget-unknown",
            Self::BudgetNotRaisable => "budget-not-raisable",
            Self::RaiseEmpty => "raise-empty",
            Self::RaiseOfNoLimit { .. } => "raise-of-no-limit",
            Self::RaiseUntil { .. } => "raise-until",
            Self::RaiseRepeated => "raise-repeated",
            Self::TooManyRaises => "too-many-raises",
            Self::ReleaseNotApproved => "release-not-approved",
            Self::StandingNotAsked => "standing-not-asked",
            Self::BreakGlassNotAllowed => "break-glass-not-allowed",
            Self::PermitReleases { .. } => "permit-releases",
            Self::PermitUntil { .. } => "permit-until",
            Self::PermitRepeated => "permit-repeated",
            Self::TooManyPermits => "too-many-permits",
            Self::AlarmEmpty => "alarm-empty",
            Self::AlarmUnordered => "alarm-unordered",
            Self::AlarmUnknown => "alarm-unknown",
            Self::AlarmMeasurement => "alarm-measurement",
            Self::AlarmMismatch => "alarm-mismatch",
            Self::AlarmHeld { .. } => "held-by-alarm",
            Self::Revoked { .. } => "revoked",
            Self::AlreadyRevoked { .. } => "already-revoked",
            Self::RevocationUnknown { .. } => "revocation-unknown",
            Self::RevocationSerial { .. } => "revocation-serial",
            Self::TooManyRevocations => "too-many-revocations",
            Self::LeaseCountMismatch { .. } => "lease-count-mismatch",
            Self::MarksImpossible => "marks-impossible",
            Self::Workload(mismatch) => mismatch.code(),
            Self::Extension(error) => error.code(),
            Self::Upgrade(error) => error.code(),
        }
    }
}

impl fmt::Display for FoldError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::IndexMismatch { expected, found } => write!(f, "entry {found} comes where entry {expected} must"),
            Self::Entry(error) => error.fmt(f),
            Self::TimeWentBack { last, found } => write!(f, "the entry is of {found}, the one before of {last}"),
            Self::GenesisMissing => f.write_str("the first entry is not a genesis"),
            Self::GenesisRepeated => f.write_str("a log has one genesis"),
            Self::Genesis(error) => error.fmt(f),
            Self::VaultNotOpen { found } => write!(f, "{found} before every approver has signed the genesis"),
            Self::RunRepeated => f.write_str("this run has started already"),
            Self::Approval(error) => error.fmt(f),
            Self::ActionMismatch => f.write_str("signed or proposed for another action"),
            Self::ObjectMismatch => f.write_str("the object is another than the one named"),
            Self::PreviousMismatch => f.write_str("the statement does not follow what is in force"),
            Self::VaultMismatch => f.write_str("the statement is about another vault"),
            Self::SerialMismatch { expected, found } => write!(f, "serial {found} where it must be {expected}"),
            Self::StatementExpired { not_after } => write!(f, "the statement ended at {not_after}"),
            Self::WitnessMissing => f.write_str("an approval of a genesis, or of a recovery, names the evidence that its approver saw"),
            Self::WitnessUnexpected => f.write_str("only an approval of a genesis or of a recovery names evidence"),
            Self::WitnessRepeated => f.write_str("another approver already named this evidence; each sees his own"),
            Self::AlreadyApproved { approver } => write!(f, "{approver} has already approved this"),
            Self::ProposerMayNotApprove { approver } => write!(f, "{approver} proposed this and may not approve it"),
            Self::ProposalUnknown => f.write_str("there is no such proposal"),
            Self::ProposalRepeated => f.write_str("this is proposed already"),
            Self::ProposalExpired { not_after } => write!(f, "the proposal ended at {not_after}"),
            Self::TooManyProposals => f.write_str("this proposer has too many proposals waiting"),
            Self::ThresholdNotReached { given, threshold } => write!(f, "{given} of {threshold} approvals"),
            Self::Policy(error) => error.fmt(f),
            Self::PolicyIsFirst => f.write_str("a vault has one first policy; write the vault's id, the next serial and the digest of the policy in force"),
            Self::PolicyOfAnotherVault => f.write_str("the policy is for another vault"),
            Self::PolicySerial { in_force, found } => write!(f, "the policy in force has serial {in_force}, the proposed one {found}; it must be one more"),
            Self::PolicyPrev => f.write_str("`prev` is not the digest of the policy in force"),
            Self::PolicyWitnesses => f.write_str(
                "`[witnesses]` is not that of the vault's genesis, which stays for the life of the vault: whoever holds the vault \
                 file counts these witnesses and no others. Write it as it was",
            ),
            Self::PolicyKeeperProof => f.write_str(
                "`keeper.require` is not that of the first policy: the keeper's root is sealed to what that one asks for; \
                 keep it, or make a new vault",
            ),
            Self::PolicyExpired { not_after } => write!(f, "the policy ended at {not_after}"),
            Self::PublisherNotAllowed => f.write_str("no publish rule lets this key publish this model"),
            Self::ModelAlreadyPublished => f.write_str("this version is published already; give it another name"),
            Self::PlatformsNotAllowed => {
                f.write_str("the policy in force has no [platforms]: no EK without a certificate can be enrolled")
            }
            Self::PlatformRevision => f.write_str("the platform was changed since this was signed; propose it anew"),
            Self::PlatformEnrolled => f.write_str("the platform is enrolled already"),
            Self::PlatformLabelTaken => f.write_str("another platform has this label"),
            Self::PlatformNotEnrolled => f.write_str("no such platform is enrolled with this label and trust"),
            Self::TooManyPlatforms => f.write_str("4096 platforms are enrolled or changed; a new policy begins to count anew"),
            Self::PolicyNotInForce => f.write_str("the release names another policy than the one in force"),
            Self::RuleUnknown => f.write_str("the policy in force has no such release rule"),
            Self::ModelNotInRule => f.write_str("the rule does not name this model"),
            Self::ModelUnknown => f.write_str("the log has no such model"),
            Self::ManifestMismatch => f.write_str("the manifest is another than the published one"),
            Self::UnitsImpossible => f.write_str("the model has not so many units or bytes, or none was released"),
            Self::TierImpossible => f.write_str("no anchor of the policy in force gives this tier"),
            Self::PlatformNotListed => f.write_str("the rule does not list this platform"),
            Self::LeaseIdMismatch => f.write_str("the lease id does not follow from session and lease key"),
            Self::IssuedMismatch => f.write_str("the lease begins at another time than the log allows"),
            Self::RenewByMismatch => f.write_str("the lease does not end one lease time of its rule after it began"),
            Self::LeaseRepeated => f.write_str("this lease is there already"),
            Self::TooManyLeases { max } => write!(f, "all {max} leases of the rule are taken"),
            Self::RenewalsEmpty => f.write_str("no lease is renewed"),
            Self::LeaseUnknown => f.write_str("there is no such lease"),
            Self::LeaseLapsed { renew_by } => write!(f, "the lease ended at {renew_by}"),
            Self::GroupsNarrowed => f.write_str("the rule no longer gives every group that it gave when the lease was granted"),
            Self::SinceAfterTime => f.write_str("the summary begins after its end"),
            Self::Reseal(error) => error.fmt(f),
            Self::Join(error) => error.fmt(f),
            Self::Escrow(error) => error.fmt(f),
            Self::Epoch(error) => error.fmt(f),
            Self::Budget(refusal) => refusal.fmt(f),
            Self::UnmeasuredImpossible => {
                f.write_str("the clock can't have gone unmeasured for none, or more, of the time since the entry before")
            }
            Self::AlarmEmpty => f.write_str("an alarm of no rule"),
            Self::AlarmUnordered => f.write_str("the rules of an alarm are not ascending"),
            Self::AlarmUnknown => f.write_str("the policy in force has no such alarm rule"),
            Self::AlarmMeasurement => {
                f.write_str("an alarm says what was measured where, and only where, a rule asks for it")
            }
            Self::AlarmMismatch => {
                f.write_str("the alarm rules that ring for the release are not those that the entry before it names")
            }
            Self::AlarmHeld { alarm } => write!(f, "alarm {alarm} holds the release until approvers let it through"),
            Self::BudgetUnknown => f.write_str("the policy in force has no such budget"),
            Self::BudgetNotRaisable => {
                f.write_str("the budget says over = \"refuse\": only another policy lets more through")
            }
            Self::RaiseEmpty => f.write_str("the raise lets nothing through; name an amount"),
            Self::RaiseOfNoLimit { key } => write!(f, "the budget has no limit {key}: there is nothing to raise"),
            Self::RaiseUntil { until } => {
                write!(f, "a raise ends after it begins and within {RAISE_SECS_MAX} s, and this one at {until}")
            }
            Self::RaiseRepeated => f.write_str("this very raise was approved already; propose one with another end"),
            Self::TooManyRaises => write!(f, "{RAISES_MAX} raises are not yet past their end; wait, or change the policy"),
            Self::ReleaseNotApproved => f.write_str(
                "the rule asks for approvals, and no standing approval covers the release: vaultctl propose standing",
            ),
            Self::StandingNotAsked => f.write_str("the rule asks for no approvals: write `approvals` in it first"),
            Self::BreakGlassNotAllowed => {
                f.write_str("the policy in force has no approval.break_glass_threshold: there is no break-glass")
            }
            Self::PermitReleases { releases } => {
                write!(f, "a permit is for 1 to {PERMIT_RELEASES_MAX} releases, and this one for {releases}")
            }
            Self::PermitUntil { kind, until } => {
                write!(f, "a {kind} ends after it begins and within {} s, and this one at {until}", kind.secs_max())
            }
            Self::PermitRepeated => f.write_str("this very permit was approved already; propose one with another end"),
            Self::TooManyPermits => write!(f, "{PERMITS_MAX} such permits are not yet past their end; wait, or change the policy"),
            Self::Revoked { revocation } => write!(f, "revoked by entry {revocation}"),
            Self::AlreadyRevoked { revocation } => write!(f, "entry {revocation} has revoked this already"),
            Self::RevocationUnknown { entry } => write!(f, "entry {entry} is no revocation in force"),
            Self::RevocationSerial { expected, found } => {
                write!(f, "the revocation has serial {found}, the next is {expected}: ask for the status and sign again")
            }
            Self::TooManyRevocations => f.write_str(
                "too many revocations are in force, of all or of this proposer: take what they revoke out of the policy, \
                 and lift them",
            ),
            Self::LeaseCountMismatch { expected, found } => {
                write!(f, "it is about {expected} leases, and the entry says {found}")
            }
            Self::MarksImpossible => {
                f.write_str("the rule does not allow the labels, launch digest or PCRs that the release says it has")
            }
            Self::Workload(mismatch) => {
                let (claim, expected, seen) = mismatch.words();
                write!(f, "{claim}: expected {expected}, seen {seen}")
            }
            Self::Extension(error) => error.fmt(f),
            Self::Upgrade(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for FoldError {}
