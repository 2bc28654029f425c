//! The vault of a keeper that is lost: what the one in its place begins with, and how a lost one that comes back finds out.

mod recovering;

use attestation::lv;
use ledger::entry::{Entry, Proposal, Propose};
use ledger::state::State;

pub(super) use recovering::{After, Recovering};

use super::link::{Store, StoreError};
use super::vault::OpenError;
use crate::keeper_dir::{KeeperDir, KeeperDirError};

/// File of the entries that a keeper in the place of a lost one begins with. Not secret: they are worth their signatures.
pub(super) const FILE: &str = "recovery";
/// Proposal, at most 256 approvals with their evidence, effect.
const FILE_BYTES_MAX: u64 = 128 << 20;
/// Entries of a recovery at most: proposal, approvals, effect.
const ENTRIES_MAX: u64 = 258;

/// The entries by which a vault goes on with another keeper, and the blobs that they name.
pub(crate) struct RecoveryAct {
    size: u64,
    entries: Vec<Vec<u8>>,
    blobs: Vec<Vec<u8>>,
}

impl RecoveryAct {
    /// Entries of the log that they follow.
    pub(crate) const fn size(&self) -> u64 {
        self.size
    }

    /// Entries and blobs.
    pub(crate) fn into_parts(self) -> (Vec<Vec<u8>>, Vec<Vec<u8>>) {
        (self.entries, self.blobs)
    }

    fn encode(&self) -> Vec<u8> {
        let joined = |all: &[Vec<u8>]| lv(&all.iter().map(Vec::as_slice).collect::<Vec<_>>());
        lv(&[&self.size.to_be_bytes(), &joined(&self.entries), &joined(&self.blobs)])
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let fields = fields(bytes)?;
        let [size, entries, blobs] = fields.as_slice() else { return None };
        let size = u64::from_be_bytes(size.as_slice().try_into().ok()?);
        Some(Self { size, entries: self::fields(entries)?, blobs: self::fields(blobs)? })
    }
}

/// What a keeper has yet to begin with. Damaged, it counts as missing: without it the log names another keeper.
pub(super) fn read(dir: &KeeperDir) -> Result<Option<RecoveryAct>, KeeperDirError> {
    let bytes = dir.read_up_to(FILE, FILE_BYTES_MAX)?;
    Ok(bytes.and_then(|bytes| RecoveryAct::decode(&bytes)))
}

/// Splits what `lv` joined.
pub(super) fn fields(mut bytes: &[u8]) -> Option<Vec<Vec<u8>>> {
    let mut fields = Vec::new();
    while let Some((length, rest)) = bytes.split_first_chunk::<4>() {
        let (field, rest) = rest.split_at_checked(usize::try_from(u32::from_be_bytes(*length)).ok()?)?;
        fields.push(field.to_vec());
        bytes = rest;
    }
    bytes.is_empty().then_some(fields)
}

/// Refuses to go on where the host's log goes on without this keeper: as approvers say there, it is lost. Entries behind the
/// head that are anything else were not committed, and count for nothing.
///
/// # Errors
/// [`OpenError::DeclaredLost`].
pub(super) fn check_not_lost(store: &Store, state: &State, own: [u8; 32]) -> Result<(), OpenError> {
    let mut beyond = None;
    for _ in 0..ENTRIES_MAX {
        let next = beyond.as_ref().unwrap_or(state).size();
        let Some(entry) = entry_at(store, next) else { return Ok(()) };
        let begins = matches!(Entry::parse(&entry), Ok(Entry::Propose(Propose { proposal: Proposal::Recover(_), .. })));
        if beyond.is_none() && !begins {
            return Ok(());
        }
        let after: &mut State = beyond.get_or_insert_with(|| state.clone());
        if after.apply(next, &entry).is_err() {
            return Ok(());
        }
        match after.vault().and_then(|vault| vault.keepers().successor()) {
            // What it wrote itself, in the place of a lost one, and did not come to commit.
            Some(successor) if successor.machine.instance == own => return Ok(()),
            Some(_) => return Err(OpenError::DeclaredLost),
            None => {}
        }
    }
    Ok(())
}

/// The host's entry of this index, if it has one.
fn entry_at(store: &Store, index: u64) -> Option<Vec<u8>> {
    let mut found = None;
    let read = store.read_log(index..index + 1, |entry| {
        found = Some(entry);
        Ok::<_, StoreError>(())
    });
    read.ok().and(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_keeper_begins_with_comes_back_as_it_was_written() {
        let act = RecoveryAct { size: 7, entries: vec![b"one".to_vec(), b"two".to_vec()], blobs: vec![Vec::new()] };
        let bytes = act.encode();
        let read = RecoveryAct::decode(&bytes).unwrap();
        assert_eq!((read.size(), read.into_parts()), (7, (act.entries, act.blobs)));
        for length in 0..bytes.len() {
            assert!(RecoveryAct::decode(&bytes[..length]).is_none(), "{length}");
        }
        assert!(RecoveryAct::decode(&[bytes.as_slice(), &[0; 4]].concat()).is_none());
    }
}
