//! EKs without a certificate: how they are enrolled and removed, and what a rule makes of them.

use attestation::{Sha256Digest, Trust, VerifyError};
use ledger::approvals::ApprovalAction;
use ledger::decide::{DenialReason, decide, decide_renew};
use ledger::entry::{Entry, PlatformAct, PlatformChange, Proposal};
use ledger::policy::{Policy, describe_change};
use ledger::state::{FoldError, Subject};

use crate::common::tpm::SoftTpm;
use crate::support::evidence::Guest;
use crate::support::policy_text::first;
use crate::support::world::{ALICE, BOB, CAROL, LEASE_SECS, World};

const OTHER: Sha256Digest = Sha256Digest::from_bytes([0x44; 32]);

/// `[platforms]`, and one rule that takes what was enrolled.
fn with_platforms(text: String) -> String {
    let rule = "max_leases = 4\nek_without_certificate = true";
    text.replace("[keeper]", "[platforms]\nthreshold = 2\n\n[keeper]").replace("max_leases = 4", rule)
}

/// Its one anchor counts as hardware, what is enrolled as emulated: no certificate gives that tier.
fn world() -> World {
    World::with_policy(|text| with_platforms(text).replace("trust = \"emulated\"", "trust = \"hardware\""))
        .opened()
        .published()
}

/// The EK that every TPM of the forge has.
fn platform() -> Sha256Digest {
    SoftTpm::ecc().bare_identity().claimed_platform().unwrap()
}

pub(crate) fn add(revision: u64) -> PlatformChange {
    let label = "gpu-7".parse().unwrap();
    PlatformChange { act: PlatformAct::Add, platform: platform(), label, counts_as: Trust::Emulated, revision }
}

fn remove(revision: u64) -> PlatformChange {
    PlatformChange { act: PlatformAct::Remove, ..add(revision) }
}

#[test]
fn a_platform_is_enrolled_and_removed_by_proposal_and_approvals() {
    let mut world = world();
    let index = world.state.size();
    let entry = world.proposed_platform(ALICE, add(0));
    world.must(entry);
    {
        let pending: Vec<_> = world.vault().pending(world.now).collect();
        assert!(matches!(pending[0].subject(), Subject::Platform { proposer, change }
            if proposer.as_str() == "alice" && *change == add(0)));
        assert_eq!((pending.len(), pending[0].object(), pending[0].threshold()), (1, add(0).object(), 2));
    }
    for (person, given) in [(BOB, 0), (CAROL, 1)] {
        let early = world.platform_in_force(index, &add(0));
        assert_eq!(world.refusal(early), FoldError::ThresholdNotReached { given, threshold: 2 });
        let entry = world.approve(person, ApprovalAction::Platform, add(0).object());
        world.must(entry);
    }
    assert!(world.vault().due(world.now).is_some());
    let (entry, at) = (world.platform_in_force(index, &add(0)), world.state.size());
    world.must(entry);
    let enrolled = world.vault().platforms().get(platform()).unwrap();
    assert_eq!((enrolled.entry, enrolled.label.as_str(), enrolled.counts_as), (at, "gpu-7", Trust::Emulated));
    assert_eq!(world.vault().platforms().effective(add(0).object()), Some(at));
    assert_eq!(world.vault().pending(world.now).count(), 0);

    world.must_change_platform(&remove(1));
    assert_eq!((world.vault().platforms().iter().len(), world.vault().platforms().revision(platform())), (0, 2));
}

/// The refusal of Alice's proposal of a change.
fn proposal_refusal(world: &mut World, change: PlatformChange) -> FoldError {
    let entry = world.proposed_platform(ALICE, change);
    world.refusal(entry)
}

/// FORMAT.md §7 has it.
#[test]
fn what_approvals_name_is_all_of_the_change() {
    let label = "gpu-7".parse().unwrap();
    let change =
        PlatformChange { act: PlatformAct::Add, platform: OTHER, label, counts_as: Trust::Hardware, revision: 3 };
    assert_eq!(change.object().to_string(), "sha256:3a4e11bcf21cde483af150150324ae94b431c5bc309dcaca1cea98685f78a5bb");
    let other = "gpu-8".parse().unwrap();
    for changed in [
        PlatformChange { act: PlatformAct::Remove, ..change.clone() },
        PlatformChange { platform: platform(), ..change.clone() },
        PlatformChange { label: other, ..change.clone() },
        PlatformChange { counts_as: Trust::Emulated, ..change.clone() },
        PlatformChange { revision: 4, ..change.clone() },
    ] {
        assert_ne!(changed.object(), change.object());
    }
}

