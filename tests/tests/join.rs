//! Another keeper takes the vault over: it proves its machine, approvers let it in, and the one before serves no more.

use std::fs;
use std::path::Path;
use std::process::Command;

use vault_tests::newcomer::Newcomer;
use vault_tests::world::APPROVERS;
use vault_tests::{Guest, World, binary, run, run_ok};

fn copy(from: &Path, to: &Path) {
    let _ = fs::remove_dir_all(to);
    run_ok(Command::new("cp").arg("-a").arg(from).arg(to));
}

async fn release(world: &World) {
    let mut guest = Guest::new(world).await;
    let challenge = guest.challenge(guest.ask()).await.expect("a challenge");
    guest.redeem(guest.redemption(&challenge)).await.expect("a grant");
}

/// The code of the refusal of a challenge.
async fn refused(world: &World) -> String {
    let mut guest = Guest::new(world).await;
    let refusal = guest.challenge(guest.ask()).await.expect_err("it serves nobody");
    guest.code_of(refusal).await
}

fn verify(world: &World) {
    let said = run_ok(world.vaultctl().args(["log", "verify"]));
    assert!(said.contains("Verified:"), "{said}");
}

/// Proposed and approved, and the keys are taken.
fn hand_over(world: &World, newcomer: &Newcomer) {
    let mut joining = newcomer.join(world);
    joining.wait_for("Proposed as");
    world.approve(&APPROVERS[..2]);
    let (code, log) = joining.wait();
    assert!(code == Some(0) && log.contains("The vault's keys are here"), "{log}");
}

/// Points the host at the keeper that took over, and starts it.
fn switch(world: &mut World, newcomer: Newcomer, former: &str) -> Newcomer {
    world.keeper.take().expect("it runs").terminate();
    let before = newcomer.take_over(world, former);
    world.start_keeper();
    before
}

#[tokio::test(flavor = "multi_thread")]
async fn another_keeper_takes_the_vault_over_and_the_one_before_serves_no_more() {
    let mut world = World::open();
    world.publish("1");
    release(&world).await;
    copy(&world.path("keeper"), &world.path("keeper-old"));

    let newcomer = Newcomer::new(&world, "b");
    let mut joining = newcomer.join(&world);
    joining.wait_for("Proposed as");
    let log = joining.log();
    let instance = log.lines().find_map(|line| line.trim().strip_prefix("instance:")).expect("it shows itself").trim();
    let pending = run_ok(world.vaultctl().args(["keeper", "pending"]));
    for words in [instance, "ANOTHER machine", "the only one that the policy allows", "by evidence of its own"] {
        assert!(pending.contains(words), "{words}: {pending}");
    }
    world.approve(&APPROVERS[..1]);
    joining.wait_for(&format!("approved by {}", APPROVERS[0]));
    release(&world).await;
    world.approve(&APPROVERS[1..2]);
    let (code, log) = joining.wait();
    assert!(code == Some(0) && log.contains("the keeper before has retired"), "{log}");

    // The one before serves nobody, now and after a restart.
    let status = run_ok(world.vaultctl().args(["keeper", "status"]));
    assert!(status.contains("RETIRED") && status.contains(instance), "{status}");
    assert_eq!(refused(&world).await, "keeper-retired");
    let (code, said) = run(world.vaultctl().arg("status"));
    assert!(code == Some(5) && said.contains("RETIRED") && said.contains(instance), "{said}");
    world.keeper.take().expect("it runs").terminate();
    let mut keeper = world.start_keeper_process();
    keeper.wait_for("this keeper has retired");
    world.keeper = Some(keeper);
    assert_eq!(refused(&world).await, "keeper-retired");

    // The new one has the same keys: guests and models go on.
    let before = switch(&mut world, newcomer, "a");
    verify(&world);
    release(&world).await;
    let (code, said) = run(world.vaultctl().arg("status"));
    assert!(code == Some(4) && said.contains("keeper-other") && said.contains("vault-file"), "{said}");
    let renewed = world.path("renewed.json");
    run_ok(world.vaultctl().arg("vault-file").arg("--out").arg(&renewed));
    fs::copy(&renewed, world.vault()).expect("the directory is ours");
    let status = run_ok(world.vaultctl().arg("status"));
    assert!(status.contains("Verified now"), "{status}");
    world.publish("2");
    let status = run_ok(world.vaultctl().args(["keeper", "status"]));
    assert!(status.contains(instance) && status.contains("Before, until it retired:"), "{status}");
    let log = run_ok(world.vaultctl().args(["log", "show"]));
    for words in ["asks to take over", "approves keeper", "another keeper may take over", "the keeper retires"] {
        assert!(log.contains(words), "{words}: {log}");
    }

    // An auditor checks the evidence of both steps again.
    let bundle = world.path("bundle");
    run_ok(world.vaultctl().args(["audit", "export", "--out"]).arg(&bundle));
    let mut audit = Command::new(binary("vaultctl"));
    let audit = run_ok(audit.arg("--vault").arg(world.vault()).args(["audit", "verify"]).arg(&bundle));
    assert!(audit.contains("another keeper may take over"), "{audit}");

    // Nor does any copy of the one before serve.
    copy(&before.dir(&world), &world.path("keeper-newest"));
    copy(&world.path("keeper-old"), &before.dir(&world));
    let (code, log) = before.start_keeper_process(&world).wait();
    assert!(code != Some(0) && log.contains("state-older-than-counter"), "{log}");
    copy(&world.path("keeper-newest"), &before.dir(&world));
    world.keeper.take().expect("it runs").terminate();
    let former = before.take_over(&mut world, "b");
    world.keeper = Some(world.start_keeper_process());
    world.keeper.as_mut().expect("it was started").wait_for("this keeper has retired");
    assert_eq!(refused(&world).await, "keeper-retired");
    world.keeper.take().expect("it runs").terminate();
    former.take_over(&mut world, "a");
    world.start_keeper();
    // It starts as often as it likes.
    world.keeper.take().expect("it runs").kill();
    world.start_keeper();
    verify(&world);
    release(&world).await;
}

