//! The difference between two policies in words, for those who have to approve it.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Display;

use attestation::{Anchor, Sha256Digest, UnixTime};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::pcrs::PcrRule;
use super::rules::{
    Approval, BareEks, GuestRule, KeeperRule, LeaseEnd, Permitted, Proof, ProposerRule, PublishRule, ReleaseRule,
    TpmRule, UnitCheck,
};
use super::{Lineage, Policy, change_boot, change_snp, change_workload};
use crate::names::Name;

/// What `new` permits and forbids that `old` does not, a sentence each. What gives something away comes first and begins
/// with `LOOSER`, the most dangerous at the top; then what is merely other (`changed`), then what takes something back
/// (`stricter`).
pub fn describe_change(old: &Policy, new: &Policy) -> Vec<String> {
    let mut changes = Changes::default();
    changes.lineage(old, new);
    changes.approval(old.approval(), new.approval());
    changes.platforms(old.platform_threshold(), new.platform_threshold());
    changes.anchors(old, new);
    changes.keeper(old.keeper(), new.keeper());
    changes.publish(old.publish_rules(), new.publish_rules());
    for (name, rule) in new.release_rules() {
        match old.release_rules().get(name) {
            Some(before) => changes.release(&format!("release.{name}"), before, rule),
            None => changes.looser(format!("release.{name} is new: {}", in_words(rule))),
        }
    }
    for name in old.release_rules().keys().filter(|name| !new.release_rules().contains_key(name)) {
        changes.stricter(format!("release.{name} is gone"));
    }
    changes.budgets(old.budgets(), new.budgets());
    changes.alarms(old.alarms(), new.alarms());
    changes.permitted("audit.readers", old.readers(), new.readers());
    changes.in_order()
}

/// The derived order is the order in which people should read.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Effect {
    Looser,
    Changed,
    Stricter,
}

/// What holds where nobody is asked for approvals.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Asked {
    /// It is not possible.
    MayNot,
    /// It happens without.
    MayAnyway,
}

/// Found section by section, from who decides to who reads: within one effect that is also the order of danger.
#[derive(Default)]
pub(super) struct Changes(Vec<(Effect, String)>);

impl Changes {
    fn in_order(mut self) -> Vec<String> {
        self.0.sort_by_key(|(effect, _)| *effect);
        let line = |(effect, text): (Effect, String)| match effect {
            Effect::Looser => format!("LOOSER: {text}"),
            Effect::Changed => format!("changed: {text}"),
            Effect::Stricter => format!("stricter: {text}"),
        };
        self.0.into_iter().map(line).collect()
    }

    pub(super) fn looser(&mut self, text: String) {
        self.0.push((Effect::Looser, text));
    }

    pub(super) fn changed(&mut self, text: String) {
        self.0.push((Effect::Changed, text));
    }

    pub(super) fn stricter(&mut self, text: String) {
        self.0.push((Effect::Stricter, text));
    }

    /// Looser or stricter, whichever `is_looser` says.
    pub(super) fn either(&mut self, is_looser: bool, text: String) {
        if is_looser { self.looser(text) } else { self.stricter(text) }
    }

    fn lineage(&mut self, old: &Policy, new: &Policy) {
        if let (Lineage::Successor { vault: a, .. }, Lineage::Successor { vault: b, .. }) =
            (old.lineage(), new.lineage())
            && a != b
        {
            self.changed(format!("the vault is {b}, before {a}"));
        }
        if old.serial() != new.serial() {
            self.changed(format!("serial {} becomes {}", old.serial(), new.serial()));
        }
        let (a, b) = (old.not_after(), new.not_after());
        if a != b {
            self.either(b > a, format!("the policy ends at {}, before at {}", utc(b), utc(a)));
        }
    }

