//! Manifests and DEK records, read from the host by digest and kept for a while.

use std::collections::HashMap;
use std::sync::Arc;

use attestation::Sha256Digest;
use ledger::state::LoggedManifest;

use super::link::{Store, StoreError};

/// Bytes that are kept; a manifest is at most 8 MiB.
const CACHE_BYTES_MAX: usize = 64 << 20;

/// Blobs by digest, checked when they came.
#[derive(Default)]
pub(super) struct Models {
    blobs: HashMap<Sha256Digest, Arc<[u8]>>,
    /// Manifests as they were read, of blobs that are kept: one of 16,384 units takes longer to read than to grant from.
    opened: HashMap<Sha256Digest, LoggedManifest>,
    bytes: usize,
}

impl Models {
    /// The blob with this digest, from memory or from the host.
    ///
    /// # Errors
    /// [`StoreError`]: the host has it not, or has other bytes.
    pub(super) fn blob(&mut self, store: &Store, digest: Sha256Digest) -> Result<Arc<[u8]>, StoreError> {
        if let Some(blob) = self.blobs.get(&digest) {
            return Ok(Arc::clone(blob));
        }
        let blob: Arc<[u8]> = store.blob(digest)?.into();
        if self.bytes + blob.len() > CACHE_BYTES_MAX {
            self.blobs.clear();
            self.opened.clear();
            self.bytes = 0;
        }
        self.bytes += blob.len();
        self.blobs.insert(digest, Arc::clone(&blob));
        Ok(blob)
    }

    /// The manifest with this digest, if it was read before.
    pub(super) fn opened(&self, digest: Sha256Digest) -> Option<LoggedManifest> {
        self.opened.get(&digest).cloned()
    }

    /// Keeps a manifest as long as its blob.
    pub(super) fn keep_opened(&mut self, manifest: &LoggedManifest) {
        if self.blobs.contains_key(&manifest.digest()) {
            self.opened.insert(manifest.digest(), manifest.clone());
        }
    }
}
