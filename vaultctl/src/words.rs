//! Policies, evidence and log entries in words.

mod claims;
mod entry;
mod policy;
mod proposal;

pub use claims::{ClaimsReport, tier_in_words};
pub use entry::{EntryReport, rollback};
pub use policy::{PolicyReport, warnings};
pub use proposal::ProposalReport;
