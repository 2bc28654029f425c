//! The boot states of a keeper: proposed, approved, started on.

use attestation::{PcrSelection, Sha256Digest, UnixTime};
use ledger::approvals::{ApprovalAction, ApprovalStatement};
use ledger::entry::{Entry, Proposal, ProposedReseal, ResealInForce, Resealed};
use ledger::reseal::{Reseal, ResealError};
use ledger::state::{FoldError, Standing};

use crate::support::keys::Person;
use crate::support::policy_text::{self, LAUNCH_KEEPER, PCR_0, PCR_11_KEEPER};
use crate::support::world::{ALICE, BOB, CAROL, World, keeper};
use crate::upgrade;

const OTHER: Sha256Digest = Sha256Digest::from_bytes([0x44; 32]);
/// PCR 11 of the keeper's next image, which the policy allows beside the present one, and of one that it does not allow.
const NEXT: u8 = 0x2b;
const FOREIGN: u8 = 0x2f;

fn pcr(hex: &str) -> [u8; 32] {
    let mut value = [0; 32];
    value.fill(u8::from_str_radix(&hex[..2], 16).unwrap());
    assert_eq!(hex::encode(value), hex);
    value
}

/// The keeper on an image that leaves this in each byte of PCR 11.
pub(crate) fn on(pcr_11: u8) -> Reseal {
    let keeper = keeper();
    let pcrs = [(0, pcr(PCR_0)), (11, [pcr_11; 32])].into();
    Reseal { instance: keeper.instance, ak_name: keeper.ak_name, pcrs, measurement: None }
}

/// The boot state of the ceremony.
pub(crate) fn present() -> Reseal {
    on(pcr(PCR_11_KEEPER)[0])
}

fn allowing(text: &str, images: &[u8]) -> String {
    let more: String = images.iter().map(|image| format!(", \"{}\"", hex::encode([*image; 32]))).collect();
    let (old, new) = (format!("11 = [\"{PCR_11_KEEPER}\"]"), format!("11 = [\"{PCR_11_KEEPER}\"{more}]"));
    assert!(text.contains(&old));
    text.replacen(&old, &new, 1)
}

/// An open vault whose keeper may also be on [`NEXT`] and on 0x2c.
fn open() -> World {
    World::with_policy(|text| allowing(&text, &[NEXT, 0x2c])).opened()
}

/// What approvals name now.
fn object(world: &World, reseal: &Reseal) -> Sha256Digest {
    reseal.object(world.vault().reseal_revision())
}

fn proposed_saying(world: &World, proposer: u8, reseal: &Reseal, statement: &ApprovalStatement) -> ProposedReseal {
    let statement = String::from_utf8(statement.encode()).unwrap();
    let signature = Person::new(proposer).sign(statement.as_bytes());
    ProposedReseal::new(reseal, world.vault().reseal_revision(), statement, signature)
}

pub(crate) fn propose(world: &World, reseal: &Reseal) -> Entry {
    let statement = world.statement(ApprovalAction::ProposeReseal, object(world, reseal));
    world.propose(Proposal::Reseal(proposed_saying(world, ALICE, reseal, &statement)))
}

pub(crate) fn in_force(world: &World, proposal: u64, reseal: &Reseal, present: &Reseal) -> Entry {
    let (object, present) = (object(world, reseal), present.boot_state());
    Entry::Reseal(ResealInForce { time: world.now, proposal, object, present })
}

pub(crate) fn resealed(world: &World, reseal: &Reseal) -> Entry {
    // It was approved before the reseal that counted one more.
    let revision = world.vault().reseal_revision().saturating_sub(1);
    Entry::Resealed(Resealed { time: world.now, object: reseal.object(revision) })
}

/// Alice proposes, Bob and Carol approve; the index of the proposal.
pub(crate) fn approved(world: &mut World, reseal: &Reseal) -> u64 {
    let index = world.state.size();
    let entry = propose(world, reseal);
    world.must(entry);
    for person in [BOB, CAROL] {
        let entry = world.approve(person, ApprovalAction::Reseal, object(world, reseal));
        world.must(entry);
    }
    index
}

