//! Under witnesses: keepers that decide beside one another.

use attestation::Sha256Digest;
use ledger::approvals::ApprovalAction;
use ledger::entry::{Entry, KeeperLeave, Proposal, ProposedLeave};
use ledger::genesis::AntiRollback;
use ledger::keepers::{AdmittedJoiner, JOIN_SECS_MAX, JoinError, KeeperMachine, leave_object};
use ledger::reseal::ResealError;
use ledger::state::FoldError;

use crate::keepers::{
    approved, entries, file, join, join_error, joiner, let_in, must_wait_as as must_wait, refused, retire, start,
    uncounted,
};
use crate::reseal;
use crate::support::evidence::Guest;
use crate::support::keys::Person;
use crate::support::policy_text;
use crate::support::world::{ALICE, BOB, CAROL, World, keeper};

/// A vault whose witnesses see to it that there is one log.
pub(crate) fn witnessed() -> World {
    World::counted_by(AntiRollback::Witnesses, |text| text + &policy_text::witnesses()).opened()
}

#[test]
fn under_witnesses_a_keeper_is_let_in_beside_the_others() {
    let mut world = witnessed();
    assert_eq!(refused(&mut world, &joiner(1)), JoinError::CounterUnexpected);
    let early = start(&world, 1, Some([1; 32]));
    assert_eq!(join_error(world.refusal(early)), JoinError::OtherKeeper);
    let object = let_in(&mut world, &uncounted(1));
    let keepers = world.vault().keepers();
    assert!(keepers.is_shared() && keepers.approved().is_none());
    assert_eq!(keepers.all().copied().collect::<Vec<_>>(), [KeeperMachine::from(&keeper()), joiner(1).machine]);
    assert_eq!(keepers.waiting(&uncounted(1)).unwrap().object(), object);
    // It is this one, as it was shown.
    let mut other = uncounted(1);
    other.hpke_key = Sha256Digest::of(b"other");
    assert!(keepers.waiting(&other).is_none());
    assert_eq!(refused(&mut world, &other), JoinError::KeeperAlready);
    // Nobody retires for it.
    let entry = Entry::KeeperRetire(retire(&world, &uncounted(1), object));
    assert_eq!(join_error(world.refusal(entry)), JoinError::NotApproved);

    // Each starts as often as it likes, under its own name: the founder has none.
    for (run, keeper) in [(1, None), (2, Some([1; 32])), (3, None), (4, Some([1; 32])), (5, Some([1; 32]))] {
        let entry = start(&world, run, keeper);
        world.must(entry);
    }
    for keeper in [keeper().instance, [2; 32]] {
        let entry = start(&world, 6, Some(keeper));
        assert_eq!(join_error(world.refusal(entry)), JoinError::OtherKeeper);
    }
    // Once it has started it has the keys, and gets them no more.
    assert!(world.vault().keepers().waiting(&uncounted(1)).is_none());
    assert!(world.vault().keepers().others()[0].has_started());
    let led = file(&world, entries(&world));
    assert_eq!(led.keepers(), world.vault().keepers().all().copied().collect::<Vec<_>>());
    assert_eq!(led.keeper_with(&joiner(1).machine.ak_name), &joiner(1).machine);
    assert_eq!(led.keeper_with(&joiner(70).machine.ak_name), &KeeperMachine::from(&keeper()));
}

#[test]
fn several_keepers_wait_beside_one_another_and_a_policy_does_not_send_them_away() {
    let mut world = witnessed();
    for number in 11..18 {
        let_in(&mut world, &uncounted(number));
    }
    assert_eq!(refused(&mut world, &uncounted(18)), JoinError::TooMany);
    world.must_change_policy(|text| text.replace("max_leases = 4", "max_leases = 5"));
    for number in 11..18 {
        let entry = start(&world, number, Some([number; 32]));
        world.must(entry);
    }
}

