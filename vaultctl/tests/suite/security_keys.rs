//! Approvers with security keys: a policy lists them, and what their authenticators sign goes the way of a signature that was
//! made elsewhere. No authenticator of hardware took part.

use std::path::PathBuf;

use serde_json::{Value, json};

use crate::scene::{Ended, Scene, text};
use crate::security_key::{APPLICATION, SecurityKey, sk_ecdsa, sk_ed25519};

const TOUCHED: u8 = 0x01;

/// A vault that goes over to a policy in which dave approves with this key.
fn with_dave(key: &SecurityKey) -> Scene {
    let scene = Scene::open();
    let file = next(&scene, 2, |text| {
        text.replacen(
            "approvers = [\n",
            &format!("approvers = [\n  {{ id = \"dave\", key = \"{}\" }},\n", key.line()),
            1,
        )
    });
    scene.with_vault(&["policy", "check", text(&file)]).done();
    let alice = scene.path("alice");
    let proposed = scene.with_vault(&["propose", "policy", text(&file), "--yes", "--key", text(&alice)]).done();
    for name in ["bob", "carol"] {
        let key = scene.path(name);
        let object = proposed["object"].as_str().unwrap();
        scene.with_vault(&["approve", object, "--yes", "--key", text(&key)]).done();
    }
    assert_eq!(scene.with_vault(&["status"]).done()["policy"]["serial"], 2);
    scene
}

fn next(scene: &Scene, serial: u64, change: impl FnOnce(String) -> String) -> PathBuf {
    let (vault, prev) = {
        let keeper = scene.peer.keeper();
        let vault = keeper.state.vault().unwrap();
        (vault.id().to_string(), vault.policy().digest().to_string())
    };
    let path = scene.path(&format!("policy-{serial}.toml"));
    std::fs::write(&path, change(scene.policy(&vault, serial, &prev))).unwrap();
    path
}

/// Proposes the next policy by dave, whose authenticator signs with these flags for this application.
fn propose(scene: &Scene, key: &SecurityKey, flags: u8, application: &[u8]) -> Ended {
    let file = next(scene, 3, |text| text.replace("max_leases = 40", "max_leases = 90"));
    let name = format!("statement-{flags}-{}", application.len());
    let (statement, signature) = (scene.path(&name), scene.path(&format!("{name}.sig")));
    scene.with_vault(&["propose", "policy", text(&file), "--print-statement", text(&statement)]).done();
    let signed = key.sign(&std::fs::read(&statement).unwrap(), flags, application);
    std::fs::write(&signature, signed).unwrap();
    scene.with_vault(&["propose", "policy", text(&file), "--signature", text(&signature)])
}

fn shown(scene: &Scene) -> Value {
    scene.with_vault(&["pending"]).done()["pending"].clone()
}

#[test]
fn a_security_key_of_the_policy_proposes_and_approves_with_a_touch() {
    for key in [sk_ed25519(), sk_ecdsa()] {
        let scene = with_dave(&key);
        propose(&scene, &key, 0, APPLICATION).fails(2, "sshsig-user-not-present");
        propose(&scene, &key, TOUCHED, b"ssh:other").fails(2, "sshsig-invalid");
        assert_eq!(shown(&scene), json!([]));
        assert_eq!(propose(&scene, &key, TOUCHED, APPLICATION).done()["proposed_by"], "dave", "{}", key.algorithm);
        // Another one's proposal he approves.
        let scene = with_dave(&key);
        let (file, alice) =
            (next(&scene, 3, |text| text.replace("max_leases = 40", "max_leases = 90")), scene.path("alice"));
        let proposed = scene.with_vault(&["propose", "policy", text(&file), "--yes", "--key", text(&alice)]).done();
        let object = proposed["object"].as_str().unwrap();
        let statement = scene.path("approval");
        scene.with_vault(&["approve", object, "--print-statement", text(&statement)]).done();
        let signature = scene.path("approval.sig");
        let sign =
            |flags| std::fs::write(&signature, key.sign(&std::fs::read(&statement).unwrap(), flags, APPLICATION));
        sign(0).unwrap();
        let approve = ["approve", object, "--signature", text(&signature)];
        scene.with_vault(&approve).fails(2, "sshsig-user-not-present");
        sign(TOUCHED).unwrap();
        assert_eq!(scene.with_vault(&approve).done()["approved_by"], "dave");
    }
}

#[test]
fn a_stranger_with_a_security_key_is_no_approver() {
    let scene = with_dave(&sk_ecdsa());
    propose(&scene, &sk_ecdsa(), TOUCHED, APPLICATION).fails(2, "not-an-approver");
}
