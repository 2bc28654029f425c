//! Policies, evidence and log entries in words.

mod claims;
mod entry;
mod explain;
mod fields;
mod policy;
mod proposal;
mod refusal;

pub use claims::{ClaimsReport, tier_in_words};
pub use entry::{EntryReport, rollback};
pub(crate) use entry::{act_in_words, in_words};
pub use explain::{
    Explained, Section, explain_identity, explain_pcrs, explain_quote, explain_report, explain_runtime_data,
};
pub use fields::{ChainFields, QuoteFields, ReportFields};
pub use policy::{PolicyReport, warnings};
pub use proposal::ProposalReport;
pub use refusal::{Refused, read_report};
