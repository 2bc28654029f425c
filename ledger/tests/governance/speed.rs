//! How fast the fold is. Run it optimised: `cargo nextest run --release -p ledger --run-ignored only fold_speed`.

use std::time::Instant;

use ledger::entry::Entry;
use ledger::state::State;

use crate::support::world::World;

const RELEASES: u32 = 100_000;

#[test]
#[ignore = "measures, asserts nothing about this machine"]
fn fold_speed() {
    let change = |text: String| text.replace("max_leases = 4", "max_leases = 4294967295");
    let mut world = World::with_policy(change).opened().published();
    let mut release = world.release(0);
    let vault = world.genesis.vault_id();
    let entries: Vec<Vec<u8>> = (0..RELEASES)
        .map(|n| {
            release.session[..4].copy_from_slice(&n.to_be_bytes());
            release.lease = attestation::lease_id(&vault, &release.session, &release.lease_key);
            // Two a second: a lease of 15 minutes keeps 1,800 running.
            release.time = world.now.plus(u64::from(n / 2));
            (release.issued, release.renew_by) = (release.time, release.time.plus(900));
            Entry::Release(Box::new(release.clone())).encode().unwrap()
        })
        .collect();
    let began = Instant::now();
    for entry in &entries {
        world.state.apply(world.state.size(), entry).unwrap();
    }
    let per_second = f64::from(RELEASES) / began.elapsed().as_secs_f64();
    println!("{per_second:.0} releases a second, {} bytes each", entries[0].len());
    let began = Instant::now();
    let copy: State = world.state.clone();
    println!("a copy with {} leases: {:?}", copy.vault().unwrap().leases(copy.time()).count(), began.elapsed());
}
