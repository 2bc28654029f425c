//! Standing approvals and break-glass at the decision: what it grants is what the fold takes, and no more.

use attestation::Sha256Digest;
use ledger::decide::{DenialReason, ReleaseGrant, decide};
use ledger::entry::Entry;
use ledger::permit::PermitKind;
use ledger::state::BudgetRefusal;

use crate::support::budget::budget;
use crate::support::evidence::Guest;
use crate::support::policy_text::{PCR_11_GUEST, PCR_11_KEEPER};
use crate::support::world::{World, rule};

const HOLDS: &str = "\n[alarm.odd]\nmodels = \"any\"\non = \"canary\"\nthen = \"hold\"\n";

fn decided(world: &World, guest: &Guest, n: u32) -> Result<ReleaseGrant, DenialReason> {
    let (model, version) = ("minilm".parse().unwrap(), "1.0".parse().unwrap());
    let manifest = world.state.open_manifest(&model, &version, world.manifest().bytes()).unwrap();
    decide(&world.state, guest.good_load(world, n), &manifest, world.now).map_err(|denial| denial.reason().clone())
}

/// The grant goes into the log as a keeper writes it.
#[track_caller]
fn must_grant(world: &mut World, guest: &Guest, n: u32) {
    let grant = decided(world, guest, n).map_err(|reason| reason.code()).unwrap();
    let alarm = grant.alarm();
    let release = grant.entry(Sha256Digest::of(b"evidence"));
    alarm.into_iter().chain([release]).for_each(|entry: Entry| world.must(entry));
}

#[track_caller]
fn denied(world: &World, guest: &Guest, n: u32) -> DenialReason {
    decided(world, guest, n).map(|_| ()).unwrap_err()
}

#[test]
fn a_rule_that_asks_for_approvals_grants_by_a_standing_approval_alone() {
    let mut world = World::asking("");
    let guest = Guest::of(&world);
    let reason = denied(&world, &guest, 1);
    assert_eq!(reason, DenialReason::NotApproved { rule: rule(), approvals: 2 });
    assert_eq!(reason.code(), "release-not-approved");
    let said = reason.explain();
    assert_eq!(said.policy_key.as_deref(), Some("release.minilm.approvals"));
    assert!(reason.remedy().contains("vaultctl propose standing"));
    // What the guest did not boot lets it through no more than nothing does.
    let mut other = world.permit(PermitKind::Standing, 1);
    other.pcrs = Some(format!("11={PCR_11_KEEPER}").parse().unwrap());
    world.must_permit(&other);
    assert_eq!(denied(&world, &guest, 1), reason);
    let mut booted = world.permit(PermitKind::Standing, 1);
    booted.pcrs = Some(format!("11={PCR_11_GUEST}").parse().unwrap());
    world.must_permit(&booted);
    must_grant(&mut world, &guest, 1);
    assert_eq!(denied(&world, &guest, 2), reason);
    assert_eq!(world.permits_left(), [1, 0]);
}

#[test]
fn break_glass_is_decided_as_the_fold_takes_it() {
    let mut world = World::asking(&(budget("vault", "refuse", "releases_per_hour = 1") + HOLDS));
    let guest = Guest::of(&world);
    assert!(matches!(denied(&world, &guest, 1), DenialReason::HeldByAlarm { .. }));
    let glass = world.permit(PermitKind::BreakGlass, 2);
    world.must_permit(&glass);
    must_grant(&mut world, &guest, 1);
    must_grant(&mut world, &guest, 2);
    assert_eq!((world.permits_left(), world.vault().alarm_count()), (vec![0], 2));
    assert!(matches!(denied(&world, &guest, 3), DenialReason::Budget(BudgetRefusal::Over(_))));
}

/// Evidence is looked at before anything that approvers could let through.
#[test]
fn break_glass_lets_no_other_guest_in() {
    let mut world = World::asking("");
    let glass = world.permit(PermitKind::BreakGlass, 2);
    world.must_permit(&glass);
    let mut guest = Guest::of(&world);
    guest.tpm.pcrs[11][0] ^= 1;
    assert!(matches!(denied(&world, &guest, 1), DenialReason::PcrNotAllowed { .. }));
    assert_eq!(world.permits_left(), [2]);
}
