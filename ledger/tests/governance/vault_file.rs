//! A vault file that knows later policies than the first.

use ledger::approvals::ApprovalAction;
use ledger::entry::Proposal;
use ledger::state::{FoldError, IndexedEntry, Succession};
use ledger::vault_file::{VaultFile, VaultFileError};

use crate::support::world::{BOB, World};

/// Two policies later, with things in between that are about no policy in force.
fn world() -> World {
    let mut world = World::open();
    let text = world.next_policy(|text| text.replace("max_leases = 4", "max_leases = 9"));
    world.must_propose_policy(&text);
    world.must_change_policy(|text| text.replace("max_leases = 4", "max_leases = 5"));
    let mut world = world.published();
    world.must_release(1);
    world.must_change_policy(|text| text.replace("max_leases = 4", "max_leases = 6"));
    let text = world.next_policy(|text| text.replace("max_leases = 4", "max_leases = 7"));
    world.must_propose_policy(&text);
    world
}

fn entries(world: &World) -> Vec<IndexedEntry> {
    let mut succession = Succession::default();
    for (index, entry) in (0..).zip(&world.entries) {
        succession.see(index, entry).unwrap();
    }
    succession.into_entries()
}

fn first(world: &World) -> VaultFile {
    VaultFile::new(world.genesis.clone(), vec!["http://vault:7070".to_owned()]).unwrap()
}

#[track_caller]
fn refusal(world: &World, entries: Vec<IndexedEntry>) -> FoldError {
    match first(world).with_policies(entries).map(drop) {
        Err(VaultFileError::Policies(error)) => error,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_vault_file_with_later_policies_comes_back_with_the_last_of_them() {
    let world = world();
    let entries = entries(&world);
    assert_eq!(entries.len(), 8, "twice a proposal, two approvals and the effect");
    let file = first(&world).with_policies(entries).unwrap();
    let again = VaultFile::parse(&file.encode()).unwrap();
    for file in [&file, &again] {
        assert_eq!((file.policy().serial(), file.policy().digest()), (3, world.policy().digest()));
        assert_eq!(file.genesis().bytes(), world.genesis.bytes());
    }
    assert!(String::from_utf8(file.encode()).unwrap().starts_with("{\"v\":2,"));
    // Without them it is the file that it always was.
    let plain = first(&world);
    assert_eq!(plain.policy().serial(), 1);
    assert_eq!(plain.with_policies(Vec::new()).unwrap().encode(), first(&world).encode());
}

#[test]
fn policies_that_were_not_approved_one_after_another_are_refused() {
    let world = world();
    let good = entries(&world);
    let without = |index: usize| {
        let mut entries = good.clone();
        entries.remove(index);
        refusal(&world, entries)
    };
    assert_eq!(without(0), FoldError::ProposalUnknown);
    assert_eq!(without(1), FoldError::ThresholdNotReached { given: 1, threshold: 2 });
    assert_eq!(without(3).code(), "serial-mismatch", "a policy left out");
    let mut swapped = good.clone();
    swapped.swap(1, 2);
    assert_eq!(refusal(&world, swapped).code(), "index-mismatch");
    // Nothing but entries about policies is taken, and no approval of something that was not proposed.
    let other = World::open();
    let approval = other.approve(BOB, ApprovalAction::Policy, world.policy().digest());
    assert_eq!(refusal(&world, vec![(9, approval.encode().unwrap())]), FoldError::ProposalUnknown);
    let model = other.propose(Proposal::Model(other.proposed_model()));
    for entry in [other.start(1), model] {
        assert_eq!(refusal(&world, vec![(9, entry.encode().unwrap())]), FoldError::ActionMismatch);
    }
    let mut earlier = good;
    let text = String::from_utf8(earlier[1].1.clone()).unwrap();
    let time = format!("\"time\":{}", world.genesis.time().seconds());
    assert!(text.contains(&time));
    earlier[1].1 = text.replacen(&time, "\"time\":7", 1).into_bytes();
    assert_eq!(refusal(&world, earlier).code(), "time-went-back");
}

#[test]
fn a_version_says_whether_there_are_later_policies() {
    let world = world();
    let text = String::from_utf8(first(&world).with_policies(entries(&world)).unwrap().encode()).unwrap();
    let parse = |text: &str| VaultFile::parse(text.as_bytes()).map(drop);
    assert_eq!(parse(&text.replacen("\"v\":2", "\"v\":1", 1)), Err(VaultFileError::PoliciesMisplaced));
    let plain = String::from_utf8(first(&world).encode()).unwrap();
    assert_eq!(parse(&plain.replacen("\"v\":1", "\"v\":2", 1)), Err(VaultFileError::PoliciesMisplaced));
    let empty = plain.replacen("\"v\":1", "\"v\":2", 1).replace("]}", "],\"policies\":[]}");
    assert_eq!(parse(&empty), Err(VaultFileError::PoliciesMisplaced));
    assert_eq!(parse(&plain.replacen("\"v\":1", "\"v\":3", 1)), Err(VaultFileError::UnknownVersion { found: 3 }));
}
