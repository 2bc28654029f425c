//! Hosts that hold a load back: a lease is renewed for as long as its load takes, and nothing is used under one that is lost.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::Ordering;

use rustix::process::Signal;
use vault_tests::reader::Reader;
use vault_tests::relay::{self, Hold, slow_after};
use vault_tests::sealed::loader;
use vault_tests::serve::{is_root, wait_until, with_command_line};
use vault_tests::world::{APPROVERS, guest_rule};
use vault_tests::{Running, Swtpm, World, binary, run_ok, signal};

/// Bytes from the host: more than manifest and grant, less than the model.
const GRANTED: usize = 160 << 10;

/// A vault in which one approver may revoke, with the software TPM of a machine whose rule `guest` is changed by `rule`.
fn world(rule: impl FnOnce(String) -> String) -> (World, Swtpm) {
    let mut guest = None;
    let world = World::before_ceremony(|world, policy| {
        let tpm = Swtpm::start(&world.path("tpm-guest"), &world.path("ca"), &binary("vault-host"));
        policy.push_str(&rule(guest_rule(&tpm)));
        *policy = policy.replacen("threshold = 2\n", "threshold = 2\nrevoke_threshold = 1\n", 1);
        guest = Some(tpm);
    });
    world.sign_genesis();
    (world, guest.expect("the closure ran"))
}

/// The address of a relay to the host with this gate.
fn host_behind(world: &World, name: &str, gate: relay::Gate) -> String {
    let socket = world.path(name);
    relay::unix(&socket, &world.path("host.sock"), gate);
    format!("unix:{}", socket.display())
}

/// `vault-enclave load demo@1`; what these tests write on a disk is no secret.
fn load(world: &World, guest: &Swtpm, host: &str, into: &Path) -> Running {
    let mut command = world.enclave("load");
    command.args(["demo@1", "--rule", "guest", "--tpm", &guest.tcti, "--host", host, "--vault"]).arg(world.vault());
    command.args(["--insecure-plaintext-on-disk", "--into"]).arg(into);
    Running::start(&mut command, &world.path("load.log"))
}

/// `vault-enclave run` of a script with these models.
fn run_script(world: &World, guest: &Swtpm, host: &str, models: &[&str], script: &str) -> Running {
    let mut command = world.enclave("run");
    command.args(models.iter().flat_map(|model| ["--model", model]));
    command.args(["--rule", "guest", "--tpm", &guest.tcti, "--host", host, "--vault"]).arg(world.vault());
    Running::start(command.args(["--", "sh", "-c", script]), &world.path("run.log"))
}

fn revoke(world: &World, version: &str) {
    let mut revoke = world.vaultctl();
    revoke.args(["revoke", "--model", "demo", "--version", version, "--no-wait", "--yes", "--key"]);
    run_ok(revoke.arg(world.path(APPROVERS[0])));
}

fn files(directory: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let files = fs::read_dir(directory).expect("a directory").map(|file| file.expect("a file").path());
    files.map(|file| (file.file_name().expect("a name").into(), fs::read(&file).expect("a file"))).collect()
}

fn entries(world: &World, kind: &str) -> usize {
    run_ok(world.vaultctl().args(["log", "show"])).matches(&format!(" {kind} ")).count()
}

/// Takes longer than a lease lasts, of the least length that a policy may give.
#[test]
fn a_load_that_takes_longer_than_its_lease_is_renewed_meanwhile() {
    let (world, guest) = world(|rule| rule);
    world.publish("1");
    let (quick, gate) = slow_after(GRANTED);
    let into = world.path("into");
    let mut load = load(&world, &guest, &host_behind(&world, "slow.sock", gate), &into);
    // Of 60 s, from a third of which on it is renewed: the fourth time comes when the first lease would be over.
    for renewals in 1..=4 {
        wait_until("it is renewed", || load.log().matches("lease renewed").count() >= renewals);
    }
    assert!(!load.log().contains("ready "), "{}", load.log());
    quick.store(true, Ordering::SeqCst);
    load.wait_for("ready ");
    assert!(files(&into) == files(&world.source()));
    assert_eq!(load.terminate(), Some(0));
    assert_eq!((entries(&world, "release"), entries(&world, "end"), files(&into).len()), (1, 1, 0));
}

