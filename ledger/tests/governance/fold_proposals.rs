//! Proposals, approvals and their effects.

use attestation::{Sha256Digest, UnixTime};
use ledger::approvals::{ApprovalAction, ApprovalStatement};
use ledger::entry::{Entry, ModelPublished, PolicyInForce, Proposal, ProposedModel};
use ledger::state::{FoldError, PROPOSALS_PER_PROPOSER_MAX, Subject};

use crate::support::keys::Person;
use crate::support::policy_text;
use crate::support::world::{ALICE, BOB, CAROL, World, publisher};

const OTHER: Sha256Digest = Sha256Digest::from_bytes([0x44; 32]);

#[test]
fn a_policy_changes_by_proposal_and_approvals() {
    let mut world = World::open();
    let text = world.next_policy(|text| text.replace("max_leases = 4", "max_leases = 5"));
    let (index, object) = world.must_propose_policy(&text);
    {
        let pending: Vec<_> = world.vault().pending(world.now).collect();
        assert_eq!((pending.len(), pending[0].entry(), pending[0].object()), (1, index, object));
        assert_eq!((pending[0].threshold(), pending[0].approved_by(world.now).count()), (2, 0));
        assert!(matches!(pending[0].subject(), Subject::Policy { proposer, .. } if proposer.as_str() == "alice"));
    }
    for (person, given) in [(BOB, 0), (CAROL, 1)] {
        let early = world.policy_in_force(index, object);
        assert_eq!(world.refusal(early), FoldError::ThresholdNotReached { given, threshold: 2 });
        let entry = world.approve(person, ApprovalAction::Policy, object);
        world.must(entry);
    }
    assert!(world.vault().pending(world.now).next().unwrap().is_approved(world.now));
    let entry = world.policy_in_force(index, object);
    world.must(entry);
    assert_eq!((world.policy().serial(), world.policy().digest()), (2, object));
    assert_eq!(world.vault().pending(world.now).count(), 0);
}

/// The refusal of Alice's proposal of a policy.
fn policy_refusal(change: impl FnOnce(String) -> String) -> FoldError {
    let mut world = World::open();
    let text = world.next_policy(change);
    let entry = world.propose(Proposal::Policy(world.proposed_policy(ALICE, &text)));
    world.refusal(entry)
}

#[test]
fn a_proposed_policy_follows_the_one_in_force() {
    let with_line = |text: String, key: &str, line: String| {
        let old = text.lines().find(|line| line.starts_with(key)).unwrap().to_owned();
        text.replacen(&old, &line, 1)
    };
    let vault = policy_refusal(|text| with_line(text, "vault", format!("vault = \"{OTHER}\"")));
    assert_eq!(vault, FoldError::PolicyOfAnotherVault);
    let serial = policy_refusal(|text| with_line(text, "serial", "serial = 3".to_owned()));
    assert_eq!(serial, FoldError::PolicySerial { in_force: 1, found: 3 });
    let prev = policy_refusal(|text| with_line(text, "prev", format!("prev = \"{OTHER}\"")));
    assert_eq!(prev, FoldError::PolicyPrev);
    let first = World::open().policy_text;
    assert_eq!(policy_refusal(|_| first), FoldError::PolicyIsFirst);
    assert_eq!(policy_refusal(|_| "format = 1".to_owned()).code(), "policy-key-missing");
    let over = policy_refusal(|text| text.replace("2027-03-01", "2027-01-01"));
    assert_eq!(over, FoldError::PolicyExpired { not_after: UnixTime(1_798_761_600) });
}

#[test]
fn a_later_policy_asks_of_its_keeper_what_the_root_is_sealed_to() {
    let snp = policy_text::snp();
    let keeper = |text: &str| {
        let (begin, end) = (text.find("[keeper]").unwrap(), text.find("[publish").unwrap());
        text[begin..end].to_owned()
    };
    let rules = |text: &str| {
        let (begin, end) = (text.find("[release").unwrap(), text.find("[audit]").unwrap());
        text[begin..end].to_owned()
    };
    let to_snp = |text: String| text.replace(&keeper(&text), &keeper(&snp)).replace(&rules(&text), &rules(&snp));
    let refused = policy_refusal(to_snp);
    assert_eq!((&refused, refused.code()), (&FoldError::PolicyKeeperProof, "policy-keeper-proof"));
}

