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
    /// Those about custodians: without a lost keeper nobody has to know of them.
    escrows: Vec<IndexedEntry>,
    /// The keeper has retired: the next start is its successor's.
    retired: bool,
    /// Instances of those that are proposed, with the object that they are.
    proposed: Vec<(Sha256Digest, [u8; 32])>,
    /// Of those that were let in, and of which no start was seen yet.
    let_in: Vec<[u8; 32]>,
}

/// What such entries make of a genesis.
#[derive(Debug, Clone)]
pub(crate) struct Succeeded {
    pub(crate) policy: Arc<Policy>,
    /// Those that may decide, the one that was there first at the front.
    pub(crate) keepers: Vec<KeeperMachine>,
    /// Of the last epoch.
    pub(crate) keys: EpochKeys,
}

impl Succession {
    /// Looks at the next entry of a log. Whether it may stand there is for the fold to say.
    pub fn see(&mut self, index: u64, bytes: &[u8]) -> Result<(), EntryError> {
        let object = match Entry::parse(bytes)? {
            Entry::Propose(Propose { proposal: Proposal::Policy(proposed), .. }) => Some(proposed.object),
            Entry::Propose(Propose { proposal: Proposal::KeeperJoin(proposed), .. }) => {
                self.proposed.push((proposed.object, proposed.instance));
                Some(proposed.object)
            }
            Entry::Propose(Propose { proposal: Proposal::KeeperLeave(proposed), .. }) => Some(proposed.object),
            Entry::Propose(Propose { proposal: Proposal::Escrow(proposed), .. }) => Some(proposed.object),
            Entry::Propose(Propose { proposal: Proposal::Recover(proposed), .. }) => Some(proposed.object),
            Entry::Propose(Propose { proposal: Proposal::KeyEpoch(proposed), .. }) => Some(proposed.object),
            Entry::Approve(approve) => {
                let statement = ApprovalStatement::parse(approve.statement.as_bytes());
                let about = |said: &ApprovalStatement| {
                    use ApprovalAction::{Escrow, KeeperJoin, KeeperLeave, KeyEpoch, Policy, Recover};
                    matches!(said.action, Policy | KeeperJoin | KeeperLeave | Escrow | Recover | KeyEpoch)
                };
                statement.ok().filter(about).map(|said| said.object)
            }
            Entry::Policy(effect) => {
                let kept = self.taken(effect.object, effect.proposal, (index, bytes.to_vec()));
                self.kept.extend(kept);
                // It voids whatever else waits.
                self.waiting.clear();
                None
            }
            Entry::KeeperJoin(effect) => {
                let instances = self.proposed.iter().filter(|(object, _)| *object == effect.object);
                self.let_in.extend(instances.map(|(_, instance)| *instance).take(1));
                let kept = self.taken(effect.object, effect.proposal, (index, bytes.to_vec()));
                self.kept.extend(kept);
                None
            }
            Entry::Escrow(effect) => {
                let kept = self.taken(effect.object, effect.proposal, (index, bytes.to_vec()));
                self.escrows.extend(kept);
                None
            }
            Entry::Recover(effect) => {
                let kept = self.taken(effect.object, effect.proposal, (index, bytes.to_vec()));
                self.kept.extend(kept);
                self.kept.append(&mut self.escrows);
                self.retired = true;
                None
            }
            Entry::KeeperLeave(effect) => {
                let kept = self.taken(effect.object, effect.proposal, (index, bytes.to_vec()));
                self.kept.extend(kept);
                None
            }
            Entry::KeyEpoch(effect) => {
                let kept = self.taken(effect.object, effect.proposal, (index, bytes.to_vec()));
                self.kept.extend(kept);
                None
            }
            Entry::KeeperRetire(_) => {
                self.kept.push((index, bytes.to_vec()));
                self.retired = true;
                None
            }
            // Which keepers have the keys, those that follow them need to know.
            Entry::Start(start) if start.keeper.is_some_and(|keeper| self.is_first(keeper)) || self.retired => {
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
            | Entry::Permit(_)
            | Entry::Clock(_)
            | Entry::Alarm(_)
            | Entry::Revoke(_)
            | Entry::Extend(_)
            | Entry::Release(_)
            | Entry::Renew(_)
            | Entry::End(_)
            | Entry::Deny(_)
            | Entry::DenySummary(_)
            | Entry::Upgrade(_) => None,
        };
        self.waiting.extend(object.map(|object| (object, (index, bytes.to_vec()))));
        Ok(())
    }

    /// Whether this is the first run of one that was let in.
    fn is_first(&mut self, keeper: [u8; 32]) -> bool {
        let waiting = self.let_in.iter().position(|instance| *instance == keeper);
        waiting.map(|index| self.let_in.remove(index)).is_some()
    }

    /// An effect, with its proposal and the approvals of it.
    fn taken(&mut self, object: Sha256Digest, proposal: u64, effect: IndexedEntry) -> Vec<IndexedEntry> {
        let of_effect = |(other, (index, _)): &(Sha256Digest, IndexedEntry)| *other == object && *index >= proposal;
        let (kept, waiting): (Vec<_>, Vec<_>) = std::mem::take(&mut self.waiting).into_iter().partition(of_effect);
        self.waiting = waiting;
        kept.into_iter().map(|(_, entry)| entry).chain([effect]).collect()
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
                proposal:
                    Proposal::Policy(_)
                    | Proposal::KeeperJoin(_)
                    | Proposal::KeeperLeave(_)
                    | Proposal::KeyEpoch(_)
                    | Proposal::Escrow(_)
                    | Proposal::Recover(_),
                ..
            })
            | Entry::Approve(_)
            | Entry::Policy(_)
            | Entry::KeeperJoin(_)
            | Entry::Escrow(_)
            | Entry::Recover(_)
            | Entry::KeyEpoch(_)
            | Entry::KeeperLeave(_)
            | Entry::KeeperRetire(_) => vault.take(*index, entry)?,
            // Of a keeper that took over or was let in, the first one.
            Entry::Start(start) if vault.keepers().successor().is_some() || vault.keepers().is_shared() => {
                vault.keeper_started(start.keeper)?
            }
            Entry::Propose(Propose {
                proposal:
                    Proposal::Model(_)
                    | Proposal::Platform(_)
                    | Proposal::Reseal(_)
                    | Proposal::Budget(_)
                    | Proposal::Revocation(_)
                    | Proposal::Permit(_),
                ..
            })
            | Entry::Genesis(_)
            | Entry::Start(_)
            | Entry::Model(_)
            | Entry::Platform(_)
            | Entry::Reseal(_)
            | Entry::Resealed(_)
            | Entry::Budget(_)
            | Entry::Permit(_)
            | Entry::Clock(_)
            | Entry::Alarm(_)
            | Entry::Revoke(_)
            | Entry::Extend(_)
            | Entry::Release(_)
            | Entry::Renew(_)
            | Entry::End(_)
            | Entry::Deny(_)
            | Entry::DenySummary(_)
            | Entry::Upgrade(_) => return Err(FoldError::ActionMismatch),
        }
    }
    let keys = vault.epochs().present().clone();
    Ok(Succeeded { policy: Arc::clone(vault.policy()), keepers: vault.keepers().all().copied().collect(), keys })
}
