//! A manifest that the log names. The keeper grants from no other: what a host supplies is only bytes until its digest is
//! that of a published model.

use std::fmt;
use std::sync::Arc;

use attestation::Sha256Digest;

use super::State;
use super::vault::PublishedModel;
use crate::manifest::{Manifest, ManifestError};
use crate::names::{Name, Version};

/// The manifest of a published model. Only [`State::open_manifest`] makes one; a clone shares it.
#[derive(Debug, Clone)]
pub struct LoggedManifest {
    manifest: Arc<Manifest>,
    model: Arc<PublishedModel>,
}

impl LoggedManifest {
    /// Whether it is that of this published model, so that it need not be read again.
    pub fn is_of(&self, model: &PublishedModel) -> bool {
        self.model.proposed == model.proposed
    }

    /// The manifest.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// The model as the log has it.
    pub fn model(&self) -> &PublishedModel {
        &self.model
    }

    /// SHA-256 of the manifest.
    pub fn digest(&self) -> Sha256Digest {
        self.model.proposed.manifest
    }
}

impl State {
    /// Takes the exact bytes of a manifest if they are those of this published model.
    pub fn open_manifest(
        &self,
        model: &Name,
        version: &Version,
        bytes: &[u8],
    ) -> Result<LoggedManifest, OpenManifestError> {
        let vault = self.vault().ok_or(OpenManifestError::VaultNotOpen)?;
        let published = vault.model(model, version).ok_or(OpenManifestError::ModelNotPublished)?;
        let proposed = &published.proposed;
        let found = Sha256Digest::of(bytes);
        if found != proposed.manifest {
            return Err(OpenManifestError::DigestMismatch { expected: proposed.manifest, found });
        }
        let manifest = Manifest::parse(bytes).map_err(OpenManifestError::Manifest)?;
        let id = manifest.id();
        let named = (id.vault, &id.model, &id.version, id.publisher);
        let sizes = (u32::try_from(manifest.units().len()).ok(), manifest.total_bytes());
        if named != (vault.id(), model, version, proposed.publisher) || sizes != (Some(proposed.units), proposed.bytes)
        {
            return Err(OpenManifestError::NotAsLogged);
        }
        Ok(LoggedManifest { manifest: Arc::new(manifest), model: Arc::clone(published) })
    }
}

/// Why bytes are not the manifest of a published model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OpenManifestError {
    /// There is no vault yet.
    VaultNotOpen,
    /// The log has no such model.
    ModelNotPublished,
    /// Not the bytes that the log names.
    DigestMismatch {
        /// In the log.
        expected: Sha256Digest,
        /// Of the bytes.
        found: Sha256Digest,
    },
    /// The log names bytes that are no manifest.
    Manifest(ManifestError),
    /// The manifest says another vault, model, version, publisher or size than the log.
    NotAsLogged,
}

impl OpenManifestError {
    /// Stable code.
    pub fn code(&self) -> &'static str {
        match self {
            Self::VaultNotOpen => "vault-not-open",
            Self::ModelNotPublished => "model-not-published",
            Self::DigestMismatch { .. } => "manifest-mismatch",
            Self::Manifest(error) => error.code(),
            Self::NotAsLogged => "manifest-not-as-logged",
        }
    }
}

impl fmt::Display for OpenManifestError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::VaultNotOpen => f.write_str("the vault is not open yet"),
            Self::ModelNotPublished => f.write_str("the log has no such model"),
            Self::DigestMismatch { expected, found } => {
                write!(f, "the log names the manifest {expected}, these bytes are {found}")
            }
            Self::Manifest(error) => error.fmt(f),
            Self::NotAsLogged => {
                f.write_str("the manifest says another vault, model, version, publisher or size than the log")
            }
        }
    }
}

impl std::error::Error for OpenManifestError {}
