//! Standing approvals and break-glass.

use attestation::UnixTime;
use ledger::approvals::ApprovalAction;
use ledger::entry::{Entry, PermitInForce, Proposal, Release, Revoke};
use ledger::permit::{BREAK_GLASS_SECS_MAX, PERMIT_RELEASES_MAX, Permit, PermitKind, STANDING_SECS_MAX};
use ledger::policy::{Policy, describe_change};
use ledger::state::{FoldError, PERMITS_MAX, Subject, UsedPermits};

use crate::support::budget::{budget, platform};
use crate::support::keys::Person;
use crate::support::permit::asking;
use crate::support::policy_text::{LAUNCH_GUEST, PCR_0, PCR_11_GUEST, PCR_11_KEEPER, first};
use crate::support::world::{ALICE, BOB, CAROL, World};

const KINDS: [PermitKind; 2] = [PermitKind::Standing, PermitKind::BreakGlass];
/// Every release rings and is held.
const HOLDS: &str = "\n[alarm.odd]\nmodels = \"any\"\non = \"canary\"\nthen = \"hold\"\n";

fn release(world: &World, n: u32) -> Entry {
    Entry::Release(Box::new(world.release(n)))
}

#[test]
fn a_rule_that_asks_for_approvals_releases_nothing_without_one() {
    let mut world = World::asking("");
    let entry = release(&world, 1);
    assert_eq!(world.refusal(entry), FoldError::ReleaseNotApproved);
}

#[test]
fn a_standing_approval_lets_so_many_releases_through_until_its_end() {
    let mut world = World::asking("");
    let permit = world.permit(PermitKind::Standing, 2);
    world.must_permit(&permit);
    let first = world.release(1);
    let used = UsedPermits { standing: Some(world.state.size() - 1), break_glass: None };
    assert_eq!(world.vault().permits_used(&first), Some(used));
    assert!(world.lets_through(1, platform(1)) && world.lets_through(2, platform(2)));
    assert_eq!(world.permits_left(), [0]);
    let entry = release(&world, 3);
    assert_eq!(world.refusal(entry), FoldError::ReleaseNotApproved);
    // Another one, whose end passes.
    world.pass(1);
    let permit = world.permit(PermitKind::Standing, 9);
    world.must_permit(&permit);
    world.pass(3600);
    assert!(world.lets_through(4, platform(1)));
    world.pass(1);
    let entry = release(&world, 5);
    assert_eq!(world.refusal(entry), FoldError::ReleaseNotApproved);
    assert_eq!(world.vault().alarm_count(), 0);
}

/// Each thing that a permit names, changed to what the release is not.
#[test]
fn a_permit_is_for_what_it_names_alone() {
    let other = format!("11={PCR_11_KEEPER}");
    let changes: [fn(&mut Permit, &str); 4] = [
        |permit, _| permit.model = "llama".parse().unwrap(),
        |permit, _| permit.version = Some("2.0".parse().unwrap()),
        |permit, _| permit.platform = Some(platform(9)),
        |permit, other| permit.pcrs = Some(other.parse().unwrap()),
    ];
    for kind in KINDS {
        for change in changes {
            let mut world = World::with_policy(|text| {
                asking(text).replace("[release.minilm]\nmodels = [\"minilm\"]", "[release.minilm]\nmodels = \"any\"")
            });
            world = world.opened().published();
            let mut permit = world.permit(kind, 1);
            change(&mut permit, &other);
            world.must_permit(&permit);
            let entry = release(&world, 1);
            assert_eq!(world.refusal(entry), FoldError::ReleaseNotApproved, "{permit}");
        }
    }
    // The same things as the release has them.
    let mut world = World::asking("");
    let mut permit = world.permit(PermitKind::Standing, 1);
    permit.version = Some("1.0".parse().unwrap());
    permit.platform = Some(platform(1));
    permit.pcrs = Some(format!("0={PCR_0},11={PCR_11_GUEST}").parse().unwrap());
    world.must_permit(&permit);
    assert!(world.lets_through(1, platform(1)));
}

