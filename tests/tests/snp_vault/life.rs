//! From the ceremony to the end of a lease, by the programs that people use.

use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use vault_tests::{Running, SoftSnp, World, run, run_ok};

use crate::scene::{GUEST, Scene, is_empty};

/// A third of a lease of 60 s, and what a busy machine takes.
const RENEWED_WITHIN: Duration = Duration::from_secs(50);

fn log(world: &World) -> String {
    run_ok(world.vaultctl().args(["log", "show"]))
}

/// The indices of the entries of a type.
fn indices(log: &str, kind: &str) -> Vec<String> {
    let lines = log.lines().filter(|line| line.contains(&format!(" {kind} ")));
    lines.filter_map(|line| line.split_whitespace().next()).map(str::to_owned).collect()
}

#[test]
fn model_reaches_an_snp_guest_without_a_tpm_and_the_log_bears_it() {
    let guest_dir = tempfile::Builder::new().prefix("weightvault-snp-").tempdir().unwrap();
    let chip = SoftSnp::start(&guest_dir.path().join("guest"), GUEST, &[]);
    let scene = Scene::before_ceremony(&[chip.platform()]);
    let world = &scene.world;

    // Every approver sees what the keeper proves, and that its TPM proves nothing.
    for name in ["alice", "bob", "carol"] {
        let said = run_ok(world.vaultctl().args(["init", "sign", "--yes", "--key"]).arg(world.path(name)));
        for part in ["EMULATED", "snp + tpm (unbound)", "UNBOUND", &hex::encode([0x66; 48]), "soft-amd"] {
            assert!(said.contains(part), "{part}: {said}");
        }
    }
    world.publish("1");
    let status = run_ok(world.vaultctl().arg("status"));
    assert!(status.contains("EMULATED"), "{status}");
    let evidence = run_ok(world.vaultctl().args(["evidence", "verify"]));
    assert!(evidence.contains("UNBOUND") && evidence.contains("EMULATED"), "{evidence}");

    let into = PathBuf::from(format!("/dev/shm/{}", guest_dir.path().file_name().unwrap().to_string_lossy()));
    let mut load = world.enclave("load");
    load.args(["demo@1", "--rule", "guest", "--snp", &chip.choice(), "--vault"]).arg(world.vault());
    load.arg("--into").arg(&into);
    let mut agent = Running::start(&mut load, &world.path("load.log"));
    agent.wait_for("ready");
    for file in fs::read_dir(world.source()).unwrap() {
        let file = file.unwrap();
        assert!(fs::read(into.join(file.file_name())).unwrap() == fs::read(file.path()).unwrap());
    }
    let status = run_ok(world.vaultctl().arg("status"));
    assert!(status.contains("1 lease in force") && status.contains(&chip.platform().to_string()), "{status}");

    // A renewal comes into the log with the next entry; another load is one.
    let start = Instant::now();
    let renewed = loop {
        std::thread::sleep(Duration::from_secs(2));
        run_ok(world.vaultctl().args(["status"]));
        let log = log(world);
        if !indices(&log, "renew").is_empty() {
            break log;
        }
        assert!(start.elapsed() < RENEWED_WITHIN, "no renewal in:\n{log}\n{}", agent.log());
    };
    agent.terminate();
    assert!(is_empty(&into), "plaintext is left");
    let _ = fs::remove_dir(&into);

    let ended = log(world);
    assert_eq!(indices(&ended, "end").len(), 1, "{ended}");
    let verified = run_ok(world.vaultctl().args(["log", "verify", "--fresh"]));
    assert!(verified.contains("Verified:"), "{verified}");
    for (kind, form) in [("approve", "snp + tpm (unbound)"), ("release", "snp"), ("renew", "snp")] {
        let index = &indices(&renewed, kind)[0];
        let said = run_ok(world.vaultctl().args(["evidence", "verify", "--entry", index]));
        assert!(said.contains("Verified:") && said.contains(&format!("evidence:  {form}")), "{kind}: {said}");
        assert!(said.contains("EMULATED"), "{said}");
    }
}

/// What a person sees who starts an agent where no rule lets it in.
#[test]
fn agent_is_refused_with_its_reason() {
    let scene = Scene::open(&[]);
    let world = &scene.world;
    let into = PathBuf::from(format!("/dev/shm/{}", scene.dirs.path().file_name().unwrap().to_string_lossy()));
    let load = |snp: &str| {
        let mut load = world.enclave("load");
        load.args(["demo@1", "--rule", "guest", "--snp", snp, "--vault"]).arg(world.vault());
        run(load.arg("--into").arg(&into))
    };
    let elsewhere = SoftSnp::start(&scene.dir("elsewhere"), GUEST, &[]);
    let (code, said) = load(&elsewhere.choice());
    assert_ne!(code, Some(0), "{said}");
    let request = said.split_whitespace().find(|word| word.len() >= 16 && word.chars().all(|c| c.is_ascii_hexdigit()));
    if let Some(request) = request {
        let explained = run_ok(world.vaultctl().args(["explain", request]));
        assert!(explained.contains("snp-chip-not-listed"), "{explained}");
    } else {
        panic!("no request id in {said}");
    }
    // A guest that has no SNP device at all says so before it asks for anything.
    let (code, said) = load(&format!("soft:{}", scene.dir("nothing").display()));
    assert_ne!(code, Some(0), "{said}");
    assert!(said.contains("nothing"), "{said}");
    assert!(is_empty(&into));
    let _ = fs::remove_dir(&into);
}
