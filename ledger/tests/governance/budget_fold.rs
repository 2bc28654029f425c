//! Budgets in the fold and in decisions: each limit, whose use it counts, and what is said of a refusal.

use attestation::{Sha256Digest, UnixTime};
use ledger::decide::{DenialReason, decide};
use ledger::entry::{ClockJump, Entry};
use ledger::names::{Name, Version};
use ledger::policy::BudgetUnit;
use ledger::state::{BudgetExcess, BudgetOf, BudgetRefusal, FoldError};

use crate::support::budget::{budget, platform};
use crate::support::evidence::Guest;
use crate::support::world::{LEASE_SECS, World};

const HOUR: u64 = 60 * 60;
const DAY: u64 = 24 * HOUR;

fn minilm() -> (Name, Version) {
    ("minilm".parse().unwrap(), "1.0".parse().unwrap())
}

/// Unit, limit, used, asked, and when it passes.
fn numbers(excess: &BudgetExcess) -> (BudgetUnit, u64, u64, u64, Option<UnixTime>) {
    (excess.unit, excess.limit, excess.used, excess.asked, excess.passes_at)
}

#[test]
fn bytes_of_a_day_are_limited() {
    let mut world = World::with_budgets(&budget("vault", "refuse", "bytes_per_day = \"2300B\""));
    let first = world.now;
    world.must_release(1);
    world.pass(600);
    world.must_release(2);
    let release = world.release(3);
    let excess = world.excess(release);
    assert_eq!(numbers(&excess), (BudgetUnit::Bytes, 2300, 2200, 1100, Some(first.plus(DAY))));
    assert_eq!(BudgetRefusal::Over(Box::new(excess)).code(), "budget-bytes");
    // What fits into the rest still goes.
    let mut small = world.release(3);
    small.units.bytes = 100;
    assert_eq!(world.try_release(small), Ok(()));
    // A second before the first is out of the window, and then.
    world.now = first.plus(DAY - 1);
    let release = world.release(4);
    assert_eq!(world.excess(release).used, 2300);
    world.pass(1);
    world.must_release(4);
}

#[test]
fn one_release_of_more_than_the_budget_never_passes() {
    let mut world = World::with_budgets(&budget("vault", "refuse", "bytes_per_day = \"1099B\""));
    let release = world.release(1);
    assert_eq!(world.excess(release).passes_at, None);
}

#[test]
fn releases_of_an_hour_are_limited() {
    let mut world = World::with_budgets(&budget("vault", "refuse", "releases_per_hour = 3"));
    let first = world.now;
    assert_eq!(world.releases(0..5, platform(1)), 3);
    let release = world.release(9);
    let excess = world.excess(release);
    assert_eq!(numbers(&excess), (BudgetUnit::Releases, 3, 3, 1, Some(first.plus(HOUR))));
    assert_eq!(BudgetRefusal::Over(Box::new(excess)).code(), "budget-releases");
    world.now = first.plus(HOUR - 1);
    assert_eq!(world.releases(10..12, platform(1)), 0);
    world.pass(1);
    assert_eq!(world.releases(20..25, platform(1)), 3);
}

#[test]
fn platforms_of_a_day_are_limited_and_a_known_one_is_no_other() {
    let mut world = World::with_budgets(&budget("vault", "refuse", "platforms_per_day = 2"));
    let first = world.now;
    assert_eq!(world.releases(0..1, platform(1)), 1);
    world.pass(60);
    assert_eq!(world.releases(1..2, platform(2)), 1);
    let release = world.release_to(2, platform(3));
    let excess = world.excess(release);
    assert_eq!(numbers(&excess), (BudgetUnit::Platforms, 2, 2, 1, Some(first.plus(DAY))));
    assert_eq!(BudgetRefusal::Over(Box::new(excess)).code(), "budget-platforms");
    // Another release to a known platform takes nothing, and keeps it known.
    assert_eq!(world.releases(10..20, platform(1)), 10);
    world.now = first.plus(DAY);
    assert_eq!(world.releases(20..21, platform(3)), 0);
    world.pass(60);
    assert_eq!(world.releases(21..22, platform(3)), 1);
}