    fn approval(&mut self, old: &Approval, new: &Approval) {
        let (a, b) = (old.threshold, new.threshold);
        if a != b {
            self.either(b < a, format!("policies need {b} approvals, before {a}"));
        }
        let (a, b) = (old.revoke_threshold, new.revoke_threshold);
        let as_policies = [old, new].iter().all(|approval| approval.revoke_threshold == approval.threshold);
        if a != b && !as_policies {
            // Neither: it gives no weights away, and lets others stop what runs.
            self.changed(format!("revocations need {b} approvals, before {a}"));
        }
        let key = "approval.break_glass_threshold";
        self.asked(key, old.break_glass_threshold, new.break_glass_threshold, Asked::MayNot);
        for object in &new.standing {
            self.looser(format!("the standing approval {object} goes on; those that are not listed end"));
        }
        match (old.proposer, new.proposer) {
            (ProposerRule::MayNotApprove, ProposerRule::MayApprove) => {
                self.looser("whoever proposes a policy may approve it himself".to_owned());
            }
            (ProposerRule::MayApprove, ProposerRule::MayNotApprove) => {
                self.stricter("whoever proposes a policy may no longer approve it himself".to_owned());
            }
            (ProposerRule::MayApprove, ProposerRule::MayApprove)
            | (ProposerRule::MayNotApprove, ProposerRule::MayNotApprove) => {}
        }
        for approver in &new.approvers {
            match old.approvers.iter().find(|before| before.id == approver.id) {
                None => self.looser(format!("{approver} becomes an approver")),
                Some(before) if before.key != approver.key => {
                    self.looser(format!(
                        "approver {} has another key: {}, before {}",
                        approver.id, approver.key, before.key
                    ));
                }
                Some(_) => {}
            }
        }
        for approver in old.approvers.iter().filter(|before| new.approvers.iter().all(|after| after.id != before.id)) {
            // Neither: one who could say no is gone.
            self.changed(format!("{approver} is no longer an approver"));
        }
    }

    fn platforms(&mut self, old: Option<u32>, new: Option<u32>) {
        match (old, new) {
            (None, Some(new)) => self.looser(format!("EKs without a certificate can be enrolled by {new} approvals")),
            (Some(_), None) => {
                self.stricter("no EK without a certificate can be enrolled; those that were are forgotten".to_owned());
            }
            (Some(old), Some(new)) if old != new => {
                self.either(new < old, format!("to enrol or remove an EK takes {new} approvals, before {old}"));
            }
            (Some(_), Some(_)) | (None, None) => {}
        }
    }

    fn bare_eks(&mut self, key: &str, old: BareEks, new: BareEks) {
        match (old, new) {
            (BareEks::Refused, BareEks::Enrolled) => {
                self.looser(format!("{key} takes enrolled EKs that have no certificate"));
            }
            (BareEks::Enrolled, BareEks::Refused) => {
                self.stricter(format!("{key} no longer takes EKs that have no certificate"));
            }
            (BareEks::Refused, BareEks::Refused) | (BareEks::Enrolled, BareEks::Enrolled) => {}
        }
    }

    fn anchors(&mut self, old: &Policy, new: &Policy) {
        let find = |policy: &Policy, name: &str| {
            policy.trust_anchors().iter().map(|(anchor, _)| anchor).find(|anchor| anchor.name == name).cloned()
        };
        for anchor in new.trust_anchors().iter().map(|(anchor, _)| anchor) {
            let (name, trust) = (&anchor.name, anchor.trust);
            match find(old, name) {
                None => self.looser(format!("anchor {name} is new and counts as {trust}: {}", certificate_of(anchor))),
                Some(before) if before.certificate != anchor.certificate => {
                    let (new, old) = (certificate_of(anchor), certificate_of(&before));
                    self.looser(format!(
                        "anchor {name} has another certificate and counts as {trust}: {new}, before {old}"
                    ));
                }
                Some(before) if before.trust != trust => {
                    self.either(
                        trust > before.trust,
                        format!("anchor {name} counts as {trust}, before as {}", before.trust),
                    );
                }
                Some(_) => {}
            }
        }
        for anchor in
            old.trust_anchors().iter().map(|(anchor, _)| anchor).filter(|before| find(new, &before.name).is_none())
        {
            self.stricter(format!("anchor {} is gone", anchor.name));
        }
    }

    fn keeper(&mut self, old: &KeeperRule, new: &KeeperRule) {
        self.proofs("keeper.require", &old.require(), &new.require());
        self.tpm("keeper", old.tpm(), new.tpm());
        self.snp("keeper.snp", old.snp(), new.snp());
    }

    fn tpm(&mut self, key: &str, old: &TpmRule, new: &TpmRule) {
        self.pcrs(&format!("{key}.pcrs"), Some(&old.pcrs), Some(&new.pcrs));
        self.permitted(&format!("{key}.eks"), &old.platforms, &new.platforms);
    }

    fn publish(&mut self, old: &BTreeMap<Name, PublishRule>, new: &BTreeMap<Name, PublishRule>) {
        for (name, rule) in new {
            let Some(before) = old.get(name) else {
                let keys = keys_of(rule);
                let (models, approvals) = (&rule.models, rule.approvals);
                self.looser(format!("publish.{name} is new: models {models}, keys {keys}, {approvals} approvals"));
                continue;
            };
            self.permitted(&format!("publish.{name}.models"), &before.models, &rule.models);
            for key in rule.keys.iter().filter(|key| !before.keys.contains(key)) {
                self.looser(format!("publish.{name} also takes the key {}", key.digest()));
            }
            for key in before.keys.iter().filter(|key| !rule.keys.contains(key)) {
                self.stricter(format!("publish.{name} no longer takes the key {}", key.digest()));
            }
            let (a, b) = (before.approvals, rule.approvals);
            if a != b {
                self.either(b < a, format!("publish.{name} needs {b} approvals, before {a}"));
            }
        }
        for name in old.keys().filter(|name| !new.contains_key(name)) {
            self.stricter(format!("publish.{name} is gone"));
        }
    }

