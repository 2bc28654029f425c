//! A guest whose TPM has lost its certificates: refused, enrolled by two approvers, served, removed, refused.

use std::path::{Path, PathBuf};
use std::process::Command;

use vault_tests::raw_tpm::{self, P384_CERTIFICATE, RSA_2048_CERTIFICATE};
use vault_tests::world::APPROVERS;
use vault_tests::{Running, Swtpm, World, run, run_ok};

struct Scene {
    world: World,
    guest: Swtpm,
}

impl Scene {
    /// A vault whose rule `guest` takes enrolled EKs, and a guest that holds no certificate any more.
    fn open() -> Self {
        let mut guest = None;
        let world = World::before_ceremony(|world, policy| {
            let tpm = Swtpm::start(&world.path("tpm-guest"), &world.path("ca"), &vault_tests::binary("vault-host"));
            let rule = vault_tests::world::guest_rule(&tpm);
            raw_tpm::undefine(&tpm.tcti, RSA_2048_CERTIFICATE);
            raw_tpm::undefine(&tpm.tcti, P384_CERTIFICATE);
            *policy = policy.replace("[keeper]", "[platforms]\nthreshold = 2\n[keeper]");
            policy.push_str(&rule.replace("max_leases", "ek_without_certificate = true\nmax_leases"));
            policy.push_str(&rule.replace("release.guest", "release.strict"));
            guest = Some(tpm);
        });
        world.sign_genesis();
        world.seal("1");
        world.approve(&APPROVERS[..2]);
        Self { world, guest: guest.expect("the closure ran") }
    }

    /// What `vault-enclave evidence` prints for the operator.
    fn evidence(&self) -> serde_json::Value {
        let mut evidence = self.world.enclave("evidence");
        let shown = run_ok(evidence.args(["--tpm", &self.guest.tcti, "--json"]));
        serde_json::from_str(&shown).expect("JSON")
    }

    fn load(&self, rule: &str, into: &Path) -> Command {
        let mut load = self.world.enclave("load");
        load.args(["demo@1", "--rule", rule, "--tpm", &self.guest.tcti, "--vault"]).arg(self.world.vault());
        load.arg("--into").arg(into);
        load
    }

    /// The exact code behind a refusal, as `vaultctl explain` tells it.
    fn refused(&self, rule: &str) -> String {
        let (code, said) = run(&mut self.load(rule, &self.place("refused")));
        assert_ne!(code, Some(0), "{said}");
        self.explain(&said)
    }

    fn explain(&self, said: &str) -> String {
        let is_id = |word: &&str| word.len() == 32 && word.bytes().all(|digit| digit.is_ascii_hexdigit());
        let id = said.split(|c: char| !c.is_ascii_alphanumeric()).rev().find(is_id);
        let id = id.unwrap_or_else(|| panic!("no request id in:\n{said}"));
        run_ok(self.world.vaultctl().args(["explain", id]))
    }

    fn place(&self, name: &str) -> PathBuf {
        let dir = self.world.path("");
        let dir = dir.file_name().expect("the world has a directory").to_string_lossy().into_owned();
        PathBuf::from(format!("/dev/shm/{dir}-{name}"))
    }

    /// `vaultctl platform …`, signed by this approver.
    fn platform(&self, name: &str, arguments: &[&str]) -> Command {
        let mut platform = self.world.vaultctl();
        platform.arg("platform").args(arguments).args(["--yes", "--key"]).arg(self.world.path(name));
        platform
    }
}

#[test]
fn tpm_without_a_certificate_is_served_while_its_approvers_vouch_for_it() {
    let scene = Scene::open();
    let shown = scene.evidence();
    let ek = shown["ek"]["platform"].as_str().expect("its EK");
    assert_eq!((shown["platform"].as_str(), &shown["ek_certificates"]), (Some(ek), &serde_json::json!([])));
    assert_eq!(shown["ek"]["name"].as_str().map(str::len), Some(68), "000b and a SHA-256");
    assert!(scene.refused("guest").contains("ek-not-enrolled"));

    let add = ["add", ek, "--label", "gpu-7", "--counts-as", "emulated"];
    let said = run_ok(&mut scene.platform("alice", &add));
    assert!(said.contains("platform add gpu-7 as emulated") && said.contains(ek), "{said}");
    let pending = run_ok(scene.world.vaultctl().arg("pending"));
    for part in ["LOOSER", "gpu-7", ek, "by: release.guest\n", "0 of 2"] {
        assert!(pending.contains(part), "{part}: {pending}");
    }
    let (code, said) =
        run(scene.world.vaultctl().args(["approve", "--latest", "--yes", "--key"]).arg(scene.world.path("alice")));
    assert_ne!(code, Some(0), "{said}");
    scene.world.approve(&["bob"]);
    assert!(scene.refused("guest").contains("ek-not-enrolled"), "one of two");
    scene.world.approve(&["carol"]);
    let listed = run_ok(scene.world.vaultctl().args(["--json", "platform", "list"]));
    let listed: serde_json::Value = serde_json::from_str(&listed).expect("JSON");
    assert_eq!(
        (&listed["platforms"][0]["label"], &listed["platforms"][0]["counts_as"]),
        (&"gpu-7".into(), &"emulated".into())
    );
    assert_eq!((&listed["platforms"][0]["platform"], &listed["threshold"]), (&ek.into(), &2.into()));

    assert!(scene.refused("strict").contains("ek-certificate-missing"), "its rule does not say so");
    let into = scene.place("enrolled");
    let mut load = Running::start(&mut scene.load("guest", &into), &scene.world.path("load.log"));
    load.wait_for("ready ");

    let (code, said) = run(&mut scene.platform("alice", &add));
    assert_ne!(code, Some(0), "{said}");
    assert!(said.contains("platform-enrolled"), "{said}");
    run_ok(&mut scene.platform("alice", &["remove", ek]));
    scene.world.approve(&["bob", "carol"]);
    assert!(scene.refused("guest").contains("ek-not-enrolled"), "it was removed");
    // A third of its 60 seconds, and jitter: then it asks for a renewal that it does not get.
    load.wait_for("next: vaultctl explain");
    assert!(scene.explain(&load.log()).contains("ek-not-enrolled"), "its lease is not renewed");
    drop(load);
    let _ = std::fs::remove_dir_all(&into);
    let log = run_ok(scene.world.vaultctl().args(["log", "show"]));
    for part in ["alice proposes platform add gpu-7 as emulated", "is enrolled", "is removed", "bob approves platform"]
    {
        assert!(log.contains(part), "{part}: {log}");
    }
    let release = log.lines().find(|line| line.contains(" release ")).expect("it was granted");
    let index = release.split_whitespace().next().expect("its index");
    let verified = run_ok(scene.world.vaultctl().args(["evidence", "verify", "--entry", index]));
    assert!(verified.contains("enrolled as gpu-7"), "{verified}");
    run_ok(scene.world.vaultctl().args(["log", "verify", "--fresh"]));
}
