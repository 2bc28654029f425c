//! Sealed models (FORMAT.md §6): `proposed/<object>/` until the log has the `model` entry, then
//! `models/<model>/<version>/`.
//!
//! A model is put together under a name of its own and renamed as a whole. Two proposals of one name lie side by side;
//! the log says which of them becomes the model, and the store follows it. Files of a model never change.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use attestation::Sha256Digest;
use ledger::approvals::model_object;
use ledger::manifest::{DEK_NAME, MANIFEST_BYTES_MAX, MANIFEST_NAME, Manifest, SIGNATURE_NAME, unit_path};
use ledger::names::{Name, Version};
use vault_proto::convert::{ModelName, Publication, UnitUpload};
use vault_proto::limits::{BLOB_BYTES_MAX, MODEL_SIGNATURE_BYTES_MAX};

use super::StoreError;
use super::files::{self, Scratch};
use super::uploads::Uploads;

/// What the host knows of a sealed model.
#[derive(Clone, Debug)]
pub(crate) struct Model {
    /// Its directory, or what its objects' names begin with.
    pub(super) dir: PathBuf,
    /// What approvals and the log call it.
    pub(crate) object: Sha256Digest,
    /// Name and version.
    pub(crate) name: ModelName,
    /// SHA-256 of the manifest.
    pub(crate) manifest: Sha256Digest,
    /// Plaintext bytes.
    pub(crate) bytes: u64,
    /// Sealed length of each unit.
    pub(crate) units: Vec<u64>,
    /// SHA-256 of each sealed unit.
    pub(super) sealed: Vec<Sha256Digest>,
}

/// All sealed models.
#[derive(Debug)]
pub(crate) struct Models {
    models: PathBuf,
    proposed: PathBuf,
    scratch: Scratch,
    /// Held while directories move. `known` is locked for moments only, since calls wait for it.
    moving: Mutex<()>,
    known: RwLock<Known>,
}

#[derive(Debug, Default)]
struct Known {
    released: BTreeMap<ModelName, Arc<Model>>,
    proposed: BTreeMap<Sha256Digest, Arc<Model>>,
}

impl Models {
    /// Opens or creates both directories and reads the manifests in them.
    pub(crate) fn open(data_dir: &Path, scratch: Scratch) -> Result<Self, StoreError> {
        let (models, proposed) = (data_dir.join("models"), data_dir.join("proposed"));
        files::create_dirs(&models)?;
        files::create_dirs(&proposed)?;
        let mut known = Known::default();
        for name in files::names(&models, |text| Name::try_from(text).ok())? {
            for version in files::names(&models.join(name.as_str()), |text| Version::try_from(text).ok())? {
                let model = Model::read(models.join(name.as_str()).join(version.as_str()))?;
                if model.name != (ModelName { model: name.clone(), version }) {
                    return Err(StoreError::Damaged { path: model.dir, what: "the manifest names another model" });
                }
                known.released.insert(model.name.clone(), Arc::new(model));
            }
        }
        for object in files::names(&proposed, files::digest_name)? {
            let model = Model::read(proposed.join(hex::encode(object.as_bytes())))?;
            known.proposed.insert(object, Arc::new(model));
        }
        Ok(Self { models, proposed, scratch, moving: Mutex::default(), known: RwLock::new(known) })
    }

    /// A released model.
    pub(crate) fn released(&self, name: &ModelName) -> Result<Arc<Model>, StoreError> {
        self.read().released.get(name).cloned().ok_or(StoreError::NotFound { what: "model" })
    }

    /// All models by name, and whether each is released.
    pub(crate) fn list(&self) -> Vec<(Arc<Model>, bool)> {
        let known = self.read();
        let released = known.released.values().map(|model| (model.clone(), true));
        let mut all: Vec<_> = released.chain(known.proposed.values().map(|model| (model.clone(), false))).collect();
        all.sort_by(|(a, _), (b, _)| a.name.cmp(&b.name));
        all
    }

    /// Whether any proposal waits for its `model` entry.
    pub(crate) fn any_proposed(&self) -> bool {
        !self.read().proposed.is_empty()
    }

