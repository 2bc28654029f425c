//! The form of the evidence is the rule's, and what it rests on is in the policy in force.

use attestation::{AnchorError, EvidenceForm, HclError, SnpError, Trust, VerifyError};
use ledger::decide::{DenialReason, OpenQuestion, PastBytes, PastEvidence, PastRequest, PastUnits, Replayed, replay};
use ledger::entry::{Action, Entry, Machine};
use ledger::policy::{PcrMismatch, Policy, PolicyProblem, SnpMismatch};
use vault_tests::forge::amd::Product;
use vault_tests::forge::keys::RsaKey;

use crate::common::authority::NOW;
use crate::scene::{Rule, Scene, Shown, as_hardware, without_anchor};
use crate::support::evidence::{hpke_key, other_lease_key};
use crate::support::policy_text::{PCR_11_GUEST, PCR_11_KEEPER, pcr};
use crate::support::world::{lease_key, rule};

#[test]
fn each_rule_grants_its_own_form_and_denies_every_other() {
    let rules = [
        (Rule::Tpm, EvidenceForm::Tpm, &[Shown::Tpm][..]),
        (Rule::Snp, EvidenceForm::Snp, &[Shown::Snp, Shown::SnpTpm]),
        (Rule::Paravisor, EvidenceForm::AzureSnpVtpm, &[Shown::Azure]),
    ];
    let forms = [
        (Shown::Tpm, EvidenceForm::Tpm),
        (Shown::Snp, EvidenceForm::Snp),
        (Shown::SnpTpm, EvidenceForm::SnpTpm),
        (Shown::Azure, EvidenceForm::AzureSnpVtpm),
    ];
    let mut denied = 0;
    for (rule_of, required, granted) in rules {
        let scene = Scene::under(rule_of, |text| text);
        for (shown, seen) in forms {
            if granted.contains(&shown) {
                scene.granted(1, shown);
                continue;
            }
            let reason = scene.denied(shown);
            assert_eq!(reason, DenialReason::ProofMissing { rule: rule(), required, seen });
            assert_eq!(reason.code(), "proof-missing");
            assert_eq!(reason.explain().policy_key.as_deref(), Some("release.minilm.require"));
            denied += 1;
        }
    }
    assert_eq!(denied, 8);
}

/// What a keeper checks first: the form that it asked for, and the binding that it made.
#[test]
fn keeper_takes_no_other_form_than_it_asked_for() {
    let scene = Scene::good();
    let all = [Shown::Tpm, Shown::Snp, Shown::SnpTpm, Shown::Azure];
    let binding = |shown| scene.challenge(1, shown).bind(hpke_key(), lease_key());
    let anchors = scene.world.policy().trust_anchors();
    for shown in all {
        for asked in all.into_iter().filter(|asked| *asked != shown) {
            let (evidence, _) = scene.evidence(shown, &binding(shown));
            let (_, expected) = scene.evidence(asked, &binding(asked));
            let refused = evidence.verify(binding(asked), &expected, anchors, NOW).err();
            assert_eq!(refused, Some(VerifyError::FormMismatch), "{shown:?} for {asked:?}");
        }
    }
}

/// A report that a genuine guest made for somebody else's challenge is of no use.
#[test]
fn report_for_another_binding_is_refused() {
    let scene = Scene::good();
    let anchors = scene.world.policy().trust_anchors();
    let (evidence, expected) =
        scene.evidence(Shown::Snp, &scene.challenge(1, Shown::Snp).bind(hpke_key(), lease_key()));
    let other = scene.challenge(2, Shown::Snp).bind(hpke_key(), lease_key());
    let refused = evidence.verify(other, &expected, anchors, NOW).err();
    assert_eq!(refused, Some(VerifyError::Snp(SnpError::ReportDataMismatch)));
    // Nor is one for the same challenge with another recipient.
    let (evidence, _) = scene.evidence(Shown::Snp, &scene.challenge(1, Shown::Snp).bind(hpke_key(), lease_key()));
    let other = scene.challenge(1, Shown::Snp).bind(hpke_key(), other_lease_key());
    let refused = evidence.verify(other, &expected, anchors, NOW).err();
    assert_eq!(refused, Some(VerifyError::Snp(SnpError::ReportDataMismatch)));
    // A vTPM's quote carries the challenge; the report in front of it does not.
    let scene = Scene::under(Rule::Paravisor, |text| text);
    let anchors = scene.world.policy().trust_anchors();
    let (evidence, expected) =
        scene.evidence(Shown::Azure, &scene.challenge(1, Shown::Azure).bind(hpke_key(), lease_key()));
    let other = scene.challenge(2, Shown::Azure).bind(hpke_key(), lease_key());
    let refused = evidence.verify(other, &expected, anchors, NOW).err();
    assert_eq!(refused, Some(VerifyError::ExtraDataMismatch));
}

