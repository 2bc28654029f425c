//! Sealed models among objects: `proposed/<object>/` and `models/<name>/<version>/` have the small files, the manifest last.
//! The units stay where they were uploaded.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use attestation::Sha256Digest;
use ledger::manifest::{DEK_NAME, MANIFEST_BYTES_MAX, MANIFEST_NAME, Manifest, SIGNATURE_NAME};
use ledger::names::{Name, Version};
use vault_proto::convert::{ModelName, Publication, UnitUpload};
use vault_proto::limits::{BLOB_BYTES_MAX, MODEL_SIGNATURE_BYTES_MAX};

use super::place::Objects;
use super::units::Units;
use crate::store::files::digest_name;
use crate::store::models::{Model, check_units, object_of};
use crate::store::{StoreError, UnitReader};

/// All sealed models. What was read once is kept: nothing under one name ever changes, though it may go.
#[derive(Debug)]
pub(super) struct Models {
    objects: Arc<dyn Objects>,
    known: Mutex<HashMap<String, Arc<Model>>>,
}

impl Models {
    pub(super) fn new(objects: Arc<dyn Objects>) -> Self {
        Self { objects, known: Mutex::default() }
    }

    pub(super) fn released(&self, name: &ModelName) -> Result<Arc<Model>, StoreError> {
        let dir = released_dir(name);
        let model = self.read(&dir)?.ok_or(StoreError::NotFound { what: "model" })?;
        if model.name != *name {
            return Err(self.objects.damaged(&dir, "the manifest names another model"));
        }
        Ok(model)
    }

    pub(super) fn list(&self) -> Result<Vec<(Arc<Model>, bool)>, StoreError> {
        let mut all = Vec::new();
        for released in [true, false] {
            for listed in self.objects.list(if released { "models" } else { "proposed" })? {
                let Some(dir) = listed.name.strip_suffix(MANIFEST_NAME) else { continue };
                let dir = dir.trim_end_matches('/');
                let steps: Vec<_> = dir.split('/').collect();
                let ours = match steps.as_slice() {
                    ["models", name, version] => Name::try_from(*name).is_ok() && Version::try_from(*version).is_ok(),
                    ["proposed", object] => digest_name(object).is_some(),
                    _ => false,
                };
                if ours && let Some(model) = self.read(dir)? {
                    all.push((model, released));
                }
            }
        }
        // A proposal that was released a moment ago may be there twice.
        let released: Vec<_> = all.iter().filter(|(_, released)| *released).map(|(model, _)| model.object).collect();
        all.retain(|(model, is_released)| *is_released || !released.contains(&model.object));
        all.sort_by(|(a, _), (b, _)| a.name.cmp(&b.name));
        Ok(all)
    }

    pub(super) fn propose(
        &self,
        units: &dyn Units,
        manifest: &Manifest,
        files: &Publication,
    ) -> Result<(Sha256Digest, bool), StoreError> {
        let object = object_of(manifest, &files.model_signature);
        let id = manifest.id();
        let name = ModelName { model: id.model.clone(), version: id.version.clone() };
        let dir = proposed_dir(&object);
        if self.read(&released_dir(&name))?.is_some_and(|model| model.object == object) || self.read(&dir)?.is_some() {
            return Ok((object, false));
        }
        check_units(manifest, |unit| units.is_complete(unit))?;
        self.write(&dir, files)?;
        Ok((object, true))
    }

    pub(super) fn withdraw(&self, object: &Sha256Digest) -> Result<(), StoreError> {
        let dir = proposed_dir(object);
        self.known.lock().unwrap_or_else(PoisonError::into_inner).remove(&dir);
        [MANIFEST_NAME, SIGNATURE_NAME, DEK_NAME].iter().try_for_each(|name| self.objects.remove(&at(&dir, name)))
    }

