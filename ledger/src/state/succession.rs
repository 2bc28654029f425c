//! How a policy came to be in force: its proposals, approvals and effects alone, without the rest of the log.

use std::sync::Arc;

use attestation::{Sha256Digest, UnixTime};

use super::error::FoldError;
use super::vault::Vault;
use crate::approvals::{ApprovalAction, ApprovalStatement};
use crate::entry::{Entry, EntryError, Proposal, Propose};
use crate::genesis::Genesis;
use crate::policy::Policy;

/// An entry of the log and its index.
pub type IndexedEntry = (u64, Vec<u8>);

/// Keeps, of a log that is read, the entries that made its policies.
#[derive(Debug, Clone, Default)]
pub struct Succession {
    /// Each with the object that it is about.
    waiting: Vec<(Sha256Digest, IndexedEntry)>,
    kept: Vec<IndexedEntry>,
}

impl Succession {
    /// Looks at the next entry of a log. Whether it may stand there is for the fold to say.
    pub fn see(&mut self, index: u64, bytes: &[u8]) -> Result<(), EntryError> {
        let object = match Entry::parse(bytes)? {
            Entry::Propose(Propose { proposal: Proposal::Policy(proposed), .. }) => Some(proposed.object),
            Entry::Approve(approve) => {
                let statement = ApprovalStatement::parse(approve.statement.as_bytes());
                statement.ok().filter(|said| said.action == ApprovalAction::Policy).map(|said| said.object)
            }
            Entry::Policy(effect) => {
                let of_effect = |(object, (index, _)): &(Sha256Digest, IndexedEntry)| {
                    *object == effect.object && *index >= effect.proposal
                };
                let waiting = std::mem::take(&mut self.waiting);
                self.kept.extend(waiting.into_iter().filter(of_effect).map(|(_, entry)| entry));
                self.kept.push((index, bytes.to_vec()));
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

    /// What was kept.
    pub fn into_entries(self) -> Vec<IndexedEntry> {
        self.kept
    }
}

/// The policy that these entries make of the genesis: every change is approved by those who could, under the policy before.
/// Nothing but entries about policies is taken.
///
/// # Errors
/// What the fold says; [`FoldError::ActionMismatch`] for an entry about something else.
pub(crate) fn succeed(genesis: &Genesis, entries: &[IndexedEntry]) -> Result<Arc<Policy>, FoldError> {
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
            Entry::Propose(Propose { proposal: Proposal::Policy(_), .. }) | Entry::Approve(_) | Entry::Policy(_) => {
                vault.take(*index, entry)?;
            }
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
    Ok(Arc::clone(vault.policy()))
}
