//! Standing approvals and break-glass: their submission, and those in force.

use ledger::entry::ProposedPermit;
use ledger::permit::{PERMIT_BYTES_MAX, Permit};
use ledger::state::ActivePermit;

use super::{Fault, WireError, bytes, digest, text};
use crate::limits::{APPROVAL_BYTES_MAX, SSHSIG_BYTES_MAX};
use crate::v1;

impl TryFrom<v1::SubmitPermitRequest> for ProposedPermit {
    type Error = WireError;

    fn try_from(request: v1::SubmitPermitRequest) -> Result<Self, WireError> {
        const STATEMENT: &str = "malformed-statement";
        let permit = permit(request.permit)?;
        let statement = bytes(STATEMENT, request.statement, APPROVAL_BYTES_MAX)?;
        Ok(Self {
            object: permit.object(),
            permit,
            statement: String::from_utf8(statement).map_err(|_| WireError::new(STATEMENT, Fault::Value))?,
            signature: text("malformed-signature", request.signature, SSHSIG_BYTES_MAX)?,
        })
    }
}

impl From<ProposedPermit> for v1::SubmitPermitRequest {
    fn from(proposed: ProposedPermit) -> Self {
        let ProposedPermit { object: _, permit, statement, signature } = proposed;
        Self { permit: permit.encode(), statement: statement.into_bytes(), signature }
    }
}

impl TryFrom<v1::PermitSummary> for ActivePermit {
    type Error = WireError;

    fn try_from(summary: v1::PermitSummary) -> Result<Self, WireError> {
        let v1::PermitSummary { entry, object, permit: spelled, left } = summary;
        let permit = permit(spelled)?;
        let object = digest("malformed-object", &object)?;
        match (object == permit.object(), left <= permit.releases) {
            (true, true) => Ok(Self { entry, object, permit, left }),
            (false, _) => Err(WireError::new("malformed-object", Fault::Value)),
            (true, false) => Err(WireError::new("malformed-left", Fault::Value)),
        }
    }
}

impl From<ActivePermit> for v1::PermitSummary {
    fn from(active: ActivePermit) -> Self {
        let ActivePermit { entry, object, permit, left } = active;
        Self { entry, object: object.as_bytes().to_vec(), permit: permit.encode(), left }
    }
}

fn permit(spelled: Vec<u8>) -> Result<Permit, WireError> {
    const CODE: &str = "malformed-permit";
    Permit::parse(&bytes(CODE, spelled, PERMIT_BYTES_MAX)?).map_err(|_| WireError::new(CODE, Fault::Value))
}
