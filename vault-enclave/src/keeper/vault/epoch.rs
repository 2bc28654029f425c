//! Key epochs: keys made on an approver's request, begun once approved, and shown to those who know an older key.
//!
//! A keeper does not change its keys while it runs. The commit with the `key-epoch` entry is the last of a run; then the head
//! is written under the new root, the new root takes the place of the old one, and the keeper starts anew. Which epoch it is
//! in is for the counted log to say: cut short before that commit, it starts with the old keys, after it with the new ones.

use std::sync::Arc;

use attestation::Sha256Digest;
use ledger::entry::{Entry, KeyEpoch, Proposal, Propose, ProposedEpoch};
use ledger::key_epoch::{EpochError, EpochKeys, EpochLink, FIRST_EPOCH, LINKS_MAX, NextEpoch};
use ledger::manifest::Manifest;
use ledger::state::{State, Subject};
use vault_proto::convert::{KeyEpochLinks, KeyEpochSubmission, KeyEpochsRequest};
use vault_proto::limits::BLOB_BYTES_MAX;
use vault_proto::v1::{self, keeper_reply::Response};

use super::provision::utf8;
use super::{Outcome, Vault, opened};
use crate::keeper::refusal::Refusal;
use crate::record;
use crate::vault_keys::VaultKeys;
use crate::wrap::WrapError;

/// The epoch that a run's keys are of.
pub(in crate::keeper) struct Epoch {
    pub(super) number: u32,
    /// The blob of DEK records from before it, sealed anew.
    records: Option<Sha256Digest>,
}

impl Epoch {
    pub(super) fn of(state: &State) -> Self {
        let epochs = state.vault().map(|vault| vault.epochs());
        Self {
            number: epochs.map_or(FIRST_EPOCH, |epochs| epochs.present().epoch),
            records: epochs.and_then(|epochs| epochs.begun()).map(|begun| begun.records),
        }
    }
}

/// Whether these are the keys that the log names.
pub(in crate::keeper) fn is_of(keys: &VaultKeys, named: &EpochKeys) -> bool {
    (keys.wrap_key(), keys.identity_key()) == (&named.wrap_key, &named.identity_key)
}

/// A row of the blob: the digest of the record as its model names it, the plan digest, and the record under this epoch's KEK.
const ROW_BYTES: usize = 32 + 32 + RECORD_BYTES;
/// A DEK record: 56 bytes of a Cobblestone header, 64 of the DEK, 16 of the tag.
const RECORD_BYTES: usize = 56 + 64 + 16;

/// The row of a record in a blob that is sorted by their digests.
fn row(blob: &[u8], digest: Sha256Digest) -> Option<(Sha256Digest, &[u8])> {
    let (rows, _) = blob.as_chunks::<ROW_BYTES>();
    let at = rows.binary_search_by(|row| row[..32].cmp(digest.as_bytes())).ok()?;
    let (_, rest) = rows[at].split_at(32);
    let (plan, record) = rest.split_first_chunk::<32>()?;
    Some((Sha256Digest::from_bytes(*plan), record))
}

/// The rows of all models, as [`row`] finds them.
fn blob_of(mut rows: Vec<Vec<u8>>) -> Result<Vec<u8>, Refusal> {
    rows.sort_unstable();
    let blob = rows.concat();
    match blob.len() > BLOB_BYTES_MAX {
        true => Err(Refusal::unavailable("epoch-too-many-models", "more models than one blob has room for")),
        false => Ok(blob),
    }
}

impl Vault {
    /// Makes keys for the next epoch, for an approver, and proposes them.
    pub(super) fn submit_key_epoch(&mut self, request: v1::SubmitKeyEpochRequest) -> Result<Outcome, Refusal> {
        let KeyEpochSubmission { statement, signature } = request.try_into()?;
        let (now, statement) = (self.now(), utf8("statement", statement)?);
        let vetted = self.opened()?.vet_epoch_request(&statement, &signature, now);
        vetted.map_err(|error| Refusal::denied(error.code(), error))?;
        let epoch = self.epoch.number.saturating_add(1);
        let keys = self.keys.renewed(&self.rng)?;
        let secrets =
            keys.epoch_secrets(self.anchor.counter_auth()).map_err(crate::vault_keys::VaultKeysError::from)?;
        // Durable before it is proposed: what approvers agree to must be there when it begins.
        self.records.make_epoch(&self.hardware.devices, &self.rng, epoch, &secrets)?;
        let next = NextEpoch {
            instance: self.instance,
            ak_name: self.hardware.ak_name,
            keys: EpochKeys { epoch, wrap_key: keys.wrap_key().clone(), identity_key: keys.identity_key().clone() },
        };
        let proposed = ProposedEpoch::new(&next, self.vault_id(), statement, signature);
        let object = proposed.object;
        let proposal = Proposal::KeyEpoch(Box::new(proposed));
        self.stage_entry(&Entry::Propose(Propose { time: now, proposal }))?;
        self.stage_effects()?;
        Ok(Outcome::AfterCommit(Box::new(move |vault| {
            let proposal = Some(vault.proposal(object)?);
            Ok(Response::SubmitKeyEpoch(v1::SubmitKeyEpochResponse { proposal }))
        })))
    }

