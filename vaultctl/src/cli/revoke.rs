//! `vaultctl revoke`, as it is typed.

use attestation::Sha256Digest;
use clap::Args;
use ledger::names::{Group, Name, Version};
use ledger::revocation::Scope;

use super::Signing;

/// `vaultctl revoke`
#[derive(Debug, Args)]
#[command(
    after_help = "Takes as many approvals as `approval.revoke_threshold` says, yours included; with 1 it is in force at \
    once. Connected agents end within seconds, the others when their lease can't be renewed: the time that is shown is the \
    last at which any of them ends.\n\nNo policy undoes a revocation. --lift takes as many approvals as a policy; leases \
    that ended stay ended."
)]
pub struct RevokeArgs {
    /// What.
    #[command(flatten)]
    pub what: RevokeWhat,
    /// One version of --model, and not all.
    #[arg(
        long,
        requires = "model",
        conflicts_with_all = ["group", "platform", "measurement", "lease", "lift"],
    )]
    pub version: Option<Version>,
    /// Do not wait until the leases have ended.
    #[arg(long)]
    pub no_wait: bool,
    /// How to sign.
    #[command(flatten)]
    pub signing: Signing,
}

/// What to revoke, or what to lift.
#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
pub struct RevokeWhat {
    /// A model, the versions that are published later included.
    #[arg(long, value_name = "NAME")]
    pub model: Option<Name>,
    /// Units with this label, of every model. A lease of which the log does not say which labels it has may have all that
    /// its rule gives, and ends too.
    #[arg(long, value_name = "LABEL")]
    pub group: Option<Group>,
    /// A machine: its platform id.
    #[arg(long, value_name = "SHA256")]
    pub platform: Option<Sha256Digest>,
    /// What was launched: an SNP launch digest (96 hex digits), or values of PCRs (11=HEX, or 4=HEX,11=HEX: machines that
    /// quote all of them).
    #[arg(long, value_name = "DIGEST|PCRS", value_parser = measurement)]
    pub measurement: Option<Scope>,
    /// One lease.
    #[arg(long, value_name = "SHA256")]
    pub lease: Option<Sha256Digest>,
    /// Lift the revocation of this log entry.
    #[arg(long, value_name = "INDEX")]
    pub lift: Option<u64>,
}

pub(super) fn measurement(text: &str) -> Result<Scope, String> {
    let mut launch = [0; 48];
    if hex::decode_to_slice(text, &mut launch).is_ok() {
        return Ok(Scope::Launch { launch });
    }
    match text.parse() {
        Ok(pcrs) => Ok(Scope::Pcrs { pcrs }),
        Err(error) => Err(format!("a launch digest has 96 hex digits; {error}")),
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::super::{Cli, Command};
    use super::*;

    fn parse(args: &[&str]) -> Option<RevokeArgs> {
        let cli = Cli::try_parse_from([&["vaultctl", "revoke", "--key", "k"], args].concat()).ok()?;
        match cli.command {
            Command::Revoke(args) => Some(args),
            _ => None,
        }
    }

    #[test]
    fn exactly_one_thing_is_revoked() {
        let digest = format!("sha256:{}", "4".repeat(64));
        assert!(parse(&["--model", "llama"]).is_some());
        assert!(parse(&["--model", "llama", "--version", "2.1"]).is_some_and(|args| args.version.is_some()));
        for one in [["--group", "layer.0"], ["--platform", &digest], ["--lease", &digest], ["--lift", "7"]] {
            assert!(parse(&one).is_some(), "{one:?}");
            assert!(parse(&[&one[..], &["--model", "llama"]].concat()).is_none());
            assert!(parse(&[&one[..], &["--version", "2.1"]].concat()).is_none());
        }
        assert!(parse(&[]).is_none());
        assert!(parse(&["--model", "Llama"]).is_none());
    }

    #[test]
    fn a_measurement_is_a_launch_digest_or_pcrs() {
        let (launch, pcr) = ("55".repeat(48), "66".repeat(32));
        assert_eq!(measurement(&launch), Ok(Scope::Launch { launch: [0x55; 48] }));
        let pcrs = format!("4={pcr},11={pcr}");
        assert_eq!(measurement(&pcrs), Ok(Scope::Pcrs { pcrs: pcrs.parse().unwrap() }));
        for wrong in ["", "55", &pcr, "11=66"] {
            assert!(measurement(wrong).is_err(), "{wrong}");
        }
    }
}
