//! The entries of a folder, read and parsed by a thread of its own while others are folded.

use std::sync::mpsc::sync_channel;

use ledger::entry::ExactEntry;

use crate::audit::{self, LogFault};
use crate::bundle::Bundle;
use crate::failure::Failure;

/// Files that wait to be folded: what is kept in memory, at most 4 MiB of bytes each.
const FILES_WAITING: usize = 4;

/// The entries of one file, each parsed or refused: what comes before a refusal has its own faults.
pub(super) type File = Vec<Result<ExactEntry<Vec<u8>>, LogFault>>;

/// Gives `work` the files of a log of `size` entries, in order. It may stop early.
pub(super) fn read_ahead<T>(
    bundle: &Bundle,
    size: u64,
    work: impl FnOnce(&mut dyn Iterator<Item = Result<File, Failure>>) -> T,
) -> T {
    std::thread::scope(|scope| {
        let (sender, receiver) = sync_channel(FILES_WAITING);
        scope.spawn(move || {
            for tile in Bundle::entry_tiles(size) {
                let entries = bundle.entries(tile).map(|entries| {
                    let parse = |(index, bytes)| audit::entry(index, bytes);
                    (tile.start()..).zip(entries).map(parse).collect()
                });
                // Where nobody takes any more, nobody needs the rest.
                if sender.send(entries).is_err() {
                    return;
                }
            }
        });
        // Dropped before the thread is waited for, whatever becomes of the work.
        let mut files = receiver.into_iter();
        let done = work(&mut files);
        drop(files);
        done
    })
}
