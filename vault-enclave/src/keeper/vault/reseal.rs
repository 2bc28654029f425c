//! The boot states that the keeper's root is sealed to: proposed, sealed to once approved, and settled at the first start.

use std::time::{Duration, Instant};

use ledger::entry::{self, Entry, Propose, ProposedReseal, Resealed};
use ledger::key_epoch::EpochKeys;
use ledger::reseal::{Reseal, ResealError};
use ledger::state::{Sealing, Standing};
use ring::rand::SystemRandom;
use vault_proto::convert::{KeeperSealing, NextSealing, ResealSubmission};
use vault_proto::v1::{self, keeper_reply::Response};

use super::epoch::is_of;
use super::open::OpenError;
use super::provision::utf8;
use super::{Outcome, Vault};
use crate::head::Anchor;
use crate::keeper::hardware::Devices;
use crate::keeper::refusal::Refusal;
use crate::record::{open_epoch_secrets, seal_epoch_secrets};
use crate::root::{EpochRecord, Place, RootError, RootRecords};
use crate::secret::{EpochSecrets, Root};
use crate::vault_keys::VaultKeys;

/// How long the keeper waits before it tries again to write a record.
const SEAL_AGAIN_AFTER: Duration = Duration::from_secs(5);

/// The records of the root, and when they are looked after again.
pub(in crate::keeper) struct Records {
    records: RootRecords,
    retry: Option<Instant>,
}

impl Records {
    pub(in crate::keeper) const fn new(records: RootRecords) -> Self {
        Self { records, retry: None }
    }

    /// Stands for the boot state that opened the root.
    pub(in crate::keeper) fn boot_state(&self) -> attestation::Sha256Digest {
        ledger::reseal::boot_state(&self.records.present())
    }

    /// Puts the keeper's files in the epoch of these keys, whose root was made for them: the head first, then the root. `false`
    /// where there is no such root. Cut short, it is done again at the next start, or finished by it.
    pub(in crate::keeper) fn begin_epoch(
        &self,
        devices: &Devices,
        anchor: &Anchor,
        keys: &EpochKeys,
    ) -> Result<bool, Refusal> {
        let unavailable = |error: RootError| Refusal::unavailable(error.code(), error);
        let Some((root, own)) = self.epoch_root(devices)? else { return Ok(false) };
        if !is_of(&own, keys) {
            return Ok(false);
        }
        anchor.write_for(&root).map_err(|error| Refusal::unavailable(error.code(), error))?;
        self.records.begin_epoch().map_err(unavailable)?;
        tracing::info!(epoch = keys.epoch, "this keeper's files are of the epoch that the log has begun");
        Ok(true)
    }

    /// Root and keys that were made for the next epoch, where they are there.
    pub(super) fn epoch_root(&self, devices: &Devices) -> Result<Option<(Root, VaultKeys)>, Refusal> {
        let opened = self.records.open_epoch(&devices.tpm, devices.snp.as_deref());
        let opened = opened.map_err(|error| Refusal::unavailable(error.code(), error))?;
        let Some((root, EpochRecord { number, secrets })) = opened else { return Ok(None) };
        let secrets = open_epoch_secrets(&root, number, &secrets)
            .map_err(|error| Refusal::unavailable("epoch-secrets-damaged", error))?;
        let (keys, _) = VaultKeys::from_epoch_secrets(&secrets)?;
        Ok(Some((root, keys)))
    }

    /// Makes a root for the keys of the next epoch, and stores both.
    pub(super) fn make_epoch(
        &self,
        devices: &Devices,
        rng: &SystemRandom,
        epoch: u32,
        secrets: &EpochSecrets,
    ) -> Result<(), Refusal> {
        let of = (&devices.tpm, devices.snp.as_deref());
        let made = self.records.make_epoch(of, rng, |root| {
            seal_epoch_secrets(root, epoch, secrets, rng).map(|secrets| EpochRecord { number: epoch, secrets })
        });
        made.map_err(|error| Refusal::unavailable(error.code(), error))
    }

    /// What the present boot state is to the keeper of this log.
    ///
    /// # Errors
    /// `root-superseded`: the record that opened the root is an old one, which somebody kept or put back.
    pub(in crate::keeper) fn standing(&self, sealing: &Sealing) -> Result<Standing, OpenError> {
        // Before its first reseal a keeper has one record, and no log that names its boot state.
        let unknown = self.records.place() == Place::Next && sealing.present().is_none();
        match sealing.standing(self.boot_state()) {
            Standing::Superseded => Err(OpenError::Superseded),
            Standing::Present if unknown => Err(OpenError::Superseded),
            standing @ (Standing::Present | Standing::Next(_)) => Ok(standing),
        }
    }
}

