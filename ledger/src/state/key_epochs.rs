//! Which keys the vault has, and had.

use std::collections::BTreeSet;
use std::sync::Arc;

use attestation::{IdentityKey, Sha256Digest, UnixTime};

use super::error::FoldError;
use super::proposals::{PendingProposal, Subject};
use super::stored::stored;
use super::vault::Vault;
use crate::approvals::ApprovalAction;
use crate::entry::{KeyEpoch, ProposedEpoch};
use crate::genesis::Genesis;
use crate::key_epoch::{EpochError, EpochKeys, NextEpoch, check_next, check_successor};

/// The epochs of a vault.
#[derive(Debug, Clone)]
pub struct KeyEpochs {
    present: EpochKeys,
    since: UnixTime,
    /// The identity keys of before, each with the moment at which the next one took its place.
    former: Vec<(IdentityKey, UnixTime)>,
    /// Indices of the `key-epoch` entries, in order.
    entries: Vec<u64>,
    /// SHA-256 of every key that was one of the vault.
    used: BTreeSet<Sha256Digest>,
    /// What the present one began with; none in the first.
    begun: Option<Begun>,
}

/// How the present epoch began.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Begun {
    /// What the approvals named.
    pub object: Sha256Digest,
    /// SHA-256 of the blob with the DEK records of before, under the KEK of this epoch.
    pub records: Sha256Digest,
}

stored!(KeyEpochs { present, since, former, entries, used, begun });
stored!(Begun { object, records });

impl KeyEpochs {
    pub(super) fn first(genesis: &Genesis) -> Self {
        let present = EpochKeys::from(genesis.keeper());
        let used = present.digests().into();
        Self { present, since: genesis.time(), former: Vec::new(), entries: Vec::new(), used, begun: None }
    }

    /// The keys of now.
    pub fn present(&self) -> &EpochKeys {
        &self.present
    }

    /// Since when they are the vault's.
    pub fn since(&self) -> UnixTime {
        self.since
    }

    /// Whether an identity key of the vault signed `message` at this moment, by the message's own word: that of now, or one of
    /// before for what was issued while it was the vault's.
    pub fn signed(&self, message: &[u8], signature: &[u8], issued: UnixTime) -> bool {
        let former = self.former.iter().filter(|(_, until)| issued <= *until).map(|(key, _)| key);
        std::iter::once(&self.present.identity_key).chain(former).any(|key| key.verify(message, signature).is_ok())
    }

    /// Indices of the `key-epoch` entries: the first one began epoch 2.
    pub fn entries(&self) -> &[u64] {
        &self.entries
    }

    /// How the present epoch began; `None` in the first.
    pub fn begun(&self) -> Option<&Begun> {
        self.begun.as_ref()
    }

    fn check_unused(&self, keys: &EpochKeys) -> Result<(), EpochError> {
        for (key, digest) in ["the wrap key", "the identity key"].into_iter().zip(keys.digests()) {
            if self.used.contains(&digest) {
                return Err(EpochError::KeyReused { key });
            }
        }
        Ok(())
    }
}

impl Vault {
    /// The keys of this vault.
    pub fn epochs(&self) -> &KeyEpochs {
        &self.epochs
    }

    /// Whether the keeper may make keys for the next epoch, asked for so at `now`. It asks before it makes them.
    ///
    /// # Errors
    /// What the fold will say of a `propose` entry with them, whichever they are.
    pub fn vet_epoch_request(&self, statement: &str, signature: &str, now: UnixTime) -> Result<(), FoldError> {
        self.check_policy_runs(now)?;
        let keeper = self.keepers.current();
        let epoch = self.epochs.present.epoch.saturating_add(1);
        self.epoch_request((statement, signature), epoch, &keeper.instance, now)?;
        self.check_alone().map_err(FoldError::Epoch)
    }

    pub(super) fn proposed_epoch(
        &self,
        index: u64,
        time: UnixTime,
        proposed: &ProposedEpoch,
    ) -> Result<PendingProposal, FoldError> {
        self.check_policy_runs(time)?;
        let next = proposed.next();
        if proposed.object != next.object(self.id()) {
            return Err(FoldError::ObjectMismatch);
        }
        let signed = (proposed.statement.as_str(), proposed.signature.as_str());
        let (proposer, not_after) = self.epoch_request(signed, proposed.epoch, &proposed.instance, time)?;
        self.check_epoch(&next).map_err(FoldError::Epoch)?;
        let subject = Subject::KeyEpoch { proposer, next: Arc::new(next) };
        let threshold = self.policy().approval().threshold;
        Ok(PendingProposal::new(index, proposed.object, subject, not_after, threshold))
    }

    /// Who asked, and until when it counts. One request waits at a time; only one that counts longer takes its place, so that
    /// whoever kept an older one can't void what is being approved.
    fn epoch_request(
        &self,
        (statement, signature): (&str, &str),
        epoch: u32,
        instance: &[u8; 32],
        time: UnixTime,
    ) -> Result<(crate::names::Name, UnixTime), FoldError> {
        let signed = self.verify(statement, signature)?;
        let request = NextEpoch::request(self.id(), epoch, instance);
        self.expected(ApprovalAction::ProposeKeyEpoch, request).check(signed.statement(), time)?;
        let not_after = signed.statement().not_after.min(self.policy().not_after());
        let is_epoch = |proposal: &&PendingProposal| matches!(proposal.subject(), Subject::KeyEpoch { .. });
        match self.proposals.pending(time).find(is_epoch) {
            Some(waits) if waits.not_after() >= not_after => {
                Err(FoldError::Epoch(EpochError::Waits { not_after: waits.not_after() }))
            }
            Some(_) | None => Ok((signed.approver().clone(), not_after)),
        }
    }

    fn check_epoch(&self, next: &NextEpoch) -> Result<(), EpochError> {
        next.check_keeper(self.keepers.current())?;
        check_next(&self.epochs.present, next.keys.epoch)?;
        self.epochs.check_unused(&next.keys)?;
        self.check_alone()
    }

    /// The keys are made by one keeper for itself, in one boot state: others that decide on the log would be left without.
    fn check_alone(&self) -> Result<(), EpochError> {
        if !self.keepers.others().is_empty() {
            return Err(EpochError::OtherKeepers);
        }
        if self.sealing.next().is_some() { Err(EpochError::ResealWaits) } else { Ok(()) }
    }

    pub(super) fn key_epoch(&mut self, index: u64, effect: &KeyEpoch) -> Result<(), FoldError> {
        let proposal = self.proposals.at(effect.proposal)?;
        let Subject::KeyEpoch { next, .. } = proposal.subject() else {
            return Err(FoldError::ActionMismatch);
        };
        if effect.object != proposal.object() {
            return Err(FoldError::ObjectMismatch);
        }
        self.check_policy_runs(effect.time)?;
        proposal.check_effective(effect.time)?;
        let keys = effect.keys();
        if keys != next.keys {
            return Err(FoldError::Epoch(EpochError::OtherKeys));
        }
        self.check_epoch(next).map_err(FoldError::Epoch)?;
        check_successor(&self.epochs.present, effect, self.id()).map_err(FoldError::Epoch)?;
        let KeyEpochs { present, since, former, entries, used, begun } = &mut self.epochs;
        used.extend(keys.digests());
        entries.push(index);
        former.push((present.identity_key.clone(), effect.time));
        (*present, *since) = (keys, effect.time);
        *begun = Some(Begun { object: effect.object, records: effect.records });
        self.proposals.void_epochs();
        // They are for the keys of before.
        self.proposals.void_escrows();
        Ok(())
    }
}