    /// Begins an approved epoch: every DEK record is sealed anew, then the entry names the keys, signed by those of now.
    pub(super) fn stage_epoch(
        &mut self,
        (proposal, object): (u64, Sha256Digest),
        next: &NextEpoch,
    ) -> Result<(), Refusal> {
        let missing =
            || Refusal::unavailable("epoch-keys-missing", "the keys that were proposed are gone: propose anew");
        let (_, keys) = self.records.epoch_root(&self.hardware.devices)?.ok_or_else(missing)?;
        if !is_of(&keys, &next.keys) {
            return Err(missing());
        }
        let blob = self.sealed_anew((&keys, next.keys.epoch))?;
        let EpochKeys { epoch, wrap_key, identity_key } = next.keys.clone();
        let signature = self.keys.sign_identity(&next.keys.successor_message(self.vault_id()))?;
        let (time, records) = (self.now(), Sha256Digest::of(&blob));
        let effect = KeyEpoch { time, proposal, object, epoch, wrap_key, identity_key, signature, records };
        self.stage_entry(&Entry::KeyEpoch(Box::new(effect)))?;
        self.pending.blobs.push(blob);
        Ok(())
    }

    /// The blob with the record of every model, published or proposed, under the KEK of the next epoch.
    fn sealed_anew(&mut self, (next, epoch): (&VaultKeys, u32)) -> Result<Vec<u8>, Refusal> {
        let now = self.now();
        let vault = self.opened()?;
        let published = vault.models().map(|model| model.proposed.clone());
        let waiting = vault.pending(now).filter_map(|proposal| match proposal.subject() {
            Subject::Model(model) => Some(model.clone()),
            Subject::Policy { .. }
            | Subject::Platform { .. }
            | Subject::Reseal { .. }
            | Subject::Join(_)
            | Subject::KeyEpoch { .. }
            | Subject::Escrow { .. }
            | Subject::Recover(_)
            | Subject::Leave { .. }
            | Subject::Raise { .. }
            | Subject::Permit { .. }
            | Subject::Revocation { .. } => None,
        });
        let models: Vec<_> = published.chain(waiting).collect();
        let unavailable = |error: crate::container::OpenError| Refusal::unavailable(error.code(), error);
        let mut rows = Vec::with_capacity(models.len());
        for model in models {
            let plan = self.plan_of(&model)?;
            let record = self.dek_record(model.dek_record)?;
            let kek = (self.keys.kek(), self.epoch.number);
            let dek = record::open_dek(kek, self.vault_id(), plan, &record).map_err(unavailable)?;
            let record = record::seal_dek((next.kek(), epoch), self.vault_id(), plan, &dek, &self.rng);
            rows.push([&model.dek_record.as_bytes()[..], plan.as_bytes(), &record.map_err(unavailable)?].concat());
        }
        blob_of(rows)
    }

    fn plan_of(&mut self, model: &ledger::entry::ProposedModel) -> Result<Sha256Digest, Refusal> {
        if let Some(records) = self.epoch.records
            && let Some((plan, _)) = row(&self.models.blob(&self.store, records)?, model.dek_record)
        {
            return Ok(plan);
        }
        let manifest = self.models.blob(&self.store, model.manifest)?;
        Ok(Manifest::parse(&manifest)?.plan_digest())
    }

    /// A DEK record under the KEK of this epoch, by the digest that its model names.
    pub(super) fn dek_record(&mut self, digest: Sha256Digest) -> Result<Arc<[u8]>, Refusal> {
        if let Some(records) = self.epoch.records {
            let blob = self.models.blob(&self.store, records)?;
            if let Some((_, record)) = row(&blob, digest) {
                return Ok(record.into());
            }
        }
        Ok(self.models.blob(&self.store, digest)?)
    }

