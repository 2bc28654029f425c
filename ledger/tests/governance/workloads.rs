//! `workloads` of a rule: what is read, and what is decided by it.

use attestation::{Sha256Digest, Workload};
use ledger::decide::{decide, decide_renew};
use ledger::entry::{Entry, Proposal, Release};
use ledger::policy::{Policy, WorkloadMismatch};
use ledger::state::FoldError;
use ledger::upgrade::UpgradeError;

use crate::support::evidence::Guest;
use crate::support::policy_text::{PCR_0, PCR_11_GUEST, first};
use crate::support::world::{ALICE, World};
use crate::{beside, upgrade};

fn digest(n: u8) -> Sha256Digest {
    Sha256Digest::from_bytes([n; 32])
}

pub(crate) fn shown() -> Workload {
    Workload { program: digest(1), arguments: digest(2), environment: digest(3), image: Some(digest(4)) }
}

pub(crate) fn pin() -> String {
    format!(
        "{{ program = \"{}\", arguments = \"any\", environment = \"{}\", image = \"{}\" }}",
        digest(1),
        digest(3),
        digest(4)
    )
}

/// A rule `pinned` beside that of the good policy.
pub(crate) fn pinned_rule() -> String {
    format!(
        r#"
[release.pinned]
models = ["minilm"]
groups = ["layer.0", "other"]
require = ["tpm"]
pcrs = {{ 0 = ["{PCR_0}"], 11 = ["{PCR_11_GUEST}"] }}
eks = "any"
workloads = [{}]
lease = "15m"
on_lease_end = "drain 30s"
max_leases = 4
verify_units = true
"#,
        pin()
    )
}

/// Under that rule.
pub(crate) fn pinned(release: Release) -> Release {
    Release { rule: "pinned".parse().unwrap(), workload: Some(shown()), ..release }
}

/// The text with such a key in its one rule.
fn with(text: &str, workloads: &str) -> String {
    assert_eq!(text.matches("max_leases = 4").count(), 1);
    text.replace("max_leases = 4", &format!("max_leases = 4\nworkloads = {workloads}"))
}

#[test]
fn a_rule_asks_for_what_its_text_says() {
    let asks = |text: &str| Policy::parse(text).unwrap().release_rules().values().next().unwrap().workloads.asks();
    assert!(!asks(&first()));
    assert!(asks(&with(&first(), "\"any\"")) && asks(&with(&first(), &format!("[{}]", pin()))));
}

#[test]
fn each_thing_that_can_be_wrong_with_a_pin_is_refused() {
    let refused = |workloads: &str, code: &str| {
        let error = Policy::parse(&with(&first(), workloads)).unwrap_err();
        assert_eq!(error.code(), code, "{workloads}: {error}");
        assert!(error.key.starts_with("release.minilm.workloads"), "{error}");
    };
    let good = format!("[{}]", pin());
    let first_digest = digest(1).to_string();
    refused(&good.replace(&first_digest, "sha256:01"), "policy-workload-digest-malformed");
    refused(&good.replace("\"any\"", "\"all\""), "policy-workload-digest-malformed");
    refused(&good.replace("arguments = \"any\", ", ""), "policy-key-missing");
    refused(&good.replace("image", "picture"), "policy-key-missing");
    refused(&good.replace(" }", ", user = \"any\" }"), "policy-key-unknown");
    refused(&format!("[{0}, {0}]", pin()), "policy-item-repeated");
    let open = "[{ program = \"any\", arguments = \"any\", environment = \"any\", image = \"any\" }]";
    refused(open, "policy-workload-open");
    refused(&good.replace(&first_digest, "any"), "policy-workload-open");
    let preloads = good.replace(&digest(3).to_string(), "any");
    refused(&preloads, "policy-workload-environment-open");
}

#[test]
fn keys_are_for_the_workload_that_is_pinned_and_the_lease_is_of_it() {
    let mut world = World::with_model();
    world.must_change_policy(|text| with(&text, &format!("[{}]", pin())));
    let guest = Guest::of(&world);
    let (model, version) = ("minilm".parse().unwrap(), "1.0".parse().unwrap());
    let manifest = world.state.open_manifest(&model, &version, world.manifest().bytes()).unwrap();
    let load = |world: &World, workload| {
        let verified = guest.load_showing(guest.load_challenge(world, 1), workload);
        decide(&world.state, verified, &manifest, world.now)
    };
    for (other, code) in [
        (Workload { program: digest(9), ..shown() }, "workload-program"),
        (Workload { environment: digest(9), ..shown() }, "workload-environment"),
        (Workload { image: None, ..shown() }, "workload-image"),
    ] {
        assert_eq!(load(&world, other).err().unwrap().code(), code);
    }
    load(&world, Workload { arguments: digest(9), ..shown() }).map_err(|denial| denial.code()).unwrap();
    let missing = decide(&world.state, guest.good_load(&world, 1), &manifest, world.now).err().unwrap();
    assert_eq!(missing.code(), "workload-missing");

    let entry = load(&world, shown()).map_err(|denial| denial.code()).unwrap().entry(Sha256Digest::of(b"evidence"));
    let Entry::Release(release) = &entry else { panic!("a release") };
    assert_eq!(release.workload, Some(shown()));
    let lease = release.lease;
    world.must(entry);
    let renew = |world: &World, workload| {
        let verified = guest.renew_showing(guest.renew_challenge(world, lease), workload);
        decide_renew(&world.state, verified, world.now).map(drop).map_err(|denial| denial.code())
    };
    assert_eq!(renew(&world, Some(shown())), Ok(()));
    assert_eq!(renew(&world, None), Err("workload-changed"));
    // Also in what the rule does not pin: it is another start.
    assert_eq!(renew(&world, Some(Workload { arguments: digest(9), ..shown() })), Err("workload-changed"));
    // Another pin ends what does not have it.
    let other = pin().replace(&digest(1).to_string(), &digest(8).to_string());
    world.must_change_policy(|text| with(&text, &format!("[{other}]")));
    assert_eq!(renew(&world, Some(shown())), Err("workload-program"));
}