    fn release(&mut self, key: &str, old: &ReleaseRule, new: &ReleaseRule) {
        self.proofs(&format!("{key}.require"), &old.guest.require(), &new.guest.require());
        self.pcrs(&format!("{key}.pcrs"), old.guest.pcrs(), new.guest.pcrs());
        let boot = |rule: &ReleaseRule| rule.guest.pcrs().and_then(PcrRule::boot).cloned();
        self.boot(&format!("{key}.boot"), boot(old).as_ref(), boot(new).as_ref());
        match (old.guest.eks(), new.guest.eks()) {
            (Some(old), Some(new)) => self.permitted(&format!("{key}.eks"), old, new),
            (Some(old), None) => self.looser(format!("{key}.eks is gone, before {old}")),
            (None, Some(new)) => self.stricter(format!("{key}.eks is new: {new}")),
            (None, None) => {}
        }
        self.bare_eks(key, old.guest.bare_eks(), new.guest.bare_eks());
        self.snp(&format!("{key}.snp"), old.guest.snp(), new.guest.snp());
        self.code_cover(&format!("{key}.snp.code_covered_by"), &old.guest, &new.guest);
        self.workloads(&format!("{key}.workloads"), &old.workloads, &new.workloads);
        self.permitted(&format!("{key}.models"), &old.models, &new.models);
        self.permitted(&format!("{key}.groups"), &old.groups, &new.groups);
        self.asked(&format!("{key}.approvals"), old.approvals, new.approvals, Asked::MayAnyway);
        let (a, b) = (old.max_leases, new.max_leases);
        if a != b {
            self.either(b > a, format!("{key} runs at most {b} leases, before {a}"));
        }
        let (a, b) = (old.lease.seconds(), new.lease.seconds());
        if a != b {
            self.either(b > a, format!("a lease of {key} lasts {b} s, before {a} s"));
        }
        let (a, b) = (old.lease_end, new.lease_end);
        if a != b {
            let drain = |end| match end {
                LeaseEnd::End => 0,
                LeaseEnd::Drain { seconds } => seconds,
            };
            self.either(
                drain(b) > drain(a),
                format!("at its end a lease of {key} does {b:?}, before {a:?}", b = b.to_string(), a = a.to_string()),
            );
        }
        match (old.unit_check, new.unit_check) {
            (UnitCheck::Hashed, UnitCheck::SealOnly) => {
                self.looser(format!("{key} no longer verifies the hash of each unit"))
            }
            (UnitCheck::SealOnly, UnitCheck::Hashed) => self.stricter(format!("{key} verifies the hash of each unit")),
            (UnitCheck::Hashed, UnitCheck::Hashed) | (UnitCheck::SealOnly, UnitCheck::SealOnly) => {}
        }
    }

    /// A number of approvals that may be left out.
    fn asked(&mut self, key: &str, old: Option<u32>, new: Option<u32>, without: Asked) {
        match (old, new) {
            (Some(a), Some(b)) if a != b => self.either(b < a, format!("{key} is {b}, before {a}")),
            (Some(a), None) => self.either(without == Asked::MayAnyway, format!("{key} is gone, before {a}")),
            (None, Some(b)) => self.either(without == Asked::MayNot, format!("{key} is new: {b}")),
            (Some(_), Some(_)) | (None, None) => {}
        }
    }

    fn proofs(&mut self, key: &str, old: &BTreeSet<Proof>, new: &BTreeSet<Proof>) {
        for proof in old.difference(new) {
            self.looser(format!("{key} no longer has {proof}"));
        }
        for proof in new.difference(old) {
            self.stricter(format!("{key} also has {proof}"));
        }
    }

