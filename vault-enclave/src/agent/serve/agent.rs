//! What all parts of a running agent share.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use vault_proto::convert::LoadOrder;

use super::access::Controller;
use super::error::ServeError;
use super::holding::Holding;
use super::models::Models;
use crate::agent::attester::AgentIdentity;
use crate::agent::machine::MachineArgs;
use crate::agent::mount::{MountPoint, PrivateMount};
use crate::failure::Failure;

/// How the directory of a model's memory begins; that of its view begins otherwise, and is not to be written to.
pub(super) const MEMORY: &str = "memory-";
const VIEW: &str = "view-";

/// A running agent.
pub(super) struct Agent {
    pub(super) machine: MachineArgs,
    pub(super) identity: AgentIdentity,
    pub(super) models: Arc<Models>,
    root: PrivateMount,
    loads: AtomicU64,
}

impl Agent {
    /// With memory to be mounted below `root`.
    pub(super) fn new(machine: MachineArgs, identity: AgentIdentity, root: PrivateMount) -> Self {
        Self { machine, identity, models: Arc::new(Models::new()), root, loads: AtomicU64::new(0) }
    }

    /// Begins to load a model.
    ///
    /// # Errors
    /// [`ServeError::ModelThere`], [`ServeError::TooManyModels`].
    pub(super) fn load(self: &Arc<Self>, _: &Controller, order: LoadOrder) -> Result<(), ServeError> {
        let entry = self.models.add(order.model.clone())?;
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
