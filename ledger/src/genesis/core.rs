use attestation::{Sha256Digest, lv};
use serde::{Deserialize, Serialize};

use super::GenesisError;
use crate::policy::{KeeperRule, Lineage, Policy};

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
    /// By witnesses: nothing counts before a quorum of them has cosigned it, and they cosign no older log.
    Witnesses,
    /// It does not: for a laptop.
    None,
}

impl AntiRollback {
    /// As it stands in core and genesis.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Witnesses => "witnesses",
            Self::None => "none",
        }
    }
}

/// What the root key is sealed to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SealTo {
    /// The keeper's TPM and its boot state.
    Tpm,
    /// That, and a key that the chip derives for this guest alone: neither of the two gives the root key.
    #[serde(rename = "snp,tpm")]
    SnpTpm,
}

impl SealTo {
    /// What a keeper seals to that has to prove this: all of it.
    pub const fn proven_by(rule: &KeeperRule) -> Self {
        match rule {
            KeeperRule::Tpm(_) => Self::Tpm,
            KeeperRule::Snp { .. } => Self::SnpTpm,
        }
    }

    /// As it stands in core, genesis and root record.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Tpm => "tpm",
            Self::SnpTpm => "snp,tpm",
        }
    }

    const ALL: [Self; 2] = [Self::Tpm, Self::SnpTpm];
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
        check_keeper(seal_to, policy.keeper())?;
        check_witnesses(anti_rollback, &policy)?;
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
            b"witnesses" => AntiRollback::Witnesses,
            b"none" => AntiRollback::None,
            _ => return Err(GenesisError::AntiRollbackUnknown),
        };
        let seal_to = SealTo::ALL.into_iter().find(|known| known.as_str().as_bytes() == seal_to);
        let seal_to = seal_to.ok_or(GenesisError::SealToUnknown)?;
        Self::new(anti_rollback, seal_to, std::str::from_utf8(policy).map_err(|_| GenesisError::CoreMalformed)?)
    }

    /// The exact bytes.
    pub fn encode(&self) -> Vec<u8> {
        [
            CORE_TAG,
            &lv(&[
                self.anti_rollback.as_str().as_bytes(),
                self.seal_to.as_str().as_bytes(),
                self.policy_text.as_bytes(),
            ]),
        ]
        .concat()
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

/// What a vault rests on has to be shown: a keeper seals to the very hardware that `[keeper]` makes it prove.
fn check_keeper(seal_to: SealTo, rule: &KeeperRule) -> Result<(), GenesisError> {
    if seal_to == SealTo::proven_by(rule) { Ok(()) } else { Err(GenesisError::SealToNotProven) }
}

/// Witnesses that nobody waits for would only seem to protect the vault; without any, nothing could ever be cosigned.
fn check_witnesses(anti_rollback: AntiRollback, policy: &Policy) -> Result<(), GenesisError> {
    match (anti_rollback, policy.witnesses()) {
        (AntiRollback::Witnesses, None) => Err(GenesisError::WitnessesMissing),
        (AntiRollback::Counter | AntiRollback::None, Some(_)) => Err(GenesisError::WitnessesUnexpected),
        (AntiRollback::Witnesses, Some(_)) | (AntiRollback::Counter | AntiRollback::None, None) => Ok(()),
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
