//! The decision, on real evidence: what is granted, and one denial for each thing that is checked.

use attestation::{LoadChallenge, RenewChallenge, Sha256Digest, Trust, UnitSet, UnixTime};
use ledger::decide::{Denial, DenialReason, decide, decide_renew};
use ledger::entry::{Action, Entry, Machine};
use ledger::lease::LeaseStatement;
use ledger::manifest::Manifest;
use ledger::names::{Name, Version};
use ledger::policy::PcrMismatch;
use ledger::release_log::Loggable;
use ledger::state::{LoggedManifest, OpenManifestError, State};

use crate::support::evidence::{Guest, hpke_key, other_lease_key};
use crate::support::policy_text::{self, PCR_0, PCR_11_GUEST, pcr};
use crate::support::world::{LEASE_SECS, World, lease_key, rule, session};

const OTHER: Sha256Digest = Sha256Digest::from_bytes([0x44; 32]);

fn minilm() -> (Name, Version) {
    ("minilm".parse().unwrap(), "1.0".parse().unwrap())
}

fn logged(world: &World) -> LoggedManifest {
    let (model, version) = minilm();
    world.state.open_manifest(&model, &version, world.manifest().bytes()).unwrap()
}

/// A grant of session `n`, as its entry.
fn grant(world: &World, guest: &Guest, n: u32) -> Entry {
    let grant = decide(&world.state, guest.good_load(world, n), &logged(world), world.now);
    grant.map_err(|denial| denial.to_string()).unwrap().entry(Sha256Digest::of(b"evidence"))
}

/// The denial of a good load after one change to its challenge.
#[track_caller]
fn load_denial(world: &World, guest: &Guest, change: impl FnOnce(&mut LoadChallenge)) -> Denial {
    let mut challenge = guest.load_challenge(world, 1);
    change(&mut challenge);
    let manifest = logged(world);
    match decide(&world.state, guest.load(challenge), &manifest, world.now) {
        Ok(_) => panic!("must be denied"),
        Err(denial) => denial,
    }
}

#[track_caller]
fn load_reason(world: &World, guest: &Guest, change: impl FnOnce(&mut LoadChallenge)) -> DenialReason {
    load_denial(world, guest, change).reason().clone()
}

#[test]
fn a_grant_is_for_the_key_inside_the_evidence() {
    let world = World::with_model();
    let guest = Guest::of(&world);
    let grant = decide(&world.state, guest.good_load(&world, 1), &logged(&world), world.now).ok().unwrap();
    assert_eq!(grant.recipient(), &hpke_key());
    assert_eq!(grant.units().as_slice(), [0, 1]);
    assert_eq!((grant.model(), grant.version()), (&minilm().0, &minilm().1));
    assert_eq!((grant.vault(), grant.policy()), (world.genesis.vault_id(), world.policy().digest()));
    assert_eq!((grant.manifest(), grant.rule_name()), (world.manifest().digest(), &rule()));
    assert_eq!((grant.session(), grant.nonce(), grant.lease_key()), (&session(1), &[2; 32], &lease_key()));
    assert_eq!((grant.issued(), grant.renew_by()), (world.now, world.now.plus(LEASE_SECS)));
    assert_eq!(grant.rule().max_leases, 4);
    assert_eq!(grant.claims().trust(), Trust::Emulated);
    let statement = grant.lease_statement();
    assert_eq!(LeaseStatement::parse(&statement.encode()), Ok(statement.clone()));
    assert_eq!((statement.lease, statement.renew_by), (grant.lease(), grant.renew_by()));
    assert_eq!(statement.policy, world.policy().digest());

    let Entry::Release(entry) = grant.entry(Sha256Digest::of(b"evidence")) else { panic!("not a release") };
    assert_eq!((entry.units.count, entry.units.bytes, entry.units.digest), (2, 1100, grant.units().digest()));
    assert_eq!((entry.time, entry.hpke_key), (world.now, Sha256Digest::of(hpke_key().as_bytes())));
    assert_eq!((entry.evidence, entry.binding), (Sha256Digest::of(b"evidence"), Sha256Digest::of(grant.preimage())));
    let Machine::Tpm(boot) = entry.machine else { panic!("a TPM quoted") };
    assert_eq!((boot.reset_count, boot.restart_count), (7, 1));

    let bytes = Entry::Release(entry).encode().unwrap();
    let evidenced = grant.with_evidence(Sha256Digest::of(b"evidence"));
    assert_eq!(evidenced.entry_bytes(), bytes);
    assert_eq!((evidenced.evidence(), evidenced.grant().issued()), (Sha256Digest::of(b"evidence"), world.now));
}

