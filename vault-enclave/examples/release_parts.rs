//! What the parts of a release cost a keeper that have to do with its keys, each alone, on one thread: JSON, microseconds.
//! `cargo xtask bench` runs it and shows it. What the evidence costs is in `verify_cost` of `attestation`.
//!
//! `release_parts RUNS`. Every run is one call, so that a slow one is seen.

use std::time::Instant;

use attestation::{HpkePublicKey, LeaseKey, Sha256Digest, UnitSet, UnixTime};
use ledger::manifest::ModelId;
use ledger::names::{Name, Version};
use ring::rand::SystemRandom;
use serde_json::{Value, json};
use vault_enclave::derive::{KeeperContext, ModelContext};
use vault_enclave::record::{open_dek, seal_dek};
use vault_enclave::secret::{Dek, Root};
use vault_enclave::unit_keys::UnitKeys;
use vault_enclave::vault_keys::VaultKeys;
use vault_enclave::wrap::{GrantInfo, HpkeKeyPair, wrap_unit_keys};

const VAULT: Sha256Digest = Sha256Digest::from_bytes([1; 32]);
const PLAN: Sha256Digest = Sha256Digest::from_bytes([2; 32]);
/// Units of a grant, as a model of some dozen layers has them.
const UNITS: u32 = 32;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let Some(runs) = std::env::args().nth(1).and_then(|runs| runs.parse().ok()) else {
        return Err("usage: release_parts RUNS".into());
    };
    let rng = SystemRandom::new();
    let context = KeeperContext { instance: [3; 32], core: Sha256Digest::of(b"core") };
    let keys = VaultKeys::derive(&Root::generate(&rng)?, &context)?;
    let guest = HpkeKeyPair::generate(&rng)?.public_key().clone();
    let record = seal_dek((keys.kek(), 1), VAULT, PLAN, &Dek::generate(&rng)?, &rng)?;
    let units = UnitSet::try_from((0..UNITS).collect::<Vec<_>>())?;
    let id = ModelId {
        vault: VAULT,
        model: Name::try_from("llama")?,
        version: Version::try_from("1".to_owned())?,
        publisher: Sha256Digest::of(b"publisher"),
    };
    let unit_keys = || {
        let dek = open_dek((keys.kek(), 1), VAULT, PLAN, &record).expect("it was sealed so");
        UnitKeys::derive(&dek, ModelContext { id: &id, plan: PLAN }, units.clone()).expect("locked memory")
    };
    let derived = unit_keys();
    let rows = [
        row("release, unit keys", runs, unit_keys),
        row("release, HPKE wrap", runs, || wrap(&guest, &units, &derived, &rng)),
        row("release, P-384 signature", runs, || keys.sign_identity(&[7; 3400]).expect("it signs")),
        row("release, Ed25519 signature", runs, || keys.sign_log(&[7; 200]).expect("it signs")),
    ];
    println!("{}", json!({ "runs": runs, "rows": rows }));
    Ok(())
}

fn wrap(guest: &HpkePublicKey, units: &UnitSet, keys: &UnitKeys, rng: &SystemRandom) -> usize {
    let digest = Sha256Digest::of(b"");
    let lease_key = LeaseKey::try_from([4; 32].as_slice()).expect("32 bytes");
    let info = GrantInfo {
        vault: VAULT,
        session: [5; 16],
        nonce: [6; 32],
        evidence: digest,
        policy: digest,
        manifest: digest,
        units,
        lease_key: &lease_key,
        lease: digest,
        renew_by: UnixTime(1_782_864_000),
        leaf: [0; 32],
    };
    wrap_unit_keys(guest, &info, keys, rng).expect("a key of the KEM").ciphertext.len()
}

/// Median, least and most of `runs` calls, in microseconds.
fn row<T>(what: &str, runs: usize, call: impl Fn() -> T) -> Value {
    let time = || {
        let start = Instant::now();
        let result = std::hint::black_box(call());
        let time = start.elapsed().as_secs_f64() * 1e6;
        drop(result);
        time
    };
    let mut times: Vec<f64> = (0..runs.max(1)).map(|_| time()).collect();
    times.sort_by(f64::total_cmp);
    json!({ "what": what, "us": times[times.len() / 2], "least": times[0], "most": times[times.len() - 1] })
}
