//! What each type of entry says. The order of the fields is the order of the bytes.

use std::collections::BTreeMap;

use attestation::{
    AkName, Claims, HpkePublicKey, IdentityKey, LeaseKey, LogKey, QuoteClaims, Sha256Digest, Trust, UnixTime, Workload,
};
use serde::{Deserialize, Serialize};

use super::budget::ProposedRaise;
use super::permit::ProposedPermit;
use super::platform::ProposedPlatform;
use super::{ProposedEpoch, ProposedEscrow, ProposedJoin, ProposedLeave, ProposedRecovery, ProposedReseal, field};
use crate::extension::{Extension, ExtensionApproval};
use crate::genesis::{AntiRollback, SealTo};
use crate::names::{Name, Version};
use crate::revocation::{ActKind, Marks, RevocationAct};

/// The genesis as it stands in the log. [`Genesis`](crate::genesis::Genesis) is the same with every rule checked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GenesisEntry {
    /// When it was made.
    pub time: UnixTime,
    /// How the keeper notices an older copy of its state.
    pub anti_rollback: AntiRollback,
    /// What the root key is sealed to.
    pub seal_to: SealTo,
    /// Text of the first policy.
    pub policy: String,
    /// 32 random bytes that the keeper made with its root key.
    #[serde(with = "field::base64")]
    pub instance: [u8; 32],
    /// DEKs are wrapped to it.
    #[serde(with = "field::base64")]
    pub wrap_key: HpkePublicKey,
    /// Signs grants and leases.
    #[serde(with = "field::base64")]
    pub identity_key: IdentityKey,
    /// Signs checkpoints.
    #[serde(with = "field::base64")]
    pub log_key: LogKey,
    /// Platform id of the keeper.
    pub platform: Sha256Digest,
    /// Name of the keeper's attestation key.
    #[serde(with = "field::base64")]
    pub ak_name: AkName,
}

/// A keeper started.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Start {
    /// When.
    pub time: UnixTime,
    /// Names the run: 16 random bytes.
    #[serde(with = "field::hex")]
    pub run: [u8; 16],
    /// Version of the program.
    pub version: Version,
    /// What the keeper's own proof rests on.
    pub tier: Trust,
    /// Where its time comes from.
    pub time_source: TimeSource,
    /// The keeper's instance, where it is not the founder of the vault.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "field::base64_if_any")]
    pub keeper: Option<[u8; 32]>,
}

/// Where a keeper's time comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum TimeSource {
    /// The clock of the keeper's guest, which its host can set.
    #[serde(rename = "host clock")]
    HostClock,
    /// The times at which a quorum of witnesses cosigned the log, and between them the time that the keeper measures.
    #[serde(rename = "witnesses")]
    Witnesses,
}

/// A proposal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Propose {
    /// When.
    pub time: UnixTime,
    /// Of what.
    #[serde(flatten)]
    pub proposal: Proposal,
}

/// What can be proposed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "action", rename_all = "kebab-case")]
pub enum Proposal {
    /// Another policy, signed by an approver of the policy in force.
    Policy(ProposedPolicy),
    /// A model, signed by its publisher.
    Model(ProposedModel),
    /// A platform to be enrolled or removed, signed by an approver of the policy in force.
    Platform(ProposedPlatform),
    /// Another boot state for the keeper, signed by an approver.
    Reseal(ProposedReseal),
    /// Another keeper, which proved itself to the one that runs.
    KeeperJoin(ProposedJoin),
    /// That the vault's keys be split among custodians, signed by an approver of the policy in force.
    Escrow(ProposedEscrow),
    /// Another keeper in the place of one that was lost. Each approval names evidence of it.
    Recover(ProposedRecovery),
    /// That a keeper leaves the others, signed by an approver of the policy in force.
    KeeperLeave(ProposedLeave),
    /// Keys of the next epoch, which an approver asked the keeper for.
    KeyEpoch(Box<ProposedEpoch>),
    /// A raise of a budget, signed by an approver of the policy in force.
    Budget(ProposedRaise),
    /// A revocation, or the lift of one, signed by an approver of the policy in force.
    Revocation(ProposedRevocation),
    /// A standing approval or break-glass, signed by an approver of the policy in force.
    Permit(ProposedPermit),
}

