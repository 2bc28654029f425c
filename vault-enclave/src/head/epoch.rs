//! The head, when another root takes the place of the one that it was sealed under.

use super::record::HeadRecord;
use super::{Anchor, AnchorError, FILE};
use crate::derive;
use crate::keeper_dir::KeeperDir;
use crate::record::{open_head, seal_head};
use crate::secret::{CounterAuth, HeadKey, Root};

/// The file of the same head under the root to come.
pub(crate) const EPOCH_FILE: &str = "head.epoch";

impl Anchor {
    /// Writes the head once more, sealed under the root that is about to take the place of this one. It counts no more and
    /// no less.
    ///
    /// # Errors
    /// [`AnchorError::Stopped`] after a commit that failed; the disk.
    pub(crate) fn write_for(&self, root: &Root) -> Result<(), AnchorError> {
        if self.stopped {
            return Err(AnchorError::Stopped);
        }
        let sealed = seal_head(&derive::head_key(root)?, &self.head.encode(), &ring::rand::SystemRandom::new())?;
        Ok(self.dir.replace(EPOCH_FILE, &sealed)?)
    }

    /// What authorises use of the counter.
    pub(crate) fn counter_auth(&self) -> &CounterAuth {
        &self.auth
    }
}

/// The head that opens under this key: the present one or, where a change of roots was cut short, the one that was written
/// for the new root, which then takes its place.
pub(super) fn read(dir: &KeeperDir, key: &HeadKey) -> Result<HeadRecord, AnchorError> {
    let opened = |sealed: Vec<u8>| open_head(key, &sealed).ok().and_then(|head| HeadRecord::parse(&head));
    let present = dir.read(FILE)?.ok_or(AnchorError::HeadMissing)?;
    if let Some(head) = opened(present) {
        return Ok(head);
    }
    let head = dir.read(EPOCH_FILE)?.and_then(opened).ok_or(AnchorError::HeadDamaged)?;
    dir.rename(EPOCH_FILE, FILE)?;
    Ok(head)
}
