//! Sealed units in a bucket, and those that are on their way there.
//!
//! `units/<manifest>/<unit>` is a sealed unit, and `units/<manifest>/<unit>.<length>.checked` says that a host read it
//! there whole and that its digest was right: without that it is none. `uploads/<manifest>/<unit>.<length>` names the
//! parts of one that came so far. It is replaced on condition that it is what this host last saw, so that of two hosts
//! that take the same unit one is told.

use std::collections::{BTreeMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use attestation::Sha256Digest;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use ring::digest::{Context, SHA256};
use serde::{Deserialize, Serialize};
use vault_proto::convert::UnitUpload;

use super::Bucket;
use crate::store::objects::place::{If, Listed, Objects, Tag, Written};
use crate::store::objects::units::Units;
use crate::store::uploads::{Counts, LET_BE, MANIFESTS_MAX};
use crate::store::{StoreError, UnitReader, UnitWriter};

/// Bytes of a part: an S3 object has at most 10,000, and a unit at most 4 GiB. Each upload holds one in memory.
const PART_BYTES: usize = 8 << 20;
const STATE_BYTES_MAX: usize = 1 << 20;
/// Uploads that are looked at for one that makes room, which takes a request each.
const LOOKED_AT_MAX: usize = 16;
/// Where the units of a database are: which one it is.
const OWNER: &str = "store-id";
const OWNER_BYTES_MAX: usize = 64;

/// Units of a bucket.
#[derive(Clone, Debug)]
pub(in crate::store::objects) struct BucketUnits {
    objects: Arc<Bucket>,
    busy: Arc<Mutex<HashSet<UnitUpload>>>,
    counts: Counts,
}

/// The parts that came, as they are kept between calls and hosts.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Parts {
    /// What the store calls the upload.
    id: String,
    /// Bytes in `parts`: a multiple of a part's, but for the last.
    bytes: u64,
    /// What the store calls each part.
    parts: Vec<String>,
}

impl BucketUnits {
    pub(in crate::store::objects) fn new(objects: Arc<Bucket>) -> Self {
        Self { objects, busy: Arc::default(), counts: Counts::default() }
    }

    fn check_room(&self, manifest: &Sha256Digest) -> Result<(), StoreError> {
        let (listed, mut newest) = (self.objects.list("uploads")?, BTreeMap::new());
        take_in(&listed, &mut newest);
        if !newest.contains_key(manifest) && newest.len() >= MANIFESTS_MAX {
            self.make_place(&listed, newest)?;
        }
        self.counts.add(manifest, || {
            let short = short(manifest);
            // Each unit that is whole has two objects.
            let whole = self.objects.list(&format!("units/{short}"))?.len().div_ceil(2);
            Ok(self.objects.list(&format!("uploads/{short}"))?.len() + whole)
        })
    }

    /// As in a directory, of those alone that nobody has gone on with for a while: another host may be at one.
    fn make_place(&self, listed: &[Listed], newest: BTreeMap<Sha256Digest, SystemTime>) -> Result<(), StoreError> {
        let let_be = SystemTime::now() - LET_BE;
        let mut old: Vec<_> =
            newest.into_iter().filter(|(manifest, touched)| *touched < let_be && !self.is_busy(manifest)).collect();
        old.sort_by_key(|(_, touched)| *touched);
        for (manifest, _) in old.iter().take(LOOKED_AT_MAX) {
            let dir = format!("uploads/{}/", short(manifest));
            let mut states = listed.iter().filter(|listed| listed.name.starts_with(&dir));
            // Of one that has many units something came.
            let (Some(only), None) = (states.next(), states.next()) else { continue };
            let state = self.objects.get(&only.name, STATE_BYTES_MAX)?;
            if state.and_then(|(bytes, _)| serde_json::from_slice::<Parts>(&bytes).ok()).is_some_and(|it| it.bytes == 0)
            {
                return self.forget(manifest, false);
            }
        }
        Err(StoreError::TooManyUploads)
    }