#[test]
fn leases_at_once_are_limited_until_a_signed_end_or_renew_by() {
    let mut world = World::with_budgets(&budget("vault", "refuse", "leases = 2"));
    let lease = world.must_release(1);
    world.pass(60);
    world.must_release(2);
    let release = world.release(3);
    let excess = world.excess(release);
    let first_end = UnixTime(world.now.seconds() - 60).plus(LEASE_SECS);
    assert_eq!(numbers(&excess), (BudgetUnit::Leases, 2, 2, 1, Some(first_end.plus(1))));
    assert_eq!(BudgetRefusal::Over(Box::new(excess)).code(), "budget-leases");
    let entry = world.end(lease);
    world.must(entry);
    // A renewed lease counts on.
    let renewed = world.must_release(4);
    world.pass(LEASE_SECS);
    let entry = world.renew(vec![world.renewal(renewed)]);
    world.must(entry);
    world.pass(1);
    world.must_release(5);
    let release = world.release(6);
    assert_eq!(world.excess(release).used, 2);
}

#[test]
fn a_budget_of_each_platform_or_model_counts_each_apart() {
    let mut world = World::with_budgets(&budget("platform", "refuse", "releases_per_hour = 1\nleases = 1"));
    assert_eq!((world.releases(0..3, platform(1)), world.releases(10..13, platform(2))), (1, 1));
    let release = world.release_to(20, platform(1));
    let excess = world.excess(release);
    assert_eq!((excess.of, excess.unit), (BudgetOf::Platform(platform(1)), BudgetUnit::Releases));

    let mut world = World::with_budgets(&budget("model", "refuse", "releases_per_hour = 1"));
    assert_eq!((world.releases(0..3, platform(1)), world.releases(10..13, platform(2))), (1, 0));
    let release = world.release(20);
    assert_eq!(world.excess(release).of, BudgetOf::Model(minilm().0));
}

#[test]
fn a_budget_of_other_models_limits_nothing() {
    let other = budget("vault", "refuse", "releases_per_hour = 1").replace("\"any\"", "[\"llama\"]");
    let mut world = World::with_budgets(&other);
    assert_eq!(world.releases(0..5, platform(1)), 5);
    let uses = world.vault().budget_uses(world.now);
    assert_eq!((uses.len(), uses[0].used, uses[0].frees_at), (1, 0, None));
}

#[test]
fn every_budget_is_asked_and_what_no_approval_lets_through_is_said_first() {
    let held = budget("vault", "hold", "releases_per_hour = 1");
    let refused = held.replace("budget.b", "budget.c").replace("hold", "refuse");
    let mut world = World::with_budgets(&(held.clone() + &refused));
    world.must_release(1);
    let release = world.release(2);
    assert_eq!(world.excess(release).budget.as_str(), "c");
    let mut world = World::with_budgets(&held);
    world.must_release(1);
    let release = world.release(2);
    let excess = world.excess(release);
    assert!(excess.to_string().contains("approvers let it through: vaultctl propose budget b"), "{excess}");
    assert_eq!(BudgetRefusal::Over(Box::new(excess)).code(), "held-for-approval");
}

#[test]
fn a_decision_says_what_is_used_what_was_asked_and_when_it_passes() {
    let mut world = World::with_budgets(&budget("vault", "refuse", "releases_per_hour = 1"));
    let guest = Guest::of(&world);
    let logged = world.state.open_manifest(&minilm().0, &minilm().1, world.manifest().bytes()).unwrap();
    let ask = |world: &World, n| decide(&world.state, guest.good_load(world, n), &logged, world.now);
    let grant = ask(&world, 1).ok().unwrap();
    let at = world.now;
    // The reservation is the entry: it counts before anything is durable.
    world.must(grant.entry(Sha256Digest::of(b"evidence")));
    world.pass(100);
    let denial = ask(&world, 2).err().unwrap();
    assert_eq!(denial.code(), "budget-releases");
    assert!(matches!(denial.reason(), DenialReason::Budget(BudgetRefusal::Over(_))));
    let explained = denial.reason().explain();
    assert_eq!(
        (explained.claim, explained.expected.as_str()),
        ("budget", "at most 1 releases in one hour of the vault")
    );
    let seen = format!(
        "1 used and 1 more asked for; passes at {} if nothing else is released or renewed and the keeper runs until then",
        at.plus(HOUR)
    );
    assert_eq!((explained.seen, explained.policy_key.as_deref()), (seen, Some("budget.b.releases_per_hour")));
    // Asked at that time, without an entry in between, it does.
    world.now = at.plus(HOUR - 1);
    assert!(ask(&world, 2).is_err());
    world.now = at.plus(HOUR);
    assert!(ask(&world, 2).is_ok());
}

