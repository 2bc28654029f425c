//! Key epochs (FORMAT.md §7, `key-epoch`): the keys that a vault has from one moment on, and how they follow each other.
//!
//! A keeper that moved to another boot state, or away from another machine, leaves a record behind that still opens the old
//! root. A key epoch ends what that root is worth: KEK, wrap key and identity key are made anew under a root that only the
//! keeper of now has. Approvers let exactly these keys in, and the identity key of before signs who follows it, so that
//! whoever knows the vault by an older key can go on. The log key stays: it signs what is in the log, and opens nothing.

mod error;

use attestation::{AkName, HpkePublicKey, IdentityKey, Sha256Digest, lv};

pub use error::EpochError;

use crate::checkpoint::LogVerifier;
use crate::entry::{Entry, KeyEpoch};
use crate::genesis::KeeperIdentity;
use crate::keepers::KeeperMachine;

const EPOCH_TAG: &[u8] = b"weightvault/v1 key epoch\0";
const REQUEST_TAG: &[u8] = b"weightvault/v1 key epoch request\0";
const SUCCESSOR_TAG: &[u8] = b"weightvault/v1 key epoch successor\0";

/// The epoch that a vault begins with: its keys are those of the genesis.
pub const FIRST_EPOCH: u32 = 1;
/// The most epochs that are followed at once, from an older key to the present one.
pub const LINKS_MAX: usize = 64;

/// The public keys of an epoch that change with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EpochKeys {
    /// Counts from 1.
    pub epoch: u32,
    /// DEKs are wrapped to it.
    pub wrap_key: HpkePublicKey,
    /// Signs grants, leases and notices.
    pub identity_key: IdentityKey,
}

impl From<&KeeperIdentity> for EpochKeys {
    fn from(keeper: &KeeperIdentity) -> Self {
        let (wrap_key, identity_key) = (keeper.wrap_key.clone(), keeper.identity_key.clone());
        Self { epoch: FIRST_EPOCH, wrap_key, identity_key }
    }
}

impl EpochKeys {
    /// SHA-256 of the wrap key and of the identity key: what a later epoch must not have again.
    pub(crate) fn digests(&self) -> [Sha256Digest; 2] {
        [Sha256Digest::of(self.wrap_key.as_bytes()), Sha256Digest::of(self.identity_key.as_bytes())]
    }

    /// What the identity key of the epoch before signs: `"weightvault/v1 key epoch successor\0"` ‖ lv(vault id, be32(epoch),
    /// wrap key, identity key).
    pub fn successor_message(&self, vault: Sha256Digest) -> Vec<u8> {
        let fields = [
            vault.as_bytes(),
            &self.epoch.to_be_bytes()[..],
            self.wrap_key.as_bytes(),
            self.identity_key.as_bytes().as_slice(),
        ];
        [SUCCESSOR_TAG, &lv(&fields)].concat()
    }
}

/// The epoch that a keeper is to begin, as it was proposed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NextEpoch {
    /// The keeper that made the keys: its instance, as the log names it.
    pub instance: [u8; 32],
    /// Its attestation key.
    pub ak_name: AkName,
    /// The keys.
    pub keys: EpochKeys,
}

impl NextEpoch {
    /// What approvals name: SHA-256(`"weightvault/v1 key epoch\0"` ‖ lv(vault id, be32(epoch), instance, AK name, wrap key,
    /// identity key)).
    pub fn object(&self, vault: Sha256Digest) -> Sha256Digest {
        let fields = lv(&[
            vault.as_bytes(),
            &self.keys.epoch.to_be_bytes(),
            &self.instance,
            self.ak_name.as_bytes(),
            self.keys.wrap_key.as_bytes(),
            self.keys.identity_key.as_bytes(),
        ]);
        Sha256Digest::of(&[EPOCH_TAG, &fields].concat())
    }

    /// What the approver who asks for an epoch signs, before there are keys: SHA-256(`"weightvault/v1 key epoch request\0"` ‖
    /// lv(vault id, be32(epoch), instance)).
    pub fn request(vault: Sha256Digest, epoch: u32, instance: &[u8; 32]) -> Sha256Digest {
        let fields = lv(&[vault.as_bytes(), &epoch.to_be_bytes(), instance]);
        Sha256Digest::of(&[REQUEST_TAG, &fields].concat())
    }

    pub(crate) fn check_keeper(&self, keeper: &KeeperMachine) -> Result<(), EpochError> {
        if self.instance != keeper.instance {
            return Err(EpochError::OtherKeeper { field: "the instance" });
        }
        if self.ak_name != keeper.ak_name {
            return Err(EpochError::OtherKeeper { field: "the attestation key" });
        }
        Ok(())
    }
}

/// One step from the keys of an epoch to those of the next: the `key-epoch` entry, and that it is in the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EpochLink {
    /// The entry, exact bytes.
    pub entry: Vec<u8>,
    /// A C2SP tlog-proof of it.
    pub proof: String,
}

/// The keys that these links lead to from `known`. What `known` is worth, they are worth: each is signed by the key before
/// it, and stands in the log. Links of epochs that are known already are passed over.
///
/// # Errors
/// [`EpochError`]: each link must be of the next epoch.
pub fn follow(known: &EpochKeys, log: &LogVerifier, links: &[EpochLink]) -> Result<EpochKeys, EpochError> {
    if links.len() > LINKS_MAX {
        return Err(EpochError::TooManyLinks { count: links.len() });
    }
    let mut keys = known.clone();
    for link in links {
        let Ok(Entry::KeyEpoch(effect)) = Entry::parse(&link.entry) else {
            return Err(EpochError::NotALink);
        };
        if effect.epoch <= keys.epoch {
            continue;
        }
        let next = effect.keys();
        check_successor(&keys, &effect, log.vault())?;
        log.verify_proof(&link.proof, &link.entry).map_err(EpochError::Proof)?;
        keys = next;
    }
    Ok(keys)
}

/// The entry follows on `keys`, and their identity key says so.
pub(crate) fn check_successor(keys: &EpochKeys, effect: &KeyEpoch, vault: Sha256Digest) -> Result<(), EpochError> {
    check_next(keys, effect.epoch)?;
    let message = effect.keys().successor_message(vault);
    keys.identity_key.verify(&message, &effect.signature).map_err(|_| EpochError::Signature)
}

pub(crate) fn check_next(keys: &EpochKeys, epoch: u32) -> Result<(), EpochError> {
    match keys.epoch.checked_add(1) {
        Some(expected) if expected == epoch => Ok(()),
        _ => Err(EpochError::NotNext { present: keys.epoch, found: epoch }),
    }
}
