//! Against the loss of the keeper (FORMAT.md §5 and §7, `escrow` and `recover`): who keeps the vault's keys in shares, and
//! which keeper may have them once the one that had them is lost.
//!
//! The keys are split by a quorum of approvers and given back by a quorum of custodians and one of approvers, into a
//! machine that has proved itself to each of them. No one of the three has the keys: the host sees sealed shares, a
//! custodian has one share, an approver has none.
//!
//! ```
//! # use attestation::Sha256Digest;
//! use ledger::escrow::{Custodian, EscrowError, EscrowPlan};
//! let custodian = |id: &str| Custodian { id: id.parse().unwrap(), key: Sha256Digest::of(id.as_bytes()) };
//! let custodians = vec![custodian("notary"), custodian("safe"), custodian("sister-company")];
//! let plan = EscrowPlan { number: 1, epoch: 1, threshold: 2, custodians };
//! assert_eq!(plan.check(), Ok(()));
//! // One share alone would be the vault.
//! assert_eq!(EscrowPlan { threshold: 1, ..plan }.check(), Err(EscrowError::Threshold));
//! ```

mod error;
mod share;

use attestation::{Sha256Digest, lv};
use serde::{Deserialize, Serialize};

pub use error::EscrowError;
pub use share::{SHARE_BYTES, SHARE_FILE_BYTES_MAX, ShareFile, ShareFileError, ShareId};

use crate::keepers::Joiner;
use crate::names::Name;

/// The most custodians of one escrow.
pub const CUSTODIANS_MAX: usize = 16;
/// The fewest shares that may give the keys: with one, no custodian could be lost, or trusted alone.
pub const THRESHOLD_MIN: u32 = 2;

const ESCROW_TAG: &[u8] = b"weightvault/v1 escrow\0";
const SET_TAG: &[u8] = b"weightvault/v1 escrow set\0";
const PLAN_TAG: &[u8] = b"weightvault/v1 recovery plan\0";
const RECOVER_TAG: &[u8] = b"weightvault/v1 recover\0";

/// Somebody who keeps a share, out of reach of the host and of each other.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Custodian {
    /// What people call him.
    pub id: Name,
    /// SHA-256 of his HPKE public key, which lies beside the log as a blob.
    pub key: Sha256Digest,
}

/// Who is to get which share of the vault's keys.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EscrowPlan {
    /// One more than there were: an approval is for one splitting.
    pub number: u64,
    /// Epoch of the KEK.
    pub epoch: u32,
    /// How many shares give the keys.
    pub threshold: u32,
    /// In the order of the shares, of which the first has the index 1.
    pub custodians: Vec<Custodian>,
}

/// What the log says of one share.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ShareDigests {
    /// SHA-256 of the share as it was sealed to its custodian.
    pub sealed: Sha256Digest,
    /// [`ShareId::check`] of the share itself: names a wrong one. It says nothing about the keys, since a share is as
    /// random as they are.
    pub check: Sha256Digest,
}

impl EscrowPlan {
    /// Whether the keys can be split so.
    ///
    /// # Errors
    /// [`EscrowError::Threshold`], [`EscrowError::TooManyCustodians`], [`EscrowError::CustodianRepeated`].
    pub fn check(&self) -> Result<(), EscrowError> {
        let count = self.custodians.len();
        if count > CUSTODIANS_MAX {
            return Err(EscrowError::TooManyCustodians);
        }
        if self.threshold < THRESHOLD_MIN || usize::try_from(self.threshold).is_ok_and(|threshold| threshold > count) {
            return Err(EscrowError::Threshold);
        }
        for (index, custodian) in self.custodians.iter().enumerate() {
            let before = self.custodians.iter().take(index);
            if before.into_iter().any(|other| other.id == custodian.id || other.key == custodian.key) {
                return Err(EscrowError::CustodianRepeated { id: custodian.id.clone() });
            }
        }
        Ok(())
    }