fn must_reseal(world: &mut World, reseal: &Reseal, present: &Reseal) {
    let index = approved(world, reseal);
    let entry = in_force(world, index, reseal, present);
    world.must(entry);
}

#[track_caller]
fn refused(world: &mut World, reseal: &Reseal) -> ResealError {
    let entry = propose(world, reseal);
    match world.refusal(entry) {
        FoldError::Reseal(error) => error,
        other => panic!("{other}"),
    }
}

#[test]
fn a_keeper_is_on_two_boot_states_from_the_reseal_to_its_next_start() {
    let mut world = open();
    let standing = |world: &World, reseal: &Reseal| world.vault().sealing().standing(reseal.boot_state());
    let index = world.state.size();
    let entry = propose(&world, &on(NEXT));
    world.must(entry);
    for (person, given) in [(BOB, 0), (CAROL, 1)] {
        let early = in_force(&world, index, &on(NEXT), &present());
        assert_eq!(world.refusal(early), FoldError::ThresholdNotReached { given, threshold: 2 });
        let entry = world.approve(person, ApprovalAction::Reseal, on(NEXT).object(0));
        world.must(entry);
    }
    assert_eq!(world.vault().due(world.now).unwrap().object(), on(NEXT).object(0));
    let entry = in_force(&world, index, &on(NEXT), &present());
    world.must(entry);
    assert!(world.vault().due(world.now).is_none() && world.vault().pending(world.now).next().is_none());
    assert_eq!(standing(&world, &present()), Standing::Present);
    assert_eq!(standing(&world, &on(NEXT)), Standing::Next(on(NEXT).object(0)));
    assert_eq!(standing(&world, &on(FOREIGN)), Standing::Superseded);
    assert_eq!(world.vault().sealing().next().unwrap().reseal(), &on(NEXT));

    let entry = resealed(&world, &on(NEXT));
    world.must(entry);
    assert_eq!(standing(&world, &on(NEXT)), Standing::Present);
    assert_eq!(standing(&world, &present()), Standing::Superseded);
    let again = resealed(&world, &on(NEXT));
    assert_eq!(world.refusal(again), FoldError::Reseal(ResealError::NotNext));
}

#[test]
fn a_reseal_that_another_takes_the_place_of_is_superseded_and_one_to_the_present_state_takes_it_back() {
    let mut world = open();
    must_reseal(&mut world, &on(NEXT), &present());
    must_reseal(&mut world, &on(0x2c), &present());
    let sealing = world.vault().sealing();
    assert_eq!(sealing.standing(on(NEXT).boot_state()), Standing::Superseded);
    assert_eq!(sealing.standing(on(0x2c).boot_state()), Standing::Next(on(0x2c).object(1)));
    let other = resealed(&world, &on(NEXT));
    assert_eq!(world.refusal(other), FoldError::Reseal(ResealError::NotNext));
    must_reseal(&mut world, &present(), &present());
    let sealing = world.vault().sealing();
    assert!(sealing.next().is_none());
    assert_eq!(sealing.present(), Some(present().boot_state()));
    assert_eq!(sealing.standing(on(0x2c).boot_state()), Standing::Superseded);
}