#[test]
fn a_load_whose_lease_is_revoked_ends_at_once_and_leaves_nothing() {
    let (world, guest) = world(|rule| rule);
    world.publish("1");
    let (_quick, gate) = slow_after(GRANTED);
    let into = world.path("into");
    let load = load(&world, &guest, &host_behind(&world, "slow.sock", gate), &into);
    wait_until("keys are released", || entries(&world, "release") == 1);
    revoke(&world, "1");
    let (code, said) = load.wait();
    assert_eq!(code, Some(77), "{said}");
    assert!(said.contains("(lease-revoked)") && !said.contains("ready "), "{said}");
    assert_eq!((entries(&world, "end"), files(&into).len()), (1, 0), "{said}");
}

#[test]
fn an_agent_whose_model_is_revoked_on_its_way_says_so_and_does_not_try_again() {
    if !is_root() {
        return;
    }
    let (world, guest) = world(|rule| rule);
    world.publish("1");
    let (_quick, gate) = slow_after(GRANTED);
    let sockets = world.path("sockets");
    let mut command = world.enclave("agent");
    command.args(["demo@1:guest", "--tpm", &guest.tcti, "--vault"]).arg(world.vault());
    command.args(["--host", &host_behind(&world, "slow.sock", gate), "--sockets"]).arg(&sockets);
    let mut running = Running::start(command.arg("--memory").arg(world.path("memory")), &world.path("agent.log"));
    wait_until("keys are released", || entries(&world, "release") == 1);
    revoke(&world, "1");
    running.wait_for("(lease-revoked)");
    let mut reader = Reader::ask(&sockets.join("agent.sock"), "v1 open demo@1\n");
    let refused = reader.frame().expect("a word");
    assert_eq!((refused["frame"].as_str(), refused["code"].as_str()), (Some("refused"), Some("model-gone")));
    assert!(refused["message"].as_str().is_some_and(|message| message.contains("lease-revoked")), "{refused}");
    assert_eq!((running.terminate(), entries(&world, "end")), (Some(0), 1));
}

/// Waits out a lease. The rule gives what runs an hour more; what does not run yet gets nothing of it.
#[test]
fn what_is_held_back_until_the_lease_is_over_is_neither_kept_nor_started() {
    let (world, guest) = world(|rule| rule.replacen("on_lease_end = \"end\"", "on_lease_end = \"drain 1h\"", 1));
    world.publish("1");
    let into = world.path("into");
    let (hold, gate) = Hold::after(GRANTED);
    let mut loads = vec![load(&world, &guest, &host_behind(&world, "held.sock", gate), &into)];
    let mut holds = vec![hold];
    if is_root() {
        let (hold, gate) = Hold::after(GRANTED);
        let host = host_behind(&world, "held-too.sock", gate);
        let model = format!("demo@1={}", world.path("weights").display());
        loads.push(run_script(&world, &guest, &host, &[&model], "echo \"has started\""));
        holds.push(hold);
    }
    holds.iter().for_each(|hold| hold.wait());
    loads.iter_mut().for_each(|load| drop(load.wait_for("could not be renewed")));
    for load in loads {
        let (code, said) = load.wait();
        assert_eq!(code, Some(75), "{said}");
        assert!(said.contains("(lease-lost)"), "{said}");
        assert!(!said.contains("ready ") && !said.contains("has started"), "{said}");
    }
    assert_eq!(files(&into).len(), 0);
}

/// `demo@1` and `demo@2`, and how long the sealed units of the first are.
fn publish_two(world: &World) -> usize {
    let config = world.source().join("config.json");
    fs::write(&config, "{\"version\": \"one\"}").expect("it is ours");
    world.publish("1");
    fs::write(&config, "{\"version\": \"two\"}").expect("it is ours");
    world.publish("2");
    files(&world.path("host/models/demo/1/units")).values().map(Vec::len).sum()
}