#[test]
fn a_change_fits_what_is_enrolled() {
    let mut world = world();
    assert_eq!(proposal_refusal(&mut world, remove(0)), FoldError::PlatformNotEnrolled);
    assert_eq!(proposal_refusal(&mut world, add(1)), FoldError::PlatformRevision);
    world.must_change_platform(&add(0));
    assert_eq!(proposal_refusal(&mut world, add(1)), FoldError::PlatformEnrolled);
    assert_eq!(proposal_refusal(&mut world, remove(0)), FoldError::PlatformRevision);
    let other = PlatformChange { platform: OTHER, ..add(0) };
    assert_eq!(proposal_refusal(&mut world, other), FoldError::PlatformLabelTaken);
    let as_hardware = PlatformChange { counts_as: Trust::Hardware, ..remove(1) };
    assert_eq!(proposal_refusal(&mut world, as_hardware), FoldError::PlatformNotEnrolled);
    let as_another = PlatformChange { label: "gpu-8".parse().unwrap(), ..remove(1) };
    assert_eq!(proposal_refusal(&mut world, as_another), FoldError::PlatformNotEnrolled);
}

#[test]
fn no_approval_of_one_change_counts_for_another() {
    let mut world = world();
    let index = world.state.size();
    let proposal = world.proposed_platform(ALICE, add(0));
    let approvals = [BOB, CAROL].map(|person| world.approve(person, ApprovalAction::Platform, add(0).object()));
    world.must(proposal.clone());
    approvals.iter().for_each(|entry| world.must(entry.clone()));
    let entry = world.platform_in_force(index, &add(0));
    world.must(entry.clone());
    assert_eq!(world.refusal(entry), FoldError::ProposalUnknown, "its effect comes once");
    world.must_change_platform(&remove(1));

    // All that was signed for the first change still lies in the log, and none of it enrols the platform again.
    assert_eq!(world.refusal(proposal), FoldError::PlatformRevision);
    let entry = world.proposed_platform(ALICE, add(2));
    world.must(entry);
    for entry in approvals {
        assert_eq!(world.refusal(entry), FoldError::ProposalUnknown);
    }
    let Entry::Propose(mut swapped) = world.proposed_platform(CAROL, add(2)) else { unreachable!() };
    let Proposal::Platform(platform) = &mut swapped.proposal else { unreachable!() };
    platform.counts_as = Trust::Hardware;
    assert_eq!(world.refusal(Entry::Propose(swapped)), FoldError::ObjectMismatch);
}

#[test]
fn a_statement_is_for_this_change_and_its_step() {
    let mut world = world();
    let object = add(0).object();
    for action in [ApprovalAction::Platform, ApprovalAction::ProposePolicy, ApprovalAction::Model] {
        let entry = world.proposed_platform_saying(ALICE, add(0), world.statement(action, object));
        assert_eq!(world.refusal(entry), FoldError::ActionMismatch);
    }
    let entry = world.proposed_platform_saying(ALICE, add(0), world.statement(ApprovalAction::ProposePlatform, OTHER));
    assert_eq!(world.refusal(entry), FoldError::ObjectMismatch);
    let entry = world.proposed_platform(9, add(0));
    assert_eq!(world.refusal(entry).code(), "not-an-approver");
    let entry = world.proposed_platform(ALICE, add(0));
    world.must(entry);
    for action in [ApprovalAction::ProposePlatform, ApprovalAction::Policy, ApprovalAction::Model] {
        let entry = world.approve(BOB, action, object);
        assert_eq!(world.refusal(entry), FoldError::ActionMismatch);
    }
    let entry = world.approve(ALICE, ApprovalAction::Platform, object);
    assert_eq!(world.refusal(entry), FoldError::ProposerMayNotApprove { approver: "alice".parse().unwrap() });
    let entry = world.approve(BOB, ApprovalAction::Platform, object);
    world.must(entry.clone());
    assert_eq!(world.refusal(entry), FoldError::AlreadyApproved { approver: "bob".parse().unwrap() });
    let entry = world.proposed_platform(CAROL, add(0));
    assert_eq!(world.refusal(entry), FoldError::ProposalRepeated);
}

