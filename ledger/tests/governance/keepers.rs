//! Keepers that follow one another: proposed by their evidence, let in, named by the last entry of the one before.

use attestation::{AkName, Sha256Digest};
use ledger::approvals::ApprovalAction;
use ledger::entry::{Entry, KeeperJoin, KeeperRetire, Proposal, ProposedJoin, Start};
use ledger::genesis::AntiRollback;
use ledger::keepers::{AdmittedJoiner, JOIN_SECS_MAX, JoinError, Joiner, KeeperMachine, NO_COUNTER};
use ledger::release_log::Loggable;
use ledger::state::{FoldError, IndexedEntry, Succession};
use ledger::vault_file::VaultFile;

use crate::support::evidence::Guest;
use crate::support::policy_text;
use crate::support::world::{ALICE, BOB, CAROL, World, keeper};

const EVIDENCE: (Sha256Digest, Sha256Digest) = (Sha256Digest::from_bytes([7; 32]), Sha256Digest::from_bytes([8; 32]));

/// A keeper of the policy's image on a machine of its own.
pub(crate) fn joiner(number: u8) -> Joiner {
    let mut ak_name = [number; 34];
    ak_name[..2].copy_from_slice(&[0, 0x0b]);
    Joiner {
        machine: KeeperMachine {
            instance: [number; 32],
            platform: Sha256Digest::from_bytes([number; 32]),
            ak_name: AkName::try_from(ak_name.as_slice()).unwrap(),
        },
        hpke_key: Sha256Digest::of(&[number]),
        counter_name: ak_name,
        counter: 40,
        pcrs: [(0, [0x11; 32]), (11, [0x22; 32])].into(),
        measurement: None,
    }
}

/// The same for a vault that does not count.
pub(crate) fn uncounted(number: u8) -> Joiner {
    Joiner { counter_name: NO_COUNTER, counter: 0, ..joiner(number) }
}

fn proposed(world: &World, joiner: &Joiner) -> ProposedJoin {
    let vault = world.vault();
    let not_after = world.now.plus(JOIN_SECS_MAX);
    ProposedJoin::new(joiner, vault.id(), vault.keepers().revision(), EVIDENCE, not_after)
}

pub(crate) fn propose(world: &World, joiner: &Joiner) -> Entry {
    world.propose(Proposal::KeeperJoin(proposed(world, joiner)))
}

/// Proposed, approved by two; index and object of the proposal.
pub(crate) fn approved(world: &mut World, joiner: &Joiner) -> (u64, Sha256Digest) {
    let (index, object) = (world.state.size(), proposed(world, joiner).object);
    let entry = propose(world, joiner);
    world.must(entry);
    for person in [ALICE, BOB] {
        let entry = world.approve(person, ApprovalAction::KeeperJoin, object);
        world.must(entry);
    }
    (index, object)
}

pub(crate) fn join(world: &World, (proposal, object): (u64, Sha256Digest)) -> Entry {
    Entry::KeeperJoin(KeeperJoin { time: world.now, proposal, object })
}

/// Let in; its object.
pub(crate) fn let_in(world: &mut World, joiner: &Joiner) -> Sha256Digest {
    let of = approved(world, joiner);
    let entry = join(world, of);
    world.must(entry);
    of.1
}

pub(crate) fn retire(world: &World, joiner: &Joiner, object: Sha256Digest) -> KeeperRetire {
    let (evidence, binding) = EVIDENCE;
    let Joiner { machine, counter_name, counter, .. } = joiner.clone();
    let instance = machine.instance;
    KeeperRetire { time: world.now, object, instance, counter_name, counter, evidence, binding }
}

pub(crate) fn start(world: &World, run: u8, keeper: Option<[u8; 32]>) -> Entry {
    let Entry::Start(start) = world.start(run) else { unreachable!("it is a start") };
    Entry::Start(Start { keeper, ..start })
}

/// Has [`joiner`] number 1 take the vault over, by a run of this number.
pub(crate) fn take_over(world: &mut World, run: u8) {
    let object = let_in(world, &joiner(1));
    let entry = Entry::KeeperRetire(retire(world, &joiner(1), object));
    world.must(entry);
    let entry = start(world, run, Some([1; 32]));
    world.must(entry);
}

/// Has another one wait for approvals.
pub(crate) fn must_wait(world: &mut World) {
    must_wait_as(world, &joiner(2));
}

pub(crate) fn must_wait_as(world: &mut World, joiner: &Joiner) {
    let entry = propose(world, joiner);
    world.must(entry);
}