    /// Why a DEK does not come out: most likely it was sealed before the epoch began.
    pub(super) fn not_unwrapped(&self, error: WrapError) -> Refusal {
        if self.epoch.number == FIRST_EPOCH {
            return Refusal::denied(error.code(), error);
        }
        let message = format!(
            "the model's key is not wrapped to the wrap key of epoch {}: get a newer vault file and seal it again",
            self.epoch.number
        );
        Refusal::denied("sealed-to-older-epoch", message)
    }

    /// Whether the log, or what is about to be committed, has begun an epoch that these keys are not of.
    pub(in crate::keeper) fn moves_on(&self) -> bool {
        self.state.vault().is_some_and(|vault| vault.epochs().present().epoch != self.epoch.number)
    }

    /// Puts the files of the keeper in the epoch that the committed log has begun.
    ///
    /// # Errors
    /// What TPM or disk say; the next start does it.
    pub(in crate::keeper) fn begin_epoch(&self) -> Result<(), Refusal> {
        let present = opened(&self.state)?.epochs().present();
        self.records.begin_epoch(&self.hardware.devices, &self.anchor, present).map(drop)
    }

    /// The entries that lead from an older epoch to the present one, with their proofs.
    pub(super) fn key_epochs(&mut self, request: v1::GetKeyEpochsRequest) -> Result<Outcome, Refusal> {
        let KeyEpochsRequest { known } = request.try_into()?;
        let entries = self.opened()?.epochs().entries();
        let skip = usize::try_from(known.saturating_sub(FIRST_EPOCH)).unwrap_or(usize::MAX);
        let wanted: Vec<u64> = entries.iter().skip(skip).copied().collect();
        if wanted.len() > LINKS_MAX {
            let error = EpochError::TooManyLinks { count: wanted.len() };
            return Err(Refusal::denied(error.code(), error));
        }
        let links = wanted.into_iter().map(|index| self.link(index)).collect::<Result<_, _>>()?;
        Ok(Outcome::Now(Ok(Response::GetKeyEpochs(KeyEpochLinks { links }.into()))))
    }

    fn link(&mut self, index: u64) -> Result<EpochLink, Refusal> {
        let mut entry = Vec::new();
        let read = self.store.read_log(index..index + 1, |bytes| {
            entry = bytes;
            Ok::<_, crate::keeper::link::StoreError>(())
        });
        read.map_err(|error| Refusal::unavailable("log-unavailable", error))?;
        Ok(EpochLink { entry, proof: self.log_proof(index)? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_is_found_by_the_digest_that_its_model_names_and_no_other_is() {
        let row_of = |digest: u8, plan: u8| {
            [[digest; 32].as_slice(), &[plan; 32], &[digest.wrapping_add(plan); RECORD_BYTES]].concat()
        };
        let blob = blob_of([(4, 8), (7, 7), (1, 9)].map(|(digest, plan)| row_of(digest, plan)).to_vec()).unwrap();
        for (digest, plan) in [(1, 9), (4, 8), (7, 7)] {
            let found = row(&blob, Sha256Digest::from_bytes([digest; 32])).unwrap();
            assert_eq!(found, (Sha256Digest::from_bytes([plan; 32]), &[digest + plan; RECORD_BYTES][..]));
        }
        for other in [0, 2, 8, 255] {
            assert!(row(&blob, Sha256Digest::from_bytes([other; 32])).is_none());
        }
        assert!(row(&[], Sha256Digest::from_bytes([1; 32])).is_none());
    }

    #[test]
    fn a_blob_holds_as_many_models_as_the_host_takes() {
        let most = BLOB_BYTES_MAX / ROW_BYTES;
        assert_eq!(blob_of(vec![vec![7; ROW_BYTES]; most]).unwrap().len(), most * ROW_BYTES);
        let refusal = blob_of(vec![vec![7; ROW_BYTES]; most + 1]).unwrap_err();
        assert_eq!(refusal.code(), "epoch-too-many-models");
    }

    #[test]
    fn a_dek_record_has_the_length_of_its_place_in_a_row() {
        let rng = ring::rand::SystemRandom::new();
        let (kek, dek) = (crate::secret::Kek::generate(&rng).unwrap(), crate::secret::Dek::generate(&rng).unwrap());
        let digest = Sha256Digest::of(b"vault");
        let record = record::seal_dek((&kek, 2), digest, digest, &dek, &rng).unwrap();
        assert_eq!(record.len(), RECORD_BYTES);
    }
}
