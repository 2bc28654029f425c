//! A vault whose log, blobs and models are in a bucket or in Postgres: hosts come and go, and any of them serves.

use std::fs;
use std::process::Command;

#[path = "../../vault-host/tests/host/postgres.rs"]
#[allow(dead_code, unreachable_pub, clippy::unwrap_used, reason = "shared with the tests of the host")]
mod postgres;
#[path = "../../vault-host/tests/host/s3.rs"]
#[allow(dead_code, unreachable_pub, clippy::unwrap_used, reason = "shared with the tests of the host")]
mod s3;
#[path = "../../vault-host/tests/host/stores.rs"]
#[allow(dead_code, unreachable_pub, clippy::unwrap_used, reason = "shared with the tests of the host")]
mod stores;

use vault_tests::world::guest_rule;
use vault_tests::{Guest, Running, Swtpm, World, run_ok};

use s3::S3;
use stores::Shared;

#[test]
fn agents_go_to_the_host_that_has_the_keeper() {
    let Some(s3) = S3::start() else { return };
    let lines = format!("advertise = \"http://127.0.0.1:7440\"\n{}", s3.config("prod"));
    let mut guest = None;
    let world = World::before_ceremony_with_host(&lines, |world, policy| {
        let tpm = Swtpm::start(&world.path("tpm-guest"), &world.path("ca"), &vault_tests::binary("vault-host"));
        policy.push_str(&guest_rule(&tpm));
        guest = Some(tpm);
    });
    let guest = guest.expect("the closure ran");
    world.sign_genesis();
    world.publish("1");

    // A host on the same bucket that no keeper lets in.
    let config = format!(
        "data_dir = {:?}\nunix = {:?}\nkeeper = \"unix:{}\"\n{}",
        world.path("reads"),
        world.path("reads.sock"),
        world.path("no-keeper.sock").display(),
        s3.config("prod")
    );
    fs::write(world.path("reads.toml"), config).expect("the configuration can be written");
    let mut serve = Command::new(vault_tests::binary("vault-host"));
    let mut reads =
        Running::start(serve.args(["serve", "--config"]).arg(world.path("reads.toml")), &world.path("reads.log"));
    reads.wait_for("no stream to the keeper");
    let without = format!("unix:{}", world.path("reads.sock").display());

    // It answers what needs no keeper, and says who has one.
    let ask = |arguments: &[&str]| {
        let mut command = Command::new(vault_tests::binary("vaultctl"));
        command.arg("--vault").arg(world.vault()).args(["--host", &without]).args(arguments);
        command.output().expect("vaultctl starts")
    };
    assert!(ask(&["log", "verify"]).status.success(), "the log is read without a keeper");
    let status = ask(&["status"]);
    let said = String::from_utf8_lossy(&status.stdout).into_owned() + &String::from_utf8_lossy(&status.stderr);
    assert!(said.contains("http://127.0.0.1:7440"), "{said}");

    // An agent that knows both is served whichever comes first, and one that knows this alone is not.
    let load = |hosts: &[&str]| {
        let into = format!("/dev/shm/weightvault-hosts-{}", std::process::id());
        let mut load = world.enclave("load");
        load.args(["demo@1", "--rule", "guest", "--tpm", &guest.tcti, "--vault"]).arg(world.vault());
        for host in hosts {
            load.args(["--host", host]);
        }
        load.args(["--into", &into]);
        (load, into)
    };
    let (mut alone, into) = load(&[&without]);
    let refused = alone.output().expect("vault-enclave starts");
    assert!(!refused.status.success(), "no keeper, no key");
    let _ = fs::remove_dir(&into);
    let (mut both, into) = load(&[&without, &world.url()]);
    let mut both = Running::start(&mut both, &world.path("load.log"));
    both.wait_for("ready");
    both.terminate();
    let _ = fs::remove_dir(&into);
}

#[test]
fn vault_on_a_shared_store_outlives_each_of_its_hosts() {
    Shared::all().for_each(|store| outlives_each_of_its_hosts(&store));
}

