//! The records of one root: of the boot state that opened it, and of the one to come.
//!
//! `root.json` stays as it is until the keeper has started on the other boot state and the log says so: a reboot into either
//! opens the vault, and a crash at any step leaves one that does. Which of the two a keeper may start on is for the log to
//! say, since a host can put an old record back.

use std::collections::BTreeMap;
use std::sync::Arc;

use attestation::Sha256Digest;
use ledger::reseal::boot_state;

use super::record::RootRecord;
use super::{FILE, KeeperRoot, NEXT_FILE, RootError, unseal};
use crate::keeper_dir::KeeperDir;
use crate::tpm::{PcrValues, Tpm};

/// Which of a keeper's two records.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// Of the boot state that the keeper is on.
    Present,
    /// Of the one to come.
    Next,
}

impl Place {
    /// Its file in the keeper's directory.
    #[must_use]
    pub const fn file(self) -> &'static str {
        match self {
            Self::Present => FILE,
            Self::Next => NEXT_FILE,
        }
    }
}

/// The record that opened the root, and what is written for the next boot.
pub struct RootRecords {
    pub(super) dir: Arc<KeeperDir>,
    pub(super) opened: RootRecord,
    place: Place,
    next: Option<Sha256Digest>,
}

impl RootRecords {
    /// The records of an opened root.
    ///
    /// # Errors
    /// What the disk says.
    pub fn new(dir: Arc<KeeperDir>, root: &KeeperRoot) -> Result<Self, RootError> {
        // A record that can't be read is none: it is written again.
        let next = dir.read(NEXT_FILE)?.and_then(|bytes| RootRecord::parse(&bytes));
        let next = next.map(|record| boot_state(&by_index(&record.sealed.pcrs)));
        Ok(Self { dir, opened: root.record.clone(), place: root.place, next })
    }

    /// Which record opened the root.
    #[must_use]
    pub const fn place(&self) -> Place {
        self.place
    }

    /// The PCRs that opened it: the TPM compared them with the present ones.
    #[must_use]
    pub fn present(&self) -> BTreeMap<u32, [u8; 32]> {
        by_index(&self.opened.sealed.pcrs)
    }

    /// The boot state that a record is written for beside the one that opened the root.
    #[must_use]
    pub fn next(&self) -> Option<Sha256Digest> {
        match self.place {
            Place::Present => self.next,
            Place::Next => None,
        }
    }

    /// Seals the root to another boot state, beside the present one. The secret comes out of the TPM anew: nobody kept it.
    /// What the chip's part is derived with stays, so that the root stays.
    ///
    /// # Errors
    /// What TPM or disk say; the record of the present boot state is as it was.
    pub fn seal_next(&mut self, tpm: &Tpm, pcrs: &BTreeMap<u32, [u8; 32]>) -> Result<(), RootError> {
        let secret = unseal(tpm, &self.opened, self.place)?;
        let values: PcrValues = pcrs.iter().map(|(index, value)| (*index, *value)).collect();
        let sealed = tpm.seal_for(Arc::new(secret), values).wait()?;
        let record = RootRecord { sealed, ..self.opened.clone() };
        self.dir.replace(NEXT_FILE, &record.encode())?;
        self.next = Some(boot_state(pcrs));
        Ok(())
    }

    /// Removes the record of the boot state to come.
    ///
    /// # Errors
    /// What the disk says.
    pub fn drop_next(&mut self) -> Result<(), RootError> {
        self.dir.remove(NEXT_FILE)?;
        self.next = None;
        Ok(())
    }

    /// Puts the record that opened the root in the place of the one before. Again it changes nothing.
    ///
    /// # Errors
    /// What the disk says; either may then have happened.
    pub fn settle(&mut self) -> Result<(), RootError> {
        if self.place == Place::Next {
            self.dir.rename(NEXT_FILE, FILE)?;
            (self.place, self.next) = (Place::Present, None);
        }
        Ok(())
    }
}

fn by_index(values: &PcrValues) -> BTreeMap<u32, [u8; 32]> {
    values.iter().map(|(index, value)| (index, *value)).collect()
}