#[test]
fn a_later_policy_has_the_witnesses_of_the_genesis() {
    let refused = policy_refusal(|text| text + &policy_text::witnesses());
    assert_eq!((&refused, refused.code()), (&FoldError::PolicyWitnesses, "policy-witnesses-changed"));
}

/// The refusal of Alice's proposal of a good policy with her statement changed.
fn proposal_statement_refusal(change: impl FnOnce(&mut ApprovalStatement)) -> FoldError {
    let mut world = World::open();
    let text = world.next_policy(|text| text);
    let mut statement = world.statement(ApprovalAction::ProposePolicy, Sha256Digest::of(text.as_bytes()));
    change(&mut statement);
    let entry = world.propose(Proposal::Policy(world.proposed_policy_saying(ALICE, &text, statement)));
    world.refusal(entry)
}

#[test]
fn a_proposal_of_a_policy_is_signed_for_exactly_that() {
    // An approval of the same policy is not a proposal of it.
    assert_eq!(proposal_statement_refusal(|s| s.action = ApprovalAction::Policy), FoldError::ActionMismatch);
    assert_eq!(proposal_statement_refusal(|s| s.object = OTHER), FoldError::ObjectMismatch);
    assert_eq!(proposal_statement_refusal(|s| s.previous = OTHER), FoldError::PreviousMismatch);
    assert_eq!(proposal_statement_refusal(|s| s.vault = OTHER), FoldError::VaultMismatch);
    let serial = proposal_statement_refusal(|s| s.serial = 2);
    assert_eq!(serial, FoldError::SerialMismatch { expected: 1, found: 2 });
    let not_after = UnixTime(World::open().now.seconds() - 1);
    let expired = proposal_statement_refusal(|s| s.not_after = not_after);
    assert_eq!(expired, FoldError::StatementExpired { not_after });
}

#[test]
fn a_proposal_of_a_policy_is_signed_by_an_approver_and_names_its_text() {
    let mut world = World::open();
    let text = world.next_policy(|text| text);
    let good = world.proposed_policy(ALICE, &text);
    let stranger = world.propose(Proposal::Policy(world.proposed_policy(9, &text)));
    assert_eq!(world.refusal(stranger).code(), "not-an-approver");
    let mut wrong = good.clone();
    wrong.signature = Person::new(ALICE).sign(b"another statement");
    let entry = world.propose(Proposal::Policy(wrong));
    assert_eq!(world.refusal(entry).code(), "sshsig-invalid");
    let mut wrong = good;
    wrong.object = OTHER;
    let entry = world.propose(Proposal::Policy(wrong));
    assert_eq!(world.refusal(entry), FoldError::ObjectMismatch);
}

#[test]
fn the_same_is_not_proposed_twice() {
    let mut world = World::open();
    let text = world.next_policy(|text| text);
    world.must_propose_policy(&text);
    let again = world.propose(Proposal::Policy(world.proposed_policy(BOB, &text)));
    assert_eq!(world.refusal(again.clone()), FoldError::ProposalRepeated);
    // Once it is over it may be proposed anew; the approvals of the old proposal do not count for the new one.
    let object = Sha256Digest::of(text.as_bytes());
    let entry = world.approve(CAROL, ApprovalAction::Policy, object);
    world.must(entry);
    world.pass(3601);
    let again = world.propose(Proposal::Policy(world.proposed_policy(BOB, &text)));
    world.must(again);
    assert_eq!(world.vault().pending(world.now).next().unwrap().approved_by(world.now).count(), 0);
}

#[test]
fn one_proposer_cannot_crowd_out_the_others() {
    let mut world = World::open();
    for n in 0..PROPOSALS_PER_PROPOSER_MAX {
        let text = world.next_policy(|text| format!("{text}# {n}\n"));
        world.must_propose_policy(&text);
    }
    let text = world.next_policy(|text| format!("{text}# one more\n"));
    let entry = world.propose(Proposal::Policy(world.proposed_policy(ALICE, &text)));
    assert_eq!(world.refusal(entry), FoldError::TooManyProposals);
    let entry = world.propose(Proposal::Policy(world.proposed_policy(BOB, &text)));
    world.must(entry);
}

