//! `vaultctl init …` from an empty keeper to an open vault, and what stops it.

use serde_json::{Value, json};

use crate::forge::authority::Authority;
use crate::forge::tpm::SoftTpm;
use crate::peer::Lies;
use crate::scene::{Scene, run, sign_by_hand, text};

#[test]
fn a_vault_opens_when_every_approver_has_signed_with_evidence_of_his_own() {
    let scene = Scene::new();
    let started = scene.start().done();
    assert_eq!(started["approvers"], json!(["alice", "bob", "carol"]));
    let status = scene.with_vault(&["init", "status"]).not_yet();
    assert_eq!((&status["missing"], &status["verified"]), (&json!(["alice", "bob", "carol"]), &json!(true)));

    let alice = scene.sign("alice").done();
    assert_eq!((&alice["signed_by"], &alice["open"]), (&json!("alice"), &json!(false)));
    assert_eq!(alice["missing"], json!(["bob", "carol"]));
    assert_eq!(alice["keeper"]["tier"], "emulated");
    scene.sign("bob").done();
    assert_eq!(scene.sign("carol").done()["open"], true);
    assert_eq!(scene.with_vault(&["init", "status"]).done()["stage"], "open");

    // Each has a blob of his own: no two saw the same evidence.
    let keeper = scene.peer.keeper();
    assert_eq!(keeper.blobs.len(), 6);
}

#[test]
fn starting_again_takes_up_what_an_earlier_run_left() {
    let scene = Scene::new();
    let first = scene.start().done();
    let again = scene.start().done();
    assert_eq!((&first["resumed"], &again["resumed"]), (&json!(false), &json!(true)));
    assert_eq!(first["vault"], again["vault"]);
    assert_eq!(scene.peer.keeper().entries.len(), 1);
}

#[test]
fn starting_with_another_policy_over_the_same_file_is_refused() {
    let scene = Scene::new();
    scene.start().done();
    let other = scene.policy("genesis", 1, "none").replace("max_leases = 40", "max_leases = 50");
    std::fs::write(scene.path("policy.toml"), other).unwrap();
    scene.start().fails(2, "file-exists");
}

#[test]
fn a_keeper_whose_evidence_does_not_verify_gets_no_genesis() {
    type Lie = fn(&mut Lies);
    let lies: [(&str, Lie); 6] = [
        ("binding-mismatch", |lies| lies.identity = Some(|identity| identity.wrap_key[0] ^= 1)),
        ("binding-mismatch", |lies| lies.identity = Some(|identity| identity.instance[0] ^= 1)),
        ("binding-mismatch", |lies| lies.identity = Some(|identity| identity.core_digest[0] ^= 1)),
        ("certificate-signature-invalid", |lies| {
            lies.identity = Some(|identity| {
                identity.tpm = Some(SoftTpm::ecc().identity(&Authority::root("vendor"), &[]).into());
            })
        }),
        ("keeper-other", |lies| {
            lies.evidence = Some(|evidence| {
                evidence.policy_digest = vec![1; 32];
                evidence.checkpoint = "x".to_owned();
            })
        }),
        ("pcr-digest-mismatch", |lies| {
            lies.evidence = Some(|evidence| {
                let Some(vault_proto::v1::evidence::Kind::Tpm(tpm)) =
                    evidence.evidence.as_mut().unwrap().evidence[0].kind.as_mut()
                else {
                    panic!("a TPM")
                };
                tpm.pcrs[0].sha256[0] ^= 1;
            })
        }),
    ];
    for (code, lie) in lies {
        let scene = Scene::new();
        let mut told = Lies::default();
        lie(&mut told);
        scene.peer.lie(told);
        let (exit, found) = scene.start().failed();
        assert_eq!((exit, found.as_str()), (4, code));
        assert!(!scene.vault_file().exists());
        assert!(scene.peer.keeper().entries.is_empty());
    }
}

#[test]
fn a_keeper_that_booted_something_else_gets_no_genesis() {
    let scene = Scene::new();
    scene.peer.keeper().tpm.pcrs[11][0] ^= 1;
    scene.start().fails(4, "keeper-pcr-mismatch");
}

#[test]
fn an_approver_does_not_sign_for_another_keeper_than_the_genesis_names() {
    let scene = Scene::new();
    scene.start().done();
    // The operator swaps the machine: another attestation key, endorsed by the same vendor.
    {
        let mut keeper = scene.peer.keeper();
        keeper.tpm = SoftTpm::ecc();
        keeper.identity = keeper.tpm.identity(&scene.authority, &[]);
    }
    scene.sign("alice").fails(4, "keeper-other");
    assert_eq!(scene.peer.keeper().entries.len(), 1);
}

