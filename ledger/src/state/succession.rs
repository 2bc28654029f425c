//! How a policy came to be in force, and a keeper to have the vault: their proposals, approvals and effects alone, without
//! the rest of the log.

use std::sync::Arc;

use attestation::{Sha256Digest, UnixTime};

use super::error::FoldError;
use super::vault::Vault;
use crate::approvals::{ApprovalAction, ApprovalStatement};
use crate::entry::{Entry, EntryError, Proposal, Propose};
use crate::genesis::Genesis;
use crate::keepers::KeeperMachine;
use crate::key_epoch::EpochKeys;
use crate::policy::Policy;

/// An entry of the log and its index.
pub type IndexedEntry = (u64, Vec<u8>);

/// Keeps, of a log that is read, the entries that made its policies, its keepers and its keys.
#[derive(Debug, Clone, Default)]
pub struct Succession {
    /// Each with the object that it is about.
    waiting: Vec<(Sha256Digest, IndexedEntry)>,
    kept: Vec<IndexedEntry>,
    /// The keeper has retired: the next start is its successor's.
    retired: bool,
}

/// What such entries make of a genesis.
#[derive(Debug, Clone)]
pub(crate) struct Succeeded {
    pub(crate) policy: Arc<Policy>,
    pub(crate) keeper: KeeperMachine,
    pub(crate) keys: EpochKeys,
}

impl Succession {
    /// Looks at the next entry of a log. Whether it may stand there is for the fold to say.
    pub fn see(&mut self, index: u64, bytes: &[u8]) -> Result<(), EntryError> {
        let object = match Entry::parse(bytes)? {
            Entry::Propose(Propose { proposal: Proposal::Policy(proposed), .. }) => Some(proposed.object),
            Entry::Propose(Propose { proposal: Proposal::KeeperJoin(proposed), .. }) => Some(proposed.object),
            Entry::Propose(Propose { proposal: Proposal::KeyEpoch(proposed), .. }) => Some(proposed.object),
            Entry::Approve(approve) => {
                let statement = ApprovalStatement::parse(approve.statement.as_bytes());
                let about = |said: &ApprovalStatement| {
                    matches!(
                        said.action,
                        ApprovalAction::Policy | ApprovalAction::KeeperJoin | ApprovalAction::KeyEpoch
                    )
                };
                statement.ok().filter(about).map(|said| said.object)
            }
            Entry::Policy(effect) => {
                self.keep(effect.object, effect.proposal, (index, bytes.to_vec()));
                // It voids whatever else waits.
                self.waiting.clear();
                None
            }
            Entry::KeeperJoin(effect) => {
                self.keep(effect.object, effect.proposal, (index, bytes.to_vec()));
                None
            }
            Entry::KeyEpoch(effect) => {
                self.keep(effect.object, effect.proposal, (index, bytes.to_vec()));
                None
            }
            Entry::KeeperRetire(_) => {
                self.kept.push((index, bytes.to_vec()));
                self.retired = true;
                None
            }
            Entry::Start(_) if self.retired => {
                self.kept.push((index, bytes.to_vec()));
                self.retired = false;
                None
            }
            Entry::Genesis(_)
            | Entry::Start(_)
            | Entry::Propose(_)
            | Entry::Model(_)
            | Entry::Platform(_)
            | Entry::Reseal(_)
            | Entry::Resealed(_)
            | Entry::Budget(_)
            | Entry::Clock(_)
            | Entry::Alarm(_)
            | Entry::Revoke(_)
            | Entry::Extend(_)
            | Entry::Release(_)
            | Entry::Renew(_)
            | Entry::End(_)
            | Entry::Deny(_)
            | Entry::DenySummary(_) => None,
        };
        self.waiting.extend(object.map(|object| (object, (index, bytes.to_vec()))));
        Ok(())
    }

    /// Keeps an effect, with its proposal and the approvals of it.
    fn keep(&mut self, object: Sha256Digest, proposal: u64, effect: IndexedEntry) {
        let of_effect = |(other, (index, _)): &(Sha256Digest, IndexedEntry)| *other == object && *index >= proposal;
        let (kept, waiting): (Vec<_>, Vec<_>) = std::mem::take(&mut self.waiting).into_iter().partition(of_effect);
        self.kept.extend(kept.into_iter().map(|(_, entry)| entry));
        self.kept.push(effect);
        self.waiting = waiting;
    }

    /// What was kept, in the order of the log.
    pub fn into_entries(mut self) -> Vec<IndexedEntry> {
        self.kept.sort_by_key(|(index, _)| *index);
        self.kept
    }
}

/// The policy and the keeper that these entries make of the genesis: every change is approved by those who could, under the
/// policy before. Nothing but entries about policies and keepers is taken.
///
/// # Errors
/// What the fold says; [`FoldError::ActionMismatch`] for an entry about something else.
pub(crate) fn succeed(genesis: &Genesis, entries: &[IndexedEntry]) -> Result<Succeeded, FoldError> {
    let mut vault = Vault::open(Arc::new(genesis.clone()));
    let (mut last, mut time) = (0, UnixTime(0));
    for (index, bytes) in entries {
        if *index <= last {
            return Err(FoldError::IndexMismatch { expected: last, found: *index });
        }
        let entry = Entry::parse(bytes).map_err(FoldError::Entry)?;
        if entry.time() < time {
            return Err(FoldError::TimeWentBack { last: time, found: entry.time() });
        }
        (last, time) = (*index, entry.time());
        match &entry {
            Entry::Propose(Propose {
                proposal: Proposal::Policy(_) | Proposal::KeeperJoin(_) | Proposal::KeyEpoch(_),
                ..
            })
            | Entry::Approve(_)
            | Entry::Policy(_)
            | Entry::KeeperJoin(_)
            | Entry::KeeperRetire(_)
            | Entry::KeyEpoch(_) => vault.take(*index, entry)?,
            // Of a keeper that took over, the first one.
            Entry::Start(start) if vault.keepers().successor().is_some() => vault.keeper_started(start.keeper)?,
            Entry::Propose(Propose {
                proposal:
                    Proposal::Model(_)
                    | Proposal::Platform(_)
                    | Proposal::Reseal(_)
                    | Proposal::Budget(_)
                    | Proposal::Revocation(_),
                ..
            })
            | Entry::Genesis(_)
            | Entry::Start(_)
            | Entry::Model(_)
            | Entry::Platform(_)
            | Entry::Reseal(_)
            | Entry::Resealed(_)
            | Entry::Budget(_)
            | Entry::Clock(_)
            | Entry::Alarm(_)
            | Entry::Revoke(_)
            | Entry::Extend(_)
            | Entry::Release(_)
            | Entry::Renew(_)
            | Entry::End(_)
            | Entry::Deny(_)
            | Entry::DenySummary(_) => return Err(FoldError::ActionMismatch),
        }
    }
    let keys = vault.epochs().present().clone();
    Ok(Succeeded { policy: Arc::clone(vault.policy()), keeper: *vault.keepers().current(), keys })
}
