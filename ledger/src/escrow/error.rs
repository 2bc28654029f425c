use std::fmt;

use crate::names::Name;

/// Why custodians, or a keeper in the place of a lost one, are not what an entry may name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EscrowError {
    /// Fewer shares than two would give the keys, or more than there are.
    Threshold,
    /// More than sixteen custodians.
    TooManyCustodians,
    /// A name or a key stands there twice.
    CustodianRepeated {
        /// The second one's name.
        id: Name,
    },
    /// It is not the next splitting.
    Number {
        /// Which one would be.
        expected: u64,
    },
    /// The keys of another epoch than the present one are split, or would be recovered.
    Epoch {
        /// The present one.
        present: u32,
    },
    /// As many shares as there are custodians have to be named.
    ShareCount,
    /// No escrow is in force.
    NoEscrow,
    /// The shares are not those of the escrow in force.
    OtherSet,
    /// The recovery is of a log of another length than the one that it would follow.
    OtherLog {
        /// Entries of the log.
        size: u64,
    },
    /// The vault has no counter: nothing would keep a copy of the keeper that takes the lost one's place out.
    NoCounter,
    /// It waits longer than a proposal may.
    TooLong,
    /// The keeper that it calls lost is not the vault's.
    OtherKeeper,
}

impl EscrowError {
    /// Stable code.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Threshold => "escrow-threshold",
            Self::TooManyCustodians => "escrow-too-many-custodians",
            Self::CustodianRepeated { .. } => "escrow-custodian-repeated",
            Self::Number { .. } => "escrow-number",
            Self::Epoch { .. } => "escrow-epoch",
            Self::ShareCount => "escrow-share-count",
            Self::NoEscrow => "escrow-missing",
            Self::OtherSet => "escrow-other-set",
            Self::OtherLog { .. } => "recover-other-log",
            Self::NoCounter => "recover-no-counter",
            Self::TooLong => "recover-too-long",
            Self::OtherKeeper => "recover-other-keeper",
        }
    }
}

impl fmt::Display for EscrowError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Threshold => {
                f.write_str("the keys are given by at least two shares, and by no more than there are custodians")
            }
            Self::TooManyCustodians => write!(f, "an escrow has at most {} custodians", super::CUSTODIANS_MAX),
            Self::CustodianRepeated { id } => {
                write!(f, "custodian {id} has the name or the key of another one: each share goes to somebody else")
            }
            Self::Number { expected } => {
                write!(f, "the next escrow of this vault has the number {expected}: propose it anew")
            }
            Self::Epoch { present } => write!(f, "the vault's keys are of epoch {present}: make a new escrow"),
            Self::ShareCount => f.write_str("an escrow names one share for each custodian"),
            Self::NoEscrow => f.write_str("no escrow of this vault's keys is in force"),
            Self::OtherSet => f.write_str("these are not the shares of the escrow in force"),
            Self::OtherLog { size } => write!(f, "the recovery is not of this log, which has {size} entries"),
            Self::NoCounter => f.write_str("this vault has no counter: no keeper takes the place of a lost one"),
            Self::TooLong => {
                write!(f, "a recovery waits at most {} days", crate::keepers::JOIN_SECS_MAX / 86_400)
            }
            Self::OtherKeeper => f.write_str("the keeper that it calls lost is not the one that has the vault"),
        }
    }
}

impl std::error::Error for EscrowError {}