#[test]
fn run_gives_up_the_load_of_a_model_where_the_lease_of_another_is_lost_meanwhile() {
    if !is_root() {
        return;
    }
    let (world, guest) = world(|rule| rule);
    let first = publish_two(&world);
    // What is behind the first model is in the second.
    let (_quick, gate) = slow_after(first + 2 * GRANTED);
    let models =
        [1, 2].map(|version| format!("demo@{version}={}", world.path(&format!("weights-{version}")).display()));
    let host = host_behind(&world, "slow.sock", gate);
    let mut running = run_script(&world, &guest, &host, &[&models[0], &models[1]], "echo \"has started\"");
    running.wait_for("released  demo@1");
    wait_until("keys of the second are released", || entries(&world, "release") == 2);
    revoke(&world, "1");
    let (code, said) = running.wait();
    assert_eq!(code, Some(77), "{said}");
    assert!(said.contains("(lease-revoked)"), "{said}");
    assert!(!said.contains("has started") && !said.contains("released  demo@2"), "{said}");
    assert_eq!(entries(&world, "end"), 2, "{said}");
}

#[test]
fn a_lease_that_is_lost_while_a_command_is_started_again_is_its_end() {
    if !is_root() {
        return;
    }
    let (world, guest) = world(|rule| rule.replacen("on_lease_end = \"end\"", "on_lease_end = \"drain 20s\"", 1));
    publish_two(&world);
    let follow = world.path("version");
    fs::write(&follow, "1").expect("it is ours");
    let model = format!("demo@1={},follow={}", world.path("weights").display(), follow.display());
    let marker = format!("marker {}", std::process::id());
    let script = format!(": {marker}; trap '' TERM; echo \"has started\"; while :; do sleep 0.05; done");
    let mut running = run_script(&world, &guest, &world.url(), &[&model], &script);
    running.wait_for("has started");
    let started = with_command_line(&marker);
    fs::write(&follow, "2").expect("it is ours");
    running.wait_for("the command is started again");
    revoke(&world, "2");
    running.wait_for("the command has ");
    // It has the time of the rule, and no other command took its place.
    assert_eq!(with_command_line(&marker), started);
    let command = started.iter().filter(|pid| **pid != running.pid()).map(|pid| format!(" {pid}"));
    // The first of them takes the others with it.
    run_ok(Command::new("sh").args(["-c", &format!("kill -KILL{}; true", command.collect::<String>())]));
    let (code, said) = running.wait();
    assert_eq!(code, Some(77), "{said}");
    assert_eq!(said.matches("has started").count(), 1, "{said}");
    assert_eq!(entries(&world, "end"), 2, "{said}");
}

#[test]
fn a_file_that_can_not_be_wiped_keeps_no_other_there_and_the_lease_is_ended() {
    let (world, guest) = world(|rule| rule);
    world.publish("1");
    let (_quick, gate) = slow_after(GRANTED);
    let into = world.path("into");
    let load = load(&world, &guest, &host_behind(&world, "slow.sock", gate), &into);
    wait_until("the files are made", || into.exists() && !files_of(&into).is_empty());
    // Nobody may write to a program that runs.
    let program = into.join("program");
    fs::copy("/bin/sleep", &program).expect("it is ours");
    let mut running = Command::new(&program).arg("1000").spawn().expect("it can be executed");
    signal(loader(load.pid()), Signal::KILL);
    let (code, said) = load.wait();
    running.kill().expect("it is our child");
    running.wait().expect("it is our child");
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("and then: ") && said.contains("(loader-died)"), "{said}");
    assert_eq!((files_of(&into), entries(&world, "end")), (vec![PathBuf::from("program")], 1), "{said}");
}

/// The names alone: what is not opened yet nobody may read.
fn files_of(directory: &Path) -> Vec<PathBuf> {
    fs::read_dir(directory).expect("a directory").map(|file| file.expect("a file").file_name().into()).collect()
}
