//! A keeper whose root is sealed to its chip: where it opens again, and where it says why not.

use vault_tests::{SoftSnp, run_ok};

use crate::scene::{KEEPER, Scene};

impl Scene {
    /// Switches the keeper's machine off; its TPM stays on.
    fn stop(&mut self) {
        if let Some(keeper) = self.world.keeper.take() {
            keeper.terminate();
        }
        self.keeper_chip = None;
    }

    /// Starts the keeper as a guest of this image on the chip of this directory; it must refuse. What it says.
    fn refusal(&mut self, dir: &str, measurement: [u8; 48], options: &[&str]) -> String {
        let chip = SoftSnp::start(&self.dir(dir), measurement, options);
        self.world.keeper_snp = Some(chip.choice());
        let (code, log) = self.world.start_keeper_process().wait();
        assert_ne!(code, Some(0), "{log}");
        log
    }
}

#[test]
fn root_that_is_sealed_to_a_chip_opens_there_and_nowhere_else() {
    let mut scene = Scene::open(&[]);
    let root = std::fs::read_to_string(scene.world.path("keeper").join("root.json")).unwrap();
    assert!(root.contains("\"seal_to\": \"snp,tpm\"") && root.contains("\"snp\""), "{root}");
    scene.stop();

    // Another chip with the same image, and another image on the same chip, derive another key.
    for (dir, measurement, options) in
        [("other", KEEPER, &[][..]), ("keeper", [0x67; 48], &[]), ("keeper", KEEPER, &["--policy", "0x20000"])]
    {
        let said = scene.refusal(dir, measurement, options);
        assert!(said.contains("root-other-guest"), "{said}");
        assert!(said.contains("guest image") && said.contains("restore"), "it must say what to do: {said}");
    }
    // Firmware that is older than what the root is sealed to derives no such key at all.
    let said = scene.refusal("keeper", KEEPER, &["--tcb", "4,0,23,219"]);
    assert!(said.contains("snp-key-parameters"), "{said}");

    scene.world.keeper_snp = None;
    let (code, said) = scene.world.start_keeper_process().wait();
    assert_ne!(code, Some(0));
    assert!(said.contains("root-chip-missing") && said.contains("--snp"), "{said}");

    // Its own chip, image and policy: the same vault.
    let chip = SoftSnp::start(&scene.dir("keeper"), KEEPER, &[]);
    scene.world.keeper_snp = Some(chip.choice());
    scene.keeper_chip = Some(chip);
    scene.world.start_keeper();
    let said = run_ok(scene.world.vaultctl().args(["log", "verify", "--fresh"]));
    assert!(said.contains("Verified:"), "{said}");
    scene.world.publish("2");
}

/// A keeper that does not prove what the first policy asks for gets no core: the ceremony ends before anybody is called.
#[test]
fn keeper_that_proves_less_than_its_policy_asks_for_gets_no_vault() {
    let started = std::panic::catch_unwind(|| Scene::before_ceremony_of([0x68; 48], &[]));
    let said = *started.map(drop).unwrap_err().downcast::<String>().unwrap();
    assert!(said.contains("snp-measurement-not-allowed") && said.contains("keeper.snp.measurements"), "{said}");
}