/// A vault that [`joiner`] number 1 has taken over.
fn taken_over() -> World {
    let mut world = World::open();
    take_over(&mut world, 1);
    world
}

#[track_caller]
pub(crate) fn refused(world: &mut World, joiner: &Joiner) -> JoinError {
    let entry = propose(world, joiner);
    join_error(world.refusal(entry))
}

#[track_caller]
pub(crate) fn join_error(error: FoldError) -> JoinError {
    match error {
        FoldError::Join(error) => error,
        other => panic!("{other}"),
    }
}

#[test]
fn a_keeper_that_approvers_let_in_follows_the_one_that_retires_for_it() {
    let mut world = World::open();
    let founder = KeeperMachine::from(&keeper());
    let of = (world.state.size(), proposed(&world, &joiner(1)).object);
    let entry = propose(&world, &joiner(1));
    world.must(entry);
    for (person, given) in [(ALICE, 0), (CAROL, 1)] {
        let early = join(&world, of);
        assert_eq!(world.refusal(early), FoldError::ThresholdNotReached { given, threshold: 2 });
        let entry = world.approve(person, ApprovalAction::KeeperJoin, of.1);
        world.must(entry);
    }
    assert_eq!(world.vault().due(world.now).unwrap().object(), of.1);
    let unproposed = Entry::KeeperRetire(retire(&world, &joiner(1), of.1));
    assert_eq!(join_error(world.refusal(unproposed)), JoinError::NotApproved);
    let entry = join(&world, of);
    world.must(entry);
    assert_eq!(world.vault().keepers().approved().unwrap().joiner(), &joiner(1));
    assert_eq!(world.vault().keepers().current(), &founder);

    // The present keeper goes on until its last entry, also through a restart.
    let entry = start(&world, 1, None);
    world.must(entry);
    let entry = Entry::KeeperRetire(retire(&world, &joiner(1), of.1));
    world.must(entry);
    assert!(world.vault().due(world.now).is_none());
    // Nothing follows but the successor's start.
    for entry in [propose(&world, &joiner(2)), Entry::KeeperRetire(retire(&world, &joiner(1), of.1))] {
        assert_eq!(join_error(world.refusal(entry)), JoinError::Retired);
    }
    for keeper in [None, Some(founder.instance), Some([2; 32])] {
        let other = start(&world, 2, keeper);
        assert_eq!(join_error(world.refusal(other)), JoinError::Retired);
    }
    let entry = start(&world, 2, Some([1; 32]));
    world.must(entry);
    let keepers = world.vault().keepers();
    assert_eq!((keepers.current(), keepers.former()), (&joiner(1).machine, [founder].as_slice()));

    // Its runs name it; those of others are refused.
    for keeper in [None, Some(founder.instance), Some([2; 32])] {
        let other = start(&world, 3, keeper);
        assert_eq!(join_error(world.refusal(other)), JoinError::OtherKeeper);
    }
    let entry = start(&world, 3, Some([1; 32]));
    world.must(entry);
}

#[test]
fn a_run_names_a_keeper_only_where_another_one_took_over() {
    let mut world = World::open();
    let named = start(&world, 1, Some(keeper().instance));
    assert_eq!(join_error(world.refusal(named)), JoinError::OtherKeeper);
    let mut world = World::ceremony();
    let named = start(&world, 1, Some(keeper().instance));
    assert_eq!(join_error(world.refusal(named)), JoinError::OtherKeeper);
}

#[test]
fn an_approval_of_a_keeper_counts_for_that_keeper_as_it_was_shown() {
    let changes: [fn(&mut Joiner); 7] = [
        |joiner| joiner.machine.instance = [9; 32],
        |joiner| joiner.machine.platform = Sha256Digest::of(b"other"),
        |joiner| joiner.machine.ak_name = self::joiner(9).machine.ak_name,
        |joiner| joiner.hpke_key = Sha256Digest::of(b"other"),
        |joiner| joiner.counter_name[33] ^= 1,
        |joiner| joiner.counter += 1,
        |joiner| joiner.measurement = Some([9; 48]),
    ];
    for change in changes {
        let mut world = World::open();
        let mut other = joiner(1);
        change(&mut other);
        let of = approved(&mut world, &joiner(1));
        let mut swapped = proposed(&world, &other);
        assert_ne!(swapped.object, of.1);
        // Under the approved name it is refused, whatever it says.
        swapped.object = of.1;
        let entry = world.propose(Proposal::KeeperJoin(swapped));
        assert_eq!(world.refusal(entry), FoldError::ObjectMismatch);
    }
    // Signed for something else, for another vault, or by nobody, nothing counts.
    let mut world = World::open();
    let object = proposed(&world, &joiner(1)).object;
    let entry = propose(&world, &joiner(1));
    world.must(entry);
    for action in [ApprovalAction::Reseal, ApprovalAction::Policy, ApprovalAction::Model] {
        let wrong = world.approve(ALICE, action, object);
        assert_eq!(world.refusal(wrong), FoldError::ActionMismatch);
    }
    let entry = world.approve(ALICE, ApprovalAction::KeeperJoin, object);
    world.must(entry.clone());
    assert_eq!(world.refusal(entry).code(), "already-approved");
}

