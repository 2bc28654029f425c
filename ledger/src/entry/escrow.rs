//! Entries about custodians of the vault's keys, and about a keeper that took the place of a lost one by them.

use std::collections::BTreeMap;

use attestation::{AkName, Sha256Digest, UnixTime};
use serde::{Deserialize, Serialize};

use super::field;
use super::reseal::{measurement, pcrs};
use crate::escrow::{Custodian, EscrowPlan, LogPoint, Recovery, RecoveryMode, Rollback, ShareDigests};
use crate::keepers::{Joiner, KeeperMachine};

/// Custodians that wait for approvals.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProposedEscrow {
    /// What approvals name: [`EscrowPlan::object`].
    pub object: Sha256Digest,
    /// One more than there were.
    pub number: u64,
    /// Epoch of the KEK that is split.
    pub epoch: u32,
    /// How many shares give the keys.
    pub threshold: u32,
    /// Who gets one each, in the order of the shares.
    pub custodians: Vec<Custodian>,
    /// The proposer's statement, exact bytes.
    pub statement: String,
    /// Armored SSHSIG over the statement.
    pub signature: String,
}

/// The vault's keys were split: whoever has as many shares as the plan says, in a keeper, has the vault.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EscrowInForce {
    /// When.
    pub time: UnixTime,
    /// Index of its `propose` entry.
    pub proposal: u64,
    /// What the approvals named.
    pub object: Sha256Digest,
    /// SHA-256 of the record of the vault's keys, sealed under what was split.
    pub record: Sha256Digest,
    /// Of each share, in the order of the custodians.
    pub shares: Vec<ShareDigests>,
}

/// A keeper in the place of a lost one. Nobody but itself could write this entry, which is worth what its approvals are.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProposedRecovery {
    /// What approvals name: [`Recovery::object`].
    pub object: Sha256Digest,
    /// Entries of the log that it goes on from: the index of this entry.
    pub size: u64,
    /// Merkle root of that log.
    pub root: Sha256Digest,
    /// The shares that gave it the keys: digest of their set.
    pub set: Sha256Digest,
    /// Whether anything shows that this log is the newest.
    pub rollback: Rollback,
    /// The keeper's instance.
    #[serde(with = "field::base64")]
    pub instance: [u8; 32],
    /// Its platform id.
    pub platform: Sha256Digest,
    /// Name of its attestation key.
    #[serde(with = "field::base64")]
    pub ak_name: AkName,
    /// SHA-256 of the HPKE key that custodians sealed their shares to.
    pub hpke_key: Sha256Digest,
    /// Name of its NV counter.
    #[serde(with = "field::base64")]
    pub counter_name: [u8; 34],
    /// What the counter read: its first head counts one more.
    pub counter: u64,
    /// PCRs of the SHA-256 bank: index and 64 hex digits.
    #[serde(with = "pcrs")]
    pub pcrs: BTreeMap<u32, [u8; 32]>,
    /// The launch digest of its guest, under `seal_to = ["snp", "tpm"]`: 96 hex digits.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "measurement")]
    pub measurement: Option<[u8; 48]>,
    /// Last moment at which it can be approved, and take the vault.
    pub not_after: UnixTime,
}

/// The keeper of before is lost and its machine no keeper any more; nothing follows but the start of the one that the
/// proposal names.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RecoverInForce {
    /// When.
    pub time: UnixTime,
    /// Index of its `propose` entry.
    pub proposal: u64,
    /// What the approvals named.
    pub object: Sha256Digest,
    /// The instance that is lost.
    #[serde(with = "field::base64")]
    pub lost: [u8; 32],
    /// As in the proposal.
    pub rollback: Rollback,
}

impl ProposedEscrow {
    /// What is proposed, signed so.
    pub fn new(plan: &EscrowPlan, vault: Sha256Digest, statement: String, signature: String) -> Self {
        let EscrowPlan { number, epoch, threshold, custodians } = plan.clone();
        Self { object: plan.object(vault), number, epoch, threshold, custodians, statement, signature }
    }

    /// What is proposed. `object` may name something else.
    pub fn plan(&self) -> EscrowPlan {
        let Self { number, epoch, threshold, custodians, .. } = self.clone();
        EscrowPlan { number, epoch, threshold, custodians }
    }
}

impl ProposedRecovery {
    /// What is proposed.
    pub fn new(recovery: &Recovery, vault: Sha256Digest, not_after: UnixTime) -> Self {
        let object = recovery.object(vault, RecoveryMode::Recover);
        let Recovery { joiner, from, set, rollback } = recovery.clone();
        let Joiner { machine, hpke_key, counter_name, counter, pcrs, measurement } = joiner;
        let KeeperMachine { instance, platform, ak_name } = machine;
        Self {
            object,
            size: from.size,
            root: from.root,
            set,
            rollback,
            instance,
            platform,
            ak_name,
            hpke_key,
            counter_name,
            counter,
            pcrs,
            measurement,
            not_after,
        }
    }

    /// What is proposed. `object` may name something else.
    pub fn recovery(&self) -> Recovery {
        let machine = KeeperMachine { instance: self.instance, platform: self.platform, ak_name: self.ak_name };
        let Self { size, root, set, rollback, hpke_key, counter_name, counter, pcrs, measurement, .. } = self.clone();
        let joiner = Joiner { machine, hpke_key, counter_name, counter, pcrs, measurement };
        Recovery { joiner, from: LogPoint { size, root }, set, rollback }
    }
}
