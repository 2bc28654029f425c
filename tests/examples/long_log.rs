//! What a log of a million entries costs: `cargo xtask bench --log` runs it and shows the result.
//!
//! A vault of its own on a software TPM gets a log of `--entries N` (a multiple of 256); then keeper, host and auditor are
//! the real programs. Prints one line of JSON.

use std::fs;
use std::process::Command;
use std::time::{Duration, Instant};

use ledger::merkle::{Tree, leaf_hash};
use ledger::snapshot;
use ledger::state::State;
use ledger::tiles::{TileKind, changed_tiles};
use serde_json::{Value, json};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use vault_tests::long_log::LongLog;
use vault_tests::{Guest, Running, World, binary};

/// Longest wait for a keeper that folds the whole log.
const FOLDED_WITHIN: Duration = Duration::from_secs(600);
/// Proofs that are made and timed.
const PROOFS: u64 = 1000;

#[tokio::main]
async fn main() {
    let mut args = std::env::args().skip(1);
    let (flag, count) = (args.next(), args.next());
    assert_eq!(flag.as_deref(), Some("--entries"), "long_log --entries N");
    let size: u64 = count.and_then(|count| count.parse().ok()).expect("how many entries");
    let size = size.next_multiple_of(256);

    let mut world = World::before_ceremony(|_, policy| {
        *policy = policy.replacen("lease = \"60s\"", "lease = \"15m\"", 1).replacen(
            "max_leases = 256",
            "max_leases = 100000",
            1,
        );
    });
    world.sign_genesis();
    world.publish("1");
    let mut guest = Guest::new(&world).await;
    let challenge = guest.challenge(guest.ask()).await.expect("a challenge");
    guest.redeem(guest.redemption(&challenge)).await.expect("a grant");
    stop(&mut world);

    let mut log = LongLog::of(&world.path("host"));
    let (made, ()) = timed(|| log.grow(size));
    let fold = fold(&log);
    log.put(&world);
    drop(log);
    let audit = audit(&world, size);
    // The snapshot of before is as good as none: the log is folded from a few entries on.
    let _ = fs::remove_file(world.path("keeper").join("snapshot"));
    let whole = start(&mut world);
    let verify = log_verify(&world);
    let stopped = stop(&mut world);
    let snapshot_bytes = fs::metadata(world.path("keeper").join("snapshot")).map_or(0, |file| file.len());
    let resumed = start(&mut world);
    stop(&mut world);
    let report = json!({
        "entries": size, "made_s": made, "fold": fold, "audit": audit, "log_verify_s": verify,
        "keeper_whole": whole, "keeper_stop_s": stopped, "keeper_resumed": resumed, "snapshot_bytes": snapshot_bytes,
    });
    println!("{report}");
}

fn timed<T>(run: impl FnOnce() -> T) -> (f64, T) {
    let began = Instant::now();
    let done = run();
    (began.elapsed().as_secs_f64(), done)
}

/// Both programs; how long the keeper took.
fn stop(world: &mut World) -> f64 {
    let (seconds, _) = timed(|| world.keeper.take().expect("it runs").terminate());
    world.host.take().expect("it runs").terminate();
    seconds
}

/// What the fold alone takes, in this process.
fn fold(log: &LongLog) -> Value {
    let (mut state, mut tree) = (State::new(), Tree::new());
    let (fold, ()) = timed(|| {
        for entry in &log.entries {
            state.apply(state.size(), entry).expect("it was folded before");
        }
    });
    let (hash, ()) = timed(|| log.entries.iter().for_each(|entry| tree.push(leaf_hash(entry))));
    let size = tree.len();
    let (proofs, ()) = timed(|| {
        for n in 0..PROOFS {
            tree.inclusion(n * 7919 % size, size).expect("it is there");
        }
    });
    let whole = tree.clone();
    tree.forget();
    // What a keeper does for an entry that it forgot, the reading of 256 entries apart.
    let (recalls, ()) = timed(|| {
        for n in 0..PROOFS {
            let index = n * 7919 % size;
            let (first, last) = (index / 256 * 256, index / 256 * 256 + 256);
            let leaves: Vec<_> = (first..last).map(|leaf| *whole.node(0, leaf).expect("it is there")).collect();
            tree.recall(index / 256, &leaves).expect("its own leaves");
            tree.inclusion(index, size).expect("it was recalled");
        }
    });
    let (encode, bytes) = timed(|| snapshot::encode(&state, &tree).expect("of one log"));
    let (decode, _) = timed(|| snapshot::decode(&bytes).expect("just encoded"));
    let per_second = |seconds: f64| size as f64 / seconds;
    json!({
        "entries_s": per_second(fold), "leaf_hashes_s": per_second(hash),
        "proof_us": proofs / PROOFS as f64 * 1e6, "recalled_proof_us": recalls / PROOFS as f64 * 1e6,
        "encode_ms": encode * 1e3, "decode_ms": decode * 1e3, "plain_bytes": bytes.len(),
        "leases": state.vault().map_or(0, |vault| vault.leases(state.time()).count()),
        "entry_bytes": log.entries.iter().map(Vec::len).sum::<usize>(),
    })
}

