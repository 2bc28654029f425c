//! Everything a keeper decides by: the log, the fold over it, policy, approvals and the decision.
//!
//! **Promises.** Each value can be made only from the one before it, so that a step cannot be left out:
//!
//! ```text
//! text ─Policy::parse▶ Policy      bytes ─Entry::parse▶ Entry ─State::apply▶ State
//! Verified<Load> ─decide(&State, &LoggedManifest, now)▶ ReleaseGrant ─with_evidence▶ EvidencedGrant
//!                ─Batch::stage, Log::commit▶ Logged<EvidencedGrant>
//! ```
//! - [`state`]: the fold refuses whatever no keeper should have written. An auditor who folds the log checks the keeper.
//! - [`policy`]: nothing that weakens security has a default; a refusal names the key and says what to write.
//! - [`approvals`]: thresholds of SSH signatures over exact bytes, by distinct approvers in force.
//! - [`log_reader`]: who may read a private log, for how long.
//! - [`extension`]: what lets leases run on while no keeper can be reached.
//! - [`revocation`]: what may no longer be held or released, until approvers lift it.
//! - [`decide`](mod@decide): one rule, all of it, or a denial that says claim, expected, seen and the policy's key.
//! - [`reseal`]: to which boot state a keeper may be sealed before the reboot that brings it.
//! - [`keepers`]: which keeper may take over a vault, and what its predecessor says last.
//! - [`escrow`]: who keeps the vault's keys against the loss of its keeper, and who gets them then.
//! - [`key_epoch`]: which keys follow those of the genesis, and who says so.
//! - [`cosignature`]: a quorum of witnesses, which no operator of a keeper has in hand. [`witness`] is what one checks.
//! - [`snapshot`]: a fold that was done before, for a keeper that starts.
//! - [`release_log`]: no log entry, no key. It is the only code that makes a [`release_log::Logged`].
//!
//! **Never.** This crate does no IO, reads no clock and no random numbers, holds no secret key, and has no `unsafe`.
//! `now` and everything durable are passed in.
//!
//! ```
//! use ledger::entry::Entry;
//! use ledger::state::{FoldError, State};
//!
//! let end = br#"{"v":1,"type":"end","time":7,"lease":"sha256:0000000000000000000000000000000000000000000000000000000000000000","cause":"agent"}"#;
//! // It is an entry ...
//! assert!(Entry::parse(end).is_ok());
//! // ... and still may not stand everywhere: a log begins with its genesis.
//! assert_eq!(State::new().apply(0, end), Err(FoldError::GenesisMissing));
//! ```
#![forbid(unsafe_code)]

pub mod approvals;
pub mod checkpoint;
pub mod cosignature;
pub mod decide;
pub mod entry;
pub mod escrow;
pub mod extension;
pub mod genesis;
pub mod json;
pub mod keeper_evidence;
pub mod keepers;
pub mod key_epoch;
pub mod lease;
pub mod log_reader;
pub mod manifest;
pub mod merkle;
pub mod model_signature;
pub mod names;
pub mod note;
pub mod permit;
pub mod policy;
pub mod proof;
pub mod release_log;
pub mod reseal;
pub mod revocation;
pub mod safetensors;
pub mod snapshot;
pub mod state;
mod text;
pub mod tiles;
pub mod upgrade;
pub mod vault_file;
pub mod witness;
