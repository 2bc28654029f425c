//! Custodians of the vault's keys, and a keeper in the place of a lost one.

use attestation::Sha256Digest;
use ledger::approvals::ApprovalAction;
use ledger::entry::{
    Approve, Entry, EscrowInForce, GenesisWitness, Proposal, ProposedEscrow, ProposedRecovery, RecoverInForce,
};
use ledger::escrow::{
    CUSTODIANS_MAX, Custodian, EscrowError, EscrowPlan, LogPoint, Recovery, RecoveryMode, Rollback, ShareDigests,
    ShareFile, ShareFileError, ShareId, recovery_plan,
};
use ledger::genesis::AntiRollback;
use ledger::keeper_evidence::{KeeperRun, RecoveringError, RecoveryClaims};
use ledger::keepers::{JOIN_SECS_MAX, JoinError, Joiner};
use ledger::state::{FoldError, Succession};
use ledger::vault_file::VaultFile;

use crate::keepers::{self, join_error, joiner, start};
use crate::support::evidence::{Guest, hpke_key};
use crate::support::keys::Person;
use crate::support::world::{ALICE, BOB, CAROL, World, keeper};

const RECORD: Sha256Digest = Sha256Digest::from_bytes([0x5e; 32]);

fn custodian(id: &str) -> Custodian {
    Custodian { id: id.parse().unwrap(), key: Sha256Digest::of(id.as_bytes()) }
}

/// Two of three.
fn plan(world: &World) -> EscrowPlan {
    world.vault().next_escrow(2, vec![custodian("notary"), custodian("safe"), custodian("sister-company")])
}

fn propose(world: &World, plan: &EscrowPlan) -> Entry {
    let object = plan.object(world.vault().id());
    let statement = world.statement(ApprovalAction::ProposeEscrow, object);
    let statement = String::from_utf8(statement.encode()).unwrap();
    let signature = Person::new(ALICE).sign(statement.as_bytes());
    world.propose(Proposal::Escrow(ProposedEscrow::new(plan, world.vault().id(), statement, signature)))
}

/// Proposed, approved by two; index of the proposal.
fn approved(world: &mut World, plan: &EscrowPlan) -> u64 {
    let index = world.state.size();
    let entry = propose(world, plan);
    world.must(entry);
    for person in [BOB, CAROL] {
        let entry = world.approve(person, ApprovalAction::Escrow, plan.object(world.vault().id()));
        world.must(entry);
    }
    index
}

fn in_force(world: &World, proposal: u64, plan: &EscrowPlan) -> EscrowInForce {
    let digest = |index: usize| Sha256Digest::of(&[u8::try_from(index).unwrap()]);
    let share = |index| ShareDigests { sealed: digest(index), check: digest(100 + index) };
    let shares = (0..plan.custodians.len()).map(share).collect();
    EscrowInForce { time: world.now, proposal, object: plan.object(world.vault().id()), record: RECORD, shares }
}

/// Has the keys split.
fn split(world: &mut World) -> EscrowPlan {
    let plan = plan(world);
    let proposal = approved(world, &plan);
    let entry = in_force(world, proposal, &plan);
    world.must(Entry::Escrow(entry));
    plan
}

/// Has others wait for approvals.
pub(crate) fn must_wait(world: &mut World) {
    let next = plan(world);
    let entry = propose(world, &next);
    world.must(entry);
}

fn recovery(world: &World, number: u8) -> Recovery {
    let root = Sha256Digest::from_bytes(world.tree.root(world.tree.len()).unwrap());
    let set = world.vault().escrow_in_force().unwrap().set(world.vault().id());
    Recovery {
        joiner: joiner(number),
        from: LogPoint { size: world.state.size(), root },
        set,
        rollback: Rollback::Accepted,
    }
}

fn proposed(world: &World, recovery: &Recovery) -> ProposedRecovery {
    ProposedRecovery::new(recovery, world.vault().id(), world.now.plus(JOIN_SECS_MAX))
}

fn propose_recovery(world: &World, recovery: &Recovery) -> Entry {
    world.propose(Proposal::Recover(proposed(world, recovery)))
}

/// An approval with evidence that its approver saw.
fn approve_recovery(world: &World, person: u8, object: Sha256Digest, evidence: u8) -> Entry {
    let witness = GenesisWitness { evidence: Sha256Digest::of(&[evidence]), binding: Sha256Digest::of(b"binding") };
    world.signed(person, world.statement(ApprovalAction::Recover, object), Some(witness))
}