impl Vault {
    /// Proposes a boot state, signed by an approver. The fold checks signature, keeper, PCRs and policy; the keeper, what
    /// the log does not say: where it is now, and which guest it is.
    pub(super) fn submit_reseal(&mut self, request: v1::SubmitResealRequest) -> Result<Outcome, Refusal> {
        let ResealSubmission { reseal, statement, signature } = request.try_into()?;
        let now = self.now();
        let revision = self.opened()?.reseal_revision();
        let proposed = ProposedReseal::new(&reseal, revision, utf8("statement", statement)?, signature);
        let vetted = self.opened()?.vet_reseal(&proposed, now);
        let reseal = vetted.map_err(|error| Refusal::denied(error.code(), error))?;
        self.check_here(&reseal)?;
        let object = proposed.object;
        let entry = Entry::Propose(Propose { time: now, proposal: entry::Proposal::Reseal(proposed) });
        self.stage_entry(&entry)?;
        self.stage_effects()?;
        Ok(Outcome::AfterCommit(Box::new(move |vault| {
            let proposal = Some(vault.proposal(object)?);
            Ok(Response::SubmitReseal(v1::SubmitResealResponse { proposal }))
        })))
    }

    fn check_here(&mut self, reseal: &Reseal) -> Result<(), Refusal> {
        let now = self.now();
        let vault = self.opened()?;
        if vault.sealing().next().is_none() && reseal.boot_state() == self.records.boot_state() {
            return Err(Refusal::denied(ResealError::Already.code(), ResealError::Already));
        }
        match reseal.measurement {
            Some(digest) => self.hardware.check_launch(vault.policy(), digest, now),
            None => Ok(()),
        }
    }

    /// After a start: the first one on the boot state to come makes it the present one, by an entry of its own, and only then
    /// the record of the one before goes.
    ///
    /// # Errors
    /// `root-superseded`; the commit.
    pub(super) fn settle_records(&mut self) -> Result<(), OpenError> {
        let Some(vault) = self.state.vault() else { return Ok(()) };
        if let Standing::Next(object) = self.records.standing(&vault.sealing_of(self.instance))? {
            let time = self.now();
            self.stage_entry(&Entry::Resealed(Resealed { time, object })).map_err(OpenError::Refused)?;
            self.commit().map_err(OpenError::Commit)?;
            tracing::info!(
                "this is the boot state that the root was resealed to: the one before opens the vault no more"
            );
        }
        self.records.records.settle().map_err(|error| OpenError::Refused(Refusal::unavailable(error.code(), error)))?;
        self.tend_records();
        Ok(())
    }

    /// Makes the records what the committed log says: sealed to the boot state to come, if there is one. Cut short before, or
    /// refused by the TPM, it is done again.
    pub(super) fn tend_records(&mut self) {
        let Some(vault) = self.state.vault() else { return };
        let wanted = vault.sealing_of(self.instance).next().map(|next| next.reseal().clone());
        if wanted.as_ref().map(Reseal::boot_state) == self.records.records.next()
            || self.records.retry.is_some_and(|retry| Instant::now() < retry)
        {
            return;
        }
        let records = &mut self.records.records;
        let done = match &wanted {
            Some(reseal) => {
                tracing::info!("the record for the approved boot state is missing: it is sealed now");
                records.seal_next(&self.hardware.devices.tpm, &reseal.pcrs)
            }
            None => records.drop_next(),
        };
        self.records.retry = match done {
            Ok(()) => {
                tracing::info!(sealed = wanted.is_some(), "the records of the root are as the log says");
                None
            }
            Err(error) => {
                tracing::warn!(code = error.code(), %error, "the records of the root are not as the log says: trying again");
                Some(Instant::now() + SEAL_AGAIN_AFTER)
            }
        };
    }

    /// For people: what the root is sealed to.
    pub(super) fn sealing(&self) -> Option<v1::KeeperSealing> {
        let sealing = self.state.vault()?.sealing_of(self.instance);
        let next = sealing.next().map(|next| NextSealing {
            pcrs: next.reseal().pcrs.clone(),
            written: self.records.records.next() == Some(next.reseal().boot_state()),
        });
        Some(KeeperSealing { present: self.records.records.present(), next }.into())
    }
}