/// What a release does not say of itself it is not taken to be: the opposite of a revocation.
#[test]
fn a_release_without_marks_has_no_image() {
    let mut world = World::asking("");
    let mut permit = world.permit(PermitKind::Standing, 1);
    permit.pcrs = Some(format!("11={PCR_11_GUEST}").parse().unwrap());
    world.must_permit(&permit);
    let unmarked = Release { marks: None, ..world.release(1) };
    assert_eq!(world.refusal(Entry::Release(Box::new(unmarked))), FoldError::ReleaseNotApproved);
    assert!(world.lets_through(1, platform(1)));
    // A launch digest is not shown by a TPM.
    let mut world = World::asking("");
    let mut permit = world.permit(PermitKind::Standing, 1);
    permit.launch = Some(hex::decode(LAUNCH_GUEST).unwrap().try_into().unwrap());
    world.must_permit(&permit);
    assert!(!world.lets_through(1, platform(1)));
}

#[test]
fn the_standing_approval_that_ends_first_is_used_first() {
    let mut world = World::asking("");
    let late = Permit { until: world.now.plus(7200), ..world.permit(PermitKind::Standing, 1) };
    world.must_permit(&late);
    let soon = world.permit(PermitKind::Standing, 1);
    world.must_permit(&soon);
    assert!(world.lets_through(1, platform(1)));
    assert_eq!(world.permits_left(), [1, 0]);
}

#[test]
fn a_permit_that_was_approved_is_not_approved_again() {
    for kind in KINDS {
        let mut world = World::asking("");
        let permit = world.permit(kind, 1);
        let proposed = world.proposed_permit(&permit);
        let approvals = world.must_permit(&permit);
        assert!(world.lets_through(1, platform(1)));
        // The host sends it all again.
        let again = world.propose(Proposal::Permit(proposed.clone()));
        assert_eq!(world.refusal(again), FoldError::PermitRepeated);
        assert_eq!(world.refusal(approvals[0].clone()), FoldError::ProposalUnknown);
        let effect = world.permitted(world.state.size() - 5, &permit);
        assert_eq!(world.refusal(effect), FoldError::ProposalUnknown);
        assert!(!world.lets_through(2, platform(1)));
        // Also when its end is past.
        world.pass(3601);
        let entry = world.propose(Proposal::Permit(proposed));
        assert!(matches!(world.refusal(entry), FoldError::StatementExpired { .. }));
    }
}

/// The refusal of a good proposal after one change; what is signed fits it.
fn refusal(kind: PermitKind, change: impl FnOnce(&mut Permit)) -> FoldError {
    let mut world = World::asking("");
    let mut permit = world.permit(kind, 1);
    change(&mut permit);
    let entry = world.propose(Proposal::Permit(world.proposed_permit(&permit)));
    world.refusal(entry)
}

#[test]
fn a_permit_is_of_a_rule_and_a_model_for_some_releases_and_a_bounded_time() {
    for (kind, secs_max) in [(PermitKind::Standing, STANDING_SECS_MAX), (PermitKind::BreakGlass, BREAK_GLASS_SECS_MAX)]
    {
        assert_eq!(refusal(kind, |permit| permit.rule = "other".parse().unwrap()), FoldError::RuleUnknown);
        assert_eq!(refusal(kind, |permit| permit.model = "llama".parse().unwrap()), FoldError::ModelNotInRule);
        for releases in [0, PERMIT_RELEASES_MAX + 1] {
            let refused = refusal(kind, |permit| permit.releases = releases);
            assert_eq!(refused, FoldError::PermitReleases { releases });
        }
        let now = World::asking("").now;
        for until in [now.plus(secs_max + 1), UnixTime(now.seconds() - 1)] {
            assert_eq!(refusal(kind, |permit| permit.until = until), FoldError::PermitUntil { kind, until });
        }
    }
}