    /// What approvals name: SHA-256(`"weightvault/v1 escrow\0"` ‖ lv(vault id, be64(number), be32(epoch), be32(threshold),
    /// custodians)); the custodians are lv(id, key digest) of each, joined.
    pub fn object(&self, vault: Sha256Digest) -> Sha256Digest {
        let custodians = self.custodians.iter();
        let custodians: Vec<u8> = custodians
            .flat_map(|custodian| lv(&[custodian.id.as_str().as_bytes(), custodian.key.as_bytes()]))
            .collect();
        let fields = lv(&[
            vault.as_bytes(),
            &self.number.to_be_bytes(),
            &self.epoch.to_be_bytes(),
            &self.threshold.to_be_bytes(),
            &custodians,
        ]);
        Sha256Digest::of(&[ESCROW_TAG, &fields].concat())
    }

    /// Stands for one splitting: SHA-256(`"weightvault/v1 escrow set\0"` ‖ lv(object, SHA-256(record))). The record is
    /// sealed under a key of its own each time, so shares of two splittings never pass for one set.
    pub fn set(&self, vault: Sha256Digest, record: Sha256Digest) -> Sha256Digest {
        let fields = lv(&[self.object(vault).as_bytes(), record.as_bytes()]);
        Sha256Digest::of(&[SET_TAG, &fields].concat())
    }

    /// The custodian of the share of this index.
    pub fn custodian(&self, index: u32) -> Option<&Custodian> {
        self.custodians.get(usize::try_from(index.checked_sub(1)?).ok()?)
    }
}

/// Whether something shows that no newer log was lost with the keeper.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Rollback {
    /// Nothing does: the counter that would is lost with its TPM. Approvers accept that what came behind the log that they
    /// were shown may be missing.
    Accepted,
}

/// What comes of the keys once they are together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RecoveryMode {
    /// The keeper seals them to its machine and has the vault.
    Recover,
    /// The keeper checks them and wipes them.
    Drill,
}

/// A log by its length and its root.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogPoint {
    /// Entries.
    pub size: u64,
    /// Merkle root.
    pub root: Sha256Digest,
}

/// A keeper in the place of a lost one, and the log that it goes on from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recovery {
    /// The keeper.
    pub joiner: Joiner,
    /// The log, whose newest checkpoint the lost keeper signed.
    pub from: LogPoint,
    /// The set of shares.
    pub set: Sha256Digest,
    /// Whether it may be an old log.
    pub rollback: Rollback,
}

impl Recovery {
    /// What approvals and contributions name: SHA-256(`"weightvault/v1 recover\0"` ‖ lv(mode, object of a keeper-join of the
    /// same keeper with the size of the log in the place of the revision, plan digest)). A share or an approval that was
    /// given for a drill is worth nothing elsewhere.
    pub fn object(&self, vault: Sha256Digest, mode: RecoveryMode) -> Sha256Digest {
        let joiner = self.joiner.object(vault, self.from.size);
        let plan = recovery_plan(mode, self.from, self.set, self.rollback);
        let fields = lv(&[mode.as_str().as_bytes(), joiner.as_bytes(), plan.as_bytes()]);
        Sha256Digest::of(&[RECOVER_TAG, &fields].concat())
    }
}

/// What a recovering keeper's evidence names: SHA-256(`"weightvault/v1 recovery plan\0"` ‖ lv(mode, be64(size), root, set,
/// rollback)), mode `recover` or `drill`, rollback `accepted`.
pub fn recovery_plan(mode: RecoveryMode, from: LogPoint, set: Sha256Digest, rollback: Rollback) -> Sha256Digest {
    let rollback: &[u8] = match rollback {
        Rollback::Accepted => b"accepted",
    };
    let fields =
        lv(&[mode.as_str().as_bytes(), &from.size.to_be_bytes(), from.root.as_bytes(), set.as_bytes(), rollback]);
    Sha256Digest::of(&[PLAN_TAG, &fields].concat())
}

impl RecoveryMode {
    /// As it stands in what is hashed and on the wire.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Recover => "recover",
            Self::Drill => "drill",
        }
    }
}
