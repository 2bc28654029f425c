//! Entries about the boot state that the keeper's root is sealed to.

use std::collections::BTreeMap;

use attestation::{AkName, Sha256Digest, UnixTime};
use serde::{Deserialize, Serialize};

use super::field;
use crate::reseal::Reseal;

/// A boot state of the keeper that waits for approvals.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProposedReseal {
    /// What approvals name: [`Reseal::object`].
    pub object: Sha256Digest,
    /// The keeper's instance, as the genesis names it.
    #[serde(with = "field::base64")]
    pub instance: [u8; 32],
    /// The keeper's attestation key, as the genesis names it.
    #[serde(with = "field::base64")]
    pub ak_name: AkName,
    /// PCRs of the SHA-256 bank: index and 64 hex digits.
    #[serde(with = "pcrs")]
    pub pcrs: BTreeMap<u32, [u8; 32]>,
    /// The launch digest of the keeper's guest, under `seal_to = ["snp", "tpm"]`: 96 hex digits.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "measurement")]
    pub measurement: Option<[u8; 48]>,
    /// The proposer's statement, exact bytes.
    pub statement: String,
    /// Armored SSHSIG over the statement.
    pub signature: String,
}

/// A reseal has its approvals: from here on the keeper is sealed to both boot states.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ResealInForce {
    /// When.
    pub time: UnixTime,
    /// Index of its `propose` entry.
    pub proposal: u64,
    /// What the approvals named.
    pub object: Sha256Digest,
    /// The boot state of the run that writes this: [`boot_state`](crate::reseal::boot_state).
    pub present: Sha256Digest,
}

/// The keeper started on the next boot state: from here on the one before is none of its any more.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Resealed {
    /// When.
    pub time: UnixTime,
    /// What the approvals of the reseal named.
    pub object: Sha256Digest,
}

impl ProposedReseal {
    /// What is proposed at this [revision](crate::state::Vault::reseal_revision), signed so.
    pub fn new(reseal: &Reseal, revision: u64, statement: String, signature: String) -> Self {
        let Reseal { instance, ak_name, pcrs, measurement } = reseal.clone();
        Self { object: reseal.object(revision), instance, ak_name, pcrs, measurement, statement, signature }
    }

    /// What is proposed. `object` may name something else.
    pub fn reseal(&self) -> Reseal {
        let Self { instance, ak_name, pcrs, measurement, .. } = self.clone();
        Reseal { instance, ak_name, pcrs, measurement }
    }
}

/// `{"4":"hex", "11":"hex"}`, in the order of the indices. Keys are text to serde, in a map whose type it does not know yet.
pub(super) mod pcrs {
    use serde::de::{Deserializer, Error};
    use serde::ser::Serializer;

    use super::*;

    #[derive(Serialize, Deserialize)]
    struct Value(#[serde(with = "field::hex")] [u8; 32]);

    pub(in crate::entry) fn serialize<S: Serializer>(
        pcrs: &BTreeMap<u32, [u8; 32]>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.collect_map(pcrs.iter().map(|(index, value)| (index.to_string(), Value(*value))))
    }

    pub(in crate::entry) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<BTreeMap<u32, [u8; 32]>, D::Error> {
        let texts = BTreeMap::<String, Value>::deserialize(deserializer)?;
        let index = |text: &str| (0..24).find(|index: &u32| index.to_string() == text);
        texts
            .into_iter()
            .map(|(text, value)| Some((index(&text)?, value.0)))
            .collect::<Option<_>>()
            .ok_or_else(|| D::Error::custom("a PCR is a number from 0 to 23"))
    }
}

pub(super) mod measurement {
    use serde::de::Deserializer;
    use serde::ser::Serializer;

    use super::*;

    pub(in crate::entry) fn serialize<S: Serializer>(
        digest: &Option<[u8; 48]>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        match digest {
            Some(digest) => field::hex::serialize(digest, serializer),
            None => serializer.serialize_none(),
        }
    }

    pub(in crate::entry) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<[u8; 48]>, D::Error> {
        field::hex::deserialize(deserializer).map(Some)
    }
}
