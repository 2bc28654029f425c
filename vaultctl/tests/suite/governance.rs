//! `vaultctl propose`, `pending`, `approve`, `models`.

use attestation::{Sha256Digest, UnixTime};
use ledger::approvals::model_object;
use ledger::entry::{Entry, Proposal, Propose, ProposedModel};
use ledger::manifest::{Blake3Digest, Manifest, ModelId, Plan, PlanUnit, SealedDigests};
use ledger::model_signature::{self, PublisherKey};
use ledger::names::{Group, Name, Version};
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair};
use serde_json::{Value, json};

use crate::peer::{Lies, now};
use crate::scene::{Ended, Scene, sign_by_hand, text};

/// The next policy: another number of leases.
fn next_policy(scene: &Scene, serial: u64) -> std::path::PathBuf {
    let (vault, prev) = {
        let keeper = scene.peer.keeper();
        let vault = keeper.state.vault().unwrap();
        (vault.id().to_string(), vault.policy().digest().to_string())
    };
    let path = scene.path("next.toml");
    std::fs::write(&path, scene.policy(&vault, serial, &prev).replace("max_leases = 40", "max_leases = 90")).unwrap();
    path
}

fn propose(scene: &Scene, name: &str) -> Ended {
    let (file, key) = (next_policy(scene, 2), scene.path(name));
    scene.with_vault(&["propose", "policy", text(&file), "--yes", "--key", text(&key)])
}

fn approve(scene: &Scene, name: &str, object: &str) -> Ended {
    let key = scene.path(name);
    scene.with_vault(&["approve", object, "--yes", "--key", text(&key)])
}

#[test]
fn a_policy_is_proposed_shown_in_words_approved_and_in_force() {
    let scene = Scene::open();
    let proposed = propose(&scene, "alice").done();
    assert_eq!((&proposed["proposed_by"], &proposed["serial"]), (&json!("alice"), &json!(2)));
    let object = proposed["object"].as_str().unwrap();

    let pending = scene.with_vault(&["pending"]).done();
    let waits = &pending["pending"][0];
    assert_eq!((&waits["object"], &waits["missing"]), (&json!(object), &json!(2)));
    assert_eq!(waits["may_approve"], json!(["bob", "carol"]));
    assert!(waits["says"][0].as_str().unwrap().starts_with("LOOSER"), "{waits}");

    let bob = scene.path("bob");
    let latest = ["approve", "--latest", "--expires", "2d", "--yes", "--key", text(&bob)];
    assert_eq!(scene.with_vault(&latest).done()["effective"], false);
    let last = approve(&scene, "carol", object).done();
    assert_eq!(last["effective"], true);
    assert_eq!(scene.with_vault(&["status"]).done()["policy"]["serial"], 2);
    assert_eq!(scene.with_vault(&["pending"]).done()["pending"], json!([]));
}

#[test]
fn a_change_is_shown_before_it_is_signed() {
    let scene = Scene::open();
    propose(&scene, "alice").done();
    let bob = scene.path("bob");
    let ended = scene.say(&["approve", "--latest", "--key", text(&bob)]);
    assert_eq!((ended.code, ended.stdout.as_str()), (2, ""));
    assert!(ended.stderr.contains("LOOSER: release.minilm"), "{}", ended.stderr);
    assert!(ended.stderr.contains("proposed by alice"), "{}", ended.stderr);
}

#[test]
fn an_approval_can_be_signed_by_hand() {
    let scene = Scene::open();
    let object = propose(&scene, "alice").done()["object"].as_str().unwrap().to_owned();
    let statement = scene.path("statement.json");
    scene.with_vault(&["approve", &object, "--print-statement", text(&statement)]).done();
    let signature = sign_by_hand(&scene.path("carol"), &statement);
    let approved = scene.with_vault(&["approve", &object, "--signature", text(&signature)]).done();
    assert_eq!(approved["approved_by"], "carol");
}

#[test]
fn a_policy_that_does_not_follow_on_the_one_in_force_is_not_sent() {
    let scene = Scene::open();
    let (file, alice) = (next_policy(&scene, 3), scene.path("alice"));
    let entries = scene.peer.keeper().entries.len();
    scene.with_vault(&["propose", "policy", text(&file), "--yes", "--key", text(&alice)]).fails(2, "policy-lineage");
    assert_eq!(scene.peer.keeper().entries.len(), entries);
}

