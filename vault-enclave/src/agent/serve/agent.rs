//! What all parts of a running agent share.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use vault_proto::convert::LoadOrder;

use super::access::{AllowList, Controller};
use super::error::ServeError;
use super::holding::Holding;
use super::models::Models;
use crate::agent::attester::AgentIdentity;
use crate::agent::machine::MachineArgs;
use crate::agent::part::Part;

/// How the directory of a model's memory begins; that of its view begins otherwise, and is not to be written to.
pub(super) const MEMORY: &str = "memory-";
const VIEW: &str = "view-";

/// A running agent.
pub(super) struct Agent {
    pub(super) machine: MachineArgs,
    pub(super) identity: AgentIdentity,
    pub(super) models: Arc<Models>,
    root: PathBuf,
    /// Whether anybody else reaches the sockets.
    others: bool,
    loads: AtomicU64,
}

impl Agent {
    /// With memory to be mounted below `root`. `others` says whether anybody but its own user reaches its sockets.
    pub(super) fn new(machine: MachineArgs, identity: AgentIdentity, root: &Path, others: bool) -> Self {
        let (models, root, loads) = (Arc::new(Models::new()), root.to_owned(), AtomicU64::new(0));
        Self { machine, identity, models, root, others, loads }
    }

    /// Begins to load a model.
    ///
    /// # Errors
    /// [`ServeError::ModelThere`], [`ServeError::TooManyModels`], [`ServeError::ReadersUnreachable`].
    pub(super) fn load(self: &Arc<Self>, _: &Controller, order: LoadOrder) -> Result<(), ServeError> {
        let readers = order.readers.clone().map(AllowList::from);
        if readers.is_some() && !self.others {
            return Err(ServeError::ReadersUnreachable);
        }
        // What is no part is said by the load.
        let part = Part::try_from(&order.part).map(|part| part.to_string()).unwrap_or_default();
        let entry = self.models.add(order.model.clone(), part, readers)?;
        tokio::spawn(Holding { agent: Arc::clone(self), order, entry }.run());
        Ok(())
    }

    /// Directories for the mounts of the next load: each has its own, since those of another may still be mounted.
    pub(super) fn places(&self) -> Places {
        let number = self.loads.fetch_add(1, Ordering::Relaxed);
        Places { memory: self.root.join(format!("{MEMORY}{number}")), view: self.root.join(format!("{VIEW}{number}")) }
    }
}

/// Where a load puts its memory, and where that is read. The directories go with it, so that tries that fail leave none.
pub(super) struct Places {
    pub(super) memory: PathBuf,
    pub(super) view: PathBuf,
}

impl Drop for Places {
    fn drop(&mut self) {
        // One that was not made, or is still mounted, is in nobody's way.
        let _ = std::fs::remove_dir(&self.view);
        let _ = std::fs::remove_dir(&self.memory);
    }
}
