//! `vaultctl propose keeper-leave`

use clap::Args;

use super::{Signing, hex_of};

/// `vaultctl propose keeper-leave`
#[derive(Debug, Args)]
pub struct ProposeLeaveArgs {
    /// Instance of the keeper, 64 hex digits: as `vaultctl keeper status` shows it.
    #[arg(value_parser = instance)]
    pub instance: [u8; 32],
    /// How to sign.
    #[command(flatten)]
    pub signing: Signing,
}

fn instance(text: &str) -> Result<[u8; 32], String> {
    hex_of(text).ok_or_else(|| "write 64 lower-case hex digits, as `vaultctl keeper status` shows them".to_owned())
}