#[test]
fn what_is_decided_is_what_the_fold_takes() {
    let mut world = World::with_model();
    let guest = Guest::of(&world);
    let entry = grant(&world, &guest, 1);
    world.must(entry);
    assert_eq!(world.leases(), 1);
}

#[test]
fn header_units_need_no_group() {
    let world = World::with_model();
    let guest = Guest::of(&world);
    let mut challenge = guest.load_challenge(&world, 1);
    challenge.units = UnitSet::try_from(vec![0]).unwrap();
    assert!(decide(&world.state, guest.load(challenge), &logged(&world), world.now).is_ok());
}

#[test]
fn there_is_no_grant_before_the_vault_is_open() {
    let world = World::with_model();
    let guest = Guest::of(&world);
    let (verified, manifest) = (guest.good_load(&world, 1), logged(&world));
    let denial = decide(&State::new(), verified, &manifest, world.now).err().unwrap();
    assert_eq!(denial.reason(), &DenialReason::VaultNotOpen);
    assert_eq!(denial.code(), "vault-not-open");
}

#[test]
fn now_is_not_before_the_log() {
    let world = World::with_model();
    let guest = Guest::of(&world);
    let now = UnixTime(world.now.seconds() - 1);
    let denial = decide(&world.state, guest.good_load(&world, 1), &logged(&world), now).err().unwrap();
    assert_eq!(denial.reason(), &DenialReason::TimeBehindLog { last: world.now, now });
}

#[test]
fn a_load_is_for_this_vault_and_the_policy_in_force() {
    let mut world = World::with_model();
    let guest = Guest::of(&world);
    let vault = load_reason(&world, &guest, |challenge| challenge.vault = OTHER);
    assert_eq!(vault, DenialReason::VaultMismatch { expected: world.genesis.vault_id(), seen: OTHER });
    let old = world.policy().digest();
    world.must_change_policy(|text| text);
    let changed = load_denial(&world, &guest, |challenge| challenge.policy = old);
    assert_eq!(changed.reason(), &DenialReason::PolicyChanged { in_force: world.policy().digest(), seen: old });
    assert_eq!(changed.code(), "policy-changed");
}

#[test]
fn an_expired_policy_grants_nothing() {
    let mut world = World::with_model();
    let guest = Guest::of(&world);
    let not_after = world.policy().not_after();
    world.now = not_after.plus(1);
    let reason = load_reason(&world, &guest, |_| ());
    assert_eq!(reason, DenialReason::PolicyExpired { not_after, now: world.now });
    assert_eq!(reason.explain().policy_key.as_deref(), Some("not_after"));
    world.now = not_after;
    grant(&world, &guest, 1);
}

