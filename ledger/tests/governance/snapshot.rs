//! Snapshots of the fold. That nothing is lost in one, every test of the fold shows: see `World::apply`.

use std::path::PathBuf;

use attestation::{Sha256Digest, Trust};
use ledger::entry::{
    Action, AlarmEntry, Deny, DenySummary, Entry, Extend, PlatformAct, PlatformChange, Proposal, Release,
};
use ledger::merkle::{Tree, leaf_hash};
use ledger::permit::{Permit, PermitKind, STANDING_SECS_MAX};
use ledger::snapshot::{self, FOLD, FOLD_NUMBER, Folded, SnapshotError};
use ledger::state::State;

use crate::support::budget::{budget, platform, releases};
use crate::support::policy_text::PCR_11_KEEPER;
use crate::support::world::{ALICE, World};
use crate::{beside, escrow, extensions, keepers, key_epochs, reseal, revocations, upgrade, workloads};

/// What the recorded log folds to under the present [`FOLD`]. An entry that means something else, or a state that holds
/// something else, changes it: then the number in `FOLD` counts up, so that no keeper goes on from what it folded before.
const RECORDED: (&str, &str) = ("fold 4", "sha256:c71bd8a29ef12e4cbcb2ea03e8e764564f25583e78996cffeb6ab1094e47df95");

/// The same of the log of a vault with witnesses, which several keepers write to.
const RECORDED_SHARED: &str = "sha256:a25d47e8be7676669a4a3de454f5b5e62b7ddfbe3a25434c699bf5449af34d03";

fn recorded(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/governance/data").join(name)
}

fn log() -> Vec<Vec<u8>> {
    log_of("fold.jsonl")
}

fn log_of(name: &str) -> Vec<Vec<u8>> {
    let text = std::fs::read_to_string(recorded(name)).unwrap();
    text.lines().map(|line| line.as_bytes().to_vec()).collect()
}

fn fold(entries: &[Vec<u8>]) -> (State, Tree) {
    let (mut state, mut tree) = (State::new(), Tree::new());
    for entry in entries {
        state.apply(state.size(), entry).unwrap();
        tree.push(leaf_hash(entry));
    }
    (state, tree)
}

#[test]
fn the_fold_means_what_its_version_says() {
    let (state, tree) = fold(&log());
    let digest = Sha256Digest::of(&snapshot::encode(&state, &tree).unwrap());
    let fold = FOLD.strip_prefix(env!("CARGO_PKG_VERSION")).unwrap().trim_start();
    assert_eq!((fold, digest.to_string().as_str()), RECORDED);
    assert_eq!(fold, format!("fold {FOLD_NUMBER}"));
}

/// Else nothing of a workload would be in what is recorded.
#[test]
fn the_recorded_log_leaves_a_lease_with_a_workload() {
    let (state, _) = fold(&log());
    let vault = state.vault().unwrap();
    assert!(vault.leases(state.time()).any(|(_, lease)| lease.workload.is_some()));
}

#[test]
fn the_fold_of_a_shared_log_means_what_its_version_says() {
    let (state, tree) = self::fold(&log_of("fold-shared.jsonl"));
    let encoded = snapshot::encode(&state, &tree).unwrap();
    assert_eq!(Sha256Digest::of(&encoded).to_string(), RECORDED_SHARED);
    let Folded { state: again, .. } = snapshot::decode(&encoded).unwrap();
    assert_eq!(format!("{again:?}"), format!("{state:?}"));
}

#[test]
fn a_fold_that_goes_on_from_a_snapshot_is_that_of_the_whole_log() {
    let entries = log();
    let (whole, tree) = fold(&entries);
    for cut in 0..=entries.len() {
        let (state, part) = fold(&entries[..cut]);
        let Folded { mut state, tree: mut part } = snapshot::decode(&snapshot::encode(&state, &part).unwrap()).unwrap();
        for entry in &entries[cut..] {
            state.apply(state.size(), entry).unwrap();
            part.push(leaf_hash(entry));
        }
        assert_eq!(format!("{state:?}"), format!("{whole:?}"), "cut at {cut}");
        assert_eq!(part.root(part.len()), tree.root(tree.len()));
    }
}

