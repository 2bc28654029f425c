//! Raises of budgets, alarms, and the time that budgets go by.

use ledger::decide::ReleaseGrant;
use ledger::entry::{ClockJump, Entry, Proposal, Propose, ProposedRaise};
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

    /// Takes in a clock that was set ahead, with an entry that says so: it stands before whatever is decided by that time.
    pub(super) fn watch_clock(&mut self) {
        if !self.clock.has_jumped(self.state.time()) {
            return;
        }
        // Renewals of the time before it would be too late behind it. They come first, for of the time that they are of
        // nothing is unmeasured: the fold refuses a jump that says so, and without its entry it would refill budgets.
        self.stage_renewals();
        let Some((time, unmeasured)) = self.clock.take_jump(self.state.time()) else { return };
        // Before the vault is open there are no budgets, and the log takes only approvals.
        if self.state.vault().is_some() && unmeasured > 0 {
            tracing::warn!(seconds = unmeasured, "the clock was set ahead of the time that the keeper measured");
            self.stage_quietly(&Entry::Clock(ClockJump { time, unmeasured }));
        }
    }
}