#[test]
fn a_use_names_limit_use_and_window_end() {
    let mut world = World::with_budgets(&budget("vault", "refuse", "bytes_per_day = \"1MiB\"\nreleases_per_hour = 9"));
    let at = world.now;
    world.must_release(1);
    world.pass(60);
    world.must_release(2);
    let uses = world.vault().budget_uses(world.now);
    let lines: Vec<_> = uses.iter().map(|line| (line.unit, line.limit, line.used, line.frees_at)).collect();
    assert_eq!(
        lines,
        [(BudgetUnit::Bytes, 1 << 20, 2200, Some(at.plus(DAY))), (BudgetUnit::Releases, 9, 2, Some(at.plus(HOUR)))]
    );
    assert_eq!((uses[0].budget.as_str(), &uses[0].of, uses[0].raised), ("b", &BudgetOf::Vault, 0));
}

#[test]
fn a_restart_refills_nothing() {
    let mut world = World::with_budgets(&budget("vault", "refuse", "releases_per_hour = 1"));
    world.must_release(1);
    world.pass(600);
    let entry = world.end(world.release(1).lease);
    world.must(entry);
    // However long the keeper was away: 600 seconds of the hour were measured.
    world.pass(10 * DAY);
    let entry = world.start(1);
    world.must(entry);
    let release = world.release(2);
    assert_eq!(world.excess(release).passes_at, Some(world.now.plus(HOUR - 600)));
    world.pass(HOUR - 601);
    assert_eq!(world.releases(2..3, platform(1)), 0);
    world.pass(1);
    assert_eq!(world.releases(2..3, platform(1)), 1);
}

#[test]
fn a_clock_that_is_set_ahead_refills_nothing() {
    let mut world = World::with_budgets(&budget("vault", "refuse", "releases_per_hour = 1"));
    world.must_release(1);
    world.jump(10 * DAY);
    let release = world.release(2);
    assert_eq!(world.excess(release).passes_at, Some(world.now.plus(HOUR)));
    // Part of a gap may be measured.
    world.pass(HOUR);
    let entry = Entry::Clock(ClockJump { time: world.now, unmeasured: 1 });
    world.must(entry);
    assert_eq!(world.releases(2..3, platform(1)), 0);
    world.pass(1);
    assert_eq!(world.releases(2..3, platform(1)), 1);
}

#[test]
fn a_clock_entry_says_something_and_not_more_than_can_be() {
    let mut world = World::with_model();
    let jump = |world: &World, unmeasured| Entry::Clock(ClockJump { time: world.now, unmeasured });
    world.pass(10);
    for unmeasured in [0, 11, u64::MAX] {
        let entry = jump(&world, unmeasured);
        assert_eq!(world.refusal(entry), FoldError::UnmeasuredImpossible, "{unmeasured}");
    }
    let entry = jump(&world, 10);
    world.must(entry);
    // Its time is used up.
    let entry = jump(&world, 1);
    assert_eq!(world.refusal(entry), FoldError::UnmeasuredImpossible);
}

#[test]
fn a_new_policy_empties_no_window() {
    let text = budget("vault", "refuse", "releases_per_hour = 2");
    let mut world = World::with_budgets(&text);
    assert_eq!(world.releases(0..5, platform(1)), 2);
    // Under another name, of another subject, and with another limit.
    world.must_change_policy(|policy| {
        policy.replace("[budget.b]", "[budget.other]").replace("per = \"vault\"", "per = \"model\"")
    });
    let release = world.release(9);
    assert_eq!(world.excess(release).used, 2);
    world.policy_text = world.next_policy(|policy| policy);
    let uses = world.vault().budget_uses(world.now);
    assert_eq!((uses[0].budget.as_str(), uses[0].used), ("other", 2));
}
