//! What a release costs a keeper in CPU time, apart from its TPM thread: `cargo xtask bench` runs it and shows the result.
//!
//! A release is all that the keeper does for it: challenge, evidence, decision, entry, commit, wrapping, the link to the host.
//! Guests are forged, each with an EK certificate, AK and quote of its own; they come one after the other, so that no two
//! releases share a commit. The argument is how many; prints one line of JSON.

use std::collections::BTreeMap;
use std::fs;
use std::time::{Duration, Instant};

use vault_tests::{Guest, World};

/// The first releases fill caches.
const WARM_UP: u32 = 10;
/// Name of the thread that alone talks to the TPM.
const TPM_THREAD: &str = "tpm";

#[tokio::main]
async fn main() {
    let releases: u32 = std::env::args().nth(1).and_then(|count| count.parse().ok()).expect("how many releases");
    let world = World::open();
    world.publish("1");
    let keeper = world.keeper.as_ref().expect("it runs").pid();
    for _ in 0..WARM_UP {
        release(&world).await;
    }
    let (before, start) = (threads(keeper), Instant::now());
    for _ in 0..releases {
        release(&world).await;
    }
    let wall = start.elapsed();
    let mut spent = threads(keeper);
    for (thread, time) in &mut spent {
        *time -= before.get(thread).copied().unwrap_or_default();
    }
    let milliseconds = |time: Duration| time.as_secs_f64() * 1e3 / f64::from(releases);
    let tpm = *spent.get(TPM_THREAD).expect("the keeper has a thread for its TPM");
    let rest = spent.values().sum::<Duration>() - tpm;
    let by_thread: BTreeMap<&String, f64> = spent.iter().map(|(name, time)| (name, milliseconds(*time))).collect();
    let report = serde_json::json!({
        "releases": releases,
        "keeper_cpu_ms": milliseconds(rest),
        "tpm_thread_cpu_ms": milliseconds(tpm),
        "wall_ms": milliseconds(wall),
        "threads_cpu_ms": by_thread,
    });
    println!("{report}");
}

async fn release(world: &World) {
    let mut guest = Guest::new(world).await;
    let challenge = guest.challenge(guest.ask()).await.expect("a challenge");
    guest.redeem(guest.redemption(&challenge)).await.expect("a grant");
}

/// CPU time of a process by the names of its threads (proc(5), `schedstat`: nanoseconds on the CPU come first).
fn threads(pid: u32) -> BTreeMap<String, Duration> {
    let mut spent = BTreeMap::new();
    for thread in fs::read_dir(format!("/proc/{pid}/task")).expect("it runs") {
        let thread = thread.expect("it runs").path();
        let read = |file: &str| fs::read_to_string(thread.join(file)).expect("a thread of it runs");
        let nanoseconds = read("schedstat").split_whitespace().next().and_then(|first| first.parse().ok());
        let time = Duration::from_nanos(nanoseconds.expect("a kernel with schedstat"));
        *spent.entry(read("comm").trim().to_owned()).or_default() += time;
    }
    spent
}
