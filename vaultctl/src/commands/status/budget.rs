//! Uses of budgets, and alarms, in a status.

use std::fmt;

use attestation::{Sha256Digest, UnixTime};
use ledger::names::{Name, Version};
use ledger::permit::Permit;
use ledger::state::{ActivePermit, Alarm, BudgetOf, BudgetUse};
use serde::Serialize;

use crate::print::{distance, moment};
use crate::words::{active_in_words, used};

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

/// A standing approval, or break-glass.
#[derive(Debug, Serialize)]
pub(super) struct PermitLine {
    entry: u64,
    object: Sha256Digest,
    permit: Permit,
    left: u64,
    #[serde(skip)]
    says: String,
}

impl PermitLine {
    pub(super) fn new(active: ActivePermit, now: UnixTime) -> Self {
        let says = format!("{} ({})", active_in_words(&active), distance(active.permit.until, now));
        let ActivePermit { entry, object, permit, left } = active;
        Self { entry, object, permit, left, says }
    }
}

impl fmt::Display for PermitLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.says)
    }
}

/// A release that rang.
#[derive(Debug, Serialize)]
pub(super) struct AlarmLine {
    entry: u64,
    time: UnixTime,
    rules: Vec<Name>,
    model: Name,
    version: Version,
    platform: Sha256Digest,
    #[serde(skip)]
    now: UnixTime,
}

impl AlarmLine {
    pub(super) fn new(alarm: Alarm, now: UnixTime) -> Self {
        let Alarm { entry, time, rules, model, version, platform } = alarm;
        Self { entry, time, rules, model, version, platform, now }
    }
}

impl fmt::Display for AlarmLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { entry, time, model, version, platform, now, .. } = self;
        let rules: Vec<String> = self.rules.iter().map(ToString::to_string).collect();
        let (at, ago) = (moment(*time), distance(*time, *now));
        write!(f, "{at} ({ago})  {}: {model}@{version} to {platform}, entry {entry}", rules.join(", "))
    }
}
