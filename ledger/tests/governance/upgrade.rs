//! Which program each keeper runs, and which fold a log asks for.

use attestation::Sha256Digest;
use ledger::entry::{Entry, Program, Start, Upgrade};
use ledger::snapshot::FOLD_NUMBER;
use ledger::state::FoldError;
use ledger::upgrade::UpgradeError;

use crate::beside;
use crate::keepers::{start, take_over};
use crate::support::world::{World, keeper};

fn program(version: &str, fold: u32) -> Program {
    let digest = Some(Sha256Digest::of(version.as_bytes()));
    Program { version: version.parse().unwrap(), fold, digest }
}

/// A start of this version, of the founder or of another keeper.
fn started(world: &World, run: u8, version: &str, keeper: Option<[u8; 32]>) -> Entry {
    let Entry::Start(start) = start(world, run, keeper) else { unreachable!("it is a start") };
    Entry::Start(Start { version: version.parse().unwrap(), ..start })
}

fn must_start(world: &mut World, run: u8, version: &str, keeper: Option<[u8; 32]>) {
    let entry = started(world, run, version, keeper);
    world.must(entry);
}

/// Starts with this program, and says so where it is due.
fn must_run(world: &mut World, run: u8, program: &Program, keeper: Option<[u8; 32]>) -> Option<Upgrade> {
    must_start(world, run, program.version.as_str(), keeper);
    let due = world.state.upgrade_due(program);
    due.iter().for_each(|upgrade| world.must(Entry::Upgrade(upgrade.clone())));
    due
}

/// Of this keeper, the first and the next that it says.
pub(crate) fn every_kind(world: &mut World, keeper: [u8; 32]) {
    must_run(world, 60, &program("0.1.0", 1), Some(keeper));
    must_run(world, 61, &program("0.2.0", 2), Some(keeper));
}

/// The keeper starts with a program of this version that knows this fold.
pub(crate) fn must_know(world: &mut World, run: u8, version: &str, fold: u32, keeper: Option<[u8; 32]>) {
    must_run(world, run, &program(version, fold), keeper);
}

#[track_caller]
fn refused(world: &mut World, upgrade: &Upgrade) -> UpgradeError {
    match world.refusal(Entry::Upgrade(upgrade.clone())) {
        FoldError::Upgrade(error) => error,
        other => panic!("{other}"),
    }
}

#[test]
fn a_keeper_says_what_it_runs_once_and_whenever_that_changes() {
    let mut world = World::open();
    let (first, next) = (program("0.1.0", 1), program("0.2.0", FOLD_NUMBER));
    assert!(world.state.upgrade_due(&first).is_none(), "only behind a start");
    let said = must_run(&mut world, 1, &first, None).unwrap();
    assert_eq!(said, Upgrade { time: world.now, from: None, to: first.clone(), fold: 1 });
    assert_eq!(must_run(&mut world, 2, &first, None), None);
    let said = must_run(&mut world, 3, &next, None).unwrap();
    assert_eq!((said.from, said.to, said.fold), (Some(first), next.clone(), FOLD_NUMBER));
    // The same version, and another file.
    let other = Program { digest: Some(Sha256Digest::of(b"patched")), ..next.clone() };
    let said = must_run(&mut world, 4, &other, None).unwrap();
    assert_eq!((said.from, said.fold), (Some(next), FOLD_NUMBER));
    assert_eq!(world.state.upgrades().program(keeper().instance), Some(&other));
    assert_eq!(world.state.upgrades().fold(), FOLD_NUMBER);
}

/// As before the last approver of the genesis has signed.
#[test]
fn a_keeper_that_starts_in_its_ceremony_says_what_it_runs() {
    let mut world = World::ceremony();
    assert!(must_run(&mut world, 1, &program("0.1.0", 1), None).is_some());
    let mut world = world.opened();
    assert_eq!(must_run(&mut world, 2, &program("0.1.0", 1), None), None);
}

#[test]
fn a_log_that_asks_for_a_newer_fold_is_refused_by_name_and_version() {
    let mut world = World::open();
    let newer = program("9.9.9", FOLD_NUMBER + 1);
    must_start(&mut world, 1, "9.9.9", None);
    let due = world.state.upgrade_due(&newer).unwrap();
    let error = refused(&mut world, &due);
    assert_eq!(error, UpgradeError::ProgramTooOld { fold: FOLD_NUMBER + 1, version: newer.version });
    assert_eq!(error.code(), "program-too-old");
    assert!(error.to_string().contains("run version 9.9.9"), "{error}");
}

