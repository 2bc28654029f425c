//! `vaultctl revoke`, `leases`.

use serde_json::json;

use crate::scene::{Ended, Scene, sign_by_hand, text};

fn revoke(scene: &Scene, name: &str, what: &[&str]) -> Ended {
    let key = scene.path(name);
    let mut args = vec!["revoke"];
    args.extend(what);
    args.extend(["--yes", "--key", text(&key)]);
    scene.with_vault(&args)
}

#[test]
fn a_revocation_waits_for_its_approvals_and_is_lifted_by_those_of_a_policy() {
    // The policy does not say how many revoke: as many as change it.
    let scene = Scene::open();
    let proposed = revoke(&scene, "alice", &["--model", "minilm"]).done();
    assert_eq!((&proposed["effective"], &proposed["threshold"]), (&json!(false), &json!(2)));
    assert_eq!(proposed["what"], "revoke model minilm, every version");
    let object = proposed["object"].as_str().unwrap();
    let waits = &scene.with_vault(&["pending"]).done()["pending"][0];
    assert_eq!((&waits["kind"], &waits["missing"]), (&json!("revocation"), &json!(1)));
    assert_eq!(waits["may_approve"], json!(["bob", "carol"]));
    let bob = scene.path("bob");
    let approved = scene.with_vault(&["approve", object, "--yes", "--key", text(&bob)]).done();
    assert_eq!(approved["effective"], true);

    let leases = scene.with_vault(&["leases"]).done();
    assert_eq!(leases["leases"], json!([]));
    let revocation = &leases["revocations"][0];
    assert_eq!(
        (&revocation["proposed_by"], &revocation["what"]),
        (&json!("alice"), &json!("model minilm, every version"))
    );
    let entry = revocation["entry"].to_string();
    let shown = scene.say(&["log", "show", "--from", &entry]);
    assert!(
        shown.stdout.contains("in force: revoke model minilm, every version; ends 0 running leases"),
        "{}",
        shown.stdout
    );

    // The proposer of a lift does not count among its approvals here.
    let lift = revoke(&scene, "alice", &["--lift", &entry]).done();
    let lift = lift["object"].as_str().unwrap();
    for (name, effective) in [("bob", false), ("carol", true)] {
        let key = scene.path(name);
        let approved = scene.with_vault(&["approve", lift, "--yes", "--key", text(&key)]).done();
        assert_eq!(approved["effective"], effective, "{name}");
    }
    assert_eq!(scene.with_vault(&["leases"]).done()["revocations"], json!([]));
}

#[test]
fn a_revocation_is_shown_before_it_is_signed_and_can_be_signed_elsewhere() {
    let scene = Scene::open();
    let alice = scene.path("alice");
    let ended = scene.say(&["revoke", "--group", "layer.0", "--key", text(&alice)]);
    assert_eq!((ended.code, ended.stdout.as_str()), (2, ""));
    assert!(ended.stderr.contains("revoke group layer.0 of every model"), "{}", ended.stderr);
    assert!(ended.stderr.contains("no running lease is covered"), "{}", ended.stderr);
    revoke(&scene, "mallory", &["--group", "layer.0"]).fails(2, "not-an-approver");

    let statement = scene.path("statement.json");
    scene.with_vault(&["revoke", "--group", "layer.0", "--print-statement", text(&statement)]).done();
    let signature = sign_by_hand(&alice, &statement);
    let proposed = scene.with_vault(&["revoke", "--group", "layer.0", "--signature", text(&signature)]).done();
    assert_eq!(proposed["proposed_by"], "alice");
    // It is not a signature for something else.
    let ended = scene.with_vault(&["revoke", "--group", "layer.1", "--signature", text(&signature)]);
    ended.fails(2, "statement-other");
}
