//! What all parts of a running agent share.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use vault_proto::convert::LoadOrder;

use super::access::{AllowList, Controller};
use super::error::ServeError;
use super::holding::Holding;
use super::models::Models;
use crate::agent::attester::AgentIdentity;
use crate::agent::machine::MachineArgs;
use crate::agent::mount::{MountPoint, PrivateMount};
use crate::agent::part::Part;
use crate::failure::Failure;
use crate::user_namespace::Unknown;

/// How the directory of a model's memory begins; that of its view begins otherwise, and is not to be written to.
pub(super) const MEMORY: &str = "memory-";
const VIEW: &str = "view-";

/// A running agent.
pub(super) struct Agent {
    pub(super) machine: MachineArgs,
    pub(super) identity: AgentIdentity,
    pub(super) models: Arc<Models>,
    root: PrivateMount,
    /// Whether anybody else reaches the sockets.
    others: bool,
    unknown: Option<Unknown>,
    loads: AtomicU64,
}

impl Agent {
    /// With memory to be mounted below `root`. `others` says whether anybody but its own user reaches its sockets, `unknown` as
    /// whom the kernel shows whoever this user namespace does not know.
    pub(super) fn new(
        machine: MachineArgs,
        identity: AgentIdentity,
        root: PrivateMount,
        others: bool,
        unknown: Option<Unknown>,
    ) -> Self {
        let models = Arc::new(Models::new());
        Self { machine, identity, models, root, others, unknown, loads: AtomicU64::new(0) }
    }

    /// Begins to load a model.
    ///
    /// # Errors
    /// [`ServeError::ModelThere`], [`ServeError::TooManyModels`], [`ServeError::ReadersUnreachable`], [`ServeError::AllowUnknown`].
    pub(super) fn load(self: &Arc<Self>, _: &Controller, order: LoadOrder) -> Result<(), ServeError> {
        let readers = order.readers.clone().map(|readers| AllowList::from(readers).known(self.unknown)).transpose()?;
        if readers.is_some() && !self.others {
            return Err(ServeError::ReadersUnreachable);
        }
        // What is no part is said by the load.
        let part = Part::try_from(&order.part).map(|part| part.to_string()).unwrap_or_default();
        let entry = self.models.add(order.model.clone(), part, readers)?;
        tokio::spawn(Holding { agent: Arc::clone(self), order, entry }.run());
        Ok(())
    }

    /// For the memory of the next load, and for the view of it: each has its own, since those of another may still be mounted.
    ///
    /// # Errors
    /// `io`.
    pub(super) fn points(&self) -> Result<(MountPoint, MountPoint), Failure> {
        let number = self.loads.fetch_add(1, Ordering::Relaxed);
        let point = |kind: &str| MountPoint::within(&self.root, &format!("{kind}{number}"));
        Ok((point(MEMORY)?, point(VIEW)?))
    }
}
