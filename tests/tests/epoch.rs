//! A vault that begins a key epoch: what was published and held goes on, what an old record opens has no authority, and a
//! keeper that is killed on the way is in one epoch or the other.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use ledger::key_epoch::EpochKeys;
use ledger::lease::LeaseStatement;
use ledger::vault_file::VaultFile;
use vault_tests::epoch::{begin, number as epoch, opens, propose};
use vault_tests::knife::{Cut, Knife, relayed};
use vault_tests::newcomer::Newcomer;
use vault_tests::world::APPROVERS;
use vault_tests::{Boot, Guest, Running, Swtpm, World, binary, relay, run, run_ok};

fn file(world: &World, name: &str) -> PathBuf {
    world.path("keeper").join(name)
}

fn copy(from: &Path, to: &Path) {
    let _ = fs::remove_dir_all(to);
    run_ok(Command::new("cp").arg("-a").arg(from).arg(to));
}

/// The agent holds the model.
fn load(world: &World, guest: &Swtpm, name: &str) -> Running {
    let mut load = world.enclave("load");
    load.args(["demo@1", "--rule", "guest", "--tpm", &guest.tcti, "--vault"]).arg(world.vault());
    load.arg("--into").arg(world.path(name)).arg("--insecure-plaintext-on-disk");
    let mut load = Running::start(&mut load, &world.path(&format!("{name}.log")));
    load.wait_for("ready ");
    load
}

#[tokio::test(flavor = "multi_thread")]
async fn a_vault_goes_on_with_the_keys_of_its_next_epoch() {
    let (mut world, guest) = World::open_with_guest();
    world.publish("1");
    let file_before = world.vault_file();
    let held = load(&world, &guest, "held");
    let mut renewing = Guest::new(&world).await;
    let grant = renewing.load().await.expect("a grant");
    let lease = LeaseStatement::parse(&grant.lease.as_ref().expect("a lease").statement).expect("a lease");
    copy(&world.path("keeper"), &world.path("keeper-old"));

    // Too few approvals are none; the keys are there already, and of no use.
    run_ok(&mut propose(&world));
    // One that would not count longer than what waits.
    let (code, said) = run(propose(&world).args(["--expires", "1d"]));
    assert!(code != Some(0) && said.contains("epoch-waits"), "{said}");
    let pending = run_ok(world.vaultctl().arg("pending"));
    assert!(pending.contains("key epoch") && pending.contains("proposed by alice"), "{pending}");
    world.approve(&APPROVERS[1..2]);
    assert_eq!(epoch(&world), 1);
    world.approve(&APPROVERS[2..]);
    opens(&world);
    assert_eq!(epoch(&world), 2);
    assert!(!file(&world, "root.epoch.json").exists() && !file(&world, "head.epoch").exists());
    let status = run_ok(world.vaultctl().arg("status"));
    assert!(status.contains("keys:      epoch 2, since"), "{status}");

    // With the vault file of before: what it leads to is signed by the key that it names.
    let answer = renewing.key_epochs(1).await.links;
    let followed = file_before.clone().following(&answer).expect("it leads there");
    assert_eq!(followed.keys().epoch, 2);
    assert_ne!(followed.identity_key(), file_before.identity_key());
    assert!(renewing.key_epochs(2).await.links.is_empty());
    load(&world, &guest, "again").terminate();
    let request = renewing.renewal(&grant, lease.lease).await;
    let renewed = renewing.renew(request).await.expect("a renewal").lease.expect("a lease");
    let message = LeaseStatement::message(&renewed.statement);
    assert!(file_before.identity_key().verify(&message, &renewed.signature).is_err());
    assert_eq!(followed.identity_key().verify(&message, &renewed.signature), Ok(()));

    // Sealed to the new wrap key, published, loaded; the epoch after that has both models.
    world.publish("2");
    begin(&world);
    load(&world, &guest, "third").terminate();
    assert_eq!(renewing.key_epochs(1).await.links.len(), 2);
    held.terminate();

    // Everybody else knows the entries.
    let written = world.path("written.json");
    run_ok(world.vaultctl().arg("vault-file").arg("--out").arg(&written));
    let written = VaultFile::parse(&fs::read(&written).expect("a vault file")).expect("a vault file");
    assert_eq!(written.keys().epoch, 3);
    let log = run_ok(world.vaultctl().args(["log", "show"]));
    for words in ["asks for keys of epoch 2", "approves key epoch", "epoch 2 begins", "epoch 3 begins"] {
        assert!(log.contains(words), "{words}: {log}");
    }
    let bundle = world.path("bundle");
    run_ok(world.vaultctl().args(["audit", "export", "--out"]).arg(&bundle));
    let report = run_ok(world.vaultctl().args(["audit", "verify"]).arg(&bundle));
    assert!(report.contains("epoch 3 begins"), "{report}");

    // What was kept of the first epoch opens nothing any more that has authority.
    world.keeper.take().expect("it runs").kill();
    copy(&world.path("keeper"), &world.path("keeper-new"));
    copy(&world.path("keeper-old"), &world.path("keeper"));
    refused(&world, "state-older-than-counter");
    copy(&world.path("keeper-new"), &world.path("keeper"));
    fs::copy(world.path("keeper-old").join("root.json"), file(&world, "root.json")).expect("the directory is ours");
    refused(&world, "head-damaged");
    copy(&world.path("keeper-new"), &world.path("keeper"));
    let record = fs::read_to_string(file(&world, "root.json")).expect("a record");
    let mut changed: serde_json::Value = serde_json::from_str(&record).expect("JSON");
    let secrets = changed["epoch"]["secrets"].as_str().expect("an epoch's secrets").to_owned();
    let other = if secrets.as_bytes()[200] == b'A' { "B" } else { "A" };
    changed["epoch"]["secrets"] = format!("{}{other}{}", &secrets[..200], &secrets[201..]).into();
    fs::write(file(&world, "root.json"), changed.to_string()).expect("the directory is ours");
    refused(&world, "epoch-secrets-damaged");
    copy(&world.path("keeper-new"), &world.path("keeper"));
    world.start_keeper();
    assert_eq!(epoch(&world), 3);
}