#[test]
fn a_proposer_may_approve_only_where_the_policy_in_force_says_so() {
    let mut world = World::open();
    let text = world.next_policy(|text| text.replace("proposer_may_approve = false", "proposer_may_approve = true"));
    let (_, object) = world.must_propose_policy(&text);
    let entry = world.approve(ALICE, ApprovalAction::Policy, object);
    assert_eq!(world.refusal(entry), FoldError::ProposerMayNotApprove { approver: "alice".parse().unwrap() });
    for person in [BOB, CAROL] {
        let entry = world.approve(person, ApprovalAction::Policy, object);
        world.must(entry);
    }
}

#[test]
fn where_it_says_so_the_proposers_approval_counts() {
    let change = |text: String| text.replace("proposer_may_approve = false", "proposer_may_approve = true");
    let mut world = World::with_policy(change).opened();
    let text = world.next_policy(|text| text);
    let (index, object) = world.must_propose_policy(&text);
    for person in [ALICE, BOB] {
        let entry = world.approve(person, ApprovalAction::Policy, object);
        world.must(entry);
    }
    let entry = world.policy_in_force(index, object);
    world.must(entry);
}

/// The refusal of Bob's approval with his statement changed.
fn approval_refusal(change: impl FnOnce(&mut ApprovalStatement)) -> FoldError {
    let mut world = World::open();
    let text = world.next_policy(|text| text);
    let (_, object) = world.must_propose_policy(&text);
    let mut statement = world.statement(ApprovalAction::Policy, object);
    change(&mut statement);
    let entry = world.signed(BOB, statement, None);
    world.refusal(entry)
}

#[test]
fn an_approval_is_about_exactly_the_proposal() {
    assert_eq!(approval_refusal(|s| s.action = ApprovalAction::Model), FoldError::ActionMismatch);
    assert_eq!(approval_refusal(|s| s.action = ApprovalAction::ProposePolicy), FoldError::ActionMismatch);
    assert_eq!(approval_refusal(|s| s.object = OTHER), FoldError::ProposalUnknown);
    assert_eq!(approval_refusal(|s| s.previous = OTHER), FoldError::PreviousMismatch);
    assert_eq!(approval_refusal(|s| s.vault = OTHER), FoldError::VaultMismatch);
    assert_eq!(approval_refusal(|s| s.serial = 0), FoldError::SerialMismatch { expected: 1, found: 0 });
    let not_after = UnixTime(World::open().now.seconds() - 1);
    assert_eq!(approval_refusal(|s| s.not_after = not_after), FoldError::StatementExpired { not_after });
}

#[test]
fn approvals_are_of_distinct_approvers() {
    let mut world = World::open();
    let text = world.next_policy(|text| text);
    let (_, object) = world.must_propose_policy(&text);
    let entry = world.approve(BOB, ApprovalAction::Policy, object);
    world.must(entry.clone());
    let twice = FoldError::AlreadyApproved { approver: "bob".parse().unwrap() };
    assert_eq!(world.refusal(entry), twice);
    // A fresh statement is no second person.
    world.pass(1);
    let entry = world.approve(BOB, ApprovalAction::Policy, object);
    assert_eq!(world.refusal(entry), twice);
    let stranger = world.approve(9, ApprovalAction::Policy, object);
    assert_eq!(world.refusal(stranger).code(), "not-an-approver");
    let Entry::Approve(mut witnessed) = world.approve(CAROL, ApprovalAction::Policy, object) else { unreachable!() };
    witnessed.witness = Some(ledger::entry::GenesisWitness { evidence: OTHER, binding: OTHER });
    assert_eq!(world.refusal(Entry::Approve(witnessed)), FoldError::WitnessUnexpected);
}

