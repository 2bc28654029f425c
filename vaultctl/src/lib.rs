//! The engineer's tool: genesis, policy, approvals, status, audit.
//!
//! It never reads an engineer's private key (`ssh-keygen` signs; [`witness`] and [`custodian`] have keys of their own), needs no TPM library, and believes no host: evidence is verified
//! with nonces of its own, and what a vault's state is follows from folding its log up to a checkpoint that the vault's
//! log key signed. What can only be the host's word is labelled so.
//!
//! The command line is the interface. What other programs may want of it is free of IO: [`audit::LogReader`],
//! [`stored_evidence`], [`past`], and [`ledger::keeper_evidence`] in its own crate.
//!
//! ```
//! use attestation::Sha256Digest;
//! use vaultctl::audit::{LogFault, LogReader};
//!
//! let mut reader = LogReader::new(Sha256Digest::of(b"the genesis of my vault"));
//! let found = Sha256Digest::of(b"another genesis");
//! assert_eq!(reader.push(b"another genesis"), Err(LogFault::OtherVault { found }));
//! ```
#![forbid(unsafe_code)]

pub mod audit;
pub mod bundle;
pub mod captured;
pub mod cli;
pub mod client;
pub mod commands;
pub mod custodian;
pub mod failure;
pub mod keeper;
pub mod past;
pub mod print;
pub mod session;
pub mod signing;
pub mod ssh;
pub mod stored_evidence;
pub mod witness;
pub mod words;