#[test]
fn a_permit_is_signed_as_what_it_is() {
    for kind in KINDS {
        let mut world = World::asking("");
        let permit = world.permit(kind, 1);
        let good = world.proposed_permit(&permit);
        let mut other = good.clone();
        other.permit.releases = 2;
        let entry = world.propose(Proposal::Permit(other));
        assert_eq!(world.refusal(entry), FoldError::ObjectMismatch);
        // A signature that proposes the other of the two, or approves.
        let wrong = match kind {
            PermitKind::Standing => ApprovalAction::ProposeBreakGlass,
            PermitKind::BreakGlass => ApprovalAction::ProposeStanding,
        };
        for action in [wrong, kind.approval()] {
            let statement = world.statement(action, permit.object()).encode();
            let mut other = good.clone();
            other.signature = Person::new(ALICE).sign(&statement);
            other.statement = String::from_utf8(statement).unwrap();
            let entry = world.propose(Proposal::Permit(other));
            assert_eq!(world.refusal(entry), FoldError::ActionMismatch);
        }
        let proposal = world.state.size();
        let entry = world.propose(Proposal::Permit(good));
        world.must(entry);
        for action in [wrong, kind.proposal(), ApprovalAction::Budget] {
            let entry = world.approve(BOB, action, permit.object());
            assert_eq!(world.refusal(entry), FoldError::ActionMismatch);
        }
        // Its proposer does not count, and one is not two.
        let entry = world.approve(ALICE, kind.approval(), permit.object());
        assert!(matches!(world.refusal(entry), FoldError::ProposerMayNotApprove { .. }));
        let entry = world.approve(BOB, kind.approval(), permit.object());
        world.must(entry);
        let entry = world.permitted(proposal, &permit);
        assert_eq!(world.refusal(entry), FoldError::ThresholdNotReached { given: 1, threshold: 2 });
        let entry = world.approve(CAROL, kind.approval(), permit.object());
        world.must(entry);
        assert!(matches!(world.vault().due(world.now).unwrap().subject(), Subject::Permit { .. }));
        // The effect says what was approved.
        let other = if kind == PermitKind::Standing { PermitKind::BreakGlass } else { PermitKind::Standing };
        let Entry::Permit(effect) = world.permitted(proposal, &permit) else { unreachable!() };
        let entry = Entry::Permit(PermitInForce { kind: other, ..effect.clone() });
        assert_eq!(world.refusal(entry), FoldError::ObjectMismatch);
        let object = world.policy().digest();
        let entry = Entry::Permit(PermitInForce { object, ..effect.clone() });
        assert_eq!(world.refusal(entry), FoldError::ObjectMismatch);
        world.must(Entry::Permit(effect));
    }
}

#[test]
fn what_the_policy_does_not_ask_for_is_not_permitted() {
    let standing = "max_leases = 4\n";
    let mut world = World::with_policy(|text| asking(text).replace("max_leases = 1000\napprovals = 2\n", standing));
    world = world.opened().published();
    let entry = world.propose(Proposal::Permit(world.proposed_permit(&world.permit(PermitKind::Standing, 1))));
    assert_eq!(world.refusal(entry), FoldError::StandingNotAsked);
    let mut world = World::with_policy(|text| asking(text).replace("break_glass_threshold = 2\n", ""));
    world = world.opened().published();
    let entry = world.propose(Proposal::Permit(world.proposed_permit(&world.permit(PermitKind::BreakGlass, 1))));
    assert_eq!(world.refusal(entry), FoldError::BreakGlassNotAllowed);
}

/// Approvers change, and so does what they would agree to.
#[test]
fn a_policy_ends_what_it_does_not_list_and_break_glass_in_any_case() {
    let mut world = World::asking("");
    let ended = world.permit(PermitKind::Standing, 5);
    world.must_permit(&ended);
    world.pass(1);
    let listed = world.permit(PermitKind::Standing, 5);
    world.must_permit(&listed);
    let glass = world.permit(PermitKind::BreakGlass, 5);
    world.must_permit(&glass);
    assert!(world.lets_through(1, platform(1)));
    assert_eq!(world.permits_left(), [4, 5, 5]);
    // One that waits is void too.
    world.pass(1);
    let waits = world.permit(PermitKind::Standing, 5);
    let entry = world.propose(Proposal::Permit(world.proposed_permit(&waits)));
    world.must(entry);
    let list = format!("standing = [\"{}\", \"{}\"]\n", listed.object(), glass.object());
    world.must_change_policy(|text| text.replace("threshold = 2\nbreak", &format!("{list}threshold = 2\nbreak")));
    let objects: Vec<_> = world.vault().permits().iter().map(|active| active.object).collect();
    assert_eq!(objects, [listed.object()]);
    assert_eq!(world.vault().pending(world.now).count(), 0);
    assert!(world.lets_through(2, platform(1)));
    assert_eq!(world.permits_left(), [4]);
    // What was signed under the policy before proposes nothing under this one: the statement names another.
    world.must_change_policy(|text| text.replace(&list, ""));
    assert!(world.vault().permits().is_empty());
    let entry = release(&world, 3);
    assert_eq!(world.refusal(entry), FoldError::ReleaseNotApproved);
}

