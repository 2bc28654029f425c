//! Releases, renewals and the leases that they leave.

use attestation::{Sha256Digest, Trust, UnixTime, lease_id};
use ledger::entry::{Entry, Release, Renewal};
use ledger::state::{FoldError, RENEWAL_COMMIT_SECS_MAX};

use crate::support::world::{LEASE_SECS, World, rule};

const OTHER: Sha256Digest = Sha256Digest::from_bytes([0x44; 32]);

/// The refusal of a good release after one change.
fn release_refusal(change: impl FnOnce(&mut Release)) -> FoldError {
    let mut world = World::with_model();
    let mut release = world.release(1);
    change(&mut release);
    world.refusal(Entry::Release(Box::new(release)))
}

#[test]
fn a_release_follows_its_rule_in_everything_that_the_log_shows() {
    assert_eq!(release_refusal(|r| r.policy = OTHER), FoldError::PolicyNotInForce);
    assert_eq!(release_refusal(|r| r.rule = "other".parse().unwrap()), FoldError::RuleUnknown);
    assert_eq!(release_refusal(|r| r.model = "llama".parse().unwrap()), FoldError::ModelNotInRule);
    assert_eq!(release_refusal(|r| r.version = "2.0".parse().unwrap()), FoldError::ModelUnknown);
    assert_eq!(release_refusal(|r| r.manifest = OTHER), FoldError::ManifestMismatch);
    assert_eq!(release_refusal(|r| r.units.count = 0), FoldError::UnitsImpossible);
    assert_eq!(release_refusal(|r| r.units.count = 5), FoldError::UnitsImpossible);
    assert_eq!(release_refusal(|r| r.units.bytes = 1608), FoldError::UnitsImpossible);
    assert_eq!(release_refusal(|r| r.session[15] ^= 1), FoldError::LeaseIdMismatch);
    assert_eq!(release_refusal(|r| r.lease = OTHER), FoldError::LeaseIdMismatch);
    assert_eq!(release_refusal(|r| r.issued = UnixTime(r.issued.seconds() - 1)), FoldError::IssuedMismatch);
    assert_eq!(release_refusal(|r| r.renew_by = r.renew_by.plus(1)), FoldError::RenewByMismatch);
}

#[test]
fn a_release_has_a_tier_that_an_anchor_gives() {
    // Hardware there always may be: makers of TPMs are built in.
    let mut world =
        World::with_policy(|text| text.replace("trust = \"emulated\"", "trust = \"hardware\"")).opened().published();
    let release = world.release(1);
    assert_eq!(release.tier, Trust::Emulated);
    assert_eq!(world.refusal(Entry::Release(Box::new(release))), FoldError::TierImpossible);
}

#[test]
fn a_release_is_for_a_listed_platform() {
    let listed = Sha256Digest::of(b"guest").to_string();
    let of = |platform: &str| format!("eks = [\"{platform}\"]\nlease");
    let change = |text: String, platform: &str| text.replace("eks = \"any\"\nlease", &of(platform));
    let mut world = World::with_policy(|text| change(text, &listed)).opened().published();
    world.must_release(1);
    let mut world = World::with_policy(|text| change(text, &OTHER.to_string())).opened().published();
    let release = world.release(1);
    assert_eq!(world.refusal(Entry::Release(Box::new(release))), FoldError::PlatformNotListed);
}

#[test]
fn nothing_is_released_or_renewed_under_an_expired_policy() {
    let mut world = World::with_model();
    let not_after = world.policy().not_after();
    world.now = not_after;
    let lease = world.must_release(1);
    world.pass(1);
    let expired = FoldError::PolicyExpired { not_after };
    let release = world.release(2);
    assert_eq!(world.refusal(Entry::Release(Box::new(release))), expired);
    let entry = world.renew(vec![world.renewal(lease)]);
    assert_eq!(world.refusal(entry), expired);
    // What was decided in time may still be written.
    let in_time = Renewal { issued: not_after, renew_by: not_after.plus(LEASE_SECS), ..world.renewal(lease) };
    let entry = world.renew(vec![in_time]);
    world.must(entry);
    let entry = world.end(lease);
    world.must(entry);
}

#[test]
fn a_lease_is_granted_once() {
    let mut world = World::with_model();
    world.must_release(1);
    let again = world.release(1);
    assert_eq!(world.refusal(Entry::Release(Box::new(again))), FoldError::LeaseRepeated);
}

