//! Sealed units in a directory that every host of the database has mounted: `uploads/<manifest>/` as a store in a
//! directory has it, `units/<manifest>/<unit>` once the digest was checked, `store-id` with the database they belong to.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use attestation::Sha256Digest;
use vault_proto::convert::UnitUpload;

use super::units::Units;
use crate::store::files;
use crate::store::uploads::{Uploads, newest};
use crate::store::{StoreError, UnitReader, UnitWriter};

const OWNER_BYTES_MAX: usize = 64;

/// Units in a directory.
#[derive(Debug)]
pub(super) struct UnitFiles {
    dir: PathBuf,
    uploads: Uploads,
}

impl UnitFiles {
    /// Opens `dir`, which has to be there: what is missing may not be mounted. Uploads leave `keep_free` bytes of the disk free.
    pub(super) fn open(dir: &Path, keep_free: u64) -> Result<Self, StoreError> {
        fs::metadata(dir).map_err(|error| StoreError::io(dir, error))?;
        let uploads = Uploads::open_apart(dir.join("uploads"), dir.join("units"), keep_free)?;
        Ok(Self { dir: dir.to_owned(), uploads })
    }

    fn owner_file(&self) -> PathBuf {
        self.dir.join("store-id")
    }
}

impl Units for UnitFiles {
    fn is_complete(&self, unit: &UnitUpload) -> Result<bool, StoreError> {
        self.uploads.is_complete(unit)
    }

    fn stored(&self, unit: &UnitUpload) -> Result<u64, StoreError> {
        self.uploads.stored(unit)
    }

    fn begin(&self, unit: UnitUpload, offset: u64) -> Result<Box<dyn UnitWriter>, StoreError> {
        Ok(Box::new(self.uploads.begin(unit, offset)?))
    }

    fn reader(&self, unit: &UnitUpload) -> Result<Box<dyn UnitReader>, StoreError> {
        let path = self.uploads.complete(&unit.manifest, &unit.sealed);
        Ok(Box::new(File::open(&path).map_err(|error| StoreError::io(&path, error))?))
    }

    fn forget(&self, manifest: &Sha256Digest, units: bool) -> Result<(), StoreError> {
        self.uploads.forget(manifest)?;
        if units { self.uploads.forget_complete(manifest) } else { Ok(()) }
    }

    fn newest(&self) -> Result<BTreeMap<Sha256Digest, SystemTime>, StoreError> {
        let mut found = BTreeMap::new();
        for dir in [self.dir.join("uploads"), self.dir.join("units")] {
            for manifest in files::names(&dir, files::digest_name)? {
                let last = newest(&dir.join(hex::encode(manifest.as_bytes())))?;
                found.entry(manifest).and_modify(|known: &mut SystemTime| *known = last.max(*known)).or_insert(last);
            }
        }
        Ok(found)
    }

    fn is_busy(&self, manifest: &Sha256Digest) -> bool {
        self.uploads.is_busy(manifest)
    }

    fn owner(&self) -> Result<Option<String>, StoreError> {
        let bytes = files::read(&self.owner_file(), OWNER_BYTES_MAX)?;
        Ok(bytes.map(|bytes| String::from_utf8_lossy(&bytes).trim().to_owned()))
    }

    fn claim(&self, database: &str) -> Result<(), StoreError> {
        let path = self.owner_file();
        let at = |error| StoreError::io(&path, error);
        let mut file = tempfile::NamedTempFile::new_in(&self.dir).map_err(at)?;
        writeln!(file, "{database}").map_err(at)?;
        file.as_file().sync_all().map_err(at)?;
        match file.persist_noclobber(&path) {
            Err(error) if error.error.kind() != io::ErrorKind::AlreadyExists => Err(at(error.error)),
            _ => files::sync_dir(&self.dir),
        }
    }
}
