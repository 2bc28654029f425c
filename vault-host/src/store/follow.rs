//! What the store does about the entries that a checkpoint publishes.

use attestation::Sha256Digest;
use ledger::entry::{Entry, Proposal, Propose};
use vault_proto::limits::READ_LOG_MAX;

use super::StoreError;

/// How the entries begin that the store follows (FORMAT.md §8: version and type come first).
const FOLLOWED: [&[u8]; 3] =
    [br#"{"v":1,"type":"genesis","#, br#"{"v":1,"type":"policy","#, br#"{"v":1,"type":"model","#];

/// What follows from entries.
pub(super) trait Follower {
    /// Releases the proposal that a `model` entry names; true if it was waiting here.
    fn release(&self, object: &Sha256Digest) -> Result<bool, StoreError>;
    /// A policy came into force; `genesis` is the digest of entry 0.
    fn policy(&self, text: &str, genesis: Sha256Digest) -> Result<(), StoreError>;
}

/// Follows the entries from `from` to `to`. `read` gives entries from an index on, at most so many.
pub(super) fn follow(
    from: u64,
    to: u64,
    read: impl Fn(u64, u32) -> Result<Vec<Vec<u8>>, StoreError>,
    follower: &impl Follower,
) -> Result<(), StoreError> {
    let mut next = from;
    while next < to {
        let entries = read(next, u32::try_from(to - next).unwrap_or(u32::MAX).min(READ_LOG_MAX))?;
        if entries.is_empty() {
            return Err(StoreError::Damaged { path: "log".into(), what: "entries that were stored are missing" });
        }
        next += entries.len() as u64;
        for entry in entries.iter().filter(|entry| FOLLOWED.iter().any(|start| entry.starts_with(start))) {
            match Entry::parse(entry) {
                Ok(Entry::Model(model)) => {
                    if follower.release(&model.object)? {
                        tracing::info!(model = %model.model, version = %model.version, "released a model");
                    }
                }
                Ok(Entry::Genesis(genesis)) => follower.policy(&genesis.policy, Sha256Digest::of(entry))?,
                Ok(Entry::Policy(policy)) => {
                    // A log that has entries has a first one.
                    let Some(genesis) = read(0, 1)?.first().map(|genesis| Sha256Digest::of(genesis)) else { continue };
                    follower.policy(&policy_text(read(policy.proposal, 1)?.pop().unwrap_or_default()), genesis)?;
                }
                Ok(_) | Err(_) => {}
            }
        }
    }
    Ok(())
}

/// The text of a proposed policy; nothing, which lets nobody read, where the entry is none.
fn policy_text(entry: Vec<u8>) -> String {
    match Entry::parse(&entry) {
        Ok(Entry::Propose(Propose { proposal: Proposal::Policy(policy), .. })) => policy.policy,
        Ok(Entry::Genesis(genesis)) => genesis.policy,
        Ok(_) | Err(_) => String::new(),
    }
}
