//! The beginning of a vault (FORMAT.md §4): the core that a keeper is given, and the genesis that names the keeper's keys.
//! The vault's id is the digest of the genesis, so whoever knows the id knows the first policy and every key.

mod core;
mod error;

use attestation::{AkName, HpkePublicKey, IdentityKey, LogKey, Sha256Digest, UnixTime};

pub use self::core::{AntiRollback, CORE_BYTES_MAX, Core, GENESIS_POLICY_BYTES_MAX, SealTo};
pub use error::GenesisError;

use crate::entry::{Entry, GenesisEntry};
use crate::policy::Policy;

/// What a keeper says of itself before there is a vault.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeeperIdentity {
    /// 32 random bytes, made with the root key.
    pub instance: [u8; 32],
    /// DEKs are wrapped to it.
    pub wrap_key: HpkePublicKey,
    /// Signs grants and leases.
    pub identity_key: IdentityKey,
    /// Signs checkpoints.
    pub log_key: LogKey,
    /// Its platform id (FORMAT.md §2).
    pub platform: Sha256Digest,
    /// Name of its attestation key.
    pub ak_name: AkName,
}

/// A genesis whose every rule was checked, with its exact bytes: entry 0 of the log.
#[derive(Debug, Clone)]
pub struct Genesis {
    bytes: Vec<u8>,
    vault_id: Sha256Digest,
    time: UnixTime,
    core: Core,
    keeper: KeeperIdentity,
}

impl Genesis {
    /// Joins a core and the keeper that was given it. Refuses a policy that is over by `time`.
    pub fn build(time: UnixTime, core: &Core, keeper: KeeperIdentity) -> Result<Self, GenesisError> {
        let entry = Entry::Genesis(Box::new(GenesisEntry {
            time,
            anti_rollback: core.anti_rollback(),
            seal_to: core.seal_to(),
            policy: core.policy_text().to_owned(),
            instance: keeper.instance,
            wrap_key: keeper.wrap_key,
            identity_key: keeper.identity_key,
            log_key: keeper.log_key,
            platform: keeper.platform,
            ak_name: keeper.ak_name,
        }));
        Self::parse(&entry.encode()?)
    }

    /// Reads exact bytes, at most 16 KiB.
    pub fn parse(bytes: &[u8]) -> Result<Self, GenesisError> {
        match Entry::parse(bytes)? {
            Entry::Genesis(entry) => Self::from_entry(*entry, bytes),
            other => Err(GenesisError::NotAGenesis { found: other.type_name() }),
        }
    }

    /// `bytes` are those that `entry` was read from.
    pub(crate) fn from_entry(entry: GenesisEntry, bytes: &[u8]) -> Result<Self, GenesisError> {
        let core = Core::new(entry.anti_rollback, entry.seal_to, &entry.policy)?;
        if core.policy().is_expired(entry.time) {
            return Err(GenesisError::PolicyExpired { not_after: core.policy().not_after() });
        }
        Ok(Self {
            bytes: bytes.to_vec(),
            vault_id: Sha256Digest::of(bytes),
            time: entry.time,
            core,
            keeper: KeeperIdentity {
                instance: entry.instance,
                wrap_key: entry.wrap_key,
                identity_key: entry.identity_key,
                log_key: entry.log_key,
                platform: entry.platform,
                ak_name: entry.ak_name,
            },
        })
    }

    /// The exact bytes.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// SHA-256 of the exact bytes: the id of the vault.
    pub fn vault_id(&self) -> Sha256Digest {
        self.vault_id
    }

    /// When it was made.
    pub fn time(&self) -> UnixTime {
        self.time
    }

    /// What the keeper was given.
    pub fn core(&self) -> &Core {
        &self.core
    }

    /// The first policy.
    pub fn policy(&self) -> &Policy {
        self.core.policy()
    }

    /// The keeper and its keys.
    pub fn keeper(&self) -> &KeeperIdentity {
        &self.keeper
    }
}
