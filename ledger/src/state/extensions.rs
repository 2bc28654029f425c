//! Extensions, as they come into the log when a keeper is back.

use attestation::{Sha256Digest, UnixTime};

use super::error::FoldError;
use super::vault::Vault;
use crate::entry::Extend;
use crate::extension::{ApprovedExtension, Extension, ExtensionError, approved};

impl Vault {
    /// The leases that an extension would let run on at `now`, by id: none that was revoked, and none that runs so long by
    /// itself.
    pub fn leases_extended(&self, extension: &ApprovedExtension, now: UnixTime) -> Vec<Sha256Digest> {
        self.leases.extended(extension, now)
    }

    pub(super) fn extend(&mut self, extend: &Extend) -> Result<(), FoldError> {
        // What was read from an entry has the right form, and may still last too long.
        let Extension { not_before, until, leases, .. } = extend.extension.clone();
        let extension = Extension::new(not_before, until, leases).map_err(FoldError::Extension)?;
        let approved =
            approved(&extension, &extend.approvals, self.id(), self.policy()).map_err(FoldError::Extension)?;
        if extend.time > until {
            return Err(FoldError::Extension(ExtensionError::Expired { until }));
        }
        if extend.time < not_before {
            return Err(FoldError::Extension(ExtensionError::NotYet { not_before }));
        }
        let extended = self.leases.extended(&approved, extend.time);
        if extended.is_empty() || u32::try_from(extended.len()) != Ok(extend.leases) {
            return Err(FoldError::LeaseCountMismatch { expected: extended.len(), found: extend.leases });
        }
        self.leases.extend(&extended, until);
        Ok(())
    }
}