#[test]
fn keys_go_to_a_keeper_that_was_let_in_beside_others_in_time_and_until_it_starts() {
    let mut world = witnessed();
    let mut newcomer = Guest::of(&world);
    newcomer.tpm.pcrs[11] = [0x22; 32];
    let admit = |world: &World| {
        let verified = newcomer.join_uncounted(newcomer.join_challenge(world));
        AdmittedJoiner::admit(world.vault(), verified, Sha256Digest::of(b"evidence"), world.now)
    };
    let admitted = admit(&world).ok().unwrap();
    assert_eq!(admitted.let_in(world.vault(), world.now).err(), Some(JoinError::NotApproved));
    let (entry, object) = approved(&mut world, admitted.joiner());
    let index = world.state.size();
    let effect = join(&world, (entry, object));
    world.must(effect);
    let admitted = admit(&world).ok().unwrap();
    let let_in = admitted.let_in(world.vault(), world.now).ok().unwrap();
    assert_eq!((let_in.object(), let_in.entry(), let_in.instance()), (object, index, [9; 32]));
    let not_after = world.now.plus(JOIN_SECS_MAX);
    assert!(admitted.let_in(world.vault(), not_after).is_ok());
    let late = admitted.let_in(world.vault(), not_after.plus(1)).err();
    assert_eq!(late, Some(JoinError::ApprovalOver { not_after }));
    let entry = start(&world, 1, Some([9; 32]));
    world.must(entry);
    assert_eq!(admitted.let_in(world.vault(), world.now).err(), Some(JoinError::NotApproved));
    assert_eq!(admit(&world).err(), Some(JoinError::KeeperAlready));
}

#[test]
fn a_reseal_is_for_a_keeper_that_decides_alone() {
    let mut world = witnessed();
    let waiting = reseal::propose(&world, &reseal::present());
    world.must(waiting);
    let_in(&mut world, &uncounted(1));
    assert_eq!(world.vault().pending(world.now).count(), 0);
    let entry = reseal::propose(&world, &reseal::present());
    assert_eq!(world.refusal(entry), FoldError::Reseal(ResealError::Shared));
}

fn leaving(world: &World, revision: u64, instance: [u8; 32]) -> ProposedLeave {
    let unsigned = ProposedLeave::new(world.vault().id(), revision, instance, String::new(), String::new());
    let statement = world.statement(ApprovalAction::ProposeKeeperLeave, unsigned.object);
    let statement = String::from_utf8(statement.encode()).unwrap();
    let signature = Person::new(ALICE).sign(statement.as_bytes());
    ProposedLeave { statement, signature, ..unsigned }
}

fn propose_leave(world: &World, instance: [u8; 32]) -> Entry {
    let revision = world.vault().keepers().revision();
    world.propose(Proposal::KeeperLeave(leaving(world, revision, instance)))
}

/// Proposed and approved; the effect.
pub(crate) fn may_leave(world: &mut World, instance: [u8; 32]) -> KeeperLeave {
    let proposal = world.state.size();
    let entry = propose_leave(world, instance);
    world.must(entry);
    let object = leaving(world, world.vault().keepers().revision(), instance).object;
    for person in [BOB, CAROL] {
        let entry = world.approve(person, ApprovalAction::KeeperLeave, object);
        world.must(entry);
    }
    KeeperLeave { time: world.now, proposal, object, instance }
}

/// A witnessed vault with two keepers, both of which have started.
pub(crate) fn two() -> World {
    let mut world = witnessed();
    let_in(&mut world, &uncounted(1));
    let entry = start(&world, 1, Some([1; 32]));
    world.must(entry);
    world
}

/// Leaves by approvals.
pub(crate) fn must_leave(world: &mut World, instance: [u8; 32]) {
    let effect = may_leave(world, instance);
    world.must(Entry::KeeperLeave(effect));
}

/// One keeper left, one decides beside the founder, and of each kind of change of keepers one waits.
pub(crate) fn every_kind() -> World {
    let mut world = two();
    let effect = may_leave(&mut world, [1; 32]);
    world.must(Entry::KeeperLeave(effect));
    let_in(&mut world, &uncounted(2));
    let entry = start(&world, 2, Some([2; 32]));
    world.must(entry);
    let_in(&mut world, &uncounted(3));
    must_wait(&mut world, &uncounted(4));
    let entry = propose_leave(&world, [2; 32]);
    world.must(entry);
    world
}