    /// Follows a `model` entry of the log: that proposal is the model now. True if it was waiting here.
    pub(super) fn release(&self, object: &Sha256Digest) -> Result<bool, StoreError> {
        let from = proposed_dir(object);
        let Some(model) = self.read(&from)? else { return Ok(false) };
        let to = released_dir(&model.name);
        if let Some(there) = self.read(&to)? {
            // A host that died here before it removed the proposal.
            if there.object == *object {
                self.withdraw(object)?;
            }
            return Ok(false);
        }
        let (manifest, model_signature) = self.public_files(&model)?;
        self.write(&to, &Publication { manifest, dek: self.file(&from, DEK_NAME, BLOB_BYTES_MAX)?, model_signature })?;
        self.withdraw(object)?;
        Ok(true)
    }

    pub(super) fn public_files(&self, model: &Model) -> Result<(Vec<u8>, Vec<u8>), StoreError> {
        let dir = model.dir.to_string_lossy();
        let manifest = self.file(&dir, MANIFEST_NAME, MANIFEST_BYTES_MAX)?;
        Ok((manifest, self.file(&dir, SIGNATURE_NAME, MODEL_SIGNATURE_BYTES_MAX)?))
    }

    pub(super) fn dek(&self, model: &Model) -> Result<Vec<u8>, StoreError> {
        self.file(&model.dir.to_string_lossy(), DEK_NAME, BLOB_BYTES_MAX)
    }

    pub(super) fn public_bytes(&self, model: &Model) -> Result<u64, StoreError> {
        let dir = model.dir.to_string_lossy();
        [MANIFEST_NAME, SIGNATURE_NAME].iter().try_fold(0, |sum, name| {
            let length = self.objects.length(&at(&dir, name))?;
            Ok(sum + length.ok_or_else(|| self.objects.damaged(&at(&dir, name), "missing"))?)
        })
    }

    pub(super) fn unit(&self, units: &dyn Units, model: &Model, index: u32) -> Result<Box<dyn UnitReader>, StoreError> {
        let index = index as usize;
        let (sealed, bytes) = model.sealed.get(index).zip(model.units.get(index)).expect("fetch looked it up");
        units.reader(&UnitUpload { manifest: model.manifest, sealed: *sealed, bytes: *bytes })
    }

    fn write(&self, dir: &str, files: &Publication) -> Result<(), StoreError> {
        self.objects.write(&at(dir, DEK_NAME), files.dek.clone())?;
        self.objects.write(&at(dir, SIGNATURE_NAME), files.model_signature.clone())?;
        // Whoever finds the manifest finds the rest.
        self.objects.write(&at(dir, MANIFEST_NAME), files.manifest.clone())
    }

    fn read(&self, dir: &str) -> Result<Option<Arc<Model>>, StoreError> {
        // What others withdrew or released is to be gone here too.
        if self.objects.length(&at(dir, MANIFEST_NAME))?.is_none() {
            self.lock().remove(dir);
            return Ok(None);
        }
        if let Some(known) = self.lock().get(dir).cloned() {
            return Ok(Some(known));
        }
        let manifest = self.file(dir, MANIFEST_NAME, MANIFEST_BYTES_MAX)?;
        let signature = self.file(dir, SIGNATURE_NAME, MODEL_SIGNATURE_BYTES_MAX)?;
        let damaged = |_| self.objects.damaged(dir, "manifest.json is not a manifest");
        let manifest = Manifest::parse(&manifest).map_err(damaged)?;
        let model = Arc::new(Model::of(dir.into(), &manifest, object_of(&manifest, &signature)));
        self.lock().insert(dir.to_owned(), model.clone());
        Ok(Some(model))
    }

    fn file(&self, dir: &str, name: &str, max: usize) -> Result<Vec<u8>, StoreError> {
        let name = at(dir, name);
        Ok(self.objects.get(&name, max)?.ok_or_else(|| self.objects.damaged(&name, "missing"))?.0)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<String, Arc<Model>>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn released_dir(name: &ModelName) -> String {
    format!("models/{}/{}", name.model.as_str(), name.version.as_str())
}

fn proposed_dir(object: &Sha256Digest) -> String {
    format!("proposed/{}", hex::encode(object.as_bytes()))
}

fn at(dir: &str, name: &str) -> String {
    format!("{dir}/{name}")
}
