//! Entries, policy, approvals, the fold and the decision, from outside.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
#![allow(unreachable_pub, reason = "a test has no outside")]

// The TPMs and vendors that attestation's own tests are made of.
#[allow(dead_code, reason = "these tests need a part of it")]
#[path = "../../../attestation/tests/common/mod.rs"]
mod common;

mod alarms;
mod approvals;
mod beside;
mod boot;
mod budget_fold;
mod budget_policy;
mod budget_raises;
mod budget_windows;
mod change;
mod change_snp;
mod decide;
mod entry;
mod escrow;
mod extensions;
mod fold;
mod fold_leases;
mod fold_proposals;
mod genesis;
mod keepers;
mod key_epochs;
mod log_reader;
mod permits;
mod permits_decide;
mod platforms;
mod policy;
mod policy_snp;
mod properties;
mod recover;
mod rehearsal;
mod replay;
mod reseal;
mod revocations;
mod snapshot;
mod speed;
mod support;
mod upgrade;
mod vault_file;
mod workloads;
