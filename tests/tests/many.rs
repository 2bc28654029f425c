//! Many guests at once.

use std::collections::BTreeSet;
use std::time::Instant;

use vault_tests::{Guest, World, run_ok};

/// As many as the issue asks for.
const GUESTS: usize = 200;

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
