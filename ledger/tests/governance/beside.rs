//! Under witnesses: keepers that decide beside one another.

use attestation::Sha256Digest;
use ledger::entry::Entry;
use ledger::genesis::AntiRollback;
use ledger::keepers::{AdmittedJoiner, JOIN_SECS_MAX, JoinError, KeeperMachine};
use ledger::reseal::ResealError;
use ledger::state::FoldError;

use crate::keepers::{approved, entries, file, join, join_error, joiner, let_in, refused, retire, start, uncounted};
use crate::reseal;
use crate::support::evidence::Guest;
use crate::support::policy_text;
use crate::support::world::{World, keeper};

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