fn refused(world: &World, code: &str) {
    let (exit, log) = world.start_keeper_process().wait();
    assert!(exit != Some(0) && log.contains(code), "{code}: {log}");
}

#[test]
fn what_was_sealed_before_and_not_published_is_sealed_again() {
    let (world, _guest) = World::open_with_guest();
    let sealed = world.path("sealed");
    let mut seal = world.enclave("seal");
    seal.arg(world.source()).args(["--model", "demo", "--version", "1", "--no-upload", "--vault"]).arg(world.vault());
    run_ok(seal.arg("--out").arg(&sealed).arg("--publisher-key").arg(world.path("publisher.pem")));
    // Proposed before, approved after: the keeper has its key already.
    world.seal("2");
    let waits = run_ok(world.vaultctl().args(["pending", "--json"]));
    let waits: serde_json::Value = serde_json::from_str(&waits).expect("JSON");
    let model = waits["pending"][0]["object"].as_str().expect("an object").to_owned();
    begin(&world);
    for name in &APPROVERS[..2] {
        run_ok(world.vaultctl().args(["approve", &model, "--yes", "--key"]).arg(world.path(name)));
    }
    let mut publish = world.enclave("publish");
    let (code, said) = run(publish.arg(&sealed).arg("--vault").arg(world.vault()));
    assert!(code != Some(0) && said.contains("sealed-to-older-epoch") && said.contains("seal it again"), "{said}");
    world.publish("1");
    let models = run_ok(world.vaultctl().arg("models"));
    assert!(models.contains("demo@1") && models.contains("demo@2"), "{models}");
}

/// What is put back before every cut.
const DIRS: [&str; 3] = ["keeper", "host", "tpm"];

/// A world in which one approval is missing, with everything switched off.
fn almost_begun() -> World {
    let mut world = World::open();
    world.publish("1");
    run_ok(&mut propose(&world));
    world.approve(&APPROVERS[1..2]);
    switch_off(&mut world);
    for dir in DIRS {
        copy(&world.path(dir), &world.path(&format!("before-{dir}")));
    }
    world
}

fn switch_off(world: &mut World) {
    drop(world.keeper.take());
    drop(world.host.take());
    if let Some(tpm) = world.keeper_tpm.take() {
        tpm.stop();
    }
}

fn put_back(world: &mut World) {
    for dir in DIRS {
        copy(&world.path(&format!("before-{dir}")), &world.path(dir));
    }
    let boot = Boot { firmware: None, image: binary("vault-enclave") };
    world.keeper_tpm = Some(Swtpm::booted(&world.path("tpm"), &world.path("ca"), &boot));
}

/// The keeper starts in this epoch, and the vault comes to the next from there.
async fn goes_on(world: &mut World, expected: u64) {
    drop(world.keeper.take());
    drop(world.host.take());
    world.keeper_tcti = None;
    world.keeper_link = None;
    world.start_keeper();
    world.start_host();
    opens(world);
    assert_eq!(epoch(world), expected);
    if expected == 1 {
        world.approve(&APPROVERS[2..]);
        opens(world);
    }
    assert_eq!(epoch(world), 2);
    Guest::new(world).await.load().await.expect("a grant");
    let said = run_ok(world.vaultctl().args(["log", "verify"]));
    assert!(said.contains("Verified:"), "{said}");
    switch_off(world);
}

