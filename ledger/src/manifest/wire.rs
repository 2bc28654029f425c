//! The JSON of a manifest, to and from the checked types.

use std::fmt;
use std::str::FromStr;

use attestation::Sha256Digest;
use serde::{Deserialize, Serialize};

use super::{FilePath, ManifestError, ModelId, Plan, PlanUnit, SealedDigests};
use crate::json::{Object, parse_object};
use crate::names::{Group, Name, Version};

const FORMAT: u64 = 1;

/// A BLAKE3 digest, `blake3:` and 64 lower-case hex digits in text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Blake3Digest([u8; 32]);

impl Blake3Digest {
    /// From the 32 bytes.
    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The 32 bytes.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Display for Blake3Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "blake3:{}", hex::encode(self.0))
    }
}

impl FromStr for Blake3Digest {
    type Err = ManifestError;

    fn from_str(text: &str) -> Result<Self, ManifestError> {
        let digits = text.strip_prefix("blake3:").ok_or(ManifestError::Blake3)?;
        if digits.bytes().any(|b| b.is_ascii_uppercase()) {
            return Err(ManifestError::Blake3);
        }
        let mut bytes = [0; 32];
        hex::decode_to_slice(digits, &mut bytes).map_err(|_| ManifestError::Blake3)?;
        Ok(Self(bytes))
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawManifest {
    format: u64,
    vault: Sha256Digest,
    model: String,
    version: String,
    publisher: Sha256Digest,
    units: Vec<Object<RawUnit>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawUnit {
    file: String,
    offset: u64,
    length: u64,
    group: String,
    sealed_sha256: Sha256Digest,
    blake3: String,
}

/// Reads and checks everything but the size of the whole, which the caller has bounded.
pub(super) fn read(bytes: &[u8]) -> Result<(ModelId, Plan, Vec<SealedDigests>), ManifestError> {
    let raw: RawManifest = parse_object(bytes).map_err(ManifestError::Json)?;
    if raw.format != FORMAT {
        return Err(ManifestError::Format { format: raw.format });
    }
    let id = ModelId {
        vault: raw.vault,
        model: Name::try_from(raw.model).map_err(ManifestError::Model)?,
        version: Version::try_from(raw.version).map_err(ManifestError::Version)?,
        publisher: raw.publisher,
    };
    let mut units = Vec::with_capacity(raw.units.len());
    let mut sealed = Vec::with_capacity(raw.units.len());
    for (index, Object(unit)) in (0u32..).zip(raw.units) {
        units.push(PlanUnit {
            file: FilePath::try_from(unit.file.as_str()).map_err(|error| ManifestError::File { index, error })?,
            offset: unit.offset,
            length: unit.length,
            group: Group::try_from(unit.group).map_err(|error| ManifestError::Group { index, error })?,
        });
        sealed.push(SealedDigests { sha256: unit.sealed_sha256, blake3: unit.blake3.parse()? });
    }
    Ok((id, Plan::new(units)?, sealed))
}

#[derive(Serialize)]
struct ManifestText<'a> {
    format: u64,
    vault: Sha256Digest,
    model: &'a str,
    version: &'a str,
    publisher: Sha256Digest,
    units: Vec<UnitText<'a>>,
}

#[derive(Serialize)]
struct UnitText<'a> {
    file: &'a str,
    offset: u64,
    length: u64,
    group: &'a str,
    sealed_sha256: Sha256Digest,
    blake3: String,
}

/// Writes the one encoding that we write; a reader takes any.
pub(super) fn write(id: &ModelId, plan: &Plan, sealed: &[SealedDigests]) -> Vec<u8> {
    let units = plan.units().iter().zip(sealed).map(|(unit, sealed)| UnitText {
        file: unit.file.as_str(),
        offset: unit.offset,
        length: unit.length,
        group: unit.group.as_str(),
        sealed_sha256: sealed.sha256,
        blake3: sealed.blake3.to_string(),
    });
    let text = ManifestText {
        format: FORMAT,
        vault: id.vault,
        model: id.model.as_str(),
        version: id.version.as_str(),
        publisher: id.publisher,
        units: units.collect(),
    };
    serde_json::to_vec(&text).expect("structs of strings and integers always serialise")
}
