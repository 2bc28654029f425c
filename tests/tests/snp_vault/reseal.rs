//! A keeper whose root is sealed to its chip too: its TPM's boot state can change, its guest cannot.

use std::fs;
use std::process::Command;

use attestation::Sha256Digest;
use vault_tests::{Boot, SoftSnp, Swtpm, binary, run, run_ok};

use crate::scene::{KEEPER, Scene};

const NEXT: &str = "next";
/// A launch digest that the policy lists for the keeper beside the one that runs.
const OTHER: [u8; 48] = [0x67; 48];

fn pcr_11(image: &[u8]) -> String {
    let measured = Sha256Digest::of(image);
    hex::encode(Sha256Digest::of(&[[0; 32].as_slice(), measured.as_bytes()].concat()).as_bytes())
}

/// By a policy that allows the keeper another boot state and another launch digest.
fn allow(scene: &Scene) {
    let now = pcr_11(&fs::read(binary("vault-enclave")).unwrap());
    let next = scene.world.next_policy(|policy| {
        for (old, new) in [
            (format!("11 = [\"{now}\"]"), format!("11 = [\"{now}\", \"{}\"]", pcr_11(NEXT.as_bytes()))),
            (
                format!("[\"{}\"]", hex::encode(KEEPER)),
                format!("[\"{}\", \"{}\"]", hex::encode(KEEPER), hex::encode(OTHER)),
            ),
        ] {
            assert_eq!(policy.matches(&old).count(), 1);
            *policy = policy.replace(&old, &new);
        }
    });
    run_ok(&mut scene.world.propose(&next, "alice"));
    scene.world.approve(&["bob", "carol"]);
}

fn propose(scene: &Scene, measurement: Option<[u8; 48]>) -> Command {
    let mut propose = scene.world.vaultctl();
    let pcr = format!("11={}", pcr_11(NEXT.as_bytes()));
    propose.args(["propose", "reseal", "--pcr", &pcr, "--yes", "--key"]).arg(scene.world.path("alice"));
    if let Some(measurement) = measurement {
        propose.args(["--measurement", &hex::encode(measurement)]);
    }
    propose
}

#[test]
fn root_that_is_sealed_to_a_chip_follows_its_tpm_to_another_boot_state_and_its_guest_to_none() {
    let mut scene = Scene::open(&[]);
    allow(&scene);
    let (code, said) = run(&mut propose(&scene, None));
    assert!(code == Some(2) && said.contains("reseal-measurement-missing"), "{said}");
    // Approvers may want it; the chip derives the root for the guest that runs, and for no other.
    let (code, said) = run(&mut propose(&scene, Some(OTHER)));
    assert!(code == Some(3) && said.contains("reseal-other-guest"), "{said}");
    let request = said.lines().find_map(|line| line.trim().strip_prefix("request: ")).unwrap();
    let said = run_ok(scene.world.vaultctl().args(["explain", request]));
    assert!(said.contains(&hex::encode(KEEPER)) && said.contains("another keeper"), "{said}");

    run_ok(&mut propose(&scene, Some(KEEPER)));
    scene.world.approve(&["bob", "carol"]);
    let now: serde_json::Value = record(&scene, "root.json");
    let next: serde_json::Value = record(&scene, "root.next.json");
    assert_eq!((&now["snp"], &now["ak"]), (&next["snp"], &next["ak"]), "the same root, the same attestation key");
    assert_ne!(now["secret"], next["secret"]);

    // The reboot brings another boot state and newer firmware of the chip at once.
    scene.world.keeper.take().unwrap().terminate();
    scene.world.keeper_tpm.take().unwrap().stop();
    scene.keeper_chip = None;
    let image = scene.world.path("image-next");
    fs::write(&image, NEXT).unwrap();
    let (state, ca) = (scene.world.path("tpm"), scene.world.path("ca"));
    scene.world.keeper_tpm = Some(Swtpm::booted(&state, &ca, &Boot { firmware: None, image }));
    let chip = SoftSnp::start(&scene.dir("keeper"), OTHER, &["--tcb", "5,1,25,220"]);
    scene.world.keeper_snp = Some(chip.choice());
    let (code, said) = scene.world.start_keeper_process().wait();
    assert!(code != Some(0) && said.contains("root-other-guest"), "{said}");
    drop(chip);
    let chip = SoftSnp::start(&scene.dir("keeper"), KEEPER, &["--tcb", "5,1,25,220"]);
    scene.world.keeper_snp = Some(chip.choice());
    scene.keeper_chip = Some(chip);
    scene.world.start_keeper();
    assert_eq!(record(&scene, "root.json"), next);
    run_ok(scene.world.vaultctl().args(["vault-file", "--out"]).arg(scene.world.path("renewed.json")));
    fs::copy(scene.world.path("renewed.json"), scene.world.vault()).unwrap();
    let said = run_ok(scene.world.vaultctl().args(["log", "verify", "--fresh"]));
    assert!(said.contains("Verified:"), "{said}");
    scene.world.publish("2");
}

fn record(scene: &Scene, file: &str) -> serde_json::Value {
    serde_json::from_slice(&fs::read(scene.world.path("keeper").join(file)).unwrap()).unwrap()
}
