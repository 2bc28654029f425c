//! SEV-SNP evidence of real chips and clouds is accepted as it is; changed in any bit, it is refused.
//!
//! The evidence is public and not ours; it is read where it lies (`WEIGHTVAULT_VECTORS`, by default
//! `../shared/vectors` beside the tree). Without it these tests say so and check nothing, except in CI, where that fails.
#![allow(clippy::unwrap_used, reason = "what a test unwraps is what it says")]

mod accepted;
mod arbitrary;
mod asn1;
mod azure;
mod chains;
mod refused;
mod soft;
mod soft_anchor;
mod soft_chain;
mod soft_crl;
mod soft_report;
mod vectors;