/// `vaultctl audit verify` on the log as a folder, evidence apart.
fn audit(world: &World, size: u64) -> Value {
    let (from, to) = (world.path("host").join("log"), world.path("bundle"));
    for tile in changed_tiles(0, size) {
        let name = tile.to_string();
        if matches!(tile.kind(), TileKind::Entries | TileKind::Hashes(_)) {
            let path = to.join(&name);
            fs::create_dir_all(path.parent().expect("it has one")).expect("the directory is ours");
            fs::hard_link(from.join(&name), path).expect("on one disk");
        }
    }
    fs::copy(from.join("checkpoint"), to.join("checkpoint")).expect("the directory is ours");
    let vault = fs::read(world.vault()).expect("the vault file");
    let vault = ledger::vault_file::VaultFile::parse(&vault).expect("the vault file").id();
    let index = json!({ "format": 1, "vault": vault, "size": size, "evidence_from": 0, "evidence_to": 0 });
    fs::write(to.join("bundle.json"), index.to_string()).expect("the directory is ours");
    let mut verify = Command::new("/usr/bin/env");
    verify.arg(binary("vaultctl")).args(["--json", "audit", "verify"]).arg(&to).arg("--vault").arg(world.vault());
    let (seconds, output) = timed(|| verify.output().expect("it runs"));
    let report: Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
    fs::remove_dir_all(&to).expect("the directory is ours");
    json!({ "seconds": seconds, "entries_s": size as f64 / seconds, "verdict": report["verdict"], "exit": output.status.code() })
}

/// `vaultctl log verify` over gRPC.
fn log_verify(world: &World) -> f64 {
    let (seconds, output) = timed(|| world.vaultctl().args(["log", "verify", "--fresh"]).output().expect("it runs"));
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    seconds
}

/// Starts both programs; what it took until the vault was open, by the keeper's own clock, and their memory.
fn start(world: &mut World) -> Value {
    let (listens, ()) = timed(|| world.start_keeper());
    let (host_s, ()) = timed(|| world.start_host());
    let keeper = world.keeper.as_mut().expect("it was started");
    let began = Instant::now();
    while !keeper.log().contains("the vault is open") {
        assert!(began.elapsed() < FOLDED_WITHIN, "{}", keeper.log());
        std::thread::sleep(Duration::from_millis(10));
    }
    let log = keeper.log();
    let at = |text: &str| log.lines().find(|line| line.contains(text)).map(time_of).expect("a line of the log");
    let (attached, folded, open) = (at("host attached"), at("snapshot="), at("the vault is open"));
    let rss = |process: &Running| {
        let resident = process.resident();
        json!({ "rss_mib": resident.now, "peak_mib": resident.peak })
    };
    json!({
        "listens_s": listens, "host_s": host_s, "fold_s": (folded - attached).as_seconds_f64(),
        "open_s": (open - attached).as_seconds_f64(), "keeper": rss(keeper),
        "host": rss(world.host.as_ref().expect("it was started")),
    })
}

fn time_of(line: &str) -> OffsetDateTime {
    let stamp = line.split_whitespace().next().unwrap_or_default();
    OffsetDateTime::parse(stamp, &Rfc3339).unwrap_or_else(|error| panic!("{error}: {line}"))
}
