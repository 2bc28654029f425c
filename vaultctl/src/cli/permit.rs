//! `vaultctl propose standing` and `break-glass`

use attestation::{Sha256Digest, UnixTime};
use clap::Args;
use ledger::names::{Name, Version};
use ledger::permit::{Permit, PermitKind};
use ledger::revocation::Scope;

use super::budget::unix_time;
use super::revoke::measurement;
use super::{Signing, span};

/// `vaultctl propose standing` and `break-glass`
#[derive(Debug, Args)]
pub struct PermitArgs {
    /// Releases under this rule, by its name in the policy.
    pub rule: Name,
    /// Of this model.
    #[arg(long, value_name = "NAME")]
    pub model: Name,
    /// One version of it, and not all.
    #[arg(long)]
    pub version: Option<Version>,
    /// Where: guests of any kind, or those that the next options name.
    #[command(flatten)]
    pub guests: Guests,
    /// How many releases.
    #[arg(long, value_name = "COUNT")]
    pub releases: u64,
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

/// On which guests; that it is any of them has to be said.
#[derive(Debug, Args)]
#[group(required = true, multiple = true)]
pub struct Guests {
    /// One machine: its platform id.
    #[arg(long, value_name = "SHA256")]
    pub platform: Option<Sha256Digest>,
    /// What was launched: an SNP launch digest (96 hex digits), or values of PCRs (11=HEX, or 4=HEX,11=HEX: machines that
    /// quote all of them).
    #[arg(long, value_name = "DIGEST|PCRS", value_parser = measurement)]
    pub measurement: Option<Scope>,
    /// Any guest that the rule takes.
    #[arg(long, conflicts_with_all = ["platform", "measurement"])]
    pub any_guest: bool,
}

impl PermitArgs {
    /// What approvers would agree to.
    pub fn permit(&self, kind: PermitKind, until: UnixTime) -> Permit {
        let (launch, pcrs) = match &self.guests.measurement {
            Some(Scope::Launch { launch }) => (Some(*launch), None),
            Some(Scope::Pcrs { pcrs }) => (None, Some(pcrs.clone())),
            Some(Scope::Model { .. } | Scope::Group { .. } | Scope::Platform { .. } | Scope::Lease { .. }) | None => {
                (None, None)
            }
        };
        let Self { rule, model, version, releases, .. } = self;
        let (rule, model, version, releases) = (rule.clone(), model.clone(), version.clone(), *releases);
        Permit { kind, rule, model, version, platform: self.guests.platform, launch, pcrs, releases, until }
    }
}
