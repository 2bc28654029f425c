//! A rule that pins what `run` starts: its program, arguments, environment and image.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use attestation::{LoadChallenge, Sha256Digest, Workload, lease_id};
use vault_proto::convert::{Challenge, ReleaseRequest};
use vault_tests::guest::Guest;
use vault_tests::process::binary;
use vault_tests::serve::{is_root, wait_until};
use vault_tests::world::guest_rule;
use vault_tests::{Running, Swtpm, World, run, run_ok};

const SCRIPT: &str = "echo has-begun in:$(pwd).; while :; do sleep 0.05; done";
const PATH: &str = "PATH=/usr/bin:/bin";

fn image(n: u8) -> String {
    Sha256Digest::from_bytes([n; 32]).to_string()
}

/// The options that the rule pins the effect of.
fn options() -> Vec<String> {
    ["--clean-env", "--env", PATH, "--image", &image(1)].map(str::to_owned).to_vec()
}

/// What `vaultctl measure workload` prints for a policy.
fn measured(line: &[&str]) -> String {
    let mut measure = Command::new(binary("vaultctl"));
    measure.args(["measure", "workload", "--env", PATH, "--image", &image(1), "--json", "--"]).args(line);
    let report: serde_json::Value = serde_json::from_str(&run_ok(&mut measure)).expect("a report");
    report["policy"].as_str().expect("a fragment of a policy").to_owned()
}

/// A rule `guest` with a pin of every part of this command line, and a rule `demo` that asks.
fn world_for(line: impl FnOnce(&World) -> Vec<String>) -> (World, Swtpm) {
    let mut guest = None;
    let world = World::before_ceremony(|world, policy| {
        let tpm = Swtpm::start(&world.path("tpm-guest"), &world.path("ca"), &binary("vault-host"));
        let line = line(world);
        policy.push_str(&guest_rule(&tpm));
        policy.push_str(&measured(&line.iter().map(String::as_str).collect::<Vec<_>>()));
        *policy = policy.replacen("max_leases = 256\n", "max_leases = 256\nworkloads = \"any\"\n", 1);
        guest = Some(tpm);
    });
    world.sign_genesis();
    world.publish("1");
    (world, guest.expect("the closure ran"))
}

fn world() -> (World, Swtpm) {
    world_for(|_| ["sh", "-c", SCRIPT].map(str::to_owned).to_vec())
}

/// `vault-enclave run demo@1 OPTIONS -- LINE`.
fn command(world: &World, guest: &Swtpm, options: &[String], line: &[&str]) -> Command {
    let mut command = world.enclave("run");
    command.args(["demo@1", "--at"]).arg(world.path("weights")).args(options);
    command.args(["--rule", "guest", "--tpm", &guest.tcti, "--host", &world.url(), "--vault"]).arg(world.vault());
    command.arg("--").args(line);
    command
}

/// What the keeper refused, as its approvers see it, and what the command said.
fn refused(world: &World, command: &mut Command) -> (String, String) {
    let (code, said) = run(command);
    assert!(code != Some(0) && !said.contains("has-begun"), "{said}");
    let request = said.split(|char: char| !char.is_ascii_hexdigit()).find(|word| word.len() == 32);
    let request = request.unwrap_or_else(|| panic!("no request in:\n{said}"));
    (run_ok(world.vaultctl().args(["explain", request])), said)
}

fn log(world: &World) -> String {
    run_ok(world.vaultctl().args(["log", "show"]))
}

