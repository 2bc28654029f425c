//! Evidence that is right is accepted; changed in any one thing, it is refused for that very reason.
#![allow(clippy::unwrap_used, reason = "what a test unwraps is what it says")]

#[path = "../common/mod.rs"]
mod common;

mod anchors;
mod attestation_key;
mod bindings;
mod captured;
mod credential;
mod ek_chain;
mod ek_public;
mod event_log;
mod mutation;
mod quote;
mod recorded;
mod scene;
