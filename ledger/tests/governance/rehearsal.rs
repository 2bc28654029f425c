//! A past under another policy: budgets, alarms, approvals and leases, each by one change of the log or of the policy.

use attestation::Sha256Digest;
use ledger::decide::{DenialReason, OpenQuestion, PastBytes, Replayed, replay};
use ledger::entry::{Entry, Release};
use ledger::permit::{Permit, PermitKind};
use ledger::policy::Policy;
use ledger::state::Rehearsal;

use crate::extensions;
use crate::replay::{rehearsal, request_of};
use crate::revocations;
use crate::support::budget::{budget, platform, releases};
use crate::support::permit::asking;
use crate::support::world::{World, rule};

fn under(world: &World, change: impl FnOnce(String) -> String) -> Rehearsal {
    rehearsal(world, Policy::parse(&change(world.policy_text.clone())).unwrap())
}

/// Why one more release would not have come through; `None`: nothing but its evidence is missing.
fn held(world: &World, past: &Rehearsal, release: &Release) -> Option<DenialReason> {
    match replay(world.vault(), &past.allowances(), &request_of(release)) {
        Replayed::Refused(reason) => Some(*reason),
        Replayed::Open(OpenQuestion::Evidence) => None,
        other => panic!("{other:?}"),
    }
}

fn code(world: &World, past: &Rehearsal, release: &Release) -> Option<&'static str> {
    held(world, past, release).map(|reason| reason.code())
}

/// Two releases to platform 1.
fn two() -> World {
    let mut world = World::with_model();
    for n in 1..3 {
        let release = world.release_to(n, platform(1));
        world.must(Entry::Release(Box::new(release)));
    }
    world
}

#[test]
fn a_budget_counts_what_was_released_before_there_was_one() {
    let world = two();
    let more = world.release_to(9, platform(1));
    let with = |per: &str, over: &str, limits: &str| under(&world, |text| text + &budget(per, over, limits));
    for (limits, good, code_of) in [
        ("releases_per_hour = 2", "releases_per_hour = 3", "budget-releases"),
        ("bytes_per_day = \"3299B\"", "bytes_per_day = \"3300B\"", "budget-bytes"),
        ("leases = 2", "leases = 3", "budget-leases"),
    ] {
        assert_eq!(code(&world, &with("vault", "refuse", limits), &more), Some(code_of), "{limits}");
        assert_eq!(code(&world, &with("vault", "hold", limits), &more), Some("held-for-approval"), "{limits}");
        assert_eq!(code(&world, &with("vault", "refuse", good), &more), None, "{good}");
    }
    let platforms = with("vault", "refuse", "platforms_per_day = 1");
    assert_eq!(code(&world, &platforms, &more), None);
    let other = world.release_to(9, platform(2));
    assert_eq!(code(&world, &platforms, &other), Some("budget-platforms"));
    assert_eq!(code(&world, &with("platform", "refuse", "releases_per_hour = 2"), &other), None);
    let reason = held(&world, &with("vault", "hold", "releases_per_hour = 2"), &more).unwrap();
    assert!(reason.waits());
    assert!(!held(&world, &with("vault", "refuse", "releases_per_hour = 2"), &more).unwrap().waits());
}

#[test]
fn a_window_slides_by_the_time_that_the_keeper_measured() {
    let hourly = |text: String| text + &budget("vault", "refuse", "releases_per_hour = 2");
    let mut world = two();
    world.pass(3600);
    let more = world.release_to(9, platform(1));
    assert_eq!(code(&world, &under(&world, hourly), &more), None);
    let mut away = two();
    away.pass(3600);
    let start = away.start(1);
    away.must(start);
    let more = away.release_to(9, platform(1));
    assert_eq!(code(&away, &under(&away, hourly), &more), Some("budget-releases"));
}

#[test]
fn bytes_that_are_not_known_are_neither_yes_nor_no_where_a_budget_asks() {
    let world = two();
    let past = under(&world, |text| text + &budget("vault", "refuse", "bytes_per_day = \"3000B\""));
    let more = world.release_to(9, platform(1));
    let of = |least, most| {
        let mut request = request_of(&more);
        request.bytes = PastBytes { least, most };
        replay(world.vault(), &past.allowances(), &request)
    };
    assert_eq!(of(1, 800), Replayed::Open(OpenQuestion::Evidence));
    assert!(matches!(of(801, 1707), Replayed::Refused(reason) if reason.code() == "budget-bytes"));
    let shown = |replayed| matches!(replayed, Replayed::Open(OpenQuestion::Evidence | OpenQuestion::Bytes));
    assert!(shown(of(1, 1707)));
}

#[test]
fn what_people_agreed_to_counts_until_its_end() {
    let mut world = World::with_budgets(&budget("vault", "hold", "releases_per_hour = 2"));
    assert_eq!(world.releases(1..3, platform(1)), 2);
    world.must_raise(releases(2));
    let as_it_was = |world: &World| under(world, |text| text);
    let one = world.release_to(3, platform(1));
    assert_eq!(code(&world, &as_it_was(&world), &one), None);
    assert_eq!(world.releases(3..5, platform(1)), 2, "the raise is used up");
    let more = world.release_to(9, platform(1));
    assert_eq!(code(&world, &as_it_was(&world), &more), Some("held-for-approval"));
    // Under a wider budget nobody needed it.
    let wider = under(&world, |text| text.replace("releases_per_hour = 2", "releases_per_hour = 4"));
    assert_eq!(code(&world, &wider, &more), None);
}

