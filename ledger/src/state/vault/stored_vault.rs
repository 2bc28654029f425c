//! A vault in bytes.

use std::sync::Arc;

use super::{PublishedModel, Vault};
use crate::snapshot::SnapshotError;
use crate::state::stored::{Reader, Stored, Writer};

impl Stored for Vault {
    fn store(&self, to: &mut Writer) {
        let Self {
            genesis,
            policy,
            keepers,
            escrows,
            epochs,
            proposals,
            platforms,
            models,
            leases,
            sealing,
            budgets,
            alarms,
            revocations,
            permits,
            reseals,
            fold,
        } = self;
        genesis.store(to);
        policy.store(to);
        keepers.store(to);
        escrows.store(to);
        epochs.store(to);
        proposals.store(to);
        platforms.store(to);
        models.store(to);
        leases.store(to);
        sealing.store(to);
        budgets.store(to);
        alarms.store(to);
        revocations.store(to);
        permits.store(to);
        reseals.store(to);
        fold.store(to);
    }

    fn restore(from: &mut Reader<'_>) -> Result<Self, SnapshotError> {
        let mut vault = Self {
            genesis: Stored::restore(from)?,
            policy: Stored::restore(from)?,
            keepers: Stored::restore(from)?,
            escrows: Stored::restore(from)?,
            epochs: Stored::restore(from)?,
            proposals: Stored::restore(from)?,
            platforms: Stored::restore(from)?,
            models: Stored::restore(from)?,
            leases: Stored::restore(from)?,
            sealing: Stored::restore(from)?,
            budgets: Stored::restore(from)?,
            alarms: Stored::restore(from)?,
            revocations: Stored::restore(from)?,
            permits: Stored::restore(from)?,
            reseals: Stored::restore(from)?,
            fold: Stored::restore(from)?,
        };
        vault.budgets.count(&vault.policy);
        Ok(vault)
    }
}

impl Stored for Arc<PublishedModel> {
    fn store(&self, to: &mut Writer) {
        PublishedModel::store(self, to);
    }

    fn restore(from: &mut Reader<'_>) -> Result<Self, SnapshotError> {
        PublishedModel::restore(from).map(Self::new)
    }
}
