//! `vaultctl log …`: the whole log is folded; a host that shows another one is caught.

use ledger::checkpoint::Checkpoint;
use serde_json::json;
use vaultctl::audit::{LogFault, LogReader};

use crate::peer::Lies;
use crate::scene::{Scene, text};

#[test]
fn the_log_verifies_and_continues_an_older_checkpoint() {
    let scene = Scene::open();
    let old = scene.path("old.checkpoint");
    let checkpoint = scene.with_vault(&["log", "checkpoint", "--out", text(&old)]).done();
    assert_eq!(checkpoint["size"], 4);
    scene.peer.keeper().start_run();

    let verified = scene.with_vault(&["log", "verify", "--since", text(&old), "--fresh"]).done();
    assert_eq!((&verified["size"], &verified["continues"]), (&json!(5), &json!(4)));
    assert_eq!((&verified["fresh"], &verified["policy_serial"]), (&json!(true), &json!(1)));
    let text = scene.say(&["log", "verify"]).stdout;
    assert!(text.starts_with("Verified: 5 entries of vault sha256:"), "{text}");
    assert!(text.contains("--fresh asks it"), "{text}");
}

#[test]
fn entries_are_shown_in_words() {
    let scene = Scene::open();
    scene.peer.keeper().start_run();
    let shown = scene.with_vault(&["log", "show", "--from", "1"]).done();
    let says: Vec<&str> =
        shown["entries"].as_array().unwrap().iter().map(|entry| entry["says"].as_str().unwrap()).collect();
    assert!(says[0].starts_with("alice approves the genesis sha256:"), "{says:?}");
    assert!(says[3].starts_with("keeper 0.1.0 started; EMULATED"), "{says:?}");
    assert_eq!(shown["entries"][3]["entry"]["type"], "start");
    let page = scene.with_vault(&["log", "show", "--from", "1", "--count", "2"]).done();
    assert_eq!((page["entries"].as_array().unwrap().len(), &page["next"]), (2, &json!(3)));
}

#[test]
fn a_checkpoint_of_another_key_or_vault_is_refused() {
    let scene = Scene::open();
    let keeper = scene.peer.keeper();
    let good = keeper.checkpoint(4);
    let of_another = keeper.checkpoint_of(attestation::Sha256Digest::of(b"x"), Checkpoint { size: 4, root: [0; 32] });
    drop(keeper);
    for (code, lie) in [("note-signature", good.replacen("\n4\n", "\n3\n", 1)), ("note-not-signed", of_another)] {
        scene.peer.lie(Lies { checkpoint: Some(lie), ..Lies::default() });
        let (exit, found) = scene.with_vault(&["log", "checkpoint"]).failed();
        assert_eq!((exit, found.as_str()), (4, code));
        let (exit, _) = scene.with_vault(&["log", "verify"]).failed();
        assert_eq!(exit, 4);
    }
}

#[test]
fn an_older_log_is_caught_by_the_keepers_evidence() {
    let scene = Scene::open();
    let old = scene.peer.keeper().checkpoint(3);
    scene.peer.lie(Lies { checkpoint: Some(old), ..Lies::default() });
    scene.with_vault(&["log", "verify"]).done();
    scene.with_vault(&["log", "verify", "--fresh"]).fails(4, "log-shortened");
}

#[test]
fn entries_that_are_not_those_of_the_checkpoint_are_refused() {
    type Lie = fn(u64, &mut Vec<Vec<u8>>);
    let lies: [(&str, Lie); 4] = [
        ("log-other-vault", |first, entries| {
            if first == 0 {
                entries[0].push(b' ');
            }
        }),
        ("entry-malformed", |first, entries| {
            if first == 2 {
                entries[0].pop();
            }
        }),
        ("already-approved", |first, entries| {
            if first == 2 {
                entries[1] = entries[0].clone();
            }
        }),
        ("answer-malformed", |_, entries| entries.clear()),
    ];
    for (code, lie) in lies {
        let scene = Scene::open();
        scene.peer.lie(Lies { entries: Some(lie), ..Lies::default() });
        let (_, found) = scene.with_vault(&["log", "verify"]).failed();
        assert_eq!(found, code);
    }
}

