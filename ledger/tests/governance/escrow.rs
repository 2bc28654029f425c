//! Custodians of the vault's keys, and a keeper in the place of a lost one.

use attestation::Sha256Digest;
use ledger::approvals::ApprovalAction;
use ledger::entry::{
    Approve, Entry, EscrowInForce, GenesisWitness, Proposal, ProposedEscrow, ProposedRecovery, RecoverInForce,
};
use ledger::escrow::{
    CUSTODIANS_MAX, Custodian, EscrowError, EscrowPlan, LogPoint, Recovery, Rollback, ShareDigests, ShareFile,
    ShareFileError, ShareId,
};
use ledger::keepers::JOIN_SECS_MAX;
use ledger::state::FoldError;

use crate::keepers::{joiner, start};
use crate::support::keys::Person;
use crate::support::world::{ALICE, BOB, CAROL, World};

pub(crate) const RECORD: Sha256Digest = Sha256Digest::from_bytes([0x5e; 32]);

fn custodian(id: &str) -> Custodian {
    Custodian { id: id.parse().unwrap(), key: Sha256Digest::of(id.as_bytes()) }
}

/// Two of three.
pub(crate) fn plan(world: &World) -> EscrowPlan {
    world.vault().next_escrow(2, vec![custodian("notary"), custodian("safe"), custodian("sister-company")])
}

pub(crate) fn propose(world: &World, plan: &EscrowPlan) -> Entry {
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
pub(crate) fn split(world: &mut World) -> EscrowPlan {
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

pub(crate) fn recovery(world: &World, number: u8) -> Recovery {
    let root = Sha256Digest::from_bytes(world.tree.root(world.tree.len()).unwrap());
    let set = world.vault().escrow_in_force().unwrap().set(world.vault().id());
    Recovery {
        joiner: joiner(number),
        from: LogPoint { size: world.state.size(), root },
        set,
        rollback: Rollback::Accepted,
    }
}

pub(crate) fn proposed(world: &World, recovery: &Recovery) -> ProposedRecovery {
    ProposedRecovery::new(recovery, world.vault().id(), world.now.plus(JOIN_SECS_MAX))
}

pub(crate) fn propose_recovery(world: &World, recovery: &Recovery) -> Entry {
    world.propose(Proposal::Recover(proposed(world, recovery)))
}

/// An approval with evidence that its approver saw.
pub(crate) fn approve_recovery(world: &World, person: u8, object: Sha256Digest, evidence: u8) -> Entry {
    let witness = GenesisWitness { evidence: Sha256Digest::of(&[evidence]), binding: Sha256Digest::of(b"binding") };
    world.signed(person, world.statement(ApprovalAction::Recover, object), Some(witness))
}

/// Proposed and approved by two; index and object of the proposal.
pub(crate) fn approved_recovery(world: &mut World, recovery: &Recovery) -> (u64, Sha256Digest) {
    let (index, object) = (world.state.size(), proposed(world, recovery).object);
    let entry = propose_recovery(world, recovery);
    world.must(entry);
    for person in [ALICE, BOB] {
        let entry = approve_recovery(world, person, object, person);
        world.must(entry);
    }
    (index, object)
}

pub(crate) fn recovered(world: &World, (proposal, object): (u64, Sha256Digest)) -> RecoverInForce {
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
pub(crate) fn escrow_error(error: FoldError) -> EscrowError {
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
