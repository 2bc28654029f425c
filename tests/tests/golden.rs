//! A vault that an older version left behind opens: same id, same log, same models.

use std::fs;
use std::path::PathBuf;

use vault_tests::golden::{self, Golden};
use vault_tests::{Running, run_ok};

/// Every kind of entry that version 1 writes; the recorded log has them all.
const KINDS: [&str; 11] =
    ["genesis", "start", "propose", "approve", "policy", "model", "release", "renew", "end", "deny", "deny-summary"];

fn json(text: &str) -> serde_json::Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error} in {text}"))
}

#[test]
fn vault_of_version_1_opens_and_releases_its_models() {
    let golden = Golden::open("v1");
    let expected = &golden.expected;
    let verify = || {
        let mut verify = golden.world.vaultctl();
        json(&run_ok(verify.args(["--json", "log", "verify", "--fresh", "--since"]).arg(golden.checkpoint())))
    };

    // The log goes on from the recorded checkpoint, which is the one that was written down.
    let verified = verify();
    assert_eq!(verified["vault"], expected.vault.as_str());
    assert_eq!(verified["continues"], expected.size);
    assert!(verified["size"].as_u64() > Some(expected.size), "the run's own entry comes after: {verified}");
    assert_eq!(verified["policy_serial"], 2);
    let note = fs::read_to_string(golden.checkpoint()).expect("it was recorded");
    let vault = fs::read(golden.world.vault()).expect("the vault file");
    let vault = ledger::vault_file::VaultFile::parse(&vault).expect("this version reads it");
    let verifier = ledger::checkpoint::LogVerifier::of(vault.genesis());
    let checkpoint = verifier.verify_checkpoint(&note).expect("the vault's log key signed it");
    assert_eq!(vault.id().to_string(), expected.vault);
    assert_eq!(checkpoint.size, expected.size);
    assert_eq!(attestation::Sha256Digest::from_bytes(checkpoint.root).to_string(), expected.root);
    let log = run_ok(golden.world.vaultctl().args(["log", "show"]));
    for kind in KINDS {
        assert!(log.contains(&format!(" {kind} ")), "no {kind} in\n{log}");
    }

    // Its models are released to the recorded guest, under the keys that the recorded keeper derives.
    assert_eq!(expected.models.keys().collect::<Vec<_>>(), ["1", "2"]);
    for (version, files) in &expected.models {
        let into = PathBuf::from(format!("/dev/shm/weightvault-golden-{}-{version}", std::process::id()));
        let mut load = Running::start(&mut golden.load(version, &into), &golden.world.path("load.log"));
        load.wait_for("ready");
        assert_eq!(golden::sums(&into), *files);
        load.terminate();
        let _ = fs::remove_dir(&into);
        let _ = fs::remove_file(golden.world.path("load.log"));
    }
    let later = verify();
    assert!(later["size"].as_u64() > verified["size"].as_u64(), "{later} after {verified}");
}