/// Everybody who reads the log has the signatures, and they count for days: the host could have the root sealed again to what
/// approvers took back since, without any of them.
#[test]
fn a_reseal_that_was_taken_back_is_approved_anew_or_not_at_all() {
    let mut world = open();
    upgrade::must_know(&mut world, 60, "0.4.0", 4, None);
    let proposed = propose(&world, &on(NEXT));
    let approvals = [BOB, CAROL].map(|person| world.approve(person, ApprovalAction::Reseal, object(&world, &on(NEXT))));
    let index = world.state.size();
    world.must(proposed.clone());
    approvals.clone().into_iter().for_each(|approval| world.must(approval));
    let effect = in_force(&world, index, &on(NEXT), &present());
    world.must(effect);
    must_reseal(&mut world, &present(), &present());

    assert_eq!(world.refusal(proposed.clone()), FoldError::ObjectMismatch);
    // Nor under the object of now, nor the approvals for what an approver of now proposes.
    let Entry::Propose(ledger::entry::Propose { proposal: Proposal::Reseal(mut renamed), .. }) = proposed else {
        panic!("it proposes a reseal")
    };
    renamed.object = object(&world, &on(NEXT));
    let renamed = world.propose(Proposal::Reseal(renamed));
    assert_eq!(world.refusal(renamed), FoldError::ObjectMismatch);
    let proposed = propose(&world, &on(NEXT));
    world.must(proposed);
    for approval in approvals {
        assert_eq!(world.refusal(approval), FoldError::ProposalUnknown);
    }
    assert!(world.vault().due(world.now).is_none());
    // Whoever wants it signs it anew.
    world.must_change_policy(|text| text.replace("max_leases = 4", "max_leases = 5"));
    must_reseal(&mut world, &on(NEXT), &present());
    let entry = resealed(&world, &on(NEXT));
    world.must(entry);
    assert_eq!(world.vault().sealing().standing(on(NEXT).boot_state()), Standing::Present);
}

/// A log that programs without revisions read goes on as they read it, and has them once it asks for more of its readers.
#[test]
fn what_approvals_name_has_a_revision_once_the_log_asks_for_it() {
    let mut world = open();
    upgrade::must_know(&mut world, 60, "0.3.0", 3, None);
    must_reseal(&mut world, &on(NEXT), &present());
    must_reseal(&mut world, &present(), &present());
    let (before, waiting) = (object(&world, &on(NEXT)), propose(&world, &on(NEXT)));
    assert_eq!(before, on(NEXT).object(0));
    upgrade::must_know(&mut world, 61, "0.4.0", 4, None);
    assert_eq!(object(&world, &on(NEXT)), on(NEXT).object(2));
    assert_eq!(world.refusal(waiting), FoldError::ObjectMismatch);
    must_reseal(&mut world, &on(NEXT), &present());
}

#[test]
fn what_was_approved_in_view_of_another_boot_state_waits_no_longer() {
    let mut world = open();
    let waiting = propose(&world, &on(0x2c));
    world.must(waiting);
    must_reseal(&mut world, &on(NEXT), &present());
    assert_eq!(world.vault().pending(world.now).count(), 0);
    let waiting = propose(&world, &on(0x2c));
    world.must(waiting);
    let entry = resealed(&world, &on(NEXT));
    world.must(entry);
    assert_eq!(world.vault().pending(world.now).count(), 0);
}

#[test]
fn a_boot_state_is_one_that_this_keeper_may_be_on() {
    let mut world = open();
    let instance = Reseal { instance: [8; 32], ..on(NEXT) };
    let other = ResealError::OtherKeeper { field: "the instance" };
    assert_eq!((refused(&mut world, &instance), other.code()), (other, "reseal-other-keeper"));
    let name = [[0, 0x0b].as_slice(), &[0x0a; 32]].concat();
    let ak_name = Reseal { ak_name: name.as_slice().try_into().unwrap(), ..on(NEXT) };
    assert_eq!(refused(&mut world, &ak_name), ResealError::OtherKeeper { field: "the attestation key" });

    let expected = PcrSelection::try_from([0, 11].as_slice()).unwrap();
    let selection = ResealError::OtherSelection { expected };
    type Change = fn(&mut Pcrs);
    let changes: [Change; 3] =
        [|pcrs| assert!(pcrs.remove(&0).is_some()), |pcrs| assert!(pcrs.insert(7, [7; 32]).is_none()), Pcrs::clear];
    for change in changes {
        let mut wrong = on(NEXT);
        change(&mut wrong.pcrs);
        assert_eq!(refused(&mut world, &wrong), selection);
    }
    let blank = Reseal { pcrs: [(0, [0; 32]), (11, [0; 32])].into(), ..on(NEXT) };
    assert_eq!(refused(&mut world, &blank).code(), "reseal-pcrs-unmeasured");
    let foreign = refused(&mut world, &on(FOREIGN));
    assert!(matches!(foreign, ResealError::PcrsNotAllowed(mismatch) if mismatch.index == 11), "{foreign}");
    assert_eq!(foreign.code(), "reseal-pcrs-not-allowed");
    let measured = Reseal { measurement: Some([0x66; 48]), ..on(NEXT) };
    assert_eq!(refused(&mut world, &measured), ResealError::MeasurementUnexpected);
    must_reseal(&mut world, &on(NEXT), &present());
    assert_eq!(refused(&mut world, &on(NEXT)), ResealError::Already);
    let entry = resealed(&world, &on(NEXT));
    world.must(entry);
    assert_eq!(refused(&mut world, &on(NEXT)), ResealError::Already);
}