    fn read(&self, unit: &UnitUpload) -> Result<Option<(Parts, Tag)>, StoreError> {
        let name = parts_name(unit);
        let Some((bytes, tag)) = self.objects.get(&name, STATE_BYTES_MAX)? else { return Ok(None) };
        let parts = serde_json::from_slice::<Parts>(&bytes);
        let parts = parts.map_err(|_| self.objects.damaged(&name, "not the parts of an upload"))?;
        let whole = parts.parts.len() as u64 * PART_BYTES as u64;
        if parts.bytes > unit.bytes || (parts.bytes != whole && parts.bytes != unit.bytes) {
            return Err(self.objects.damaged(&name, "not the parts of this unit"));
        }
        Ok(Some((parts, tag)))
    }
}

impl Units for BucketUnits {
    fn is_complete(&self, unit: &UnitUpload) -> Result<bool, StoreError> {
        Ok(self.objects.length(&checked_name(unit))?.is_some())
    }

    fn stored(&self, unit: &UnitUpload) -> Result<u64, StoreError> {
        if self.is_complete(unit)? {
            return Ok(unit.bytes);
        }
        Ok(self.read(unit)?.map_or(0, |(parts, _)| going_on(parts, unit).bytes))
    }

    fn begin(&self, unit: UnitUpload, offset: u64) -> Result<Box<dyn UnitWriter>, StoreError> {
        let busy = Busy::new(self.busy.clone(), unit).ok_or(StoreError::UploadBusy)?;
        if self.is_complete(&unit)? {
            return Err(StoreError::UploadOffset { offset, stored: unit.bytes });
        }
        let (parts, tag) =
            self.read(&unit)?.map_or_else(|| (Parts::default(), None), |(parts, tag)| (parts, Some(tag)));
        let mut upload = Upload { units: self.clone(), unit, parts, tag, waiting: Vec::new(), _busy: busy };
        if upload.is_put_together()? {
            // What is left is to check it, which was disturbed.
            match upload.check_and_forget() {
                Ok(()) => return Err(StoreError::UploadOffset { offset, stored: unit.bytes }),
                // It is gone, and begins anew.
                Err(StoreError::DigestMismatch) => (upload.parts, upload.tag) = (Parts::default(), None),
                Err(error) => return Err(error),
            }
        }
        upload.parts = going_on(upload.parts, &unit);
        let stored = upload.parts.bytes;
        if offset != stored {
            return Err(StoreError::UploadOffset { offset, stored });
        }
        if upload.tag.is_none() {
            self.check_room(&unit.manifest)?;
            upload.parts.id = self.objects.begin_parts(&unit_name(&unit))?;
            upload.keep()?;
        }
        Ok(Box::new(upload))
    }

    fn forget(&self, manifest: &Sha256Digest, units: bool) -> Result<(), StoreError> {
        self.counts.forget(manifest);
        let manifest = short(manifest);
        for listed in self.objects.list(&format!("uploads/{manifest}"))? {
            if let Some((bytes, _)) = self.objects.get(&listed.name, STATE_BYTES_MAX)?
                && let Ok(parts) = serde_json::from_slice::<Parts>(&bytes)
                && let Some((unit, _)) = listed.name.rsplit('/').next().and_then(|name| name.split_once('.'))
            {
                self.objects.abort_parts(&format!("units/{manifest}/{unit}"), &parts.id)?;
            }
            self.objects.remove(&listed.name)?;
        }
        if units {
            self.objects.list(&format!("units/{manifest}"))?.iter().try_for_each(|it| self.objects.remove(&it.name))?;
        }
        Ok(())
    }

    fn newest(&self) -> Result<BTreeMap<Sha256Digest, SystemTime>, StoreError> {
        let mut newest = BTreeMap::new();
        for dir in ["uploads", "units"] {
            take_in(&self.objects.list(dir)?, &mut newest);
        }
        Ok(newest)
    }

