//! How single fields look in JSON: base64 and hex, names, and the approval with its optional pair.

use std::fmt;

use attestation::{AkName, HpkePublicKey, IdentityKey, LeaseKey, LogKey, Sha256Digest, Trust, UnixTime, Workload};
use serde::de::{Deserialize, Deserializer, Error, Visitor};
use serde::ser::{Serialize, Serializer};

use super::{Approve, BootId, GenesisWitness, Machine, Release, ReleasedUnits};
use crate::names::{Group, Name, Version};
use crate::revocation::Marks;

/// A value that is nothing but its bytes.
pub(crate) trait RawBytes: Sized {
    fn raw(&self) -> &[u8];
    fn from_raw(bytes: &[u8]) -> Option<Self>;
}

impl<const N: usize> RawBytes for [u8; N] {
    fn raw(&self) -> &[u8] {
        self
    }

    fn from_raw(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().ok()
    }
}

impl RawBytes for Vec<u8> {
    fn raw(&self) -> &[u8] {
        self
    }

    fn from_raw(bytes: &[u8]) -> Option<Self> {
        Some(bytes.to_vec())
    }
}

macro_rules! raw_bytes {
    ($($type:ty),*) => { $(
        impl RawBytes for $type {
            fn raw(&self) -> &[u8] {
                self.as_bytes()
            }

            fn from_raw(bytes: &[u8]) -> Option<Self> {
                Self::try_from(bytes).ok()
            }
        }
    )* };
}

raw_bytes!(AkName, HpkePublicKey, IdentityKey, LeaseKey, LogKey);

/// A string, read where it lies: nothing of it is copied before it is known to be what it should.
struct Text<T>(fn(&str) -> T);

impl<T> Visitor<'_> for Text<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a string")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<T, E> {
        Ok((self.0)(text))
    }
}

/// Standard base64 with padding.
pub(crate) mod base64 {
    use ::base64::Engine;
    use ::base64::engine::general_purpose::STANDARD;

    use super::*;

    pub(crate) fn serialize<T: RawBytes, S: Serializer>(value: &T, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&STANDARD.encode(value.raw()))
    }

    pub(crate) fn deserialize<'de, T: RawBytes, D: Deserializer<'de>>(deserializer: D) -> Result<T, D::Error> {
        let text = deserializer.deserialize_str(Text(|text| STANDARD.decode(text)))?;
        let bytes = text.map_err(D::Error::custom)?;
        T::from_raw(&bytes).ok_or_else(|| D::Error::custom("base64 of another length or form than this field has"))
    }
}

/// The same where the field may be left out.
pub(crate) mod base64_if_any {
    use super::*;

    pub(crate) fn serialize<T: RawBytes, S: Serializer>(value: &Option<T>, serializer: S) -> Result<S::Ok, S::Error> {
        match value {
            Some(value) => base64::serialize(value, serializer),
            None => serializer.serialize_none(),
        }
    }

    pub(crate) fn deserialize<'de, T: RawBytes, D: Deserializer<'de>>(deserializer: D) -> Result<Option<T>, D::Error> {
        base64::deserialize(deserializer).map(Some)
    }
}

/// Lower-case hex.
pub(crate) mod hex {
    use super::*;

    pub(crate) fn serialize<T: RawBytes, S: Serializer>(value: &T, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&::hex::encode(value.raw()))
    }

    pub(crate) fn deserialize<'de, T: RawBytes, D: Deserializer<'de>>(deserializer: D) -> Result<T, D::Error> {
        let bytes = deserializer.deserialize_str(Text(|text| ::hex::decode(text)))?.map_err(D::Error::custom)?;
        T::from_raw(&bytes).ok_or_else(|| D::Error::custom("hex of another length than this field has"))
    }
}

macro_rules! name_in_json {
    ($($type:ty),*) => { $(
        impl Serialize for $type {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(self.as_str())
            }
        }

        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                deserializer.deserialize_str(Text(|text| Self::try_from(text)))?.map_err(D::Error::custom)
            }
        }
    )* };
}

name_in_json!(Group, Name, Version);

/// The fields of an approval: `evidence` and `binding` stand there together or not at all.
#[derive(serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ApproveFields {
    time: UnixTime,
    statement: String,
    signature: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    evidence: Option<Sha256Digest>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    binding: Option<Sha256Digest>,
}

