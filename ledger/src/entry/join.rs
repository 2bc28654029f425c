//! Entries about another keeper that takes over.

use std::collections::BTreeMap;

use attestation::{AkName, Sha256Digest, UnixTime};
use serde::{Deserialize, Serialize};

use super::field;
use super::reseal::{measurement, pcrs};
use crate::keepers::{Joiner, KeeperMachine};

/// A keeper that waits for approvals. It proved itself to the keeper that wrote this.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProposedJoin {
    /// What approvals name: [`Joiner::object`].
    pub object: Sha256Digest,
    /// How many keepers were approved before it.
    pub revision: u64,
    /// The keeper's instance.
    #[serde(with = "field::base64")]
    pub instance: [u8; 32],
    /// Its platform id.
    pub platform: Sha256Digest,
    /// Name of its attestation key.
    #[serde(with = "field::base64")]
    pub ak_name: AkName,
    /// SHA-256 of the HPKE key that the vault's keys are wrapped to.
    pub hpke_key: Sha256Digest,
    /// Name of its NV counter.
    #[serde(with = "field::base64")]
    pub counter_name: [u8; 34],
    /// What the counter reads.
    pub counter: u64,
    /// PCRs of the SHA-256 bank: index and 64 hex digits.
    #[serde(with = "pcrs")]
    pub pcrs: BTreeMap<u32, [u8; 32]>,
    /// The launch digest of its guest, under `seal_to = ["snp", "tpm"]`: 96 hex digits.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "measurement")]
    pub measurement: Option<[u8; 48]>,
    /// SHA-256 of the evidence blob.
    pub evidence: Sha256Digest,
    /// SHA-256 of the preimage of its binding.
    pub binding: Sha256Digest,
    /// Last moment at which it can be approved, and take over.
    pub not_after: UnixTime,
}

/// Approvers let a keeper in: it may take over until the moment that its proposal names.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeeperJoin {
    /// When.
    pub time: UnixTime,
    /// Index of its `propose` entry.
    pub proposal: u64,
    /// What the approvals named.
    pub object: Sha256Digest,
}

/// The last entry of a keeper: it names its successor, and writes no other one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeeperRetire {
    /// When.
    pub time: UnixTime,
    /// What the approvals of the successor named.
    pub object: Sha256Digest,
    /// The successor's instance.
    #[serde(with = "field::base64")]
    pub instance: [u8; 32],
    /// Name of the successor's NV counter.
    #[serde(with = "field::base64")]
    pub counter_name: [u8; 34],
    /// What it reads: the successor's first head counts one more.
    pub counter: u64,
    /// SHA-256 of the successor's evidence, made anew for the hand-over.
    pub evidence: Sha256Digest,
    /// SHA-256 of the preimage of its binding.
    pub binding: Sha256Digest,
}

impl ProposedJoin {
    /// What is proposed, with the digests of its evidence and of the preimage.
    pub fn new(
        joiner: &Joiner,
        vault: Sha256Digest,
        revision: u64,
        (evidence, binding): (Sha256Digest, Sha256Digest),
        not_after: UnixTime,
    ) -> Self {
        let object = joiner.object(vault, revision);
        let Joiner { machine, hpke_key, counter_name, counter, pcrs, measurement } = joiner.clone();
        let KeeperMachine { instance, platform, ak_name } = machine;
        Self {
            object,
            revision,
            instance,
            platform,
            ak_name,
            hpke_key,
            counter_name,
            counter,
            pcrs,
            measurement,
            evidence,
            binding,
            not_after,
        }
    }

    /// Who is proposed. `object` may name something else.
    pub fn joiner(&self) -> Joiner {
        let machine = KeeperMachine { instance: self.instance, platform: self.platform, ak_name: self.ak_name };
        let Self { hpke_key, counter_name, counter, pcrs, measurement, .. } = self.clone();
        Joiner { machine, hpke_key, counter_name, counter, pcrs, measurement }
    }
}
