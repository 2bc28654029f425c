//! One limit at one time: what is used of it, what a release would take, and when it passes.

use std::collections::BTreeMap;

use attestation::{Sha256Digest, UnixTime};

use super::history::{Granted, Tally};
use super::{Asked, BudgetExcess, BudgetOf, BudgetRefusal, BudgetUse, Budgets, Part};
use crate::names::Name;
use crate::policy::{Budget, BudgetUnit};
use crate::state::leases::Leases;

/// One limit of one budget for one subject, at one time.
pub(super) struct View<'a> {
    pub(super) name: &'a Name,
    pub(super) budget: &'a Budget,
    pub(super) of: &'a BudgetOf,
    pub(super) unit: BudgetUnit,
    pub(super) budgets: &'a Budgets,
    pub(super) leases: &'a Leases,
    pub(super) now: UnixTime,
}

impl View<'_> {
    fn tally(&self) -> Option<&Tally> {
        self.budgets.tallies.get(self.name)?.get(self.of)
    }

    fn is_mine(&self, granted: &Granted) -> bool {
        self.budget.covers(&granted.model) && self.of.has(&granted.model, granted.platform)
    }

    /// What counts now.
    pub(super) fn used(&self) -> u128 {
        let (history, now) = (&self.budgets.history, self.now);
        let Some(tally) = self.tally().filter(|_| self.unit != BudgetUnit::Leases) else {
            return match self.unit {
                BudgetUnit::Leases => self.leases.count_of(self.budget, self.of, now).into(),
                BudgetUnit::Bytes | BudgetUnit::Releases | BudgetUnit::Platforms => 0,
            };
        };
        match self.unit {
            BudgetUnit::Bytes => {
                let left = history.leaving(Part::Day, now).filter(|granted| self.is_mine(granted));
                tally.bytes - left.map(|granted| u128::from(granted.bytes)).sum::<u128>()
            }
            BudgetUnit::Releases => {
                let left = history.leaving(Part::Hour, now).filter(|granted| self.is_mine(granted)).count();
                u128::from(tally.releases) - left as u128
            }
            BudgetUnit::Platforms => {
                let left = self.platforms_leaving();
                tally.platforms.iter().filter(|(platform, count)| left.get(*platform) != Some(*count)).count() as u128
            }
            BudgetUnit::Leases => 0,
        }
    }

    /// How much of the limit a release would take.
    pub(super) fn wanted(&self, asked: &Asked<'_>) -> u64 {
        match self.unit {
            BudgetUnit::Bytes => asked.bytes,
            BudgetUnit::Releases | BudgetUnit::Leases => 1,
            BudgetUnit::Platforms => {
                let count = self.tally().and_then(|tally| tally.platforms.get(&asked.platform));
                let counts = count.is_some_and(|count| self.platforms_leaving().get(&asked.platform) != Some(count));
                u64::from(!counts)
            }
        }
    }

    fn platforms_leaving(&self) -> BTreeMap<Sha256Digest, u32> {
        let mut left = BTreeMap::new();
        let leaving = self.budgets.history.leaving(Part::Day, self.now);
        leaving
            .filter(|granted| self.is_mine(granted))
            .for_each(|granted| *left.entry(granted.platform).or_default() += 1);
        left
    }

    pub(super) fn excess(&self, used: u128, asked: u64, limit: u64, raised: u64) -> BudgetRefusal {
        BudgetRefusal::Over(Box::new(BudgetExcess {
            budget: self.name.clone(),
            of: self.of.clone(),
            unit: self.unit,
            limit,
            used: u64::try_from(used).unwrap_or(u64::MAX),
            asked,
            raised,
            over: self.budget.over,
            passes_at: self.passes_at(used, asked, limit),
        }))
    }

    pub(super) fn line(&self, limit: u64, raised: u64) -> BudgetUse {
        let used = self.used();
        BudgetUse {
            budget: self.name.clone(),
            of: self.of.clone(),
            unit: self.unit,
            limit,
            used: u64::try_from(used).unwrap_or(u64::MAX),
            raised,
            // The first moment at which one less counts: as if all but one unit of it were asked for.
            frees_at: if used == 0 { None } else { self.falls_below(used) },
        }
    }

    /// When what was asked for would pass, if nothing else is released and nothing renewed until then.
    fn passes_at(&self, used: u128, asked: u64, limit: u64) -> Option<UnixTime> {
        let room = u128::from(limit).checked_sub(asked.into())?;
        if used <= room { Some(self.now) } else { self.falls_below(room + 1) }
    }

    /// When less than `bound` counts, if nothing is added.
    fn falls_below(&self, bound: u128) -> Option<UnixTime> {
        let part = match self.unit {
            BudgetUnit::Leases => {
                let extra = usize::try_from(self.used().checked_sub(bound)?).ok()?;
                let end = self.leases.ends_of(self.budget, self.of, self.now).nth(extra)?;
                return Some(end.plus(1));
            }
            BudgetUnit::Releases => Part::Hour,
            BudgetUnit::Bytes | BudgetUnit::Platforms => Part::Day,
        };
        let tally = self.tally()?;
        let (mut bytes, mut releases, mut platforms) =
            (tally.bytes, u128::from(tally.releases), tally.platforms.clone());
        for granted in self.budgets.history.of(part).filter(|granted| self.is_mine(granted)) {
            bytes -= u128::from(granted.bytes);
            releases = releases.saturating_sub(1);
            Tally::remove(&mut platforms, granted.platform);
            let left = match self.unit {
                BudgetUnit::Bytes => bytes,
                BudgetUnit::Releases => releases,
                BudgetUnit::Platforms => platforms.len() as u128,
                BudgetUnit::Leases => 0,
            };
            if left < bound {
                return Some(self.budgets.history.leaves_at(granted, part, self.now));
            }
        }
        None
    }
}
