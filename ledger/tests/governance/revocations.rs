//! Revocations: proposed, approved, in force until they are lifted.

use attestation::Sha256Digest;
use ledger::approvals::{ApprovalAction, ApprovalStatement};
use ledger::decide::{DenialReason, decide, decide_renew};
use ledger::entry::{Entry, Proposal, ProposedRevocation, Release, Revoke};
use ledger::revocation::{ActKind, Marks, RevocationAct, Scope};
use ledger::state::{FoldError, PROPOSALS_PER_PROPOSER_MAX, Subject};

use crate::support::evidence::Guest;
use crate::support::keys::Person;
use crate::support::policy_text::{self, LAUNCH_GUEST, PCR_0, PCR_11_GUEST, PCR_11_KEEPER};
use crate::support::world::{self, ALICE, BOB, CAROL, LEASE_SECS, World, marks};

const OTHER: Sha256Digest = Sha256Digest::from_bytes([0x44; 32]);

/// One approver may revoke.
fn with_one(text: String) -> String {
    text.replace("threshold = 2\n", "threshold = 2\nrevoke_threshold = 1\n")
}

fn vault() -> World {
    World::with_policy(with_one).opened().published()
}

pub(crate) fn scope(json: &str) -> Scope {
    serde_json::from_str(json).unwrap_or_else(|error| panic!("{json}: {error}"))
}

