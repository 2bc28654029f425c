//! Alarm rules: what they are, when they ring, and that nothing that rings goes by in silence.

use attestation::{Sha256Digest, UnixTime};
use ledger::approvals::{ApprovalAction, raise_object};
use ledger::decide::{DenialReason, decide};
use ledger::entry::{AlarmEntry, BudgetRaised, Entry, Proposal, ProposedRaise, Release};
use ledger::names::{Name, Version};
use ledger::policy::{ALARMS_MAX, AlarmOn, AlarmThen, Policy, PolicyError, describe_change};
use ledger::state::{ALARMS_SHOWN_MAX, FoldError, LoggedManifest};

use crate::support::budget::{platform, releases};
use crate::support::evidence::Guest;
use crate::support::keys::Person;
use crate::support::policy_text::first;
use crate::support::world::{ALICE, BOB, CAROL, World};

const D: Sha256Digest = Sha256Digest::from_bytes([0x44; 32]);

/// One rule of each kind.
const RULES: &str = r#"
[alarm.night]
models = ["minilm"]
on = "outside-hours"
hours = "08:00-20:00"
days = ["mon", "tue", "wed", "thu", "fri"]
then = "alarm"

[alarm.scale]
models = "any"
on = "more-leases"
more_than = 2
then = "hold"
"#;

fn rule(on: &str, then: &str) -> String {
    format!("\n[alarm.a]\nmodels = \"any\"\non = {on}\nthen = \"{then}\"\n")
}

fn with(rules: &str) -> Result<Policy, PolicyError> {
    Policy::parse(&(first() + rules))
}

#[track_caller]
fn refused(from: &str, to: &str, key: &str, code: &str) {
    assert_eq!(RULES.matches(from).count(), 1, "{from:?} must stand there exactly once");
    let error = with(&RULES.replace(from, to)).expect_err("must be refused");
    assert_eq!((error.key.as_str(), error.code()), (key, code), "{error}");
}

#[test]
fn a_rule_says_exactly_what_its_text_says() {
    let policy = with(RULES).unwrap();
    let words: Vec<String> = policy.alarms().iter().map(|(name, rule)| format!("{name}: {rule}")).collect();
    assert_eq!(
        words,
        [
            "night: on a release outside 08:00-20:00 UTC on mon, tue, wed, thu, fri, models minilm, then alarm",
            "scale: on more than 2 leases at once, models any, then hold",
        ]
    );
    for (on, kind) in [
        ("\"new-platform\"", AlarmOn::NewPlatform),
        ("\"new-measurement\"", AlarmOn::NewMeasurement),
        ("\"canary\"", AlarmOn::Canary),
    ] {
        let policy = with(&rule(on, "hold")).unwrap();
        let rule = policy.alarms().first_key_value().unwrap().1;
        assert_eq!((&rule.on, rule.then), (&kind, AlarmThen::Hold));
        assert_eq!(on, format!("{:?}", rule.on.as_str()));
    }
}

#[test]
fn nothing_of_a_rule_has_a_default_and_nothing_of_it_is_empty() {
    refused("models = \"any\"\n", "", "alarm.scale.models", "policy-key-missing");
    refused("then = \"hold\"\n", "", "alarm.scale.then", "policy-key-missing");
    refused("more_than = 2\n", "", "alarm.scale.more_than", "policy-key-missing");
    refused("more_than = 2", "more_than = 0", "alarm.scale.more_than", "policy-more-than-zero");
    refused("then = \"hold\"", "then = \"mail\"", "alarm.scale.then", "policy-alarm-then-unknown");
    refused("on = \"more-leases\"", "on = \"full-moon\"", "alarm.scale.on", "policy-alarm-on-unknown");
    refused("more_than = 2", "more_than = 2\nhours = \"08:00-20:00\"", "alarm.scale.hours", "policy-key-unknown");
    refused("\"wed\"", "\"wednesday\"", "alarm.night.days[2]", "policy-weekday-unknown");
    refused("\"wed\"", "\"tue\"", "alarm.night.days[2]", "policy-item-repeated");
    for hours in
        ["8:00-20:00", "08:00", "20:00-08:00", "08:00-08:00", "08:00-24:01", "08:60-20:00", "08:00-20:00:00", ""]
    {
        refused("\"08:00-20:00\"", &format!("{hours:?}"), "alarm.night.hours", "policy-hours-malformed");
    }
    assert!(with(&RULES.replace("08:00-20:00", "00:00-24:00")).is_ok());
    assert_eq!(with("[alarm]\n").unwrap_err().code(), "policy-alarm-empty");
}

