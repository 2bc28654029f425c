//! Extensions: leases ran on while this keeper could not be reached, and now it is told.

use ledger::entry::{Entry, Extend};
use ledger::extension::{ExtensionError, ExtensionFile};
use vault_proto::convert;
use vault_proto::v1::{self, keeper_reply::Response};

use super::{Outcome, Vault};
use crate::keeper::refusal::Refusal;

impl Vault {
    /// Logs an extension as far as it lets leases run longer: else those who hold them could not renew, and would count for
    /// too short a time.
    pub(super) fn submit_extension(&mut self, request: v1::SubmitExtensionRequest) -> Result<Outcome, Refusal> {
        let file = convert::extension(request)?;
        let file = ExtensionFile::parse(&file).map_err(|error| Refusal::malformed(error.code(), error))?;
        let now = self.now();
        let vault = self.opened()?;
        let approved = file.verify(vault.id(), vault.policy().digest()).map_err(denied)?;
        let until = approved.extension().until;
        if now > until {
            return Err(denied(ExtensionError::Expired { until }));
        }
        if vault.leases_extended(&approved, now).is_empty() {
            return Ok(Outcome::Now(Ok(answer(0))));
        }
        // A renewal that was signed before stands before it.
        self.stage_renewals();
        let leases = self.opened()?.leases_extended(&approved, now).len();
        let leases = u32::try_from(leases).unwrap_or(u32::MAX);
        let (extension, approvals) = (file.extension, file.approvals);
        self.stage_entry(&Entry::Extend(Extend { time: now, extension, approvals, leases }))?;
        Ok(Outcome::AfterCommit(Box::new(move |_| Ok(answer(leases)))))
    }
}

fn answer(leases: u32) -> Response {
    Response::SubmitExtension(v1::SubmitExtensionResponse { leases })
}

fn denied(error: ExtensionError) -> Refusal {
    Refusal::denied(error.code(), error)
}
