//! How single fields look in JSON: base64 and hex, names, and the approval with its optional pair.

use attestation::{AkName, HpkePublicKey, IdentityKey, LeaseKey, LogKey, Sha256Digest, UnixTime};
use serde::de::{Deserialize, Deserializer, Error};
use serde::ser::{Serialize, Serializer};

use super::{Approve, GenesisWitness};
use crate::names::{Name, Version};

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

/// Standard base64 with padding.
pub(crate) mod base64 {
    use ::base64::Engine;
    use ::base64::engine::general_purpose::STANDARD;

    use super::*;

    pub(crate) fn serialize<T: RawBytes, S: Serializer>(value: &T, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&STANDARD.encode(value.raw()))
    }

    pub(crate) fn deserialize<'de, T: RawBytes, D: Deserializer<'de>>(deserializer: D) -> Result<T, D::Error> {
        let bytes = STANDARD.decode(String::deserialize(deserializer)?).map_err(D::Error::custom)?;
        T::from_raw(&bytes).ok_or_else(|| D::Error::custom("base64 of another length or form than this field has"))
    }
}

/// Lower-case hex.
pub(crate) mod hex {
    use super::*;

    pub(crate) fn serialize<T: RawBytes, S: Serializer>(value: &T, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&::hex::encode(value.raw()))
    }

    pub(crate) fn deserialize<'de, T: RawBytes, D: Deserializer<'de>>(deserializer: D) -> Result<T, D::Error> {
        let bytes = ::hex::decode(String::deserialize(deserializer)?).map_err(D::Error::custom)?;
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
                Self::try_from(String::deserialize(deserializer)?).map_err(D::Error::custom)
            }
        }
    )* };
}

name_in_json!(Name, Version);

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
