//! Several keepers of one vault under witnesses: a second one is let in beside the first, and both decide on the one log.

#[path = "two_keepers/fork.rs"]
mod fork;
#[path = "two_keepers/live.rs"]
mod live;

use std::fs;

use vault_tests::newcomer::Newcomer;
use vault_tests::two::let_in;
use vault_tests::{Guest, World, run_ok};

async fn release(world: &World) {
    let mut guest = Guest::new(world).await;
    guest.load().await.expect("a grant");
}

fn log(world: &World) -> String {
    let said = run_ok(world.vaultctl().args(["log", "verify", "--fresh"]));
    assert!(said.contains("Verified:"), "{said}");
    run_ok(world.vaultctl().args(["log", "show"]))
}

fn count(log: &str, word: &str) -> usize {
    log.lines().filter(|line| line.contains(word)).count()
}

/// The host's one keeper is the newcomer's from now on.
fn switch(world: &mut World, newcomer: Newcomer, former: &str) -> Newcomer {
    world.keeper.take().expect("it runs").terminate();
    let before = newcomer.take_over(world, former);
    world.start_keeper();
    before
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_keeper_is_let_in_and_each_goes_on_from_what_the_other_wrote() {
    let mut world = World::open_witnessed();
    world.publish("1");
    release(&world).await;
    let second = Newcomer::new(&world, "b");
    let_in(&world, &second);
    // The first one goes on.
    release(&world).await;
    let status = run_ok(world.vaultctl().args(["keeper", "status"]));
    assert!(status.contains("Beside it, let in") && status.contains("knows other keepers"), "{status}");

    let first = switch(&mut world, second, "a");
    release(&world).await;
    let status = run_ok(world.vaultctl().args(["keeper", "status"]));
    assert!(status.contains("Beside it:"), "{status}");
    // Whoever knows both verifies either.
    let renewed = world.path("renewed.json");
    run_ok(world.vaultctl().arg("vault-file").arg("--out").arg(&renewed));
    fs::copy(&renewed, world.vault()).expect("the directory is ours");
    world.publish("2");
    let status = run_ok(world.vaultctl().arg("status"));
    assert!(status.contains("Verified now") && !status.contains("NOT RECOVERABLE"), "{status}");

    // The first one was away meanwhile.
    let second = switch(&mut world, first, "b");
    release(&world).await;
    world.publish("3");
    let status = run_ok(world.vaultctl().arg("status"));
    assert!(status.contains("Verified now"), "{status}");
    switch(&mut world, second, "a");
    release(&world).await;
    assert_eq!(count(&log(&world), " release "), 5);
}
