//! Raises of budgets: what approvers let through, once.

use attestation::UnixTime;
use ledger::approvals::{ApprovalAction, raise_object};
use ledger::entry::{Proposal, ProposedRaise, RaiseAmounts};
use ledger::state::{FoldError, RAISE_SECS_MAX, RAISES_MAX, Subject};

use crate::support::budget::{budget, platform, releases};
use crate::support::world::{ALICE, BOB, CAROL, World};

fn held(limits: &str) -> World {
    World::with_budgets(&budget("vault", "hold", limits))
}

#[test]
fn a_raise_lets_through_what_it_names_once() {
    let mut world = held("releases_per_hour = 2");
    assert_eq!(world.releases(0..5, platform(1)), 2);
    world.must_raise(releases(1));
    assert_eq!(world.vault().budget_uses(world.now)[0].raised, 1);
    assert_eq!(world.releases(5..9, platform(1)), 1);
    assert_eq!(world.vault().raises()[0].left, releases(0));
    // What it let through counts: the window has to empty below the limit first.
    world.pass(3600);
    assert_eq!(world.releases(10..19, platform(1)), 2);
}

#[test]
fn a_raise_is_not_used_below_the_limit_and_ends_at_its_last_moment() {
    let mut world = held("releases_per_hour = 2");
    world.must_raise(releases(3));
    assert_eq!(world.releases(0..2, platform(1)), 2);
    assert_eq!(world.vault().raises()[0].left, releases(3));
    world.must_release(2);
    assert_eq!(world.vault().raises()[0].left, releases(2));
    // It was approved for an hour.
    world.pass(3599);
    assert_eq!(world.releases(3..4, platform(1)), 1);
    world.pass(2);
    assert_eq!(world.releases(4..10, platform(1)), 1, "of the window; the raise is over");
    assert!(world.vault().raises().is_empty());
}

#[test]
fn each_amount_raises_its_own_limit() {
    let mut world = held("bytes_per_day = \"1100B\"\nplatforms_per_day = 1\nleases = 1");
    world.must_release(1);
    let none = RaiseAmounts::default();
    for (part, still) in
        [(RaiseAmounts { bytes: 1100, ..none }, "platforms_per_day"), (RaiseAmounts { platforms: 1, ..none }, "leases")]
    {
        world.must_raise(part);
        let release = world.release_to(2, platform(2));
        assert_eq!(world.excess(release).unit.key(), still);
        world.pass(1);
    }
    world.must_raise(RaiseAmounts { leases: 1, ..none });
    assert_eq!(world.releases(2..9, platform(2)), 1);
    assert!(world.vault().raises().iter().all(|raise| raise.left == none));
}

#[test]
fn the_raise_that_ends_first_is_used_first() {
    let mut world = held("releases_per_hour = 1");
    world.must_release(0);
    world.must_raise(releases(2));
    world.pass(60);
    world.must_raise(releases(2));
    assert_eq!(world.releases(1..4, platform(1)), 3);
    let left: Vec<u64> = world.vault().raises().iter().map(|raise| raise.left.releases).collect();
    assert_eq!(left, [0, 1]);
}

#[test]
fn a_raise_that_was_approved_is_not_approved_again() {
    let mut world = held("releases_per_hour = 1");
    world.must_release(0);
    let (proposed, approvals) = world.must_raise(releases(1));
    // The host sends it all again.
    let again = world.propose(Proposal::Budget(proposed.clone()));
    assert_eq!(world.refusal(again), FoldError::RaiseRepeated);
    assert_eq!(world.refusal(approvals[0].clone()), FoldError::ProposalUnknown);
    let entry = world.raised(world.state.size() - 4, proposed.object);
    assert_eq!(world.refusal(entry), FoldError::ProposalUnknown);
    assert_eq!(world.releases(1..9, platform(1)), 1);
    // Also when it is used up, and when its end is past.
    world.pass(3601);
    let entry = world.propose(Proposal::Budget(proposed));
    assert!(matches!(world.refusal(entry), FoldError::StatementExpired { .. }));
}

/// The refusal of a good proposal of a raise after one change; the object is made to fit.
fn refusal(change: impl FnOnce(&mut ProposedRaise)) -> FoldError {
    let mut world = held("releases_per_hour = 1");
    let mut proposed = world.proposed_raise(releases(1), world.now.plus(60));
    change(&mut proposed);
    let object = raise_object(&proposed.budget, proposed.amounts(), proposed.until);
    let statement = world.statement(ApprovalAction::ProposeBudget, object).encode();
    proposed.signature = crate::support::keys::Person::new(ALICE).sign(&statement);
    proposed.statement = String::from_utf8(statement).unwrap();
    proposed.object = object;
    let entry = world.propose(Proposal::Budget(proposed));
    world.refusal(entry)
}

#[test]
fn a_raise_is_of_a_limit_that_can_be_raised_for_a_bounded_time() {
    assert_eq!(refusal(|raise| raise.budget = "c".parse().unwrap()), FoldError::BudgetUnknown);
    assert_eq!(refusal(|raise| raise.releases = 0), FoldError::RaiseEmpty);
    assert_eq!(refusal(|raise| raise.bytes = 1), FoldError::RaiseOfNoLimit { key: "bytes_per_day" });
    assert_eq!(refusal(|raise| raise.leases = 1), FoldError::RaiseOfNoLimit { key: "leases" });
    let too_late = |raise: &mut ProposedRaise| raise.until = UnixTime(raise.until.seconds() - 60 + RAISE_SECS_MAX + 1);
    assert!(matches!(refusal(too_late), FoldError::RaiseUntil { .. }));
    assert!(matches!(refusal(|raise| raise.until = UnixTime(1)), FoldError::RaiseUntil { .. }));
    let mut world = World::with_budgets(&budget("vault", "refuse", "releases_per_hour = 1"));
    let entry = world.propose(Proposal::Budget(world.proposed_raise(releases(1), world.now.plus(60))));
    assert_eq!(world.refusal(entry), FoldError::BudgetNotRaisable);
}