type Pcrs = std::collections::BTreeMap<u32, [u8; 32]>;

#[test]
fn a_root_that_is_sealed_to_a_chip_stays_with_a_launch_digest_of_the_policy() {
    let snp = |_| allowing(&policy_text::snp(), &[NEXT]);
    let mut world = World::with_policy(snp).opened();
    assert_eq!(refused(&mut world, &on(NEXT)), ResealError::MeasurementMissing);
    let other = Reseal { measurement: Some([0x67; 48]), ..on(NEXT) };
    assert_eq!(refused(&mut world, &other), ResealError::MeasurementNotAllowed);
    let mut digest = [0; 48];
    hex::decode_to_slice(LAUNCH_KEEPER, &mut digest).unwrap();
    let good = Reseal { measurement: Some(digest), ..on(NEXT) };
    must_reseal(&mut world, &good, &present());
}

#[test]
fn a_proposal_of_a_reseal_is_signed_for_exactly_that() {
    type Change = fn(&mut ApprovalStatement);
    let expired = UnixTime(open().now.seconds() - 1);
    let changes: [(Change, FoldError); 7] = [
        (|s| s.action = ApprovalAction::Reseal, FoldError::ActionMismatch),
        (|s| s.action = ApprovalAction::ProposePolicy, FoldError::ActionMismatch),
        (|s| s.object = OTHER, FoldError::ObjectMismatch),
        (|s| s.previous = OTHER, FoldError::PreviousMismatch),
        (|s| s.vault = OTHER, FoldError::VaultMismatch),
        (|s| s.serial = 2, FoldError::SerialMismatch { expected: 1, found: 2 }),
        (|s| s.not_after = UnixTime(open().now.seconds() - 1), FoldError::StatementExpired { not_after: expired }),
    ];
    for (change, expected) in changes {
        let mut world = open();
        let mut statement = world.statement(ApprovalAction::ProposeReseal, on(NEXT).object(0));
        change(&mut statement);
        let entry = world.propose(Proposal::Reseal(proposed_saying(&world, ALICE, &on(NEXT), &statement)));
        assert_eq!(world.refusal(entry), expected);
    }
    let mut world = open();
    let statement = world.statement(ApprovalAction::ProposeReseal, on(NEXT).object(0));
    let stranger = world.propose(Proposal::Reseal(proposed_saying(&world, 9, &on(NEXT), &statement)));
    assert_eq!(world.refusal(stranger).code(), "not-an-approver");
    let mut wrong = proposed_saying(&world, ALICE, &on(NEXT), &statement);
    wrong.object = OTHER;
    let entry = world.propose(Proposal::Reseal(wrong));
    assert_eq!(world.refusal(entry), FoldError::ObjectMismatch);
}