#[test]
fn an_approval_counts_until_its_end_and_can_be_given_anew() {
    let mut world = World::open();
    let text = world.next_policy(|text| text);
    let (index, object) = world.must_propose_policy(&text);
    let mut short = world.statement(ApprovalAction::Policy, object);
    short.not_after = world.now.plus(10);
    let entry = world.signed(BOB, short, None);
    world.must(entry);
    let entry = world.approve(CAROL, ApprovalAction::Policy, object);
    world.must(entry);
    world.pass(11);
    let late = world.policy_in_force(index, object);
    assert_eq!(world.refusal(late.clone()), FoldError::ThresholdNotReached { given: 1, threshold: 2 });
    let entry = world.approve(BOB, ApprovalAction::Policy, object);
    world.must(entry);
    world.must(late);
}

#[test]
fn a_proposal_ends() {
    let mut world = World::open();
    let text = world.next_policy(|text| text);
    let (index, object) = world.must_propose_policy(&text);
    let not_after = world.now.plus(3600);
    world.pass(3600);
    for person in [BOB, CAROL] {
        let entry = world.approve(person, ApprovalAction::Policy, object);
        world.must(entry);
    }
    world.pass(1);
    let entry = world.approve(BOB, ApprovalAction::Policy, object);
    assert_eq!(world.refusal(entry), FoldError::ProposalExpired { not_after });
    let entry = world.policy_in_force(index, object);
    assert_eq!(world.refusal(entry), FoldError::ProposalExpired { not_after });
    assert_eq!(world.vault().pending(world.now).count(), 0);
}

/// One approver who holds back until it is too late must not put a policy that can't take effect before all others.
#[test]
fn a_proposed_policy_waits_no_longer_than_its_own_end() {
    let mut world = World::open();
    let short = world.next_policy(|text| text.replace("2027-03-01T00:00:00Z", "2027-01-15T08:30:00Z"));
    let (_, object) = world.must_propose_policy(&short);
    let entry = world.approve(BOB, ApprovalAction::Policy, object);
    world.must(entry);
    let not_after = world.now.plus(1800);
    world.now = not_after.plus(1);
    let entry = world.approve(CAROL, ApprovalAction::Policy, object);
    assert_eq!(world.refusal(entry), FoldError::ProposalExpired { not_after });
    assert!(world.vault().due(world.now).is_none());
    world.must_change_policy(|text| text);
}

#[test]
fn a_model_that_an_expired_policy_holds_up_does_not_hold_up_the_next_policy() {
    let mut world = World::open();
    let model = world.proposed_model();
    let object = model.object;
    let entry = world.propose(Proposal::Model(ProposedModel { not_after: UnixTime(u64::MAX), ..model }));
    world.must(entry);
    world.now = world.policy().not_after();
    for person in [ALICE, BOB] {
        let entry = world.approve(person, ApprovalAction::Model, object);
        world.must(entry);
    }
    assert_eq!(world.vault().due(world.now).unwrap().object(), object);
    world.pass(1);
    assert!(world.vault().due(world.now).is_none());
    let text = world.next_policy(|text| text.replace("2027-03-01", "2028-03-01"));
    let (_, policy) = world.must_propose_policy(&text);
    for person in [BOB, CAROL] {
        let entry = world.approve(person, ApprovalAction::Policy, policy);
        world.must(entry);
    }
    assert_eq!(world.vault().due(world.now).unwrap().object(), policy);
}

#[test]
fn a_policy_comes_into_force_as_it_was_approved() {
    let mut world = World::open();
    let text = world.next_policy(|text| text);
    let (index, object) = world.must_propose_policy(&text);
    for person in [BOB, CAROL] {
        let entry = world.approve(person, ApprovalAction::Policy, object);
        world.must(entry);
    }
    let good = PolicyInForce { time: world.now, proposal: index, object, serial: 2 };
    let mut refused = |change: fn(&mut PolicyInForce)| {
        let mut effect = good.clone();
        change(&mut effect);
        world.refusal(Entry::Policy(effect))
    };
    assert_eq!(refused(|effect| effect.proposal += 1), FoldError::ProposalUnknown);
    assert_eq!(refused(|effect| effect.proposal = 0), FoldError::ProposalUnknown);
    assert_eq!(refused(|effect| effect.object = OTHER), FoldError::ObjectMismatch);
    assert_eq!(refused(|effect| effect.serial = 3), FoldError::SerialMismatch { expected: 2, found: 3 });
    world.must(Entry::Policy(good.clone()));
    assert_eq!(world.refusal(Entry::Policy(good)), FoldError::ProposalUnknown);
}

