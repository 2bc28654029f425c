//! The root of the epoch to come, beside the one that is in use.
//!
//! It is sealed to the same boot state, with the same attestation key, and carries what it is for. It takes the place of
//! `root.json` in one rename: before it the keeper is in the one epoch, after it in the other.

use std::sync::Arc;

use ring::rand::SecureRandom;

use super::record::{EpochRecord, RootRecord};
use super::{EPOCH_FILE, FILE, HANDED_OVER_FILE, NEXT_FILE, Place, RootError, RootRecords, root_of, unseal};
use crate::chip::Chip;
use crate::container::OpenError;
use crate::secret::{Root, TpmSecret};
use crate::tpm::Tpm;

impl RootRecords {
    /// Makes a fresh root for the next epoch, and stores it with what `secrets` seals under it.
    ///
    /// # Errors
    /// What TPM, chip or disk say; the present root is as it was.
    pub(crate) fn make_epoch(
        &self,
        (tpm, chip): (&Tpm, Option<&Chip>),
        rng: &dyn SecureRandom,
        secrets: impl FnOnce(&Root) -> Result<EpochRecord, OpenError>,
    ) -> Result<(), RootError> {
        let snp = match (&self.opened.snp, chip) {
            (None, _) => None,
            (Some(_), Some(chip)) => Some(chip.new_sealing(rng)?),
            (Some(_), None) => return Err(RootError::ChipMissing),
        };
        let secret = Arc::new(TpmSecret::generate(rng)?);
        let sealed = tpm.seal_for(Arc::clone(&secret), self.opened.sealed.pcrs.clone()).wait()?;
        let root = root_of(&secret, snp.as_ref(), chip)?;
        let epoch = Some(secrets(&root).map_err(RootError::Epoch)?);
        let record = RootRecord { sealed, snp, epoch, ..self.opened.clone() };
        Ok(self.dir.replace(EPOCH_FILE, &record.encode())?)
    }

    /// The root that was made last, where it is still there.
    ///
    /// # Errors
    /// What TPM, chip or disk say.
    pub(crate) fn open_epoch(&self, tpm: &Tpm, chip: Option<&Chip>) -> Result<Option<(Root, EpochRecord)>, RootError> {
        let Some(record) = self.dir.read(EPOCH_FILE)?.and_then(|bytes| RootRecord::parse(&bytes)) else {
            return Ok(None);
        };
        let Some(epoch) = record.epoch.clone() else { return Ok(None) };
        let secret = unseal(tpm, &record, Place::Present)?;
        Ok(Some((root_of(&secret, record.snp.as_ref(), chip)?, epoch)))
    }

    /// Puts the root of the epoch to come in the place of the present one, whose records are gone afterwards.
    ///
    /// # Errors
    /// What the disk says; either may then be there.
    pub(crate) fn begin_epoch(&self) -> Result<(), RootError> {
        self.dir.remove(NEXT_FILE)?;
        self.dir.rename(EPOCH_FILE, FILE)?;
        // Under the root that is gone.
        Ok(self.dir.remove(HANDED_OVER_FILE)?)
    }
}
