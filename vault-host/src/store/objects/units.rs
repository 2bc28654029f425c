//! What the store asks of whatever keeps its sealed units. They are gigabytes long, so they may lie elsewhere than the
//! objects do.

use std::collections::BTreeMap;
use std::fmt;
use std::time::SystemTime;

use attestation::Sha256Digest;
use vault_proto::convert::UnitUpload;

use crate::store::{StoreError, UnitReader, UnitWriter};

/// Sealed units, and those that are on their way here.
pub(super) trait Units: fmt::Debug + Send + Sync {
    /// Whether a unit is here and its digest was checked.
    fn is_complete(&self, unit: &UnitUpload) -> Result<bool, StoreError>;

    /// How much of a unit is stored durably.
    fn stored(&self, unit: &UnitUpload) -> Result<u64, StoreError>;

    /// Begins or goes on with a unit.
    fn begin(&self, unit: UnitUpload, offset: u64) -> Result<Box<dyn UnitWriter>, StoreError>;

    /// A sealed unit, to be read.
    fn reader(&self, unit: &UnitUpload) -> Result<Box<dyn UnitReader>, StoreError>;

    /// Removes what is left of the uploads for a model, and its units where `units` says so.
    fn forget(&self, manifest: &Sha256Digest, units: bool) -> Result<(), StoreError>;

    /// The models that something was uploaded for, and when last.
    fn newest(&self) -> Result<BTreeMap<Sha256Digest, SystemTime>, StoreError>;

    /// Whether a unit of this model is being written by this host.
    fn is_busy(&self, manifest: &Sha256Digest) -> bool;

    /// The database that has claimed this place for its units.
    fn owner(&self) -> Result<Option<String>, StoreError>;

    /// Claims this place for a database, unless another was first.
    fn claim(&self, database: &str) -> Result<(), StoreError>;
}

/// Sees to it that `units` is the place of this database. A directory that is not mounted looks as if every unit were
/// lost, and two vaults with one place would remove each other's units as abandoned.
pub(super) fn check_owner(units: &dyn Units, database: &str, no_models: bool) -> Result<(), StoreError> {
    let owner = match units.owner()? {
        None if no_models => {
            units.claim(database)?;
            units.owner()?
        }
        owner => owner,
    };
    if owner.as_deref() == Some(database) {
        Ok(())
    } else {
        Err(StoreError::UnitsElsewhere { claimed: owner.is_some() })
    }
}
