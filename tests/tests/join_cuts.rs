//! A hand-over that is cut short at any step leaves one keeper that goes on: the one before, until its last entry is
//! counted; then the two of them, of which the one before gives the keys again; then the new one alone.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use vault_tests::knife::{Cut, Knife};
use vault_tests::newcomer::Newcomer;
use vault_tests::relay;
use vault_tests::world::APPROVERS;
use vault_tests::{Boot, Guest, Swtpm, World, binary, run_ok};

/// What is put back before every cut.
const DIRS: [&str; 5] = ["keeper", "host", "tpm", "keeper-b", "tpm-b"];

fn copy(from: &Path, to: &Path) {
    let _ = fs::remove_dir_all(to);
    run_ok(Command::new("cp").arg("-a").arg(from).arg(to));
}

/// A world whose approvers have let a keeper in, with everything switched off.
fn let_in() -> World {
    let mut world = World::open();
    world.publish("1");
    let newcomer = Newcomer::new(&world, "b");
    let mut joining = newcomer.join(&world);
    joining.wait_for("Proposed as");
    joining.kill();
    world.approve(&APPROVERS[..2]);
    drop(newcomer);
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

fn put_back(world: &World) {
    for dir in DIRS {
        copy(&world.path(&format!("before-{dir}")), &world.path(dir));
    }
    let _ = fs::remove_dir_all(world.path("keeper-a"));
}

/// Starts the keeper of before; whether it has retired.
fn start_former(world: &mut World) -> bool {
    let mut keeper = world.start_keeper_process();
    let log = loop {
        keeper.wait_for("vault");
        let log = keeper.log();
        if log.contains("the vault is open") || log.contains("this keeper has retired") {
            break log;
        }
        std::thread::sleep(std::time::Duration::from_millis(20));
    };
    world.keeper = Some(keeper);
    log.contains("this keeper has retired")
}

/// The keeper that took over serves, with every entry of the log.
async fn serves(world: &mut World, newcomer: Newcomer) {
    world.keeper.take().expect("it runs").kill();
    world.keeper_tcti = None;
    world.keeper_link = None;
    let before = newcomer.take_over(world, "a");
    drop(world.host.take());
    world.start_keeper();
    world.start_host();
    world.keeper.as_mut().expect("it was started").wait_for("the vault is open");
    let said = run_ok(world.vaultctl().args(["log", "verify"]));
    assert!(said.contains("Verified:"), "{said}");
    let mut guest = Guest::new(world).await;
    guest.load().await.expect("a grant");
    drop(before);
    switch_off(world);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_keeper_that_is_killed_at_a_step_of_its_hand_over_goes_on_or_hands_over_again() {
    let mut world = let_in();
    // What it says before its last head is written is two answers and the entries; after it has counted, the checkpoint and
    // the keys.
    let cuts = [
        (Cut::Said(0), false),
        (Cut::Said(1), false),
        (Cut::Said(2), false),
        (Cut::Increment, true),
        (Cut::Counted, true),
        (Cut::SaidAfterwards(0), true),
        (Cut::SaidAfterwards(1), true),
    ];
    for (cut, retired) in cuts {
        put_back(&world);
        let boot = Boot { firmware: None, image: binary("vault-enclave") };
        let tpm = Swtpm::booted(&world.path("tpm"), &world.path("ca"), &boot);
        let knife = Arc::new(Knife::default());
        world.keeper_tcti = Some(relay::tpm(&tpm.tcti, knife.tpm()));
        world.keeper_tpm = Some(tpm);
        let link = world.path("link.sock");
        let _ = fs::remove_file(&link);
        relay::unix(&link, &world.path("keeper.sock"), knife.link());
        world.keeper_link = Some(link);
        world.start_keeper();
        world.start_host();
        world.keeper.as_mut().expect("it was started").wait_for("the vault is open");
        let newcomer = Newcomer::new(&world, "b");
        knife.arm(world.keeper.as_ref().expect("it runs").pid(), cut);
        let mut joining = newcomer.join(&world);
        joining.wait_for("not yet:");
        assert!(knife.has_cut(), "{cut:?}");
        drop(world.keeper.take());
        assert_eq!(start_former(&mut world), retired, "{cut:?}");
        // Whichever it is, the new one asks it again and has the keys.
        let (code, log) = joining.wait();
        assert_eq!(code, Some(0), "{cut:?}: {log}");
        serves(&mut world, newcomer).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_keeper_that_is_killed_or_fails_while_it_takes_the_keys_takes_them_again_or_has_them() {
    let mut world = let_in();
    for step in ["vault-keys.new", "head.new", "increment", "counted"] {
        put_back(&world);
        let boot = Boot { firmware: None, image: binary("vault-enclave") };
        world.keeper_tpm = Some(Swtpm::booted(&world.path("tpm"), &world.path("ca"), &boot));
        world.start_keeper();
        world.start_host();
        world.keeper.as_mut().expect("it was started").wait_for("the vault is open");
        let mut newcomer = Newcomer::new(&world, "b");
        let knife = Arc::new(Knife::default());
        match step {
            "increment" | "counted" => {
                newcomer.tcti = Some(relay::tpm(&newcomer.tpm.as_ref().expect("it is on").tcti, knife.tpm()));
                let joining = newcomer.join(&world);
                knife.arm(joining.pid(), if step == "increment" { Cut::Increment } else { Cut::Counted });
                let (code, log) = joining.wait();
                assert!(code.is_none() && knife.has_cut(), "{step}: {log}");
                newcomer.tcti = None;
            }
            // Its disk refuses the file: the one before has retired, and gives the keys again.
            file => {
                let in_the_way = newcomer.dir(&world).join(file);
                fs::create_dir(&in_the_way).expect("the directory is ours");
                let (code, log) = newcomer.join(&world).wait();
                assert!(code != Some(0) && log.contains("keeper-dir-io"), "{step}: {log}");
                fs::remove_dir(&in_the_way).expect("the directory is ours");
                let (code, log) = newcomer.join(&world).wait();
                assert_eq!(code, Some(0), "{step}: {log}");
            }
        }
        serves(&mut world, newcomer).await;
    }
}
