//! A rule that pins what `run` starts: its program, arguments, environment and image.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::Command;

use attestation::{LoadChallenge, Sha256Digest, Workload, arguments_digest, environment_digest};
use vault_proto::convert::{Challenge, ReleaseRequest};
use vault_tests::guest::Guest;
use vault_tests::process::binary;
use vault_tests::serve::{is_root, wait_until};
use vault_tests::world::guest_rule;
use vault_tests::{Running, Swtpm, World, run, run_ok};

const SCRIPT: &str = "echo has-begun; while :; do sleep 0.05; done";
const PATH: &str = "PATH=/usr/bin:/bin";

fn image(n: u8) -> String {
    Sha256Digest::from_bytes([n; 32]).to_string()
}

/// The options that the rule pins the effect of.
fn options() -> Vec<String> {
    ["--clean-env", "--env", PATH, "--image", &image(1)].map(str::to_owned).to_vec()
}

/// A rule `guest` with a pin of every part, and a rule `demo` that asks.
fn world() -> (World, Swtpm) {
    let mut guest = None;
    let world = World::before_ceremony(|world, policy| {
        let tpm = Swtpm::start(&world.path("tpm-guest"), &world.path("ca"), &binary("vault-host"));
        let program = Sha256Digest::of(&fs::read("/bin/sh").expect("a shell"));
        let (arguments, environment) =
            (arguments_digest(&[b"sh", b"-c", SCRIPT.as_bytes()]), environment_digest(&[PATH.as_bytes()]));
        let pin = format!(
            "workloads = [{{ program = \"{program}\", arguments = \"{arguments}\", environment = \"{environment}\", \
             image = \"{}\" }}]\n",
            image(1)
        );
        policy.push_str(&guest_rule(&tpm));
        policy.push_str(&pin);
        *policy = policy.replacen("max_leases = 256\n", "max_leases = 256\nworkloads = \"any\"\n", 1);
        guest = Some(tpm);
    });
    world.sign_genesis();
    world.publish("1");
    (world, guest.expect("the closure ran"))
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
    running.wait_for("has-begun");

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
    running.terminate();
    run_ok(world.vaultctl().args(["log", "verify"]));
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
    guest.redeem(bound(&guest, &challenge, Some(shown))).await.expect("the one that was signed");
}
