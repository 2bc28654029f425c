//! How far others say that a log is to which several keepers write.

use crate::checkpoint::{Checkpoint, CheckpointError, CountedCheckpoint, LogVerifier};

/// The newest checkpoint of a log that its key has signed, as far as it was shown. [`Log::follow`](super::Log::follow) takes
/// its entries.
#[derive(Debug)]
pub struct Newest(pub(super) Shown);

#[derive(Debug)]
pub(super) enum Shown {
    /// It counts.
    Published(CountedCheckpoint, Checkpoint),
    /// A keeper decided it and did not bring it to its end: no quorum is known to have cosigned it, and a witness may have.
    Proposed(Checkpoint),
}

impl Newest {
    /// Its size and root.
    pub fn checkpoint(&self) -> Checkpoint {
        match &self.0 {
            Shown::Published(_, checkpoint) | Shown::Proposed(checkpoint) => *checkpoint,
        }
    }
}

impl LogVerifier {
    /// The newer one of a published checkpoint, which must have every signature that the log needs, and of a proposed one,
    /// which must have that of the log key. An empty text is none.
    ///
    /// # Errors
    /// [`CheckpointError`] where one of them is not signed so: whoever shows it does not tell the truth about anything.
    pub fn newest(&self, published: &str, proposed: &str) -> Result<Option<Newest>, CheckpointError> {
        let shown = |note: &'_ str| !note.is_empty();
        let published = match shown(published) {
            true => {
                let counted = self.counted(published)?;
                let checkpoint = counted.checkpoint();
                Some((counted, checkpoint))
            }
            false => None,
        };
        let proposed = if shown(proposed) { Some(self.verify_signed(proposed)?) } else { None };
        Ok(match (published, proposed) {
            (Some((_, checkpoint)), Some(proposed)) if proposed.size > checkpoint.size => {
                Some(Newest(Shown::Proposed(proposed)))
            }
            (Some((counted, checkpoint)), _) => Some(Newest(Shown::Published(counted, checkpoint))),
            (None, Some(proposed)) => Some(Newest(Shown::Proposed(proposed))),
            (None, None) => None,
        })
    }
}
