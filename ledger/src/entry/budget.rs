//! Entries about budgets and about the time that they go by.

use attestation::{Sha256Digest, UnixTime};
use serde::{Deserialize, Serialize};

use crate::names::Name;
use crate::policy::BudgetUnit;

/// A raise of a budget that waits for approvals.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProposedRaise {
    /// What approvals name: [`raise_object`](crate::approvals::raise_object).
    pub object: Sha256Digest,
    /// Name of the budget.
    pub budget: Name,
    /// Plaintext bytes that it lets through above `bytes_per_day`, once.
    pub bytes: u64,
    /// Releases above `releases_per_hour`, once.
    pub releases: u64,
    /// Platforms above `platforms_per_day`, once.
    pub platforms: u64,
    /// Leases above `leases`, each granted once.
    pub leases: u64,
    /// Its last moment, approved or not.
    pub until: UnixTime,
    /// The proposer's statement, exact bytes.
    pub statement: String,
    /// Armored SSHSIG over the statement.
    pub signature: String,
}

impl ProposedRaise {
    /// What it lets through.
    pub fn amounts(&self) -> RaiseAmounts {
        let Self { bytes, releases, platforms, leases, .. } = *self;
        RaiseAmounts { bytes, releases, platforms, leases }
    }
}

/// What a raise lets through above each limit; 0 for nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RaiseAmounts {
    /// Bytes.
    pub bytes: u64,
    /// Releases.
    pub releases: u64,
    /// Platforms.
    pub platforms: u64,
    /// Leases.
    pub leases: u64,
}

impl RaiseAmounts {
    /// That of one limit.
    pub fn of(&self, unit: BudgetUnit) -> u64 {
        match unit {
            BudgetUnit::Bytes => self.bytes,
            BudgetUnit::Releases => self.releases,
            BudgetUnit::Platforms => self.platforms,
            BudgetUnit::Leases => self.leases,
        }
    }

    /// The same, to change it.
    pub fn of_mut(&mut self, unit: BudgetUnit) -> &mut u64 {
        match unit {
            BudgetUnit::Bytes => &mut self.bytes,
            BudgetUnit::Releases => &mut self.releases,
            BudgetUnit::Platforms => &mut self.platforms,
            BudgetUnit::Leases => &mut self.leases,
        }
    }
}

/// A raise has its approvals and counts from here on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BudgetRaised {
    /// When.
    pub time: UnixTime,
    /// Index of its `propose` entry.
    pub proposal: u64,
    /// What the approvals named.
    pub object: Sha256Digest,
    /// Name of the budget.
    pub budget: Name,
}

/// The keeper's clock went further than the time that the keeper measured: somebody set it ahead.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClockJump {
    /// When, by that clock.
    pub time: UnixTime,
    /// Of the seconds since the entry before, those that the keeper did not measure. No budget refills by them.
    pub unmeasured: u64,
}