#[test]
fn rules_are_few_and_have_no_name_of_a_budget() {
    let many = |count: usize| {
        (0..count).map(|n| rule("\"canary\"", "alarm").replace("alarm.a", &format!("alarm.a{n}"))).collect::<String>()
    };
    assert_eq!(with(&many(ALARMS_MAX)).unwrap().alarms().len(), ALARMS_MAX);
    let error = with(&many(ALARMS_MAX + 1)).unwrap_err();
    assert_eq!((error.key.as_str(), error.code()), ("alarm", "policy-too-many-alarms"));
    // A raise would not say which it means.
    let budget = crate::support::budget::budget("vault", "hold", "leases = 1").replace("budget.b", "budget.a");
    let error = with(&(budget + &rule("\"canary\"", "hold"))).unwrap_err();
    assert_eq!((error.key.as_str(), error.code()), ("alarm.a", "policy-id-repeated"));
}

#[test]
fn every_change_of_a_rule_is_named() {
    let said = |from: &str, to: &str| describe_change(&with(from).unwrap(), &with(to).unwrap());
    let change = |from: &str, to: &str| {
        assert_eq!(RULES.matches(from).count(), 1);
        let (old, new) = (RULES.to_owned(), RULES.replace(from, to));
        let [there, back] = [said(&old, &new), said(&new, &old)];
        assert_eq!((there.len(), back.len()), (1, 1), "{there:?} {back:?}");
        [there[0].split(':').next().unwrap().to_owned(), back[0].split(':').next().unwrap().to_owned()]
    };
    assert_eq!(change("more_than = 2", "more_than = 3"), ["LOOSER", "stricter"]);
    assert_eq!(change("then = \"hold\"", "then = \"alarm\""), ["LOOSER", "stricter"]);
    assert_eq!(change("models = \"any\"", "models = [\"minilm\"]"), ["LOOSER", "stricter"]);
    // Other hours are looser for somebody, whichever they are.
    assert_eq!(change("08:00-20:00", "09:00-20:00"), ["LOOSER", "LOOSER"]);
    assert_eq!(change("on = \"more-leases\"\nmore_than = 2", "on = \"canary\""), ["stricter", "LOOSER"]);
    let rule = rule("\"canary\"", "alarm");
    assert_eq!(said("", &rule), ["stricter: alarm.a is new: on any release: a canary, models any, then alarm"]);
    assert_eq!(said(&rule, ""), ["LOOSER: alarm.a is gone, before on any release: a canary, models any, then alarm"]);
}

fn ringing(rules: &str) -> World {
    World::with_budgets(rules)
}

fn names(names: &[&str]) -> Vec<Name> {
    names.iter().map(|name| name.parse().unwrap()).collect()
}

fn alarm(release: &Release, rules: &[&str], measurement: Option<Sha256Digest>) -> Entry {
    Entry::Alarm(AlarmEntry { time: release.time, lease: release.lease, rules: names(rules), measurement })
}

impl World {
    /// What the fold says of a release behind an alarm of these rules.
    fn announced(&mut self, release: &Release, rules: &[&str]) -> Result<(), FoldError> {
        if !rules.is_empty() {
            self.must(alarm(release, rules, None));
        }
        self.apply(&Entry::Release(Box::new(release.clone())))
    }

