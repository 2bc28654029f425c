//! Policies, evidence and log entries in words.

mod boot;
mod budget;
mod claims;
mod entry;
mod escrow;
mod explain;
mod fields;
mod join;
mod key_epoch;
mod permit;
mod policy;
mod proposal;
mod refusal;
mod refusal_log;
mod reseal;
mod upgrade;

pub use boot::{BootSays, SecureBootSays};
pub use budget::{raise_says, used};
pub use claims::{ClaimsReport, tier_in_words, workload_in_words};
pub(crate) use entry::act_in_words;
pub use entry::{EntryReport, in_words, rollback};
pub use escrow::escrow_in_words;
pub use explain::{
    Explained, Section, explain_boot, explain_events, explain_identity, explain_pcrs, explain_quote, explain_replay,
    explain_report, explain_runtime_data,
};
pub use fields::{ChainFields, QuoteFields, ReportFields};
pub use join::{joiner_in_words, leave_in_words, machine_in_words};
pub use key_epoch::epoch_in_words;
pub use permit::{active_in_words, permit_in_words, permit_says};
pub use policy::{PolicyReport, warnings};
pub use proposal::{ProposalReport, platform_in_words};
pub use refusal::{Refused, read_report};
pub use refusal_log::of_event_log;
pub use reseal::reseal_in_words;
