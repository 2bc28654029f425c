//! A request of the past decided again: each check by one change, and what is not known is neither yes nor no.

use std::sync::Arc;

use attestation::{Claims, Sha256Digest, Trust, UnitSet, Workload};
use ledger::decide::{
    DenialReason, OpenQuestion, PastBytes, PastEvidence, PastRequest, PastUnits, PastWorkload, Replayed, Shown,
    rehearse, replay,
};
use ledger::entry::{Action, Entry, Release};
use ledger::names::{Group, Name, Version};
use ledger::policy::{Permitted, Policy};
use ledger::state::{LoggedManifest, Rehearsal, State};

use crate::support::evidence::Guest;
use crate::support::policy_text::PCR_11_GUEST;
use crate::support::world::{World, rule};
use crate::workloads;

/// A vault with a model, and what a good load of it showed.
struct Past {
    world: World,
    claims: Claims,
    named: (Name, Name, Version),
    units: UnitSet,
    manifest: LoggedManifest,
}

impl Past {
    fn new() -> Self {
        let world = World::with_model();
        let claims = Guest::of(&world).good_load(&world, 1).claims().clone();
        let named = (rule(), "minilm".parse().unwrap(), "1.0".parse().unwrap());
        let manifest = world.state.open_manifest(&named.1, &named.2, world.manifest().bytes()).unwrap();
        Self { world, claims, named, units: UnitSet::try_from(vec![0, 1]).unwrap(), manifest }
    }

    fn request(&self) -> PastRequest<'_> {
        let (rule, model, version) = (&self.named.0, &self.named.1, &self.named.2);
        let (shown, anchor, tier) = (Shown::from(&self.claims), self.claims.anchor(), self.claims.trust());
        PastRequest {
            action: Action::Load,
            time: self.world.now,
            rule,
            model,
            version,
            platform: self.claims.platform(),
            units: PastUnits::Known { units: &self.units, manifest: &self.manifest },
            bytes: PastBytes::exactly(1100),
            marks: None,
            workload: PastWorkload::NotAsked,
            evidence: Some(PastEvidence { shown, anchor, tier, revocation: false }),
        }
    }

    /// Under the policy in force after one change to its text.
    #[track_caller]
    fn under<'a>(&'a self, from: &str, to: &str, change: impl FnOnce(&mut PastRequest<'a>)) -> Replayed {
        assert!(self.world.policy_text.contains(from), "{from}");
        let policy = Policy::parse(&self.world.policy_text.replacen(from, to, 1)).unwrap();
        let mut request = self.request();
        change(&mut request);
        replay(self.world.vault(), &rehearsal(&self.world, policy).allowances(), &request)
    }

    fn as_it_was<'a>(&'a self, change: impl FnOnce(&mut PastRequest<'a>)) -> Replayed {
        self.under("", "", change)
    }
}

/// The past of a world, had this policy been in force all along: with every release of it.
pub(crate) fn rehearsal(world: &World, policy: Policy) -> Rehearsal {
    let (mut state, mut rehearsal) = (State::new(), Rehearsal::new(Arc::new(policy)));
    for bytes in &world.entries {
        let entry = Entry::parse(bytes).unwrap();
        rehearsal.prepare(&state);
        if let Entry::Release(release) = &entry {
            rehearse(&mut rehearsal, &request_of(release), Some(release.lease));
        }
        rehearsal.follow(&state, &entry);
        state.apply(state.size(), bytes).unwrap();
    }
    rehearsal.prepare(&state);
    rehearsal
}

pub(crate) fn request_of(release: &Release) -> PastRequest<'_> {
    PastRequest {
        action: Action::Load,
        time: release.time,
        rule: &release.rule,
        model: &release.model,
        version: &release.version,
        platform: release.platform,
        units: PastUnits::Unknown,
        bytes: PastBytes::exactly(release.units.bytes),
        marks: release.marks.as_ref(),
        workload: release.workload.as_ref().map_or(PastWorkload::NotAsked, PastWorkload::Shown),
        evidence: None,
    }
}

#[track_caller]
fn refused(replayed: Replayed) -> DenialReason {
    let Replayed::Refused(reason) = replayed else { panic!("{replayed:?}") };
    assert!(!reason.remedy().is_empty());
    *reason
}

#[test]
fn what_was_granted_is_granted_again() {
    assert_eq!(Past::new().as_it_was(|_| ()), Replayed::Granted);
}

#[test]
fn each_change_of_policy_has_its_own_refusal() {
    let past = Past::new();
    let code = |from: &str, to: &str| refused(past.under(from, to, |_| ())).code();
    assert_eq!(code("2027-03-01T00:00:00Z", "2020-03-01T00:00:00Z"), "policy-expired");
    assert_eq!(code("[release.minilm]", "[release.other]"), "rule-unknown");
    assert_eq!(code("models = [\"minilm\"]", "models = [\"llama\"]"), "model-not-in-rule");
    assert_eq!(code("groups = [\"layer.0\", \"other\"]", "groups = [\"other\"]"), "group-not-granted");
    assert_eq!(code("name = \"ci\"", "name = \"another\""), "anchor-not-in-policy");
    assert_eq!(code(PCR_11_GUEST, &"4".repeat(64)), "pcr-not-allowed");
    let elsewhere = format!("eks = [\"sha256:{}\"]\nlease", "4".repeat(64));
    assert_eq!(code("eks = \"any\"\nlease", &elsewhere), "platform-not-listed");
    let mut past = past;
    past.world.must_release(7);
    let full = past.under("max_leases = 4", "max_leases = 1", |_| ());
    assert_eq!(refused(full), DenialReason::TooManyLeases { rule: rule(), max: 1, leases: 1 });
}