    /// Releases in silence where nothing rings, else behind an alarm of rule `a`; whether it rang.
    #[track_caller]
    fn rings(&mut self, release: &Release) -> bool {
        match self.announced(release, &[]) {
            Ok(()) => false,
            Err(error) => {
                assert_eq!(error, FoldError::AlarmMismatch);
                assert_eq!(self.announced(release, &["a"]), Ok(()));
                true
            }
        }
    }
}

#[test]
fn the_first_release_of_a_model_to_a_platform_rings_once() {
    let mut world = ringing(&rule("\"new-platform\"", "alarm"));
    let release = world.release_to(1, platform(1));
    assert!(world.rings(&release));
    let release = world.release_to(2, platform(1));
    assert!(!world.rings(&release));
    let release = world.release_to(3, platform(2));
    assert!(world.rings(&release));
    // What was released before the rule is known too.
    let mut world = ringing("");
    world.must_release(1);
    world.must_change_policy(|text| text + &rule("\"new-platform\"", "alarm"));
    let release = world.release(2);
    assert!(!world.rings(&release));
    let newest = world.vault().alarms().next();
    assert!(newest.is_none() && world.vault().alarm_count() == 0);
}

#[test]
fn more_leases_than_expected_ring() {
    let mut world = ringing(&rule("\"more-leases\"\nmore_than = 2", "alarm"));
    let rang: Vec<bool> = (0..4).map(|n| world.rings(&world.release(n).clone())).collect();
    assert_eq!(rang, [false, false, true, true]);
    world.pass(901);
    let release = world.release(9);
    assert!(!world.rings(&release));
}

#[test]
fn a_release_outside_the_hours_rings() {
    let hours = rule("\"outside-hours\"\nhours = \"08:00-20:00\"\ndays = [\"mon\", \"fri\"]", "alarm");
    let mut world = ringing(&hours);
    // A Monday of after the log: 2026-12-07T00:00:00Z, or as many weeks later as it takes.
    let mut monday = 1_796_601_600;
    while monday < world.now.seconds() {
        monday += 7 * 86_400;
    }
    let day = |n: u64, hour: u64| UnixTime(monday + n * 86_400 + hour * 3600);
    let at = |time: UnixTime, n: u32, world: &mut World| {
        world.now = time;
        let release = world.release(n);
        world.rings(&release)
    };
    assert!(at(UnixTime(day(0, 8).seconds() - 1), 1, &mut world));
    assert!(!at(day(0, 8), 2, &mut world));
    assert!(!at(UnixTime(day(0, 20).seconds() - 1), 3, &mut world));
    assert!(at(day(0, 20), 4, &mut world));
    assert!(at(day(1, 12), 5, &mut world), "a Tuesday");
    assert!(!at(day(4, 12), 6, &mut world), "a Friday");
    assert!(at(day(6, 12), 7, &mut world), "a Sunday");
}

#[test]
fn a_canary_rings_each_time_and_the_newest_alarms_are_kept() {
    let mut world = ringing(&rule("\"canary\"", "alarm"));
    for n in 0..20 {
        let release = world.release(n);
        assert!(world.rings(&release), "{n}");
    }
    assert_eq!(world.vault().alarm_count(), 20);
    let shown: Vec<u64> = world.vault().alarms().map(|alarm| alarm.entry).collect();
    assert_eq!((shown.len(), shown[0]), (ALARMS_SHOWN_MAX, world.state.size() - 1));
    assert_eq!(world.vault().alarms().next().unwrap().rules, names(&["a"]));
    // Of another model it says nothing.
    let mut world = ringing(&rule("\"canary\"", "alarm").replace("\"any\"", "[\"llama\"]"));
    let release = world.release(1);
    assert!(!world.rings(&release));
}