#[test]
fn a_rule_runs_at_most_its_leases() {
    let mut world = World::with_model();
    let leases: Vec<Sha256Digest> = (0..4).map(|n| world.must_release(n)).collect();
    let one_more = |world: &mut World| {
        let release = world.release(9);
        world.apply(&Entry::Release(Box::new(release)))
    };
    assert_eq!(one_more(&mut world), Err(FoldError::TooManyLeases { max: 4 }));
    // A signed end frees a place.
    let entry = world.end(leases[0]);
    world.must(entry);
    assert_eq!(one_more(&mut world), Ok(()));
    // Time frees places, after the last moment.
    world.pass(LEASE_SECS);
    assert_eq!(world.leases(), 4);
    let release = world.release(10);
    assert_eq!(world.refusal(Entry::Release(Box::new(release))), FoldError::TooManyLeases { max: 4 });
    world.pass(1);
    assert_eq!(world.leases(), 0);
    world.must_release(11);
    assert_eq!((world.leases(), world.vault().leases(world.now).count()), (1, 1));
}

#[test]
fn a_renewed_lease_runs_on() {
    let mut world = World::with_model();
    let lease = world.must_release(1);
    for _ in 0..3 {
        world.pass(LEASE_SECS);
        let entry = world.renew(vec![world.renewal(lease)]);
        world.must(entry);
        let now = world.vault().lease(lease).unwrap();
        assert_eq!((now.issued, now.renew_by), (world.now, world.now.plus(LEASE_SECS)));
        assert_eq!(world.leases(), 1);
    }
    world.pass(LEASE_SECS + 1);
    let refused = FoldError::LeaseLapsed { renew_by: UnixTime(world.now.seconds() - 1) };
    let entry = world.renew(vec![world.renewal(lease)]);
    assert_eq!(world.refusal(entry), refused);
}

/// The refusal of the renewal of a good lease, 60 seconds after its release, after one change.
fn renewal_refusal(change: impl FnOnce(&mut Renewal)) -> FoldError {
    let mut world = World::with_model();
    let lease = world.must_release(1);
    world.pass(60);
    let mut renewal = world.renewal(lease);
    change(&mut renewal);
    let entry = world.renew(vec![renewal]);
    world.refusal(entry)
}

#[test]
fn a_renewal_is_of_a_lease_and_lasts_one_lease_time() {
    assert_eq!(renewal_refusal(|r| r.lease = OTHER), FoldError::LeaseUnknown);
    assert_eq!(renewal_refusal(|r| r.renew_by = r.renew_by.plus(1)), FoldError::RenewByMismatch);
    let shift = |by: i64| {
        move |r: &mut Renewal| {
            r.issued = UnixTime(r.issued.seconds().checked_add_signed(by).unwrap());
            r.renew_by = r.issued.plus(LEASE_SECS);
        }
    };
    assert_eq!(renewal_refusal(shift(1)), FoldError::IssuedMismatch);
    // Before the release.
    assert_eq!(renewal_refusal(shift(-61)), FoldError::IssuedMismatch);
}

#[test]
fn renewals_come_in_groups_of_distinct_leases() {
    let mut world = World::with_model();
    let leases = [world.must_release(1), world.must_release(2)];
    world.pass(60);
    let empty = world.renew(vec![]);
    assert_eq!(world.refusal(empty), FoldError::RenewalsEmpty);
    let [first, second] = leases.map(|lease| world.renewal(lease));
    let twice = world.renew(vec![first, first]);
    assert_eq!(world.refusal(twice), FoldError::LeaseRepeated);
    // One that is wrong takes the others with it.
    let wrong = Renewal { renew_by: second.renew_by.plus(1), ..second };
    let entry = world.renew(vec![first, wrong]);
    assert_eq!(world.refusal(entry), FoldError::RenewByMismatch);
    assert_eq!(world.vault().lease(leases[0]).unwrap().issued, UnixTime(world.now.seconds() - 60));
    let both = world.renew(vec![first, second]);
    world.must(both);
    assert_eq!(world.leases(), 2);
}

#[test]
fn a_renewal_decided_in_time_may_be_written_a_little_later() {
    let mut world = World::with_model();
    let lease = world.must_release(1);
    world.pass(LEASE_SECS);
    let decided = world.renewal(lease);
    // The lease has run out meanwhile, and another entry has moved the time on.
    world.pass(RENEWAL_COMMIT_SECS_MAX);
    world.must_release(2);
    assert_eq!(world.leases(), 1);
    world.now = world.now.plus(1);
    let too_late = world.renew(vec![decided]);
    assert_eq!(world.refusal(too_late), FoldError::IssuedMismatch);
    world.now = UnixTime(world.now.seconds() - 1);
    let in_time = world.renew(vec![decided]);
    world.must(in_time);
    assert_eq!(world.leases(), 2);
}

#[test]
fn a_lease_that_ran_out_long_ago_is_forgotten() {
    let mut world = World::with_model();
    let lease = world.must_release(1);
    world.pass(LEASE_SECS + RENEWAL_COMMIT_SECS_MAX + 1);
    let start = world.start(1);
    world.must(start);
    assert!(world.vault().lease(lease).is_some(), "the time of the entry before was within the lease");
    world.pass(LEASE_SECS + RENEWAL_COMMIT_SECS_MAX + 1);
    world.must_release(2);
    assert!(world.vault().lease(lease).is_none());
    let entry = world.end(lease);
    assert_eq!(world.refusal(entry), FoldError::LeaseUnknown);
    let entry = world.renew(vec![world.renewal(lease)]);
    assert_eq!(world.refusal(entry), FoldError::LeaseUnknown);
}

