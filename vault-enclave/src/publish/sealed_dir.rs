//! A directory that was sealed (FORMAT.md §6), as it lies on the publisher's disk: ciphertext.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use attestation::Sha256Digest;
use ledger::manifest::{DEK_NAME, MANIFEST_BYTES_MAX, MANIFEST_NAME, Manifest, SIGNATURE_NAME, unit_path};
use ledger::model_signature::BUNDLE_BYTES_MAX;
use vault_proto::convert::{Publication, UnitUpload};
use vault_proto::limits::DEK_BYTES;

use crate::failure::{Failure, Kind};

/// A sealed model that is whole: its documents are here, and each unit has its length.
pub(super) struct SealedDir {
    path: PathBuf,
    manifest: Manifest,
    dek: Vec<u8>,
    signature: Vec<u8>,
}

impl SealedDir {
    /// Reads the documents and looks at each unit's length. The host checks the digests as the units arrive, the keeper
    /// the signature, and every agent both again.
    pub(super) fn open(path: &Path, vault: Sha256Digest) -> Result<Self, Failure> {
        let manifest = Manifest::parse(&read(path, MANIFEST_NAME, MANIFEST_BYTES_MAX)?).map_err(|error| {
            Failure::new(Kind::Usage, error.code(), format!("{}: {error}", path.join(MANIFEST_NAME).display()))
                .next("seal the model anew")
        })?;
        let sealed_to = manifest.id().vault;
        if sealed_to != vault {
            let message = format!("the model is sealed to the vault {sealed_to}, and the vault file is of {vault}");
            return Err(Failure::new(Kind::Usage, "model-vault", message).next("seal it anew, for this vault"));
        }
        let dek = read(path, DEK_NAME, DEK_BYTES)?;
        let signature = read(path, SIGNATURE_NAME, BUNDLE_BYTES_MAX)?;
        let sealed = Self { path: path.to_owned(), manifest, dek, signature };
        (0..sealed.unit_count()).try_for_each(|index| sealed.check_length(index))?;
        Ok(sealed)
    }

    /// Its manifest.
    pub(super) fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// How many units it has.
    pub(super) fn unit_count(&self) -> u32 {
        // At most 16,384: Manifest.
        self.manifest.units().len() as u32
    }

    /// Bytes of all sealed units.
    pub(super) fn sealed_bytes(&self) -> u64 {
        self.manifest.units().iter().map(|unit| unit.sealed_len()).sum()
    }

    /// Where a unit lies.
    pub(super) fn unit_file(&self, index: u32) -> PathBuf {
        self.path.join(unit_path(index))
    }

    /// How a host is told of a unit. `None` past the last.
    pub(super) fn upload(&self, index: u32) -> Option<UnitUpload> {
        let (unit, sealed) = (self.manifest.unit(index)?, self.manifest.sealed(index)?);
        Some(UnitUpload { manifest: self.manifest.digest(), sealed: sealed.sha256, bytes: unit.sealed_len() })
    }

    /// What the keeper is given.
    pub(super) fn publication(&self) -> Publication {
        Publication {
            manifest: self.manifest.bytes().to_vec(),
            dek: self.dek.clone(),
            model_signature: self.signature.clone(),
        }
    }

    fn check_length(&self, index: u32) -> Result<(), Failure> {
        let path = self.unit_file(index);
        let found = path.metadata().map_err(|error| Failure::file("read", &path, &error))?.len();
        match self.upload(index) {
            Some(unit) if unit.bytes == found => Ok(()),
            _ => Err(Failure::new(
                Kind::Usage,
                "unit-length",
                format!("{} has {found} bytes, which is not what the manifest says", path.display()),
            )
            .next("the directory is damaged: seal the model anew")),
        }
    }
}

