//! What `new-measurement` rules should have rung for. The fold has no evidence and believes the alarm entry; an auditor has
//! both.

use std::collections::BTreeMap;

use attestation::Sha256Digest;
use ledger::entry::{AlarmEntry, Release};
use ledger::names::Name;
use ledger::policy::{AlarmOn, Policy};

/// What alarm entries said so far, and releases whose evidence is still being verified.
#[derive(Default)]
pub(super) struct Measurements {
    last: Option<AlarmEntry>,
    /// Since which release a model is known to run on a measurement.
    known: BTreeMap<(Name, Sha256Digest), u64>,
    waiting: BTreeMap<u64, Watched>,
}

/// A release that such a rule watches.
struct Watched {
    model: Name,
    /// What its alarm says was measured.
    announced: Option<Sha256Digest>,
}

impl Measurements {
    /// An alarm entry; the release that it announces stands right behind it.
    pub(super) fn alarm(&mut self, alarm: &AlarmEntry) {
        self.last = Some(alarm.clone());
    }

    /// A release under this policy.
    pub(super) fn release(&mut self, index: u64, release: &Release, policy: &Policy) {
        let alarm = self.last.take().filter(|alarm| alarm.lease == release.lease);
        let rules = policy.alarms().values();
        let watched = rules.clone().any(|rule| rule.on == AlarmOn::NewMeasurement && rule.covers(&release.model));
        self.watch(index, &release.model, watched, alarm.and_then(|alarm| alarm.measurement));
    }

    fn watch(&mut self, index: u64, model: &Name, watched: bool, announced: Option<Sha256Digest>) {
        if let Some(measurement) = announced {
            self.known.entry((model.clone(), measurement)).or_insert(index);
        }
        if watched {
            self.waiting.insert(index, Watched { model: model.clone(), announced });
        }
    }

    /// What the verified evidence of a release measured.
    ///
    /// # Errors
    /// Code and reason, where the alarm says something else, or is missing.
    pub(super) fn shown(&mut self, index: u64, measurement: Sha256Digest) -> Result<(), (&'static str, String)> {
        let Some(Watched { model, announced }) = self.waiting.remove(&index) else { return Ok(()) };
        match announced {
            Some(announced) if announced == measurement => Ok(()),
            Some(announced) => {
                let why = format!("its alarm says that {announced} was measured, and its evidence shows {measurement}");
                Err(("alarm-measurement-other", why))
            }
            None if self.known.get(&(model.clone(), measurement)).is_some_and(|first| *first < index) => Ok(()),
            None => {
                let why = format!("the first release of {model} to measurement {measurement}, and no alarm says so");
                Err(("alarm-missing", why))
            }
        }
    }

    /// Evidence that says nothing.
    pub(super) fn forget(&mut self, index: u64) {
        self.waiting.remove(&index);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn measured(n: u8) -> Sha256Digest {
        Sha256Digest::of(&[n])
    }

    /// Releases from entry 0 on, each with what its alarm says.
    fn log(announced: &[Option<u8>]) -> Measurements {
        let (mut measurements, model) = (Measurements::default(), "llama".parse().unwrap());
        for (index, announced) in (0..).zip(announced) {
            measurements.watch(index, &model, true, announced.map(measured));
        }
        measurements
    }

    #[test]
    fn an_alarm_says_what_the_evidence_shows_and_is_missing_nowhere() {
        // Evidence is verified behind the log, in any order.
        let mut good = log(&[Some(1), None, Some(2), None]);
        for (index, shown) in [(3, 1), (1, 1), (2, 2), (0, 1)] {
            assert_eq!(good.shown(index, measured(shown)), Ok(()), "{index}");
        }
        let code = |result: Result<(), (&'static str, String)>| result.unwrap_err().0;
        assert_eq!(code(log(&[Some(1)]).shown(0, measured(2))), "alarm-measurement-other");
        assert_eq!(code(log(&[None]).shown(0, measured(1))), "alarm-missing");
        assert_eq!(code(log(&[Some(1), None]).shown(1, measured(2))), "alarm-missing");
        // What became known later was not known then.
        assert_eq!(code(log(&[None, Some(1)]).shown(0, measured(1))), "alarm-missing");
    }

    #[test]
    fn what_one_model_ran_on_is_new_to_another_and_what_no_rule_watches_rings_for_nothing() {
        let mut measurements = log(&[Some(1)]);
        measurements.watch(1, &"other".parse().unwrap(), true, None);
        assert!(measurements.shown(1, measured(1)).is_err());
        measurements.watch(2, &"other".parse().unwrap(), false, None);
        assert_eq!(measurements.shown(2, measured(1)), Ok(()));
        measurements.watch(3, &"other".parse().unwrap(), true, None);
        measurements.forget(3);
        assert_eq!(measurements.shown(3, measured(9)), Ok(()));
    }
}
