//! `vault-enclave seal` and `publish`: a directory of plaintext becomes a proposed model of a vault.
//!
//! ```text
//! vault file ▶ keeper's evidence, fresh ▶ seal for the genesis' wrap key ▶ DIR of ciphertext ▶ upload ▶ propose
//!                                                                          `publish` begins here ─┘
//! ```
//! Nothing that the host says decides for whom a model is sealed: the wrap key is that of the vault file's genesis, and
//! before it is used its keeper shows evidence for this run's nonce.

mod group;
mod progress;
mod publish_command;
mod remote;
mod report;
mod seal_command;
mod sealed_dir;
mod stoppable;
mod upload;
mod workplace;

pub use publish_command::PublishArgs;
pub use remote::VaultArgs;
pub use seal_command::SealArgs;

pub(crate) use progress::size;
pub(crate) use publish_command::runtime;
pub(crate) use remote::{Remote, unix_now};

use std::process::ExitCode;

/// `vault-enclave seal`.
#[must_use]
pub fn seal(args: &SealArgs) -> ExitCode {
    seal_command::run(args).map_or_else(|failure| failure.report(args.json), |()| ExitCode::SUCCESS)
}

/// `vault-enclave publish`.
#[must_use]
pub fn publish(args: &PublishArgs) -> ExitCode {
    publish_command::run(args).map_or_else(|failure| failure.report(args.json), |()| ExitCode::SUCCESS)
}