    fn is_busy(&self, manifest: &Sha256Digest) -> bool {
        self.busy.lock().unwrap_or_else(PoisonError::into_inner).iter().any(|unit| unit.manifest == *manifest)
    }

    fn reader(&self, unit: &UnitUpload) -> Result<Box<dyn UnitReader>, StoreError> {
        Ok(Box::new(Reader { objects: self.objects.clone(), name: unit_name(unit) }))
    }

    fn owner(&self) -> Result<Option<String>, StoreError> {
        let found = self.objects.get(OWNER, OWNER_BYTES_MAX)?;
        Ok(found.map(|(bytes, _)| String::from_utf8_lossy(&bytes).trim().to_owned()))
    }

    fn claim(&self, database: &str) -> Result<(), StoreError> {
        self.objects.put(OWNER, format!("{database}\n").into_bytes(), If::Unchanged(None)).map(drop)
    }
}

/// By model, when anything of it was last written.
fn take_in(listed: &[Listed], newest: &mut BTreeMap<Sha256Digest, SystemTime>) {
    for listed in listed {
        let Some(manifest) = listed.name.split('/').nth(1).and_then(long) else { continue };
        let last = newest.entry(manifest).or_insert(listed.written);
        *last = listed.written.max(*last);
    }
}

/// What is gone on with: where all parts came and the host died before it checked them, the last one has to come again.
fn going_on(mut parts: Parts, unit: &UnitUpload) -> Parts {
    if parts.bytes == unit.bytes {
        parts.parts.pop();
        parts.bytes = parts.parts.len() as u64 * PART_BYTES as u64;
    }
    parts
}

/// One unit that is being written.
#[derive(Debug)]
struct Upload {
    units: BucketUnits,
    unit: UnitUpload,
    parts: Parts,
    tag: Option<Tag>,
    /// What came and is not a part yet.
    waiting: Vec<u8>,
    _busy: Busy,
}

impl Upload {
    fn put_waiting(&mut self) -> Result<(), StoreError> {
        let bytes = std::mem::take(&mut self.waiting);
        let length = bytes.len() as u64;
        let (name, part) = (unit_name(&self.unit), self.parts.parts.len());
        let Some(part) = self.units.objects.put_part(&name, &self.parts.id, part, bytes)? else {
            return Err(self.begin_anew());
        };
        self.parts.parts.push(part);
        self.parts.bytes += length;
        self.keep()
    }

    /// The store knows nothing of these parts any more: somebody gave them up, or it did. Whoever asks next begins anew.
    fn begin_anew(&self) -> StoreError {
        let offset = self.parts.bytes;
        match self.units.objects.remove(&parts_name(&self.unit)) {
            Ok(()) => StoreError::UploadOffset { offset, stored: 0 },
            Err(error) => error,
        }
    }

    /// Keeps what came, unless another host has gone on with this unit meanwhile.
    fn keep(&mut self) -> Result<(), StoreError> {
        let bytes = serde_json::to_vec(&self.parts).expect("strings and numbers");
        match self.units.objects.put(&parts_name(&self.unit), bytes, If::Unchanged(self.tag.as_ref()))? {
            Written::Yes(tag) => self.tag = Some(tag),
            Written::Changed => match self.units.read(&self.unit)? {
                Some((parts, tag)) if parts == self.parts => self.tag = Some(tag),
                _ => return Err(StoreError::UploadBusy),
            },
        }
        Ok(())
    }

    /// Whether all parts came before, and the unit was made of them.
    fn is_put_together(&self) -> Result<bool, StoreError> {
        let (unit, objects) = (&self.unit, &self.units.objects);
        Ok(self.parts.bytes == unit.bytes && objects.length(&unit_name(unit))? == Some(unit.bytes))
    }

    /// Checks the unit, and forgets its parts once it is known what it is.
    fn check_and_forget(&self) -> Result<(), StoreError> {
        let checked = self.check();
        if matches!(checked, Ok(()) | Err(StoreError::DigestMismatch)) {
            self.units.objects.remove(&parts_name(&self.unit))?;
        }
        checked
    }