#[test]
fn history_that_was_rewritten_is_caught_by_an_older_checkpoint() {
    let scene = Scene::open();
    let (vault, old) = {
        let keeper = scene.peer.keeper();
        (keeper.state.vault().unwrap().id(), scene.path("old.checkpoint"))
    };
    let write = |checkpoint| std::fs::write(&old, scene.peer.keeper().checkpoint_of(vault, checkpoint)).unwrap();
    write(Checkpoint { size: 3, root: [7; 32] });
    scene.with_vault(&["log", "verify", "--since", text(&old)]).fails(4, "log-forked");
    write(Checkpoint { size: 9, root: [7; 32] });
    scene.with_vault(&["log", "verify", "--since", text(&old)]).fails(4, "log-shortened");
}

#[test]
fn an_entry_that_no_keeper_should_write_is_found_though_the_log_key_signed_it() {
    let scene = Scene::open();
    let entry = br#"{"v":1,"type":"end","time":9999999999,"lease":"sha256:0000000000000000000000000000000000000000000000000000000000000000","cause":"agent"}"#;
    scene.peer.keeper().push_unchecked(entry.to_vec());
    scene.with_vault(&["log", "verify"]).fails(4, "lease-unknown");
}

#[test]
fn a_signed_root_over_other_entries_is_refused() {
    let scene = Scene::open();
    let keeper = scene.peer.keeper();
    let vault = keeper.state.vault().unwrap().id();
    let lie = keeper.checkpoint_of(vault, Checkpoint { size: 4, root: [7; 32] });
    drop(keeper);
    scene.peer.lie(Lies { checkpoint: Some(lie), ..Lies::default() });
    scene.with_vault(&["log", "verify"]).fails(4, "log-root-mismatch");
}

#[test]
fn fewer_entries_than_the_checkpoint_says_are_not_the_log() {
    let scene = Scene::open();
    let keeper = scene.peer.keeper();
    let mut reader = LogReader::new(keeper.state.vault().unwrap().id());
    for entry in &keeper.entries[..3] {
        reader.push(entry).unwrap();
    }
    let refused = reader.finish(Checkpoint { size: 4, root: [0; 32] }).err();
    assert_eq!(refused, Some(LogFault::SizeMismatch { checkpoint: 4, entries: 3 }));
}

/// Of the recorded log of every type of entry: one that came before the recovery is another, and still permitted.
#[test]
fn a_recovery_goes_on_from_the_very_log_that_its_approvers_were_shown() {
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/../ledger/tests/governance/data/fold.jsonl");
    let recorded = std::fs::read_to_string(file).unwrap();
    let entries: Vec<&str> = recorded.lines().collect();
    let vault = attestation::Sha256Digest::of(entries[0].as_bytes());
    let read = |entries: &[String]| {
        let mut reader = LogReader::new(vault);
        entries.iter().try_for_each(|entry| reader.push(entry.as_bytes()))
    };
    let good: Vec<String> = entries.iter().map(|entry| (*entry).to_owned()).collect();
    assert_eq!(read(&good), Ok(()));
    let of = |kind: &str| good.iter().position(|entry| entry.contains(&format!(r#""type":"{kind}""#))).unwrap();
    let (before, recover) = (of("deny-summary"), of("recover"));
    assert!(before < recover);
    let mut other = good.clone();
    other[before] = other[before].replace(r#""pcr-mismatch":3"#, r#""pcr-mismatch":4"#);
    assert_ne!(other[before], good[before]);
    let fault = read(&other).unwrap_err();
    assert_eq!((&fault, fault.code()), (&LogFault::RecoveryRoot { index: recover as u64 }, "log-recovery-root"));
}