#[test]
fn a_load_names_a_rule_and_a_published_model() {
    let world = World::with_model();
    let guest = Guest::of(&world);
    for name in ["other", "Mini LM", ""] {
        let reason = load_reason(&world, &guest, |challenge| challenge.rule = name.to_owned());
        assert_eq!(reason, DenialReason::RuleUnknown { rule: name.to_owned() });
    }
    for name in ["llama", "Mini LM", ""] {
        let reason = load_reason(&world, &guest, |challenge| challenge.model = name.to_owned());
        let version = "1.0".to_owned();
        assert_eq!(reason, DenialReason::ModelNotPublished { model: name.to_owned(), version });
    }
    for version in ["1.1", "1 0", ""] {
        let reason = load_reason(&world, &guest, |challenge| challenge.version = version.to_owned());
        let model = "minilm".to_owned();
        assert_eq!(reason, DenialReason::ModelNotPublished { model, version: version.to_owned() });
    }
}

#[test]
fn the_manifest_is_the_logged_one() {
    let world = World::with_model();
    let guest = Guest::of(&world);
    let reason = load_reason(&world, &guest, |challenge| challenge.manifest = OTHER);
    assert_eq!(reason, DenialReason::ManifestMismatch { logged: world.manifest().digest(), seen: OTHER });

    // The logged manifest of another vault is another manifest.
    let other = World::with_model();
    let denial = decide(&world.state, guest.good_load(&world, 1), &logged(&other), world.now).err().unwrap();
    let seen = other.manifest().digest();
    assert_eq!(denial.reason(), &DenialReason::ManifestMismatch { logged: world.manifest().digest(), seen });
}

#[test]
fn the_rule_names_the_model() {
    let change = |text: String| text.replace("models = [\"minilm\"]", "models = [\"llama\"]");
    let world = World::with_policy(change).opened().published();
    let guest = Guest::of(&world);
    let denial = load_denial(&world, &guest, |_| ());
    assert_eq!(denial.reason(), &DenialReason::ModelNotInRule { rule: rule(), model: minilm().0 });
    assert_eq!(denial.reason().explain().policy_key.as_deref(), Some("release.minilm.models"));
}

#[test]
fn one_rule_covers_the_whole_unit_set() {
    let world = World::with_model();
    let guest = Guest::of(&world);
    let of = |units: Vec<u32>| move |challenge: &mut LoadChallenge| challenge.units = UnitSet::try_from(units).unwrap();
    let reason = load_reason(&world, &guest, of(vec![0, 4]));
    assert_eq!(reason, DenialReason::UnitUnknown { index: 4 });
    let denial = load_denial(&world, &guest, of(vec![0, 1, 2]));
    let group = "layer.1".parse().unwrap();
    assert_eq!(denial.reason(), &DenialReason::GroupNotGranted { rule: rule(), index: 2, group });
    assert_eq!(
        denial.to_string(),
        "group: expected a group that the rule gives, seen layer.1 (unit 2) (policy key release.minilm.groups)"
    );
}

#[test]
fn the_anchor_is_of_the_policy_in_force() {
    let mut world = World::with_model();
    // Verified under the anchors of the policy before; the challenge is of the one in force.
    let guest = Guest::of(&world);
    let pem = policy_text::anchor("ci", Trust::Emulated, &world.authority);
    world.must_change_policy(|text| text.replace(&pem, ""));
    let gone = load_reason(&world, &guest, |_| ());
    assert_eq!(gone, DenialReason::AnchorNotInPolicy { anchor: "ci".to_owned(), tier: Trust::Emulated });

    let mut world = World::with_model();
    let guest = Guest::of(&world);
    world.must_change_policy(|text| text.replace("trust = \"emulated\"", "trust = \"hardware\""));
    let raised = load_reason(&world, &guest, |_| ());
    assert_eq!(raised, DenialReason::AnchorNotInPolicy { anchor: "ci".to_owned(), tier: Trust::Emulated });
}

#[test]
fn the_tier_is_that_of_the_anchor() {
    let world = World::with_policy(|text| text.replace("trust = \"emulated\"", "trust = \"hardware\""));
    let world = world.opened().published();
    let Entry::Release(release) = grant(&world, &Guest::of(&world), 1) else { panic!("not a release") };
    assert_eq!(release.tier, Trust::Hardware);
}

