//! A keeper in the place of a lost one.

use ledger::approvals::ApprovalAction;
use ledger::entry::{Entry, Proposal, RecoverInForce};
use ledger::escrow::{EscrowError, LogPoint, Recovery, RecoveryMode, Rollback, recovery_plan};
use ledger::genesis::AntiRollback;
use ledger::keeper_evidence::{KeeperRun, RecoveringError, RecoveryClaims};
use ledger::keepers::{JOIN_SECS_MAX, JoinError, Joiner};
use ledger::state::{FoldError, Succession};
use ledger::vault_file::VaultFile;

use crate::escrow::{
    RECORD, approve_recovery, approved_recovery, escrow_error, plan, propose, propose_recovery, proposed, recover,
    recovered, recovery, split,
};
use crate::keepers::{self, join_error, joiner, start};
use crate::support::evidence::{Guest, hpke_key};
use crate::support::world::{ALICE, CAROL, World, keeper};

#[test]
fn a_keeper_with_the_keys_of_custodians_takes_the_place_of_one_that_is_lost() {
    let mut world = World::with_model();
    let lease = world.must_release(1);
    split(&mut world);
    let founder = keeper().instance;
    let recovery = recovery(&world, 5);
    let (index, object) = (world.state.size(), proposed(&world, &recovery).object);
    let entry = propose_recovery(&world, &recovery);
    world.must(entry);
    for (person, given) in [(ALICE, 0), (CAROL, 1)] {
        let early = Entry::Recover(recovered(&world, (index, object)));
        assert_eq!(world.refusal(early), FoldError::ThresholdNotReached { given, threshold: 2 });
        // Each approver has seen the machine himself.
        let blind = world.approve(person, ApprovalAction::Recover, object);
        assert_eq!(world.refusal(blind), FoldError::WitnessMissing);
        if given == 1 {
            let same = approve_recovery(&world, person, object, ALICE);
            assert_eq!(world.refusal(same), FoldError::WitnessRepeated);
        }
        let entry = approve_recovery(&world, person, object, person);
        world.must(entry);
    }
    let entry = recovered(&world, (index, object));
    world.must(Entry::Recover(entry.clone()));
    // Nothing follows but the start of that keeper: the lost one can't go on.
    assert_eq!(join_error(world.refusal(Entry::Recover(entry))), JoinError::Retired);
    for keeper in [None, Some(founder), Some([9; 32])] {
        let other = start(&world, 7, keeper);
        assert_eq!(join_error(world.refusal(other)), JoinError::Retired);
    }
    let entry = start(&world, 7, Some([5; 32]));
    world.must(entry);
    for keeper in [None, Some(founder)] {
        let other = start(&world, 8, keeper);
        assert_eq!(join_error(world.refusal(other)), JoinError::OtherKeeper);
    }
    let vault = world.vault();
    assert_eq!(vault.keepers().current(), &joiner(5).machine);
    let lost = &vault.escrows().recovered()[0];
    assert_eq!((lost.lost(), lost.from(), lost.rollback()), (&founder, recovery.from, Rollback::Accepted));
    // Leases go on, models are there, and the custodians still hold the keys.
    assert!(vault.lease(lease).is_some() && vault.models().count() == 1 && vault.escrow_in_force().is_ok());
}

#[test]
fn an_approval_of_a_recovery_counts_for_that_machine_log_and_set_alone() {
    let changes: [fn(&mut Recovery); 9] = [
        |recovery| recovery.joiner.machine.instance = [9; 32],
        |recovery| recovery.joiner.machine.platform = RECORD,
        |recovery| recovery.joiner.machine.ak_name = joiner(9).machine.ak_name,
        |recovery| recovery.joiner.hpke_key = RECORD,
        |recovery| recovery.joiner.counter += 1,
        |recovery| recovery.joiner.counter_name[33] ^= 1,
        |recovery| recovery.from.size += 1,
        |recovery| recovery.from.root = RECORD,
        |recovery| recovery.set = RECORD,
    ];
    for change in changes {
        let mut world = World::open();
        split(&mut world);
        let good = recovery(&world, 5);
        let mut other = good.clone();
        change(&mut other);
        let mut swapped = proposed(&world, &other);
        assert_ne!(swapped.object, proposed(&world, &good).object);
        swapped.object = proposed(&world, &good).object;
        let entry = world.propose(Proposal::Recover(swapped));
        assert_eq!(world.refusal(entry), FoldError::ObjectMismatch);
    }
    // A drill is another thing, and so is the joining of the same keeper.
    let mut world = World::open();
    split(&mut world);
    let (vault, recovery) = (world.vault().id(), recovery(&world, 5));
    let object = recovery.object(vault, RecoveryMode::Recover);
    assert_ne!(object, recovery.object(vault, RecoveryMode::Drill));
    assert_ne!(object, recovery.object(RECORD, RecoveryMode::Recover));
    assert_ne!(object, recovery.joiner.object(vault, recovery.from.size));
}

