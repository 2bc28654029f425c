//! Decisions that would be others, summed by rule, model, platform and reason.

use std::collections::BTreeMap;

use attestation::{Sha256Digest, UnixTime};
use ledger::entry::{Deny, Release};
use serde::Serialize;

use crate::past::Why;

/// How many groups are told apart; the rest is counted.
const GROUPS_MAX: usize = 1000;

/// Whose decision it was.
#[derive(Debug, Clone)]
pub(super) struct Subject {
    index: u64,
    time: UnixTime,
    rule: String,
    model: String,
    platform: Sha256Digest,
}

impl Subject {
    pub(super) fn of_release(index: u64, release: &Release) -> Self {
        let model = format!("{}@{}", release.model, release.version);
        let (rule, platform) = (release.rule.to_string(), release.platform);
        Self { index, time: release.time, rule, model, platform }
    }

    pub(super) fn of_denial(index: u64, deny: &Deny) -> Self {
        let model = format!("{}@{}", deny.model, deny.version);
        let (rule, platform) = (deny.rule.to_string(), deny.platform);
        Self { index, time: deny.time, rule, model, platform }
    }
}

/// What a group has in common.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Key {
    rule: String,
    model: String,
    platform: Sha256Digest,
    code: String,
    policy_key: Option<String>,
}

/// Decisions of one rule, model, platform and reason.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Group {
    pub(super) rule: String,
    pub(super) model: String,
    pub(super) platform: Sha256Digest,
    pub(super) decisions: u64,
    pub(super) bytes: u64,
    /// Of these, leases that ran at the last entry.
    pub(super) running: u64,
    pub(super) first_entry: u64,
    pub(super) last_entry: u64,
    pub(super) last_time: UnixTime,
    /// Why it would be refused, as of its first decision.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) why: Option<Why>,
    /// Why it was refused, or could not be judged: code, and words for the latter.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) code: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) open: Option<String>,
}

/// Groups, in the order of their names.
#[derive(Debug, Default)]
pub(super) struct Sums {
    groups: BTreeMap<Key, Group>,
    more: u64,
}

/// What is shown of them.
#[derive(Debug, Serialize)]
pub(super) struct Groups {
    pub(super) groups: Vec<Group>,
    /// Decisions of further groups, which are not told apart.
    pub(super) more: u64,
}

impl Sums {
    /// One more that would be refused. Gives the name of its group.
    pub(super) fn add(&mut self, subject: Subject, bytes: u64, why: Why) -> Key {
        let (code, policy_key) = (why.code.clone(), why.policy_key.clone());
        self.count(subject, bytes, (code, policy_key), |group| group.why = Some(why))
    }

    pub(super) fn add_gain(&mut self, subject: Subject, code: &str) {
        let _ = self.count(subject, 0, (code.to_owned(), None), |group| group.code = Some(code.to_owned()));
    }

    pub(super) fn add_open(&mut self, subject: Subject, bytes: u64, code: &'static str, why: String) {
        let _ = self.count(subject, bytes, (code.to_owned(), None), |group| {
            group.code = Some(code.to_owned());
            group.open = Some(why);
        });
    }

    /// One more lease of this group runs.
    pub(super) fn runs(&mut self, key: &Key) {
        if let Some(group) = self.groups.get_mut(key) {
            group.running += 1;
        }
    }

    pub(super) fn listed(self) -> Groups {
        Groups { groups: self.groups.into_values().collect(), more: self.more }
    }

    fn count(
        &mut self,
        subject: Subject,
        bytes: u64,
        (code, policy_key): (String, Option<String>),
        begin: impl FnOnce(&mut Group),
    ) -> Key {
        let Subject { index, time, rule, model, platform } = subject;
        let key = Key { rule: rule.clone(), model: model.clone(), platform, code, policy_key };
        if let Some(group) = self.groups.get_mut(&key) {
            group.decisions += 1;
            group.bytes = group.bytes.saturating_add(bytes);
            (group.last_entry, group.last_time) = (index, time);
            return key;
        }
        if self.groups.len() >= GROUPS_MAX {
            self.more += 1;
            return key;
        }
        let mut group = Group {
            rule,
            model,
            platform,
            decisions: 1,
            bytes,
            running: 0,
            first_entry: index,
            last_entry: index,
            last_time: time,
            why: None,
            code: None,
            open: None,
        };
        begin(&mut group);
        self.groups.insert(key.clone(), group);
        key
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn subject(index: u64, platform: u8) -> Subject {
        let platform = Sha256Digest::from_bytes([platform; 32]);
        Subject { index, time: UnixTime(index), rule: "r".to_owned(), model: "m@1".to_owned(), platform }
    }

    fn why(code: &str) -> Why {
        Why {
            code: code.to_owned(),
            claim: "boot state",
            expected: "one".to_owned(),
            seen: "another".to_owned(),
            policy_key: None,
            remedy: "",
            waits: false,
            facts: Vec::new(),
            propose: Vec::new(),
        }
    }

    #[test]
    fn decisions_with_one_reason_are_one_group() {
        let mut sums = Sums::default();
        sums.add(subject(3, 1), 10, why("a"));
        let first = sums.add(subject(5, 1), 7, why("a"));
        sums.add(subject(6, 1), 1, why("b"));
        sums.add(subject(7, 2), 1, why("a"));
        sums.runs(&first);
        let listed = sums.listed();
        let of = |group: &Group| (group.decisions, group.bytes, group.running, group.first_entry, group.last_entry);
        assert_eq!(
            listed.groups.iter().map(of).collect::<Vec<_>>(),
            [(2, 17, 1, 3, 5), (1, 1, 0, 6, 6), (1, 1, 0, 7, 7)]
        );
    }

    #[test]
    fn groups_are_bounded_and_the_rest_is_counted() {
        let mut sums = Sums::default();
        for index in 0..=1001 {
            sums.add(subject(index, 1), 1, why(&format!("code-{index}")));
        }
        let listed = sums.listed();
        assert_eq!((listed.groups.len(), listed.more), (GROUPS_MAX, 2));
    }
}