#[test]
fn a_proposal_is_what_its_proposer_signed() {
    let mut world = held("releases_per_hour = 1");
    let good = world.proposed_raise(releases(1), world.now.plus(60));
    let more = ProposedRaise { releases: 2, ..good.clone() };
    let entry = world.propose(Proposal::Budget(more.clone()));
    assert_eq!(world.refusal(entry), FoldError::ObjectMismatch);
    let object = raise_object(&more.budget, more.amounts(), more.until);
    let entry = world.propose(Proposal::Budget(ProposedRaise { object, ..more }));
    assert_eq!(world.refusal(entry), FoldError::ObjectMismatch);
    // Signed for another act.
    let statement = world.statement(ApprovalAction::Budget, good.object).encode();
    let signature = crate::support::keys::Person::new(ALICE).sign(&statement);
    let statement = String::from_utf8(statement).unwrap();
    let entry = world.propose(Proposal::Budget(ProposedRaise { statement, signature, ..good }));
    assert_eq!(world.refusal(entry), FoldError::ActionMismatch);
}

#[test]
fn a_raise_takes_the_threshold_without_its_proposer() {
    let mut world = held("releases_per_hour = 1");
    let index = world.state.size();
    let proposed = world.proposed_raise(releases(1), world.now.plus(60));
    let object = proposed.object;
    let entry = world.propose(Proposal::Budget(proposed));
    world.must(entry);
    let entry = world.approve(ALICE, ApprovalAction::Budget, object);
    assert!(matches!(world.refusal(entry), FoldError::ProposerMayNotApprove { .. }));
    let entry = world.approve(BOB, ApprovalAction::Policy, object);
    assert_eq!(world.refusal(entry), FoldError::ActionMismatch);
    let entry = world.approve(BOB, ApprovalAction::Budget, object);
    world.must(entry);
    let entry = world.raised(index, object);
    assert_eq!(world.refusal(entry), FoldError::ThresholdNotReached { given: 1, threshold: 2 });
    assert!(world.vault().due(world.now).is_none());
    let entry = world.approve(CAROL, ApprovalAction::Budget, object);
    world.must(entry);
    let due = world.vault().due(world.now).unwrap();
    assert!(matches!(due.subject(), Subject::Raise { .. }));
    assert_eq!(due.subject().proposer().map(|name| name.as_str()), Some("alice"));
    // Its own end is the end of the proposal too.
    world.pass(61);
    let entry = world.raised(index, object);
    assert!(matches!(world.refusal(entry), FoldError::ProposalExpired { .. }));
}

#[test]
fn an_effect_is_of_its_proposal() {
    let mut world = held("releases_per_hour = 1");
    let (_, object) = world.must_propose_policy(&world.next_policy(|text| text));
    let entry = world.raised(world.state.size() - 1, object);
    assert_eq!(world.refusal(entry), FoldError::ActionMismatch);
    let index = world.state.size();
    let proposed = world.proposed_raise(releases(1), world.now.plus(60));
    let entry = world.propose(Proposal::Budget(proposed));
    world.must(entry);
    let entry = world.raised(index, object);
    assert_eq!(world.refusal(entry), FoldError::ObjectMismatch);
}

#[test]
fn a_policy_voids_raises_and_an_expired_one_has_none() {
    let mut world = held("releases_per_hour = 1");
    world.must_raise(releases(5));
    world.must_change_policy(|text| text);
    assert!(world.vault().raises().is_empty());
    assert_eq!(world.releases(0..5, platform(1)), 1);

    let mut world = held("releases_per_hour = 1");
    let not_after = world.policy().not_after();
    world.now = not_after.plus(1);
    let entry = world.propose(Proposal::Budget(world.proposed_raise(releases(1), world.now.plus(60))));
    assert_eq!(world.refusal(entry), FoldError::PolicyExpired { not_after });
}

#[test]
fn there_is_a_bounded_number_of_raises() {
    let mut world = held("releases_per_hour = 1");
    for n in 0..RAISES_MAX as u64 {
        world.must_raise(releases(n + 1));
    }
    let index = world.state.size();
    let proposed = world.proposed_raise(releases(1000), world.now.plus(60));
    let object = proposed.object;
    let entry = world.propose(Proposal::Budget(proposed));
    world.must(entry);
    for person in [BOB, CAROL] {
        let entry = world.approve(person, ApprovalAction::Budget, object);
        world.must(entry);
    }
    assert!(world.vault().due(world.now).is_none());
    let entry = world.raised(index, object);
    assert_eq!(world.refusal(entry), FoldError::TooManyRaises);
}

/// The vector of FORMAT.md, section 7.
#[test]
fn the_object_of_a_raise_has_these_bytes() {
    let amounts = RaiseAmounts { releases: 1, leases: 2, ..RaiseAmounts::default() };
    let object = raise_object(&"daily".parse().unwrap(), amounts, UnixTime(1_800_000_000));
    assert_eq!(object.to_string(), "sha256:a61ad7908807ce9a5798318d69fcfe2f880aa4e58612f9bc96e5cf63c5c56a6e");
}