impl From<Approve> for ApproveFields {
    fn from(approve: Approve) -> Self {
        Self {
            time: approve.time,
            statement: approve.statement,
            signature: approve.signature,
            evidence: approve.witness.map(|witness| witness.evidence),
            binding: approve.witness.map(|witness| witness.binding),
        }
    }
}

impl TryFrom<ApproveFields> for Approve {
    type Error = &'static str;

    fn try_from(fields: ApproveFields) -> Result<Self, Self::Error> {
        let witness = match (fields.evidence, fields.binding) {
            (Some(evidence), Some(binding)) => Some(GenesisWitness { evidence, binding }),
            (None, None) => None,
            _ => return Err("`evidence` and `binding` stand together or not at all"),
        };
        Ok(Self { time: fields.time, statement: fields.statement, signature: fields.signature, witness })
    }
}

/// The fields of a release: those of a TPM stand there together or not at all, and there is at least one kind.
#[derive(serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ReleaseFields {
    time: UnixTime,
    rule: Name,
    model: Name,
    version: Version,
    policy: Sha256Digest,
    manifest: Sha256Digest,
    units: ReleasedUnits,
    #[serde(with = "base64")]
    session: [u8; 16],
    hpke_key: Sha256Digest,
    lease: Sha256Digest,
    #[serde(with = "base64")]
    lease_key: LeaseKey,
    issued: UnixTime,
    renew_by: UnixTime,
    platform: Sha256Digest,
    #[serde(default, skip_serializing_if = "Option::is_none", with = "base64_if_any")]
    report_id: Option<[u8; 32]>,
    #[serde(default, skip_serializing_if = "Option::is_none", with = "base64_if_any")]
    ak_name: Option<AkName>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    reset_count: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    restart_count: Option<u32>,
    tier: Trust,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    marks: Option<Marks>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    workload: Option<Workload>,
    evidence: Sha256Digest,
    binding: Sha256Digest,
}

impl From<Release> for ReleaseFields {
    fn from(release: Release) -> Self {
        let (report_id, boot) = match release.machine {
            Machine::Tpm(boot) => (None, Some(boot)),
            Machine::Snp { report_id } => (Some(report_id), None),
            Machine::SnpVtpm { report_id, vtpm } => (Some(report_id), Some(vtpm)),
        };
        Self {
            time: release.time,
            rule: release.rule,
            model: release.model,
            version: release.version,
            policy: release.policy,
            manifest: release.manifest,
            units: release.units,
            session: release.session,
            hpke_key: release.hpke_key,
            lease: release.lease,
            lease_key: release.lease_key,
            issued: release.issued,
            renew_by: release.renew_by,
            platform: release.platform,
            report_id,
            ak_name: boot.map(|boot| boot.ak_name),
            reset_count: boot.map(|boot| boot.reset_count),
            restart_count: boot.map(|boot| boot.restart_count),
            tier: release.tier,
            marks: release.marks,
            workload: release.workload,
            evidence: release.evidence,
            binding: release.binding,
        }
    }
}

impl TryFrom<ReleaseFields> for Release {
    type Error = &'static str;

    fn try_from(fields: ReleaseFields) -> Result<Self, Self::Error> {
        let boot = match (fields.ak_name, fields.reset_count, fields.restart_count) {
            (Some(ak_name), Some(reset_count), Some(restart_count)) => {
                Some(BootId { ak_name, reset_count, restart_count })
            }
            (None, None, None) => None,
            _ => return Err("`ak_name`, `reset_count` and `restart_count` stand together or not at all"),
        };
        let machine = match (fields.report_id, boot) {
            (None, Some(boot)) => Machine::Tpm(boot),
            (Some(report_id), None) => Machine::Snp { report_id },
            (Some(report_id), Some(vtpm)) => Machine::SnpVtpm { report_id, vtpm },
            (None, None) => return Err("neither `report_id` nor `ak_name` says which machine it was"),
        };
        Ok(Self {
            time: fields.time,
            rule: fields.rule,
            model: fields.model,
            version: fields.version,
            policy: fields.policy,
            manifest: fields.manifest,
            units: fields.units,
            session: fields.session,
            hpke_key: fields.hpke_key,
            lease: fields.lease,
            lease_key: fields.lease_key,
            issued: fields.issued,
            renew_by: fields.renew_by,
            platform: fields.platform,
            machine,
            tier: fields.tier,
            marks: fields.marks,
            workload: fields.workload,
            evidence: fields.evidence,
            binding: fields.binding,
        })
    }
}