#[test]
fn a_rule_that_asks_for_approvals_takes_those_that_were_given() {
    let mut world = World::asking("");
    let release = world.release_to(1, platform(1));
    let as_it_was = |world: &World| under(world, |text| text);
    assert_eq!(code(&world, &as_it_was(&world), &release), Some("release-not-approved"));
    let only = Permit { platform: Some(platform(1)), ..world.permit(PermitKind::Standing, 1) };
    world.must_permit(&only);
    assert_eq!(code(&world, &as_it_was(&world), &release), None);
    let other = world.release_to(2, platform(2));
    assert_eq!(code(&world, &as_it_was(&world), &other), Some("release-not-approved"));
    assert!(world.lets_through(1, platform(1)));
    let more = world.release_to(3, platform(1));
    assert_eq!(code(&world, &as_it_was(&world), &more), Some("release-not-approved"));
    let glass = world.permit(PermitKind::BreakGlass, 1);
    world.must_permit(&glass);
    assert_eq!(code(&world, &as_it_was(&world), &more), None);
    // In a past of which nobody asked for approvals, none were given.
    let world = two();
    let more = world.release_to(9, platform(1));
    assert_eq!(code(&world, &under(&world, asking), &more), Some("release-not-approved"));
}

#[test]
fn an_alarm_that_holds_holds_what_it_does_not_know_yet() {
    let world = two();
    let alarm = |on: &str, then: &str| {
        under(&world, |text| text + &format!("\n[alarm.a]\nmodels = \"any\"\non = {on}\nthen = \"{then}\"\n"))
    };
    let (known, new) = (world.release_to(9, platform(1)), world.release_to(9, platform(2)));
    let holding = alarm("\"new-platform\"", "hold");
    assert_eq!(code(&world, &holding, &known), None);
    let reason = held(&world, &holding, &new).unwrap();
    assert_eq!((reason.code(), reason.waits()), ("held-by-alarm", true));
    assert_eq!(code(&world, &alarm("\"new-platform\"", "alarm"), &new), None);
    assert_eq!(code(&world, &alarm("\"canary\"", "hold"), &known), Some("held-by-alarm"));
    assert_eq!(code(&world, &alarm("\"more-leases\"\nmore_than = 2", "hold"), &known), Some("held-by-alarm"));
    assert_eq!(code(&world, &alarm("\"more-leases\"\nmore_than = 3", "hold"), &known), None);
}

#[test]
fn leases_take_places_from_their_release_to_their_end() {
    let mut world = two();
    let count = |world: &World| under(world, |text| text).allowances().lease_count(&rule(), world.now);
    assert_eq!(count(&world), 2);
    let lease = world.release_to(1, platform(1)).lease;
    world.pass(600);
    let renew = world.renew(vec![world.renewal(lease)]);
    world.must(renew);
    world.pass(600);
    assert_eq!(count(&world), 1, "the other one ran out");
    let end = world.end(lease);
    world.must(end);
    assert_eq!(count(&world), 0);
}

/// With nothing changed the past is what it was: whatever the vault has left, the rehearsal has.
#[test]
fn a_past_under_its_own_policy_is_as_it_was() {
    let rules = budget("platform", "hold", "releases_per_hour = 2\nbytes_per_day = \"9000B\"\nleases = 9");
    let mut world = World::with_policy(|text| {
        asking(text.replace("threshold = 2\n", "threshold = 2\nrevoke_threshold = 1\n")) + &rules
    })
    .opened()
    .published();
    let same = |world: &World| {
        let past = under(world, |text| text);
        let (past, vault) = (past.allowances(), world.vault().allowances());
        for after in [0, 500, 3600, 90_000] {
            let now = world.now.plus(after);
            assert_eq!(past.budget_uses(now), vault.budget_uses(now), "{after} s later");
            assert_eq!(past.lease_count(&rule(), now), vault.lease_count(&rule(), now));
        }
        assert_eq!(past.permits(), vault.permits());
    };
    let standing = world.permit(PermitKind::Standing, 20);
    world.must_permit(&standing);
    for n in 1..4 {
        world.lets_through(n, platform(1));
        world.pass(60);
        same(&world);
    }
    world.must_raise(releases(1));
    assert!(world.lets_through(4, platform(1)));
    same(&world);
    let start = world.start(1);
    world.must(start);
    same(&world);
    world.jump(50);
    let glass = world.permit(PermitKind::BreakGlass, 1);
    world.must_permit(&glass);
    assert!(world.lets_through(5, platform(1)));
    same(&world);
    let lease = world.release_to(1, platform(1)).lease;
    let renew = world.renew(vec![world.renewal(lease)]);
    world.must(renew);
    let extension = extensions::all(&world);
    let approvals = extensions::approvals(&world, &extension, &[1, 2]);
    let leases = world.vault().leases(world.now).count() as u32;
    world.must(Entry::Extend(ledger::entry::Extend { time: world.now, extension, approvals, leases }));
    same(&world);
    let revoked = revocations::scope(&format!(r#"{{"by":"lease","lease":"{lease}"}}"#));
    revocations::must_revoke(&mut world, revoked, 1);
    let end = world.end(lease);
    world.must(end);
    same(&world);
    world.pass(100_000);
    let start = world.start(2);
    world.must(start);
    same(&world);
}

/// Nothing of another vault's evidence is looked at: a request without any is no grant.
#[test]
fn a_request_without_evidence_stays_open() {
    let world = two();
    let past = under(&world, |text| text);
    let more = Release { platform: Sha256Digest::of(b"stranger"), ..world.release(9) };
    let replayed = replay(world.vault(), &past.allowances(), &request_of(&more));
    assert_eq!(replayed, Replayed::Open(OpenQuestion::Evidence));
}