#[test]
fn permits_of_a_kind_have_a_limit_and_leave_room_for_the_other() {
    let mut world = World::asking("");
    for n in 1..=PERMITS_MAX as u64 {
        let permit = world.permit(PermitKind::Standing, n);
        world.must_permit(&permit);
    }
    let permit = world.permit(PermitKind::Standing, 1000);
    let proposal = world.state.size();
    let entry = world.propose(Proposal::Permit(world.proposed_permit(&permit)));
    world.must(entry);
    for person in [BOB, CAROL] {
        let entry = world.approve(person, ApprovalAction::Standing, permit.object());
        world.must(entry);
    }
    let entry = world.permitted(proposal, &permit);
    assert_eq!(world.refusal(entry), FoldError::TooManyPermits);
    // It waits, and what can take effect behind it does.
    assert!(world.vault().due(world.now).is_none());
    let glass = world.permit(PermitKind::BreakGlass, 1);
    world.must_permit(&glass);
}

#[test]
fn break_glass_passes_budgets_and_missing_approvals_and_each_release_rings() {
    let mut world = World::asking(&budget("vault", "refuse", "releases_per_hour = 1"));
    let standing = world.permit(PermitKind::Standing, 9);
    world.must_permit(&standing);
    assert!(world.lets_through(1, platform(1)) && !world.lets_through(2, platform(1)));
    let glass = world.permit(PermitKind::BreakGlass, 2);
    world.must_permit(&glass);
    let used = world.vault().permits_used(&world.release(2)).unwrap();
    assert!(used.standing.is_some() && used.break_glass.is_some());
    assert!(world.lets_through(2, platform(1)));
    let alarm = world.vault().alarms().next().unwrap().clone();
    assert_eq!((alarm.entry, world.vault().alarm_count()), (world.state.size() - 1, 1));
    assert_eq!(alarm.rules, ["break-glass".parse().unwrap()]);
    // What passed counts, and what is used up passes nothing.
    assert_eq!(world.vault().budget_uses(world.now)[0].used, 2);
    assert!(world.lets_through(3, platform(1)) && !world.lets_through(4, platform(1)));
    // Where nothing stops a release, break-glass is not used.
    world.pass(3590);
    assert_eq!(world.permits_left(), [6, 0]);
}

#[test]
fn break_glass_is_not_used_where_nothing_stops_a_release() {
    let mut world = World::asking("");
    let (standing, glass) = (world.permit(PermitKind::Standing, 1), world.permit(PermitKind::BreakGlass, 1));
    world.must_permit(&standing);
    world.must_permit(&glass);
    assert!(world.lets_through(1, platform(1)));
    assert_eq!((world.permits_left(), world.vault().alarm_count()), (vec![0, 1], 0));
    assert!(world.lets_through(2, platform(1)));
    assert_eq!((world.permits_left(), world.vault().alarm_count()), (vec![0, 0], 1));
}

/// The release is announced all the same: break-glass lets it pass a hold, not the rule that rings.
#[test]
fn break_glass_passes_alarms_that_hold_and_silences_none() {
    let mut world = World::asking(HOLDS);
    let glass = world.permit(PermitKind::BreakGlass, 2);
    let announced = |world: &mut World, n: u32| {
        let release = world.release(n);
        let (time, lease) = (world.now, release.lease);
        let rules = vec!["odd".parse().unwrap()];
        world.must(Entry::Alarm(ledger::entry::AlarmEntry { time, lease, rules, measurement: None }));
        world.try_release(release)
    };
    assert_eq!(announced(&mut world, 1), Err(FoldError::AlarmHeld { alarm: "odd".parse().unwrap() }));
    world.must_permit(&glass);
    let entry = release(&world, 2);
    assert_eq!(world.refusal(entry), FoldError::AlarmMismatch);
    assert_eq!(announced(&mut world, 3), Ok(()));
    let rules = &world.vault().alarms().next().unwrap().rules;
    assert_eq!(rules.iter().map(ToString::to_string).collect::<Vec<_>>(), ["odd", "break-glass"]);
    assert_eq!(world.permits_left(), [1]);
}