#[test]
fn a_pin_refuses_what_was_started_then_and_what_was_not_said_is_open() {
    let (shown, past) = (workloads::shown(), Past::new());
    let other = Workload { program: Sha256Digest::of(b"other"), ..shown };
    let pinned = format!("workloads = [{}]\nmax_leases = 4", workloads::pin());
    let any = "workloads = \"any\"\nmax_leases = 4";
    let under = |rule: &str, workload| past.under("max_leases = 4", rule, |request| request.workload = workload);
    for rule in ["max_leases = 4", any, pinned.as_str()] {
        assert_eq!(under(rule, PastWorkload::Shown(&shown)), Replayed::Granted, "{rule}");
    }
    assert_eq!(refused(under(&pinned, PastWorkload::Shown(&other))).code(), "workload-program");
    assert_eq!(under(any, PastWorkload::Shown(&other)), Replayed::Granted);
    for rule in [any, pinned.as_str()] {
        assert_eq!(refused(under(rule, PastWorkload::Missing)).code(), "workload-missing");
        assert_eq!(under(rule, PastWorkload::NotAsked), Replayed::Open(OpenQuestion::Workload));
    }
}

#[test]
fn a_renewal_takes_no_place() {
    let mut past = Past::new();
    past.world.must_release(7);
    let renewed = past.under("max_leases = 4", "max_leases = 1", |request| request.action = Action::Renew);
    assert_eq!(renewed, Replayed::Granted);
}

#[test]
fn a_model_that_is_not_published_is_not_released_by_a_policy() {
    let llama: Name = "llama".parse().unwrap();
    let reason = refused(Past::new().under("models = [\"minilm\"]", "models = [\"llama\"]", |request| {
        request.model = &llama;
    }));
    assert_eq!(reason.code(), "model-not-published");
}

#[test]
fn what_is_not_known_is_neither_yes_nor_no() {
    let past = Past::new();
    let open = Replayed::Open;
    assert_eq!(past.as_it_was(|request| request.evidence = None), open(OpenQuestion::Evidence));
    assert_eq!(past.as_it_was(|request| request.units = PastUnits::Unknown), open(OpenQuestion::Groups));
    let of: [Group; 2] = ["layer.0", "layer.1"].map(|group| group.parse().unwrap());
    let (within, beyond) = (Permitted::Only(of[..1].to_vec()), Permitted::Only(of.to_vec()));
    assert_eq!(past.as_it_was(|request| request.units = PastUnits::Within(&within)), Replayed::Granted);
    assert_eq!(past.as_it_was(|request| request.units = PastUnits::Within(&beyond)), open(OpenQuestion::Groups));
    let any = past.under("groups = [\"layer.0\", \"other\"]", "groups = \"any\"", |request| {
        request.units = PastUnits::Unknown;
    });
    assert_eq!(any, Replayed::Granted);
}

#[test]
fn a_pcr_that_nobody_asked_for_hides_no_refusal() {
    let past = Past::new();
    let (good, more) = (format!("11 = [\"{PCR_11_GUEST}\"]"), |value: &str| {
        format!("5 = [\"{}\"], 11 = [\"{value}\"]", "5".repeat(64))
    });
    let open = past.under(&good, &more(PCR_11_GUEST), |_| ());
    assert_eq!(open, Replayed::Open(OpenQuestion::PcrNotQuoted { index: 5 }));
    let DenialReason::PcrNotAllowed { mismatch, .. } = refused(past.under(&good, &more(&"4".repeat(64)), |_| ()))
    else {
        panic!("PCR 11 is another");
    };
    assert!(mismatch.index == 11 && mismatch.seen.is_some(), "{mismatch}");
}

#[test]
fn without_evidence_a_platform_that_is_not_listed_is_refused_all_the_same() {
    let past = Past::new();
    let elsewhere = format!("eks = [\"sha256:{}\"]\nlease", "4".repeat(64));
    let reason = refused(past.under("eks = \"any\"\nlease", &elsewhere, |request| request.evidence = None));
    let platform: Sha256Digest = past.claims.platform();
    assert_eq!(reason, DenialReason::PlatformNotListed { rule: rule(), platform });
}

#[test]
fn an_anchor_counts_with_its_trust() {
    let reason = refused(Past::new().as_it_was(|request| {
        if let Some(evidence) = &mut request.evidence {
            evidence.tier = Trust::Hardware;
        }
    }));
    assert_eq!(reason, DenialReason::AnchorNotInPolicy { anchor: "ci".to_owned(), tier: Trust::Hardware });
}
