//! Blobs under their SHA-256: evidence, binding preimages, DEK records, manifests, signatures.

use std::path::PathBuf;

use attestation::Sha256Digest;
use vault_proto::limits::BLOB_BYTES_MAX;

use super::StoreError;
use super::files::{self, Scratch};

/// The blob directory. Any number of callers at once: a blob is whole or absent, and never changes.
#[derive(Clone, Debug)]
pub(crate) struct Blobs {
    dir: PathBuf,
    scratch: Scratch,
}

impl Blobs {
    /// Opens or creates the directory.
    pub(crate) fn open(dir: PathBuf, scratch: Scratch) -> Result<Self, StoreError> {
        files::create_dirs(&dir)?;
        Ok(Self { dir, scratch })
    }

    /// Stores a blob, durably. Refuses bytes that do not have this digest. Writes again over a copy that went bad.
    pub(crate) fn put(&self, digest: &Sha256Digest, bytes: &[u8]) -> Result<(), StoreError> {
        if bytes.len() > BLOB_BYTES_MAX {
            return Err(StoreError::BlobSize { bytes: bytes.len() });
        }
        if Sha256Digest::of(bytes) != *digest {
            return Err(StoreError::DigestMismatch);
        }
        let path = self.path(digest);
        if files::read(&path, BLOB_BYTES_MAX).is_ok_and(|stored| stored.is_some_and(|stored| stored == bytes)) {
            return Ok(());
        }
        self.scratch.write(&path, bytes)
    }

    /// Reads a blob and checks its digest: a disk may return other bytes than it was given.
    pub(crate) fn get(&self, digest: &Sha256Digest) -> Result<Vec<u8>, StoreError> {
        let path = self.path(digest);
        let bytes = files::read(&path, BLOB_BYTES_MAX)?.ok_or(StoreError::NotFound { what: "blob" })?;
        if Sha256Digest::of(&bytes) != *digest {
            return Err(StoreError::Damaged { path, what: "its digest is not its name" });
        }
        Ok(bytes)
    }

    /// Names of all blobs.
    pub(crate) fn list(&self) -> Result<Vec<Sha256Digest>, StoreError> {
        files::names(&self.dir, files::digest_name)
    }

    fn path(&self, digest: &Sha256Digest) -> PathBuf {
        self.dir.join(hex::encode(digest.as_bytes()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn blobs() -> (tempfile::TempDir, Blobs) {
        let dir = tempfile::tempdir().unwrap();
        let scratch = Scratch::open(dir.path().join("tmp")).unwrap();
        let blobs = Blobs::open(dir.path().join("blobs"), scratch).unwrap();
        (dir, blobs)
    }

    #[test]
    fn a_blob_comes_back_as_it_was_put() {
        let (_dir, blobs) = blobs();
        let digest = Sha256Digest::of(b"evidence");
        blobs.put(&digest, b"evidence").unwrap();
        blobs.put(&digest, b"evidence").unwrap();
        assert_eq!(blobs.get(&digest).unwrap(), b"evidence");
    }

    #[test]
    fn bytes_with_another_digest_are_refused() {
        let (_dir, blobs) = blobs();
        let digest = Sha256Digest::of(b"evidence");
        assert!(matches!(blobs.put(&digest, b"Evidence"), Err(StoreError::DigestMismatch)));
        assert!(matches!(blobs.get(&digest), Err(StoreError::NotFound { .. })));
    }

    #[test]
    fn a_blob_longer_than_8_mib_is_refused() {
        let (_dir, blobs) = blobs();
        let bytes = vec![0; BLOB_BYTES_MAX + 1];
        assert!(matches!(blobs.put(&Sha256Digest::of(&bytes), &bytes), Err(StoreError::BlobSize { .. })));
    }

    #[test]
    fn a_blob_that_went_bad_on_disk_is_refused_and_can_be_put_again() {
        let (_dir, blobs) = blobs();
        let digest = Sha256Digest::of(b"evidence");
        blobs.put(&digest, b"evidence").unwrap();
        std::fs::write(blobs.path(&digest), b"evidencf").unwrap();
        assert!(matches!(blobs.get(&digest), Err(StoreError::Damaged { .. })));
        blobs.put(&digest, b"evidence").unwrap();
        assert_eq!(blobs.get(&digest).unwrap(), b"evidence");
    }
}