#[test]
fn rule_that_pins_a_program_gives_keys_to_that_one_as_it_is_pinned_and_renews_them() {
    if !is_root() {
        return;
    }
    let (world, guest) = world();
    let good = ["sh", "-c", SCRIPT];
    let mut running = Running::start(&mut command(&world, &guest, &options(), &good), &world.path("run.log"));
    running.wait_for("has-begun in:/.");

    let with = |more: &[&str]| [options(), more.iter().map(|text| (*text).to_owned()).collect()].concat();
    let other_image = with(&[]).iter().map(|text| text.replace(&image(1), &image(2))).collect();
    let cases: [(&str, Vec<String>, Vec<&str>); 4] = [
        ("workload-program", options(), vec!["cat", "-c", SCRIPT]),
        ("workload-arguments", options(), vec!["sh", "-c", "echo has-begun"]),
        ("workload-environment", with(&["--env", "LD_PRELOAD="]), good.to_vec()),
        ("workload-image", other_image, good.to_vec()),
    ];
    for (code, options, line) in cases {
        let (explained, _) = refused(&world, &mut command(&world, &guest, &options, &line));
        assert!(explained.contains(code), "{code}: {explained}");
    }

    // A program that another can change is none that can be shown.
    let copy = world.path("sh");
    fs::copy("/bin/sh", &copy).expect("it is ours");
    fs::set_permissions(&copy, fs::Permissions::from_mode(0o777)).expect("it is ours");
    let line = [copy.to_str().expect("a path"), "-c", SCRIPT];
    let (explained, said) = refused(&world, &mut command(&world, &guest, &options(), &line));
    assert!(explained.contains("workload-missing"), "{explained}");
    assert!(said.contains("others than root and this user can change"), "{said}");

    // Who starts nothing has nothing to show.
    let into = PathBuf::from(format!("/dev/shm/weightvault-workload-{}", std::process::id()));
    let mut load = world.enclave("load");
    load.args(["demo@1", "--rule", "guest", "--tpm", &guest.tcti, "--host", &world.url(), "--vault"]);
    let (explained, _) = refused(&world, load.arg(world.vault()).arg("--into").arg(&into));
    assert!(explained.contains("workload-missing"), "{explained}");
    let _ = fs::remove_dir(&into);

    wait_until("the lease is renewed", || log(&world).contains(" renew "));
    assert!(running.log().contains("has-begun"));
    let shell = Sha256Digest::of(&fs::read("/bin/sh").expect("a shell")).to_string();
    let leases = run_ok(world.vaultctl().arg("leases"));
    assert!(leases.contains(&format!("runs program {shell}, arguments sha256:")), "{leases}");
    let status = run_ok(world.vaultctl().arg("status"));
    assert!(status.contains(&format!("1 lease for program {shell}, as the guests say")), "{status}");
    let said = log(&world);
    let denied = said.lines().find(|line| line.contains("[workload-program]")).expect("it is logged");
    let cat = Sha256Digest::of(&fs::read("/bin/cat").expect("it is there"));
    assert!(denied.contains(&format!("starts program {cat}")) && denied.contains(&image(1)), "{denied}");
    running.terminate();
    run_ok(world.vaultctl().args(["log", "verify"]));

    // An auditor has the same from a folder, where the evidence shows that the hardware signed it.
    let (bundle, page) = (world.path("bundle"), world.path("audit.html"));
    run_ok(world.vaultctl().args(["audit", "export", "--out"]).arg(&bundle));
    let mut verify = world.vaultctl();
    let audited = run_ok(verify.args(["audit", "verify"]).arg(&bundle).arg("--html").arg(&page));
    assert!(audited.contains(&format!("program {shell}: 1 release")), "{audited}");
    assert!(fs::read_to_string(&page).expect("the page").contains(&format!("program {shell}")));
}

/// A directory that root alone can change, and that nothing is left of.
fn place() -> tempfile::TempDir {
    tempfile::Builder::new().prefix("weightvault-workload-").tempdir_in("/run").expect("it is root's")
}

fn script(path: &Path, text: &str) {
    fs::write(path, format!("#!/bin/sh\n{text}")).expect("it is ours");
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).expect("it is ours");
}

fn signal(running: &Running, name: &str) {
    run_ok(Command::new("sh").args(["-c", &format!("kill -{name} {}", running.pid())]));
}

/// Releases that the log says were made to the program that the rule pins.
fn pinned_releases(world: &World) -> usize {
    log(world).lines().filter(|line| line.contains(" release ") && line.contains("; starts program ")).count()
}

