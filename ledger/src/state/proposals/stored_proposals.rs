//! Proposals in bytes.

use super::{PendingProposal, Proposals, Subject};
use crate::snapshot::SnapshotError;
use crate::state::stored::{Reader, Stored, Writer, stored};

stored!(PendingProposal { entry, object, subject, not_after, threshold, approvals, witnesses });

impl Stored for Proposals {
    fn store(&self, to: &mut Writer) {
        self.0.store(to);
    }

    fn restore(from: &mut Reader<'_>) -> Result<Self, SnapshotError> {
        Stored::restore(from).map(Self)
    }
}

impl Stored for Subject {
    fn store(&self, to: &mut Writer) {
        match self {
            Self::Policy { proposer, policy } => of(to, 0, proposer, policy),
            Self::Model(model) => {
                1u8.store(to);
                model.store(to);
            }
            Self::Platform { proposer, change } => of(to, 2, proposer, change),
            Self::Reseal { proposer, reseal } => of(to, 3, proposer, reseal),
            Self::Raise { proposer, raise } => of(to, 4, proposer, raise),
            Self::Revocation { proposer, act } => of(to, 5, proposer, act),
            Self::Leave { proposer, instance } => of(to, 9, proposer, instance),
            Self::Permit { proposer, permit } => of(to, 10, proposer, permit),
            Self::KeyEpoch { proposer, next } => of(to, 11, proposer, next),
            Self::Join(joiner) => {
                6u8.store(to);
                joiner.store(to);
            }
            Self::Escrow { proposer, plan } => of(to, 7, proposer, plan),
            Self::Recover(recovery) => {
                8u8.store(to);
                recovery.store(to);
            }
        }
    }

    fn restore(from: &mut Reader<'_>) -> Result<Self, SnapshotError> {
        Ok(match u8::restore(from)? {
            0 => Self::Policy { proposer: Stored::restore(from)?, policy: Stored::restore(from)? },
            1 => Self::Model(Stored::restore(from)?),
            2 => Self::Platform { proposer: Stored::restore(from)?, change: Stored::restore(from)? },
            3 => Self::Reseal { proposer: Stored::restore(from)?, reseal: Stored::restore(from)? },
            4 => Self::Raise { proposer: Stored::restore(from)?, raise: Stored::restore(from)? },
            5 => Self::Revocation { proposer: Stored::restore(from)?, act: Stored::restore(from)? },
            6 => Self::Join(Stored::restore(from)?),
            7 => Self::Escrow { proposer: Stored::restore(from)?, plan: Stored::restore(from)? },
            8 => Self::Recover(Stored::restore(from)?),
            9 => Self::Leave { proposer: Stored::restore(from)?, instance: Stored::restore(from)? },
            10 => Self::Permit { proposer: Stored::restore(from)?, permit: Stored::restore(from)? },
            11 => Self::KeyEpoch { proposer: Stored::restore(from)?, next: Stored::restore(from)? },
            _ => return Err(SnapshotError::Malformed { what: "proposal" }),
        })
    }
}

fn of(to: &mut Writer, kind: u8, proposer: &impl Stored, what: &impl Stored) {
    kind.store(to);
    proposer.store(to);
    what.store(to);
}