#[test]
fn a_recovery_is_of_the_present_log_escrow_and_a_keeper_that_the_policy_allows() {
    let mut world = World::open();
    let nothing = Recovery {
        joiner: joiner(5),
        from: LogPoint { size: world.state.size(), root: RECORD },
        set: RECORD,
        rollback: Rollback::Accepted,
    };
    let entry = propose_recovery(&world, &nothing);
    assert_eq!(escrow_error(world.refusal(entry)), EscrowError::NoEscrow);
    split(&mut world);
    let first = recovery(&world, 5);
    split(&mut world);
    let refused = |world: &mut World, recovery: &Recovery| {
        let entry = propose_recovery(world, recovery);
        world.refusal(entry)
    };
    // Shares of an escrow that another one took the place of.
    let old = Recovery { set: first.set, ..recovery(&world, 5) };
    assert_eq!(escrow_error(refused(&mut world, &old)), EscrowError::OtherSet);
    let good = recovery(&world, 5);
    let size = world.state.size();
    for other in [size - 1, size + 1] {
        let other = Recovery { from: LogPoint { size: other, ..good.from }, ..good.clone() };
        assert_eq!(escrow_error(refused(&mut world, &other)), EscrowError::OtherLog { size });
    }
    let with = |change: fn(&mut Joiner)| {
        let mut other = good.clone();
        change(&mut other.joiner);
        other
    };
    let other = refused(&mut world, &with(|joiner| joiner.pcrs = [(0, [0x11; 32]), (11, [0x2f; 32])].into()));
    assert_eq!(other.code(), "join-pcrs-not-allowed");
    let other = refused(&mut world, &with(|joiner| joiner.measurement = Some([1; 48])));
    assert_eq!(join_error(other), JoinError::OtherForm);
    // The one that is lost does not come back by this.
    let other = refused(&mut world, &with(|joiner| joiner.machine.instance = keeper().instance));
    assert_eq!(join_error(other), JoinError::KeeperAlready);
    let mut long = proposed(&world, &good);
    long.not_after = world.now.plus(JOIN_SECS_MAX + 1);
    let entry = world.propose(Proposal::Recover(long));
    assert_eq!(escrow_error(world.refusal(entry)), EscrowError::TooLong);
}

#[test]
fn the_entry_of_a_recovery_says_what_was_approved() {
    let mut world = World::open();
    split(&mut world);
    let good = recovery(&world, 5);
    let of = approved_recovery(&mut world, &good);
    let other = RecoverInForce { lost: [9; 32], ..recovered(&world, of) };
    assert_eq!(escrow_error(world.refusal(Entry::Recover(other))), EscrowError::OtherKeeper);
    let other = RecoverInForce { object: RECORD, ..recovered(&world, of) };
    assert_eq!(world.refusal(Entry::Recover(other)), FoldError::ObjectMismatch);
    let other = recovered(&world, (of.0 + 1, of.1));
    assert_eq!(world.refusal(Entry::Recover(other)), FoldError::ProposalUnknown);
    let not_after = world.now.plus(JOIN_SECS_MAX);
    world.pass(JOIN_SECS_MAX + 1);
    let late = recovered(&world, of);
    assert_eq!(world.refusal(Entry::Recover(late)), FoldError::ProposalExpired { not_after });
}

/// A vault whose policy ran out while it had no keeper is not lost by that: it gets its keeper, and then another policy.
#[test]
fn a_policy_past_its_end_does_not_keep_a_vault_from_its_keeper() {
    let mut world = World::open();
    split(&mut world);
    world.now = world.policy().not_after().plus(1);
    let refused = propose(&world, &plan(&world));
    assert_eq!(world.refusal(refused).code(), "policy-expired");
    let good = recovery(&world, 5);
    let of = approved_recovery(&mut world, &good);
    assert_eq!(world.vault().due(world.now).unwrap().object(), of.1);
    let entry = recovered(&world, of);
    world.must(Entry::Recover(entry));
}

#[test]
fn a_vault_without_a_counter_is_not_recovered() {
    let mut world = World::counted_by(AntiRollback::None, |text| text).opened();
    split(&mut world);
    assert!(!world.vault().is_recoverable());
    let good = recovery(&world, 5);
    let entry = propose_recovery(&world, &good);
    assert_eq!(world.refusal(entry).code(), "recover-no-counter");
}

