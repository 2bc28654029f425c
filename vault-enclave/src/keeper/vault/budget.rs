//! Raises of budgets, and alarms.

use ledger::decide::ReleaseGrant;
use ledger::entry::{Entry, Proposal, Propose, ProposedRaise};
use ledger::release_log::BATCH_ENTRIES_MAX;
use vault_proto::v1::{self, keeper_reply::Response};

use super::{Outcome, Vault};
use crate::keeper::refusal::Refusal;

impl Vault {
    /// Proposes a raise, signed by an approver in force. The fold checks all of it.
    pub(super) fn submit_raise(&mut self, request: v1::SubmitRaiseRequest) -> Result<Outcome, Refusal> {
        let proposed = ProposedRaise::try_from(request)?;
        let (time, object) = (self.now(), proposed.object);
        self.stage_entry(&Entry::Propose(Propose { time, proposal: Proposal::Budget(proposed) }))?;
        self.stage_effects()?;
        Ok(Outcome::AfterCommit(Box::new(move |vault| {
            let proposal = Some(vault.proposal(object)?);
            Ok(Response::SubmitRaise(v1::SubmitRaiseResponse { proposal }))
        })))
    }

    /// Stages the alarm of a release, where a rule rings. The release has to stand right behind it: where there is no room
    /// for both, nothing is said of it.
    ///
    /// # Errors
    /// `batch-full`.
    pub(super) fn stage_alarm(&mut self, grant: &ReleaseGrant) -> Result<(), Refusal> {
        let Some(alarm) = grant.alarm() else { return Ok(()) };
        if self.pending.batch.len() + 2 > BATCH_ENTRIES_MAX {
            return Err(Refusal::batch_full());
        }
        self.stage_entry(&alarm)
    }
}