/// Proposed and approved by two; index and object of the proposal.
fn approved_recovery(world: &mut World, recovery: &Recovery) -> (u64, Sha256Digest) {
    let (index, object) = (world.state.size(), proposed(world, recovery).object);
    let entry = propose_recovery(world, recovery);
    world.must(entry);
    for person in [ALICE, BOB] {
        let entry = approve_recovery(world, person, object, person);
        world.must(entry);
    }
    (index, object)
}

fn recovered(world: &World, (proposal, object): (u64, Sha256Digest)) -> RecoverInForce {
    let lost = world.vault().keepers().current().instance;
    RecoverInForce { time: world.now, proposal, object, lost, rollback: Rollback::Accepted }
}

/// Has keeper number 5 take the place of the one that is lost, by a run of this number.
pub(crate) fn recover(world: &mut World, run: u8) {
    split(world);
    let recovery = recovery(world, 5);
    let of = approved_recovery(world, &recovery);
    let entry = recovered(world, of);
    world.must(Entry::Recover(entry));
    let entry = start(world, run, Some([5; 32]));
    world.must(entry);
}

#[track_caller]
fn escrow_error(error: FoldError) -> EscrowError {
    match error {
        FoldError::Escrow(error) => error,
        other => panic!("{other}"),
    }
}

#[test]
fn the_keys_are_split_once_enough_approvers_say_so() {
    let mut world = World::open();
    assert_eq!(world.vault().escrow_in_force().err(), Some(EscrowError::NoEscrow));
    let plan = plan(&world);
    let (index, object) = (world.state.size(), plan.object(world.vault().id()));
    let entry = propose(&world, &plan);
    world.must(entry);
    // `proposer_may_approve` is false.
    let own = world.approve(ALICE, ApprovalAction::Escrow, object);
    assert_eq!(world.refusal(own).code(), "proposer-may-not-approve");
    for (person, given) in [(BOB, 0), (CAROL, 1)] {
        let early = Entry::Escrow(in_force(&world, index, &plan));
        assert_eq!(world.refusal(early), FoldError::ThresholdNotReached { given, threshold: 2 });
        let entry = world.approve(person, ApprovalAction::Escrow, object);
        world.must(entry);
    }
    assert_eq!(world.vault().due(world.now).unwrap().object(), object);
    let entry = in_force(&world, index, &plan);
    world.must(Entry::Escrow(entry.clone()));
    assert!(world.vault().is_recoverable());
    let escrow = world.vault().escrow_in_force().unwrap();
    assert_eq!((escrow.plan(), escrow.record(), escrow.object()), (&plan, RECORD, object));
    let shares: Vec<(ShareId, ShareDigests)> = escrow.shares(world.vault().id()).collect();
    let named: Vec<(u32, &str)> = shares.iter().map(|(id, _)| (id.index, id.custodian.as_str())).collect();
    assert_eq!(named, [(1, "notary"), (2, "safe"), (3, "sister-company")]);
    assert_eq!(shares[1].1, entry.shares[1]);

    // The next one has the next number, and takes its place.
    let again = propose(&world, &plan);
    assert_eq!(escrow_error(world.refusal(again)), EscrowError::Number { expected: 2 });
    split(&mut world);
    assert_eq!(world.vault().escrow_in_force().unwrap().plan().number, 2);
}

#[test]
fn approvals_of_an_escrow_count_for_those_custodians_alone() {
    let changes: [fn(&mut EscrowPlan); 6] = [
        |plan| plan.number += 1,
        |plan| plan.epoch += 1,
        |plan| plan.threshold = 3,
        |plan| plan.custodians[0].id = "somebody".parse().unwrap(),
        |plan| plan.custodians[0].key = Sha256Digest::of(b"somebody"),
        |plan| plan.custodians.swap(0, 1),
    ];
    for change in changes {
        let mut world = World::open();
        let good = plan(&world);
        let mut other = good.clone();
        change(&mut other);
        let vault = world.vault().id();
        assert_ne!(other.object(vault), good.object(vault));
        let Entry::Propose(propose) = propose(&world, &other) else { unreachable!("it is a proposal") };
        let Proposal::Escrow(mut swapped) = propose.proposal else { unreachable!("of an escrow") };
        swapped.object = good.object(vault);
        let entry = world.propose(Proposal::Escrow(swapped));
        assert_eq!(world.refusal(entry), FoldError::ObjectMismatch);
    }
    // Nor do they in another vault.
    let world = World::open();
    assert_ne!(plan(&world).object(world.vault().id()), plan(&world).object(RECORD));
    let mut world = World::open();
    let good = plan(&world);
    let object = good.object(world.vault().id());
    let entry = propose(&world, &good);
    world.must(entry);
    for action in [ApprovalAction::ProposeEscrow, ApprovalAction::Recover, ApprovalAction::KeeperJoin] {
        let wrong = world.approve(BOB, action, object);
        assert_eq!(world.refusal(wrong), FoldError::ActionMismatch);
    }
    let entry = approve_recovery(&world, BOB, object, 1);
    assert_eq!(world.refusal(entry), FoldError::ActionMismatch);
    let statement = world.statement(ApprovalAction::Escrow, object);
    let witness = GenesisWitness { evidence: RECORD, binding: RECORD };
    let entry = world.signed(BOB, statement, Some(witness));
    assert_eq!(world.refusal(entry), FoldError::WitnessUnexpected);
}