/// Approves for the last time with a keeper that is killed at `cut`; whether it was.
fn killed_at(world: &mut World, cut: Cut) -> bool {
    put_back(world);
    let knife = Arc::new(Knife::default());
    let tpm = world.keeper_tpm.as_ref().expect("it is on");
    world.keeper_tcti = Some(relayed(&tpm.tcti, knife.tpm()));
    let link = world.path("link.sock");
    let _ = fs::remove_file(&link);
    relay::unix(&link, &world.path("keeper.sock"), knife.link());
    world.keeper_link = Some(link);
    world.start_keeper();
    world.start_host();
    opens(world);
    knife.arm(world.keeper.as_ref().expect("it runs").pid(), cut);
    let _ = run(world.vaultctl().args(["approve", "--latest", "--yes", "--key"]).arg(world.path(APPROVERS[2])));
    knife.has_cut()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_keeper_that_is_killed_on_the_way_is_in_the_epoch_that_its_counted_log_says() {
    let mut world = almost_begun();
    let mut said = 0;
    while killed_at(&mut world, Cut::Said(said)) {
        goes_on(&mut world, 1).await;
        said += 1;
    }
    assert!(said > 0);
    switch_off(&mut world);
    // The head is written: the next start finishes what the counter lacks.
    for cut in [Cut::Increment, Cut::Counted, Cut::SaidAfterwards(0), Cut::SaidAfterwards(1)] {
        assert!(killed_at(&mut world, cut), "{cut:?}");
        goes_on(&mut world, 2).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn files_that_are_of_two_epochs_become_those_of_the_one() {
    let mut world = almost_begun();
    // The disk refuses a step, again and again, until the machine goes down.
    for step in ["head.epoch.new", "root.next.json"] {
        put_back(&mut world);
        world.start_keeper();
        world.start_host();
        opens(&world);
        let in_the_way = file(&world, step);
        fs::create_dir(&in_the_way).expect("the directory is ours");
        let _ = run(world.vaultctl().args(["approve", "--latest", "--yes", "--key"]).arg(world.path(APPROVERS[2])));
        world.keeper.as_mut().expect("it runs").wait_for("keeper-dir-io");
        assert!(file(&world, "root.epoch.json").exists(), "{step}");
        drop(world.keeper.take());
        fs::remove_dir(&in_the_way).expect("the directory is ours");
        goes_on(&mut world, 2).await;
    }
    // The root is the new one, and the head not yet.
    put_back(&mut world);
    world.start_keeper();
    world.start_host();
    opens(&world);
    let old_head = fs::read(file(&world, "head")).expect("a head");
    world.approve(&APPROVERS[2..]);
    opens(&world);
    drop(world.keeper.take());
    fs::rename(file(&world, "head"), file(&world, "head.epoch")).expect("the directory is ours");
    fs::write(file(&world, "head"), old_head).expect("the directory is ours");
    goes_on(&mut world, 2).await;
    // Without the keys that were approved the old ones do not go on.
    put_back(&mut world);
    let epoch_root = fs::read(file(&world, "root.epoch.json")).expect("it was made");
    world.start_keeper();
    world.start_host();
    opens(&world);
    let in_the_way = file(&world, "head.epoch.new");
    fs::create_dir(&in_the_way).expect("the directory is ours");
    let _ = run(world.vaultctl().args(["approve", "--latest", "--yes", "--key"]).arg(world.path(APPROVERS[2])));
    world.keeper.as_mut().expect("it runs").wait_for("keeper-dir-io");
    drop(world.keeper.take());
    fs::remove_dir(&in_the_way).expect("the directory is ours");
    fs::remove_file(file(&world, "root.epoch.json")).expect("it is there");
    let mut keeper = world.start_keeper_process();
    keeper.wait_for("epoch-keys-missing");
    assert!(!keeper.log().contains("the vault is open"), "{}", keeper.log());
    drop(keeper);
    fs::write(file(&world, "root.epoch.json"), epoch_root).expect("the directory is ours");
    goes_on(&mut world, 2).await;
}

/// Keys of the genesis, for whoever reads this file: an epoch has others.
#[test]
fn the_first_epoch_is_that_of_the_genesis() {
    let world = World::open();
    let file = world.vault_file();
    assert_eq!(file.keys(), &EpochKeys::from(file.genesis().keeper()));
    assert_eq!(epoch(&world), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_keeper_that_takes_over_has_the_keys_of_the_present_epoch_and_begins_the_next() {
    let mut world = World::open();
    world.publish("1");
    begin(&world);
    let newcomer = Newcomer::new(&world, "b");
    let mut joining = newcomer.join(&world);
    joining.wait_for("Proposed as");
    world.approve(&APPROVERS[..2]);
    let (code, log) = joining.wait();
    assert_eq!(code, Some(0), "{log}");
    world.keeper.take().expect("it runs").kill();
    let before = newcomer.take_over(&mut world, "a");
    drop(world.host.take());
    world.start_keeper();
    world.start_host();
    world.keeper.as_mut().expect("it was started").wait_for("the vault is open");
    let written = world.path("written.json");
    run_ok(world.vaultctl().arg("vault-file").arg("--out").arg(&written));
    fs::copy(&written, world.vault()).expect("the directory is ours");
    assert_eq!(epoch(&world), 2);
    Guest::new(&world).await.load().await.expect("a grant");
    // What the keeper before still has ends with the next epoch.
    begin(&world);
    assert!(!file(&world, "vault-keys").exists());
    Guest::new(&world).await.load().await.expect("a grant");
    world.keeper.take().expect("it runs").kill();
    world.start_keeper();
    assert_eq!(epoch(&world), 3);
    drop(before);
}