#[test]
fn an_ended_lease_is_gone() {
    let mut world = World::with_model();
    let lease = world.must_release(1);
    let entry = world.end(lease);
    world.must(entry.clone());
    assert_eq!(world.leases(), 0);
    assert_eq!(world.refusal(entry), FoldError::LeaseUnknown);
}

#[test]
fn a_start_counts_every_lease_that_could_have_been_renewed() {
    let mut world = World::with_model();
    let old = world.must_release(1);
    world.pass(LEASE_SECS + 1);
    let alive = world.must_release(2);
    assert!(world.vault().leases(world.now).all(|(id, _)| id == alive));
    // The keeper is away for a day: renewals that it signed before may be lost.
    world.pass(86_400);
    let start = world.start(1);
    world.must(start);
    let extended = world.vault().lease(alive).unwrap();
    assert_eq!(extended.renew_by, world.now.plus(LEASE_SECS));
    assert_eq!(extended.issued, UnixTime(world.now.seconds() - 86_400));
    assert!(world.vault().lease(old).is_none());
    assert_eq!(world.leases(), 1);
}

#[test]
fn a_start_takes_the_lease_time_of_the_rule_in_force() {
    let mut world = World::with_model();
    let lease = world.must_release(1);
    world.must_change_policy(|text| text.replace("lease = \"15m\"", "lease = \"1h\""));
    let start = world.start(1);
    world.must(start);
    assert_eq!(world.vault().lease(lease).unwrap().renew_by, world.now.plus(3600));
}

#[test]
fn a_start_takes_the_last_lease_time_where_the_rule_is_gone() {
    let mut world = World::with_model();
    let lease = world.must_release(1);
    world.must_change_policy(|text| text.replace("[release.minilm]", "[release.another]"));
    world.pass(60);
    let start = world.start(1);
    world.must(start);
    assert_eq!(world.vault().lease(lease).unwrap().renew_by, world.now.plus(LEASE_SECS));
    assert_eq!(world.vault().lease_count(&rule(), world.now), 1);
}

#[test]
fn a_start_ends_no_lease_sooner_than_its_holder_has_it_signed() {
    let mut world = World::with_model();
    let lease = world.must_release(1);
    world.must_change_policy(|text| text.replace("lease = \"15m\"", "lease = \"1m\""));
    world.pass(5);
    let start = world.start(1);
    world.must(start);
    assert_eq!(world.vault().lease(lease).unwrap().renew_by, world.now.plus(LEASE_SECS));
    world.pass(LEASE_SECS);
    assert_eq!(world.vault().lease_count(&rule(), world.now), 1);
}

/// The refusal of a renewal after a change of the policy.
fn renewal_after(change: impl FnOnce(String) -> String) -> Result<(), FoldError> {
    let mut world = World::with_model();
    let lease = world.must_release(1);
    world.must_change_policy(change);
    let entry = world.renew(vec![world.renewal(lease)]);
    world.apply(&entry)
}

#[test]
fn a_renewal_follows_the_rule_in_force() {
    let gone = renewal_after(|text| text.replace("[release.minilm]", "[release.another]"));
    assert_eq!(gone, Err(FoldError::RuleUnknown));
    let other_models = renewal_after(|text| text.replace("models = [\"minilm\"]", "models = [\"llama\"]"));
    assert_eq!(other_models, Err(FoldError::ModelNotInRule));
    let fewer = renewal_after(|text| text.replace("groups = [\"layer.0\", \"other\"]", "groups = [\"layer.0\"]"));
    assert_eq!(fewer, Err(FoldError::GroupsNarrowed));
    let more = renewal_after(|text| text.replace("groups = [\"layer.0\", \"other\"]", "groups = \"any\""));
    assert_eq!(more, Ok(()));
    let platform = renewal_after(|text| text.replace("eks = \"any\"\nlease", &format!("eks = [\"{OTHER}\"]\nlease")));
    assert_eq!(platform, Err(FoldError::PlatformNotListed));
    let shorter = renewal_after(|text| text.replace("lease = \"15m\"", "lease = \"10m\""));
    assert_eq!(shorter, Err(FoldError::RenewByMismatch));
    let fewer_leases = renewal_after(|text| text.replace("max_leases = 4", "max_leases = 1"));
    assert_eq!(fewer_leases, Ok(()), "a lease that runs is not cut off");
}

#[test]
fn lease_ids_are_of_this_vault() {
    let mut world = World::with_model();
    let mut release = world.release(1);
    release.lease = lease_id(&OTHER, &release.session, &release.lease_key);
    assert_eq!(world.refusal(Entry::Release(Box::new(release))), FoldError::LeaseIdMismatch);
}
