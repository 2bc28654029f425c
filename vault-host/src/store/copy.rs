//! A copy of one store in another, of any two kinds.
//!
//! Blobs come first, then models, then the log up to its checkpoint, which releases them, then the entries above it. All
//! that is there already is checked and left, so that a copy that was cut short is begun again and goes on. Nothing is
//! taken on trust: blobs and units have digests, entries have the checkpoint's root. Uploads under way stay behind.

use attestation::Sha256Digest;
use ledger::manifest::Manifest;
use ledger::merkle::{Tree, leaf_hash};
use tokio::runtime::Handle;
use vault_proto::convert::{Publication, UnitUpload};
use vault_proto::limits::READ_LOG_MAX;

use super::log::{Checkpoint, parse_checkpoint};
use super::{Model, Store, StoreError};
use crate::config::Config;

/// Bytes of a unit that are in memory at a time.
const PIECE_BYTES: u64 = 8 << 20;

/// What a copy has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Copied {
    /// Blobs.
    pub blobs: u64,
    /// Models, with those that wait for approvals.
    pub models: u64,
    /// Entries under the checkpoint.
    pub entries: u64,
    /// Entries above it.
    pub above: u64,
}

/// Copies the store of one configuration to that of another, reads the copy again, and says how far it is. No host may use
/// either meanwhile. Blocks.
///
/// # Errors
/// What a store says. What was copied stays, and the next copy goes on from there.
pub fn copy_store(
    from: &Config,
    to: &Config,
    runtime: &Handle,
    mut say: impl FnMut(String),
) -> Result<Copied, StoreError> {
    let (from, to) = (super::open(from, runtime.clone())?, super::open(to, runtime.clone())?);
    copy(&*from, &*to, &mut say)
}

fn copy(from: &dyn Store, to: &dyn Store, say: &mut dyn FnMut(String)) -> Result<Copied, StoreError> {
    let published = from.checkpoint()?.map(|text| Ok((parse_checkpoint(&text)?, text))).transpose()?;
    check_continues(from, to, published.as_ref().map(|(checkpoint, _)| checkpoint))?;
    let blobs = from.blobs()?;
    for (n, digest) in blobs.iter().enumerate() {
        copy_blob(from, to, digest)?;
        say(format!("blob {} of {}", n + 1, blobs.len()));
    }
    let models = from.models()?;
    let there: Vec<Sha256Digest> = to.models()?.iter().map(|(model, _)| model.object).collect();
    for (n, (model, _)) in models.iter().enumerate() {
        if !there.contains(&model.object) {
            copy_model(from, to, model, say)?;
        }
        say(format!("model {} of {}", n + 1, models.len()));
    }
    let entries = published.as_ref().map_or(0, |(checkpoint, _)| checkpoint.size);
    if let Some((checkpoint, text)) = &published {
        say(format!("log of {entries} entries"));
        copy_log(from, to, checkpoint, text)?;
    }
    for (model, _) in models.iter().filter(|(_, released)| *released) {
        if to.released(&model.name)?.object != model.object {
            return Err(StoreError::DigestMismatch);
        }
    }
    let above = copy_above(from, to, entries)?;
    Ok(Copied { blobs: blobs.len() as u64, models: models.len() as u64, entries, above })
}

/// Reads it back: what a store acknowledged is not yet what it returns.
fn copy_blob(from: &dyn Store, to: &dyn Store, digest: &Sha256Digest) -> Result<(), StoreError> {
    if to.blob(digest).is_err() {
        to.put_blob(digest, &from.blob(digest)?)?;
        to.blob(digest)?;
    }
    Ok(())
}

fn copy_model(from: &dyn Store, to: &dyn Store, model: &Model, say: &mut dyn FnMut(String)) -> Result<(), StoreError> {
    let (manifest, model_signature) = from.public_files(model)?;
    let files = Publication { dek: from.dek(model)?, manifest, model_signature };
    let damaged = |_| StoreError::Damaged { path: model.dir.clone(), what: "manifest.json is not a manifest" };
    let manifest = Manifest::parse(&files.manifest).map_err(damaged)?;
    for (index, (sealed, bytes)) in (0..).zip(model.sealed.iter().zip(&model.units)) {
        let unit = UnitUpload { manifest: model.manifest, sealed: *sealed, bytes: *bytes };
        let mut offset = to.uploaded(&unit)?;
        if offset == unit.bytes {
            continue;
        }
        let reader = from.unit(model, index)?;
        let mut writer = to.begin_upload(unit, offset)?;
        while offset < unit.bytes {
            let length = (unit.bytes - offset).min(PIECE_BYTES);
            writer.write(&reader.read(offset, usize::try_from(length).unwrap_or(usize::MAX))?)?;
            offset += length;
            say(format!(
                "{} {}: unit {index}, {} of {} MiB",
                model.name.model,
                model.name.version,
                offset >> 20,
                bytes >> 20
            ));
        }
        writer.finish()?;
    }
    to.propose(&manifest, &files)?;
    to.forget_uploads(&model.manifest)
}

/// The entries under the checkpoint, read back.
fn copy_log(from: &dyn Store, to: &dyn Store, checkpoint: &Checkpoint, text: &str) -> Result<(), StoreError> {
    to.import_log(text, checkpoint.size, &|first, count| from.read_log(first, count))?;
    check_root(checkpoint, |first, count| to.entries(first, count as usize))
}

/// Before anything there is changed: its published log has to be the beginning of the one that comes.
fn check_continues(from: &dyn Store, to: &dyn Store, published: Option<&Checkpoint>) -> Result<(), StoreError> {
    let committed = to.committed()?;
    let size = published.map_or(0, |checkpoint| checkpoint.size);
    if committed > size {
        return Err(StoreError::CheckpointSize { size, committed, stored: committed });
    }
    let Some(checkpoint) = published else { return Ok(()) };
    check_root(checkpoint, |first, count| {
        if first < committed { to.entries(first, count as usize) } else { from.read_log(first, count) }
    })
}

/// Reads a log up to its checkpoint.
fn check_root(
    checkpoint: &Checkpoint,
    read: impl Fn(u64, u32) -> Result<Vec<Vec<u8>>, StoreError>,
) -> Result<(), StoreError> {
    let size = checkpoint.size;
    let mut tree = Tree::new();
    while tree.len() < size {
        let wanted = u32::try_from(size - tree.len()).unwrap_or(u32::MAX).min(READ_LOG_MAX);
        let entries = read(tree.len(), wanted)?;
        if entries.is_empty() {
            return Err(StoreError::NotFound { what: "entry" });
        }
        entries.iter().for_each(|entry| tree.push(leaf_hash(entry)));
    }
    if tree.root(size) == Ok(checkpoint.root) { Ok(()) } else { Err(StoreError::CheckpointRoot) }
}

/// The entries above the checkpoint, which no root covers yet: the keeper checks them against its head.
fn copy_above(from: &dyn Store, to: &dyn Store, committed: u64) -> Result<u64, StoreError> {
    // What stands there is of a copy that was cut short.
    to.append_log(committed, &[])?;
    let mut next = committed;
    loop {
        let entries = from.read_log(next, READ_LOG_MAX)?;
        if entries.is_empty() {
            return Ok(next - committed);
        }
        to.append_log(next, &entries)?;
        next += entries.len() as u64;
    }
}