#[test]
fn an_alarm_is_of_the_release_right_behind_it_and_of_all_rules_that_ring() {
    let two = rule("\"canary\"", "alarm") + &rule("\"canary\"", "alarm").replace("alarm.a", "alarm.b");
    let mut world = ringing(&two);
    let release = world.release(1);
    for rules in [&["a"][..], &["b"], &[]] {
        assert_eq!(world.announced(&release, rules), Err(FoldError::AlarmMismatch), "{rules:?}");
    }
    // Of another release.
    let other = world.release(2);
    world.must(alarm(&other, &["a", "b"], None));
    assert_eq!(world.refusal(Entry::Release(Box::new(release.clone()))), FoldError::AlarmMismatch);
    // With something in between.
    world.must(alarm(&release, &["a", "b"], None));
    let entry = world.start(1);
    world.must(entry);
    assert_eq!(world.refusal(Entry::Release(Box::new(release.clone()))), FoldError::AlarmMismatch);
    world.must(alarm(&release, &["a", "b"], None));
    world.jump(1);
    let release = world.release(1);
    assert_eq!(world.refusal(Entry::Release(Box::new(release.clone()))), FoldError::AlarmMismatch);
    assert_eq!(world.announced(&release, &["a", "b"]), Ok(()));
    // Of a rule that does not ring.
    let mut world = ringing(&rule("\"more-leases\"\nmore_than = 2", "alarm"));
    let release = world.release(1);
    assert_eq!(world.announced(&release, &["a"]), Err(FoldError::AlarmMismatch));
}

#[test]
fn an_alarm_entry_names_rules_once_and_in_order() {
    let two = rule("\"canary\"", "alarm") + &rule("\"new-measurement\"", "alarm").replace("alarm.a", "alarm.b");
    let mut world = ringing(&two);
    let release = world.release(1);
    let entry = alarm(&release, &[], None);
    assert_eq!(world.refusal(entry), FoldError::AlarmEmpty);
    for rules in [&["b", "a"][..], &["a", "a"]] {
        let entry = alarm(&release, rules, Some(D));
        assert_eq!(world.refusal(entry), FoldError::AlarmUnordered);
    }
    let entry = alarm(&release, &["c"], None);
    assert_eq!(world.refusal(entry), FoldError::AlarmUnknown);
    let entry = alarm(&release, &["a"], Some(D));
    assert_eq!(world.refusal(entry), FoldError::AlarmMeasurement);
    let entry = alarm(&release, &["a", "b"], None);
    assert_eq!(world.refusal(entry), FoldError::AlarmMeasurement);
}

fn minilm() -> (Name, Version) {
    ("minilm".parse().unwrap(), "1.0".parse().unwrap())
}

fn logged(world: &World) -> LoggedManifest {
    let (model, version) = minilm();
    world.state.open_manifest(&model, &version, world.manifest().bytes()).unwrap()
}

#[test]
fn a_new_measurement_rings_once_and_is_in_the_entry() {
    let mut world = ringing(&rule("\"new-measurement\"", "alarm"));
    let guest = Guest::of(&world);
    let ask =
        |world: &World, n| decide(&world.state, guest.good_load(world, n), &logged(world), world.now).ok().unwrap();
    let grant = ask(&world, 1);
    let Some(Entry::Alarm(alarm)) = grant.alarm() else { panic!("it rings") };
    assert_eq!((alarm.rules.clone(), alarm.lease), (names(&["a"]), grant.lease()));
    assert_eq!(alarm.measurement, Some(ledger::decide::Shown::from(grant.claims()).measurement()));
    // The vector of FORMAT.md, section 8.
    let vector = "sha256:49a01dc1c521f572323c9c311789622a0dd42814b4e208b8e03aa9acabbbbffc";
    assert_eq!(alarm.measurement.map(|digest| digest.to_string()).as_deref(), Some(vector));
    world.must(Entry::Alarm(alarm.clone()));
    world.must(grant.entry(D));
    let grant = ask(&world, 2);
    assert!(grant.alarm().is_none());
    world.must(grant.entry(D));
    // Said again of what is known, it is not true.
    let grant = ask(&world, 3);
    world.must(Entry::Alarm(AlarmEntry { lease: grant.lease(), ..alarm }));
    assert_eq!(world.refusal(grant.entry(D)), FoldError::AlarmMismatch);
}

