//! The time that a run decides by, where its clock was set ahead of what it measured.

use attestation::{Trust, UnixTime};
use ledger::entry::{Entry, Start, TimeSource};
use ledger::state::State;
use ring::rand::{SecureRandom, SystemRandom};

use super::Vault;
use crate::keeper::refusal::Refusal;
use crate::program;

impl Vault {
    /// Takes in a clock that was set ahead, as a run of its own: it stands before whatever is decided by that time. Whoever
    /// holds a lease goes by a boot clock, which was not set; behind a `start` the lease counts for a full one more. Nothing
    /// gives a revoked lease more time, so while one runs the time stays what was measured.
    pub(super) fn watch_clock(&mut self) {
        let last = self.state.time();
        if !self.clock.has_jumped(last) || runs_revoked(&self.state, self.clock.shown(last)) {
            return;
        }
        // Renewals of the time before it would be too late behind it.
        self.stage_renewals();
        let (measured, last) = (self.clock, self.state.time());
        let Some(time) = self.clock.take_jump(last) else { return };
        // Before the vault is open there are no leases and no budgets, and the log takes only approvals.
        if self.state.vault().is_none() {
            return;
        }
        let seconds = time.seconds().saturating_sub(last.seconds());
        tracing::warn!(seconds, "the clock was set ahead of the time that the keeper measured");
        let keeper = (self.instance != self.genesis.keeper().instance).then_some(self.instance);
        let start = start_entry(time, self.clock.source(), self.tier, keeper);
        if let Err(refusal) = start.and_then(|start| self.stage_entry(&start)) {
            tracing::warn!(%refusal, "the clock is taken in later");
            self.clock = measured;
        }
    }
}

/// Whether a lease runs at `now` that a revocation has ended: its holder may still have it.
pub(super) fn runs_revoked(state: &State, now: UnixTime) -> bool {
    state.vault().is_some_and(|vault| vault.leases(now).any(|(_, lease)| lease.revoked.is_some()))
}

/// The entry of a new run: one of the program, or one that a clock which was set ahead makes necessary. `keeper` is its
/// instance, where it is not the founder.
pub(super) fn start_entry(
    time: UnixTime,
    time_source: TimeSource,
    tier: Trust,
    keeper: Option<[u8; 32]>,
) -> Result<Entry, Refusal> {
    let mut run = [0; 16];
    SystemRandom::new()
        .fill(&mut run)
        .map_err(|_| Refusal::unavailable("random", "the system gave no random bytes"))?;
    let version = program::version();
    Ok(Entry::Start(Start { time, run, version, tier, time_source, keeper }))
}
