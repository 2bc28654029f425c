//! Why an `upgrade` entry does not stand where it stands, or a program can't read a log any further.

use std::fmt;

use crate::names::Version;
use crate::snapshot::FOLD_NUMBER;

/// What is wrong about the program that a keeper runs, or that reads its log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum UpgradeError {
    /// From here on the log asks for a newer fold than this program knows.
    ProgramTooOld {
        /// What the log asks for.
        fold: u32,
        /// The program that wrote the entry.
        version: Version,
    },
    /// The entry before is not the start of a keeper.
    NotAtStart,
    /// A keeper started with another version than it last said, and did not say so.
    Missing {
        /// The version of its start.
        found: Version,
    },
    /// The entry and the start before it name two versions.
    OtherVersion {
        /// The version of the start.
        start: Version,
    },
    /// The program before is another than the keeper last said.
    OtherBefore,
    /// The program knows less than the log asks for.
    Older {
        /// What the log asks for.
        fold: u32,
    },
    /// The log would ask for more than a keeper of the vault knows, or for less than all of them do.
    OtherFold {
        /// What it asks for from here on.
        expected: u32,
    },
    /// Nothing changed.
    Unchanged,
    /// A keeper beside the one that writes the entry could not read it.
    NotForAll {
        /// That keeper's instance.
        keeper: [u8; 32],
        /// What its program knows, as it last said; 0 where it never said.
        fold: u32,
        /// What the entry needs.
        needed: u32,
    },
}

impl UpgradeError {
    /// Stable code.
    pub fn code(&self) -> &'static str {
        match self {
            Self::ProgramTooOld { .. } => "program-too-old",
            Self::NotAtStart => "upgrade-not-at-start",
            Self::Missing { .. } => "upgrade-missing",
            Self::OtherVersion { .. } => "upgrade-other-version",
            Self::OtherBefore => "upgrade-other-before",
            Self::Older { .. } => "upgrade-older",
            Self::OtherFold { .. } => "upgrade-other-fold",
            Self::Unchanged => "upgrade-unchanged",
            Self::NotForAll { .. } => "keeper-program-too-old",
        }
    }
}

impl fmt::Display for UpgradeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ProgramTooOld { fold, version } => write!(
                f,
                "from here on the log asks for fold {fold}, and this program ({}) knows {FOLD_NUMBER}: run version {version}, \
                 which wrote the entry, or a newer one. Where you know of no such version, the log is not your vault's",
                env!("CARGO_PKG_VERSION")
            ),
            Self::NotAtStart => f.write_str("only a keeper that has just started says what it runs"),
            Self::Missing { found } => {
                write!(f, "the keeper started with version {found}, and no upgrade entry says so")
            }
            Self::OtherVersion { start } => write!(f, "the start before it is of version {start}"),
            Self::OtherBefore => f.write_str("the keeper last said that it runs another program than the entry says"),
            Self::Older { fold } => write!(f, "the log asks for fold {fold}, which the program does not know"),
            Self::OtherFold { expected } => write!(f, "by what its keepers run, the log asks for fold {expected}"),
            Self::Unchanged => f.write_str("the keeper runs what it ran before, and the log asks for no more"),
            Self::NotForAll { keeper, fold, needed } => write!(
                f,
                "it has what fold {needed} knows, and the keeper {} last said that its program knows fold {fold}: upgrade that \
                 keeper first, or have it leave",
                hex::encode(keeper)
            ),
        }
    }
}

impl std::error::Error for UpgradeError {}
