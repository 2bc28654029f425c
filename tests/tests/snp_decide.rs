//! The decision on SEV-SNP evidence out of the forge: verified as a keeper does, then granted, and one denial for each thing
//! that a rule asks for, reached by changing one thing in platform, guest or rule.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
#![allow(unreachable_pub, reason = "a test has no outside")]

// The TPMs and the vault that other crates' tests are made of.
#[allow(dead_code, reason = "these tests need a part of it")]
#[path = "../../attestation/tests/common/mod.rs"]
mod common;
#[allow(dead_code, reason = "these tests need a part of it")]
#[path = "../../ledger/tests/governance/support/mod.rs"]
mod support;

#[path = "snp_decide/fields.rs"]
mod fields;
#[path = "snp_forge/vectors.rs"]
mod files;
#[path = "snp_decide/forms.rs"]
mod forms;
#[path = "snp_decide/real.rs"]
mod real;
#[path = "snp_decide/renewals.rs"]
mod renewals;
#[path = "snp_decide/scene.rs"]
mod scene;