fn model() -> Scope {
    scope(r#"{"by":"model","model":"minilm"}"#)
}

pub(crate) fn revoke(world: &World, scope: Scope) -> RevocationAct {
    RevocationAct::Revoke { serial: world.vault().next_revocation(), scope }
}

fn proposed(world: &World, person: u8, act: RevocationAct) -> ProposedRevocation {
    let statement = world.statement(act.kind().approval(), act.object());
    proposed_saying(person, act, &statement)
}

fn proposed_saying(person: u8, revocation: RevocationAct, statement: &ApprovalStatement) -> ProposedRevocation {
    let statement = String::from_utf8(statement.encode()).unwrap();
    let signature = Person::new(person).sign(statement.as_bytes());
    ProposedRevocation { object: revocation.object(), revocation, statement, signature }
}

/// Proposes; gives the index.
#[track_caller]
pub(crate) fn must_propose(world: &mut World, person: u8, act: RevocationAct) -> u64 {
    let index = world.state.size();
    let entry = world.propose(Proposal::Revocation(proposed(world, person, act)));
    world.must(entry);
    index
}

#[track_caller]
fn proposal_refusal(world: &mut World, act: RevocationAct) -> FoldError {
    let entry = world.propose(Proposal::Revocation(proposed(world, ALICE, act)));
    world.refusal(entry)
}

fn effect(world: &World, proposal: u64, act: &RevocationAct, leases: u32) -> Entry {
    Entry::Revoke(Revoke { time: world.now, proposal, object: act.object(), act: act.kind(), leases })
}

/// Alice revokes; gives the index of the `revoke` entry.
#[track_caller]
pub(crate) fn must_revoke(world: &mut World, scope: Scope, leases: u32) -> u64 {
    let act = revoke(world, scope);
    let proposal = must_propose(world, ALICE, act.clone());
    assert_eq!(world.vault().due(world.now).map(|due| due.entry()), Some(proposal));
    let index = world.state.size();
    let entry = effect(world, proposal, &act, leases);
    world.must(entry);
    assert!(world.vault().due(world.now).is_none());
    index
}

/// Alice proposes it, Bob and Carol approve it.
#[track_caller]
fn must_lift(world: &mut World, entry: u64) {
    let act = RevocationAct::Lift { entry };
    let proposal = must_propose(world, ALICE, act.clone());
    for person in [BOB, CAROL] {
        let entry = world.approve(person, ApprovalAction::LiftRevocation, act.object());
        world.must(entry);
    }
    let entry = effect(world, proposal, &act, 0);
    world.must(entry);
}

fn release(world: &World, n: u32) -> Entry {
    Entry::Release(Box::new(world.release(n)))
}

#[test]
fn a_revoked_lease_is_renewed_no_more_and_counts_until_its_end() {
    let mut world = vault();
    let (lease, ended) = (world.must_release(1), world.must_release(2));
    let revocation = must_revoke(&mut world, model(), 2);
    assert_eq!(world.vault().lease(lease).and_then(|lease| lease.revoked), Some(revocation));
    assert_eq!(world.vault().revoke_entry(revocation).map(|entry| entry.leases), Some(2));
    world.pass(10);
    let entry = world.renew(vec![world.renewal(lease)]);
    assert_eq!(world.refusal(entry), FoldError::Revoked { revocation });
    assert_eq!(world.leases(), 2);
    let entry = world.end(ended);
    world.must(entry);
    assert_eq!(world.leases(), 1);
    world.pass(LEASE_SECS - 10);
    assert_eq!(world.leases(), 1);
    world.pass(1);
    assert_eq!(world.leases(), 0);
    // What nobody holds any more is not kept.
    let entry = world.end(lease);
    world.must(entry);
    must_revoke(&mut world, scope(r#"{"by":"model","model":"llama"}"#), 0);
    assert_eq!(world.vault().revoke_entry(revocation), None);
}

#[test]
fn a_renewal_that_was_decided_before_a_revocation_does_not_come_behind_it() {
    let mut world = vault();
    let lease = world.must_release(1);
    world.pass(LEASE_SECS);
    let renewal = world.renewal(lease);
    // The lease has run out, and its renewal is not in the log yet.
    world.pass(1);
    let revocation = must_revoke(&mut world, model(), 0);
    let entry = world.renew(vec![renewal]);
    assert_eq!(world.refusal(entry), FoldError::Revoked { revocation });
}

#[test]
fn a_start_gives_a_revoked_lease_no_more_time() {
    let mut world = vault();
    let (revoked, other) = (world.must_release(1), world.must_release(2));
    must_revoke(&mut world, Scope::Lease { lease: revoked }, 1);
    world.pass(100);
    let entry = world.start(1);
    world.must(entry);
    let renew_by = |id| world.vault().lease(id).unwrap().renew_by;
    assert_eq!(renew_by(other), world.now.plus(LEASE_SECS));
    assert_eq!(renew_by(revoked).plus(100), world.now.plus(LEASE_SECS));
}

#[test]
fn the_worst_case_counts_a_renewal_that_may_have_been_until_the_revocation_and_the_drain_always() {
    const DRAIN_SECS: u64 = 30;
    let mut world = vault();
    let id = world.must_release(1);
    let ends_by = |world: &World| world.vault().ends_by(world.vault().lease(id).unwrap(), world.now);
    world.pass(100);
    assert_eq!(ends_by(&world), world.now.plus(LEASE_SECS + DRAIN_SECS));
    must_revoke(&mut world, model(), 1);
    assert_eq!(ends_by(&world).plus(100), world.now.plus(LEASE_SECS + DRAIN_SECS));
    // Without its rule nothing is renewed.
    let mut world = vault();
    let id = world.must_release(1);
    world.pass(100);
    world.must_change_policy(|text| text.replace("[release.minilm]", "[release.other]"));
    let ends_by = world.vault().ends_by(world.vault().lease(id).unwrap(), world.now);
    assert_eq!(ends_by.plus(100), world.now.plus(LEASE_SECS + DRAIN_SECS));
}

#[test]
fn each_scope_covers_what_it_names_and_nothing_else() {
    let guest = Sha256Digest::of(b"guest");
    let pcrs = |pairs: &str| format!(r#"{{"by":"pcrs","pcrs":{{{pairs}}}}}"#);
    for (named, other) in [
        (r#"{"by":"model","model":"minilm"}"#.to_owned(), r#"{"by":"model","model":"llama"}"#.to_owned()),
        (
            r#"{"by":"model","model":"minilm","version":"1.0"}"#.to_owned(),
            r#"{"by":"model","model":"minilm","version":"1.1"}"#.to_owned(),
        ),
        (r#"{"by":"group","group":"layer.0"}"#.to_owned(), r#"{"by":"group","group":"layer.1"}"#.to_owned()),
        (
            format!(r#"{{"by":"platform","platform":"{guest}"}}"#),
            format!(r#"{{"by":"platform","platform":"{OTHER}"}}"#),
        ),
        (pcrs(&format!(r#""11":"{PCR_11_GUEST}""#)), pcrs(&format!(r#""11":"{PCR_11_KEEPER}""#))),
        (
            pcrs(&format!(r#""0":"{PCR_0}","11":"{PCR_11_GUEST}""#)),
            pcrs(&format!(r#""0":"{PCR_0}","4":"{PCR_0}","11":"{PCR_11_GUEST}""#)),
        ),
        // The lease that is there.
        (String::new(), String::new()),
    ] {
        let mut first = vault();
        let lease = first.must_release(1);
        let named = if named.is_empty() { Scope::Lease { lease } } else { scope(&named) };
        let revocation = must_revoke(&mut first, named.clone(), 1);
        let entry = release(&first, 2);
        match named {
            Scope::Lease { .. } => first.must(entry),
            _ => assert_eq!(first.refusal(entry), FoldError::Revoked { revocation }, "{named}"),
        }
        if !other.is_empty() {
            let mut second = vault();
            second.must_release(1);
            must_revoke(&mut second, scope(&other), 0);
            second.must_release(2);
        }
    }
}

#[test]
fn a_release_that_does_not_say_what_it_is_may_be_whatever_its_rule_allows() {
    let unmarked = |world: &World| Release { marks: None, ..world.release(1) };
    for (json, covered) in [
        (r#"{"by":"group","group":"other"}"#.to_owned(), true),
        (r#"{"by":"group","group":"layer.1"}"#.to_owned(), false),
        (format!(r#"{{"by":"pcrs","pcrs":{{"11":"{PCR_11_GUEST}"}}}}"#), true),
        (format!(r#"{{"by":"pcrs","pcrs":{{"11":"{PCR_11_KEEPER}"}}}}"#), false),
        (format!(r#"{{"by":"launch","launch":"{LAUNCH_GUEST}"}}"#), false),
    ] {
        let mut world = vault();
        let entry = Entry::Release(Box::new(unmarked(&world)));
        world.must(entry);
        must_revoke(&mut world, scope(&json), u32::from(covered));
    }
}

#[test]
fn a_launch_digest_is_found_in_the_release_or_else_in_the_rule() {
    let rule = ledger::policy::Policy::parse(&policy_text::snp()).unwrap();
    let rule = rule.release_rule(&world::rule()).unwrap().clone();
    let world = vault();
    let release = world.release(1);
    let launch = |hex: &str| scope(&format!(r#"{{"by":"launch","launch":"{hex}"}}"#));
    let said: Marks = serde_json::from_str(&format!(r#"{{"launch":"{}"}}"#, "55".repeat(48))).unwrap();
    for (marks, hex, covered) in [
        (Some(&said), "55".repeat(48), true),
        (Some(&said), LAUNCH_GUEST.to_owned(), false),
        (None, LAUNCH_GUEST.to_owned(), true),
        (None, "55".repeat(48), false),
    ] {
        let held = ledger::revocation::Holding {
            lease: release.lease,
            model: &release.model,
            version: &release.version,
            platform: release.platform,
            rule: &rule,
            marks,
        };
        assert_eq!(launch(&hex).covers(&held), covered);
    }
}

#[test]
fn a_release_says_only_what_its_rule_allows() {
    let json = |text: &str| serde_json::from_str::<Marks>(text).unwrap();
    let pcrs = |value: &str| format!(r#""pcrs":{{"0":"{PCR_0}","11":"{value}"}}"#);
    let many: Vec<String> = (0..33).map(|n| format!("\"g{n:02}\"")).collect();
    for refused in [
        json(&format!(r#"{{"groups":["layer.1"],{}}}"#, pcrs(PCR_11_GUEST))),
        json(&format!(r#"{{"groups":[],{}}}"#, pcrs(PCR_11_GUEST))),
        json(&format!(r#"{{"groups":[{}],{}}}"#, many.join(","), pcrs(PCR_11_GUEST))),
        json(&format!(r#"{{"groups":["other"],{}}}"#, pcrs(PCR_11_KEEPER))),
        json(r#"{"groups":["other"]}"#),
        json(&format!(r#"{{"groups":["other"],"launch":"{LAUNCH_GUEST}",{}}}"#, pcrs(PCR_11_GUEST))),
    ] {
        let mut world = vault();
        let release = Release { marks: Some(refused), ..world.release(1) };
        assert_eq!(world.refusal(Entry::Release(Box::new(release))), FoldError::MarksImpossible);
    }
    let mut world = vault();
    let release = Release { marks: Some(marks(&["header", "layer.0", "other"])), ..world.release(1) };
    world.must(Entry::Release(Box::new(release)));
}

#[test]
fn no_policy_undoes_a_revocation_and_a_lift_does() {
    let mut world = vault();
    let lease = world.must_release(1);
    let revocation = must_revoke(&mut world, model(), 1);
    world.must_change_policy(|text| text.replace("max_leases = 4", "max_leases = 8"));
    let entry = release(&world, 2);
    assert_eq!(world.refusal(entry), FoldError::Revoked { revocation });
    assert_eq!(world.vault().revocations().map(|(entry, _)| entry).collect::<Vec<_>>(), [revocation]);
    must_lift(&mut world, revocation);
    assert_eq!(world.vault().revocations().count(), 0);
    world.must_release(2);
    // The lease that it ended stays ended.
    let entry = world.renew(vec![world.renewal(lease)]);
    assert_eq!(world.refusal(entry), FoldError::Revoked { revocation });
}

#[test]
fn a_revocation_waits_for_its_own_threshold() {
    // Not written: as many as a policy takes. Whoever proposes it has said yes.
    let mut world = World::with_model();
    let act = revoke(&world, model());
    let proposal = must_propose(&mut world, ALICE, act.clone());
    let pending = world.vault().pending(world.now).next().unwrap();
    assert!(matches!(pending.subject(), Subject::Revocation { proposer, .. } if proposer.as_str() == "alice"));
    assert_eq!((pending.threshold(), pending.approved_by(world.now).count()), (2, 1));
    assert!(world.vault().due(world.now).is_none());
    let entry = effect(&world, proposal, &act, 0);
    assert_eq!(world.refusal(entry), FoldError::ThresholdNotReached { given: 1, threshold: 2 });
    let entry = world.approve(ALICE, ApprovalAction::Revoke, act.object());
    assert_eq!(world.refusal(entry), FoldError::AlreadyApproved { approver: "alice".parse().unwrap() });
    let entry = world.approve(BOB, ApprovalAction::LiftRevocation, act.object());
    assert_eq!(world.refusal(entry), FoldError::ActionMismatch);
    let entry = world.approve(BOB, ApprovalAction::Revoke, act.object());
    world.must(entry);
    let entry = effect(&world, proposal, &act, 0);
    world.must(entry);
}

#[test]
fn a_lift_takes_as_many_as_a_policy_and_its_proposer_is_not_one_of_them() {
    let mut world = vault();
    let revocation = must_revoke(&mut world, model(), 0);
    let act = RevocationAct::Lift { entry: revocation };
    let proposal = must_propose(&mut world, ALICE, act.clone());
    let pending = world.vault().pending(world.now).next().unwrap();
    assert_eq!((pending.threshold(), pending.approved_by(world.now).count()), (2, 0));
    let entry = world.approve(ALICE, ApprovalAction::LiftRevocation, act.object());
    assert_eq!(world.refusal(entry), FoldError::ProposerMayNotApprove { approver: "alice".parse().unwrap() });
    let entry = world.approve(BOB, ApprovalAction::Revoke, act.object());
    assert_eq!(world.refusal(entry), FoldError::ActionMismatch);
    let entry = world.approve(BOB, ApprovalAction::LiftRevocation, act.object());
    world.must(entry);
    let entry = effect(&world, proposal, &act, 0);
    assert_eq!(world.refusal(entry), FoldError::ThresholdNotReached { given: 1, threshold: 2 });
}

#[test]
fn an_expired_policy_keeps_nobody_from_revoking() {
    let mut world = vault();
    world.now = world.policy().not_after().plus(1);
    must_revoke(&mut world, model(), 0);
}

#[test]
fn old_signatures_revoke_and_lift_nothing_again() {
    let mut world = vault();
    let act = revoke(&world, model());
    let old = world.propose(Proposal::Revocation(proposed(&world, ALICE, act)));
    let first = must_revoke(&mut world, model(), 0);
    let lift = world.propose(Proposal::Revocation(proposed(&world, ALICE, RevocationAct::Lift { entry: first })));
    must_lift(&mut world, first);
    assert_eq!(world.refusal(old), FoldError::RevocationSerial { expected: 3, found: 1 });
    must_revoke(&mut world, model(), 0);
    assert_eq!(world.refusal(lift), FoldError::RevocationUnknown { entry: first });
}

#[test]
fn a_proposal_that_could_not_take_effect_is_refused() {
    let mut world = vault();
    let lease = world.must_release(1);
    let unknown = RevocationAct::Lift { entry: 3 };
    assert_eq!(proposal_refusal(&mut world, unknown), FoldError::RevocationUnknown { entry: 3 });
    let act = revoke(&world, Scope::Lease { lease: OTHER });
    assert_eq!(proposal_refusal(&mut world, act), FoldError::LeaseUnknown);
    let revocation = must_revoke(&mut world, model(), 1);
    for scope in [model(), Scope::Lease { lease }] {
        let act = revoke(&world, scope);
        assert_eq!(proposal_refusal(&mut world, act), FoldError::AlreadyRevoked { revocation });
    }
    let act = revoke(&world, scope(r#"{"by":"model","model":"llama"}"#));
    let good = proposed(&world, ALICE, act.clone());
    let entry = world.propose(Proposal::Revocation(ProposedRevocation { object: OTHER, ..good.clone() }));
    assert_eq!(world.refusal(entry), FoldError::ObjectMismatch);
    let stranger = world.propose(Proposal::Revocation(proposed(&world, 9, act.clone())));
    assert_eq!(world.refusal(stranger).code(), "not-an-approver");
    let mut wrong = world.statement(ApprovalAction::Revoke, act.object());
    wrong.action = ApprovalAction::Policy;
    let entry = world.propose(Proposal::Revocation(proposed_saying(ALICE, act.clone(), &wrong)));
    assert_eq!(world.refusal(entry), FoldError::ActionMismatch);
    let mut late = world.statement(ApprovalAction::Revoke, act.object());
    late.not_after = world.now;
    let entry = world.propose(Proposal::Revocation(proposed_saying(ALICE, act, &late)));
    world.pass(1);
    let Entry::Propose(mut propose) = entry else { unreachable!() };
    propose.time = world.now;
    assert_eq!(world.refusal(Entry::Propose(propose)), FoldError::StatementExpired { not_after: late.not_after });
}

#[test]
fn an_effect_is_of_its_proposal_and_ends_the_leases_that_it_says() {
    let mut world = vault();
    world.must_release(1);
    let act = revoke(&world, model());
    let proposal = must_propose(&mut world, ALICE, act.clone());
    let Entry::Revoke(good) = effect(&world, proposal, &act, 1) else { unreachable!() };
    for (wrong, expected) in [
        (Revoke { proposal: 0, ..good.clone() }, FoldError::ProposalUnknown),
        (Revoke { object: OTHER, ..good.clone() }, FoldError::ObjectMismatch),
        (Revoke { act: ActKind::Lift, ..good.clone() }, FoldError::ObjectMismatch),
        (Revoke { leases: 2, ..good.clone() }, FoldError::LeaseCountMismatch { expected: 1, found: 2 }),
    ] {
        assert_eq!(world.refusal(Entry::Revoke(wrong)), expected);
    }
    world.must(Entry::Revoke(good));
}

#[test]
fn a_revocation_that_another_one_overtook_is_not_due_for_ever() {
    let mut world = World::with_model();
    let lease = world.must_release(1);
    let (all, one) = (revoke(&world, model()), revoke(&world, Scope::Lease { lease }));
    let first = must_propose(&mut world, ALICE, all.clone());
    let second = must_propose(&mut world, BOB, one.clone());
    for object in [all.object(), one.object()] {
        let entry = world.approve(CAROL, ApprovalAction::Revoke, object);
        world.must(entry);
    }
    assert_eq!(world.vault().due(world.now).map(|due| due.entry()), Some(first));
    let entry = effect(&world, first, &all, 1);
    world.must(entry);
    assert!(world.vault().due(world.now).is_none());
    let entry = effect(&world, second, &one, 0);
    assert!(matches!(world.refusal(entry), FoldError::AlreadyRevoked { .. }));
}

#[test]
fn one_approver_has_so_many_revocations_waiting_and_leaves_room_for_policies() {
    let mut world = World::with_model();
    for n in 0..PROPOSALS_PER_PROPOSER_MAX {
        let platform = Sha256Digest::of(&[n as u8]);
        let act = revoke(&world, Scope::Platform { platform });
        must_propose(&mut world, ALICE, act);
    }
    let act = revoke(&world, model());
    assert_eq!(proposal_refusal(&mut world, act.clone()), FoldError::TooManyProposals);
    let text = world.next_policy(|text| text.replace("max_leases = 4", "max_leases = 8"));
    world.must_propose_policy(&text);
    must_propose(&mut world, BOB, act);
}

#[test]
fn nothing_revoked_is_released_or_renewed_on_real_evidence() {
    let mut world = vault();
    let guest = Guest::of(&world);
    let manifest = |world: &World| {
        let (model, version) = ("minilm".parse().unwrap(), "1.0".parse().unwrap());
        world.state.open_manifest(&model, &version, world.manifest().bytes()).unwrap()
    };
    let decided = |world: &World, n| decide(&world.state, guest.good_load(world, n), &manifest(world), world.now);
    let entry = decided(&world, 1).ok().unwrap().entry(Sha256Digest::of(b"evidence"));
    let Entry::Release(release) = &entry else { panic!("a release") };
    assert_eq!(release.marks, Some(marks(&["header", "layer.0"])));
    let (lease, platform) = (release.lease, release.platform);
    world.must(entry);
    let scopes = [
        model(),
        scope(r#"{"by":"group","group":"layer.0"}"#),
        scope(&format!(r#"{{"by":"pcrs","pcrs":{{"11":"{PCR_11_GUEST}"}}}}"#)),
        Scope::Platform { platform },
    ];
    let renewed = |world: &World| decide_renew(&world.state, guest.good_renew(world, lease), world.now);
    assert!(renewed(&world).is_ok());
    let mut first = None;
    for scope in scopes {
        let revocation = must_revoke(&mut world, scope.clone(), u32::from(first.is_none()));
        let ended_by = *first.get_or_insert(revocation);
        let denial = decided(&world, 2).err().unwrap();
        assert_eq!(denial.reason(), &DenialReason::Revoked { revocation }, "{scope}");
        assert_eq!(denial.code(), "revoked");
        let denial = renewed(&world).err().unwrap();
        assert_eq!(denial.reason(), &DenialReason::Revoked { revocation: ended_by });
        must_lift(&mut world, revocation);
        assert!(decided(&world, 2).is_ok());
    }
    // A group that the request does not ask for, and a policy line for none of it.
    must_revoke(&mut world, scope(r#"{"by":"group","group":"other"}"#), 0);
    assert!(decided(&world, 2).is_ok());
}

#[test]
fn what_a_guest_shows_at_its_renewal_may_be_revoked_by_then() {
    // The rule allows two images; the lease was granted to one, and the machine now shows the other.
    let two = |text: String| {
        with_one(text)
            .replace(&format!("11 = [\"{PCR_11_GUEST}\"]"), &format!("11 = [\"{PCR_11_GUEST}\", \"{PCR_0}\"]"))
    };
    let mut world = World::with_policy(two).opened().published();
    let mut guest = Guest::of(&world);
    let (model, version) = ("minilm".parse().unwrap(), "1.0".parse().unwrap());
    let manifest = world.state.open_manifest(&model, &version, world.manifest().bytes()).unwrap();
    let grant = decide(&world.state, guest.good_load(&world, 1), &manifest, world.now).ok().unwrap();
    let (lease, entry) = (grant.lease(), grant.entry(Sha256Digest::of(b"evidence")));
    world.must(entry);
    let revocation = must_revoke(&mut world, scope(&format!(r#"{{"by":"pcrs","pcrs":{{"11":"{PCR_0}"}}}}"#)), 0);
    assert!(decide_renew(&world.state, guest.good_renew(&world, lease), world.now).is_ok());
    guest.tpm.pcrs[11] = policy_text::pcr(PCR_0);
    let denial = decide_renew(&world.state, guest.good_renew(&world, lease), world.now).err().unwrap();
    assert_eq!(denial.reason(), &DenialReason::Revoked { revocation });
}
