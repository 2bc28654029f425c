//! `vaultctl policy …`

use attestation::Sha256Digest;
use ledger::policy::Policy;
use serde_json::json;

use crate::scene::{Scene, run, text};

#[test]
fn a_policy_is_explained_with_what_deserves_a_second_look() {
    let scene = Scene::new();
    let file = scene.path("policy.toml");
    let report = run(&["policy", "check", "--json", text(&file)]).done();
    assert_eq!(report["serial"], 1);
    let warnings = report["warnings"].to_string();
    assert!(warnings.contains("EMULATED") && warnings.contains("any TPM"), "{warnings}");
    let said = run(&["policy", "check", text(&file)]).stdout;
    assert!(said.contains("2 of 3 approvers change the policy"), "{said}");
    assert!(said.contains("who proposes a policy does not count"), "{said}");
}

/// Whoever signs the first policy of a vault reads these words: a value whose first bytes are those of a good one is another.
#[test]
fn a_policy_is_explained_with_every_value_in_full() {
    let scene = Scene::new();
    let file = scene.path("policy.toml");
    let policy = std::fs::read_to_string(&file).unwrap();
    let said = run(&["policy", "check", text(&file)]).stdout;
    let values: Vec<&str> = policy.split('"').filter(|text| text.len() == 64).collect();
    assert_eq!(values.len(), 4, "{policy}");
    values.iter().for_each(|value| assert!(said.contains(value), "{value}: {said}"));
    let anchor = &Policy::parse(&policy).unwrap();
    let (anchor, _) = anchor.trust_anchors().iter().next().unwrap();
    assert!(said.contains(&Sha256Digest::of(&anchor.certificate).to_string()), "{said}");
}

/// PCRs from 8 on hold what the system that runs says of itself.
#[test]
fn a_rule_by_which_any_system_may_run_deserves_a_second_look() {
    let scene = Scene::new();
    let file = scene.path("pcrs.toml");
    let policy = scene.policy("genesis", 1, "none");
    let (keeper, release) = policy.split_once("[release.minilm]").unwrap();
    for (index, warned) in [("0", true), ("7", true), ("9", true), ("4", false), ("17", false)] {
        let release = release.replacen("pcrs = { 0 =", &format!("pcrs = {{ {index} ="), 1);
        std::fs::write(&file, format!("{keeper}[release.minilm]{release}")).unwrap();
        let said = run(&["policy", "check", text(&file)]).stdout;
        assert_eq!(said.contains("! release.minilm: PCR 4 is not checked"), warned, "{index}: {said}");
    }
}

#[test]
fn a_policy_that_is_wrong_is_refused_with_the_key_that_is() {
    let scene = Scene::new();
    let file = scene.path("wrong.toml");
    std::fs::write(&file, scene.policy("genesis", 1, "none").replace("threshold = 2", "threshold = 0")).unwrap();
    let ended = run(&["policy", "check", "--json", text(&file)]);
    ended.fails(2, "policy-threshold-zero");
    assert!(ended.stderr.contains("approval.threshold"), "{}", ended.stderr);
}

#[test]
fn a_difference_is_in_words() {
    let scene = Scene::new();
    let (old, new) = (scene.path("policy.toml"), scene.path("new.toml"));
    let looser = scene.policy("genesis", 1, "none").replace("\nthreshold = 2", "\nthreshold = 1");
    std::fs::write(&new, looser).unwrap();
    let changes = run(&["policy", "diff", "--json", text(&old), text(&new)]).done()["changes"].clone();
    assert!(changes[0].as_str().unwrap().starts_with("LOOSER"), "{changes}");
    assert_eq!(run(&["policy", "diff", "--json", text(&old), text(&old)]).done()["changes"], json!([]));
}

/// As `head` does once it has what it wants.
#[test]
fn a_reader_that_goes_away_is_no_failure() {
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let ended = std::process::Command::new(env!("CARGO_BIN_EXE_vaultctl"))
        .args(["policy", "template"])
        .stdout(writer)
        .output()
        .unwrap();
    assert_eq!((ended.status.code(), ended.stderr), (Some(0), Vec::new()));
    // Any other failure to write is one.
    let full = std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    let ended = std::process::Command::new(env!("CARGO_BIN_EXE_vaultctl"))
        .args(["policy", "template"])
        .stdout(full)
        .output()
        .unwrap();
    assert_eq!(ended.status.code(), Some(1));
    assert!(String::from_utf8(ended.stderr).unwrap().contains("standard output"));
}

#[test]
fn the_template_is_toml_with_comments() {
    let template = run(&["policy", "template"]);
    assert_eq!(template.code, 0);
    assert!(template.stdout.contains("[approval]\nthreshold = 2"));
}
