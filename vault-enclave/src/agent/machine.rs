//! What the agent is told about its vault and its machine, whichever model it then loads.

use std::path::{Path, PathBuf};

use ledger::vault_file::{VAULT_FILE_BYTES_MAX, VaultFile};

use super::event_log::EVENT_LOG;
use super::extensions::Extensions;
use super::options::{Devices, Order, Request, read, read_text};
use super::remote::Hosts;
use crate::collateral_args::CollateralArgs;
use crate::ek_args::EkArgs;
use crate::failure::Failure;
use crate::snp::SnpChoice;

/// From which vault, with what hardware, by which hosts.
#[derive(clap::Args, Clone, Debug)]
pub struct MachineArgs {
    /// The vault file: the vault's id, keys and hosts. Take it from whoever made the vault, never from a host.
    #[arg(long, value_name = "FILE")]
    pub vault: PathBuf,
    /// The TPM: `device:/dev/tpmrm0`, `swtpm:host=127.0.0.1,port=2321`, or none [default: the first, where it is there].
    #[arg(long, value_name = "TCTI", env = "WEIGHTVAULT_TPM")]
    pub tpm: Option<String>,
    /// Which endorsement key of the TPM.
    #[command(flatten)]
    pub ek: EkArgs,
    /// The SNP device: auto, configfs:/sys/kernel/config/tsm/report, sev-guest:/dev/sev-guest, azure, or soft:/DIR.
    #[arg(long, value_name = "DEVICE", default_value = "auto", env = "WEIGHTVAULT_SNP")]
    pub snp: SnpChoice,
    /// The event log of this boot, which goes along where the rule asks for events.
    #[arg(long, value_name = "FILE", default_value = EVENT_LOG, env = "WEIGHTVAULT_EVENT_LOG")]
    pub event_log: PathBuf,
    /// Where certificates come from that the host does not give.
    #[command(flatten)]
    pub collateral: CollateralArgs,
    /// Ask this host instead of those in the vault file: http://…, https://… or unix:/path. Can be given more than once.
    #[arg(long, value_name = "URL")]
    pub host: Vec<String>,
    /// PEM of the authority that https hosts are checked by. No other authority is asked.
    #[arg(long, value_name = "FILE")]
    pub ca: Option<PathBuf>,
    /// While no keeper can be reached, run on by this extension, which approvers signed (`vaultctl extend`). Can be given
    /// more than once. Looked at again whenever a renewal fails. A keeper that answers has the last word.
    #[arg(long, value_name = "FILE")]
    pub extension: Vec<PathBuf>,
    /// The same of every file in this directory.
    #[arg(long, value_name = "DIR")]
    pub extensions: Option<PathBuf>,
    /// Keep the attestation key of this machine here, to start faster the next time. Not secret.
    #[arg(long, value_name = "DIR")]
    pub state: Option<PathBuf>,
}

impl MachineArgs {
    /// As a command line that names the vault file alone, without looking at the environment.
    #[must_use]
    pub fn new(vault: PathBuf) -> Self {
        Self {
            vault,
            tpm: None,
            ek: EkArgs::default(),
            snp: SnpChoice::Auto,
            event_log: EVENT_LOG.into(),
            collateral: CollateralArgs::default(),
            host: Vec::new(),
            ca: None,
            extension: Vec::new(),
            extensions: None,
            state: None,
        }
    }

    /// Reads the files that are named: what a load needs.
    pub(super) fn request(&self, order: Order) -> Result<Request, Failure> {
        let vault = self.vault_file()?;
        let ca = self.ca.as_deref().map(read_text).transpose()?;
        let addresses = if self.host.is_empty() { vault.hosts().to_vec() } else { self.host.clone() };
        Ok(Request {
            vault,
            hosts: Hosts { addresses, ca },
            rule: order.rule.unwrap_or_else(|| order.model.model.clone()),
            model: order.model,
            part: order.part,
            sources: order.sources,
            devices: self.devices()?,
            state: self.state.clone(),
            extensions: Extensions::new(&self.extension, self.extensions.as_deref()),
            workload: None,
        })
    }

    /// The vault.
    pub(super) fn vault_file(&self) -> Result<VaultFile, Failure> {
        Ok(VaultFile::parse(&read(&self.vault, VAULT_FILE_BYTES_MAX)?)?)
    }

    /// Where to look for what this machine attests with.
    pub(super) fn devices(&self) -> Result<Devices, Failure> {
        Devices::new(self.tpm.as_deref(), &self.ek, self.snp.clone(), &self.collateral, &self.event_log)
    }

    /// Where the attestation key is kept, if anywhere.
    pub(super) fn state(&self) -> Option<&Path> {
        self.state.as_deref()
    }
}
