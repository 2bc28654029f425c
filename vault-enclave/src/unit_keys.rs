//! The keys of a set of units, side by side in one locked region.

use attestation::UnitSet;

use crate::derive::{ModelContext, expand_each};
use crate::region::Region;
use crate::secret::{Dek, SecretError};

/// Bytes of the key of one unit.
pub const UNIT_KEY_BYTES: usize = 32;

/// One key for each unit of a set. A publisher derives them all, the keeper those that it grants, an agent unwraps its own.
pub struct UnitKeys {
    units: UnitSet,
    region: Region,
}

/// The key of one unit, lent by [`UnitKeys`].
pub(crate) struct UnitKey<'a>(&'a [u8; UNIT_KEY_BYTES]);

impl UnitKeys {
    /// Derives the keys of `units` (FORMAT.md §5).
    ///
    /// # Errors
    /// [`SecretError::Memory`].
    pub fn derive(dek: &Dek, context: ModelContext<'_>, units: UnitSet) -> Result<Self, SecretError> {
        let indices: Vec<u32> = units.iter().collect();
        Self::init_with(units, |bytes| {
            let infos = indices.iter().map(|unit| context.unit_info(*unit));
            dek.with_bytes(|dek| expand_each(dek, infos.zip(bytes.chunks_mut(UNIT_KEY_BYTES))));
            Ok(())
        })
    }

    /// Which units these keys are of.
    pub fn units(&self) -> &UnitSet {
        &self.units
    }

    /// Fills the keys where they will stay: 32 bytes each, in the order of the set.
    pub(crate) fn init_with<E: From<SecretError>>(
        units: UnitSet,
        fill: impl FnOnce(&mut [u8]) -> Result<(), E>,
    ) -> Result<Self, E> {
        let mut region = Region::new(units.len() * UNIT_KEY_BYTES).map_err(SecretError::Memory)?;
        fill(region.bytes_mut())?;
        Ok(Self { units, region })
    }

    /// Lends the keys, 32 bytes each, in the order of the set.
    pub(crate) fn with_bytes<R>(&self, read: impl FnOnce(&[u8]) -> R) -> R {
        read(self.region.bytes())
    }

    /// The key of `unit`, if it is in the set.
    pub(crate) fn key(&self, unit: u32) -> Option<UnitKey<'_>> {
        let place = self.units.as_slice().binary_search(&unit).ok()?;
        self.region.bytes().as_chunks().0.get(place).map(UnitKey)
    }
}

impl UnitKey<'_> {
    /// Lends the bytes. A caller that copies them wipes the copy.
    pub(crate) fn with_bytes<R>(&self, read: impl FnOnce(&[u8; UNIT_KEY_BYTES]) -> R) -> R {
        read(self.0)
    }
}
