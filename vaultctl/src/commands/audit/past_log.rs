//! A log in a folder, for commands that look back.

use std::path::Path;

use ledger::checkpoint::Checkpoint;
use ledger::entry::Entry;
use ledger::state::State;
use ledger::tiles::TILE_WIDTH;
use ledger::vault_file::VaultFile;

use super::Progress;
use super::read_ahead::read_ahead;
use super::verify::{check_size, consistent, open};
use crate::audit::{self, LogReader, VerifiedLog};
use crate::bundle::Bundle;
use crate::failure::{Failure, Kind};

/// A bundle whose entries are those of a checkpoint that the vault's log key signed. Nothing asks a host.
pub(crate) struct PastLog {
    vault: VaultFile,
    bundle: Bundle,
    checkpoint: Checkpoint,
}

impl PastLog {
    /// Verifies checkpoint, entries and tiles.
    pub(crate) fn open(vault: VaultFile, dir: &Path) -> Result<Self, Failure> {
        let bundle = open(&vault, dir)?;
        let checkpoint = audit::verify_checkpoint(&vault, &bundle.checkpoint()?)?;
        check_size(&bundle, checkpoint)?;
        consistent(&bundle, checkpoint, None)?.map_err(super::report::Fault::into_failure)?;
        Ok(Self { vault, bundle, checkpoint })
    }

    pub(crate) fn bundle(&self) -> &Bundle {
        &self.bundle
    }

    /// Folds every entry. `seen` is shown each, and the state before it.
    pub(crate) fn fold(
        &self,
        mut seen: impl FnMut(&State, &Entry) -> Result<(), Failure>,
    ) -> Result<VerifiedLog, Failure> {
        let progress = Progress::new("entries", self.checkpoint.size);
        let mut reader = LogReader::new(self.vault.id());
        read_ahead(&self.bundle, self.checkpoint.size, |files| {
            for file in files {
                let entries = file?;
                let width = entries.len() as u64;
                for entry in entries {
                    let entry = entry?;
                    seen(reader.state(), entry.entry())?;
                    reader.push_exact(entry)?;
                }
                progress.add(width);
            }
            Ok(reader.finish(self.checkpoint)?)
        })
    }

    /// One entry again.
    pub(crate) fn entry(&self, index: u64) -> Result<Entry, Failure> {
        let (tile, place) = (index / u64::from(TILE_WIDTH), index % u64::from(TILE_WIDTH));
        let tile = Bundle::entry_tiles(self.checkpoint.size).find(|found| found.index() == tile);
        let entries = tile.map(|tile| self.bundle.entries(tile)).transpose()?.unwrap_or_default();
        let bytes = usize::try_from(place).ok().and_then(|place| entries.get(place)).ok_or_else(|| {
            Failure::new(Kind::Usage, "entry-unknown", format!("there is no entry {index}"))
                .why(format!("the log has {} entries", self.checkpoint.size))
        })?;
        Ok(audit::entry(index, bytes)?.entry().clone())
    }
}