#[test]
fn the_platform_is_listed() {
    let world = World::with_model();
    let platform = Guest::of(&world).endorsed().ek().platform();
    let list = |text: String| text.replace("eks = \"any\"\nlease", &format!("eks = [\"{platform}\"]\nlease"));
    let world = World::with_policy(list).opened().published();
    let guest = Guest::of(&world);
    grant(&world, &guest, 1);
    let stranger = guest.on_other_platform(&world.authority);
    let seen = stranger.endorsed().ek().platform();
    let denial = load_denial(&world, &stranger, |_| ());
    assert_eq!(denial.reason(), &DenialReason::PlatformNotListed { rule: rule(), platform: seen });
    assert_eq!(denial.reason().explain().policy_key.as_deref(), Some("release.minilm.eks"));
}

#[test]
fn every_pcr_of_the_rule_has_one_of_its_values() {
    let world = World::with_model();
    let mut guest = Guest::of(&world);
    for (index, allowed) in [(0, PCR_0), (11, PCR_11_GUEST)] {
        let good = guest.tpm.pcrs[index as usize];
        guest.tpm.pcrs[index as usize][31] ^= 1;
        let denial = load_denial(&world, &guest, |_| ());
        let mismatch = PcrMismatch { index, seen: Some(guest.tpm.pcrs[index as usize]) };
        let expected = DenialReason::PcrNotAllowed { rule: rule(), allowed: vec![pcr(allowed)], mismatch };
        assert_eq!(denial.reason(), &expected);
        assert_eq!(denial.reason().explain().policy_key, Some(format!("release.minilm.pcrs.{index}")));
        assert!(denial.to_string().contains(&format!("expected one of {allowed}, seen PCR {index} is ")), "{denial}");
        guest.tpm.pcrs[index as usize] = good;
    }
    // A quote over fewer PCRs than the rule names.
    guest.pcrs = vec![0];
    let missing = load_reason(&world, &guest, |_| ());
    let mismatch = PcrMismatch { index: 11, seen: None };
    assert_eq!(missing, DenialReason::PcrNotAllowed { rule: rule(), allowed: vec![pcr(PCR_11_GUEST)], mismatch });
}

#[test]
fn leases_are_new_and_limited() {
    let mut world = World::with_model();
    let guest = Guest::of(&world);
    let first = grant(&world, &guest, 1);
    world.must(first);
    let lease = guest.good_load(&world, 1).statement().lease_id();
    assert_eq!(load_reason(&world, &guest, |_| ()), DenialReason::LeaseRepeated { lease });
    for n in 2..=4 {
        let entry = grant(&world, &guest, n);
        world.must(entry);
    }
    let denial = load_denial(&world, &guest, |challenge| challenge.session = session(5));
    assert_eq!(denial.reason(), &DenialReason::TooManyLeases { rule: rule(), max: 4, leases: 4 });
    assert_eq!(denial.reason().explain().policy_key.as_deref(), Some("release.minilm.max_leases"));
    // Time passes and no entry is written: the leases are over all the same.
    world.pass(LEASE_SECS + 1);
    let entry = grant(&world, &guest, 5);
    world.must(entry);
}

#[test]
fn a_denial_becomes_an_entry() {
    let mut world = World::with_model();
    let guest = Guest::of(&world);
    let denial = load_denial(&world, &guest, |challenge| challenge.units = UnitSet::try_from(vec![2]).unwrap());
    assert_eq!((denial.request().action, denial.request().tier), (Action::Load, Trust::Emulated));
    let entry = denial.entry(world.now, OTHER).unwrap();
    let Entry::Deny(deny) = &entry else { panic!("not a denial") };
    assert_eq!((deny.code.as_str(), deny.platform), ("group-not-granted", guest.endorsed().ek().platform()));
    world.must(entry);
    // What was named is no name: no challenge is ever made for that.
    let denial = load_denial(&world, &guest, |challenge| challenge.rule = "Mini LM".to_owned());
    assert_eq!(denial.entry(world.now, OTHER), None);
}

