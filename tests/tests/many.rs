//! Many guests at once.

use std::collections::BTreeSet;
use std::time::Instant;

use vault_tests::fleet::{self, Fleet, Wave};
use vault_tests::{Guest, World, run_ok};

/// Releases that come at once.
const GUESTS: usize = 200;
/// Agents of the quick fleet, and of the whole one.
const FEW: usize = 100;
const FLEET: usize = 1000;
/// What the programs may need at most, in MiB: idle with a small log, and beyond that for each agent in KiB.
const KEEPER_MIB_MAX: (u64, u64) = (96, 128);
const HOST_MIB_MAX: (u64, u64) = (96, 256);

/// Each with its own challenge and quote: none is dropped, each grant is proven in one log.
#[tokio::test(flavor = "multi_thread")]
async fn two_hundred_guests_at_once_are_all_served() {
    let world = World::open();
    world.publish("1");
    let mut ready = Vec::new();
    for _ in 0..GUESTS {
        let mut guest = Guest::new(&world).await;
        let challenge = guest.challenge(guest.ask()).await.expect("a challenge");
        let redemption = guest.redemption(&challenge);
        ready.push((guest, redemption));
    }
    let start = Instant::now();
    let served: Vec<_> = ready
        .into_iter()
        .map(|(mut guest, redemption)| tokio::spawn(async move { guest.redeem(redemption).await }))
        .collect();
    let vault = std::fs::read(world.vault()).expect("the vault file");
    let vault = ledger::vault_file::VaultFile::parse(&vault).expect("the vault file");
    let verifier = ledger::checkpoint::LogVerifier::of(vault.genesis());
    let (mut indices, mut commits) = (BTreeSet::new(), BTreeSet::new());
    for grant in served {
        let grant = grant.await.expect("no panic").expect("a grant");
        let (index, checkpoint) = verifier.verify_proof(&grant.log_proof, &grant.entry).expect("its proof");
        indices.insert(index);
        commits.insert(checkpoint.size);
    }
    println!("{GUESTS} releases in {:.2} s and {} commits", start.elapsed().as_secs_f64(), commits.len());
    assert_eq!(indices.len(), GUESTS);
    // Who waits while a commit runs joins the next one: were they served one by one, there would be as many as guests.
    assert!(commits.len() < GUESTS / 4, "{} commits: they did not come at once", commits.len());
    run_ok(world.vaultctl().args(["log", "verify", "--fresh"]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fleet_starts_renews_and_restarts_at_once_and_all_are_served() {
    waves(FEW).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "a dev build may need more than the 45 s that a host gives a call: `cargo xtask bench --agents 1000` of a release build is the same"]
async fn a_thousand_agents_start_renew_and_restart_at_once_and_all_are_served() {
    waves(FLEET).await;
}

/// No agent is refused once, none tries twice.
async fn waves(agents: usize) {
    let mut world = fleet::world(agents);
    let (mut fleet, started) = Fleet::start(&world, agents).await;
    check("start", agents, started);
    let before = fleet.leases();
    check("renew", agents, fleet.renew(&world).await);
    let (mut fleet, restarted) = fleet.restart(&world).await;
    check("restart", agents, restarted);
    // Renewals that were signed and not yet in the log are forgotten by a keeper that is killed, their leases are not.
    world.keeper.take().expect("it runs").kill();
    world.start_keeper();
    check("renew at another run", agents, fleet.renew(&world).await);
    assert_eq!((before, fleet.leases()), (agents, agents));
    run_ok(world.vaultctl().args(["log", "verify", "--fresh"]));
}

fn check(what: &str, agents: usize, wave: Wave) {
    println!("{agents} {what} in {:.2} s; keeper {:?}, host {:?}", wave.seconds, wave.keeper, wave.host);
    for (who, resident, (idle, each)) in [("keeper", wave.keeper, KEEPER_MIB_MAX), ("host", wave.host, HOST_MIB_MAX)] {
        let most = idle + each * agents as u64 / 1024;
        assert!(resident.peak <= most, "{what}: the {who} had {} MiB, and may have {most}", resident.peak);
    }
}
