//! `[budget.NAME]` from its text.

use std::collections::BTreeMap;

use super::budget::{BUDGETS_MAX, Budget, BudgetPer, BudgetUnit, OverBudget};
use super::error::{PolicyError, PolicyProblem};
use super::fields::{Field, Fields};
use super::parse;
use crate::names::Name;

/// All budgets, by name.
pub(super) fn budgets(root: &mut Fields) -> Result<BTreeMap<Name, Budget>, PolicyError> {
    let (key, there) = (root.key("budget"), root.has("budget"));
    let sections = root.named_tables_if_any("budget")?;
    if there && sections.is_empty() {
        return Err(PolicyError { key, problem: PolicyProblem::BudgetEmpty });
    }
    if sections.len() > BUDGETS_MAX {
        return Err(PolicyError { key, problem: PolicyProblem::TooManyBudgets { found: sections.len() } });
    }
    parse::by_name(sections, budget)
}

fn budget(mut fields: Fields) -> Result<Budget, PolicyError> {
    let per = per(&fields.text("per")?)?;
    let models = parse::models(&mut fields)?;
    let mut limits = BTreeMap::new();
    for unit in BudgetUnit::ALL.into_iter().filter(|unit| fields.has(unit.key())).collect::<Vec<_>>() {
        let limit = limit(&mut fields, unit)?;
        if limit.value == 0 {
            return Err(limit.refuse(PolicyProblem::BudgetZero));
        }
        if (per, unit) == (BudgetPer::Platform, BudgetUnit::Platforms) {
            return Err(limit.refuse(PolicyProblem::BudgetOfOnePlatform));
        }
        limits.insert(unit, limit.value);
    }
    if limits.is_empty() {
        return Err(PolicyError { key: fields.path().to_owned(), problem: PolicyProblem::BudgetEmpty });
    }
    let over = over(&fields.text("over")?)?;
    fields.finish()?;
    Ok(Budget { per, models, limits, over })
}

fn limit(fields: &mut Fields, unit: BudgetUnit) -> Result<Field<u64>, PolicyError> {
    match unit {
        BudgetUnit::Bytes => {
            let field = fields.text(unit.key())?;
            let value = parse_bytes(&field.value).ok_or_else(|| field.refuse(PolicyProblem::BytesMalformed))?;
            Ok(Field { key: field.key, value })
        }
        BudgetUnit::Releases | BudgetUnit::Platforms | BudgetUnit::Leases => fields.count(unit.key()),
    }
}

fn per(field: &Field<String>) -> Result<BudgetPer, PolicyError> {
    match field.value.as_str() {
        "model" => Ok(BudgetPer::Model),
        "platform" => Ok(BudgetPer::Platform),
        "vault" => Ok(BudgetPer::Vault),
        _ => Err(field.refuse(PolicyProblem::BudgetPerUnknown)),
    }
}

fn over(field: &Field<String>) -> Result<OverBudget, PolicyError> {
    match field.value.as_str() {
        "refuse" => Ok(OverBudget::Refuse),
        "hold" => Ok(OverBudget::Hold),
        _ => Err(field.refuse(PolicyProblem::OverBudgetUnknown)),
    }
}

/// Bytes as a policy spells them: `500GiB`, a whole number without leading zeros and B, KiB, MiB, GiB or TiB.
pub fn parse_bytes(text: &str) -> Option<u64> {
    let digits = text.find(|character: char| !character.is_ascii_digit())?;
    let (number, unit) = text.split_at_checked(digits)?;
    let shift = match unit {
        "B" => 0,
        "KiB" => 10,
        "MiB" => 20,
        "GiB" => 30,
        "TiB" => 40,
        _ => return None,
    };
    let count: u64 = number.parse().ok()?;
    (count.to_string() == number).then_some(count)?.checked_mul(1 << shift)
}
