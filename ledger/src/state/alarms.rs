//! What has rung: alarm rules over releases, and what they know of the releases before.

use std::collections::{BTreeSet, VecDeque};

use attestation::{Sha256Digest, UnixTime};

use super::budgets::Raises;
use super::error::FoldError;
use super::leases::Leases;
use super::stored::stored;
use crate::entry::{AlarmEntry, Release};
use crate::names::{Name, Version};
use crate::permit::PermitKind;
use crate::policy::{AlarmOn, AlarmRule, AlarmThen, Policy};

/// The most pairs of model and platform, or of model and measurement, that are known. With more, what is not known yet
/// stays new: it rings each time.
pub const KNOWN_MAX: usize = 1 << 16;
/// The newest alarms that a status shows.
pub const ALARMS_SHOWN_MAX: usize = 16;

/// A release that rang.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Alarm {
    /// Index of its `release` entry; where a rule rings, the `alarm` entry stands before it.
    pub entry: u64,
    /// When.
    pub time: UnixTime,
    /// The rules, by name; `break-glass` is the last where that let it through.
    pub rules: Vec<Name>,
    /// Model.
    pub model: Name,
    /// Its version.
    pub version: Version,
    /// Platform id of the guest.
    pub platform: Sha256Digest,
}

stored!(Alarm { entry, time, rules, model, version, platform });

/// A release that rules look at.
#[derive(Debug, Clone, Copy)]
pub(super) struct Watched<'a> {
    pub(super) model: &'a Name,
    pub(super) platform: Sha256Digest,
    /// What was measured; `None` in the fold, which has no evidence.
    pub(super) measurement: Option<Sha256Digest>,
    pub(super) now: UnixTime,
}

/// What the rules know.
#[derive(Debug, Clone, Default)]
pub(super) struct Alarms {
    platforms: BTreeSet<(Name, Sha256Digest)>,
    measurements: BTreeSet<(Name, Sha256Digest)>,
    /// What the entry before this one said, if it was an alarm.
    announced: Option<AlarmEntry>,
    count: u64,
    newest: VecDeque<Alarm>,
}

stored!(Alarms { platforms, measurements, announced, count, newest });

impl Alarms {
    /// The rules that ring for a release.
    pub(super) fn ringing<'a>(
        &'a self,
        watched: Watched<'a>,
        policy: &'a Policy,
        leases: &'a Leases,
    ) -> impl Iterator<Item = (&'a Name, &'a AlarmRule)> {
        let rules = policy.alarms().iter().filter(move |(_, rule)| rule.covers(watched.model));
        rules.filter(move |(_, rule)| match &rule.on {
            AlarmOn::NewPlatform => !self.platforms.contains(&(watched.model.clone(), watched.platform)),
            AlarmOn::NewMeasurement => watched
                .measurement
                .is_some_and(|measurement| !self.measurements.contains(&(watched.model.clone(), measurement))),
            AlarmOn::MoreLeases { more_than } => leases.count_covered(&rule.models, watched.now) >= *more_than,
            AlarmOn::OutsideHours(hours) => !hours.has(watched.now),
            AlarmOn::Canary => true,
        })
    }

    /// An alarm announces the release that stands right behind it.
    pub(super) fn announce(&mut self, alarm: AlarmEntry, policy: &Policy) -> Result<(), FoldError> {
        if alarm.rules.is_empty() {
            return Err(FoldError::AlarmEmpty);
        }
        let measured = |name: &Name| policy.alarms().get(name).map(|rule| rule.on == AlarmOn::NewMeasurement);
        let mut rings_for_measurement = false;
        for (index, name) in alarm.rules.iter().enumerate() {
            if alarm.rules.iter().take(index).any(|other| other >= name) {
                return Err(FoldError::AlarmUnordered);
            }
            rings_for_measurement |= measured(name).ok_or(FoldError::AlarmUnknown)?;
        }
        if rings_for_measurement != alarm.measurement.is_some() {
            return Err(FoldError::AlarmMeasurement);
        }
        self.announced = Some(alarm);
        Ok(())
    }

    /// Whether a release was announced by the rules that ring for it, and by no others. Gives the rules that hold it,
    /// which need a raise each.
    pub(super) fn check(
        &self,
        release: &Release,
        policy: &Policy,
        leases: &Leases,
        raises: &Raises,
    ) -> Result<Vec<Name>, FoldError> {
        let announced = self.announced.as_ref().filter(|alarm| alarm.lease == release.lease);
        let measurement = announced.and_then(|alarm| alarm.measurement);
        let watched = Watched { model: &release.model, platform: release.platform, measurement, now: release.time };
        let ringing: Vec<(&Name, &AlarmRule)> = self.ringing(watched, policy, leases).collect();
        let names: &[Name] = announced.map_or(&[], |alarm| &alarm.rules);
        if !ringing.iter().map(|(name, _)| *name).eq(names) {
            return Err(FoldError::AlarmMismatch);
        }
        let held = ringing.into_iter().filter(|(_, rule)| rule.then == AlarmThen::Hold).map(|(name, _)| name.clone());
        let held: Vec<Name> = held.collect();
        match held.iter().find(|name| !raises.lets_pass(name, release.time)) {
            Some(name) => Err(FoldError::AlarmHeld { alarm: name.clone() }),
            None => Ok(held),
        }
    }

    /// What was released is known from now on.
    pub(super) fn know(&mut self, model: &Name, platform: Sha256Digest, measurement: Option<Sha256Digest>) {
        know(&mut self.platforms, model, platform);
        if let Some(measurement) = measurement {
            know(&mut self.measurements, model, measurement);
        }
    }

    /// A release was taken: what it showed is known from now on. By break-glass it rings although no rule does.
    pub(super) fn take(&mut self, entry: u64, release: &Release, by_break_glass: bool) {
        let announced = self.announced.take();
        self.know(&release.model, release.platform, announced.as_ref().and_then(|alarm| alarm.measurement));
        let mut rules = announced.map(|alarm| alarm.rules).unwrap_or_default();
        rules.extend(by_break_glass.then(break_glass));
        if rules.is_empty() {
            return;
        }
        self.count += 1;
        if self.newest.len() >= ALARMS_SHOWN_MAX {
            self.newest.pop_front();
        }
        let (time, model, version) = (release.time, release.model.clone(), release.version.clone());
        self.newest.push_back(Alarm { entry, time, rules, model, version, platform: release.platform });
    }

    /// Another entry stands where the announced release should: the announcement is of nothing.
    pub(super) fn silence(&mut self) {
        self.announced = None;
    }

    pub(super) fn count(&self) -> u64 {
        self.count
    }

    pub(super) fn newest(&self) -> impl Iterator<Item = &Alarm> {
        self.newest.iter().rev()
    }
}

/// What an alarm of the state has in the place of a rule.
fn break_glass() -> Name {
    Name::try_from(PermitKind::BreakGlass.as_str()).expect("it is a name")
}

fn know(known: &mut BTreeSet<(Name, Sha256Digest)>, model: &Name, what: Sha256Digest) {
    if known.len() < KNOWN_MAX {
        known.insert((model.clone(), what));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_known_is_bounded_and_what_is_not_known_stays_new() {
        let (mut known, model) = (BTreeSet::new(), "m".parse().unwrap());
        let platform = |n: usize| Sha256Digest::of(&n.to_be_bytes());
        for n in 0..KNOWN_MAX + 10 {
            know(&mut known, &model, platform(n));
        }
        assert_eq!(known.len(), KNOWN_MAX);
        assert!(known.contains(&(model.clone(), platform(0))) && !known.contains(&(model, platform(KNOWN_MAX))));
    }
}