#[test]
fn a_policy_voids_everything_that_waits() {
    let mut world = World::open();
    let model = world.proposed_model();
    let (at, object) = (world.state.size(), model.object);
    let entry = world.propose(Proposal::Model(model));
    world.must(entry);
    let waiting = world.next_policy(|text| format!("{text}# waits\n"));
    let (_, waiting) = world.must_propose_policy(&waiting);
    for person in [ALICE, BOB] {
        let entry = world.approve(person, ApprovalAction::Model, object);
        world.must(entry);
    }
    world.must_change_policy(|text| text.replace("threshold = 2", "threshold = 1"));
    let entry = world.model_published(at, object);
    assert_eq!(world.refusal(entry), FoldError::ProposalUnknown);
    let entry = world.approve(BOB, ApprovalAction::Policy, waiting);
    assert_eq!(world.refusal(entry), FoldError::ProposalUnknown);
}

#[test]
fn after_a_change_the_new_approvers_decide() {
    let mut world = World::open();
    let dave = Person::new(4).key_line();
    let carol = Person::new(CAROL).key_line();
    world.must_change_policy(|text| text.replace(&carol, &dave).replace("id = \"carol\"", "id = \"dave\""));
    world.policy_text = world.policy_text.replace(&carol, &dave).replace("id = \"carol\"", "id = \"dave\"");
    let policy = world.vault().policy().clone();
    let head = format!("vault = \"{}\"\nserial = 3\nprev = \"{}\"\n", world.genesis.vault_id(), policy.digest());
    let text = world.policy_text.replace("vault = \"genesis\"\nserial = 1\nprev = \"none\"\n", &head);
    let (_, object) = world.must_propose_policy(&text);
    let old = world.approve(CAROL, ApprovalAction::Policy, object);
    assert_eq!(world.refusal(old).code(), "not-an-approver");
    let new = world.approve(4, ApprovalAction::Policy, object);
    world.must(new);
}

#[test]
fn an_expired_policy_can_only_be_replaced() {
    let mut world = World::open();
    let model = world.proposed_model();
    let (at, object) = (world.state.size(), model.object);
    let entry = world.propose(Proposal::Model(ProposedModel { not_after: UnixTime(u64::MAX), ..model }));
    world.must(entry);
    let entry = world.approve(ALICE, ApprovalAction::Model, object);
    world.must(entry);
    let not_after = world.policy().not_after();
    world.now = not_after.plus(1);
    let expired = FoldError::PolicyExpired { not_after };
    let entry = world.approve(BOB, ApprovalAction::Model, object);
    assert_eq!(world.refusal(entry), expired);
    let entry = world.model_published(at, object);
    assert_eq!(world.refusal(entry), expired);
    let entry = world.propose(Proposal::Model(world.proposed_model()));
    assert_eq!(world.refusal(entry), expired);
    world.must_change_policy(|text| text.replace("2027-03-01", "2028-03-01"));
}

#[test]
fn a_model_is_published_by_its_publisher_and_approvers() {
    let world = World::with_model();
    let (model, version) = ("minilm".parse().unwrap(), "1.0".parse().unwrap());
    let published = world.vault().model(&model, &version).unwrap();
    assert_eq!((published.entry, &published.proposed), (world.state.size() - 1, &world.proposed_model()));
    assert_eq!(world.vault().models().count(), 1);
}

/// The refusal of the good model's proposal after one change.
fn model_refusal(change: impl FnOnce(&mut ProposedModel)) -> FoldError {
    let mut world = World::open();
    let mut proposed = world.proposed_model();
    change(&mut proposed);
    let entry = world.propose(Proposal::Model(proposed));
    world.refusal(entry)
}

