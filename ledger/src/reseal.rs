//! What a keeper's root is sealed to before the reboot that brings it (FORMAT.md §7, `reseal`).
//!
//! Nobody signs PCR sets by themselves: that would be a key to every boot state there will ever be. What approvers sign is
//! one boot state of one keeper, under the policy in force, until a moment.

mod error;

use std::collections::{BTreeMap, BTreeSet};

use attestation::{AkName, PcrSelection, Sha256Digest, lv};

pub use error::ResealError;

use crate::genesis::Genesis;
use crate::keepers::KeeperMachine;
use crate::policy::{KeeperRule, PcrRule, Policy};

const RESEAL_TAG: &[u8] = b"weightvault/v1 reseal\0";
const BOOT_STATE_TAG: &[u8] = b"weightvault/v1 boot state\0";

/// A boot state that a keeper is to be sealed to, as it was proposed. [`Reseal::check`] says whether the keeper of a vault
/// may be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reseal {
    /// The keeper: its instance, as the log names it.
    pub instance: [u8; 32],
    /// Its attestation key, which stands for its TPM: as the log names it.
    pub ak_name: AkName,
    /// The PCRs of the SHA-256 bank after the reboot: those that `[keeper]` of the first policy names.
    pub pcrs: BTreeMap<u32, [u8; 32]>,
    /// The launch digest of the guest that runs now and then, where the root is sealed to a chip too.
    pub measurement: Option<[u8; 48]>,
}

impl Reseal {
    /// What approvals name: SHA-256(`"weightvault/v1 reseal\0"` ‖ lv(instance, AK name, PCRs, measurement)); the PCRs are
    /// be32(index) ‖ value of each, ascending, the measurement is empty where there is none. A revision above 0 is one more
    /// field, be64(revision): the number of `reseal` and `resealed` entries of the log. Without it the signatures of a
    /// reseal that was taken back would be good for it once more: they are in the log, for every host to send again.
    pub fn object(&self, revision: u64) -> Sha256Digest {
        let (pcrs, revision_bytes) = (in_bytes(&self.pcrs), revision.to_be_bytes());
        let measurement = self.measurement.as_ref().map_or(&[][..], |digest| digest.as_slice());
        let mut fields: Vec<&[u8]> = vec![&self.instance, self.ak_name.as_bytes(), &pcrs, measurement];
        if revision > 0 {
            fields.push(&revision_bytes);
        }
        Sha256Digest::of(&[RESEAL_TAG, &lv(&fields)].concat())
    }

    /// Stands for the PCRs alone.
    pub fn boot_state(&self) -> Sha256Digest {
        boot_state(&self.pcrs)
    }

    /// Whether `keeper`, of the vault of `genesis`, may be sealed to this while `policy` is in force: afterwards callers must
    /// still be able to verify it, and it must still be allowed to start.
    ///
    /// # Errors
    /// [`ResealError`].
    pub fn check(&self, genesis: &Genesis, keeper: &KeeperMachine, policy: &Policy) -> Result<(), ResealError> {
        self.check_keeper(keeper)?;
        let selection = genesis.policy().keeper().tpm().pcrs.selection();
        self.check_pcrs(selection)?;
        policy.keeper().tpm().pcrs.check(&self.pcrs).map_err(ResealError::PcrsNotAllowed)?;
        match (policy.keeper(), self.measurement) {
            (KeeperRule::Tpm(_), Some(_)) => Err(ResealError::MeasurementUnexpected),
            (KeeperRule::Snp { .. }, None) => Err(ResealError::MeasurementMissing),
            (KeeperRule::Snp { snp, .. }, Some(digest)) if !snp.measurements.contains(&digest) => {
                Err(ResealError::MeasurementNotAllowed)
            }
            (KeeperRule::Tpm(_), None) | (KeeperRule::Snp { .. }, Some(_)) => Ok(()),
        }
    }

    fn check_keeper(&self, keeper: &KeeperMachine) -> Result<(), ResealError> {
        if self.instance != keeper.instance {
            return Err(ResealError::OtherKeeper { field: "the instance" });
        }
        if self.ak_name != keeper.ak_name {
            return Err(ResealError::OtherKeeper { field: "the attestation key" });
        }
        Ok(())
    }

    /// Exactly the PCRs that the keeper's evidence quotes: with one less anybody could boot what differs in that one, and
    /// no caller could verify the keeper.
    fn check_pcrs(&self, selection: PcrSelection) -> Result<(), ResealError> {
        if !selection.iter().eq(self.pcrs.keys().copied()) {
            return Err(ResealError::OtherSelection { expected: selection });
        }
        let single = self.pcrs.iter().map(|(index, value)| (*index, vec![*value])).collect();
        PcrRule::new(single, BTreeSet::new(), None).map(drop).map_err(ResealError::Unmeasured)
    }
}

/// Stands for values of PCRs of the SHA-256 bank: SHA-256(`"weightvault/v1 boot state\0"` ‖ lv(PCRs)).
pub fn boot_state(pcrs: &BTreeMap<u32, [u8; 32]>) -> Sha256Digest {
    Sha256Digest::of(&[BOOT_STATE_TAG, &lv(&[&in_bytes(pcrs)])].concat())
}

fn in_bytes(pcrs: &BTreeMap<u32, [u8; 32]>) -> Vec<u8> {
    pcrs.iter().flat_map(|(index, value)| index.to_be_bytes().into_iter().chain(*value)).collect()
}