#[test]
fn an_upgrade_entry_with_one_thing_changed_is_refused_for_it() {
    let mut world = World::open();
    must_run(&mut world, 1, &program("0.1.0", 2), None);
    let again = Upgrade { time: world.now, from: Some(program("0.1.0", 2)), to: program("0.1.0", 2), fold: 2 };
    assert_eq!(refused(&mut world, &again), UpgradeError::NotAtStart);
    must_start(&mut world, 2, "0.1.0", None);
    assert_eq!(refused(&mut world, &again), UpgradeError::Unchanged);
    must_start(&mut world, 3, "0.2.0", None);
    let good = world.state.upgrade_due(&program("0.2.0", 3)).unwrap();
    let changed = |to: Program| Upgrade { to, ..good.clone() };
    let start = "0.2.0".parse().unwrap();
    assert_eq!(refused(&mut world, &changed(program("0.3.0", 3))), UpgradeError::OtherVersion { start });
    for from in [None, Some(program("0.1.0", 1)), Some(program("0.2.0", 2))] {
        assert_eq!(refused(&mut world, &Upgrade { from, ..good.clone() }), UpgradeError::OtherBefore);
    }
    assert_eq!(refused(&mut world, &changed(program("0.2.0", 1))), UpgradeError::Older { fold: 2 });
    for fold in [1, 2] {
        let other = Upgrade { fold, ..good.clone() };
        assert_eq!(refused(&mut world, &other), UpgradeError::OtherFold { expected: 3 });
    }
    world.must(Entry::Upgrade(good));
}

#[test]
fn a_start_of_another_version_is_not_passed_over_in_silence() {
    let mut world = World::with_model();
    must_run(&mut world, 1, &program("0.1.0", 1), None);
    must_start(&mut world, 2, "0.2.0", None);
    let missing = FoldError::Upgrade(UpgradeError::Missing { found: "0.2.0".parse().unwrap() });
    let release = world.release(1);
    assert_eq!(world.refusal(Entry::Release(Box::new(release.clone()))), missing);
    let again = started(&world, 3, "0.2.0", None);
    assert_eq!(world.refusal(again), missing);
    let due = world.state.upgrade_due(&program("0.2.0", 1)).unwrap();
    world.must(Entry::Upgrade(due));
    world.must(Entry::Release(Box::new(release)));
}

/// Logs of before have starts of several versions, and no word about any of them.
#[test]
fn a_log_without_upgrade_entries_folds_as_before() {
    let mut world = World::with_model();
    for (run, version) in [(1, "0.1.0"), (2, "0.2.0"), (3, "0.1.0")] {
        must_start(&mut world, run, version, None);
        world.must_release(run.into());
    }
    assert_eq!(world.state.upgrades().fold(), 0);
}

#[test]
fn two_keepers_are_upgraded_in_turn_and_the_log_asks_for_what_both_know() {
    let mut world = beside::two();
    let other = Some([1; 32]);
    let (old, new) = (program("0.1.0", 2), program("0.2.0", 3));
    // The other has started, and never said what it runs.
    assert_eq!(must_run(&mut world, 10, &old, None).unwrap().fold, 0);
    assert_eq!(must_run(&mut world, 11, &old, other).unwrap().fold, 2);
    // The old program of one goes on beside the new one of the other.
    assert_eq!(must_run(&mut world, 12, &new, other).unwrap().fold, 2);
    assert_eq!(must_run(&mut world, 13, &old, None), None);
    assert_eq!(must_run(&mut world, 14, &new, None).unwrap().fold, 3);
    must_start(&mut world, 15, "0.1.0", other);
    let back = Upgrade { time: world.now, from: Some(new), to: old.clone(), fold: 3 };
    assert_eq!(refused(&mut world, &back), UpgradeError::Older { fold: 3 });
}

#[test]
fn a_keeper_that_left_holds_the_log_back_no_more() {
    let mut world = beside::two();
    let (old, new) = (program("0.1.0", 2), program("0.2.0", 3));
    must_run(&mut world, 10, &old, Some([1; 32]));
    assert_eq!(must_run(&mut world, 11, &new, None).unwrap().fold, 2);
    beside::must_leave(&mut world, [1; 32]);
    let said = must_run(&mut world, 12, &new, None).unwrap();
    assert_eq!((said.from, said.to, said.fold), (Some(new.clone()), new.clone(), 3));
    assert_eq!(must_run(&mut world, 13, &new, None), None);
    assert_eq!(world.state.upgrades().program([1; 32]), None);
}

#[test]
fn a_successor_says_what_it_runs_whatever_the_one_before_ran() {
    let mut world = World::open();
    let program = program("0.1.0", 1);
    must_run(&mut world, 1, &program, None);
    take_over(&mut world, 2);
    let due = world.state.upgrade_due(&program).unwrap();
    assert_eq!((&due.from, due.fold), (&None, 1));
    world.must(Entry::Upgrade(due));
    assert_eq!(world.state.upgrades().program(keeper().instance), None);
}