#[test]
fn a_vault_file_leads_to_the_keeper_that_recovered() {
    let mut world = World::open();
    split(&mut world);
    // Without a lost keeper nobody needs to know of custodians.
    assert!(keepers::entries(&world).is_empty());
    recover(&mut world, 1);
    world.must_change_policy(|text| text.replace("max_leases = 4", "max_leases = 5"));
    let entries = keepers::entries(&world);
    let file = keepers::first(&world).with_policies(entries.clone()).unwrap();
    let again = VaultFile::parse(&file.encode()).unwrap();
    assert_eq!((again.keeper(), again.policy().digest()), (&joiner(5).machine, world.policy().digest()));
    for without in 0..entries.len() {
        let mut fewer = entries.clone();
        fewer.remove(without);
        let led = keepers::first(&world).with_policies(fewer).map(|file| (*file.keeper(), file.policy().digest()));
        assert_ne!(led, Ok((joiner(5).machine, world.policy().digest())), "without {without}");
    }
    let mut succession = Succession::default();
    assert_eq!(succession.see(0, b"{}").map_err(|error| error.code()), Err("entry-malformed"));
}

#[test]
fn a_recovering_keeper_shows_itself_for_what_it_is_about_to_do() {
    let mut world = World::open();
    split(&mut world);
    let mut machine = Guest::of(&world);
    machine.tpm.pcrs[11] = [0x22; 32];
    let keys = attestation::JoinerKeys { instance: [9; 32], hpke_key: hpke_key(), counter_name: [4; 34], counter: 40 };
    let Recovery { from, set, rollback, .. } = recovery(&world, 5);
    let policy = world.policy().digest();
    let claims = RecoveryClaims { mode: RecoveryMode::Recover, keys, policy, from, set, rollback };
    let ask = |world: &World, stated: &RecoveryClaims, shown: &RecoveryClaims, machine: &Guest| {
        let rng = ring::rand::SystemRandom::new();
        let run = KeeperRun::replay(world.policy(), &machine.identity, world.now, [2; 32], [5; 32], &rng).unwrap();
        let plan = recovery_plan(shown.mode, shown.from, shown.set, shown.rollback);
        let evidence = machine.recovering(world, plan, shown.keys.clone());
        let seen = run.verify_recovering(&world.genesis, stated.clone(), evidence)?;
        seen.check(world.vault(), world.state.size())?;
        Ok::<_, RecoveringError>(seen)
    };
    let seen = ask(&world, &claims, &claims, &machine).ok().unwrap();
    assert_eq!((seen.mode(), seen.recovery().from, seen.recovery().joiner.counter), (RecoveryMode::Recover, from, 40));
    assert_eq!((seen.nonce(), seen.activation_secret()), (&[2; 32], &[5; 32]));
    assert_eq!(seen.object(), seen.recovery().object(world.vault().id(), RecoveryMode::Recover));

    // Whatever it shows, it shows for that alone.
    let changes: [fn(&mut RecoveryClaims); 8] = [
        |claims| claims.policy = RECORD,
        |claims| claims.mode = RecoveryMode::Drill,
        |claims| claims.from.root = RECORD,
        |claims| claims.from.size -= 1,
        |claims| claims.set = RECORD,
        |claims| claims.keys.instance = [8; 32],
        |claims| claims.keys.counter += 1,
        |claims| claims.keys.counter_name = [5; 34],
    ];
    for change in changes {
        let mut other = claims.clone();
        change(&mut other);
        let refused = ask(&world, &other, &claims, &machine).err().unwrap();
        assert_eq!(refused.code(), "binding-mismatch");
    }
    // A log and a set that are not the vault's are refused, however well it shows that it means them.
    let other = RecoveryClaims { set: RECORD, ..claims.clone() };
    let refused = ask(&world, &other, &other, &machine).err().unwrap();
    assert_eq!(refused, RecoveringError::Fold(Box::new(FoldError::Escrow(EscrowError::OtherSet))));
    // A guest is no keeper.
    let refused = ask(&world, &claims, &claims, &Guest::of(&world)).err().unwrap();
    assert_eq!(refused.code(), "keeper-pcr-mismatch");
    let elsewhere = World::with_policy(|text| text.replace("max_leases = 4", "max_leases = 5")).opened();
    let refused = seen.check(elsewhere.vault(), elsewhere.state.size()).err();
    assert_eq!(refused, Some(RecoveringError::Fold(Box::new(FoldError::Join(JoinError::OtherVault)))));
    world.must_change_policy(|text| text.replace("max_leases = 4", "max_leases = 5"));
    let refused = seen.check(world.vault(), world.state.size()).err();
    assert_eq!(refused, Some(RecoveringError::Fold(Box::new(FoldError::Join(JoinError::PolicyChanged)))));
}