#[test]
fn paravisors_guest_is_granted_by_report_and_quote() {
    let mut scene = Scene::under(Rule::Paravisor, |text| text);
    let grant = scene.granted(1, Shown::Azure);
    let Entry::Release(entry) = grant.entry(attestation::Sha256Digest::of(b"evidence")) else { panic!("a release") };
    let Machine::SnpVtpm { report_id, vtpm } = entry.machine else { panic!("a paravisor's guest") };
    assert_eq!((report_id, vtpm.reset_count, vtpm.restart_count), (scene.guest.report_id, 7, 1));
    assert_eq!(vtpm.ak_name, scene.azure(&[0; 32]).ak_name().unwrap());
    assert_eq!(entry.platform, grant.claims().report().unwrap().platform());
    scene.must_release(1, Shown::Azure);
}

#[test]
fn both_halves_of_a_paravisors_proof_count() {
    let scene = || Scene::under(Rule::Paravisor, |text| text);
    let booted = scene().with(|scene| scene.paravisor.tpm.pcrs[11] = pcr(PCR_11_KEEPER));
    let mismatch = PcrMismatch { index: 11, seen: Some(pcr(PCR_11_KEEPER)) };
    let allowed = vec![pcr(PCR_11_GUEST)];
    assert_eq!(booted.denied(Shown::Azure), DenialReason::PcrNotAllowed { rule: rule(), allowed, mismatch });
    let launched = scene().with(|scene| scene.guest.measurement = [1; 48]);
    let mismatch = SnpMismatch::Measurement { seen: Box::new([1; 48]) };
    assert_eq!(launched.denied(Shown::Azure), DenialReason::ReportNotAllowed { rule: rule(), mismatch });
    // A report that the guest's own level asked for endorses no paravisor.
    let refused = scene().with(|scene| scene.guest.vmpl = 2).try_load(1, Shown::Azure).err();
    assert_eq!(refused, Some(VerifyError::Hcl(HclError::Vmpl { found: 2 })));
}

#[test]
fn anchor_of_the_evidence_is_in_the_policy_in_force_with_its_trust() {
    let missing = DenialReason::AnchorNotInPolicy { anchor: "soft-amd".to_owned(), tier: Trust::Emulated };
    // Verified under anchors of before, which the policy in force no longer has.
    let mut scene = Scene::good();
    let anchors = scene.world.policy().trust_anchors().clone();
    scene.world.must_change_policy(|text| without_anchor(&text));
    assert_eq!(scene.denied_under(&anchors), missing);
    assert_eq!(missing.explain().policy_key.as_deref(), Some("anchors"));
    // Without it the report does not verify at all.
    let none = Scene::under(Rule::Snp, |text| without_anchor(&text)).try_load(1, Shown::Snp).err();
    assert_eq!(none, Some(VerifyError::Snp(SnpError::RootUnknown)));
}

#[test]
fn root_of_somebody_else_with_the_right_names_is_unknown() {
    let scene = Scene::good().with(|scene| {
        scene.platform.authorities = vault_tests::forge::amd::Authorities::foreign(Product::Milan);
    });
    assert_eq!(scene.platform.authorities.ark.signer, RsaKey::Stranger);
    assert_eq!(scene.try_load(1, Shown::Snp).err(), Some(VerifyError::Snp(SnpError::RootUnknown)));
}

/// AMD's roots are built in: one that a policy adds is never hardware.
#[test]
fn soft_root_is_emulated_or_nothing() {
    let scene = Scene::good();
    assert_eq!(scene.granted(1, Shown::Snp).claims().trust(), Trust::Emulated);
    let refused = Policy::parse(&as_hardware(&scene.world.policy_text)).unwrap_err();
    assert_eq!(refused.problem, PolicyProblem::AnchorRefused(AnchorError::SnpNotHardware));
}

/// What was shown without revocation lists is neither yes nor no under a policy that wants them.
#[test]
fn revocation_lists_that_nobody_asked_for_are_an_open_question() {
    let scene = Scene::under(Rule::Snp, |text| text);
    let claims = scene.load(1, Shown::Snp).claims().clone();
    let (rule, model, version) = (rule(), "minilm".parse().unwrap(), "1.0".parse().unwrap());
    let policy = scene.world.policy();
    let groups = &policy.release_rule(&rule).unwrap().groups;
    let replayed = |revocation| {
        let (shown, anchor, tier) = (ledger::decide::Shown::from(&claims), claims.anchor(), claims.trust());
        let request = PastRequest {
            action: Action::Load,
            time: scene.world.now,
            rule: &rule,
            model: &model,
            version: &version,
            platform: claims.platform(),
            units: PastUnits::Within(groups),
            bytes: PastBytes::exactly(1100),
            marks: None,
            workload: ledger::decide::PastWorkload::NotAsked,
            evidence: Some(PastEvidence { shown, anchor, tier, revocation }),
        };
        replay(scene.world.vault(), &scene.world.vault().allowances(), &request)
    };
    assert_eq!(replayed(true), Replayed::Granted);
    assert_eq!(replayed(false), Replayed::Open(OpenQuestion::RevocationList));
    assert_eq!(OpenQuestion::RevocationList.code(), "revocation-list-not-shown");
}
