//! Ciphertext from elsewhere than the vault's host, and from a cache: what opens is the publisher's, wherever it came from.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

#[path = "../../vault-host/tests/host/s3.rs"]
#[allow(dead_code, unreachable_pub, clippy::unwrap_used, reason = "shared with the tests of the host")]
mod s3;

use s3::S3;
use vault_tests::world::APPROVERS;
use vault_tests::{Running, Swtpm, World, run, run_ok};

/// A published model of which a directory has the sealed units too.
struct Scene {
    world: World,
    guest: Swtpm,
    sealed: PathBuf,
}

impl Scene {
    fn open() -> Self {
        let (world, guest) = World::open_with_guest();
        let sealed = world.path("sealed");
        let mut seal = world.enclave("seal");
        seal.arg(world.source()).args(["--model", "demo", "--version", "1", "--vault"]).arg(world.vault());
        seal.arg("--publisher-key").arg(world.path("publisher.pem")).arg("--out").arg(&sealed);
        run_ok(&mut seal);
        run_ok(world.enclave("publish").arg(&sealed).arg("--vault").arg(world.vault()));
        world.approve(&APPROVERS[..2]);
        Self { world, guest, sealed }
    }

    fn place(&self) -> PathBuf {
        let world = self.world.path("");
        let world = world.file_name().expect("the world has a directory").to_string_lossy().into_owned();
        PathBuf::from(format!("/dev/shm/{world}-sources"))
    }

    fn command(&self, options: &[&str]) -> Command {
        let mut load = self.world.enclave("load");
        load.args(["demo@1", "--rule", "guest", "--tpm", &self.guest.tcti, "--vault"]).arg(self.world.vault());
        load.arg("--into").arg(self.place()).args(options);
        load
    }

    /// A load with these options: all of it is there, and this is what was said.
    fn loads(&self, options: &[&str]) -> String {
        self.loads_by(&mut self.command(options))
    }

    fn loads_by(&self, command: &mut Command) -> String {
        let log = self.world.path("load.log");
        // Running adds to what is there.
        let _ = fs::remove_file(&log);
        let mut load = Running::start(command, &log);
        load.wait_for("ready");
        for file in fs::read_dir(self.world.source()).expect("the source") {
            let file = file.expect("the source");
            let opened = fs::read(self.place().join(file.file_name())).expect("the same file is there");
            assert!(opened == fs::read(file.path()).expect("the source"), "{:?} differs", file.file_name());
        }
        let said = load.log();
        load.terminate();
        let _ = fs::remove_dir(self.place());
        said
    }

    fn refused(&self, options: &[&str], reason: &str) {
        let (status, said) = run(&mut self.command(options));
        assert!(status != Some(0) && said.contains(reason), "{reason}: {said}");
        assert!(!fs::read_dir(self.place()).is_ok_and(|mut entries| entries.next().is_some()), "plaintext is left");
        let _ = fs::remove_dir(self.place());
    }

    /// The host loses its ciphertext, not the manifest.
    fn host_loses_units(&self) {
        fs::remove_dir_all(self.world.path("host").join("models/demo/1/units")).expect("the host stores them");
    }

    fn copy(&self, to: &Path) {
        fs::create_dir_all(to.join("units")).expect("the directory is ours");
        for unit in fs::read_dir(self.sealed.join("units")).expect("the sealed units") {
            let unit = unit.expect("the sealed units");
            fs::copy(unit.path(), to.join("units").join(unit.file_name())).expect("the directory is ours");
        }
    }
}

fn text(path: &Path) -> &str {
    path.to_str().expect("UTF-8")
}

fn flip(unit: &Path) {
    let mut bytes = fs::read(unit).expect("a unit");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(unit, bytes).expect("the directory is ours");
}

#[test]
fn units_of_a_directory_open_and_nothing_else_is_asked_where_it_is_the_only_place() {
    let scene = Scene::open();
    let sealed = scene.sealed.clone();
    scene.host_loses_units();
    scene.loads(&["--ciphertext", text(&sealed)]);
    scene.loads(&["--source", text(&sealed)]);
    flip(&sealed.join("units/00002.cob"));
    scene.refused(&["--ciphertext", text(&sealed)], "unit 2");
    // The host is the last place, and has them no more.
    scene.refused(&["--source", text(&sealed)], "unit 2");
    scene.refused(&["--ciphertext", "/nonexistent"], "/nonexistent");
    scene.refused(&["--source", "ftp://somewhere"], "is not a place of sealed units");
}