/// It opens none of what a rule, a revocation or the log asks for.
#[test]
fn break_glass_passes_nothing_else() {
    let changes: [fn(&mut Release); 4] = [
        |release| release.renew_by = release.renew_by.plus(1),
        |release| release.marks = Some(serde_json::from_str(r#"{"groups":["header"]}"#).unwrap()),
        |release| release.manifest = release.evidence,
        |release| release.lease = release.evidence,
    ];
    let codes = ["renew-by-mismatch", "marks-impossible", "manifest-mismatch", "lease-id-mismatch"];
    for (change, code) in changes.into_iter().zip(codes) {
        let mut world = World::asking("");
        let glass = world.permit(PermitKind::BreakGlass, 9);
        world.must_permit(&glass);
        let mut release = world.release(1);
        change(&mut release);
        assert_eq!(world.refusal(Entry::Release(Box::new(release))).code(), code);
        assert!(world.lets_through(1, platform(1)));
    }
    let mut world = World::asking("");
    let glass = world.permit(PermitKind::BreakGlass, 9);
    world.must_permit(&glass);
    assert!(world.lets_through(0, platform(1)));
    let scope = ledger::revocation::Scope::Model { model: "minilm".parse().unwrap(), version: None };
    let act = crate::revocations::revoke(&world, scope);
    let proposal = crate::revocations::must_propose(&mut world, ALICE, act.clone());
    let entry = world.approve(BOB, ApprovalAction::Revoke, act.object());
    world.must(entry);
    let (time, object) = (world.now, act.object());
    world.must(Entry::Revoke(Revoke { time, proposal, object, act: act.kind(), leases: 1 }));
    let entry = release(&world, 1);
    assert!(matches!(world.refusal(entry), FoldError::Revoked { .. }));
}

#[test]
fn thresholds_of_permits_are_held_to_who_can_sign() {
    let glass = |n: u32| first().replace("threshold = 2\n", &format!("threshold = 2\nbreak_glass_threshold = {n}\n"));
    assert_eq!(Policy::parse(&glass(2)).unwrap().approval().break_glass_threshold, Some(2));
    assert_eq!(Policy::parse(&first()).unwrap().approval().break_glass_threshold, None);
    for (n, code) in
        [(0, "policy-threshold-zero"), (1, "policy-break-glass-easier"), (3, "policy-threshold-unreachable")]
    {
        let error = Policy::parse(&glass(n)).unwrap_err();
        assert_eq!((error.key.as_str(), error.code()), ("approval.break_glass_threshold", code));
    }
    let approvals = |n: u32| first().replace("max_leases = 4\n", &format!("max_leases = 4\napprovals = {n}\n"));
    let rule = |text: &str| Policy::parse(text).unwrap().release_rules().values().next().unwrap().approvals;
    assert_eq!((rule(&approvals(1)), rule(&first())), (Some(1), None));
    for (n, code) in [(0, "policy-threshold-zero"), (3, "policy-threshold-unreachable")] {
        let error = Policy::parse(&approvals(n)).unwrap_err();
        assert_eq!((error.key.as_str(), error.code()), ("release.minilm.approvals", code));
    }
    let listed = |list: &str| first().replace("threshold = 2\n", &format!("threshold = 2\nstanding = {list}\n"));
    for (list, code) in [("[]", "policy-list-empty"), ("[\"sha256:4\"]", "policy-digest-malformed")] {
        assert_eq!(Policy::parse(&listed(list)).unwrap_err().code(), code);
    }
}

#[test]
fn changes_of_what_approvers_let_through_are_told() {
    let parse = |text: &str| Policy::parse(text).unwrap();
    let (none, some) = (parse(&first()), parse(&asking(first()).replace("max_leases = 1000", "max_leases = 4")));
    let told = describe_change(&none, &some);
    assert_eq!(told[0], "LOOSER: approval.break_glass_threshold is new: 2");
    assert_eq!(told[1], "stricter: release.minilm.approvals is new: 2");
    let told = describe_change(&some, &none);
    assert_eq!(told[0], "LOOSER: release.minilm.approvals is gone, before 2");
    assert_eq!(told[1], "stricter: approval.break_glass_threshold is gone, before 2");
    let fewer = parse(&first().replace("max_leases = 4\n", "max_leases = 4\napprovals = 1\n"));
    let told = describe_change(&some, &fewer);
    assert!(told.contains(&"LOOSER: release.minilm.approvals is 1, before 2".to_owned()), "{told:?}");
    let digest = none.digest();
    let listed = parse(&first().replace("threshold = 2\n", &format!("threshold = 2\nstanding = [\"{digest}\"]\n")));
    let told = describe_change(&none, &listed);
    assert!(told[0].starts_with(&format!("LOOSER: the standing approval {digest} goes on")), "{told:?}");
}
