//! What agents that all ask at once need of keeper and host: `cargo xtask bench --agents N` runs it and shows the result.
//!
//! Agents are forged, each with a TPM, an EK certificate and a connection of its own. They start, renew, restart, and renew
//! once more after the keeper was killed; a request that is refused ends the program. The argument is how many; prints one
//! line of JSON.

use serde_json::{Value, json};
use vault_tests::fleet::{self, Fleet, Wave};
use vault_tests::process::Resident;

#[tokio::main]
async fn main() {
    let agents: usize = std::env::args().nth(1).and_then(|count| count.parse().ok()).expect("how many agents");
    let mut world = fleet::world(agents);
    let idle = Wave::none(&world);
    let (mut fleet, started) = Fleet::start(&world, agents).await;
    let renewed = fleet.renew(&world).await;
    let (mut fleet, restarted) = fleet.restart(&world).await;
    world.keeper.take().expect("it runs").kill();
    world.start_keeper();
    let recovered = fleet.renew(&world).await;
    assert_eq!(fleet.leases(), agents);
    let waves = [
        ("idle", idle),
        ("all start", started),
        ("all renew", renewed),
        ("all restart", restarted),
        ("all renew at a keeper that was killed", recovered),
    ];
    let rows: Vec<Value> = waves.iter().map(|(what, wave)| row(what, wave)).collect();
    println!("{}", json!({ "agents": agents, "rows": rows }));
}

fn row(what: &str, wave: &Wave) -> Value {
    let memory = |resident: Resident| json!({ "rss_mib": resident.now, "peak_mib": resident.peak });
    json!({ "what": what, "seconds": wave.seconds, "keeper": memory(wave.keeper), "host": memory(wave.host) })
}