#[test]
fn nobody_but_an_approver_proposes_or_approves() {
    let scene = Scene::open();
    propose(&scene, "mallory").fails(2, "not-an-approver");
    let object = propose(&scene, "alice").done()["object"].as_str().unwrap().to_owned();
    approve(&scene, "mallory", &object).fails(2, "not-an-approver");
}

#[test]
fn what_does_not_wait_is_not_approved() {
    let scene = Scene::open();
    approve(&scene, "bob", &format!("sha256:{}", "0".repeat(64))).fails(2, "proposal-unknown");
    let bob = scene.path("bob");
    scene.with_vault(&["approve", "--latest", "--yes", "--key", text(&bob)]).fails(2, "proposal-unknown");
}

#[test]
fn a_refusal_of_the_keeper_keeps_its_code_and_request() {
    let scene = Scene::open();
    let object = propose(&scene, "alice").done()["object"].as_str().unwrap().to_owned();
    let refusal = vault_proto::v1::Refusal {
        code: "already-approved".to_owned(),
        request_id: "ab".repeat(16),
        message: "carol has approved".to_owned(),
    };
    scene.peer.lie(Lies { refusal: Some(refusal), ..Lies::default() });
    let ended = approve(&scene, "carol", &object);
    ended.fails(3, "already-approved");
    let failure: Value = serde_json::from_str(ended.stderr.lines().last().unwrap()).unwrap();
    assert_eq!(failure["next"], format!("vaultctl explain {} --vault FILE", "ab".repeat(16)));
    assert_eq!((&failure["kind"], &failure["why"]), (&json!("refused"), &json!("carol has approved")));
}

#[test]
fn the_newest_of_several_is_not_approved_unseen() {
    let scene = Scene::open();
    propose(&scene, "alice").done();
    let file = scene.path("next.toml");
    let other = std::fs::read_to_string(&file).unwrap().replace("max_leases = 90", "max_leases = 91");
    std::fs::write(&file, other).unwrap();
    let (carol, bob) = (scene.path("carol"), scene.path("bob"));
    scene.with_vault(&["propose", "policy", text(&file), "--yes", "--key", text(&carol)]).done();
    scene.with_vault(&["approve", "--latest", "--yes", "--key", text(&bob)]).fails(2, "proposal-ambiguous");
    scene.with_vault(&["approve", "--latest", "--key", text(&bob)]).fails(2, "not-confirmed");
}

/// A model, as its publisher proposes it.
struct Model {
    proposed: ProposedModel,
    manifest: Vec<u8>,
    signature: Vec<u8>,
}

fn publisher() -> (EcdsaKeyPair, PublisherKey) {
    let (rng, algorithm) = (SystemRandom::new(), &ECDSA_P256_SHA256_ASN1_SIGNING);
    let pkcs8 = EcdsaKeyPair::generate_pkcs8(algorithm, &rng).unwrap();
    let pair = EcdsaKeyPair::from_pkcs8(algorithm, pkcs8.as_ref(), &rng).unwrap();
    let key = PublisherKey::from_point(pair.public_key().as_ref()).unwrap();
    (pair, key)
}

fn model(vault: Sha256Digest, (pair, key): &(EcdsaKeyPair, PublisherKey)) -> Model {
    let (name, version) = (Name::try_from("minilm").unwrap(), Version::try_from("1.0").unwrap());
    let unit = PlanUnit {
        file: ledger::manifest::FilePath::try_from("config.json").unwrap(),
        offset: 0,
        length: 612,
        group: Group::try_from("files").unwrap(),
    };
    let id = ModelId { vault, model: name.clone(), version: version.clone(), publisher: key.digest() };
    let sealed = SealedDigests { sha256: Sha256Digest::of(b"sealed"), blake3: Blake3Digest::from_bytes([1; 32]) };
    let manifest = Manifest::build(id, Plan::new(vec![unit]).unwrap(), vec![sealed]).unwrap();
    let files = manifest.signed_files(Sha256Digest::of(b"wrapped key"));
    let rng = SystemRandom::new();
    let sign = |bytes: &[u8]| pair.sign(&rng, bytes).map(|signature| signature.as_ref().to_vec());
    let signature = model_signature::sign("minilm", &files, key, sign).unwrap();
    let (manifest_digest, model_sig) = (manifest.digest(), Sha256Digest::of(&signature));
    let proposed = ProposedModel {
        object: model_object(&name, &version, manifest_digest, model_sig),
        model: name,
        version,
        manifest: manifest_digest,
        model_sig,
        dek_record: Sha256Digest::of(b"record"),
        publisher: key.digest(),
        bytes: 612,
        units: 1,
        not_after: UnixTime(now().seconds() + 86_400),
    };
    Model { proposed, manifest: manifest.bytes().to_vec(), signature }
}