/// A world where the guest has a lease that is 60 seconds old.
fn leased() -> (World, Guest, Sha256Digest) {
    let mut world = World::with_model();
    let guest = Guest::of(&world);
    let entry = grant(&world, &guest, 1);
    let Entry::Release(release) = &entry else { panic!("not a release") };
    let lease = release.lease;
    world.must(entry);
    world.pass(60);
    (world, guest, lease)
}

#[track_caller]
fn renew_reason(
    world: &World,
    guest: &Guest,
    lease: Sha256Digest,
    change: impl FnOnce(&mut RenewChallenge),
) -> DenialReason {
    let mut challenge = guest.renew_challenge(world, lease);
    change(&mut challenge);
    match decide_renew(&world.state, guest.renew(challenge), world.now) {
        Ok(_) => panic!("must be denied"),
        Err(denial) => denial.reason().clone(),
    }
}

#[test]
fn a_lease_is_renewed_by_the_same_machine() {
    let (mut world, guest, lease) = leased();
    world.pass(LEASE_SECS - 60);
    let grant = decide_renew(&world.state, guest.good_renew(&world, lease), world.now).ok().unwrap();
    assert_eq!((grant.lease(), grant.issued(), grant.renew_by()), (lease, world.now, world.now.plus(LEASE_SECS)));
    let statement = grant.lease_statement();
    assert_eq!((&statement.rule, &statement.lease_key), (&rule(), &lease_key()));
    assert_eq!((statement.vault, statement.policy), (world.genesis.vault_id(), world.policy().digest()));
    assert_eq!(grant.claims().quote().map(|quote| quote.reset_count()), Some(7));
    let renewal = grant.renewal(OTHER);
    assert_eq!((renewal.evidence, renewal.binding), (OTHER, Sha256Digest::of(grant.preimage())));
    let entry = world.renew(vec![renewal]);
    world.must(entry);
    assert_eq!(world.vault().lease(lease).unwrap().renew_by, world.now.plus(LEASE_SECS));
}

#[test]
fn a_renewal_is_of_a_lease_that_runs() {
    let (mut world, guest, lease) = leased();
    assert_eq!(renew_reason(&world, &guest, OTHER, |_| ()), DenialReason::LeaseUnknown { lease: OTHER });
    let renew_by = world.vault().lease(lease).unwrap().renew_by;
    world.now = renew_by.plus(1);
    let lapsed = renew_reason(&world, &guest, lease, |_| ());
    assert_eq!(lapsed, DenialReason::LeaseLapsed { renew_by, now: world.now });
    world.now = renew_by;
    let entry = world.end(lease);
    world.must(entry);
    assert_eq!(renew_reason(&world, &guest, lease, |_| ()), DenialReason::LeaseUnknown { lease });
}

#[test]
fn a_renewal_is_for_this_vault_policy_rule_and_key() {
    let (world, guest, lease) = leased();
    let reason = |change: fn(&mut RenewChallenge)| renew_reason(&world, &guest, lease, change);
    let vault = world.genesis.vault_id();
    assert_eq!(reason(|c| c.vault = OTHER), DenialReason::VaultMismatch { expected: vault, seen: OTHER });
    let in_force = world.policy().digest();
    assert_eq!(reason(|c| c.policy = OTHER), DenialReason::PolicyChanged { in_force, seen: OTHER });
    let named = "other".to_owned();
    assert_eq!(reason(|c| c.rule = "other".to_owned()), DenialReason::RuleOfAnotherLease { granted: rule(), named });
    assert_eq!(reason(|c| c.lease_key = other_lease_key()), DenialReason::LeaseKeyMismatch);
}