fn read(directory: &Path, name: &str, max: usize) -> Result<Vec<u8>, Failure> {
    let path = directory.join(name);
    let mut bytes = Vec::new();
    let limit = max as u64 + 1;
    File::open(&path).and_then(|file| file.take(limit).read_to_end(&mut bytes)).map_err(|error| {
        Failure::file("read", &path, &error).next("give a directory that `vault-enclave seal --out` made")
    })?;
    if bytes.len() > max {
        return Err(Failure::new(
            Kind::Usage,
            "file-too-long",
            format!("{} has more than {max} bytes", path.display()),
        ));
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use ring::rand::SystemRandom;

    use super::*;
    use crate::publish::stoppable::Stoppable;
    use crate::seal::{DirectoryTarget, SealError, SealRequest, SourceModel};
    use crate::test_support;
    use crate::wrap::HpkeKeyPair;

    /// Seals a small model for the vault `vault` into `sealed` of a new directory.
    fn seal(stop: bool) -> (tempfile::TempDir, Result<Manifest, SealError>) {
        let (directory, rng) = (tempfile::tempdir().unwrap(), SystemRandom::new());
        let source = directory.path().join("source");
        fs::create_dir(&source).unwrap();
        fs::write(source.join("a.bin"), [7; 100]).unwrap();
        fs::write(source.join("b.bin"), []).unwrap();
        let vault = HpkeKeyPair::generate(&rng).unwrap();
        let request = SealRequest {
            vault: Sha256Digest::of(b"vault"),
            wrap_key: vault.public_key(),
            model: "minilm".try_into().unwrap(),
            version: "1".try_into().unwrap(),
            publisher: &test_support::publisher(&rng),
            threads: 1,
        };
        let target = DirectoryTarget::begin(&directory.path().join("sealed")).unwrap();
        let target = Stoppable { target, stop: &stop.into() };
        let source = SourceModel::scan(&source, &ledger::safetensors::layer_group).unwrap();
        let manifest = request.seal(&source, target, &rng, &|_| {});
        (directory, manifest)
    }

    fn refused(path: &Path, vault: &[u8]) -> String {
        SealedDir::open(path, Sha256Digest::of(vault))
            .err()
            .map_or_else(String::new, |failure| failure.code().to_owned())
    }

    #[test]
    fn what_was_sealed_is_read_whole() {
        let (directory, manifest) = seal(false);
        let sealed = SealedDir::open(&directory.path().join("sealed"), Sha256Digest::of(b"vault")).unwrap();
        assert_eq!(Ok(sealed.manifest()), manifest.as_ref());
        assert_eq!((sealed.unit_count(), sealed.sealed_bytes()), (2, 2 * (56 + 16) + 100));
        assert_eq!(sealed.upload(0).map(|unit| unit.bytes), Some(172));
        assert_eq!(sealed.upload(2), None);
        assert_eq!(sealed.publication().manifest, sealed.manifest().bytes());
    }

    #[test]
    fn what_is_of_another_vault_or_damaged_is_refused_before_it_is_sent() {
        let (directory, _) = seal(false);
        let path = directory.path().join("sealed");
        assert_eq!(refused(&path, b"other"), "model-vault");
        assert_eq!(refused(directory.path(), b"vault"), "file");
        let unit = path.join(unit_path(1));
        let bytes = fs::read(&unit).unwrap();
        fs::write(&unit, &bytes[1..]).unwrap();
        assert_eq!(refused(&path, b"vault"), "unit-length");
        fs::write(&unit, bytes).unwrap();
        fs::write(path.join(DEK_NAME), [0; DEK_BYTES + 1]).unwrap();
        assert_eq!(refused(&path, b"vault"), "file-too-long");
    }

    #[test]
    fn sealing_that_is_interrupted_leaves_nothing() {
        let (directory, manifest) = seal(true);
        assert_eq!(manifest.err().map(|error| error.code()), Some("seal-target-failed"));
        let left: Vec<_> = fs::read_dir(directory.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(left, ["source"]);
    }
}