#[test]
fn state_and_tree_are_of_the_same_log() {
    let (state, mut tree) = fold(&log());
    let sizes = SnapshotError::Sizes { state: state.size(), tree: state.size() + 1 };
    tree.push(leaf_hash(b"one more"));
    assert_eq!(snapshot::encode(&state, &tree), Err(sizes));
    let good = {
        let (state, tree) = fold(&log());
        snapshot::encode(&state, &tree).unwrap()
    };
    // The number of leaves, and one more of them.
    let mut more = good.clone();
    more[15] += 1;
    more.splice(16..16, [7; 32]);
    assert_eq!(snapshot::decode(&more).err(), Some(sizes));
}

#[test]
fn bytes_that_are_cut_or_longer_or_name_nothing_are_no_snapshot() {
    let (state, tree) = fold(&log());
    let good = snapshot::encode(&state, &tree).unwrap();
    for length in (0..good.len()).step_by(41).chain(good.len() - 40..good.len()) {
        // What is cut is mostly a length that reaches past the end.
        let error = snapshot::decode(&good[..length]).unwrap_err();
        assert_eq!(error.code(), "snapshot-cut", "{length} of {}", good.len());
    }
    assert_eq!(snapshot::decode(&[good.as_slice(), b"x"].concat()).err(), Some(SnapshotError::Trailing { bytes: 1 }));
    // Of an empty log: no hashes, size, time, digest and run, and then the stage.
    let mut stage = snapshot::encode(&State::new(), &Tree::new()).unwrap();
    *stage.last_mut().unwrap() = 3;
    assert_eq!(snapshot::decode(&stage).err(), Some(SnapshotError::Malformed { what: "stage" }));
}

/// Nothing that is read can panic or take more memory than it has bytes, though only the keeper's own is ever read.
#[test]
fn a_changed_byte_never_panics() {
    let (state, tree) = fold(&log());
    let good = snapshot::encode(&state, &tree).unwrap();
    for at in (0..good.len()).step_by(101) {
        let mut changed = good.clone();
        changed[at] ^= 0x81;
        let _ = snapshot::decode(&changed);
    }
}

/// Records the log of the vector: every type of entry, and something of every kind left in the state.
/// `cargo nextest run -p ledger --run-ignored only record_the_log_of_the_fold`
#[test]
#[ignore = "writes the vector, which stays"]
fn record_the_log_of_the_fold() {
    for (name, world) in [("fold.jsonl", every_type()), ("fold-shared.jsonl", beside::every_kind())] {
        let mut text = Vec::new();
        for entry in world.entries {
            text.extend(entry);
            text.push(b'\n');
        }
        std::fs::write(recorded(name), text).unwrap();
    }
}

fn every_type() -> World {
    let rules = "\n[alarm.a]\nmodels = \"any\"\non = \"new-platform\"\nthen = \"alarm\"\n";
    let budgets = budget("platform", "hold", "releases_per_hour = 2\nbytes_per_day = \"9000B\"");
    let change = |text: String| {
        let images = format!("11 = [\"{PCR_11_KEEPER}\"");
        text.replace("threshold = 2\n", "threshold = 2\nrevoke_threshold = 1\nbreak_glass_threshold = 2\n")
            .replace("[keeper]", "[platforms]\nthreshold = 2\n\n[keeper]")
            .replace("max_leases = 4", "max_leases = 1000\napprovals = 2\nek_without_certificate = true")
            .replacen(&images, &format!("{images}, \"{}\"", "2b".repeat(32)), 1)
            + rules
            + &budgets
            + &workloads::pinned_rule()
    };
    let mut world = World::with_policy(change).opened().published();
    let start = world.start(1);
    world.must(start);
    let standing = world.permit(PermitKind::Standing, 100);
    world.must_permit(&Permit { until: world.now.plus(STANDING_SECS_MAX), ..standing });
    rest(&mut world);
    world
}

