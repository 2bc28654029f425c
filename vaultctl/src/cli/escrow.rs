//! `vaultctl custodian`, `vaultctl escrow`, `vaultctl recover`

use std::path::PathBuf;

use clap::{Args, Subcommand};
use ledger::names::Name;

use super::Signing;

/// `vaultctl custodian …`
#[derive(Debug, Subcommand)]
pub enum CustodianCommand {
    /// Make a custodian's key. Needs no vault and no network: run it on a machine that has none, and keep the file there.
    Keygen {
        /// What people call the custodian.
        #[arg(long, value_name = "NAME")]
        name: Name,
        /// Where the private key goes: a new file, which only its owner can read. The public one gets `.pub` behind it.
        #[arg(long, value_name = "FILE")]
        out: PathBuf,
    },
}

/// `vaultctl escrow …`
#[derive(Debug, Subcommand)]
pub enum EscrowCommand {
    /// Propose custodians for the vault's keys. You must be an approver of the policy in force.
    Propose(EscrowProposeArgs),
    /// Write the custodians' shares to files, one each: give each to its custodian. They open with his key alone.
    Fetch {
        /// Where to: a directory, made where it is missing.
        #[arg(long, value_name = "DIR")]
        out: PathBuf,
    },
    /// Who holds shares, by the verified log.
    Status,
}

/// `vaultctl escrow propose`
#[derive(Debug, Args)]
pub struct EscrowProposeArgs {
    /// A custodian: his public file, as `vaultctl custodian keygen` wrote it. At least two, at most 16.
    #[arg(long = "custodian", value_name = "FILE", required = true)]
    pub custodians: Vec<PathBuf>,
    /// How many shares give the keys: at least two.
    #[arg(long, value_name = "M")]
    pub threshold: u32,
    /// How to sign.
    #[command(flatten)]
    pub signing: Signing,
}

/// `vaultctl recover …`
#[derive(Debug, Subcommand)]
pub enum RecoverCommand {
    /// What the recovering keeper is about to do, as its evidence proves it to you now, and what it waits for.
    Status,
    /// Verify the recovering keeper's evidence yourself, open your share, and give it sealed to that keeper alone.
    Contribute(ContributeArgs),
    /// Verify the recovering keeper's evidence yourself, compare its log with the one that you read, and sign. Approvers.
    Approve {
        /// How to sign.
        #[command(flatten)]
        signing: Signing,
    },
}

/// `vaultctl recover contribute`
#[derive(Debug, Args)]
pub struct ContributeArgs {
    /// Your share, as `vaultctl escrow fetch` wrote it.
    #[arg(long, value_name = "FILE")]
    pub share: PathBuf,
    /// Your private key.
    #[arg(long, value_name = "FILE")]
    pub key: PathBuf,
    /// Do not ask. Without a terminal nothing is given unless this is.
    #[arg(long)]
    pub yes: bool,
}
