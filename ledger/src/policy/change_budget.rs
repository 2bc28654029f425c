//! Changes of budgets in words.

use std::collections::BTreeMap;

use super::budget::{Budget, BudgetUnit, OverBudget};
use super::change::Changes;
use crate::names::Name;

impl Changes {
    pub(super) fn budgets(&mut self, old: &BTreeMap<Name, Budget>, new: &BTreeMap<Name, Budget>) {
        for (name, before) in old {
            match new.get(name) {
                None => self.looser(format!("budget.{name} is gone, before {before}")),
                Some(after) => self.budget(&format!("budget.{name}"), before, after),
            }
        }
        for (name, budget) in new.iter().filter(|(name, _)| !old.contains_key(*name)) {
            self.stricter(format!("budget.{name} is new: {budget}"));
        }
    }

    fn budget(&mut self, key: &str, old: &Budget, new: &Budget) {
        if old.per != new.per {
            // All releases together pass a limit sooner than each model's or platform's do; the other two differ.
            let text = format!("{key} counts per {}, before per {}", new.per, old.per);
            match (old.per, new.per) {
                (_, super::BudgetPer::Vault) => self.stricter(text),
                (_, super::BudgetPer::Model | super::BudgetPer::Platform) => self.looser(text),
            }
        }
        // The opposite of a rule that gives: a model more is a model that is limited.
        self.limited(&format!("{key}.models"), old, new);
        for unit in BudgetUnit::ALL {
            match (old.limits.get(&unit), new.limits.get(&unit)) {
                (Some(a), Some(b)) if a != b => {
                    self.either(b > a, format!("{key} lets through {b} {unit}, before {a}"));
                }
                (Some(a), None) => self.looser(format!("{key} no longer limits {unit}, before {a}")),
                (None, Some(b)) => self.stricter(format!("{key} also limits {unit}: {b}")),
                (Some(_), Some(_)) | (None, None) => {}
            }
        }
        match (old.over, new.over) {
            (OverBudget::Refuse, OverBudget::Hold) => {
                self.looser(format!("what is over {key} can be let through by approvers, before by a policy alone"));
            }
            (OverBudget::Hold, OverBudget::Refuse) => {
                self.stricter(format!("what is over {key} can be let through by a policy alone, before by approvers"));
            }
            (OverBudget::Refuse, OverBudget::Refuse) | (OverBudget::Hold, OverBudget::Hold) => {}
        }
    }

    fn limited(&mut self, key: &str, old: &Budget, new: &Budget) {
        let (is_within, contains) = (new.models.is_within(&old.models), old.models.is_within(&new.models));
        let text = format!("{key} is {}, before {}", new.models, old.models);
        match (is_within, contains) {
            (true, true) => {}
            (true, false) => self.looser(text),
            (false, true) => self.stricter(text),
            (false, false) => {
                self.looser(format!(
                    "{key} no longer covers all that it did: it is {}, before {}",
                    new.models, old.models
                ));
            }
        }
    }
}