/// A vault whose policy has a fresh publisher, and his proposal after `change`.
fn with_model(change: impl FnOnce(&mut Model)) -> (Scene, String) {
    let mut scene = Scene::new();
    let publisher = publisher();
    scene.publisher = publisher.1.to_pem();
    std::fs::write(scene.path("policy.toml"), scene.policy("genesis", 1, "none")).unwrap();
    scene.start().done();
    for name in ["alice", "bob", "carol"] {
        scene.sign(name).done();
    }
    let vault = scene.peer.keeper().state.vault().unwrap().id();
    let mut model = model(vault, &publisher);
    change(&mut model);
    let object = model.proposed.object.to_string();
    let mut keeper = scene.peer.keeper();
    keeper.put(model.manifest);
    keeper.put(model.signature);
    keeper.append(&Entry::Propose(Propose { time: now(), proposal: Proposal::Model(model.proposed) }));
    drop(keeper);
    (scene, object)
}

/// Names in the proposal what lies in the blobs now.
fn name_blobs(model: &mut Model) {
    let proposed = &mut model.proposed;
    proposed.manifest = Sha256Digest::of(&model.manifest);
    proposed.model_sig = Sha256Digest::of(&model.signature);
    proposed.object = model_object(&proposed.model, &proposed.version, proposed.manifest, proposed.model_sig);
}

#[test]
fn a_model_is_checked_approved_and_listed() {
    let (scene, object) = with_model(|_| ());
    let waits = &scene.with_vault(&["pending"]).done()["pending"][0];
    assert_eq!((&waits["kind"], &waits["says"][0]), (&json!("model"), &json!("publishes minilm@1.0")));
    approve(&scene, "alice", &object).done();
    assert_eq!(approve(&scene, "bob", &object).done()["effective"], true);
    let models = scene.with_vault(&["models"]).done();
    let listed = &models["models"][0];
    assert_eq!((&listed["model"], &listed["bytes"], &listed["at_host"]), (&json!("minilm"), &json!(612), &json!(true)));
}

#[test]
fn a_model_that_is_not_what_its_proposal_says_is_not_approved() {
    type Change = fn(&mut Model);
    let changes: [(&str, Change); 4] = [
        ("model-manifest-mismatch", |model| model.proposed.bytes = 613),
        ("model-manifest-mismatch", |model| model.proposed.units = 2),
        ("model-signature-malformed", |model| {
            model.signature = b"{}".to_vec();
            name_blobs(model);
        }),
        ("manifest-json", |model| {
            model.manifest.pop();
            name_blobs(model);
        }),
    ];
    for (code, change) in changes {
        let (scene, object) = with_model(change);
        let entries = scene.peer.keeper().entries.len();
        let (exit, found) = approve(&scene, "alice", &object).failed();
        assert_eq!((exit, found.as_str()), (4, code));
        assert_eq!(scene.peer.keeper().entries.len(), entries);
    }
}

#[test]
fn a_model_that_somebody_else_signed_is_not_approved() {
    let stranger = publisher();
    let (scene, object) = with_model(|good| {
        good.signature = model(good.manifest_vault(), &stranger).signature;
        name_blobs(good);
    });
    let (exit, _) = approve(&scene, "alice", &object).failed();
    assert_eq!(exit, 4);
}

impl Model {
    fn manifest_vault(&self) -> Sha256Digest {
        Manifest::parse(&self.manifest).unwrap().id().vault
    }
}

#[test]
fn a_host_that_hands_out_another_manifest_is_caught() {
    let (scene, object) = with_model(|_| ());
    scene.peer.lie(Lies { blob: Some(|blob| blob[0] ^= 1), ..Lies::default() });
    approve(&scene, "alice", &object).fails(4, "blob-digest-mismatch");
}