/// A policy that waits for approvals.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProposedPolicy {
    /// SHA-256 of the text.
    pub object: Sha256Digest,
    /// The text.
    pub policy: String,
    /// The proposer's statement, exact bytes.
    pub statement: String,
    /// Armored SSHSIG over the statement.
    pub signature: String,
}

/// A model that waits for approvals.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProposedModel {
    /// What approvals name: [`model_object`](crate::approvals::model_object).
    pub object: Sha256Digest,
    /// Name.
    pub model: Name,
    /// Version.
    pub version: Version,
    /// SHA-256 of the manifest.
    pub manifest: Sha256Digest,
    /// SHA-256 of the publisher's signature bundle.
    pub model_sig: Sha256Digest,
    /// SHA-256 of the keeper's record of the DEK.
    pub dek_record: Sha256Digest,
    /// SHA-256 of the publisher's DER SubjectPublicKeyInfo.
    pub publisher: Sha256Digest,
    /// Plaintext bytes of all units.
    pub bytes: u64,
    /// Number of units.
    pub units: u32,
    /// Last moment at which the proposal can take effect.
    pub not_after: UnixTime,
}

/// A revocation, or the lift of one, that waits for approvals.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProposedRevocation {
    /// What approvals name: [`RevocationAct::object`].
    pub object: Sha256Digest,
    /// The act.
    pub revocation: RevocationAct,
    /// The proposer's statement, exact bytes. It approves what it proposes.
    pub statement: String,
    /// Armored SSHSIG over the statement.
    pub signature: String,
}

/// One approval.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "field::ApproveFields", try_from = "field::ApproveFields")]
pub struct Approve {
    /// When.
    pub time: UnixTime,
    /// The approver's statement, exact bytes.
    pub statement: String,
    /// Armored SSHSIG over the statement.
    pub signature: String,
    /// With an approval of the genesis, and with no other.
    pub witness: Option<GenesisWitness>,
}

/// The blobs that show what an approver of the genesis saw in his own run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GenesisWitness {
    /// SHA-256 of the evidence.
    pub evidence: Sha256Digest,
    /// SHA-256 of the binding's preimage.
    pub binding: Sha256Digest,
}

/// A policy has its approvals and is in force from here on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PolicyInForce {
    /// When.
    pub time: UnixTime,
    /// Index of its `propose` entry.
    pub proposal: u64,
    /// SHA-256 of its text.
    pub object: Sha256Digest,
    /// Its serial.
    pub serial: u64,
}

/// A model has its approvals and can be released from here on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelPublished {
    /// When.
    pub time: UnixTime,
    /// Index of its `propose` entry.
    pub proposal: u64,
    /// What the approvals named.
    pub object: Sha256Digest,
    /// Name.
    pub model: Name,
    /// Version.
    pub version: Version,
}

/// A revocation, or the lift of one, has its approvals.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Revoke {
    /// When.
    pub time: UnixTime,
    /// Index of its `propose` entry.
    pub proposal: u64,
    /// What the approvals named.
    pub object: Sha256Digest,
    /// Which act it is.
    pub act: ActKind,
    /// How many running leases it ends; 0 for a lift.
    pub leases: u32,
}

/// Approvers have signed that leases run on without a keeper, and holders of some have done so.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Extend {
    /// When.
    pub time: UnixTime,
    /// What they signed.
    pub extension: Extension,
    /// Their signatures.
    pub approvals: Vec<ExtensionApproval>,
    /// How many leases run longer by it; at least one.
    pub leases: u32,
}

/// Unit keys were granted to an attested guest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "field::ReleaseFields", try_from = "field::ReleaseFields")]
pub struct Release {
    /// When.
    pub time: UnixTime,
    /// The one rule that allowed it.
    pub rule: Name,
    /// Model.
    pub model: Name,
    /// Its version.
    pub version: Version,
    /// SHA-256 of the policy in force.
    pub policy: Sha256Digest,
    /// SHA-256 of the manifest.
    pub manifest: Sha256Digest,
    /// Which units.
    pub units: ReleasedUnits,
    /// Names the challenge.
    pub session: [u8; 16],
    /// SHA-256 of the key that the unit keys are wrapped to.
    pub hpke_key: Sha256Digest,
    /// Lease id.
    pub lease: Sha256Digest,
    /// Signs renewals and the end of the lease.
    pub lease_key: LeaseKey,
    /// When the lease began: the time of the entry.
    pub issued: UnixTime,
    /// Its last moment without a renewal.
    pub renew_by: UnixTime,
    /// Platform id of the guest.
    pub platform: Sha256Digest,
    /// Which boot of which machine it was.
    pub machine: Machine,
    /// What the proof rests on.
    pub tier: Trust,
    /// What a revocation finds it by; `None` in releases of the first programs.
    pub marks: Option<Marks>,
    /// What the guest starts, where its rule asks.
    pub workload: Option<Workload>,
    /// SHA-256 of the evidence.
    pub evidence: Sha256Digest,
    /// SHA-256 of the binding's preimage.
    pub binding: Sha256Digest,
}

