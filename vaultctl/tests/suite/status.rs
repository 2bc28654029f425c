//! `vaultctl status`: what the keeper proves beside what the host says.

use serde_json::json;

use crate::peer::Lies;
use crate::scene::Scene;

#[test]
fn an_open_vault_shows_what_was_proved_and_what_it_does_not_survive() {
    let scene = Scene::open();
    let status = scene.with_vault(&["status"]).done();
    assert_eq!((&status["state"], &status["tier"]), (&json!("open"), &json!("emulated")));
    assert_eq!(status["verification"]["is"], "fresh");
    assert_eq!(status["verification"]["log_size"], status["log"]["size"]);
    assert_eq!(status["expiries"][0]["what"], "policy 1");
    assert_eq!(status["expiries"][1]["what"], "certificate of anchor vendor");

    let text = scene.say(&["status"]).stdout;
    for words in
        ["NOT RECOVERABLE", "EMULATED", "AN OLDER COPY OF ITS STATE IS NOT NOTICED", "Verified now", "policy 1 (in "]
    {
        assert!(text.contains(words), "{words}: {text}");
    }
}

#[test]
fn without_a_vault_file_everything_is_the_hosts_word() {
    let scene = Scene::new();
    let address = scene.peer.address();
    let status = scene.run(&["status", "--host", &address]).not_yet();
    assert_eq!((&status["state"], &status["verification"]["is"]), (&json!("empty"), &json!("no-vault-file")));
    scene.start().done();
    let status = scene.run(&["status", "--host", &address]).not_yet();
    assert_eq!(status["state"], "ceremony");
}

#[test]
fn the_weaker_path_is_taken_only_by_its_name_and_says_so() {
    let scene = Scene::open();
    scene.peer.lie(Lies { status: Some(|status| status.tier = "hardware".to_owned()), ..Lies::default() });
    scene.with_vault(&["status"]).fails(4, "host-contradicts-keeper");
    let believed = scene.with_vault(&["status", "--insecure-skip-evidence"]).done();
    assert_eq!((&believed["tier"], &believed["verification"]["is"]), (&json!("hardware"), &json!("skipped")));
    assert!(scene.say(&["status", "--insecure-skip-evidence"]).stdout.contains("NOT VERIFIED"));
}

#[test]
fn a_host_that_contradicts_its_keeper_is_caught() {
    type Lie = fn(&mut vault_proto::v1::StatusResponse);
    let lies: [Lie; 6] = [
        |status| status.vault_id[0] ^= 1,
        |status| status.state = "stopped".to_owned(),
        |status| status.log_size -= 1,
        |status| status.log_root[0] ^= 1,
        |status| status.policy_digest[0] ^= 1,
        |status| status.vault_id.clear(),
    ];
    let scene = Scene::open();
    for lie in lies {
        scene.peer.lie(Lies { status: Some(lie), ..Lies::default() });
        scene.with_vault(&["status"]).fails(4, "host-contradicts-keeper");
    }
}

#[test]
fn a_stopped_keeper_is_shown_with_its_reason() {
    let scene = Scene::new();
    scene.start().done();
    scene.peer.lie(Lies {
        status: Some(|status| {
            status.state = "stopped".to_owned();
            status.reason = "counter-behind-head\u{1b}]0;x".to_owned();
        }),
        ..Lies::default()
    });
    let status = scene.with_vault(&["status"]).not_yet();
    assert_eq!((&status["state"], &status["verification"]["is"]), (&json!("stopped"), &json!("no-evidence")));
    let text = scene.say(&["status"]).stdout;
    assert!(text.contains("STOPPED") && text.contains("counter-behind-head\\u{1b}]0;x"), "{text}");
}

#[test]
fn the_keeper_of_another_vault_is_refused() {
    let scene = Scene::open();
    let other = Scene::open();
    let address = other.peer.address();
    scene.with_vault(&["status", "--host", &address]).fails(4, "vault-other");
}

#[test]
fn the_same_keeper_software_with_the_vaults_id_but_another_tpm_is_refused() {
    let scene = Scene::open();
    {
        let mut keeper = scene.peer.keeper();
        keeper.tpm = crate::forge::tpm::SoftTpm::ecc();
        keeper.identity = keeper.tpm.identity(&scene.authority, &[]);
    }
    scene.with_vault(&["status"]).fails(4, "keeper-other");
}

#[test]
fn evidence_over_another_policy_or_checkpoint_than_it_says_is_refused() {
    let scene = Scene::open();
    scene.peer.lie(Lies { evidence: Some(|evidence| evidence.policy_digest[0] ^= 1), ..Lies::default() });
    scene.with_vault(&["status"]).fails(4, "binding-mismatch");
    scene.peer.lie(Lies { evidence: Some(|evidence| evidence.checkpoint.push('\n')), ..Lies::default() });
    scene.with_vault(&["evidence", "verify"]).fails(4, "binding-mismatch");
    scene.peer.lie(Lies {
        evidence: Some(|evidence| {
            evidence.policy_digest.clear();
            evidence.checkpoint.clear();
        }),
        ..Lies::default()
    });
    scene.with_vault(&["status"]).fails(4, "keeper-standing-missing");
}