#[test]
fn old_approvals_let_nobody_in_again() {
    let mut world = World::open();
    let of = approved(&mut world, &joiner(1));
    let approvals: Vec<Vec<u8>> = world.entries[world.entries.len() - 2..].to_vec();
    let entry = join(&world, of);
    world.must(entry);
    // Another one takes its place, and the first asks anew: it has another object now.
    let_in(&mut world, &joiner(2));
    assert_eq!(world.vault().keepers().approved().unwrap().joiner(), &joiner(2));
    let entry = Entry::KeeperRetire(retire(&world, &joiner(1), of.1));
    assert_eq!(join_error(world.refusal(entry)), JoinError::NotApproved);
    let stale = ProposedJoin::new(&joiner(1), world.vault().id(), 0, EVIDENCE, world.now.plus(60));
    let entry = world.propose(Proposal::KeeperJoin(stale));
    assert_eq!(join_error(world.refusal(entry)), JoinError::Revision { expected: 2 });
    let entry = propose(&world, &joiner(1));
    world.must(entry);
    for approval in &approvals {
        let entry = Entry::parse(approval).unwrap();
        assert_eq!(world.refusal(entry), FoldError::ProposalUnknown);
    }
}

#[test]
fn of_two_keepers_that_are_approved_the_last_one_alone_takes_over() {
    let mut world = World::open();
    let (first, second) = (approved(&mut world, &joiner(1)), approved(&mut world, &joiner(2)));
    let entry = join(&world, first);
    world.must(entry);
    // The approvals of the other do not go on to count.
    let entry = join(&world, second);
    assert_eq!(world.refusal(entry), FoldError::ProposalUnknown);
    let object = let_in(&mut world, &joiner(2));
    let entry = Entry::KeeperRetire(retire(&world, &joiner(1), first.1));
    assert_eq!(join_error(world.refusal(entry)), JoinError::NotApproved);
    // Nor may the last entry name anything of another one.
    let changes: [fn(&mut KeeperRetire); 3] =
        [|retire| retire.instance = [1; 32], |retire| retire.counter_name[33] ^= 1, |retire| retire.counter += 1];
    for change in changes {
        let mut other = retire(&world, &joiner(2), object);
        change(&mut other);
        assert_eq!(join_error(world.refusal(Entry::KeeperRetire(other))), JoinError::OtherSuccessor);
    }
    let entry = Entry::KeeperRetire(retire(&world, &joiner(2), object));
    world.must(entry);
    assert_eq!(**world.vault().keepers().successor().unwrap(), joiner(2));
}

#[test]
fn a_keeper_that_was_let_in_takes_over_in_time_and_under_the_policy_it_was_let_in_under() {
    let mut world = World::open();
    let mut long = proposed(&world, &joiner(1));
    long.not_after = world.now.plus(JOIN_SECS_MAX + 1);
    let entry = world.propose(Proposal::KeeperJoin(long));
    assert_eq!(join_error(world.refusal(entry)), JoinError::TooLong);
    let object = let_in(&mut world, &joiner(1));
    let not_after = world.now.plus(JOIN_SECS_MAX);
    world.pass(JOIN_SECS_MAX + 1);
    let late = Entry::KeeperRetire(retire(&world, &joiner(1), object));
    assert_eq!(join_error(world.refusal(late)), JoinError::ApprovalOver { not_after });

    let mut world = World::open();
    let object = let_in(&mut world, &joiner(1));
    world.must_change_policy(|text| text.replace("max_leases = 4", "max_leases = 5"));
    let entry = Entry::KeeperRetire(retire(&world, &joiner(1), object));
    assert_eq!(join_error(world.refusal(entry)), JoinError::NotApproved);
}

