//! Plaintext files to a sealed model (FORMAT.md §6): what a publisher does, once, in a guest of his own.
//!
//! ```text
//! scan ▶ plan ▶ fresh DEK ▶ units: read once, sealed, both digests ▶ manifest ▶ signature ▶ target
//! ```
//! Every source byte is read once, sealed and hashed while it is in the cache, and handed to a [`SealTarget`]: a
//! directory here, or whatever takes units as they come. Memory is bounded: two pieces of 2 MiB a thread.
//!
//! A source that changes while it is sealed is refused: the signature would be over a mixture.
//!
//! A seal that was interrupted begins anew, under a fresh DEK. The one that it had is nowhere but wrapped to the vault, which
//! gives it to nobody: a copy to go on with would be the model's key outside of any hardware. Nor could a unit be kept without
//! reading its source again, and to hash it is most of what sealing costs. What is slow is the upload, which goes on.

pub(crate) mod abandoned;
mod error;
mod source;
mod target;
mod worker;

use attestation::{HpkePublicKey, Sha256Digest, UnitSet};
use ledger::manifest::{MANIFEST_NAME, Manifest, ModelId};
use ledger::model_signature;
use ledger::names::{Name, Version};
use ring::rand::SecureRandom;

pub use error::{SealError, SourceError};
pub use source::SourceModel;
pub use target::{DirectoryTarget, SealTarget, SealedDocuments};

use crate::derive::ModelContext;
use crate::publisher::PublisherSigner;
use crate::secret::Dek;
use crate::unit_keys::UnitKeys;
use crate::wrap::wrap_dek;

/// What a model is sealed as, and for whom.
pub struct SealRequest<'a> {
    /// The only vault that will be able to open it.
    pub vault: Sha256Digest,
    /// The wrap key of that vault, from keeper evidence that was verified.
    pub wrap_key: &'a HpkePublicKey,
    /// Name of the model.
    pub model: Name,
    /// Its version.
    pub version: Version,
    /// Signs it.
    pub publisher: &'a PublisherSigner,
    /// How many threads seal.
    pub threads: usize,
}

impl SealRequest<'_> {
    /// Seals `source` into `target`. `progress` is told of each run of plaintext bytes that was sealed, from any thread.
    ///
    /// # Errors
    /// [`SealError`]. The target was dropped without [`SealTarget::finish`].
    pub fn seal<T: SealTarget>(
        &self,
        source: &SourceModel,
        target: T,
        rng: &(dyn SecureRandom + Sync),
        progress: &(dyn Fn(u64) + Sync),
    ) -> Result<Manifest, SealError> {
        let id = ModelId {
            vault: self.vault,
            model: self.model.clone(),
            version: self.version.clone(),
            publisher: self.publisher.public_key().digest(),
        };
        let plan = source.plan();
        Manifest::check_fits(&id, plan).map_err(SealError::Manifest)?;

        let context = ModelContext { id: &id, plan: plan.digest() };
        let dek = Dek::generate(rng)?;
        let wrapped_dek = wrap_dek(self.wrap_key, context, &dek, rng).map_err(SealError::Wrap)?;
        let keys = UnitKeys::derive(&dek, context, all_units(plan.units().len()))?;
        drop(dek);

        let worker = worker::Worker { source, context, keys: &keys, target: &target, rng, progress };
        let sealed = worker.seal_all(self.threads)?;
        drop(keys);

        let manifest = Manifest::build(id, plan.clone(), sealed).map_err(SealError::Manifest)?;
        let files = manifest.signed_files(Sha256Digest::of(&wrapped_dek)).into_iter().collect();
        let sign = |message: &[u8]| self.publisher.sign(message, rng);
        let signature = model_signature::sign(self.model.as_str(), &files, self.publisher.public_key(), sign);
        let signature = signature.map_err(SealError::Sign)?;
        let documents = SealedDocuments { manifest: manifest.bytes().to_vec(), dek: wrapped_dek, signature };
        target.finish(documents).map_err(|error| SealError::target(MANIFEST_NAME, &error))?;
        Ok(manifest)
    }
}

fn all_units(count: usize) -> UnitSet {
    // At most 16,384: Plan::new.
    let indices: Vec<u32> = (0..count).map(|index| index as u32).collect();
    UnitSet::try_from(indices).expect("a plan has at least one unit and not too many")
}
