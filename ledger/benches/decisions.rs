//! What a keeper does for every entry and every request: the tree, the fold, the decision.
#![allow(clippy::unwrap_used, reason = "a bench fails by panicking")]
#![allow(unreachable_pub, reason = "a bench has no outside")]

#[allow(dead_code, reason = "a bench needs a part of it")]
#[path = "../../attestation/tests/common/mod.rs"]
mod common;
mod hot;
#[allow(dead_code, reason = "a bench needs a part of it")]
#[path = "../tests/governance/support/mod.rs"]
mod support;

use std::process::ExitCode;

use attestation::UnitSet;
use hot::Hot;
use ledger::decide::{PastBytes, PastEvidence, PastRequest, PastUnits, Replayed, Shown, replay};
use ledger::entry::{Action, Entry};
use ledger::manifest::Manifest;
use ledger::merkle::{Tree, leaf_hash};
use ledger::policy::Policy;
use support::evidence::Guest;
use support::world::{World, rule};

/// Leaves of the tree that proofs are made from.
const LEAVES: u64 = 100_000;

const HOT: &[Hot] = &[
    Hot { name: "merkle: push a leaf", bytes: 1, prepare: push },
    Hot { name: "merkle: prove an entry of 100,000", bytes: 1, prepare: prove },
    Hot { name: "fold: apply a release", bytes: 1, prepare: apply },
    Hot { name: "decide: a load that is granted", bytes: 1, prepare: grant },
    Hot { name: "manifest: parse", bytes: 1, prepare: manifest },
    Hot { name: "policy: parse", bytes: 1, prepare: policy },
];

fn main() -> ExitCode {
    hot::run(HOT, divan::main)
}

#[divan::bench(args = HOT.iter().map(|hot| hot.name))]
fn decisions(bencher: divan::Bencher<'_, '_>, name: &str) {
    hot::measure(HOT, bencher, name);
}

fn push() -> Box<dyn FnMut()> {
    let mut tree = Tree::new();
    Box::new(move || tree.push(leaf_hash(&tree.len().to_be_bytes())))
}

fn prove() -> Box<dyn FnMut()> {
    let mut tree = Tree::new();
    (0..LEAVES).for_each(|leaf| tree.push(leaf_hash(&leaf.to_be_bytes())));
    let mut index = 0;
    Box::new(move || {
        index = (index + 7919) % LEAVES;
        std::hint::black_box(tree.inclusion(index, LEAVES).unwrap());
    })
}

/// Each for another session and lease, as a keeper would write it.
fn apply() -> Box<dyn FnMut()> {
    let change = |text: String| text.replace("max_leases = 4", "max_leases = 4294967295");
    let mut world = World::with_policy(change).opened().published();
    let (mut release, vault) = (world.release(0), world.genesis.vault_id());
    let mut count = 0_u32;
    Box::new(move || {
        release.session[..4].copy_from_slice(&count.to_be_bytes());
        release.lease = attestation::lease_id(&vault, &release.session, &release.lease_key);
        release.time = world.now.plus(u64::from(count / 2));
        (release.issued, release.renew_by) = (release.time, release.time.plus(900));
        count += 1;
        let entry = Entry::Release(Box::new(release.clone())).encode().unwrap();
        world.state.apply(world.state.size(), &entry).unwrap();
    })
}

/// The decision on evidence that was verified, as an auditor makes it again: `decide` takes its evidence away, so there would
/// be a quote to make for each call.
fn grant() -> Box<dyn FnMut()> {
    let world = World::with_model();
    let claims = Guest::of(&world).good_load(&world, 1).claims().clone();
    let (rule, model, version) = (rule(), "minilm".parse().unwrap(), "1.0".parse().unwrap());
    let manifest = world.state.open_manifest(&model, &version, world.manifest().bytes()).unwrap();
    let units = UnitSet::try_from(vec![0, 1]).unwrap();
    Box::new(move || {
        let (shown, anchor, tier) = (Shown::from(&claims), claims.anchor(), claims.trust());
        let request = PastRequest {
            action: Action::Load,
            time: world.now,
            rule: &rule,
            model: &model,
            version: &version,
            platform: claims.platform(),
            units: PastUnits::Known { units: &units, manifest: &manifest },
            bytes: PastBytes::exactly(1100),
            workload: ledger::decide::PastWorkload::NotAsked,
            marks: None,
            evidence: Some(PastEvidence { shown, anchor, tier, revocation: false }),
        };
        let decided = replay(world.vault(), &world.vault().allowances(), &request);
        assert!(matches!(decided, Replayed::Granted));
    })
}

fn manifest() -> Box<dyn FnMut()> {
    let manifest = World::open().manifest();
    Box::new(move || drop(Manifest::parse(manifest.bytes()).unwrap()))
}

fn policy() -> Box<dyn FnMut()> {
    let text = World::open().policy_text;
    Box::new(move || drop(Policy::parse(&text).unwrap()))
}
