//! A lease belongs to one guest: a renewal comes from the very one that it was granted to.

use attestation::{SnpProduct, chip_platform};
use ledger::decide::DenialReason;
use ledger::policy::SnpMismatch;

use crate::scene::{Rule, Scene, Shown};
use crate::support::policy_text::LAUNCH_GUEST;
use crate::support::world::rule;

/// A lease of a good guest, and what becomes of its renewal after a change.
#[track_caller]
fn refused(mut scene: Scene, shown: Shown, change: impl FnOnce(&mut Scene), renewed: Shown) -> DenialReason {
    let lease = scene.must_release(1, shown);
    assert!(scene.decide_renew(scene.renew(lease, shown)).is_ok());
    let scene = scene.with(change);
    let Err(denial) = scene.decide_renew(scene.renew(lease, renewed)) else { panic!("must be denied") };
    denial.reason().clone()
}

#[test]
fn lease_is_renewed_by_the_guest_that_has_it() {
    for (rule, shown) in [(Rule::Snp, Shown::Snp), (Rule::Paravisor, Shown::Azure)] {
        let mut scene = Scene::under(rule, |text| text);
        let lease = scene.must_release(1, shown);
        scene.world.pass(60);
        let renewal = scene.decide_renew(scene.renew(lease, shown)).map_err(|denial| denial.to_string()).unwrap();
        let renewal = renewal.renewal(attestation::Sha256Digest::of(b"evidence"));
        let entry = scene.world.renew(vec![renewal]);
        scene.world.must(entry);
    }
    // A TPM that nothing binds to the report makes no other machine of it.
    let mut scene = Scene::good();
    let lease = scene.must_release(1, Shown::Snp);
    assert!(scene.decide_renew(scene.renew(lease, Shown::SnpTpm)).is_ok());
}

#[test]
fn another_guest_of_the_same_chip_is_another_guest() {
    let other = |scene: &mut Scene| scene.guest.report_id = [9; 32];
    for (rule_of, shown) in [(Rule::Snp, Shown::Snp), (Rule::Paravisor, Shown::Azure)] {
        let scene = Scene::under(rule_of, |text| text);
        let granted = scene.guest.report_id;
        let reason = refused(scene, shown, other, shown);
        assert_eq!(reason, DenialReason::GuestChanged { granted, seen: [9; 32] });
        assert_eq!(reason.code(), "guest-changed");
    }
}

#[test]
fn another_chip_is_another_platform() {
    let scene = Scene::good();
    let granted = chip_platform(SnpProduct::Milan, &scene.platform.chip_id);
    let seen = chip_platform(SnpProduct::Milan, &[3; 64]);
    let reason = refused(scene, Shown::Snp, |scene| scene.platform.chip_id = [3; 64], Shown::Snp);
    assert_eq!(reason, DenialReason::PlatformChanged { granted, seen });
    assert_eq!(reason.code(), "platform-changed");
}

#[test]
fn form_of_the_release_is_the_form_of_its_renewals() {
    for (rule_of, shown, renewed) in
        [(Rule::Snp, Shown::Snp, Shown::Azure), (Rule::Paravisor, Shown::Azure, Shown::Snp)]
    {
        let reason = refused(Scene::under(rule_of, |text| text), shown, |_| {}, renewed);
        assert_eq!((&reason, reason.code()), (&DenialReason::ProofChanged, "proof-changed"));
    }
}

#[test]
fn virtual_tpm_of_a_renewal_has_not_booted_since() {
    let scene = || Scene::under(Rule::Paravisor, |text| text);
    let reason = refused(scene(), Shown::Azure, |scene| scene.paravisor.reset_count = 8, Shown::Azure);
    assert_eq!(reason, DenialReason::Rebooted { granted: (7, 1), seen: (8, 1) });
    let reason = refused(scene(), Shown::Azure, |scene| scene.paravisor.restart_count = 2, Shown::Azure);
    assert_eq!(reason, DenialReason::Rebooted { granted: (7, 1), seen: (7, 2) });
}

#[test]
fn renewal_is_held_to_the_rule_of_now() {
    let mut scene = Scene::good();
    let lease = scene.must_release(1, Shown::Snp);
    scene.world.must_change_policy(|text| text.replace(LAUNCH_GUEST, &"79".repeat(48)));
    let Err(denial) = scene.decide_renew(scene.renew(lease, Shown::Snp)) else { panic!("must be denied") };
    let mismatch = SnpMismatch::Measurement { seen: Box::new([0x77; 48]) };
    assert_eq!(denial.reason(), &DenialReason::ReportNotAllowed { rule: rule(), mismatch });
}