#[test]
fn a_proposed_model_is_what_its_object_names_and_its_publisher_may_publish() {
    assert_eq!(model_refusal(|model| model.object = OTHER), FoldError::ObjectMismatch);
    assert_eq!(model_refusal(|model| model.manifest = OTHER), FoldError::ObjectMismatch);
    assert_eq!(model_refusal(|model| model.model_sig = OTHER), FoldError::ObjectMismatch);
    assert_eq!(model_refusal(|model| model.version = "2.0".parse().unwrap()), FoldError::ObjectMismatch);
    assert_eq!(model_refusal(|model| model.publisher = OTHER), FoldError::PublisherNotAllowed);
    let not_after = UnixTime(World::open().now.seconds() - 1);
    let expired = model_refusal(|model| model.not_after = not_after);
    assert_eq!(expired, FoldError::ProposalExpired { not_after });
    let other = model_refusal(|model| {
        model.model = "gpt".parse().unwrap();
        model.object = ledger::approvals::model_object(&model.model, &model.version, model.manifest, model.model_sig);
    });
    assert_eq!(other, FoldError::PublisherNotAllowed);
}

#[test]
fn a_model_is_published_as_it_was_approved() {
    let mut world = World::open();
    let proposed = world.proposed_model();
    let (at, object) = (world.state.size(), proposed.object);
    let entry = world.propose(Proposal::Model(proposed));
    world.must(entry);
    let (policy_at, policy) = {
        let text = world.next_policy(|text| text);
        world.must_propose_policy(&text)
    };
    let early = world.model_published(at, object);
    assert_eq!(world.refusal(early), FoldError::ThresholdNotReached { given: 0, threshold: 2 });
    for person in [ALICE, BOB] {
        let entry = world.approve(person, ApprovalAction::Model, object);
        world.must(entry);
    }
    let Entry::Model(good) = world.model_published(at, object) else { unreachable!() };
    let mut refused = |change: &dyn Fn(&mut ModelPublished)| {
        let mut effect = good.clone();
        change(&mut effect);
        world.refusal(Entry::Model(effect))
    };
    assert_eq!(refused(&|effect| effect.proposal = 0), FoldError::ProposalUnknown);
    assert_eq!(refused(&|effect| effect.object = OTHER), FoldError::ObjectMismatch);
    assert_eq!(refused(&|effect| effect.model = "llama".parse().unwrap()), FoldError::ObjectMismatch);
    assert_eq!(refused(&|effect| effect.version = "1.1".parse().unwrap()), FoldError::ObjectMismatch);
    assert_eq!(refused(&|effect| effect.proposal = policy_at), FoldError::ActionMismatch);
    let crossed = world.policy_in_force(at, policy);
    assert_eq!(world.refusal(crossed), FoldError::ActionMismatch);
    world.must(Entry::Model(good));
}

#[test]
fn a_version_is_published_once() {
    let mut world = World::with_model();
    let entry = world.propose(Proposal::Model(world.proposed_model()));
    assert_eq!(world.refusal(entry), FoldError::ModelAlreadyPublished);

    // Two proposals of one version: when one is published, the other is void.
    let mut world = World::open();
    let mut other = world.proposed_model();
    other.model_sig = OTHER;
    other.object = ledger::approvals::model_object(&other.model, &other.version, other.manifest, OTHER);
    let object = other.object;
    let entry = world.propose(Proposal::Model(other));
    world.must(entry);
    let mut world = world.published();
    let entry = world.approve(CAROL, ApprovalAction::Model, object);
    assert_eq!(world.refusal(entry), FoldError::ProposalUnknown);
}

#[test]
fn the_strictest_of_several_publish_rules_counts() {
    let again = |text: String| {
        let rule = text.split("[publish.ours]").nth(1).unwrap().split("[release").next().unwrap();
        let stricter = format!("[publish.strict]{}", rule.replace("approvals = 2", "approvals = 3"));
        text.replace("[release.minilm]", &format!("{stricter}\n[release.minilm]"))
    };
    let mut world = World::with_policy(again).opened();
    assert_eq!(world.policy().approvals_to_publish(&"minilm".parse().unwrap(), publisher()), Some(3));
    let entry = world.propose(Proposal::Model(world.proposed_model()));
    world.must(entry);
    assert_eq!(world.vault().pending(world.now).next().unwrap().threshold(), 3);
}