/// Which boot of which machine evidence came from: a lease belongs to it, since its keys were never anywhere else.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Machine {
    /// A machine with a TPM.
    Tpm(BootId),
    /// An SNP guest.
    Snp {
        /// REPORT_ID: made at launch.
        report_id: [u8; 32],
    },
    /// An SNP guest with a virtual TPM that its report endorses.
    SnpVtpm {
        /// REPORT_ID.
        report_id: [u8; 32],
        /// The boot that the virtual TPM counts.
        vtpm: BootId,
    },
}

impl Machine {
    /// That of verified evidence. A TPM that nothing binds to a report says nothing about the machine.
    pub fn of(claims: &Claims) -> Self {
        match claims {
            Claims::Tpm { quote, .. } => Self::Tpm(BootId::of(quote)),
            Claims::Snp(report) | Claims::SnpUnboundTpm { report, .. } => Self::Snp { report_id: *report.report_id() },
            Claims::SnpVtpm { report, quote } => {
                Self::SnpVtpm { report_id: *report.report_id(), vtpm: BootId::of(quote) }
            }
        }
    }
}

/// One boot, as a TPM counts it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BootId {
    /// Name of the attestation key that quoted.
    pub ak_name: AkName,
    /// TPMS_CLOCK_INFO.resetCount of the quote.
    pub reset_count: u32,
    /// TPMS_CLOCK_INFO.restartCount of the quote.
    pub restart_count: u32,
}

impl BootId {
    fn of(quote: &QuoteClaims) -> Self {
        Self { ak_name: *quote.ak_name(), reset_count: quote.reset_count(), restart_count: quote.restart_count() }
    }
}

/// A set of units, in short.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReleasedUnits {
    /// How many.
    pub count: u32,
    /// Plaintext bytes of them all.
    pub bytes: u64,
    /// Digest of the unit set (FORMAT.md §2).
    pub digest: Sha256Digest,
}

/// Leases were renewed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Renew {
    /// When.
    pub time: UnixTime,
    /// Each lease once; at least one.
    pub renewals: Vec<Renewal>,
}

/// The renewal of one lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Renewal {
    /// Lease id.
    pub lease: Sha256Digest,
    /// When it was decided.
    pub issued: UnixTime,
    /// The new last moment.
    pub renew_by: UnixTime,
    /// SHA-256 of the evidence.
    pub evidence: Sha256Digest,
    /// SHA-256 of the binding's preimage.
    pub binding: Sha256Digest,
}

/// A lease ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct End {
    /// When.
    pub time: UnixTime,
    /// Lease id.
    pub lease: Sha256Digest,
    /// Who ended it.
    pub cause: Cause,
}

/// Who ended a lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Cause {
    /// Its holder, by a statement that the lease key signed.
    Agent,
}

/// What a requester wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Action {
    /// Unit keys.
    Load,
    /// A longer lease.
    Renew,
}

/// A requester was refused, although hardware vouched for his evidence.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Deny {
    /// When.
    pub time: UnixTime,
    /// Code of the refusal.
    pub code: Name,
    /// What he wanted.
    pub action: Action,
    /// Under which rule.
    pub rule: Name,
    /// Model.
    pub model: Name,
    /// Its version.
    pub version: Version,
    /// Platform id.
    pub platform: Sha256Digest,
    /// SHA-256 of the evidence.
    pub evidence: Sha256Digest,
    /// What he said that he starts, where he was asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workload: Option<Workload>,
}

/// Refusals that have no entry of their own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DenySummary {
    /// When it was written: the end of the span.
    pub time: UnixTime,
    /// Beginning of the span.
    pub since: UnixTime,
    /// How many, by code.
    pub counts: BTreeMap<Name, u64>,
}
