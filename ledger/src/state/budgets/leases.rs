//! How many leases run, by model and platform: no budget walks over all of them.

use std::collections::BTreeMap;

use attestation::Sha256Digest;

use super::BudgetOf;
use crate::names::Name;
use crate::policy::{Budget, BudgetPer, Permitted};

/// Counters of running leases.
#[derive(Debug, Clone, Default)]
pub(in crate::state) struct LeaseTally {
    by_model: BTreeMap<Name, u64>,
    by_platform: BTreeMap<Sha256Digest, BTreeMap<Name, u64>>,
}

impl LeaseTally {
    pub(in crate::state) fn add(&mut self, model: &Name, platform: Sha256Digest) {
        count(&mut self.by_model, model);
        count(self.by_platform.entry(platform).or_default(), model);
    }

    pub(in crate::state) fn remove(&mut self, model: &Name, platform: Sha256Digest) {
        uncount(&mut self.by_model, model);
        if let Some(models) = self.by_platform.get_mut(&platform) {
            uncount(models, model);
            if models.is_empty() {
                self.by_platform.remove(&platform);
            }
        }
    }

    /// Leases of these models.
    pub(in crate::state) fn count_covered(&self, models: &Permitted<Name>) -> u64 {
        covered(&self.by_model, models)
    }

    /// Leases that a budget covers, of one subject.
    pub(in crate::state) fn count(&self, budget: &Budget, of: &BudgetOf) -> u64 {
        match of {
            BudgetOf::Vault => covered(&self.by_model, &budget.models),
            BudgetOf::Model(model) => self.by_model.get(model).copied().unwrap_or(0),
            BudgetOf::Platform(platform) => {
                self.by_platform.get(platform).map_or(0, |models| covered(models, &budget.models))
            }
        }
    }

    /// The subjects that have leases which a budget covers.
    pub(in crate::state) fn subjects(&self, budget: &Budget) -> Vec<BudgetOf> {
        match budget.per {
            BudgetPer::Vault => vec![BudgetOf::Vault],
            BudgetPer::Model => {
                self.by_model.keys().filter(|model| budget.covers(model)).cloned().map(BudgetOf::Model).collect()
            }
            BudgetPer::Platform => {
                let covers = |models: &BTreeMap<Name, u64>| models.keys().any(|model| budget.covers(model));
                let of_budget = self.by_platform.iter().filter(|(_, models)| covers(models));
                of_budget.map(|(platform, _)| BudgetOf::Platform(*platform)).collect()
            }
        }
    }
}

fn covered(models: &BTreeMap<Name, u64>, permitted: &Permitted<Name>) -> u64 {
    models.iter().filter(|(model, _)| permitted.permits(model)).map(|(_, count)| count).sum()
}

fn count(models: &mut BTreeMap<Name, u64>, model: &Name) {
    match models.get_mut(model) {
        Some(count) => *count += 1,
        None => drop(models.insert(model.clone(), 1)),
    }
}

fn uncount(models: &mut BTreeMap<Name, u64>, model: &Name) {
    match models.get_mut(model) {
        Some(count) if *count > 1 => *count -= 1,
        Some(_) => drop(models.remove(model)),
        None => {}
    }
}