#[test]
fn a_keeper_must_be_what_the_policy_asks_of_its_keeper() {
    let mut world = World::open();
    let with = |change: fn(&mut Joiner)| {
        let mut joiner = joiner(1);
        change(&mut joiner);
        joiner
    };
    let foreign = refused(&mut world, &with(|joiner| joiner.pcrs = [(0, [0x11; 32]), (11, [0x2f; 32])].into()));
    assert!(matches!(foreign, JoinError::PcrsNotAllowed(_)), "{foreign}");
    for other in [
        with(|joiner| joiner.pcrs = [(0, [0x11; 32])].into()),
        with(|joiner| joiner.pcrs = [(0, [0x11; 32]), (7, [0; 32]), (11, [0x22; 32])].into()),
    ] {
        let error = refused(&mut world, &other);
        assert!(matches!(error, JoinError::OtherSelection { .. }), "{error}");
    }
    assert_eq!(refused(&mut world, &with(|joiner| joiner.measurement = Some([1; 48]))), JoinError::OtherForm);
    let founder = keeper();
    let mut own = joiner(1);
    own.machine.instance = founder.instance;
    assert_eq!(refused(&mut world, &own), JoinError::KeeperAlready);
    let mut own = joiner(1);
    own.machine.ak_name = founder.ak_name;
    assert_eq!(refused(&mut world, &own), JoinError::KeeperAlready);

    let listed = Sha256Digest::of(b"the keeper's TPM");
    let (old, new) = ("] }\neks = \"any\"\n", format!("] }}\neks = [\"{listed}\"]\n"));
    let mut world = World::with_policy(|text| text.replacen(old, &new, 1)).opened();
    let platform = joiner(1).machine.platform;
    assert_eq!(refused(&mut world, &joiner(1)), JoinError::PlatformNotListed { platform });
}

#[test]
fn a_keeper_shows_a_counter_exactly_where_the_vault_counts() {
    let mut world = World::open();
    assert_eq!(refused(&mut world, &uncounted(1)), JoinError::CounterMissing);
    let mut world = World::counted_by(AntiRollback::None, |text| text).opened();
    assert_eq!(refused(&mut world, &joiner(1)), JoinError::CounterUnexpected);
    // Nothing shows that the one before has retired, and still it is the last entry that it writes.
    let object = let_in(&mut world, &uncounted(1));
    assert!(!world.vault().keepers().is_shared());
    let entry = Entry::KeeperRetire(retire(&world, &uncounted(1), object));
    world.must(entry);
    let entry = start(&world, 1, Some([1; 32]));
    world.must(entry);
    assert_eq!(world.vault().keepers().former().len(), 1);
}

#[test]
fn evidence_of_a_keeper_is_admitted_for_this_vault_its_policy_in_force_and_what_that_asks_of_a_keeper() {
    let mut world = World::open();
    let mut newcomer = Guest::of(&world);
    newcomer.tpm.pcrs[11] = [0x22; 32];
    let evidence = Sha256Digest::of(b"evidence");
    let admit = |world: &World, verified, now| AdmittedJoiner::admit(world.vault(), verified, evidence, now);
    let admitted = admit(&world, newcomer.join(newcomer.join_challenge(&world)), world.now).ok().unwrap();
    let seen = admitted.joiner();
    assert_eq!((seen.machine.instance, seen.counter), ([9; 32], 40));
    assert_eq!(seen.pcrs, [(0, [0x11; 32]), (11, [0x22; 32])].into());
    assert_eq!(admitted.retires(world.vault(), world.now).err(), Some(JoinError::NotApproved));

    let mut other = newcomer.join_challenge(&world);
    other.vault = Sha256Digest::of(b"other");
    assert_eq!(admit(&world, newcomer.join(other), world.now).err(), Some(JoinError::OtherVault));
    let verified = newcomer.join(newcomer.join_challenge(&world));
    let not_after = world.policy().not_after();
    let late = admit(&world, verified, not_after.plus(1)).err();
    assert_eq!(late, Some(JoinError::PolicyExpired { not_after }));
    // A guest is no keeper.
    let guest = Guest::of(&world);
    let refused = admit(&world, guest.join(guest.join_challenge(&world)), world.now).err().unwrap();
    assert_eq!(refused.code(), "keeper-pcr-mismatch");
    let verified = newcomer.join(newcomer.join_challenge(&world));
    world.must_change_policy(|text| text.replace("max_leases = 4", "max_leases = 5"));
    assert_eq!(admit(&world, verified, world.now).err(), Some(JoinError::PolicyChanged));

    // Let in as it was shown, it is the one that the last entry may name.
    let verified = newcomer.join(newcomer.join_challenge(&world));
    let admitted = admit(&world, verified, world.now).ok().unwrap();
    let_in(&mut world, admitted.joiner());
    let retirement = admitted.retires(world.vault(), world.now).ok().unwrap();
    let entry = Entry::parse(&retirement.entry_bytes()).unwrap();
    world.must(entry);
    let launched = with_measurement(joiner(1));
    assert_eq!(world.vault().check_joiner(&launched), Err(JoinError::OtherForm));
}