#[test]
fn a_keeper_leaves_by_approval_and_the_other_goes_on() {
    for (goes, stays) in [([1; 32], None), (keeper().instance, Some([1; 32]))] {
        let mut world = two();
        let effect = may_leave(&mut world, goes);
        assert_eq!(world.vault().due(world.now).unwrap().object(), effect.object);
        world.must(Entry::KeeperLeave(effect));
        let keepers = world.vault().keepers();
        assert!(keepers.has_left(goes) && keepers.is_shared());
        assert_eq!(keepers.all().count(), 1);
        assert_eq!(keepers.current().instance, stays.unwrap_or(keeper().instance));
        let of_goes = (goes != keeper().instance).then_some(goes);
        let entry = start(&world, 2, of_goes);
        assert_eq!(join_error(world.refusal(entry)), JoinError::OtherKeeper);
        let entry = start(&world, 2, stays);
        world.must(entry);
        let led = file(&world, entries(&world));
        assert_eq!(led.keepers(), world.vault().keepers().all().copied().collect::<Vec<_>>());
        // It does not come back as it was.
        let mut again = uncounted(3);
        again.machine.instance = goes;
        assert_eq!(refused(&mut world, &again), JoinError::KeeperAlready);
        // Two keepers are upgraded in turn.
        let_in(&mut world, &uncounted(2));
        let entry = start(&world, 3, Some([2; 32]));
        world.must(entry);
    }
}

#[test]
fn nobody_leaves_where_the_keys_would_go_with_him() {
    let mut world = World::open();
    let alone = propose_leave(&world, keeper().instance);
    assert_eq!(join_error(world.refusal(alone)), JoinError::LastKeeper);
    let mut world = witnessed();
    let_in(&mut world, &uncounted(1));
    // It was let in, and nothing shows that it has the keys.
    let early = propose_leave(&world, keeper().instance);
    assert_eq!(join_error(world.refusal(early)), JoinError::LastKeeper);
    let stranger = propose_leave(&world, [77; 32]);
    assert_eq!(join_error(world.refusal(stranger)), JoinError::Unknown);
    // One that never came can be sent away.
    let effect = may_leave(&mut world, [1; 32]);
    world.must(Entry::KeeperLeave(effect));
    let last = propose_leave(&world, keeper().instance);
    assert_eq!(join_error(world.refusal(last)), JoinError::LastKeeper);
}

#[test]
fn an_approval_that_a_keeper_leaves_is_for_that_keeper_among_these() {
    let mut world = two();
    let revision = world.vault().keepers().revision();
    let old = leaving(&world, revision - 1, [1; 32]);
    let entry = world.propose(Proposal::KeeperLeave(old));
    assert_eq!(join_error(world.refusal(entry)), JoinError::Revision { expected: revision });
    let mut other = leaving(&world, revision, [1; 32]);
    other.instance = keeper().instance;
    let entry = world.propose(Proposal::KeeperLeave(other));
    assert_eq!(world.refusal(entry), FoldError::ObjectMismatch);
    // Signed as an approval, or for another object, it is no proposal.
    let mut unsigned = leaving(&world, revision, [1; 32]);
    let statement = world.statement(ApprovalAction::KeeperLeave, unsigned.object);
    unsigned.statement = String::from_utf8(statement.encode()).unwrap();
    unsigned.signature = Person::new(ALICE).sign(unsigned.statement.as_bytes());
    let entry = world.propose(Proposal::KeeperLeave(unsigned));
    assert!(matches!(world.refusal(entry), FoldError::Approval(_) | FoldError::ActionMismatch));

    // Two wait, one takes effect: the other was approved in view of a keeper that is no more.
    let first = may_leave(&mut world, [1; 32]);
    let second = may_leave(&mut world, keeper().instance);
    let entry = Entry::KeeperLeave(KeeperLeave { instance: [1; 32], ..second.clone() });
    assert_eq!(world.refusal(entry), FoldError::ObjectMismatch);
    world.must(Entry::KeeperLeave(first));
    assert!(matches!(world.refusal(Entry::KeeperLeave(second)), FoldError::ProposalUnknown));
    // And a new keeper makes those of before worth nothing.
    let mut world = two();
    let leave = may_leave(&mut world, [1; 32]);
    let_in(&mut world, &uncounted(2));
    assert!(matches!(world.refusal(Entry::KeeperLeave(leave)), FoldError::ProposalUnknown));
}

#[test]
fn the_object_of_a_leave_is_that_of_the_format() {
    let object = leave_object(Sha256Digest::of(b"vault"), 3, [0x41; 32]);
    assert_eq!(object.to_string(), "sha256:3caab0d3e786a3ead3aca3eadd904343e7f4f8ce7e28e65f9c47335b8ae0d36c");
}