#[test]
fn what_a_decision_rings_the_fold_takes() {
    let rules = rule("\"canary\"", "alarm") + &rule("\"new-platform\"", "alarm").replace("alarm.a", "alarm.b");
    let mut world = ringing(&rules);
    let guest = Guest::of(&world);
    for (n, rings) in [(1, names(&["a", "b"])), (2, names(&["a"]))] {
        let grant = decide(&world.state, guest.good_load(&world, n), &logged(&world), world.now).ok().unwrap();
        let Some(Entry::Alarm(alarm)) = grant.alarm() else { panic!("it rings") };
        assert_eq!((alarm.rules.clone(), alarm.measurement), (rings, None));
        world.must(Entry::Alarm(alarm));
        world.must(grant.entry(D));
    }
}

/// A raise for alarm `a`, with its approvals.
fn must_let_through(world: &mut World, count: u64) {
    let (budget, amounts, until): (Name, _, _) = ("a".parse().unwrap(), releases(count), world.now.plus(3600));
    let object = raise_object(&budget, amounts, until);
    let statement = world.statement(ApprovalAction::ProposeBudget, object).encode();
    let signature = Person::new(ALICE).sign(&statement);
    let statement = String::from_utf8(statement).unwrap();
    let raise =
        ProposedRaise { budget: budget.clone(), object, statement, signature, ..world.proposed_raise(amounts, until) };
    let proposal = world.state.size();
    let entry = world.propose(Proposal::Budget(raise));
    world.must(entry);
    for person in [BOB, CAROL] {
        let entry = world.approve(person, ApprovalAction::Budget, object);
        world.must(entry);
    }
    world.must(Entry::Budget(BudgetRaised { time: world.now, proposal, object, budget }));
}

#[test]
fn what_an_alarm_holds_waits_for_approvers() {
    let mut world = ringing(&rule("\"new-platform\"", "hold"));
    let guest = Guest::of(&world);
    let denial = decide(&world.state, guest.good_load(&world, 1), &logged(&world), world.now).err().unwrap();
    assert_eq!(denial.code(), "held-by-alarm");
    assert_eq!(denial.reason(), &DenialReason::HeldByAlarm { alarm: "a".parse().unwrap(), on: AlarmOn::NewPlatform });
    let explained = denial.reason().explain();
    assert_eq!(
        (explained.expected.as_str(), explained.seen.as_str(), explained.policy_key.as_deref()),
        (
            "not the first release to a platform",
            "that; approvers let it through: vaultctl propose budget a",
            Some("alarm.a.on")
        )
    );
    // The fold refuses it too, announced or not.
    let release = world.release(1);
    assert_eq!(world.announced(&release, &["a"]), Err(FoldError::AlarmHeld { alarm: "a".parse().unwrap() }));

    must_let_through(&mut world, 1);
    let grant = decide(&world.state, guest.good_load(&world, 1), &logged(&world), world.now).ok().unwrap();
    world.must(grant.alarm().unwrap());
    world.must(grant.entry(D));
    // The platform is known now; another one has to wait.
    assert!(decide(&world.state, guest.good_load(&world, 2), &logged(&world), world.now).is_ok());
    let release = world.release_to(3, platform(9));
    assert_eq!(world.announced(&release, &["a"]), Err(FoldError::AlarmHeld { alarm: "a".parse().unwrap() }));
}

#[test]
fn an_alarm_that_holds_nothing_is_not_raised() {
    let mut world = ringing(&rule("\"canary\"", "alarm").replace("alarm.a", "alarm.b"));
    let entry = world.propose(Proposal::Budget(world.proposed_raise(releases(1), world.now.plus(60))));
    assert_eq!(world.refusal(entry), FoldError::BudgetNotRaisable);
    // One that does has no bytes.
    let mut world = ringing(&rule("\"canary\"", "hold").replace("alarm.a", "alarm.b"));
    let amounts = ledger::entry::RaiseAmounts { bytes: 1, ..releases(1) };
    let entry = world.propose(Proposal::Budget(world.proposed_raise(amounts, world.now.plus(60))));
    assert_eq!(world.refusal(entry), FoldError::RaiseOfNoLimit { key: "bytes_per_day" });
}