#[test]
fn an_escrow_that_no_plan_allows_is_refused() {
    let many = |count: usize| (0..count).map(|number| custodian(&format!("custodian-{number}"))).collect();
    let mut world = World::open();
    let mut refused = |change: &dyn Fn(&mut EscrowPlan)| {
        let mut plan = plan(&world);
        change(&mut plan);
        let entry = propose(&world, &plan);
        escrow_error(world.refusal(entry))
    };
    assert_eq!(refused(&|plan| plan.threshold = 0), EscrowError::Threshold);
    assert_eq!(refused(&|plan| plan.threshold = 1), EscrowError::Threshold);
    assert_eq!(refused(&|plan| plan.threshold = 4), EscrowError::Threshold);
    assert_eq!(refused(&|plan| plan.custodians = many(1)), EscrowError::Threshold);
    assert_eq!(refused(&|plan| plan.custodians = many(CUSTODIANS_MAX + 1)), EscrowError::TooManyCustodians);
    let repeated = EscrowError::CustodianRepeated { id: "sister-company".parse().unwrap() };
    assert_eq!(refused(&|plan| plan.custodians[2].key = plan.custodians[0].key), repeated);
    let repeated = EscrowError::CustodianRepeated { id: "notary".parse().unwrap() };
    assert_eq!(refused(&|plan| plan.custodians[1].id = "notary".parse().unwrap()), repeated);
    assert_eq!(refused(&|plan| plan.number = 2), EscrowError::Number { expected: 1 });
    assert_eq!(refused(&|plan| plan.epoch = 2), EscrowError::Epoch { present: 1 });
    let mut most = plan(&world);
    most.custodians = many(CUSTODIANS_MAX);
    let proposal = approved(&mut world, &most);
    // Fits an entry.
    let entry = in_force(&world, proposal, &most);
    world.must(Entry::Escrow(entry));
}

#[test]
fn the_entry_of_a_splitting_is_of_its_proposal_and_names_every_share() {
    let mut world = World::open();
    let plan = plan(&world);
    let proposal = approved(&mut world, &plan);
    let mut few = in_force(&world, proposal, &plan);
    few.shares.pop();
    assert_eq!(escrow_error(world.refusal(Entry::Escrow(few))), EscrowError::ShareCount);
    let other = EscrowInForce { object: RECORD, ..in_force(&world, proposal, &plan) };
    assert_eq!(world.refusal(Entry::Escrow(other)), FoldError::ObjectMismatch);
    let other = in_force(&world, proposal + 1, &plan);
    assert_eq!(world.refusal(Entry::Escrow(other)), FoldError::ProposalUnknown);
    let text = world.next_policy(|text| text.replace("max_leases = 4", "max_leases = 9"));
    let (policy, _) = world.must_propose_policy(&text);
    let other = in_force(&world, policy, &plan);
    assert_eq!(world.refusal(Entry::Escrow(other)), FoldError::ActionMismatch);
    // Under another policy others decide.
    world.must_change_policy(|text| text.replace("max_leases = 4", "max_leases = 5"));
    let late = in_force(&world, proposal, &plan);
    assert_eq!(world.refusal(Entry::Escrow(late)), FoldError::ProposalUnknown);
}

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
    assert_eq!(join_error(world.refusal(entry)), JoinError::NoCounter);
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

