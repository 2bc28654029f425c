//! A model goes from its publisher to an attested guest by the programs that people use, on a software TPM of its own.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use vault_tests::world::APPROVERS;
use vault_tests::{Running, Swtpm, World, run, run_ok};

/// A world, and a guest's TPM that a rule of its own names.
struct Scene {
    world: World,
    guest: Swtpm,
}

impl Scene {
    fn open() -> Self {
        let (world, guest) = World::open_with_guest();
        Self { world, guest }
    }

    /// `vault-enclave load demo@1` into a place of this name.
    fn load(&self, into: &Path) -> Command {
        let mut load = self.world.enclave("load");
        load.args(["demo@1", "--rule", "guest", "--tpm", &self.guest.tcti, "--vault"]).arg(self.world.vault());
        load.arg("--into").arg(into);
        load
    }

    /// A load that must be refused, for a reason whose text has this in it; nothing is left behind.
    fn refused(&self, reason: &str) {
        let into = self.place("refused");
        let (code, said) = run(&mut self.load(&into));
        assert_ne!(code, Some(0), "{reason}: {said}");
        assert!(said.contains(reason), "{reason}: {said}");
        let left = fs::read_dir(&into).is_ok_and(|mut entries| entries.next().is_some());
        assert!(!left, "{reason}: plaintext is left");
        let _ = fs::remove_dir(&into);
    }

    /// A directory in memory; where the machine has no safe place, `load` says what to do.
    fn place(&self, name: &str) -> PathBuf {
        let world = self.world.path("");
        let world = world.file_name().expect("the world has a directory").to_string_lossy().into_owned();
        PathBuf::from(format!("/dev/shm/{world}-{name}"))
    }

    fn stored(&self, file: &str) -> PathBuf {
        self.world.path("host").join("models/demo/1").join(file)
    }
}

#[test]
fn model_reaches_the_attested_guest_and_is_wiped_when_it_ends() {
    let scene = Scene::open();
    let world = &scene.world;
    world.seal("1");
    scene.refused("unknown");
    world.approve(&APPROVERS[..1]);
    scene.refused("unknown");
    world.approve(&APPROVERS[1..2]);

    let into = scene.place("whole");
    let mut load = Running::start(&mut scene.load(&into), &world.path("load.log"));
    load.wait_for("ready");
    for file in fs::read_dir(world.source()).expect("the source") {
        let file = file.expect("the source");
        let opened = fs::read(into.join(file.file_name())).expect("the same file is there");
        assert!(opened == fs::read(file.path()).expect("the source"), "{:?} differs", file.file_name());
    }
    load.terminate();
    assert!(!fs::read_dir(&into).is_ok_and(|mut entries| entries.next().is_some()), "plaintext is left");
    let _ = fs::remove_dir(&into);

    let log = run_ok(world.vaultctl().args(["log", "show"]));
    assert!(log.contains(" release ") && log.contains(" end "), "{log}");
    run_ok(world.vaultctl().args(["log", "verify", "--fresh"]));
}

#[test]
fn host_that_changes_what_it_stores_is_found_out() {
    let scene = Scene::open();
    scene.world.publish("1");
    let unit = |index: u32| scene.stored(&format!("units/{index:05}.cob"));
    let read = |path: &Path| fs::read(path).expect("the host stores it");
    let write = |path: &Path, bytes: &[u8]| fs::write(path, bytes).expect("the host's root may");

    let good = read(&unit(2));
    let mut flipped = good.clone();
    let middle = flipped.len() / 2;
    flipped[middle] ^= 1;
    write(&unit(2), &flipped);
    scene.refused("unit 2");
    write(&unit(2), &good[..good.len() - 1]);
    scene.refused("unit 2");
    let other = read(&unit(3));
    write(&unit(2), &other);
    scene.refused("unit 2");
    write(&unit(2), &good);

    let manifest = scene.stored("manifest.json");
    let text = read(&manifest);
    let edited = String::from_utf8(text.clone()).expect("JSON").replacen("layer.0", "layer.9", 1);
    write(&manifest, edited.as_bytes());
    scene.refused("manifest");
    write(&manifest, &text);

    let into = scene.place("again");
    let mut load = Running::start(&mut scene.load(&into), &scene.world.path("load.log"));
    load.wait_for("ready");
    load.terminate();
    let _ = fs::remove_dir(&into);
}