fn with_measurement(mut joiner: Joiner) -> Joiner {
    joiner.measurement = Some([1; 48]);
    joiner
}

#[test]
fn a_keeper_with_a_chip_is_on_a_launch_digest_that_the_policy_lists() {
    let world = World::with_policy(|_| policy_text::snp()).opened();
    let mut other = with_measurement(joiner(1));
    assert_eq!(world.vault().check_joiner(&other), Err(JoinError::MeasurementNotAllowed));
    other.measurement = None;
    assert_eq!(world.vault().check_joiner(&other), Err(JoinError::OtherForm));
}

#[test]
fn a_keeper_that_had_the_vault_does_not_come_back_as_it_was() {
    let mut world = taken_over();
    let founder = keeper();
    let mut again = joiner(3);
    again.machine = KeeperMachine::from(&founder);
    assert_eq!(refused(&mut world, &again), JoinError::KeeperAlready);
    assert_eq!(refused(&mut world, &joiner(1)), JoinError::KeeperAlready);
    // Its machine may, with a root and an attestation key of its own.
    again.machine = KeeperMachine { platform: founder.platform, ..joiner(3).machine };
    let object = let_in(&mut world, &again);
    let entry = Entry::KeeperRetire(retire(&world, &again, object));
    world.must(entry);
    let entry = start(&world, 4, Some([3; 32]));
    world.must(entry);
    assert_eq!(world.vault().keepers().former().len(), 2);
}

#[test]
fn a_machine_that_makes_its_keys_anew_has_one_proposal_and_all_together_are_bounded() {
    let mut world = World::open();
    let entry = propose(&world, &joiner(1));
    world.must(entry.clone());
    assert_eq!(world.refusal(entry), FoldError::ProposalRepeated);
    let mut anew = joiner(2);
    anew.machine.platform = joiner(1).machine.platform;
    let entry = propose(&world, &anew);
    world.must(entry);
    assert_eq!(world.vault().pending(world.now).count(), 1);
    for number in 21..36 {
        let entry = propose(&world, &joiner(number));
        world.must(entry);
    }
    let entry = propose(&world, &joiner(36));
    assert_eq!(world.refusal(entry), FoldError::TooManyProposals);
}

pub(crate) fn entries(world: &World) -> Vec<IndexedEntry> {
    let mut succession = Succession::default();
    for (index, entry) in (0..).zip(&world.entries) {
        succession.see(index, entry).unwrap();
    }
    succession.into_entries()
}

pub(crate) fn first(world: &World) -> VaultFile {
    VaultFile::new(world.genesis.clone(), vec!["http://vault:7070".to_owned()]).unwrap()
}

pub(crate) fn file(world: &World, entries: Vec<IndexedEntry>) -> VaultFile {
    first(world).with_policies(entries).unwrap()
}

#[test]
fn a_vault_file_leads_to_the_keeper_that_took_over_last() {
    let mut world = World::open();
    let text = world.next_policy(|text| text.replace("max_leases = 4", "max_leases = 9"));
    world.must_propose_policy(&text);
    let object = let_in(&mut world, &joiner(1));
    let entry = Entry::KeeperRetire(retire(&world, &joiner(1), object));
    world.must(entry);
    // Named, and not started: the keeper is still the one before.
    assert_eq!(file(&world, entries(&world)).keeper(), &KeeperMachine::from(&keeper()));
    let entry = start(&world, 1, Some([1; 32]));
    world.must(entry);
    world.must_change_policy(|text| text.replace("max_leases = 4", "max_leases = 5"));
    let entries = entries(&world);
    let written = file(&world, entries.clone());
    let again = VaultFile::parse(&written.encode()).unwrap();
    for file in [&written, &again] {
        assert_eq!(file.keeper(), &joiner(1).machine);
        assert_eq!(file.policy().digest(), world.policy().digest());
    }
    // Without any of the entries it leads nowhere.
    for without in 0..entries.len() {
        let mut fewer = entries.clone();
        fewer.remove(without);
        let led = first(&world).with_policies(fewer).map(|file| (*file.keeper(), file.policy().digest()));
        assert_ne!(led, Ok((joiner(1).machine, world.policy().digest())), "without {without}");
    }
}