#[test]
fn an_approval_of_a_reseal_is_of_an_approver_for_this_one_and_counts_once() {
    let mut world = open();
    let object = on(NEXT).object(0);
    let entry = propose(&world, &on(NEXT));
    world.must(entry);
    let own = world.approve(ALICE, ApprovalAction::Reseal, object);
    assert_eq!(world.refusal(own).code(), "proposer-may-not-approve");
    let other_action = world.approve(BOB, ApprovalAction::Policy, object);
    assert_eq!(world.refusal(other_action), FoldError::ActionMismatch);
    let mut stale = world.statement(ApprovalAction::Reseal, object);
    stale.serial = 0;
    let stale = world.signed(BOB, stale, None);
    assert_eq!(world.refusal(stale), FoldError::SerialMismatch { expected: 1, found: 0 });
    let entry = world.approve(BOB, ApprovalAction::Reseal, object);
    world.must(entry.clone());
    assert_eq!(world.refusal(entry).code(), "already-approved");
    // After its moment it can neither be approved nor take effect.
    let index = world.state.size() - 2;
    let last = world.approve(CAROL, ApprovalAction::Reseal, object);
    world.must(last);
    world.pass(3601);
    let late = in_force(&world, index, &on(NEXT), &present());
    assert_eq!(world.refusal(late).code(), "proposal-expired");
}

#[test]
fn an_effect_is_of_what_was_approved_where_the_keeper_is() {
    let mut world = open();
    let index = approved(&mut world, &on(NEXT));
    let entry = in_force(&world, index, &on(0x2c), &present());
    assert_eq!(world.refusal(entry), FoldError::ObjectMismatch);
    let entry = in_force(&world, index + 1, &on(NEXT), &present());
    assert_eq!(world.refusal(entry), FoldError::ProposalUnknown);
    let entry = in_force(&world, index, &on(NEXT), &present());
    world.must(entry.clone());
    assert_eq!(world.refusal(entry), FoldError::ProposalUnknown);
    // The log says where it is from now on.
    let index = approved(&mut world, &on(0x2c));
    for elsewhere in [on(NEXT), on(FOREIGN)] {
        let entry = in_force(&world, index, &on(0x2c), &elsewhere);
        assert_eq!(world.refusal(entry), FoldError::Reseal(ResealError::PresentMismatch));
    }
    let none = open().approve(BOB, ApprovalAction::Reseal, on(NEXT).object(0));
    assert_eq!(open().refusal(none), FoldError::ProposalUnknown);
}

#[test]
fn a_policy_that_comes_into_force_voids_what_waits_and_one_past_its_end_permits_nothing() {
    let mut world = open();
    let waiting = propose(&world, &on(NEXT));
    world.must(waiting);
    world.must_change_policy(|text| text.replace("max_leases = 4", "max_leases = 5"));
    assert_eq!(world.vault().pending(world.now).count(), 0);
    let old = ApprovalStatement { serial: 1, ..world.statement(ApprovalAction::ProposeReseal, on(NEXT).object(0)) };
    let replayed = world.propose(Proposal::Reseal(proposed_saying(&world, ALICE, &on(NEXT), &old)));
    assert_eq!(world.refusal(replayed), FoldError::SerialMismatch { expected: 2, found: 1 });
    world.now = UnixTime(world.policy().not_after().seconds() + 1);
    let late = propose(&world, &on(NEXT));
    assert_eq!(world.refusal(late).code(), "policy-expired");
}

#[test]
fn objects_are_those_of_format_md() {
    let measured = Reseal { measurement: Some([0x66; 48]), ..on(NEXT) };
    assert_eq!(
        [on(NEXT).object(0), on(NEXT).object(1), measured.object(0), on(NEXT).boot_state()]
            .map(|digest| digest.to_string()),
        [
            "sha256:41decb850877cdc499a6298f40a573991e48aa2930fca14ea1cd63d8f116ab79",
            "sha256:73d701e8f461e571bacc1603c1bd083394d774a48b476cafa6ccda647d2bfeb1",
            "sha256:8ea9729bf4d37cdf529448a93936152b9c70d2e1d5acf512b15f379b7a47bec2",
            "sha256:8f8927bda9612f2cb99401a9676191092e1be0ab171e332ece5c68309069543d",
        ]
    );
}