    /// Puts a model together from its small files and its uploaded units. Returns what the log will call it, and
    /// whether it was not here before.
    pub(crate) fn propose(
        &self,
        uploads: &Uploads,
        manifest: &Manifest,
        files: &Publication,
    ) -> Result<(Sha256Digest, bool), StoreError> {
        let object = object_of(manifest, &files.model_signature);
        if self.knows(&object) {
            return Ok((object, false));
        }
        let units = complete_units(uploads, manifest)?;
        let small = files.manifest.len() + files.dek.len() + files.model_signature.len();
        uploads.check_room(small as u64)?;
        let dir = self.scratch.dir()?;
        let assembled = assemble(&dir, files, &units).and_then(|()| {
            let _moving = self.moving();
            if self.knows(&object) {
                return Ok(false);
            }
            let target = self.proposed.join(hex::encode(object.as_bytes()));
            fs::rename(&dir, &target).map_err(|error| StoreError::io(&target, error))?;
            files::sync_dir(&self.proposed)?;
            self.write().proposed.insert(object, Arc::new(Model::of(target, manifest, object)));
            Ok(true)
        });
        if dir.exists() {
            // Left-overs in the scratch directory are removed at the next start at the latest.
            let _ = fs::remove_dir_all(&dir);
        }
        assembled.map(|new| (object, new))
    }

    /// Takes back a proposal that the keeper refused. Its uploaded units stay where they were uploaded.
    pub(crate) fn withdraw(&self, object: &Sha256Digest) -> Result<(), StoreError> {
        let _moving = self.moving();
        let Some(model) = self.write().proposed.remove(object) else { return Ok(()) };
        let away = self.scratch.dir()?;
        let to = away.join("withdrawn");
        fs::rename(&model.dir, &to).map_err(|error| StoreError::io(&model.dir, error))?;
        fs::remove_dir_all(&away).map_err(|error| StoreError::io(&away, error))
    }

    /// Follows a `model` entry of the log: that proposal is the model now. True if it was waiting here.
    pub(crate) fn release(&self, object: &Sha256Digest) -> Result<bool, StoreError> {
        let _moving = self.moving();
        let Some(model) = self.read().proposed.get(object).cloned() else { return Ok(false) };
        if self.read().released.contains_key(&model.name) {
            return Ok(false);
        }
        let models_of_name = self.models.join(model.name.model.as_str());
        files::create_dirs(&models_of_name)?;
        let dir = models_of_name.join(model.name.version.as_str());
        fs::rename(&model.dir, &dir).map_err(|error| StoreError::io(&dir, error))?;
        files::sync_dir(&models_of_name)?;
        files::sync_dir(&self.proposed)?;
        let mut known = self.write();
        known.proposed.remove(object);
        known.released.insert(model.name.clone(), Arc::new(Model { dir, ..(*model).clone() }));
        Ok(true)
    }

    fn knows(&self, object: &Sha256Digest) -> bool {
        let known = self.read();
        known.proposed.contains_key(object) || known.released.values().any(|model| model.object == *object)
    }

