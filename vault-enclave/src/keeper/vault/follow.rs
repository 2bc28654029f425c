//! What other keepers of the vault wrote: taken in before anything is decided.

use ledger::entry::Entry;
use ledger::release_log::{LogError, Newest};

use super::{Revoked, Vault, is_shared};
use crate::keeper::commit::{CommitError, Committer};
use crate::keeper::fold::FoldError;
use crate::keeper::link::StoreError;
use crate::keeper::newest::Turn;

/// Whether this keeper may decide now.
pub(super) enum Turned {
    /// No other keeper writes to the log.
    Alone,
    /// It may, until this is dropped, and has taken in what others wrote.
    Own(#[expect(dead_code, reason = "held, not read")] Turn),
    /// The host is away, or other keepers are at it for too long: what is asked meanwhile is refused.
    Not(StoreError),
}

impl Vault {
    /// Whether other keepers write to the log, or did.
    pub(super) fn is_shared(&self) -> bool {
        is_shared(&self.state)
    }

    /// Waits for this keeper's turn to write where others do too, and takes in what they wrote since.
    ///
    /// # Errors
    /// The vault must be opened anew.
    pub(super) fn take_turn(&mut self) -> Result<Turned, LogError<CommitError>> {
        if !self.is_shared() {
            return Ok(Turned::Alone);
        }
        let turn = match self.store.take_turn() {
            Ok(turn) => turn,
            Err(error) => return Ok(Turned::Not(error)),
        };
        let newest = turn.newest(self.log.verifier());
        if let Some(newest) = newest.map_err(|error| LogError::Append(CommitError::Newest(error)))? {
            self.follow(newest)?;
        }
        Ok(Turned::Own(turn))
    }

    fn follow(&mut self, newest: Newest) -> Result<(), LogError<CommitError>> {
        let (own, head) = (self.log.head(), newest.checkpoint());
        // A host that shows less than there was gets what it has from no quorum.
        if head.size < own.size || head == own {
            return Ok(());
        }
        let (mut entries, mut revoked) = (Vec::new(), Vec::new());
        let state = &mut self.state;
        let take = |bytes: Vec<u8>| {
            let index = state.size();
            state.apply(index, &bytes).map_err(|error| FoldError::Entry { index, error })?;
            if matches!(Entry::parse(&bytes), Ok(Entry::Revoke(_))) {
                revoked.push(index);
            }
            entries.push(bytes);
            Ok::<_, FoldError>(())
        };
        let read = self.store.read_log(own.size..head.size, take);
        read.map_err(|error| LogError::Append(CommitError::Fold(error)))?;
        let mut committer = Committer {
            store: &self.store,
            anchor: &mut self.anchor,
            keys: &self.keys,
            blobs: Vec::new(),
            shared: true,
        };
        self.log.follow(&entries, newest, &mut committer)?;
        tracing::debug!(entries = entries.len(), size = head.size, "took in what other keepers wrote");
        // This keeper's host may have watches that the other's has not.
        let revoked: Vec<Revoked> = revoked.into_iter().map(|index| self.revoked_by(index)).collect();
        self.announce(&revoked);
        Ok(())
    }

    fn revoked_by(&self, index: u64) -> Revoked {
        let time = self.state.time();
        let leases = self.state.vault().into_iter().flat_map(|vault| vault.leases(time));
        let leases = leases.filter(|(_, lease)| lease.revoked == Some(index)).map(|(id, _)| id).collect();
        Revoked { index, leases }
    }
}