    /// Reads the unit as the store has it now: what it was sent is not what counts.
    fn check(&self) -> Result<(), StoreError> {
        let reader = self.units.reader(&self.unit)?;
        let mut context = Context::new(&SHA256);
        let mut offset = 0;
        while offset < self.unit.bytes {
            let length = usize::try_from(self.unit.bytes - offset).unwrap_or(usize::MAX).min(PART_BYTES);
            context.update(&reader.read(offset, length)?);
            offset += length as u64;
        }
        if context.finish().as_ref() == self.unit.sealed.as_bytes() {
            return self.units.objects.write(&checked_name(&self.unit), b"checked\n".to_vec());
        }
        self.units.objects.remove(&unit_name(&self.unit))?;
        Err(StoreError::DigestMismatch)
    }
}

impl UnitWriter for Upload {
    fn write(&mut self, mut data: &[u8]) -> Result<(), StoreError> {
        if data.len() as u64 > self.unit.bytes - self.parts.bytes - self.waiting.len() as u64 {
            return Err(StoreError::UploadTooLong);
        }
        while !data.is_empty() {
            let (now, later) = data.split_at(data.len().min(PART_BYTES - self.waiting.len()));
            self.waiting.extend_from_slice(now);
            data = later;
            if self.waiting.len() == PART_BYTES {
                self.put_waiting()?;
            }
        }
        Ok(())
    }

    fn finish(mut self: Box<Self>) -> Result<u64, StoreError> {
        let came = self.parts.bytes + self.waiting.len() as u64;
        if came < self.unit.bytes {
            return Ok(self.parts.bytes);
        }
        if !self.waiting.is_empty() {
            self.put_waiting()?;
        }
        let name = unit_name(&self.unit);
        let put_together = self.units.objects.complete_parts(&name, &self.parts.id, &self.parts.parts)?;
        // An answer may have been lost on its way, and the request made again.
        if !put_together && self.units.objects.length(&name)? != Some(self.unit.bytes) {
            return Err(self.begin_anew());
        }
        self.check_and_forget().map(|()| self.unit.bytes)
    }
}

/// A unit that is being written by this host.
#[derive(Debug)]
struct Busy(Arc<Mutex<HashSet<UnitUpload>>>, UnitUpload);

impl Busy {
    fn new(busy: Arc<Mutex<HashSet<UnitUpload>>>, unit: UnitUpload) -> Option<Self> {
        let new = busy.lock().unwrap_or_else(PoisonError::into_inner).insert(unit);
        new.then(|| Self(busy, unit))
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.1);
    }
}

#[derive(Debug)]
struct Reader {
    objects: Arc<Bucket>,
    name: String,
}

impl UnitReader for Reader {
    fn read(&self, offset: u64, length: usize) -> Result<Bytes, StoreError> {
        self.objects.range(&self.name, offset..offset + length as u64)
    }
}

/// A digest as URL-safe base64, 43 characters: there are services that make file names of whole keys.
fn short(digest: &Sha256Digest) -> String {
    URL_SAFE_NO_PAD.encode(digest.as_bytes())
}

fn long(name: &str) -> Option<Sha256Digest> {
    let bytes: [u8; 32] = URL_SAFE_NO_PAD.decode(name).ok()?.try_into().ok()?;
    Some(Sha256Digest::from_bytes(bytes))
}

fn unit_name(unit: &UnitUpload) -> String {
    format!("units/{}/{}", short(&unit.manifest), short(&unit.sealed))
}

fn checked_name(unit: &UnitUpload) -> String {
    format!("{}.{}.checked", unit_name(unit), unit.bytes)
}

fn parts_name(unit: &UnitUpload) -> String {
    let (manifest, sealed) = (short(&unit.manifest), short(&unit.sealed));
    format!("uploads/{manifest}/{sealed}.{}", unit.bytes)
}
