//! The order of a log and the ceremony: what the fold takes, and one refusal for each thing that no keeper should have
//! written.

use attestation::{Sha256Digest, UnixTime};
use ledger::approvals::{ApprovalAction, ApprovalStatement};
use ledger::entry::{Action, Approve, Deny, DenySummary, Entry};
use ledger::state::{FoldError, State};

use crate::support::keys::Person;
use crate::support::world::{ALICE, BOB, CAROL, LEASE_SECS, World};

fn ids<'a>(names: impl Iterator<Item = &'a ledger::names::Name>) -> Vec<&'a str> {
    names.map(ledger::names::Name::as_str).collect()
}

#[test]
fn a_vault_lives_and_folds_to_the_same_state_again() {
    let mut world = World::with_model();
    let lease = world.must_release(1);
    assert_eq!(world.leases(), 1);
    world.pass(LEASE_SECS);
    let entry = world.renew(vec![world.renewal(lease)]);
    world.must(entry);
    let entry = world.start(1);
    world.must(entry);
    let entry = world.end(lease);
    world.must(entry);
    assert_eq!(world.leases(), 0);
    world.must_change_policy(|text| text);
    assert_eq!(world.policy().serial(), 2);

    let mut again = State::new();
    for (index, entry) in (0u64..).zip(&world.entries) {
        again.apply(index, entry).unwrap();
    }
    assert_eq!((again.size(), again.time()), (world.state.size(), world.state.time()));
    assert_eq!(again.digest(), world.state.digest());
    assert_eq!(format!("{again:?}"), format!("{:?}", world.state));
}

#[test]
fn a_copy_goes_its_own_way() {
    let mut world = World::with_model();
    let committed = world.state.clone();
    world.must_release(1);
    assert_eq!(world.leases(), 1);
    assert_eq!(committed.vault().unwrap().leases(world.now).count(), 0);
    assert_ne!(committed.digest(), world.state.digest());
}

#[test]
fn entries_come_one_after_the_other() {
    let world = World::open();
    let entry = world.start(1).encode().unwrap();
    let expected = world.state.size();
    for found in [0, expected - 1, expected + 1] {
        let refused = world.state.clone().apply(found, &entry);
        assert_eq!(refused, Err(FoldError::IndexMismatch { expected, found }));
    }
}

#[test]
fn bytes_that_are_no_entry_are_refused() {
    let mut state = State::new();
    assert_eq!(state.apply(0, b"{}").unwrap_err().code(), "entry-malformed");
    assert_eq!(state.size(), 0);
}

#[test]
fn time_does_not_go_back() {
    let mut world = World::open();
    let last = world.now;
    world.now = UnixTime(last.seconds() - 1);
    let entry = world.start(1);
    assert_eq!(world.refusal(entry), FoldError::TimeWentBack { last, found: world.now });
    world.now = last;
    let entry = world.start(1);
    world.must(entry);
}

#[test]
fn a_log_begins_with_its_one_genesis() {
    let mut world = World::ceremony();
    let start = world.start(1).encode().unwrap();
    assert_eq!(State::new().apply(0, &start), Err(FoldError::GenesisMissing));
    assert!(State::new().genesis().is_none());
    let genesis = Entry::parse(world.genesis.bytes()).unwrap();
    assert_eq!(world.refusal(genesis.clone()), FoldError::GenesisRepeated);
    assert_eq!(World::open().refusal(genesis), FoldError::GenesisRepeated);
}

#[test]
fn a_genesis_that_breaks_a_rule_is_refused() {
    let text = String::from_utf8(World::ceremony().genesis.bytes().to_vec()).unwrap();
    let wrong = text.replace("threshold = 2", "threshold = 0");
    assert_eq!(State::new().apply(0, wrong.as_bytes()).unwrap_err().code(), "policy-threshold-zero");
}

#[test]
fn the_vault_opens_with_the_last_approval() {
    let mut world = World::ceremony();
    for (person, signed, missing) in
        [(CAROL, vec!["carol"], vec!["alice", "bob"]), (ALICE, vec!["carol", "alice"], vec!["bob"])]
    {
        let entry = world.approve_genesis(person);
        world.must(entry);
        assert!(world.state.vault().is_none());
        let ceremony = world.state.ceremony().unwrap();
        assert_eq!(ids(ceremony.approved_by()), signed);
        assert_eq!(ids(ceremony.missing()), missing);
    }
    let start = world.start(1);
    world.must(start);
    let entry = world.approve_genesis(BOB);
    world.must(entry);
    assert!(world.state.ceremony().is_none());
    assert_eq!(world.vault().id(), world.genesis.vault_id());
    assert_eq!(world.vault().policy().digest(), Sha256Digest::of(world.policy_text.as_bytes()));
    assert_eq!(world.state.genesis().unwrap().bytes(), world.genesis.bytes());
}

#[test]
fn nothing_else_happens_before_the_vault_is_open() {
    let mut world = World::ceremony();
    for entry in [
        Entry::Release(Box::new(world.release(1))),
        world.renew(vec![]),
        world.end(Sha256Digest::of(b"")),
        world.policy_in_force(0, Sha256Digest::of(b"")),
        world.model_published(0, Sha256Digest::of(b"")),
        world.propose(ledger::entry::Proposal::Model(world.proposed_model())),
        deny_summary(&world, 0),
    ] {
        let found = entry.type_name();
        assert_eq!(world.refusal(entry), FoldError::VaultNotOpen { found });
    }
}