    fn moving(&self) -> MutexGuard<'_, ()> {
        self.moving.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn read(&self) -> RwLockReadGuard<'_, Known> {
        self.known.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Known> {
        self.known.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Model {
    /// The wrapped key, exact bytes.
    pub(super) fn dek(&self) -> Result<Vec<u8>, StoreError> {
        let path = self.dir.join(DEK_NAME);
        files::read(&path, BLOB_BYTES_MAX)?.ok_or(StoreError::Damaged { path, what: "missing" })
    }

    /// The manifest and the publisher's signature, exact bytes.
    pub(crate) fn public_files(&self) -> Result<(Vec<u8>, Vec<u8>), StoreError> {
        let read = |name, max| {
            let path = self.dir.join(name);
            files::read(&path, max)?.ok_or(StoreError::Damaged { path, what: "missing" })
        };
        Ok((read(MANIFEST_NAME, MANIFEST_BYTES_MAX)?, read(SIGNATURE_NAME, MODEL_SIGNATURE_BYTES_MAX)?))
    }

    /// Bytes of the small files together.
    pub(crate) fn public_bytes(&self) -> Result<u64, StoreError> {
        [MANIFEST_NAME, SIGNATURE_NAME].iter().try_fold(0, |sum, name| {
            let path = self.dir.join(name);
            Ok(sum + fs::metadata(&path).map_err(|error| StoreError::io(&path, error))?.len())
        })
    }

    /// Opens a sealed unit.
    pub(crate) fn unit(&self, index: u32) -> Result<File, StoreError> {
        let path = self.dir.join(unit_path(index));
        File::open(&path).map_err(|error| StoreError::io(&path, error))
    }

    fn read(dir: PathBuf) -> Result<Self, StoreError> {
        let damaged = |what| StoreError::Damaged { path: dir.clone(), what };
        let manifest = files::read(&dir.join(MANIFEST_NAME), MANIFEST_BYTES_MAX)?.ok_or(damaged("no manifest.json"))?;
        let signature =
            files::read(&dir.join(SIGNATURE_NAME), MODEL_SIGNATURE_BYTES_MAX)?.ok_or(damaged("no model.sig"))?;
        let manifest = Manifest::parse(&manifest).map_err(|_| damaged("manifest.json is not a manifest"))?;
        let object = object_of(&manifest, &signature);
        Ok(Self::of(dir, &manifest, object))
    }

    pub(super) fn of(dir: PathBuf, manifest: &Manifest, object: Sha256Digest) -> Self {
        let id = manifest.id();
        Self {
            dir,
            object,
            name: ModelName { model: id.model.clone(), version: id.version.clone() },
            manifest: manifest.digest(),
            bytes: manifest.total_bytes(),
            units: manifest.units().iter().map(|unit| unit.sealed_len()).collect(),
            sealed: (0u32..).map_while(|index| manifest.sealed(index)).map(|sealed| sealed.sha256).collect(),
        }
    }
}

pub(super) fn object_of(manifest: &Manifest, signature: &[u8]) -> Sha256Digest {
    model_object(&manifest.id().model, &manifest.id().version, manifest.digest(), Sha256Digest::of(signature))
}

/// Where each unit of a manifest was uploaded to, in order.
fn complete_units(uploads: &Uploads, manifest: &Manifest) -> Result<Vec<PathBuf>, StoreError> {
    let digest = manifest.digest();
    let units = check_units(manifest, |unit| uploads.is_complete(unit))?;
    Ok(units.iter().map(|unit| uploads.complete(&digest, &unit.sealed)).collect())
}

/// The units of a manifest in order, if every one is complete.
pub(super) fn check_units(
    manifest: &Manifest,
    is_complete: impl Fn(&UnitUpload) -> Result<bool, StoreError>,
) -> Result<Vec<UnitUpload>, StoreError> {
    let digest = manifest.digest();
    let mut seen = std::collections::HashSet::new();
    let mut units = Vec::with_capacity(manifest.units().len());
    let mut missing = 0;
    let mut first_missing = None;
    for (index, unit) in (0u32..).zip(manifest.units()) {
        let sealed = manifest.sealed(index).expect("a manifest has the digests of each of its units").sha256;
        if !seen.insert(sealed) {
            return Err(StoreError::UnitRepeated { unit: index });
        }
        let unit = UnitUpload { manifest: digest, sealed, bytes: unit.sealed_len() };
        if !is_complete(&unit)? {
            missing += 1;
            first_missing.get_or_insert(index);
        }
        units.push(unit);
    }
    match first_missing {
        Some(first) => Err(StoreError::UnitsMissing { missing, first }),
        None => Ok(units),
    }
}

/// Writes the small files and links the units, durably. Links, so that a refused or interrupted publication can be
/// tried again without a new upload.
fn assemble(dir: &Path, files: &Publication, units: &[PathBuf]) -> Result<(), StoreError> {
    let small = [(MANIFEST_NAME, &files.manifest), (DEK_NAME, &files.dek), (SIGNATURE_NAME, &files.model_signature)];
    for (name, bytes) in small {
        let path = dir.join(name);
        let write = || -> io::Result<()> {
            fs::write(&path, bytes)?;
            File::open(&path)?.sync_all()
        };
        write().map_err(|error| StoreError::io(&path, error))?;
    }
    files::create_dirs(&dir.join("units"))?;
    for (index, unit) in (0u32..).zip(units) {
        let path = dir.join(unit_path(index));
        fs::hard_link(unit, &path).map_err(|error| StoreError::io(&path, error))?;
    }
    files::sync_dir(&dir.join("units"))?;
    files::sync_dir(dir)
}