#[test]
fn an_effect_is_of_its_proposal() {
    let mut world = world();
    let index = world.state.size();
    let entry = world.proposed_platform(ALICE, add(0));
    world.must(entry);
    for person in [BOB, CAROL] {
        let entry = world.approve(person, ApprovalAction::Platform, add(0).object());
        world.must(entry);
    }
    let wrong = |change: PlatformChange| world.platform_in_force(index, &change);
    let wrong = [wrong(remove(0)), wrong(PlatformChange { platform: OTHER, ..add(0) }), wrong(add(1))];
    for entry in wrong {
        assert_eq!(world.refusal(entry), FoldError::ObjectMismatch);
    }
    let entry = world.policy_in_force(index, add(0).object());
    assert_eq!(world.refusal(entry), FoldError::ActionMismatch);
    world.pass(3600 + 1);
    let entry = world.platform_in_force(index, &add(0));
    assert!(matches!(world.refusal(entry), FoldError::ProposalExpired { .. }));
}

#[test]
fn another_policy_voids_what_waits_and_one_without_platforms_forgets_them() {
    let mut world = world();
    world.must_change_platform(&add(0));
    let other = PlatformChange { platform: OTHER, label: "gpu-8".parse().unwrap(), ..add(0) };
    let entry = world.proposed_platform(ALICE, other.clone());
    world.must(entry);
    let approval = world.approve(BOB, ApprovalAction::Platform, other.object());
    world.must_change_policy(|text| text.replace("max_leases = 4", "max_leases = 5"));
    assert_eq!(world.vault().pending(world.now).count(), 0);
    assert!(matches!(world.refusal(approval), FoldError::ProposalUnknown | FoldError::SerialMismatch { .. }));
    assert!(world.vault().platforms().get(platform()).is_some(), "who was enrolled stays");
    assert_eq!(world.vault().platforms().revision(platform()), 0, "it counts anew, under another policy");

    let without =
        |text: String| text.replace("[platforms]\nthreshold = 2\n", "").replace("ek_without_certificate = true", "");
    world.must_change_policy(without);
    assert_eq!(world.vault().platforms().iter().len(), 0);
    assert_eq!(proposal_refusal(&mut world, add(0)), FoldError::PlatformsNotAllowed);
    world.must_change_policy(|text| text);
    assert_eq!(world.vault().platforms().iter().len(), 0, "none comes back with a later policy");
}

#[test]
fn a_policy_says_who_enrols_and_which_rules_take_them() {
    let parse = |text: &str| Policy::parse(text).map(|policy| policy.platform_threshold());
    let refused = |from: &str, to: &str| {
        let text = with_platforms(first());
        assert!(text.contains(from));
        let error = parse(&text.replace(from, to)).unwrap_err();
        (error.key, error.problem.code())
    };
    assert_eq!(parse(&first()), Ok(None));
    assert_eq!(parse(&with_platforms(first())), Ok(Some(2)));
    let threshold = "[platforms]\nthreshold = 2";
    let key = "platforms.threshold".to_owned();
    assert_eq!(refused(threshold, "[platforms]\nthreshold = 0"), (key.clone(), "policy-threshold-zero"));
    assert_eq!(refused(threshold, "[platforms]\nthreshold = 3"), (key.clone(), "policy-threshold-unreachable"));
    assert_eq!(refused(threshold, "[platforms]"), (key, "policy-key-missing"));
    let unknown = ("platforms.x".to_owned(), "policy-key-unknown");
    assert_eq!(refused(threshold, "[platforms]\nthreshold = 2\nx = 1"), unknown);
    let rule = "release.minilm.ek_without_certificate".to_owned();
    assert_eq!(refused(threshold, ""), (rule.clone(), "policy-platforms-missing"));
    let value = "ek_without_certificate = true";
    assert_eq!(refused(value, "ek_without_certificate = \"yes\""), (rule, "policy-wrong-type"));
    let keeper = ("keeper.ek_without_certificate".to_owned(), "policy-key-unknown");
    assert_eq!(refused("[keeper]\n", "[keeper]\nek_without_certificate = true\n"), keeper);
}

