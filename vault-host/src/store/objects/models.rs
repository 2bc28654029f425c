//! Sealed models among objects: `proposed/<object>/<host>/` and `models/<name>/<version>/` have the small files, the manifest
//! last. The units stay where they were uploaded.
//!
//! Each host has a copy of its own of what it proposes, and takes back no other: of two that take one model at the same
//! moment, one may be refused by the keeper and the other not. Whichever copy is whole is released.

use std::collections::{HashMap, HashSet};
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
    /// This host, while it runs, among those that propose.
    host: String,
    known: Mutex<HashMap<String, Arc<Model>>>,
}

impl Models {
    pub(super) fn new(objects: Arc<dyn Objects>, host: String) -> Self {
        Self { objects, host, known: Mutex::default() }
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
                    ["proposed", object, _host] => digest_name(object).is_some(),
                    _ => false,
                };
                if ours && let Some(model) = self.read(dir)? {
                    all.push((model, released));
                }
            }
        }
        // One that several hosts proposed is there for each, and one that was released a moment ago still.
        let mut seen = HashSet::new();
        all.retain(|(model, _)| seen.insert(model.object));
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
        let dir = self.own_dir(&object);
        if self.read(&released_dir(&name))?.is_some_and(|model| model.object == object) || self.read(&dir)?.is_some() {
            return Ok((object, false));
        }
        check_units(manifest, |unit| units.is_complete(unit))?;
        self.write(&dir, files)?;
        Ok((object, true))
    }

    pub(super) fn withdraw(&self, object: &Sha256Digest) -> Result<(), StoreError> {
        self.remove(&self.own_dir(object))
    }

    /// Follows a `model` entry of the log: that proposal is the model now. True if it was waiting here.
    pub(super) fn release(&self, object: &Sha256Digest) -> Result<bool, StoreError> {
        let copies = self.copies(object)?;
        for dir in &copies {
            let Some(model) = self.read(dir)? else { continue };
            let to = released_dir(&model.name);
            let there = self.read(&to)?;
            if there.as_ref().is_some_and(|there| there.object != *object) {
                return Ok(false);
            }
            if there.is_none() {
                // Its host may be taking it back.
                let Some(files) = self.publication(dir)? else { continue };
                self.write(&to, &files)?;
            }
            // Else a host died here before this.
            copies.iter().try_for_each(|copy| self.remove(copy))?;
            return Ok(there.is_none());
        }
        Ok(false)
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

    /// Where copies of a proposal are.
    fn copies(&self, object: &Sha256Digest) -> Result<Vec<String>, StoreError> {
        let listed = self.objects.list(&proposed_dir(object))?;
        let dirs = listed.iter().filter_map(|listed| listed.name.strip_suffix(MANIFEST_NAME)?.strip_suffix('/'));
        Ok(dirs.map(str::to_owned).collect())
    }

    fn own_dir(&self, object: &Sha256Digest) -> String {
        at(&proposed_dir(object), &self.host)
    }

    /// The manifest first: whoever finds it takes the rest for there.
    fn remove(&self, dir: &str) -> Result<(), StoreError> {
        self.lock().remove(dir);
        [MANIFEST_NAME, SIGNATURE_NAME, DEK_NAME].iter().try_for_each(|name| self.objects.remove(&at(dir, name)))
    }

    /// The small files, if all of them are there.
    fn publication(&self, dir: &str) -> Result<Option<Publication>, StoreError> {
        let get = |name, max| Ok(self.objects.get(&at(dir, name), max)?.map(|(bytes, _)| bytes));
        let manifest = get(MANIFEST_NAME, MANIFEST_BYTES_MAX)?;
        let model_signature = get(SIGNATURE_NAME, MODEL_SIGNATURE_BYTES_MAX)?;
        let dek = get(DEK_NAME, BLOB_BYTES_MAX)?;
        Ok(manifest.zip(model_signature).zip(dek).map(|((manifest, model_signature), dek)| Publication {
            manifest,
            dek,
            model_signature,
        }))
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
        let Some(Publication { manifest, model_signature, .. }) = self.publication(dir)? else {
            return match self.objects.length(&at(dir, MANIFEST_NAME))? {
                Some(_) => Err(self.objects.damaged(dir, "not all of its files are there")),
                None => Ok(None),
            };
        };
        let damaged = |_| self.objects.damaged(dir, "manifest.json is not a manifest");
        let manifest = Manifest::parse(&manifest).map_err(damaged)?;
        let model = Arc::new(Model::of(dir.into(), &manifest, object_of(&manifest, &model_signature)));
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
