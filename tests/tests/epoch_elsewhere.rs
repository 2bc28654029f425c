//! Key epochs of vaults that are held otherwise: without a counter, under witnesses, with custodians, with a second keeper.

use std::fs;

use vault_tests::escrow::{self, approve, contribute, recovering};
use vault_tests::newcomer::Newcomer;
use vault_tests::world::APPROVERS;
use vault_tests::{Guest, World, epoch, run, run_ok};

async fn release(world: &World) {
    let mut guest = Guest::new(world).await;
    guest.load().await.expect("a grant");
}

/// It begins, what was published goes on, and so it stays after a restart.
async fn begins(mut world: World) {
    world.publish("1");
    epoch::begin(&world);
    release(&world).await;
    world.keeper.take().expect("it runs").kill();
    world.start_keeper();
    epoch::opens(&world);
    assert_eq!(epoch::number(&world), 2);
    release(&world).await;
    let said = run_ok(world.vaultctl().args(["log", "verify", "--fresh"]));
    assert!(said.contains("Verified:"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_epoch_begins_where_nothing_counts() {
    begins(World::open_uncounted()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_epoch_begins_once_witnesses_have_seen_it() {
    begins(World::open_witnessed()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_keeper_beside_others_begins_no_epoch_and_whoever_comes_later_has_its_keys() {
    let mut world = World::open_witnessed();
    world.publish("1");
    epoch::begin(&world);
    let second = Newcomer::new(&world, "b");
    // The certificate of its TPM is of this moment, and the keeper's time is what witnesses said, up to two seconds behind.
    std::thread::sleep(std::time::Duration::from_secs(3));
    let mut joining = second.join(&world);
    joining.wait_for("Proposed as");
    world.approve(&APPROVERS[..2]);
    let (code, said) = joining.wait();
    assert!(code == Some(0) && said.contains("The other keepers go on"), "{said}");
    let (code, said) = run(&mut epoch::propose(&world));
    assert!(code != Some(0) && said.contains("epoch-other-keepers") && said.contains("leave first"), "{said}");
    world.keeper.take().expect("it runs").terminate();
    let _first = second.take_over(&mut world, "a");
    world.start_keeper();
    release(&world).await;
}

/// Shares are of the keys of one epoch: those of the last one give a lost vault back, those of before give nothing.
#[tokio::test(flavor = "multi_thread")]
async fn a_vault_of_a_later_epoch_outlives_its_keeper_by_shares_of_that_epoch() {
    let mut world = World::open();
    world.publish("1");
    escrow::split(&world, 1);
    epoch::begin(&world);
    let (_, status) = run(world.vaultctl().arg("status"));
    assert!(status.contains("NOT RECOVERABLE"), "{status}");
    let (code, said) = run(world.vaultctl().args(["escrow", "fetch", "--out"]).arg(world.path("none")));
    assert!(code != Some(0) && said.contains("escrow-epoch") && said.contains("make a new escrow"), "{said}");
    escrow::split(&world, 2);
    let (_, status) = run(world.vaultctl().arg("status"));
    assert!(!status.contains("NOT RECOVERABLE"), "{status}");

    world.keeper.take().expect("it runs").kill();
    let lost = world.keeper_tpm.take();
    fs::rename(world.path("keeper"), world.path("keeper-lost")).expect("the directory is ours");
    let newcomer = Newcomer::new(&world, "b");
    let mut keeper = recovering(&world, &newcomer, &["--accept-rollback"]);
    keeper.wait_for("shares and approvals may come");
    let (code, said) = run(&mut contribute(&world, 1, "safe"));
    assert!(code != Some(0) && said.contains("share-other-set"), "{said}");
    for approver in &APPROVERS[..2] {
        run_ok(&mut approve(&world, approver));
    }
    for custodian in ["notary", "sister"] {
        run_ok(&mut contribute(&world, 2, custodian));
    }
    keeper.wait_for("the vault is open");
    let renewed = world.path("renewed.json");
    run_ok(world.vaultctl().arg("vault-file").arg("--out").arg(&renewed));
    fs::copy(&renewed, world.vault()).expect("the directory is ours");
    assert_eq!(epoch::number(&world), 2);
    release(&world).await;
    // It makes the next ones itself.
    world.publish("2");
    drop((keeper, lost));
}
