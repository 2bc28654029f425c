//! `vaultctl propose budget`: what is refused before anybody signs, and a raise from proposal to effect.

use serde_json::json;

use crate::scene::{Ended, Scene, sign_by_hand, text};

const BUDGETS: &str = r#"
[budget.held]
per = "vault"
models = "any"
bytes_per_day = "1GiB"
releases_per_hour = 3
over = "hold"

[budget.fixed]
per = "vault"
models = "any"
leases = 3
over = "refuse"

[alarm.odd]
models = "any"
on = "new-platform"
then = "hold"

[alarm.bait]
models = "any"
on = "canary"
then = "alarm"
"#;

fn scene() -> Scene {
    Scene::open_with(|policy| policy + BUDGETS)
}

fn propose(scene: &Scene, args: &[&str]) -> Ended {
    let key = scene.path("alice");
    let signing = ["--for", "1h", "--yes", "--key", text(&key)];
    scene.with_vault(&[&["propose", "budget"], args, &signing].concat())
}

#[test]
fn a_raise_is_proposed_shown_in_words_approved_and_in_force() {
    let scene = scene();
    let proposed = propose(&scene, &["held", "--releases", "2", "--bytes", "3GiB"]).done();
    assert_eq!((&proposed["proposed_by"], &proposed["budget"]), (&json!("alice"), &json!("held")));
    let object = proposed["object"].as_str().unwrap();
    let waits = scene.with_vault(&["pending"]).done()["pending"][0].clone();
    assert_eq!((&waits["kind"], &waits["missing"]), (&json!("budget"), &json!(2)));
    assert_eq!(waits["may_approve"], json!(["bob", "carol"]));
    let says = waits["says"][0].as_str().unwrap();
    assert!(
        says.starts_with(
            "LOOSER: raises budget held by 3221225472 bytes in 24 hours (3.22 GB) and 2 releases in one hour, once"
        ),
        "{says}"
    );
    for (name, effective) in [("bob", false), ("carol", true)] {
        let key = scene.path(name);
        let approved = scene.with_vault(&["approve", object, "--yes", "--key", text(&key)]).done();
        assert_eq!(approved["effective"], effective, "{name}");
    }
    let shown = scene.say(&["log", "show"]).stdout;
    assert!(shown.contains("alice proposes to raise budget held") && shown.contains("the raise of budget held counts"));
}

#[test]
fn what_the_policy_does_not_let_be_raised_is_not_proposed() {
    let scene = scene();
    propose(&scene, &["other", "--releases", "1"]).fails(2, "budget-unknown");
    propose(&scene, &["fixed", "--leases", "1"]).fails(2, "budget-not-raisable");
    propose(&scene, &["held"]).fails(2, "raise-empty");
    propose(&scene, &["held", "--leases", "1"]).fails(2, "raise-of-no-limit");
    propose(&scene, &["odd", "--bytes", "1B"]).fails(2, "raise-of-no-limit");
    propose(&scene, &["odd"]).fails(2, "raise-of-no-limit");
    propose(&scene, &["bait", "--releases", "1"]).fails(2, "budget-unknown");
    assert_eq!(scene.with_vault(&["pending"]).done()["pending"], json!([]));
    let says = propose(&scene, &["odd", "--releases", "1"]).done()["says"][1].clone();
    assert!(says.as_str().unwrap().contains("it lets through what this alarm holds"), "{says}");
}

/// The statement is over the end of the raise: a signature from elsewhere needs the same one.
#[test]
fn a_raise_can_be_signed_by_hand() {
    let scene = scene();
    let statement = scene.path("statement.json");
    let until = (crate::peer::now().seconds() + 3600).to_string();
    let raise = ["propose", "budget", "held", "--releases", "1"];
    scene.with_vault(&[&raise[..], &["--until", &until, "--print-statement", text(&statement)]].concat()).done();
    let signature = sign_by_hand(&scene.path("bob"), &statement);
    let signed = ["--signature", text(&signature)];
    scene.with_vault(&[&raise[..], &["--for", "1h"], &signed].concat()).fails(2, "raise-until");
    let proposed = scene.with_vault(&[&raise[..], &["--until", &until], &signed].concat()).done();
    assert_eq!(proposed["proposed_by"], "bob");
}