#[test]
fn a_renewal_comes_from_the_same_boot_of_the_same_machine() {
    let (world, mut guest, lease) = leased();
    guest.reset_count = 8;
    let rebooted = renew_reason(&world, &guest, lease, |_| ());
    assert_eq!(rebooted, DenialReason::Rebooted { granted: (7, 1), seen: (8, 1) });
    (guest.reset_count, guest.restart_count) = (7, 2);
    let resumed = renew_reason(&world, &guest, lease, |_| ());
    assert_eq!(resumed, DenialReason::Rebooted { granted: (7, 1), seen: (7, 2) });
    // The same TPM with a fresh attestation key.
    let other = Guest::of(&world);
    assert_eq!(renew_reason(&world, &other, lease, |_| ()), DenialReason::AkChanged);
    guest.restart_count = 1;
    let granted = guest.endorsed().ek().platform();
    let elsewhere = guest.on_other_platform(&world.authority);
    let seen = elsewhere.endorsed().ek().platform();
    let moved = renew_reason(&world, &elsewhere, lease, |_| ());
    assert_eq!(moved, DenialReason::PlatformChanged { granted, seen });
}

#[test]
fn a_renewal_follows_the_rule_in_force() {
    let after = |change: &dyn Fn(String) -> String| {
        let (mut world, mut guest, lease) = leased();
        world.must_change_policy(change);
        guest.anchors = world.policy().trust_anchors().clone();
        decide_renew(&world.state, guest.good_renew(&world, lease), world.now).map_err(|denial| denial.reason().clone())
    };
    let denied = |change: &dyn Fn(String) -> String| after(change).err().unwrap();
    assert!(after(&|text| text.replace("lease = \"15m\"", "lease = \"1h\"")).is_ok());
    let gone = denied(&|text| text.replace("[release.minilm]", "[release.another]"));
    assert_eq!(gone, DenialReason::RuleUnknown { rule: "minilm".to_owned() });
    let model = denied(&|text| text.replace("models = [\"minilm\"]", "models = [\"llama\"]"));
    assert_eq!(model, DenialReason::ModelNotInRule { rule: rule(), model: minilm().0 });
    let groups = denied(&|text| text.replace("groups = [\"layer.0\", \"other\"]", "groups = [\"other\"]"));
    assert_eq!(groups, DenialReason::GroupsNarrowed { rule: rule() });
    let eks = denied(&|text| text.replace("eks = \"any\"\nlease", &format!("eks = [\"{OTHER}\"]\nlease")));
    assert!(matches!(eks, DenialReason::PlatformNotListed { .. }));
    let pcrs = denied(&|text| text.replace(PCR_11_GUEST, &"5".repeat(64)));
    assert!(matches!(pcrs, DenialReason::PcrNotAllowed { mismatch: PcrMismatch { index: 11, .. }, .. }));
    let tier = denied(&|text| text.replace("trust = \"emulated\"", "trust = \"hardware\""));
    assert_eq!(tier, DenialReason::TierChanged { granted: Trust::Emulated, seen: Trust::Hardware });
}

#[test]
fn nothing_is_renewed_under_an_expired_policy() {
    let (mut world, guest, lease) = leased();
    let not_after = world.now.plus(60);
    world.must_change_policy(|text| text.replace("2027-03-01T00:00:00Z", "2027-01-15T08:02:00Z"));
    assert_eq!(world.policy().not_after(), not_after);
    world.now = not_after.plus(1);
    let expired = renew_reason(&world, &guest, lease, |_| ());
    assert_eq!(expired, DenialReason::PolicyExpired { not_after, now: world.now });
}

#[test]
fn the_anchor_of_a_renewal_is_of_the_policy_in_force() {
    let (mut world, guest, lease) = leased();
    let pem = policy_text::anchor("ci", Trust::Emulated, &world.authority);
    world.must_change_policy(|text| text.replace(&pem, ""));
    let gone = renew_reason(&world, &guest, lease, |_| ());
    assert_eq!(gone, DenialReason::AnchorNotInPolicy { anchor: "ci".to_owned(), tier: Trust::Emulated });
}

