use attestation::{Sha256Digest, lv};
use serde::{Deserialize, Serialize};

use super::GenesisError;
use crate::policy::{Lineage, Policy};

/// Longest core, in bytes.
pub const CORE_BYTES_MAX: usize = 14 << 10;
/// Longest first policy, in bytes.
pub const GENESIS_POLICY_BYTES_MAX: usize = 10 << 10;

const CORE_TAG: &[u8] = b"weightvault/v1 core\0";

/// How a keeper notices that it was given an older copy of its state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum AntiRollback {
    /// By a counter in its TPM.
    Counter,
    /// It does not: for a laptop.
    None,
}

/// What the root key is sealed to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SealTo {
    /// The keeper's TPM and its boot state.
    Tpm,
}

/// What an empty keeper is given: everything about a vault but the keeper itself. Under another core a keeper has other
/// keys.
#[derive(Debug, Clone)]
pub struct Core {
    anti_rollback: AntiRollback,
    seal_to: SealTo,
    policy_text: String,
    policy: Policy,
}

impl Core {
    /// Takes a first policy: `vault = "genesis"`, `serial = 1`, `prev = "none"`, at most 10 KiB.
    pub fn new(anti_rollback: AntiRollback, seal_to: SealTo, policy_text: &str) -> Result<Self, GenesisError> {
        if policy_text.len() > GENESIS_POLICY_BYTES_MAX {
            return Err(GenesisError::PolicyTooLong { bytes: policy_text.len() });
        }
        let policy = Policy::parse(policy_text).map_err(GenesisError::Policy)?;
        if policy.lineage() != Lineage::Genesis {
            return Err(GenesisError::PolicyNotFirst { serial: policy.serial() });
        }
        Ok(Self { anti_rollback, seal_to, policy_text: policy_text.to_owned(), policy })
    }

    /// Reads exact bytes, at most 14 KiB.
    pub fn parse(bytes: &[u8]) -> Result<Self, GenesisError> {
        if bytes.len() > CORE_BYTES_MAX {
            return Err(GenesisError::CoreMalformed);
        }
        let fields = bytes.strip_prefix(CORE_TAG).and_then(three_fields).ok_or(GenesisError::CoreMalformed)?;
        let [anti_rollback, seal_to, policy] = fields;
        let anti_rollback = match anti_rollback {
            b"counter" => AntiRollback::Counter,
            b"none" => AntiRollback::None,
            _ => return Err(GenesisError::AntiRollbackUnknown),
        };
        let seal_to = match seal_to {
            b"tpm" => SealTo::Tpm,
            _ => return Err(GenesisError::SealToUnknown),
        };
        Self::new(anti_rollback, seal_to, std::str::from_utf8(policy).map_err(|_| GenesisError::CoreMalformed)?)
    }

    /// The exact bytes.
    pub fn encode(&self) -> Vec<u8> {
        let anti_rollback: &[u8] = match self.anti_rollback {
            AntiRollback::Counter => b"counter",
            AntiRollback::None => b"none",
        };
        let seal_to: &[u8] = match self.seal_to {
            SealTo::Tpm => b"tpm",
        };
        [CORE_TAG, &lv(&[anti_rollback, seal_to, self.policy_text.as_bytes()])].concat()
    }

    /// SHA-256 of the exact bytes.
    pub fn digest(&self) -> Sha256Digest {
        Sha256Digest::of(&self.encode())
    }

    /// How an older copy of the state is noticed.
    pub fn anti_rollback(&self) -> AntiRollback {
        self.anti_rollback
    }

    /// What the root key is sealed to.
    pub fn seal_to(&self) -> SealTo {
        self.seal_to
    }

    /// Text of the first policy.
    pub fn policy_text(&self) -> &str {
        &self.policy_text
    }

    /// The first policy.
    pub fn policy(&self) -> &Policy {
        &self.policy
    }
}

/// Reads `lv` of exactly three fields (FORMAT.md §1).
fn three_fields(bytes: &[u8]) -> Option<[&[u8]; 3]> {
    let (first, bytes) = length_value(bytes)?;
    let (second, bytes) = length_value(bytes)?;
    let (third, bytes) = length_value(bytes)?;
    bytes.is_empty().then_some([first, second, third])
}

fn length_value(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = bytes.split_first_chunk()?;
    rest.split_at_checked(usize::try_from(u32::from_be_bytes(*length)).ok()?)
}
