//! `vaultctl audit …`

mod export;
mod html;
mod measurements;
mod past_log;
mod read_ahead;
mod report;
mod tally;
mod verify;

use attestation::Sha256Digest;
use indicatif::{ProgressBar, ProgressStyle};
use ledger::entry::{Entry, Proposal, Propose};

pub(crate) use export::export;
pub(crate) use past_log::PastLog;
pub use report::Verdict;
pub(crate) use verify::verify;

/// What an entry names beside the log: evidence, and the preimages of bindings.
fn named_blobs(entry: &Entry) -> Vec<Sha256Digest> {
    match entry {
        Entry::Approve(approve) => approve.witness.iter().flat_map(|seen| [seen.evidence, seen.binding]).collect(),
        Entry::Release(release) => vec![release.evidence, release.binding],
        Entry::Renew(renew) => renew.renewals.iter().flat_map(|one| [one.evidence, one.binding]).collect(),
        Entry::Deny(deny) => vec![deny.evidence],
        Entry::Propose(Propose { proposal: Proposal::KeeperJoin(join), .. }) => vec![join.evidence, join.binding],
        Entry::KeeperRetire(retire) => vec![retire.evidence, retire.binding],
        Entry::Genesis(_)
        | Entry::Start(_)
        | Entry::Propose(_)
        | Entry::Policy(_)
        | Entry::Model(_)
        | Entry::Platform(_)
        | Entry::Reseal(_)
        | Entry::Resealed(_)
        | Entry::KeeperJoin(_)
        | Entry::Escrow(_)
        | Entry::Recover(_)
        | Entry::KeeperLeave(_)
        | Entry::KeyEpoch(_)
        | Entry::Budget(_)
        | Entry::Permit(_)
        | Entry::Clock(_)
        | Entry::Alarm(_)
        | Entry::End(_)
        | Entry::Revoke(_)
        | Entry::Extend(_)
        | Entry::DenySummary(_)
        | Entry::Upgrade(_) => Vec::new(),
    }
}

/// A bar on a terminal, one line elsewhere.
pub(crate) struct Progress {
    bar: ProgressBar,
    what: &'static str,
}

impl Progress {
    fn new(what: &'static str, total: u64) -> Self {
        let bar = ProgressBar::new(total);
        if let Ok(style) = ProgressStyle::with_template("{msg} {wide_bar} {pos}/{len} {eta}") {
            bar.set_style(style);
        }
        bar.set_message(what);
        Self { bar, what }
    }

    fn add(&self, count: u64) {
        self.bar.inc(count);
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        let (hidden, done) = (self.bar.is_hidden(), self.bar.position());
        self.bar.finish_and_clear();
        if hidden {
            eprintln!("{} {done}", self.what);
        }
    }
}