#[test]
fn a_denied_renewal_becomes_an_entry_where_the_lease_is_known() {
    let (world, mut guest, lease) = leased();
    guest.reset_count = 8;
    let denial = decide_renew(&world.state, guest.good_renew(&world, lease), world.now).err().unwrap();
    let Some(Entry::Deny(deny)) = denial.entry(world.now, OTHER) else { panic!("not a denial") };
    assert_eq!((deny.action, deny.code.as_str(), deny.model.as_str()), (Action::Renew, "rebooted", "minilm"));
    let unknown = decide_renew(&world.state, guest.good_renew(&world, OTHER), world.now).err().unwrap();
    assert_eq!(unknown.entry(world.now, OTHER), None);
}

#[test]
fn only_the_logged_manifest_is_opened() {
    let world = World::with_model();
    let (model, version) = minilm();
    let bytes = world.manifest().bytes().to_vec();
    let open = |model: &Name, version: &Version, bytes: &[u8]| world.state.open_manifest(model, version, bytes).err();
    assert_eq!(open(&model, &version, &bytes), None);
    assert_eq!(open(&"llama".parse().unwrap(), &version, &bytes), Some(OpenManifestError::ModelNotPublished));
    assert_eq!(open(&model, &"1.1".parse().unwrap(), &bytes), Some(OpenManifestError::ModelNotPublished));
    let spaced = [bytes.as_slice(), b" "].concat();
    let (expected, found) = (Sha256Digest::of(&bytes), Sha256Digest::of(&spaced));
    assert_eq!(open(&model, &version, &spaced), Some(OpenManifestError::DigestMismatch { expected, found }));
    let early = State::new().open_manifest(&model, &version, &bytes).err();
    assert_eq!(early, Some(OpenManifestError::VaultNotOpen));
}

#[test]
fn a_manifest_says_what_the_log_says() {
    let publish = |change: &dyn Fn(&mut ledger::entry::ProposedModel)| {
        let mut world = World::open();
        let mut proposed = world.proposed_model();
        change(&mut proposed);
        proposed.object =
            ledger::approvals::model_object(&proposed.model, &proposed.version, proposed.manifest, proposed.model_sig);
        let (at, object) = (world.state.size(), proposed.object);
        let (model, version) = (proposed.model.clone(), proposed.version.clone());
        let entry = world.propose(ledger::entry::Proposal::Model(proposed));
        world.must(entry);
        for person in [1, 2] {
            let entry = world.approve(person, ledger::approvals::ApprovalAction::Model, object);
            world.must(entry);
        }
        let time = world.now;
        let effect = ledger::entry::ModelPublished { time, proposal: at, object, model, version };
        world.must(Entry::Model(effect.clone()));
        (world, effect)
    };
    for change in [
        (&|model: &mut ledger::entry::ProposedModel| model.units = 5) as &dyn Fn(&mut ledger::entry::ProposedModel),
        &|model| model.bytes += 1,
        &|model| model.version = "2.0".parse().unwrap(),
        &|model| model.model = "llama".parse().unwrap(),
    ] {
        let (world, effect) = publish(change);
        let opened = world.state.open_manifest(&effect.model, &effect.version, world.manifest().bytes());
        assert_eq!(opened.err(), Some(OpenManifestError::NotAsLogged));
    }
    // The bytes that the log names are no manifest at all.
    let (world, effect) = publish(&|model| model.manifest = Sha256Digest::of(b"{}"));
    let opened = world.state.open_manifest(&effect.model, &effect.version, b"{}");
    assert!(matches!(opened, Err(OpenManifestError::Manifest(_))));
    assert_eq!(Manifest::parse(b"{}").err().map(|error| error.code()), opened.err().map(|error| error.code()));
}
