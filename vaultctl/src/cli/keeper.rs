//! `vaultctl keeper`

use clap::Subcommand;

/// `vaultctl keeper`
#[derive(Debug, Subcommand)]
pub enum KeeperCommand {
    /// Which keeper has the vault, which one may take over, and which ones had it before: by the verified log.
    Status,
    /// The keepers that ask to take over, with the machine and the image that each of them showed.
    Pending,
}
