//! Entries about the keys of a vault's epochs.

use attestation::{AkName, HpkePublicKey, IdentityKey, Sha256Digest, UnixTime};
use serde::{Deserialize, Serialize};

use super::field;
use crate::key_epoch::{EpochKeys, NextEpoch};

/// Keys of the next epoch, which the keeper made and which wait for approvals.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProposedEpoch {
    /// What approvals name: [`NextEpoch::object`].
    pub object: Sha256Digest,
    /// Its number.
    pub epoch: u32,
    /// The keeper's instance.
    #[serde(with = "field::base64")]
    pub instance: [u8; 32],
    /// The keeper's attestation key.
    #[serde(with = "field::base64")]
    pub ak_name: AkName,
    /// DEKs are wrapped to it.
    #[serde(with = "field::base64")]
    pub wrap_key: HpkePublicKey,
    /// Signs grants, leases and notices.
    #[serde(with = "field::base64")]
    pub identity_key: IdentityKey,
    /// The statement of the approver who asked for the epoch, exact bytes: over [`NextEpoch::request`].
    pub statement: String,
    /// Armored SSHSIG over the statement.
    pub signature: String,
}

/// An epoch has its approvals and begins here.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeyEpoch {
    /// When.
    pub time: UnixTime,
    /// Index of its `propose` entry.
    pub proposal: u64,
    /// What the approvals named.
    pub object: Sha256Digest,
    /// Its number.
    pub epoch: u32,
    /// DEKs are wrapped to it.
    #[serde(with = "field::base64")]
    pub wrap_key: HpkePublicKey,
    /// Signs grants, leases and notices.
    #[serde(with = "field::base64")]
    pub identity_key: IdentityKey,
    /// The identity key of the epoch before over [`EpochKeys::successor_message`]: ECDSA P-384 SHA-384, r‖s.
    #[serde(with = "field::base64")]
    pub signature: [u8; 96],
    /// SHA-256 of the blob with the DEK records of before, sealed anew under the KEK of this epoch.
    pub records: Sha256Digest,
}

impl ProposedEpoch {
    /// What is proposed, asked for so.
    pub fn new(next: &NextEpoch, vault: Sha256Digest, statement: String, signature: String) -> Self {
        let object = next.object(vault);
        let NextEpoch { instance, ak_name, keys } = next.clone();
        let EpochKeys { epoch, wrap_key, identity_key } = keys;
        Self { object, epoch, instance, ak_name, wrap_key, identity_key, statement, signature }
    }

    /// What is proposed. `object` may name something else.
    pub fn next(&self) -> NextEpoch {
        let Self { epoch, instance, ak_name, wrap_key, identity_key, .. } = self.clone();
        NextEpoch { instance, ak_name, keys: EpochKeys { epoch, wrap_key, identity_key } }
    }
}

impl KeyEpoch {
    /// The keys that it names.
    pub fn keys(&self) -> EpochKeys {
        let (wrap_key, identity_key) = (self.wrap_key.clone(), self.identity_key.clone());
        EpochKeys { epoch: self.epoch, wrap_key, identity_key }
    }
}
