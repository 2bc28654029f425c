//! That a keeper leaves the others.

use super::{WireError, bytes, exact, text};
use crate::limits::{APPROVAL_BYTES_MAX, SSHSIG_BYTES_MAX};
use crate::v1;

/// The proposal, with its proposer's signature.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeaveSubmission {
    /// How many changes of keepers there were before.
    pub revision: u64,
    /// The keeper.
    pub instance: [u8; 32],
    /// Approval statement with action `propose-keeper-leave`, exact bytes.
    pub statement: Vec<u8>,
    /// Armored SSHSIG.
    pub signature: String,
}

impl TryFrom<v1::SubmitKeeperLeaveRequest> for LeaveSubmission {
    type Error = WireError;

    fn try_from(request: v1::SubmitKeeperLeaveRequest) -> Result<Self, WireError> {
        Ok(Self {
            revision: request.revision,
            instance: exact("malformed-instance", &request.instance)?,
            statement: bytes("malformed-statement", request.statement, APPROVAL_BYTES_MAX)?,
            signature: text("malformed-signature", request.signature, SSHSIG_BYTES_MAX)?,
        })
    }
}

impl From<LeaveSubmission> for v1::SubmitKeeperLeaveRequest {
    fn from(submission: LeaveSubmission) -> Self {
        let LeaveSubmission { revision, instance, statement, signature } = submission;
        Self { revision, instance: instance.to_vec(), statement, signature }
    }
}