fn rest(world: &mut World) {
    let release = |world: &World, n| Release { platform: platform(9), ..world.release(n) };
    let first = release(world, 1);
    let lease = first.lease;
    let rings = |world: &World, of: &Release| {
        let rules = vec!["a".parse().unwrap()];
        Entry::Alarm(AlarmEntry { time: world.now, lease: of.lease, rules, measurement: None })
    };
    let alarm = rings(world, &first);
    world.must(alarm);
    world.must(Entry::Release(Box::new(first)));
    for n in 2..6 {
        world.pass(60);
        let _ = world.apply(&Entry::Release(Box::new(release(world, n))));
    }
    world.must_raise(releases(3));
    let glass = world.permit(PermitKind::BreakGlass, 1);
    world.must_permit(&glass);
    let over = release(world, 7);
    world.must(Entry::Release(Box::new(over)));
    world.pass(60);
    let renew = world.renew(vec![world.renewal(lease)]);
    world.must(renew);
    world.jump(50);
    let change = |act, revision| PlatformChange {
        act,
        platform: platform(3),
        label: "gpu-3".parse().unwrap(),
        counts_as: Trust::Emulated,
        revision,
    };
    world.must_change_platform(&change(PlatformAct::Add, 0));
    let next = reseal::on(0x2b);
    let index = reseal::approved(world, &next);
    let effect = reseal::in_force(world, index, &next, &reseal::present());
    world.must(effect);
    let effect = reseal::resealed(world, &next);
    world.must(effect);
    let extension = extensions::all(world);
    let approvals = extensions::approvals(world, &extension, &[1, 2]);
    let leases = world.vault().leases(world.now).count() as u32;
    world.must(Entry::Extend(Extend { time: world.now, extension, approvals, leases }));
    revocations::must_revoke(world, revocations::scope(r#"{"by":"group","group":"layer.9"}"#), 0);
    let renewed = world.vault().leases(world.now).nth(1).map(|(id, _)| id).unwrap();
    revocations::must_revoke(world, revocations::scope(&format!(r#"{{"by":"lease","lease":"{renewed}"}}"#)), 1);
    let end = world.end(lease);
    world.must(end);
    refusals(world);
    world.pass(7200);
    let pinned = workloads::pinned(release(world, 50));
    world.must(Entry::Release(Box::new(pinned)));
    key_epochs::must_begin(world, 2);
    keepers::take_over(world, 2);
    world.must_change_policy(|text| text.replace("lease = \"15m\"", "lease = \"20m\""));
    escrow::recover(world, 3);
    upgrade::every_kind(world, [5; 32]);
    keepers::must_wait(world);
    escrow::must_wait(world);
    key_epochs::must_propose(world, 3);
    let waiting = world.next_policy(|text| text.replace("lease = \"15m\"", "lease = \"10m\""));
    world.must_propose_policy(&waiting);
    let waiting = revocations::revoke(world, revocations::scope(r#"{"by":"model","model":"llama"}"#));
    revocations::must_propose(world, ALICE, waiting);
    let raise = world.proposed_raise(releases(9), world.now.plus(60));
    let raise = world.propose(Proposal::Budget(raise));
    world.must(raise);
    let permit = world.permit(PermitKind::BreakGlass, 2);
    let permit = world.propose(Proposal::Permit(world.proposed_permit(&permit)));
    world.must(permit);
    let platform = world.proposed_platform(ALICE, change(PlatformAct::Remove, 0));
    world.must(platform);
}

fn refusals(world: &mut World) {
    let release = world.release(99);
    world.must(Entry::Deny(Deny {
        time: world.now,
        code: "platform-not-listed".parse().unwrap(),
        action: Action::Load,
        rule: release.rule,
        model: release.model,
        version: release.version,
        platform: release.platform,
        evidence: release.evidence,
        workload: None,
    }));
    let counts = [("pcr-mismatch".parse().unwrap(), 3)].into();
    world.must(Entry::DenySummary(DenySummary { time: world.now, since: world.now, counts }));
}