    fn pcrs(&mut self, key: &str, old: Option<&PcrRule>, new: Option<&PcrRule>) {
        let (old, new) = match (old, new) {
            (Some(old), Some(new)) => (old, new),
            (Some(_), None) => return self.looser(format!("{key} is gone: no PCR is checked")),
            // What it replaces is looser, and was said to: of what is good from here on these values are all.
            (None, Some(new)) => return self.stricter(format!("{key} is new: {}", quoted_of(new))),
            (None, None) => return,
        };
        for index in old.allowed().keys().filter(|index| !new.allowed().contains_key(index)) {
            match new.open().contains(index) {
                true => self.looser(format!("{key}.{index} is any: only the events in it are asked")),
                false => self.looser(format!("{key} no longer checks PCR {index}")),
            }
        }
        for index in old.open().iter().filter(|index| !new.selection().contains(**index)) {
            self.looser(format!("{key} no longer quotes PCR {index}"));
        }
        for index in new.open().iter().filter(|index| !old.selection().contains(**index)) {
            self.stricter(format!("{key} also quotes PCR {index}, with any value"));
        }
        for (index, values) in new.allowed() {
            let Some(before) = old.allowed().get(index) else {
                let values = either_of(values);
                match old.open().contains(index) {
                    true => self.stricter(format!("{key}.{index} is {values}, before any")),
                    false => self.stricter(format!("{key} also checks PCR {index}: {values}")),
                }
                continue;
            };
            for value in values.iter().filter(|value| !before.contains(value)) {
                self.looser(format!("{key}.{index} also allows {}", hex::encode(value)));
            }
            for value in before.iter().filter(|value| !values.contains(value)) {
                self.stricter(format!("{key}.{index} no longer allows {}", hex::encode(value)));
            }
        }
    }

    pub(super) fn permitted<T: PartialEq + Display>(&mut self, key: &str, old: &Permitted<T>, new: &Permitted<T>) {
        match (old, new) {
            (Permitted::Any, Permitted::Any) => {}
            (Permitted::Only(_), Permitted::Any) => self.looser(format!("{key} is any, before {old}")),
            (Permitted::Any, Permitted::Only(_)) => self.stricter(format!("{key} is {new}, before any")),
            (Permitted::Only(before), Permitted::Only(after)) => {
                for item in after.iter().filter(|item| !before.contains(item)) {
                    self.looser(format!("{key} also has {item}"));
                }
                for item in before.iter().filter(|item| !after.contains(item)) {
                    self.stricter(format!("{key} no longer has {item}"));
                }
            }
        }
    }
}

/// All that a new rule asks for and gives: whoever signs sees nothing else of it.
fn in_words(rule: &ReleaseRule) -> String {
    let proof = match &rule.guest {
        GuestRule::Tpm(tpm) => {
            let bare = match tpm.bare_eks {
                BareEks::Refused => "",
                BareEks::Enrolled => ", enrolled ones without a certificate too",
            };
            format!("EKs {}{bare}, {}", tpm.platforms, values_of(&tpm.pcrs))
        }
        GuestRule::Snp(snp) => change_snp::in_words(snp),
        GuestRule::SnpParavisorVtpm { snp, pcrs } => {
            format!("{}, of the paravisor's TPM {}", change_snp::in_words(snp), values_of(pcrs))
        }
    };
    let (models, groups, leases, seconds) = (&rule.models, &rule.groups, rule.max_leases, rule.lease.seconds());
    let (lease_end, verify_units) = (rule.lease_end, rule.unit_check == UnitCheck::Hashed);
    let workloads = change_workload::in_words(&rule.workloads);
    let approvals = rule.approvals.map_or_else(|| "none".to_owned(), |count| count.to_string());
    format!(
        "models {models}, groups {groups}, {proof}{workloads}, {leases} leases of {seconds} s, on_lease_end \"{lease_end}\", \
         verify_units = {verify_units}, approvals of each release {approvals}"
    )
}

fn values_of(pcrs: &PcrRule) -> String {
    match pcrs.boot() {
        Some(boot) => format!("{}, {}", quoted_of(pcrs), change_boot::in_words(boot)),
        None => quoted_of(pcrs),
    }
}

fn quoted_of(pcrs: &PcrRule) -> String {
    let of_index = |(index, values): (&u32, &Vec<[u8; 32]>)| format!("PCR {index} = {}", either_of(values));
    let mut says: Vec<String> = pcrs.allowed().iter().map(of_index).collect();
    says.extend(pcrs.open().iter().map(|index| format!("PCR {index} = any")));
    says.join(", ")
}

fn either_of(values: &[[u8; 32]]) -> String {
    values.iter().map(hex::encode).collect::<Vec<_>>().join(" or ")
}

/// By its digest: anybody makes a certificate with any name.
fn certificate_of(anchor: &Anchor) -> String {
    format!("certificate {}", Sha256Digest::of(&anchor.certificate))
}

fn keys_of(rule: &PublishRule) -> String {
    let keys: Vec<String> = rule.keys.iter().map(|key| key.digest().to_string()).collect();
    keys.join(", ")
}

fn utc(time: UnixTime) -> String {
    let date = i64::try_from(time.seconds()).ok().and_then(|seconds| OffsetDateTime::from_unix_timestamp(seconds).ok());
    date.and_then(|date| date.format(&Rfc3339).ok()).unwrap_or_else(|| time.to_string())
}
