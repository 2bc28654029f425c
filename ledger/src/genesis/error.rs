use std::fmt;

use attestation::UnixTime;

use crate::entry::EntryError;
use crate::policy::PolicyError;

/// Why bytes are not a core or a genesis.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum GenesisError {
    /// Not the tag and three fields, or longer than 14 KiB.
    CoreMalformed,
    /// `anti_rollback` is not `counter`, `witnesses` or `none`.
    AntiRollbackUnknown,
    /// `seal_to` is not `tpm` or `snp,tpm`.
    SealToUnknown,
    /// `seal_to` names other hardware than `[keeper]` makes the keeper prove.
    SealToNotProven,
    /// `anti_rollback` is `witnesses`, and the first policy names none.
    WitnessesMissing,
    /// The first policy names witnesses, and `anti_rollback` is something else.
    WitnessesUnexpected,
    /// The first policy is longer than 10 KiB.
    PolicyTooLong {
        /// How long.
        bytes: usize,
    },
    /// The text is not a policy.
    Policy(PolicyError),
    /// A later policy.
    PolicyNotFirst {
        /// Its serial.
        serial: u64,
    },
    /// The first policy is over before the vault begins.
    PolicyExpired {
        /// Its last moment.
        not_after: UnixTime,
    },
    /// Not an entry.
    Entry(EntryError),
    /// An entry of another type.
    NotAGenesis {
        /// Which.
        found: &'static str,
    },
}

impl GenesisError {
    /// Stable code.
    pub fn code(&self) -> &'static str {
        match self {
            Self::CoreMalformed => "core-malformed",
            Self::AntiRollbackUnknown => "core-anti-rollback-unknown",
            Self::SealToUnknown => "core-seal-to-unknown",
            Self::SealToNotProven => "core-seal-to-not-proven",
            Self::WitnessesMissing => "core-witnesses-missing",
            Self::WitnessesUnexpected => "core-witnesses-unexpected",
            Self::PolicyTooLong { .. } => "genesis-policy-too-long",
            Self::Policy(error) => error.code(),
            Self::PolicyNotFirst { .. } => "genesis-policy-not-first",
            Self::PolicyExpired { .. } => "genesis-policy-expired",
            Self::Entry(error) => error.code(),
            Self::NotAGenesis { .. } => "not-a-genesis",
        }
    }
}

impl fmt::Display for GenesisError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::CoreMalformed => f.write_str("not the core of a genesis"),
            Self::AntiRollbackUnknown => f.write_str("anti_rollback is `counter`, `witnesses` or `none`"),
            Self::SealToUnknown => f.write_str("seal_to is `tpm` or `snp,tpm`"),
            Self::SealToNotProven => f.write_str(
                "the keeper would seal to hardware that `[keeper]` does not make it prove; let seal_to and `[keeper]` agree",
            ),
            Self::WitnessesMissing => {
                f.write_str("anti_rollback is `witnesses`, and the policy has no `[witnesses]`: name them and their quorum")
            }
            Self::WitnessesUnexpected => f.write_str(
                "the policy has `[witnesses]`, which only anti_rollback `witnesses` asks: choose that, or leave the section out",
            ),
            Self::PolicyTooLong { bytes } => {
                write!(f, "{bytes} bytes are more than the 10 KiB that a first policy may have")
            }
            Self::Policy(error) => error.fmt(f),
            Self::PolicyNotFirst { serial } => write!(
                f,
                "the policy has serial {serial}; a first one has vault \"genesis\", serial 1 and prev \"none\""
            ),
            Self::PolicyExpired { not_after } => {
                write!(f, "the first policy ended at {not_after}, before the vault begins")
            }
            Self::Entry(error) => error.fmt(f),
            Self::NotAGenesis { found } => write!(f, "an entry of type {found}, not a genesis"),
        }
    }
}

impl std::error::Error for GenesisError {}

impl From<EntryError> for GenesisError {
    fn from(error: EntryError) -> Self {
        Self::Entry(error)
    }
}
