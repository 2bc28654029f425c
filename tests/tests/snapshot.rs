//! A keeper that starts from a snapshot of its fold: whatever the snapshot is like, it decides as if it had read the log.

use std::fs;
use std::process::Command;

use attestation::Sha256Digest;
use ledger::checkpoint::LogVerifier;
use ledger::revocation::{Notice, watch_message};
use ledger::vault_file::VaultFile;
use vault_proto::convert::{RevocationNotice, WatchEvent};
use vault_proto::v1;
use vault_tests::world::APPROVERS;
use vault_tests::{Guest, World, run_ok};

/// Entries of a bundle, whose hashes a keeper forgets once they are that many.
const BUNDLE: u64 = 256;

fn vault_file(world: &World) -> VaultFile {
    VaultFile::parse(&fs::read(world.vault()).expect("the vault file")).expect("the vault file")
}

fn verifier(world: &World) -> LogVerifier {
    let vault = vault_file(world);
    LogVerifier::new(vault.id(), vault.log_key().clone())
}

/// One release to a good guest: the index of its entry, and the guest.
async fn release(world: &World) -> (u64, Sha256Digest, Guest) {
    let mut guest = Guest::new(world).await;
    let challenge = guest.challenge(guest.ask()).await.expect("a challenge");
    let lease = guest.bind(&challenge).statement().lease_id();
    let grant = guest.redeem(guest.redemption(&challenge)).await.expect("a grant");
    let (index, _) = verifier(world).verify_proof(&grant.log_proof, &grant.entry).expect("the grant's proof");
    (index, lease, guest)
}

/// Stops the keeper, changes what lies in its directory, and starts it; how many entries of the log it did not read.
fn restart(world: &mut World, kill: bool, change: impl FnOnce(&World)) -> u64 {
    let keeper = world.keeper.take().expect("it runs");
    if kill {
        keeper.kill();
    } else {
        assert_eq!(keeper.terminate(), Some(0));
    }
    change(world);
    world.start_keeper();
    let line = world.keeper.as_mut().expect("it was started").wait_for("snapshot=");
    let (_, after) = line.split_once("snapshot=").unwrap_or_default();
    after.split_whitespace().next().and_then(|count| count.parse().ok()).unwrap_or_else(|| panic!("{line}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_keeper_starts_from_its_snapshot_new_or_old_and_without_one_that_is_damaged() {
    let mut world = World::open();
    world.publish("1");
    let (first, ..) = release(&world).await;
    let file = world.path("keeper").join("snapshot");
    let fresh = restart(&mut world, false, |_| ());
    assert!(fresh > first, "{fresh} entries, {first} and more were there");
    let old = fs::read(&file).expect("it was written when the keeper stopped");
    let (second, ..) = release(&world).await;
    assert!(second > first);

    // A keeper that is killed writes none: the one before is as good.
    assert_eq!(restart(&mut world, true, |_| ()), fresh);
    let (third, ..) = release(&world).await;
    // Put back after newer ones were written.
    let newest = restart(&mut world, false, |_| ());
    assert!(newest > third);
    release(&world).await;
    assert_eq!(restart(&mut world, false, |_| fs::write(&file, &old).expect("a file")), fresh);
    run_ok(world.vaultctl().args(["log", "verify", "--fresh"]));

    let changed = |_: &World| {
        let mut bytes = fs::read(&file).expect("it was written again");
        *bytes.last_mut().expect("it has bytes") ^= 1;
        fs::write(&file, bytes).expect("a file");
    };
    assert_eq!(restart(&mut world, false, changed), 0);
    assert!(world.keeper.as_ref().expect("it runs").log().contains("snapshot-damaged"));
    release(&world).await;
    run_ok(world.vaultctl().args(["log", "verify", "--fresh"]));
}

/// What a keeper forgot of its tree it proves with what the host has.
#[tokio::test(flavor = "multi_thread")]
async fn an_old_revocation_is_proved_by_a_keeper_that_forgot_the_entries_around_it() {
    let mut world = World::before_ceremony(|_, policy| {
        *policy = policy.replacen("threshold = 2\n", "threshold = 2\nrevoke_threshold = 1\n", 1);
        *policy = policy.replacen("lease = \"60s\"", "lease = \"10m\"", 1);
    });
    world.sign_genesis();
    world.publish("1");
    let (_, lease, mut guest) = release(&world).await;
    let mut revoke: Command = world.vaultctl();
    revoke.args(["revoke", "--lease", &lease.to_string(), "--no-wait", "--yes", "--key"]);
    run_ok(revoke.arg(world.path(APPROVERS[0])));
    while release(&world).await.0 <= BUNDLE {}
    restart(&mut world, false, |_| ());

    let signature = guest.lease.sign(&watch_message(&vault_file(&world).id(), &lease)).as_ref().to_vec();
    let request = v1::WatchLeaseRequest { lease_id: lease.as_bytes().to_vec(), lease_signature: signature };
    let mut events = guest.watch(request).await.expect("a watch");
    let event = events.message().await.expect("a stream").expect("an event");
    let WatchEvent::Notice(notice) = event.try_into().expect("of the right form") else { panic!("it is revoked") };
    let RevocationNotice { entry, log_proof, leases, signature } = &notice;
    let notice = Notice { entry, log_proof, leases, signature };
    notice.verify(lease, &verifier(&world), vault_file(&world).identity_key()).expect("a notice with its proof");
}

/// Under witnesses too; and one that was away for longer than the keeper remembers is shown the entries that the host has.
#[tokio::test(flavor = "multi_thread")]
async fn a_witness_that_comes_back_is_asked_by_a_keeper_that_forgot_what_it_knows() {
    let mut world = World::open_witnessed();
    world.publish("1");
    let file = world.path("keeper").join("snapshot");
    let fresh = restart(&mut world, false, |_| ());
    assert!(fresh > 0 && file.exists());
    world.witnesses.as_mut().expect("it has three").stop(2);
    while release(&world).await.0 <= BUNDLE {}
    assert!(restart(&mut world, false, |_| ()) > BUNDLE);

    let vkey = world.log_vkey();
    let witnesses = world.witnesses.as_mut().expect("it has three");
    witnesses.start(2, &vkey);
    witnesses.stop(1);
    let (index, ..) = release(&world).await;
    assert!(index > BUNDLE);
    run_ok(world.vaultctl().args(["log", "verify", "--fresh"]));

    // A head that the keeper had before it wrote its snapshot.
    let head = fs::read(world.path("keeper").join("head")).expect("it has one");
    release(&world).await;
    let keeper = world.keeper.take().expect("it runs");
    assert_eq!(keeper.terminate(), Some(0));
    fs::write(world.path("keeper").join("head"), head).expect("a file");
    world.host.take().expect("it runs").terminate();
    world.start_keeper();
    world.start_host();
    world.keeper.as_mut().expect("it was started").wait_for("snapshot-ahead-of-head");
}
