//! `vaultctl propose budget`

use attestation::UnixTime;
use clap::Args;
use ledger::entry::RaiseAmounts;
use ledger::names::Name;
use ledger::policy::parse_bytes;

use super::{Signing, span};

/// `vaultctl propose budget`
#[derive(Debug, Args)]
pub struct BudgetArgs {
    /// The budget, by its name in the policy; it must say over = "hold". Or an alarm that says then = "hold".
    pub budget: Name,
    /// Bytes to let through above bytes_per_day, such as 40GiB.
    #[arg(long, value_parser = bytes, default_value = "0B")]
    pub bytes: u64,
    /// Releases to let through above releases_per_hour.
    #[arg(long, default_value_t = 0)]
    pub releases: u64,
    /// Platforms to let through above platforms_per_day.
    #[arg(long, default_value_t = 0)]
    pub platforms: u64,
    /// Leases to let through above leases.
    #[arg(long, default_value_t = 0)]
    pub leases: u64,
    /// For how long from now, approvals included: 90s, 30m, 12h, 7d.
    #[arg(long = "for", value_name = "SPAN", value_parser = span, required_unless_present = "until")]
    pub lasts: Option<u64>,
    /// Until when, in seconds since 1970: for --signature, whose statement was made over this moment.
    #[arg(long, value_name = "TIME", value_parser = unix_time, conflicts_with = "lasts")]
    pub until: Option<UnixTime>,
    /// How to sign.
    #[command(flatten)]
    pub signing: Signing,
}

impl BudgetArgs {
    /// What it lets through.
    pub fn amounts(&self) -> RaiseAmounts {
        let Self { bytes, releases, platforms, leases, .. } = *self;
        RaiseAmounts { bytes, releases, platforms, leases }
    }
}

pub(super) fn unix_time(text: &str) -> Result<UnixTime, std::num::ParseIntError> {
    text.parse().map(UnixTime)
}

fn bytes(text: &str) -> Result<u64, String> {
    parse_bytes(text).ok_or_else(|| "write a whole number and B, KiB, MiB, GiB or TiB, such as 40GiB".to_owned())
}