#[test]
fn only_approvers_sign() {
    let scene = Scene::new();
    scene.start().done();
    scene.sign("mallory").fails(2, "not-an-approver");
    // Without its public half the key shows only in the signature.
    std::fs::remove_file(scene.path("mallory.pub")).unwrap();
    scene.sign("mallory").fails(2, "not-an-approver");
    assert_eq!(scene.peer.keeper().entries.len(), 1);
}

#[test]
fn nothing_is_signed_without_a_yes() {
    let scene = Scene::new();
    scene.start().done();
    let alice = scene.path("alice");
    let ended = scene.with_vault(&["init", "sign", "--key", text(&alice)]);
    ended.fails(2, "not-confirmed");
    assert!(ended.stderr.contains("[release.minilm]"), "the policy was shown: {}", ended.stderr);
}

#[test]
fn a_statement_can_be_signed_by_hand() {
    let scene = Scene::new();
    scene.start().done();
    let statement = scene.path("genesis.json");
    let printed = scene.with_vault(&["init", "sign", "--print-statement", text(&statement)]).done();
    assert!(printed["sign_with"].as_str().unwrap().starts_with("ssh-keygen -Y sign -n weightvault"));
    let signature = sign_by_hand(&scene.path("bob"), &statement);
    let signed = scene.with_vault(&["init", "sign", "--signature", text(&signature)]).done();
    assert_eq!(signed["signed_by"], "bob");
}

#[test]
fn a_signature_over_another_statement_is_refused() {
    let scene = Scene::new();
    scene.start().done();
    let statement = scene.path("genesis.json");
    scene.with_vault(&["init", "sign", "--print-statement", text(&statement)]).done();
    let mut changed: Value = serde_json::from_slice(&std::fs::read(&statement).unwrap()).unwrap();
    changed["serial"] = json!(1);
    let other = scene.path("other.json");
    std::fs::write(&other, changed.to_string()).unwrap();
    let signature = sign_by_hand(&scene.path("bob"), &other);
    scene.with_vault(&["init", "sign", "--signature", text(&signature)]).fails(2, "statement-other");
    // A good statement with the signature of another one.
    let args = ["init", "sign", "--signature", text(&signature), "--statement", text(&statement)];
    scene.with_vault(&args).fails(2, "sshsig-invalid");
}

#[test]
fn another_approver_gets_the_vault_file_by_the_id_that_he_was_told() {
    let scene = Scene::new();
    let vault = scene.start().done()["vault"].as_str().unwrap().to_owned();
    let file = scene.path("fetched.json");
    let address = scene.peer.address();
    let fetch =
        |expect: &str| scene.run(&["init", "fetch", "--host", &address, "--out", text(&file), "--expect", expect]);
    fetch(&format!("sha256:{}", "0".repeat(64))).fails(4, "vault-id-mismatch");
    assert!(!file.exists());
    fetch(&vault).done();
    fetch(&vault).fails(2, "file-exists");
    let alice = scene.path("alice");
    let signed = run(&["init", "sign", "--json", "--yes", "--vault", text(&file), "--key", text(&alice)]);
    assert_eq!(signed.done()["signed_by"], "alice");
}

#[test]
fn the_ceremony_is_over_once() {
    let scene = Scene::open();
    scene.sign("alice").fails(2, "vault-open");
}

#[test]
fn a_host_that_answers_with_another_vault_id_is_caught() {
    let scene = Scene::new();
    scene.peer.lie(Lies { genesis_answer: Some(|answer| answer.vault_id[0] ^= 1), ..Lies::default() });
    scene.start().fails(4, "vault-id-mismatch");
}

#[test]
fn an_expired_policy_begins_no_vault() {
    let scene = Scene::new();
    let over = scene.policy("genesis", 1, "none").replace("2036-03-01", "2020-03-01");
    std::fs::write(scene.path("policy.toml"), over).unwrap();
    scene.start().fails(2, "genesis-policy-expired");
}

#[test]
fn a_peer_on_a_unix_socket_needs_an_address_for_others() {
    let scene = Scene::new();
    let (policy, out, socket) = (scene.path("policy.toml"), scene.path("vault"), scene.peer.socket());
    let start = |more: &[&str]| {
        let args = [
            "init",
            "start",
            "--anti-rollback",
            "none",
            "--host",
            &socket,
            "--policy",
            text(&policy),
            "--out",
            text(&out),
        ];
        scene.run(&[&args, more].concat())
    };
    start(&["--advertise", &scene.peer.address()]).done();
    scene.sign("alice").done();
}

#[test]
fn a_keeper_that_has_another_core_already_refuses_and_no_file_is_written() {
    let scene = Scene::new();
    let refusal = vault_proto::v1::Refusal { code: "core-other".to_owned(), ..Default::default() };
    scene.peer.lie(Lies { refusal: Some(refusal), ..Lies::default() });
    scene.start().fails(3, "core-other");
    assert!(!scene.vault_file().exists());
}
