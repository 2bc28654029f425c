//! Uses of budgets in a status.

use std::fmt;

use attestation::{Sha256Digest, UnixTime};
use ledger::names::Name;
use ledger::state::{BudgetOf, BudgetUse};
use serde::Serialize;

use crate::words::used;

/// What a limit has used.
#[derive(Debug, Serialize)]
pub(super) struct BudgetLine {
    budget: Name,
    #[serde(skip_serializing_if = "Option::is_none")]
    model: Option<Name>,
    #[serde(skip_serializing_if = "Option::is_none")]
    platform: Option<Sha256Digest>,
    unit: &'static str,
    used: u64,
    limit: u64,
    raised: u64,
    window_secs: Option<u64>,
    frees_at: Option<UnixTime>,
    #[serde(skip)]
    says: String,
}

impl BudgetLine {
    pub(super) fn new(line: BudgetUse, now: UnixTime) -> Self {
        let says = used(&line, now);
        let (model, platform) = match line.of {
            BudgetOf::Vault => (None, None),
            BudgetOf::Model(model) => (Some(model), None),
            BudgetOf::Platform(platform) => (None, Some(platform)),
        };
        let BudgetUse { budget, unit, limit, used, raised, frees_at, .. } = line;
        let (unit, window_secs) = (unit.key(), unit.window_secs());
        Self { budget, model, platform, unit, used, limit, raised, window_secs, frees_at, says }
    }
}

impl fmt::Display for BudgetLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.says)
    }
}
