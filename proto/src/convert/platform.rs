//! Platforms whose EKs have no certificate.

use ledger::entry::{PlatformAct, PlatformChange};

use super::{Fault, WireError, bytes, digest, name, text};
use crate::limits::{APPROVAL_BYTES_MAX, SSHSIG_BYTES_MAX};
use crate::v1;

/// A proposed change of a platform with its proposer's signature.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlatformSubmission {
    /// What is to become of it.
    pub change: PlatformChange,
    /// Approval statement with action `propose-platform`, exact bytes.
    pub statement: Vec<u8>,
    /// Armored SSHSIG.
    pub signature: String,
}

impl TryFrom<v1::SubmitPlatformRequest> for PlatformSubmission {
    type Error = WireError;

    fn try_from(request: v1::SubmitPlatformRequest) -> Result<Self, WireError> {
        let act = [PlatformAct::Add, PlatformAct::Remove].into_iter().find(|act| act.as_str() == request.act);
        let counts_as = request.counts_as.parse();
        Ok(Self {
            change: PlatformChange {
                act: act.ok_or(WireError::new("malformed-act", Fault::Value))?,
                platform: digest("malformed-platform", &request.platform)?,
                label: name("malformed-label", request.label)?,
                counts_as: counts_as.map_err(|error| WireError::new("malformed-counts-as", Fault::Form(error)))?,
                revision: request.revision,
            },
            statement: bytes("malformed-statement", request.statement, APPROVAL_BYTES_MAX)?,
            signature: text("malformed-signature", request.signature, SSHSIG_BYTES_MAX)?,
        })
    }
}

impl From<PlatformSubmission> for v1::SubmitPlatformRequest {
    fn from(submission: PlatformSubmission) -> Self {
        let PlatformSubmission { change, statement, signature } = submission;
        Self {
            act: change.act.as_str().to_owned(),
            platform: change.platform.as_bytes().to_vec(),
            label: change.label.to_string(),
            counts_as: change.counts_as.to_string(),
            revision: change.revision,
            statement,
            signature,
        }
    }
}
