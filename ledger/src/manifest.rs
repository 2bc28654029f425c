//! The manifest of a sealed model (FORMAT.md §6): which source files it has, how they are cut into units, and the digest
//! of each sealed unit. The publisher signs its exact bytes; the keeper grants from it.
//!
//! [`Plan`] is the part that is known before sealing; [`Manifest`] = plan + digests + who and what it is.
//!
//! ```
//! use ledger::manifest::{Manifest, Plan, PlanUnit, Selection};
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let bytes = br#"{"format":1,"vault":"sha256:0000000000000000000000000000000000000000000000000000000000000000",
//! # "model":"minilm","version":"1","publisher":"sha256:0000000000000000000000000000000000000000000000000000000000000000",
//! # "units":[{"file":"config.json","offset":0,"length":612,"group":"files",
//! # "sealed_sha256":"sha256:0000000000000000000000000000000000000000000000000000000000000000",
//! # "blake3":"blake3:0000000000000000000000000000000000000000000000000000000000000000"}]}"#;
//! let manifest = Manifest::parse(bytes)?;
//! let units = manifest.select(&Selection::All)?;
//! assert_eq!(units.iter().count(), 1);
//! assert_eq!(manifest.unit(0).map(|unit| unit.file.as_str()), Some("config.json"));
//! # Ok(()) }
//! ```

mod error;
mod path;
mod plan;
mod rank;
mod select;
mod wire;

use std::collections::BTreeMap;
use std::fmt;

use attestation::Sha256Digest;
pub use attestation::UNITS_MAX;

pub use error::{ManifestError, SelectError};
pub use path::{FilePath, PATH_BYTES_MAX, PATH_PARTS_MAX, PathError};
pub use plan::{Plan, PlanUnit, UNIT_BYTES_MAX, sealed_len};
pub use rank::{RANKS_MAX, Rank, RankError, Ranks};
pub use select::Selection;
pub use wire::Blake3Digest;

use crate::names::{Name, Version};

/// Longest manifest, in bytes.
pub const MANIFEST_BYTES_MAX: usize = 8 << 20;
/// Name of the manifest beside the units.
pub const MANIFEST_NAME: &str = "manifest.json";
/// Name of the wrapped DEK beside the units.
pub const DEK_NAME: &str = "dek.hpke";
/// Name of the publisher's signature beside the units.
pub const SIGNATURE_NAME: &str = "model.sig";

/// What a manifest says of a sealed model besides its units.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModelId {
    /// The only vault that can open it.
    pub vault: Sha256Digest,
    /// Name of the model.
    pub model: Name,
    /// Its version.
    pub version: Version,
    /// Digest of the publisher's key: SHA-256 of its DER SubjectPublicKeyInfo.
    pub publisher: Sha256Digest,
}

/// Digests of one sealed unit, over the whole of its file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SealedDigests {
    /// For the publisher's signature.
    pub sha256: Sha256Digest,
    /// For a reader that verifies every unit.
    pub blake3: Blake3Digest,
}

/// A manifest whose every rule has been checked, with its exact bytes.
#[derive(Clone, PartialEq, Eq)]
pub struct Manifest {
    bytes: Vec<u8>,
    id: ModelId,
    plan: Plan,
    sealed: Vec<SealedDigests>,
}

impl Manifest {
    /// Reads exact bytes, at most 8 MiB.
    pub fn parse(bytes: &[u8]) -> Result<Self, ManifestError> {
        if bytes.len() > MANIFEST_BYTES_MAX {
            return Err(ManifestError::TooLarge { bytes: bytes.len() });
        }
        let (id, plan, sealed) = wire::read(bytes)?;
        Ok(Self { bytes: bytes.to_vec(), id, plan, sealed })
    }

    /// Writes the manifest of a sealed model. `sealed` has the digests of each unit of the plan, in its order.
    pub fn build(id: ModelId, plan: Plan, sealed: Vec<SealedDigests>) -> Result<Self, ManifestError> {
        if sealed.len() != plan.units().len() {
            return Err(ManifestError::DigestCount { units: plan.units().len(), digests: sealed.len() });
        }
        let bytes = wire::write(&id, &plan, &sealed);
        if bytes.len() > MANIFEST_BYTES_MAX {
            return Err(ManifestError::TooLarge { bytes: bytes.len() });
        }
        Ok(Self { bytes, id, plan, sealed })
    }

    /// Whether a manifest of this plan will fit, so that a publisher knows it before sealing for hours.
    pub fn check_fits(id: &ModelId, plan: &Plan) -> Result<(), ManifestError> {
        // All digests have texts of one length.
        let zero =
            SealedDigests { sha256: Sha256Digest::from_bytes([0; 32]), blake3: Blake3Digest::from_bytes([0; 32]) };
        Self::build(id.clone(), plan.clone(), vec![zero; plan.units().len()]).map(drop)
    }

    /// The exact bytes: what is hashed, signed and stored.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// SHA-256 of the exact bytes.
    pub fn digest(&self) -> Sha256Digest {
        Sha256Digest::of(&self.bytes)
    }

    /// Digest of the plan, which the unit keys are derived from.
    pub fn plan_digest(&self) -> Sha256Digest {
        self.plan.digest()
    }

    /// Vault, model, version and publisher.
    pub fn id(&self) -> &ModelId {
        &self.id
    }

    /// How the files are cut.
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// The units, by index.
    pub fn units(&self) -> &[PlanUnit] {
        self.plan.units()
    }

    /// One unit.
    pub fn unit(&self, index: u32) -> Option<&PlanUnit> {
        self.plan.units().get(index as usize)
    }

    /// The digests of one sealed unit.
    pub fn sealed(&self, index: u32) -> Option<&SealedDigests> {
        self.sealed.get(index as usize)
    }

    /// Bytes of plaintext of all units: the sum of the files' lengths.
    pub fn total_bytes(&self) -> u64 {
        self.plan.total_bytes()
    }

    /// Every file that the publisher's signature must cover, and no other: names with their SHA-256.
    pub fn signed_files(&self, dek: Sha256Digest) -> BTreeMap<String, Sha256Digest> {
        let units = (0u32..).zip(&self.sealed).map(|(index, sealed)| (unit_path(index), sealed.sha256));
        [(DEK_NAME.to_owned(), dek), (MANIFEST_NAME.to_owned(), self.digest())].into_iter().chain(units).collect()
    }
}

impl fmt::Debug for Manifest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut debug = f.debug_struct("Manifest");
        debug.field("id", &self.id).field("digest", &self.digest());
        debug.field("units", &self.units().len()).finish()
    }
}

/// Where a sealed unit lies beside the manifest.
///
/// ```
/// assert_eq!(ledger::manifest::unit_path(7), "units/00007.cob");
/// ```
pub fn unit_path(index: u32) -> String {
    format!("units/{index:05}.cob")
}
