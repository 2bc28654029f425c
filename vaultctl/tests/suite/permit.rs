//! `vaultctl propose standing` and `break-glass`: what is refused before anybody signs, and both from proposal to effect.

use serde_json::json;

use crate::scene::{Ended, Scene, sign_by_hand, text};

const RULE: &str = "minilm";
const MODEL: &str = "minilm";

fn scene() -> Scene {
    Scene::open_with(|policy| {
        let asks = policy.replacen("max_leases", "approvals = 2\nmax_leases", 1);
        asks.replacen("threshold = 2\n", "threshold = 2\nbreak_glass_threshold = 2\n", 1)
    })
}

fn propose(scene: &Scene, kind: &str, args: &[&str]) -> Ended {
    let key = scene.path("alice");
    let signing = ["--yes", "--key", text(&key)];
    scene.with_vault(&[&["propose", kind], args, &signing].concat())
}

#[test]
fn permits_are_proposed_shown_in_words_approved_and_in_force() {
    let scene = scene();
    for (kind, words) in [("standing", "standing approval"), ("break-glass", "BREAK-GLASS")] {
        let what = [RULE, "--model", MODEL, "--releases", "3", "--any-guest", "--for", "2h"];
        let proposed = propose(&scene, kind, &what).done();
        assert_eq!((&proposed["proposed_by"], &proposed["threshold"]), (&json!("alice"), &json!(2)));
        let object = proposed["object"].as_str().unwrap();
        let waits = scene.with_vault(&["pending"]).done()["pending"][0].clone();
        assert_eq!((&waits["kind"], &waits["missing"]), (&json!(kind), &json!(2)));
        let says = waits["says"][0].as_str().unwrap();
        assert!(
            says.starts_with(&format!("LOOSER: {words} for at most 3 releases of {MODEL}, every version,")),
            "{says}"
        );
        for (name, effective) in [("bob", false), ("carol", true)] {
            let key = scene.path(name);
            let approved = scene.with_vault(&["approve", object, "--yes", "--key", text(&key)]).done();
            assert_eq!(approved["effective"], effective, "{name}");
        }
        let shown = scene.say(&["log", "show"]).stdout;
        assert!(shown.contains(&format!("alice proposes a {words} for at most 3")), "{shown}");
        assert!(shown.contains(&format!("in force: {words} for at most 3")), "{shown}");
    }
}

#[test]
fn what_the_keeper_would_refuse_is_not_proposed() {
    let scene = scene();
    let good = [RULE, "--model", MODEL, "--releases", "3", "--any-guest", "--for", "2h"];
    let with = |place: usize, word: &'static str| {
        let mut args = good.map(str::to_owned);
        args[place] = word.to_owned();
        args
    };
    for (place, word, code) in [
        (0, "other", "rule-unknown"),
        (4, "0", "permit-releases"),
        (4, "65537", "permit-releases"),
        (7, "32d", "permit-until"),
    ] {
        let args = with(place, word);
        propose(&scene, "standing", &args.each_ref().map(String::as_str)).fails(2, code);
    }
    let args = with(7, "25h");
    propose(&scene, "break-glass", &args.each_ref().map(String::as_str)).fails(2, "permit-until");
    assert_eq!(scene.with_vault(&["pending"]).done()["pending"], json!([]));
    // Under a policy that asks for neither.
    let scene = Scene::open_with(|policy| policy);
    propose(&scene, "standing", &good).fails(2, "standing-not-asked");
    propose(&scene, "break-glass", &good).fails(2, "break-glass-not-allowed");
}

/// The statement is over the end of the permit: a signature from elsewhere needs the same one.
#[test]
fn a_permit_can_be_signed_by_hand() {
    let scene = scene();
    let statement = scene.path("statement.json");
    let until = (crate::peer::now().seconds() + 3600).to_string();
    let permit = ["propose", "standing", RULE, "--model", MODEL, "--releases", "1", "--any-guest"];
    scene.with_vault(&[&permit[..], &["--until", &until, "--print-statement", text(&statement)]].concat()).done();
    let signature = sign_by_hand(&scene.path("alice"), &statement);
    let signed = ["--signature", text(&signature)];
    scene.with_vault(&[&permit[..], &["--for", "1h"], &signed].concat()).fails(2, "permit-until");
    let proposed = scene.with_vault(&[&permit[..], &["--until", &until], &signed].concat()).done();
    assert_eq!(proposed["proposed_by"], "alice");
}
