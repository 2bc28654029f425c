use std::fmt;

use attestation::UnixTime;

use super::LINKS_MAX;
use crate::proof::ProofError;

/// Why an epoch does not begin, an entry about it may not stand where it stands, or a key is no successor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EpochError {
    /// The keys were made by another keeper than the one that the vault has.
    OtherKeeper {
        /// What differs first.
        field: &'static str,
    },
    /// It is not the epoch after the present one.
    NotNext {
        /// The present one.
        present: u32,
        /// The one that is named.
        found: u32,
    },
    /// An epoch of this vault had this key before.
    KeyReused {
        /// Which of its keys.
        key: &'static str,
    },
    /// Another proposal waits, whose end is not earlier.
    Waits {
        /// Until when it counts.
        not_after: UnixTime,
    },
    /// The root is sealed to two boot states: whoever boots the old one could still have the new keys.
    ResealWaits,
    /// Other keepers decide beside this one, and would have no keys.
    OtherKeepers,
    /// The effect names other keys than its proposal.
    OtherKeys,
    /// The identity key of the epoch before did not sign.
    Signature,
    /// What should lead from one key to the next is no `key-epoch` entry.
    NotALink,
    /// More links than are followed at once.
    TooManyLinks {
        /// How many.
        count: usize,
    },
    /// The entry is not shown to be in the log.
    Proof(ProofError),
}

impl EpochError {
    /// Stable code.
    pub fn code(&self) -> &'static str {
        match self {
            Self::OtherKeeper { .. } => "epoch-other-keeper",
            Self::NotNext { .. } => "epoch-not-next",
            Self::KeyReused { .. } => "epoch-key-reused",
            Self::Waits { .. } => "epoch-waits",
            Self::ResealWaits => "epoch-reseal-waits",
            Self::OtherKeepers => "epoch-other-keepers",
            Self::OtherKeys => "epoch-other-keys",
            Self::Signature => "epoch-signature",
            Self::NotALink => "epoch-not-a-link",
            Self::TooManyLinks { .. } => "epoch-links",
            Self::Proof(error) => error.code(),
        }
    }
}

impl fmt::Display for EpochError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::OtherKeeper { field } => {
                write!(f, "it is about another keeper: {field} is not that of the vault's keeper")
            }
            Self::NotNext { present, found } => {
                write!(f, "epoch {found} does not follow: the vault is in epoch {present}")
            }
            Self::KeyReused { key } => write!(f, "{key} was one of this vault before: an epoch has keys of its own"),
            Self::Waits { not_after } => write!(
                f,
                "another key epoch waits for approvals until {not_after}: approve it, or sign a proposal that counts longer"
            ),
            Self::ResealWaits => f.write_str(
                "the root is sealed to two boot states: start the keeper on the approved one first, or take the reseal back",
            ),
            Self::OtherKeepers => f.write_str(
                "other keepers decide beside this one, and would not have its new keys: have them leave first, and let them in \
                 again afterwards",
            ),
            Self::OtherKeys => f.write_str("it names other keys than were proposed"),
            Self::Signature => f.write_str("the identity key of the epoch before did not sign the keys of this one"),
            Self::NotALink => f.write_str("not a `key-epoch` entry"),
            Self::TooManyLinks { count } => {
                write!(f, "{count} key epochs at once, more than {LINKS_MAX}: get a newer vault file")
            }
            Self::Proof(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for EpochError {}
