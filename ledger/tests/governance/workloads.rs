//! `workloads` of a rule: what is read, and what is decided by it.

use attestation::{Sha256Digest, Workload};
use ledger::decide::{decide, decide_renew};
use ledger::entry::Entry;
use ledger::policy::{Policy, WorkloadMismatch};

use crate::support::evidence::Guest;
use crate::support::policy_text::first;
use crate::support::world::World;

fn digest(n: u8) -> Sha256Digest {
    Sha256Digest::from_bytes([n; 32])
}

fn shown() -> Workload {
    Workload { program: digest(1), arguments: digest(2), environment: digest(3), image: Some(digest(4)) }
}

fn pin() -> String {
    format!(
        "{{ program = \"{}\", arguments = \"{}\", environment = \"any\", image = \"{}\" }}",
        digest(1),
        digest(2),
        digest(4)
    )
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
    refused(&good.replace("environment = \"any\", ", ""), "policy-key-missing");
    refused(&good.replace("image", "picture"), "policy-key-missing");
    refused(&good.replace(" }", ", user = \"any\" }"), "policy-key-unknown");
    refused(&format!("[{0}, {0}]", pin()), "policy-item-repeated");
    let open = "[{ program = \"any\", arguments = \"any\", environment = \"any\", image = \"any\" }]";
    refused(open, "policy-workload-open");
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
        (Workload { arguments: digest(9), ..shown() }, "workload-arguments"),
        (Workload { image: None, ..shown() }, "workload-image"),
    ] {
        assert_eq!(load(&world, other).err().unwrap().code(), code);
    }
    load(&world, Workload { environment: digest(9), ..shown() }).map_err(|denial| denial.code()).unwrap();
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
    assert_eq!(renew(&world, Some(Workload { environment: digest(9), ..shown() })), Err("workload-changed"));
    // Another pin ends what does not have it.
    world.must_change_policy(|text| text.replace(&digest(1).to_string(), &digest(8).to_string()));
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