#[test]
fn pinned_program_gets_other_versions_and_its_files_again_and_starts_no_more_once_it_changed() {
    if !is_root() {
        return;
    }
    let place = place();
    let (serve, link) = (place.path().join("serve.1"), place.path().join("serve"));
    script(
        &serve,
        "trap 'echo got $(cat \"$1/config.json\")' USR2\n\
         echo begun $(cat \"$1/config.json\")\ntouch \"$2\"\nwhile :; do sleep 0.05; done\n",
    );
    std::os::unix::fs::symlink("serve.1", &link).expect("it is ours");
    let text = |path: PathBuf| path.to_str().expect("a path").to_owned();
    let line = |world: &World| vec![text(link.clone()), text(world.path("weights")), text(world.path("ready"))];
    // Version 1 says so, too.
    let (world, guest) = world_for(|world| {
        fs::write(world.source().join("config.json"), "{\"version\": \"one\"}").expect("it is ours");
        line(world)
    });
    fs::write(world.source().join("config.json"), "{\"version\": \"two\"}").expect("it is ours");
    world.publish("2");
    let line = line(&world);
    let line: Vec<&str> = line.iter().map(String::as_str).collect();

    // The files go when it has read them, and come again, each time under a lease of the same program.
    let ready = format!("file:{}", world.path("ready").display());
    let follow = world.path("version");
    fs::write(&follow, "1\n").expect("it is ours");
    let more = ["--drop-after", &ready, "--reload-on", "USR2", "--follow", follow.to_str().expect("a path")];
    let options = [options(), more.map(str::to_owned).to_vec()].concat();
    let mut running = Running::start(&mut command(&world, &guest, &options, &line), &world.path("run.log"));
    running.wait_for("begun {\"version\": \"one\"}");
    running.wait_for("the files are dropped");
    assert_eq!(pinned_releases(&world), 1);
    signal(&running, "USR2");
    running.wait_for("got {\"version\": \"one\"}");
    assert_eq!(pinned_releases(&world), 2);

    // Another version is loaded for it, and it starts again.
    fs::write(&follow, "2\n").expect("it is ours");
    running.wait_for("begun {\"version\": \"two\"}");
    assert_eq!(pinned_releases(&world), 3);

    // Not once another program is at its place, though the keeper was shown the one that it was.
    script(&place.path().join("serve.2"), "echo evil-has-begun\n");
    std::os::unix::fs::symlink("serve.2", place.path().join("new")).expect("it is ours");
    fs::rename(place.path().join("new"), &link).expect("it is ours");
    fs::write(&follow, "1\n").expect("it is ours");
    let (code, said) = running.wait();
    assert!(code == Some(125) && said.contains("program-changed") && !said.contains("evil-has-begun"), "{said}");
    assert_eq!(log(&world).lines().filter(|line| line.contains(" end ")).count(), 4, "nothing goes on");
    let (explained, _) = refused(&world, &mut command(&world, &guest, &self::options(), &line));
    assert!(explained.contains("workload-program"), "{explained}");
}

fn bound(guest: &Guest, challenge: &Challenge, workload: Option<Workload>) -> ReleaseRequest {
    let bound = LoadChallenge {
        rule: "demo".to_owned(),
        model: "demo".to_owned(),
        version: "1".to_owned(),
        session: challenge.session,
        nonce: challenge.nonce,
        vault: challenge.vault_id,
        policy: challenge.policy,
        manifest: challenge.manifest,
        units: challenge.units.clone(),
        tpm: guest.part(challenge),
    };
    let binding = bound.bind_workload(guest.hpke_key(), guest.lease_key(), workload);
    ReleaseRequest { workload, ..guest.redemption_over(challenge, &binding.tpm_extra_data()) }
}

#[tokio::test(flavor = "multi_thread")]
async fn claim_that_is_changed_on_the_way_is_not_the_one_that_the_hardware_signed() {
    let (world, _tpm) = world();
    let mut guest = Guest::new(&world).await;
    let digest = |n| Sha256Digest::from_bytes([n; 32]);
    let shown = Workload { program: digest(1), arguments: digest(2), environment: digest(3), image: Some(digest(4)) };
    let changed = [
        Some(Workload { program: digest(9), ..shown }),
        Some(Workload { arguments: digest(9), ..shown }),
        Some(Workload { environment: digest(9), ..shown }),
        Some(Workload { image: None, ..shown }),
        None,
    ];
    for other in changed {
        let challenge = guest.challenge(guest.ask()).await.expect("a challenge");
        assert!(challenge.workload);
        let request = ReleaseRequest { workload: other, ..bound(&guest, &challenge, Some(shown)) };
        let refused = guest.redeem(request).await.map(drop).expect_err("another workload");
        assert_eq!(guest.code_of(refused).await, "binding-mismatch");
    }
    let challenge = guest.challenge(guest.ask()).await.expect("a challenge");
    let refused = guest.redeem(bound(&guest, &challenge, None)).await.map(drop).expect_err("none is shown");
    assert_eq!(guest.code_of(refused).await, "workload-missing");
    let challenge = guest.challenge(guest.ask()).await.expect("a challenge");
    let grant = guest.redeem(bound(&guest, &challenge, Some(shown))).await.expect("the one that was signed");

    // What runs under the lease is that one as long as it lasts: neither the host nor the guest can say another.
    let id = lease_id(&challenge.vault_id, &challenge.session, &guest.lease_key());
    for other in changed {
        let mut renewal = guest.renewal_of(&grant, id, Some(shown)).await;
        renewal.workload = other.map(Into::into);
        let refused = guest.renew(renewal).await.map(drop).expect_err("another workload");
        assert_eq!(guest.code_of(refused).await, "lease-signature");
        let renewal = guest.renewal_of(&grant, id, other).await;
        let refused = guest.renew(renewal).await.map(drop).expect_err("another workload");
        assert_eq!(guest.code_of(refused).await, "workload-changed");
    }
    let renewal = guest.renewal_of(&grant, id, Some(shown)).await;
    guest.renew(renewal).await.expect("the same one");
}