#[test]
fn place_that_lies_or_is_gone_costs_nothing_but_a_word() {
    let scene = Scene::open();
    let lying = scene.world.path("lying");
    scene.copy(&lying);
    flip(&lying.join("units/00002.cob"));
    fs::remove_file(lying.join("units/00003.cob")).expect("a unit");
    // Nobody listens there.
    let dead = "http://127.0.0.1:1/models";
    let said = scene.loads(&["--source", dead, "--source", text(&lying)]);
    for words in
        ["127.0.0.1:1/models: sealed unit", "going on from", "the vault's host", "sealed unit 2: chunk", "sources   "]
    {
        assert!(said.contains(words), "{words}: {said}");
    }
    let said = scene.loads(&["--source", "/nonexistent", "--source", text(&lying)]);
    assert!(said.contains("the next source is asked"), "{said}");
}

#[test]
fn units_come_from_a_bucket_by_signed_requests() {
    let Some(s3) = S3::start() else { return };
    let scene = Scene::open();
    // The server keeps objects as files.
    scene.copy(&s3.object("models/demo"));
    let config = s3.config("");
    let value = |key: &str| {
        let line = config.lines().find_map(|line| line.strip_prefix(key)).expect("a line of the configuration");
        line.trim_matches(|c| "= \"".contains(c)).to_owned()
    };
    let (endpoint, credentials) = (value("endpoint"), value("credentials"));
    let wrong = credentials.replace("/credentials", "/wrong");
    let bucket = ["--source", "s3://vaults/models/demo", "--s3-endpoint", &endpoint, "--s3-credentials"];
    // Without a secret that it knows it gives nothing, and the host is asked.
    let said = scene.loads(&[bucket.as_slice(), &[&wrong]].concat());
    assert!(said.contains("HTTP status 403; going on from the vault's host"), "{said}");
    scene.host_loses_units();
    let said = scene.loads(&[bucket.as_slice(), &[&credentials]].concat());
    assert!(!said.contains("warning"), "{said}");
    scene.refused(
        &["--source", "s3://vaults/models/demo", "--s3-endpoint", &endpoint, "--s3-credentials", "/dev/null"],
        "unit",
    );
}

#[test]
fn cache_serves_what_is_there_no_more_and_is_never_believed() {
    let scene = Scene::open();
    let cache = scene.world.path("cache");
    let options = ["--cache", text(&cache), "--cache-size", "1G"];
    scene.loads(&options);
    scene.host_loses_units();
    let said = scene.loads(&options);
    assert!(!said.contains("warning"), "{said}");
    // Ciphertext alone is in it, under the digests of the manifest.
    let entries: Vec<PathBuf> =
        fs::read_dir(&cache).expect("the cache").map(|entry| entry.expect("the cache").path()).collect();
    let sealed: Vec<Vec<u8>> = fs::read_dir(scene.sealed.join("units"))
        .expect("the sealed units")
        .map(|unit| fs::read(unit.expect("a unit").path()).expect("a unit"))
        .collect();
    let mut units = entries.iter().filter(|entry| entry.extension().is_some_and(|ending| ending == "cob"));
    assert!(units.all(|entry| sealed.contains(&fs::read(entry).expect("an entry"))));
    let largest = entries.iter().max_by_key(|entry| fs::metadata(entry).expect("an entry").len()).expect("an entry");
    flip(largest);
    scene.refused(&options, "the cache: sealed unit");
    scene.loads(&[options.as_slice(), &["--source", text(&scene.sealed)]].concat());
    scene.loads(&options);
}

#[test]
fn full_disk_under_the_cache_ends_the_caching_and_not_the_load() {
    let mounts = Command::new("unshare").args(["-m", "mount", "-t", "tmpfs", "tmpfs", "/mnt"]).status();
    if !mounts.is_ok_and(|status| status.success()) {
        assert!(std::env::var_os("CI").is_none_or(|ci| ci != "true"), "CI runs this as root");
        println!("skipped: only root can mount a small disk");
        return;
    }
    let scene = Scene::open();
    let cache = scene.world.path("cache");
    fs::create_dir(&cache).expect("the directory is ours");
    let load = scene.command(&["--cache", text(&cache), "--cache-size", "1G"]);
    let mut small = Command::new("unshare");
    let script = "mount -t tmpfs -o size=1m,mode=0700 tmpfs \"$0\" && exec \"$@\"";
    small.args(["-m", "sh", "-c", script]).arg(&cache).arg(load.get_program()).args(load.get_args());
    let said = scene.loads_by(&mut small);
    assert!(said.contains("takes nothing more") && said.contains("goes on without it"), "{said}");
}