/// The keys are for the machine that was let in, as it was then: neither for what was made on it later, nor for a copy of
/// what it was before.
#[tokio::test(flavor = "multi_thread")]
async fn the_keys_go_to_the_very_keeper_that_was_let_in_and_once() {
    let mut world = World::open();
    world.publish("1");
    let newcomer = Newcomer::new(&world, "b");
    let mut joining = newcomer.join(&world);
    joining.wait_for("Proposed as");
    joining.kill();
    world.approve(&APPROVERS[..2]);
    let status = run_ok(world.vaultctl().args(["keeper", "status"]));
    assert!(status.contains("Approvers let another keeper in"), "{status}");

    // Another root and another key, on the very machine that was let in: nobody let that in.
    let approved = world.path("keeper-approved");
    fs::rename(newcomer.dir(&world), &approved).expect("the directory is ours");
    let mut joining = newcomer.join(&world);
    joining.wait_for("approved by nobody yet");
    joining.kill();
    release(&world).await;
    let pending = run_ok(world.vaultctl().args(["keeper", "pending"]));
    assert!(pending.contains("it takes the place of"), "{pending}");
    // Nor does a keeper that was made for one vault join another.
    let other = World::before_ceremony(|_, _| {});
    let mut astray = world.enclave("keeper-join");
    astray.arg("--dir").arg(newcomer.dir(&world)).args(["--tpm", &newcomer.tpm.as_ref().expect("it is on").tcti]);
    astray.arg("--vault").arg(other.vault()).args(["--host", &world.url()]);
    let (code, said) = run(&mut astray);
    assert!(code != Some(0) && said.contains("joining-other-use"), "{said}");
    let mut astray = world.enclave("keeper-join");
    astray
        .arg("--dir")
        .arg(world.path("keeper-astray"))
        .args(["--tpm", &newcomer.tpm.as_ref().expect("it is on").tcti]);
    astray.arg("--vault").arg(other.vault()).args(["--host", &world.url()]);
    let (code, said) = run(&mut astray);
    assert!(code != Some(0) && said.contains("joining-other-vault"), "{said}");
    // And the keeper's own program does not start on what has no keys yet.
    let (code, log) = newcomer.start_keeper_process(&world).wait();
    assert!(code != Some(0) && log.contains("keeper-joining"), "{log}");

    fs::remove_dir_all(newcomer.dir(&world)).expect("the directory is ours");
    copy(&approved, &newcomer.dir(&world));
    let (code, log) = newcomer.join(&world).wait();
    assert!(code == Some(0) && log.contains("The vault's keys are here"), "{log}");

    // What it was before the hand-over takes nothing any more, though the keeper before would give it again.
    copy(&newcomer.dir(&world), &world.path("keeper-newest"));
    copy(&approved, &newcomer.dir(&world));
    let (code, log) = newcomer.join(&world).wait();
    assert!(code != Some(0) && log.contains("state-older-than-counter"), "{log}");
    let (code, log) = newcomer.start_keeper_process(&world).wait();
    assert!(code != Some(0) && log.contains("state-older-than-counter"), "{log}");
    copy(&world.path("keeper-newest"), &newcomer.dir(&world));
    let (code, log) = newcomer.join(&world).wait();
    assert!(code != Some(0) && log.contains("joining-done"), "{log}");
    // The sealed keys are this root's.
    let keys = newcomer.dir(&world).join("vault-keys");
    let good = fs::read(&keys).expect("they are there");
    fs::write(&keys, &good[..good.len() - 1]).expect("the directory is ours");
    let (code, log) = newcomer.start_keeper_process(&world).wait();
    assert!(code != Some(0) && log.contains("vault-keys-damaged"), "{log}");
    fs::write(&keys, good).expect("the directory is ours");
    switch(&mut world, newcomer, "a");
    verify(&world);
    release(&world).await;
}

/// Two are proposed, one after the other is let in: the last one alone takes over.
#[tokio::test(flavor = "multi_thread")]
async fn of_two_keepers_that_are_let_in_the_last_one_takes_over() {
    let mut world = World::open();
    world.publish("1");
    let (first, second) = (Newcomer::new(&world, "b"), Newcomer::new(&world, "c"));
    for newcomer in [&first, &second] {
        let mut joining = newcomer.join(&world);
        joining.wait_for("Proposed as");
        joining.kill();
        world.approve(&APPROVERS[..2]);
    }
    let mut joining = first.join(&world);
    joining.wait_for("approved by nobody yet");
    joining.kill();
    release(&world).await;
    let (code, log) = second.join(&world).wait();
    assert!(code == Some(0), "{log}");
    // The keeper before has retired: it gives the keys to nobody else.
    let (code, log) = first.join(&world).wait();
    assert!(code != Some(0) && log.contains("join-not-approved"), "{log}");
    switch(&mut world, second, "a");
    verify(&world);
    release(&world).await;
    // From there on to a third, on the machine that the vault began on.
    let home = Newcomer::new(&world, "d");
    hand_over(&world, &home);
    switch(&mut world, home, "c");
    verify(&world);
    release(&world).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_vault_without_a_counter_is_handed_over_too() {
    let mut world = World::open_uncounted();
    world.publish("1");
    let newcomer = Newcomer::new(&world, "b");
    hand_over(&world, &newcomer);
    assert_eq!(refused(&world).await, "keeper-retired");
    switch(&mut world, newcomer, "a");
    verify(&world);
    release(&world).await;
}
