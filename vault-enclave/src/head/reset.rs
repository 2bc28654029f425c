//! The way back from a ceremony that came to nothing.

use std::sync::Arc;

use super::record::HeadRecord;
use super::{Anchor, AnchorError, FILE};
use crate::derive;
use crate::keeper_dir::KeeperDir;
use crate::record::open_head;
use crate::secret::Root;
use crate::tpm::{Tpm, TpmError};

impl Anchor {
    /// Gives back what [`Anchor::create`] took of the TPM, while nothing is committed: two of the few NV indices that there
    /// are for counters. The head stays, for whoever removes the rest.
    ///
    /// # Errors
    /// [`AnchorError::NotEmpty`] once a genesis was committed: that is a vault, and this would be its end. An older head
    /// does not help, since the counter tells: [`AnchorError::OlderState`].
    pub fn reset(dir: &KeeperDir, tpm: &Tpm, root: &Root) -> Result<(), AnchorError> {
        let sealed = dir.read(FILE)?.ok_or(AnchorError::HeadMissing)?;
        let head = open_head(&derive::head_key(root)?, &sealed).map_err(|_| AnchorError::HeadDamaged)?;
        let head = HeadRecord::parse(&head).ok_or(AnchorError::HeadDamaged)?;
        if head.size != 0 {
            return Err(AnchorError::NotEmpty);
        }
        let Some(counter) = head.counter else { return Ok(()) };
        let auth = Arc::new(derive::counter_auth(root)?);
        match tpm.read_counter(&counter, Arc::clone(&auth)).wait() {
            Ok(found) if found > head.count => {
                return Err(AnchorError::OlderState { head: head.count, counter: found });
            }
            // One of the two may be gone: a reset was cut short.
            Ok(_) | Err(TpmError::CounterMissing) => {}
            Err(error) => return Err(error.into()),
        }
        Ok(tpm.undefine_counter(counter, auth).wait()?)
    }
}
