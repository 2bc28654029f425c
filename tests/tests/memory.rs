//! Keys that were used are gone: what the memory of a running keeper and of a running agent still has of known keys.

use std::fs;
use std::path::{Path, PathBuf};

use ledger::vault_file::VaultFile;
use vault_tests::memory::{Secrets, children};
use vault_tests::relay::{self, Hold};
use vault_tests::{Running, World, publisher, run_ok};

/// Bytes from host to agent after which it stands still: more than the manifest and the grant, less than the units.
const HOLD_AFTER: usize = 1 << 20;

/// The secrets that a process holds. What it must hold in any case, the vault's id, is found by the same search.
fn held(who: &str, pid: u32, secrets: &Secrets, control: &Secrets) -> Vec<String> {
    let found = control.found_in(pid).expect("root reads any memory");
    assert_eq!(found, control.names(), "the search does not find in the {who} what is there");
    secrets.found_in(pid).expect("root reads any memory").into_iter().collect()
}

fn publish(world: &World, sealed: &Path) {
    let mut publish = world.enclave("publish");
    run_ok(publish.arg(sealed).arg("--vault").arg(world.vault()));
    world.approve(&vault_tests::world::APPROVERS[..2]);
}

#[test]
fn keeper_and_agent_hold_no_key_after_its_use() {
    if !rustix::process::geteuid().is_root() {
        // The kernel closes the processes of a vault to their own user.
        assert!(std::env::var_os("CI").is_none_or(|ci| ci != "true"), "CI runs this as root");
        println!("skipped: only root can search the memory of a keeper");
        return;
    }
    let (world, guest) = World::open_with_guest();
    let vault = VaultFile::parse(&fs::read(world.vault()).expect("the vault file")).expect("the vault file");
    let pem = fs::read_to_string(world.path("publisher.pem")).expect("the publisher's key");
    let signer = vault_enclave::publisher::PublisherSigner::from_pem(&pem, &ring::rand::SystemRandom::new());
    let sealed = world.path("sealed");
    let secrets = publisher::seal_known(&world.source(), &sealed, &vault, &signer.expect("a key"));
    let mut control = Secrets::default();
    control.note("vault id", vault.id().as_bytes());
    publish(&world, &sealed);
    let keeper = world.keeper.as_ref().expect("it runs").pid();
    let nothing = Vec::<String>::new();
    assert_eq!(held("keeper", keeper, &secrets, &control), nothing, "after the DEK was unwrapped");

    let hold = Hold::after(HOLD_AFTER);
    let socket = world.path("relay.sock");
    relay::unix(&socket, &world.path("host.sock"), hold.gate());
    let into = PathBuf::from(format!("/dev/shm/weightvault-memory-{}", std::process::id()));
    let mut load = world.enclave("load");
    load.args(["demo@1", "--rule", "guest", "--tpm", &guest.tcti, "--vault"]).arg(world.vault());
    load.args(["--host", &format!("unix:{}", socket.display())]).arg("--into").arg(&into);
    let mut load = Running::start(&mut load, &world.path("load.log"));
    hold.wait();

    // While units arrive, the child has their keys, and nobody else.
    let [loader] = children(load.pid()).try_into().expect("the loader");
    let unit_keys: Vec<String> = secrets.names().into_iter().filter(|name| name.starts_with("unit ")).collect();
    assert!(!unit_keys.is_empty());
    assert_eq!(held("loader", loader, &secrets, &control), unit_keys);
    assert_eq!(held("agent", load.pid(), &secrets, &control), nothing, "while its child loads");
    assert_eq!(held("keeper", keeper, &secrets, &control), nothing, "after a release");

    hold.release();
    load.wait_for("ready");
    assert_eq!(children(load.pid()), Vec::<u32>::new(), "the loader has ended");
    assert_eq!(held("agent", load.pid(), &secrets, &control), nothing, "while it holds its lease");
    assert_eq!(held("keeper", keeper, &secrets, &control), nothing, "after a release");
    for file in fs::read_dir(world.source()).expect("the source") {
        let file = file.expect("the source");
        assert!(fs::read(into.join(file.file_name())).ok() == fs::read(file.path()).ok(), "{file:?} differs");
    }
    load.terminate();
    let _ = fs::remove_dir(&into);
}
