//! A signed statement must be about exactly this: nothing signed for one thing approves another.

use attestation::{Sha256Digest, UnixTime};

use super::error::FoldError;
use crate::approvals::{ApprovalAction, ApprovalStatement};

/// What a statement has to say here.
pub(super) struct Expected {
    pub(super) action: ApprovalAction,
    pub(super) object: Sha256Digest,
    pub(super) previous: Sha256Digest,
    pub(super) vault: Sha256Digest,
    pub(super) serial: u64,
}

impl Expected {
    pub(super) fn check(&self, statement: &ApprovalStatement, now: UnixTime) -> Result<(), FoldError> {
        if statement.action != self.action {
            return Err(FoldError::ActionMismatch);
        }
        if statement.vault != self.vault {
            return Err(FoldError::VaultMismatch);
        }
        if statement.serial != self.serial {
            return Err(FoldError::SerialMismatch { expected: self.serial, found: statement.serial });
        }
        if statement.previous != self.previous {
            return Err(FoldError::PreviousMismatch);
        }
        if statement.object != self.object {
            return Err(FoldError::ObjectMismatch);
        }
        if now > statement.not_after {
            return Err(FoldError::StatementExpired { not_after: statement.not_after });
        }
        Ok(())
    }
}
