//! A vault with budgets, and what is released there.

use attestation::{Sha256Digest, UnixTime};
use ledger::approvals::{ApprovalAction, raise_object};
use ledger::entry::{BudgetRaised, ClockJump, Entry, Proposal, ProposedRaise, RaiseAmounts, Release};
use ledger::state::{BudgetExcess, BudgetRefusal, FoldError};

use super::keys::Person;
use super::world::{ALICE, BOB, CAROL, World};

/// A platform that asks.
pub fn platform(n: u8) -> Sha256Digest {
    Sha256Digest::of(&[n])
}

/// `[budget.b]` with these lines.
pub fn budget(per: &str, over: &str, limits: &str) -> String {
    format!("\n[budget.b]\nper = \"{per}\"\nmodels = \"any\"\nover = \"{over}\"\n{limits}\n")
}

impl World {
    /// minilm 1.0 is published under a policy with these budgets, and the rule has room for many leases.
    pub fn with_budgets(budgets: &str) -> Self {
        let change = |text: String| text.replace("max_leases = 4", "max_leases = 1000") + budgets;
        Self::with_policy(change).opened().published()
    }

    /// A release of session `n` to a platform; 1100 bytes.
    pub fn release_to(&self, n: u32, platform: Sha256Digest) -> Release {
        Release { platform, ..self.release(n) }
    }

    /// Whether the fold takes it.
    pub fn try_release(&mut self, release: Release) -> Result<(), FoldError> {
        self.apply(&Entry::Release(Box::new(release)))
    }

    /// Releases of these sessions to one platform; how many the fold took.
    pub fn releases(&mut self, sessions: std::ops::Range<u32>, platform: Sha256Digest) -> usize {
        sessions.filter(|n| self.try_release(self.release_to(*n, platform)).is_ok()).count()
    }

    /// The excess for which the fold refuses a release.
    #[track_caller]
    pub fn excess(&mut self, release: Release) -> BudgetExcess {
        match self.refusal(Entry::Release(Box::new(release))) {
            FoldError::Budget(BudgetRefusal::Over(excess)) => *excess,
            other => panic!("{other:?}"),
        }
    }

    /// The clock goes on by `seconds`, of which the keeper measured none.
    pub fn jump(&mut self, seconds: u64) {
        self.pass(seconds);
        let entry = Entry::Clock(ClockJump { time: self.now, unmeasured: seconds });
        self.must(entry);
    }

    /// Alice proposes a raise of budget `b`.
    pub fn proposed_raise(&self, amounts: RaiseAmounts, until: UnixTime) -> ProposedRaise {
        let budget = "b".parse().unwrap();
        let object = raise_object(&budget, amounts, until);
        let statement = self.statement(ApprovalAction::ProposeBudget, object).encode();
        let signature = Person::new(ALICE).sign(&statement);
        let statement = String::from_utf8(statement).unwrap();
        let RaiseAmounts { bytes, releases, platforms, leases } = amounts;
        ProposedRaise { object, budget, bytes, releases, platforms, leases, until, statement, signature }
    }

    /// Its effect.
    pub fn raised(&self, proposal: u64, object: Sha256Digest) -> Entry {
        Entry::Budget(BudgetRaised { time: self.now, proposal, object, budget: "b".parse().unwrap() })
    }

    /// Alice proposes, Bob and Carol approve, for an hour; the approvals.
    pub fn must_raise(&mut self, amounts: RaiseAmounts) -> (ProposedRaise, Vec<Entry>) {
        let (index, proposed) = (self.state.size(), self.proposed_raise(amounts, self.now.plus(3600)));
        let entry = self.propose(Proposal::Budget(proposed.clone()));
        self.must(entry);
        let approvals = [BOB, CAROL].map(|person| self.approve(person, ApprovalAction::Budget, proposed.object));
        approvals.iter().for_each(|approval| self.must(approval.clone()));
        let entry = self.raised(index, proposed.object);
        self.must(entry);
        (proposed, approvals.to_vec())
    }
}

/// So many releases.
pub fn releases(count: u64) -> RaiseAmounts {
    RaiseAmounts { releases: count, ..RaiseAmounts::default() }
}
