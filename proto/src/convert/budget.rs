//! Raises and uses of budgets.

use attestation::{Sha256Digest, UnixTime};
use ledger::approvals::raise_object;
use ledger::entry::{ProposedRaise, RaiseAmounts};
use ledger::policy::BudgetUnit;
use ledger::state::{BudgetOf, BudgetUse};

use super::{Fault, WireError, bytes, name, text};
use crate::limits::{APPROVAL_BYTES_MAX, SSHSIG_BYTES_MAX};
use crate::v1;

const MALFORMED_STATEMENT: &str = "malformed-statement";

impl TryFrom<v1::SubmitRaiseRequest> for ProposedRaise {
    type Error = WireError;

    fn try_from(request: v1::SubmitRaiseRequest) -> Result<Self, WireError> {
        let budget = name("malformed-budget", request.budget)?;
        let v1::SubmitRaiseRequest { bytes: amount, releases, platforms, leases, until, .. } = request;
        let (amounts, until) = (RaiseAmounts { bytes: amount, releases, platforms, leases }, UnixTime(until));
        let statement = bytes(MALFORMED_STATEMENT, request.statement, APPROVAL_BYTES_MAX)?;
        Ok(Self {
            object: raise_object(&budget, amounts, until),
            budget,
            bytes: amount,
            releases,
            platforms,
            leases,
            until,
            statement: String::from_utf8(statement).map_err(|_| WireError::new(MALFORMED_STATEMENT, Fault::Value))?,
            signature: text("malformed-signature", request.signature, SSHSIG_BYTES_MAX)?,
        })
    }
}

impl From<ProposedRaise> for v1::SubmitRaiseRequest {
    fn from(raise: ProposedRaise) -> Self {
        let ProposedRaise { object: _, budget, bytes, releases, platforms, leases, until, statement, signature } =
            raise;
        Self {
            budget: budget.to_string(),
            bytes,
            releases,
            platforms,
            leases,
            until: until.seconds(),
            statement: statement.into_bytes(),
            signature,
        }
    }
}

impl TryFrom<v1::BudgetUse> for BudgetUse {
    type Error = WireError;

    fn try_from(line: v1::BudgetUse) -> Result<Self, WireError> {
        let value = |code| WireError::new(code, Fault::Value);
        let of = match (line.model.as_str(), line.platform.as_slice()) {
            ("", []) => BudgetOf::Vault,
            (_, []) => BudgetOf::Model(name("malformed-model", line.model)?),
            ("", platform) => {
                BudgetOf::Platform(Sha256Digest::try_from(platform).map_err(|_| value("malformed-platform"))?)
            }
            (_, _) => return Err(value("malformed-platform")),
        };
        let unit = BudgetUnit::ALL.into_iter().find(|unit| unit.key() == line.unit);
        Ok(Self {
            budget: name("malformed-budget", line.budget)?,
            of,
            unit: unit.ok_or(value("malformed-unit"))?,
            limit: line.limit,
            used: line.used,
            raised: line.raised,
            frees_at: line.frees_at.map(UnixTime),
        })
    }
}

impl From<BudgetUse> for v1::BudgetUse {
    fn from(line: BudgetUse) -> Self {
        let (model, platform) = match &line.of {
            BudgetOf::Vault => (String::new(), Vec::new()),
            BudgetOf::Model(model) => (model.to_string(), Vec::new()),
            BudgetOf::Platform(platform) => (String::new(), platform.as_bytes().to_vec()),
        };
        Self {
            budget: line.budget.to_string(),
            model,
            platform,
            unit: line.unit.key().to_owned(),
            limit: line.limit,
            used: line.used,
            raised: line.raised,
            frees_at: line.frees_at.map(UnixTime::seconds),
        }
    }
}
