//! The difference between what two rules ask of workloads, in words.

use super::change::Changes;
use super::rules::Permitted;
use super::workload::{WorkloadPin, WorkloadRule};

/// Of a new rule, behind the rest of it.
pub(super) fn in_words(rule: &WorkloadRule) -> String {
    match rule {
        WorkloadRule::NotAsked => String::new(),
        WorkloadRule::Asked(pins) => format!(", workloads {pins}"),
    }
}

impl Changes {
    pub(super) fn workloads(&mut self, key: &str, old: &WorkloadRule, new: &WorkloadRule) {
        match (old, new) {
            (WorkloadRule::NotAsked, WorkloadRule::NotAsked) => {}
            (WorkloadRule::NotAsked, WorkloadRule::Asked(pins)) => self.new_workloads(key, pins),
            (WorkloadRule::Asked(pins), WorkloadRule::NotAsked) => {
                self.looser(format!("{key} is gone, before {pins}: no guest is asked what it starts"));
            }
            (WorkloadRule::Asked(old), WorkloadRule::Asked(new)) => self.permitted(key, old, new),
        }
    }

    fn new_workloads(&mut self, key: &str, pins: &Permitted<WorkloadPin>) {
        self.stricter(format!("{key} is new: {pins}; leases that run said nothing of theirs, and are not renewed"));
    }
}