#[test]
fn who_is_not_asked_shows_nothing() {
    let world = World::with_model();
    let guest = Guest::of(&world);
    let (model, version) = ("minilm".parse().unwrap(), "1.0".parse().unwrap());
    let manifest = world.state.open_manifest(&model, &version, world.manifest().bytes()).unwrap();
    let verified = guest.load_showing(guest.load_challenge(&world, 1), shown());
    let denial = decide(&world.state, verified, &manifest, world.now).err().unwrap();
    assert_eq!(denial.code(), WorkloadMismatch::Unasked.code());
}

/// An auditor sees that no keeper gave keys to another workload.
#[test]
fn a_release_to_another_workload_is_no_entry_of_the_log() {
    let mut world = World::with_model();
    let rule = pinned_rule();
    world.must_change_policy(|text| text + &rule);
    let good = pinned(world.release(1));
    let refused = |world: &mut World, release: Release| world.refusal(Entry::Release(Box::new(release))).code();
    let of = |workload| Release { workload, ..good.clone() };
    assert_eq!(refused(&mut world, of(None)), "workload-missing");
    assert_eq!(refused(&mut world, of(Some(Workload { program: digest(9), ..shown() }))), "workload-program");
    assert_eq!(refused(&mut world, of(Some(Workload { environment: digest(9), ..shown() }))), "workload-environment");
    assert_eq!(refused(&mut world, of(Some(Workload { image: None, ..shown() }))), "workload-image");
    let unasked = Release { workload: Some(shown()), ..world.release(1) };
    assert_eq!(refused(&mut world, unasked), "workload-unasked");
    let lease = good.lease;
    world.must(Entry::Release(Box::new(good)));
    let renew = world.renew(vec![world.renewal(lease)]);
    world.must(renew);
    let other = rule.replace(&digest(1).to_string(), &digest(8).to_string());
    world.must_change_policy(|text| text + &other);
    let renew = world.renew(vec![world.renewal(lease)]);
    assert_eq!(world.refusal(renew).code(), "workload-program");
}

/// The other would stop at the entry.
#[test]
fn a_policy_with_workloads_waits_for_every_keeper_to_know_what_they_are() {
    let mut world = beside::two();
    let other = [1; 32];
    let text = world.next_policy(|text| with(&text, "\"any\""));
    let propose = |world: &World| world.propose(Proposal::Policy(world.proposed_policy(ALICE, &text)));
    let refused = |world: &mut World| {
        let entry = propose(world);
        match world.refusal(entry) {
            FoldError::Upgrade(error) => error,
            error => panic!("{error}"),
        }
    };
    let behind = |keeper, fold| UpgradeError::NotForAll { keeper, fold, needed: 4 };
    let founder = world.genesis.keeper().instance;
    // Neither ever said what it runs.
    assert_eq!(refused(&mut world), behind(founder, 0));
    upgrade::must_know(&mut world, 20, "0.2.0", 4, None);
    assert_eq!(refused(&mut world), behind(other, 0));
    upgrade::must_know(&mut world, 21, "0.1.0", 3, Some(other));
    let error = refused(&mut world);
    assert_eq!((&error, error.code()), (&behind(other, 3), "keeper-program-too-old"));
    // Other policies are not held up by that.
    let unpinned = world.next_policy(|text| text.replace("max_leases = 4", "max_leases = 5"));
    world.must_propose_policy(&unpinned);
    upgrade::must_know(&mut world, 22, "0.2.0", 4, Some(other));
    world.must_change_policy(|text| with(&text, "\"any\""));
}

/// It wrote the entry.
#[test]
fn a_keeper_alone_is_asked_for_no_word_about_its_program() {
    let mut world = World::open();
    world.must_change_policy(|text| with(&text, "\"any\""));
}

#[test]
fn a_policy_with_workloads_waits_for_a_keeper_that_left_no_more() {
    let mut world = beside::two();
    upgrade::must_know(&mut world, 20, "0.2.0", 4, None);
    upgrade::must_know(&mut world, 21, "0.1.0", 3, Some([1; 32]));
    beside::must_leave(&mut world, [1; 32]);
    world.must_change_policy(|text| with(&text, "\"any\""));
}
