//! Measures what a keeper computes for one release, for grants of many units. By hand, on a quiet machine:
//!
//! ```text
//! cargo nextest run -p vault-enclave --release --run-ignored only --no-capture release_operations
//! ```
//! `cargo xtask bench` measures loads and seals (`examples/data_path.rs`).

use attestation::{LeaseKey, Sha256Digest, UnitSet};
use ring::rand::SystemRandom;

use crate::derive::{KeeperContext, ModelContext, RootSource};
use crate::record;
use crate::secret::{Dek, TpmSecret};
use crate::test_support::{example_grant, model_id};
use crate::unit_keys::UnitKeys;
use crate::vault_keys::VaultKeys;
use crate::wrap::{HpkeKeyPair, wrap_unit_keys};

/// What a keeper computes for one release, apart from evidence and log.
#[test]
#[ignore = "measures; run it by hand on a quiet machine"]
fn release_operations() {
    let rng = SystemRandom::new();
    let root = RootSource::Tpm(&TpmSecret::generate(&rng).unwrap()).root().unwrap();
    let context = KeeperContext { instance: [1; 32], core: Sha256Digest::of(b"core") };
    let vault = VaultKeys::derive(&root, &context).unwrap();
    let id = model_id("bench", "1");
    let context = ModelContext { id: &id, plan: Sha256Digest::of(b"plan") };
    let record =
        record::seal_dek((vault.kek(), 1), id.vault, context.plan, &Dek::generate(&rng).unwrap(), &rng).unwrap();
    let agent = HpkeKeyPair::generate(&rng).unwrap();
    let lease_key = LeaseKey::try_from([9; 32].as_slice()).unwrap();

    let dek = milliseconds("open the DEK record", || {
        record::open_dek((vault.kek(), 1), id.vault, context.plan, &record).unwrap()
    });
    for count in [1, 200, 16_384] {
        let units = UnitSet::try_from((0..count).collect::<Vec<u32>>()).unwrap();
        let derive = || UnitKeys::derive(&dek, context, units.clone()).unwrap();
        let keys = milliseconds(&format!("derive {count} unit keys"), derive);
        let info = example_grant(&units, &lease_key);
        let wrap = || wrap_unit_keys(agent.public_key(), &info, &keys, &rng).unwrap();
        milliseconds(&format!("wrap {count} unit keys"), wrap);
    }
    milliseconds("sign a grant", || vault.sign_identity(b"message").unwrap());
    milliseconds("sign a checkpoint", || vault.sign_log(b"message").unwrap());
}

fn milliseconds<R>(what: &str, mut act: impl FnMut() -> R) -> R {
    const TIMES: u32 = 20;
    let cpu = cpu_seconds();
    (1..TIMES).for_each(|_| drop(act()));
    let result = act();
    eprintln!("{what:30} {:7.3} ms", (cpu_seconds() - cpu) * 1e3 / f64::from(TIMES));
    result
}

/// Of all threads of this process: on a busy machine it says more than the time on the wall.
fn cpu_seconds() -> f64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    time.tv_sec as f64 + time.tv_nsec as f64 * 1e-9
}