fn outlives_each_of_its_hosts(store: &Shared) {
    let lines = store.config("prod");
    let mut guest = None;
    let mut world = World::before_ceremony_with_host(&lines, |world, policy| {
        let tpm = Swtpm::start(&world.path("tpm-guest"), &world.path("ca"), &vault_tests::binary("vault-host"));
        policy.push_str(&guest_rule(&tpm));
        guest = Some(tpm);
    });
    let guest = guest.expect("the closure ran");
    world.sign_genesis();
    world.publish("1");

    // A second host attaches, is asked from then on, and is killed: the keeper goes on with the first.
    let config = format!(
        "data_dir = {:?}\nunix = {:?}\n{}",
        world.path("second"),
        world.path("second.sock"),
        world.host_keeper.as_ref().expect("it was set")
    );
    fs::write(world.path("second.toml"), config).expect("the configuration can be written");
    let mut serve = Command::new(vault_tests::binary("vault-host"));
    let mut second =
        Running::start(serve.args(["serve", "--config"]).arg(world.path("second.toml")), &world.path("second.log"));
    second.wait_for("attached to the keeper");
    world.publish("2");
    second.kill();
    world.publish("3");

    // The first goes too, with all that it had on its disk; another takes its address.
    world.host.take().expect("it runs").kill();
    fs::remove_dir_all(world.path("host")).expect("the data directory");
    world.start_host();
    for version in ["1", "2", "3"] {
        let into = format!("/dev/shm/weightvault-shared-{}-{version}", std::process::id());
        let mut load = world.enclave("load");
        load.args([&format!("demo@{version}"), "--rule", "guest", "--tpm", &guest.tcti, "--vault"]).arg(world.vault());
        let mut load = Running::start(load.args(["--into", &into]), &world.path(&format!("load-{version}.log")));
        load.wait_for("ready");
        load.terminate();
        let _ = fs::remove_dir(&into);
    }
    run_ok(world.vaultctl().args(["log", "verify", "--fresh"]));
}

/// The whole store comes back as it was before: the keeper, which counts in its TPM, serves nothing from it, whether it starts
/// on it or has it changed below it. With the newest it goes on.
#[tokio::test(flavor = "multi_thread")]
async fn shared_store_that_was_rolled_back_serves_nothing_until_the_newest_is_back() {
    for mut store in Shared::all() {
        let world = World::before_ceremony_with_host(&store.config("prod"), |_, _| {});
        world.sign_genesis();
        world.publish("1");
        rolled_back(world, &mut store).await;
    }
}

async fn rolled_back(mut world: World, store: &mut Shared) {
    let stop = |world: &mut World| {
        world.keeper.take().expect("it runs").terminate();
        world.host.take().expect("it runs").terminate();
    };
    release(&world).await;
    stop(&mut world);
    store.save("old");
    world.start_keeper();
    world.start_host();
    release(&world).await;
    stop(&mut world);
    store.save("new");

    // The keeper starts on the older copy, and stays closed until the newest is back.
    store.roll_back_to("old");
    let mut keeper = world.start_keeper_process();
    world.start_host();
    keeper.wait_for("log-unavailable");
    Guest::new(&world).await.load().await.expect_err("an older store serves nothing");
    world.host.take().expect("it runs").terminate();
    store.roll_back_to("new");
    world.start_host();
    keeper.wait_for("the vault is open");
    world.keeper = Some(keeper);
    release(&world).await;

    // The same below a keeper and a host that run.
    store.save("newest");
    store.roll_back_to("old");
    Guest::new(&world).await.load().await.expect_err("an older store takes nothing");
    stop(&mut world);
    store.roll_back_to("newest");
    world.start_keeper();
    world.start_host();
    release(&world).await;
    run_ok(world.vaultctl().args(["log", "verify", "--fresh"]));
}

/// One release to a good guest, which waits until the vault is open.
async fn release(world: &World) {
    let begun = std::time::Instant::now();
    loop {
        match Guest::new(world).await.load().await {
            Ok(_) => return,
            Err(refused) => assert!(begun.elapsed().as_secs() < 60, "{refused:?}"),
        }
        std::thread::sleep(std::time::Duration::from_millis(200));
    }
}