#[test]
fn a_share_file_is_of_one_share_and_has_one_form() {
    let world = World::open();
    let ids = ShareId::all(&plan(&world), world.vault().id(), RECORD);
    let file = ShareFile::new(ids[1].clone(), vec![7; 1713]).unwrap();
    let bytes = file.encode();
    assert_eq!(ShareFile::parse(&bytes), Ok(file.clone()));
    assert_eq!((file.digest(), file.sealed().0.len()), (Sha256Digest::of(&[7; 1713]), 1665));
    let text = String::from_utf8(bytes.clone()).unwrap();
    let code = |text: &str| ShareFile::parse(text.as_bytes()).err().map(|error| error.code());
    assert_eq!(code(&text.replace("\"v\":1", "\"v\":2")), Some("share-file-version-unknown"));
    assert_eq!(code(&text.replace("\"index\"", "\"index2\"")), Some("share-file-malformed"));
    assert_eq!(code(&(text.clone() + &" ".repeat(8 << 10))), Some("share-file-too-long"));
    let short = ShareFile::new(ids[1].clone(), vec![7; 1712]);
    assert_eq!(short, Err(ShareFileError::SealedLength { bytes: 1712 }));
    // What a share is bound to is all that says where it belongs.
    let changes: [fn(&mut ShareId); 7] = [
        |id| id.vault = RECORD,
        |id| id.epoch = 2,
        |id| id.number = 2,
        |id| id.threshold = 3,
        |id| id.index = 3,
        |id| id.custodian = "notary".parse().unwrap(),
        |id| id.set = RECORD,
    ];
    for change in changes {
        let mut other = ids[1].clone();
        change(&mut other);
        assert_ne!(other.info(), ids[1].info());
    }
    assert_ne!(ids[0].check(&[1; 32]), ids[1].check(&[1; 32]));
    assert_ne!(ids[0].check(&[1; 32]), ids[0].check(&[2; 32]));
    assert_ne!(ids[0].contribution_info(RECORD), ids[1].contribution_info(RECORD));
    assert_ne!(ids[0].contribution_info(RECORD), ids[0].contribution_info(world.vault().id()));
}

#[test]
fn the_bytes_of_the_entries_are_these() {
    let mut world = World::open();
    let vault = world.vault().id();
    let plan = plan(&world);
    let proposal = approved(&mut world, &plan);
    let propose = String::from_utf8(world.entries[usize::try_from(proposal).unwrap()].clone()).unwrap();
    let [notary, safe, sister] = ["notary", "safe", "sister-company"].map(|id| Sha256Digest::of(id.as_bytes()));
    let expected = format!(
        r#"{{"v":1,"type":"propose","time":{},"action":"escrow","object":"{}","number":1,"epoch":1,"threshold":2,"custodians":[{{"id":"notary","key":"{notary}"}},{{"id":"safe","key":"{safe}"}},{{"id":"sister-company","key":"{sister}"}}],"statement":"#,
        world.now.seconds(),
        plan.object(vault),
    );
    assert!(propose.starts_with(&expected), "{propose}");
    let effect = in_force(&world, proposal, &plan);
    let share = |share: &ShareDigests| format!(r#"{{"sealed":"{}","check":"{}"}}"#, share.sealed, share.check);
    let shares: Vec<String> = effect.shares.iter().map(share).collect();
    let expected = format!(
        r#"{{"v":1,"type":"escrow","time":{},"proposal":{proposal},"object":"{}","record":"{RECORD}","shares":[{}]}}"#,
        world.now.seconds(),
        plan.object(vault),
        shares.join(","),
    );
    assert_eq!(String::from_utf8(Entry::Escrow(effect.clone()).encode().unwrap()).unwrap(), expected);
    world.must(Entry::Escrow(effect));
    let recovery = recovery(&world, 5);
    let of = approved_recovery(&mut world, &recovery);
    let propose = String::from_utf8(world.entries[usize::try_from(of.0).unwrap()].clone()).unwrap();
    let expected = format!(
        r#"{{"v":1,"type":"propose","time":{},"action":"recover","object":"{}","size":{},"root":"{}","set":"{}","rollback":"accepted","instance":"BQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQU=","platform":"#,
        world.now.seconds(),
        of.1,
        recovery.from.size,
        recovery.from.root,
        recovery.set,
    );
    assert!(propose.starts_with(&expected), "{propose}");
    let expected = format!(
        r#"{{"v":1,"type":"recover","time":{},"proposal":{},"object":"{}","lost":"BwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwc=","rollback":"accepted"}}"#,
        world.now.seconds(),
        of.0,
        of.1,
    );
    let effect = recovered(&world, of);
    assert_eq!(String::from_utf8(Entry::Recover(effect).encode().unwrap()).unwrap(), expected);
    let Entry::Approve(Approve { witness, .. }) = Entry::parse(world.entries.last().unwrap()).unwrap() else {
        unreachable!("the last one approves")
    };
    assert!(witness.is_some());
}