#[test]
fn who_gains_by_a_change_is_said() {
    let described = |old: &str, new: &str| describe_change(&Policy::parse(old).unwrap(), &Policy::parse(new).unwrap());
    let (without, with) = (first(), with_platforms(first()));
    assert_eq!(
        described(&without, &with),
        [
            "LOOSER: EKs without a certificate can be enrolled by 2 approvals",
            "LOOSER: release.minilm takes enrolled EKs that have no certificate",
        ]
    );
    assert_eq!(
        described(&with, &without),
        [
            "stricter: no EK without a certificate can be enrolled; those that were are forgotten",
            "stricter: release.minilm no longer takes EKs that have no certificate",
        ]
    );
    let one = with.replace("[platforms]\nthreshold = 2", "[platforms]\nthreshold = 1");
    assert_eq!(described(&with, &one), ["LOOSER: to enrol or remove an EK takes 1 approvals, before 2"]);
    assert_eq!(described(&one, &with), ["stricter: to enrol or remove an EK takes 2 approvals, before 1"]);
}

fn manifest(world: &World) -> ledger::state::LoggedManifest {
    let (model, version) = ("minilm".parse().unwrap(), "1.0".parse().unwrap());
    world.state.open_manifest(&model, &version, world.manifest().bytes()).unwrap()
}

/// A grant of session `n`, as its entry, or why not.
fn load(world: &World, guest: &Guest, n: u32) -> Result<Entry, DenialReason> {
    decide(&world.state, guest.good_load(world, n), &manifest(world), world.now)
        .map(|grant| grant.entry(Sha256Digest::of(b"evidence")))
        .map_err(|denial| denial.reason().clone())
}

#[test]
fn an_enrolled_guest_loads_and_renews_until_it_is_removed() {
    let mut world = world();
    let (rule, none) = (world.policy().release_rules().values().next().unwrap().guest.clone(), Default::default());
    let bare = SoftTpm::ecc().bare_identity();
    let expected = |world: &World, enrolled| {
        rule.expected(Some(&bare), world.policy().trust_anchors(), enrolled, world.now).map(drop).err()
    };
    assert_eq!(expected(&world, &none), Some(VerifyError::EkNotEnrolled { platform: platform() }));
    world.must_change_platform(&add(0));
    assert_eq!(expected(&world, world.vault().platforms().eks()), None);

    let guest = Guest::bare(&world);
    let entry = load(&world, &guest, 1).unwrap();
    let Entry::Release(release) = &entry else { panic!("not a release") };
    assert_eq!((release.platform, release.tier), (platform(), Trust::Emulated), "no anchor gives this tier");
    let (lease, mut forged) = (release.lease, release.clone());
    forged.platform = OTHER;
    assert_eq!(world.refusal(Entry::Release(forged)), FoldError::TierImpossible);
    world.must(entry);
    world.pass(60);
    let renew = |world: &World| {
        decide_renew(&world.state, guest.good_renew(world, lease), world.now)
            .err()
            .map(|denial| denial.reason().clone())
    };
    assert_eq!(renew(&world), None);

    world.must_change_platform(&remove(1));
    let not_enrolled = DenialReason::PlatformNotEnrolled { platform: platform() };
    assert_eq!(renew(&world), Some(not_enrolled.clone()));
    assert_eq!(load(&world, &guest, 2).err(), Some(not_enrolled.clone()));
    world.pass(LEASE_SECS);
    assert_eq!(world.leases(), 0, "its lease ends by itself");
    // Enrolled again, as something else: what was verified before no longer counts.
    world.must_change_platform(&PlatformChange { counts_as: Trust::Hardware, ..add(2) });
    assert_eq!(load(&world, &guest, 3).err(), Some(not_enrolled));
}

#[test]
fn a_rule_that_does_not_say_so_takes_no_enrolled_ek() {
    let rule = "max_leases = 4\nek_without_certificate = false";
    let mut world =
        World::with_policy(|text| with_platforms(text).replace("max_leases = 4\nek_without_certificate = true", rule))
            .opened()
            .published();
    world.must_change_platform(&add(0));
    let guest = Guest::bare(&world);
    let guest_rule = &world.policy().release_rules().values().next().unwrap().guest;
    let refused = guest_rule
        .expected(Some(&guest.identity), world.policy().trust_anchors(), &guest.enrolled, world.now)
        .map(drop)
        .err();
    assert_eq!(refused, Some(VerifyError::EkCertificateMissing));
    let reason = DenialReason::EkWithoutCertificate { rule: "minilm".parse().unwrap(), platform: platform() };
    assert_eq!(load(&world, &guest, 1).err(), Some(reason.clone()));
    assert_eq!(reason.code(), "ek-without-certificate");
    assert!(load(&world, &Guest::of(&world), 1).is_ok(), "one with a certificate is as before");
}
