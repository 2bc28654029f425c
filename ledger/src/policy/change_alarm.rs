//! Changes of alarm rules in words.

use std::collections::BTreeMap;

use super::alarm::{AlarmOn, AlarmRule, AlarmThen};
use super::change::Changes;
use crate::names::Name;

impl Changes {
    pub(super) fn alarms(&mut self, old: &BTreeMap<Name, AlarmRule>, new: &BTreeMap<Name, AlarmRule>) {
        for (name, before) in old {
            match new.get(name) {
                None => self.looser(format!("alarm.{name} is gone, before {before}")),
                Some(after) if before != after => self.alarm(name, before, after),
                Some(_) => {}
            }
        }
        for (name, rule) in new.iter().filter(|(name, _)| !old.contains_key(*name)) {
            self.stricter(format!("alarm.{name} is new: {rule}"));
        }
    }

    /// Stricter only where nothing is left out that rang before, or was held.
    fn alarm(&mut self, name: &Name, old: &AlarmRule, new: &AlarmRule) {
        let rings_on = match (&old.on, &new.on) {
            (AlarmOn::MoreLeases { more_than: a }, AlarmOn::MoreLeases { more_than: b }) => b <= a,
            (_, AlarmOn::Canary) => true,
            (old, new) => old == new,
        };
        let holds_on = match (old.then, new.then) {
            (AlarmThen::Hold, AlarmThen::Alarm) => false,
            (AlarmThen::Alarm | AlarmThen::Hold, AlarmThen::Hold) | (AlarmThen::Alarm, AlarmThen::Alarm) => true,
        };
        let stricter = rings_on && holds_on && old.models.is_within(&new.models);
        self.either(!stricter, format!("alarm.{name} is {new}, before {old}"));
    }
}
