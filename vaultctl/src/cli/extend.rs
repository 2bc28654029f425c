//! `vaultctl extend`, as it is typed.

use std::path::PathBuf;

use attestation::{Sha256Digest, UnixTime};
use clap::{Args, Subcommand};
use ledger::names::{Name, Version};

use super::Signing;
use super::evidence::moment;

/// `vaultctl extend …`
#[derive(Debug, Subcommand)]
pub enum ExtendCommand {
    /// Write an extension that nobody has signed yet. Reads the log, for the policy in force; the keeper may be away.
    New(ExtendNewArgs),
    /// Show an extension in words, sign it, and add the signature to its file. Needs no host.
    ///
    /// As many approvers as a policy takes have to. Then give the file to `vault-enclave load`, `run` or `agent` by
    /// `--extension FILE`, or put it into their `--extensions DIR`.
    Sign {
        /// The extension.
        file: PathBuf,
        /// How to sign. The signature counts until the extension ends.
        #[command(flatten)]
        signing: Signing,
    },
    /// Tell a keeper that is there of an extension, so that it is in the log before agents come with it.
    Submit {
        /// The extension, with its signatures.
        file: PathBuf,
    },
}

/// `vaultctl extend new`
#[derive(Debug, Args)]
pub struct ExtendNewArgs {
    /// Which leases.
    #[command(flatten)]
    pub what: ExtendWhat,
    /// One version of --model, and not all.
    #[arg(long, requires = "model", conflicts_with_all = ["all", "lease"])]
    pub version: Option<Version>,
    /// The new last moment of the leases, such as 2027-03-01T00:00:00Z; at most 7 days after --from.
    #[arg(long, value_name = "RFC3339", value_parser = moment)]
    pub until: UnixTime,
    /// From when on it counts [default: now].
    #[arg(long, value_name = "RFC3339", value_parser = moment)]
    pub from: Option<UnixTime>,
    /// Where to write it.
    #[arg(long, value_name = "FILE")]
    pub out: PathBuf,
}

/// Which leases run on.
#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
pub struct ExtendWhat {
    /// Every lease of the vault.
    #[arg(long)]
    pub all: bool,
    /// Those of a model.
    #[arg(long, value_name = "NAME")]
    pub model: Option<Name>,
    /// One.
    #[arg(long, value_name = "SHA256")]
    pub lease: Option<Sha256Digest>,
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::super::Cli;

    #[test]
    fn an_extension_is_for_all_leases_or_for_some_that_are_named() {
        let parse = |args: &[&str]| {
            let fixed = ["vaultctl", "extend", "new", "--until", "2027-03-01T00:00:00Z", "--out", "f"];
            Cli::try_parse_from([&fixed[..], args].concat()).is_ok()
        };
        assert!(parse(&["--all"]) && parse(&["--model", "m"]) && parse(&["--model", "m", "--version", "1"]));
        for wrong in [&[][..], &["--all", "--model", "m"], &["--all", "--version", "1"], &["--version", "1"]] {
            assert!(!parse(wrong), "{wrong:?}");
        }
    }
}