/// The refusal of Alice's approval of the genesis with her statement changed.
fn genesis_statement_refusal(change: impl FnOnce(&mut ApprovalStatement)) -> FoldError {
    let mut world = World::ceremony();
    let mut statement = world.statement(ApprovalAction::Genesis, world.genesis.vault_id());
    change(&mut statement);
    let entry = world.approve_genesis_saying(ALICE, statement);
    world.refusal(entry)
}

#[test]
fn an_approval_of_the_genesis_is_about_exactly_this_genesis() {
    let other = Sha256Digest::of(b"other");
    assert_eq!(genesis_statement_refusal(|s| s.action = ApprovalAction::Policy), FoldError::ActionMismatch);
    assert_eq!(genesis_statement_refusal(|s| s.object = other), FoldError::ObjectMismatch);
    assert_eq!(genesis_statement_refusal(|s| s.previous = other), FoldError::PreviousMismatch);
    assert_eq!(genesis_statement_refusal(|s| s.vault = other), FoldError::VaultMismatch);
    let serial = genesis_statement_refusal(|s| s.serial = 1);
    assert_eq!(serial, FoldError::SerialMismatch { expected: 0, found: 1 });
    let not_after = UnixTime(World::ceremony().now.seconds() - 1);
    let expired = genesis_statement_refusal(|s| s.not_after = not_after);
    assert_eq!(expired, FoldError::StatementExpired { not_after });
}

#[test]
fn an_approval_of_the_genesis_names_evidence_of_its_own() {
    let mut world = World::ceremony();
    let Entry::Approve(alice) = world.approve_genesis(ALICE) else { unreachable!() };
    let without = Approve { witness: None, ..alice.clone() };
    assert_eq!(world.refusal(Entry::Approve(without)), FoldError::WitnessMissing);
    world.must(Entry::Approve(alice.clone()));
    let Entry::Approve(bob) = world.approve_genesis(BOB) else { unreachable!() };
    let borrowed = Approve { witness: alice.witness, ..bob };
    assert_eq!(world.refusal(Entry::Approve(borrowed)), FoldError::WitnessRepeated);
}

#[test]
fn an_approver_signs_the_genesis_once() {
    let mut world = World::ceremony();
    let entry = world.approve_genesis(ALICE);
    world.must(entry.clone());
    assert_eq!(world.refusal(entry), FoldError::AlreadyApproved { approver: "alice".parse().unwrap() });
}

#[test]
fn only_approvers_sign_the_genesis() {
    let mut world = World::ceremony();
    let stranger = world.approve_genesis(9);
    assert_eq!(world.refusal(stranger).code(), "not-an-approver");
    let Entry::Approve(mut forged) = world.approve_genesis(ALICE) else { unreachable!() };
    forged.signature = Person::new(ALICE).sign(b"something else");
    assert_eq!(world.refusal(Entry::Approve(forged)).code(), "sshsig-invalid");
    let Entry::Approve(mut no_statement) = world.approve_genesis(ALICE) else { unreachable!() };
    no_statement.statement = "{}".to_owned();
    assert_eq!(world.refusal(Entry::Approve(no_statement)).code(), "statement-malformed");
}

#[test]
fn the_genesis_is_not_approved_again_later() {
    let mut world = World::open();
    let entry = world.approve_genesis(ALICE);
    assert_eq!(world.refusal(entry), FoldError::WitnessUnexpected);
    let statement = world.statement(ApprovalAction::Genesis, world.genesis.vault_id());
    let entry = world.signed(ALICE, statement, None);
    assert_eq!(world.refusal(entry), FoldError::ProposalUnknown);
}

#[test]
fn a_run_starts_once() {
    let mut world = World::open();
    let start = world.start(1);
    world.must(start.clone());
    assert_eq!(world.refusal(start), FoldError::RunRepeated);
    let next = world.start(2);
    world.must(next);
}

fn deny_summary(world: &World, before: u64) -> Entry {
    let since = UnixTime(world.now.seconds() + 60 - before);
    let counts = [("ek-anchor-unknown".parse().unwrap(), 3)].into();
    Entry::DenySummary(DenySummary { time: world.now, since, counts })
}

#[test]
fn refusals_are_recorded_and_change_nothing_else() {
    let mut world = World::with_model();
    let deny = Entry::Deny(Deny {
        time: world.now,
        code: "pcr-not-allowed".parse().unwrap(),
        action: Action::Load,
        rule: "minilm".parse().unwrap(),
        model: "minilm".parse().unwrap(),
        version: "1.0".parse().unwrap(),
        platform: Sha256Digest::of(b"guest"),
        evidence: Sha256Digest::of(b"evidence"),
        workload: None,
    });
    world.must(deny);
    let summary = deny_summary(&world, 120);
    world.must(summary);
    assert_eq!(world.leases(), 0);
    let backwards = deny_summary(&world, 59);
    assert_eq!(world.refusal(backwards), FoldError::SinceAfterTime);
}
