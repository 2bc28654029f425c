//! What passes between an agent and its loader: a job as JSON on the loader's stdin, lines of JSON on its stdout, and one
//! word back when the parent has taken over the files. No key is in any of it: the unit keys live and end in the loader.

use std::path::PathBuf;

use attestation::{LeaseKey, Workload};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ledger::key_epoch::EpochLink;
use ledger::names::{Name, Version};
use serde::{Deserialize, Serialize};
use vault_proto::convert::{ModelName, SignedLease};

use super::attester::{AgentIdentity, ChipAgent, TpmAgent};
use super::part::{Found, Part};
use super::remote::Hosts;
use super::sources::SourceList;
use super::term::BootTime;
use crate::collateral_args::CollateralArgs;
use crate::failure::{Failure, Kind};
use crate::open::{DestinationError, Directory, DirectoryId};
use crate::tpm::{TctiConfig, TpmObject};

/// What the parent says when the files are its own.
pub(super) const ADOPTED: &str = "adopted";

/// A load.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Job {
    pub(super) vault: Base64,
    pub(super) hosts: Vec<String>,
    pub(super) ca: Option<String>,
    pub(super) rule: Name,
    pub(super) model: Name,
    pub(super) version: Version,
    pub(super) part: Part,
    pub(super) sources: SourceList,
    pub(super) tpm: Option<JobTpm>,
    pub(super) chip: Option<JobChip>,
    pub(super) event_log: PathBuf,
    pub(super) lease_key: Base64,
    /// What is started with the weights, where that is known.
    pub(super) workload: Option<Workload>,
    /// Where the files go; `None` where only the units of tensors are to be found.
    pub(super) into: Option<JobDirectory>,
    pub(super) owner: Option<Owner>,
    pub(super) insecure_plaintext_on_disk: bool,
}

/// A directory that the parent has open, and wipes: by its path, and by which one that was.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct JobDirectory {
    pub(super) path: PathBuf,
    pub(super) id: DirectoryId,
}

/// The TPM of an agent, as JSON.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct JobTpm {
    tcti: String,
    ek: String,
    ak_public: Base64,
    ak_private: Base64,
    ek_certificates: Vec<Base64>,
    ek_public: Base64,
}

/// The SNP device of an agent, as JSON.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct JobChip {
    choice: String,
    azure_tcti: Option<String>,
    collateral: Option<PathBuf>,
    kds: Vec<String>,
    kds_ca: Option<PathBuf>,
}

/// Whose the files are to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Owner {
    /// User.
    pub uid: u32,
    /// Group.
    pub gid: u32,
}

/// A line of the loader.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Said {
    /// Keys are about to be asked for under this session (hex): a lease may exist from now on.
    Asking { session: String },
    /// The keys came, and with them a lease: whoever takes the files renews it from now on.
    Granted(Box<Leased>),
    /// The files are there.
    Loaded(Box<Loaded>),
    /// The units that were looked for.
    Found(Found),
    /// It failed.
    Failed(Failure),
}

/// [`EpochLink`], as JSON.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct EpochStep {
    entry: Base64,
    proof: String,
}

impl From<EpochLink> for EpochStep {
    fn from(EpochLink { entry, proof }: EpochLink) -> Self {
        Self { entry: Base64(entry), proof }
    }
}

impl From<&EpochStep> for EpochLink {
    fn from(step: &EpochStep) -> Self {
        Self { entry: step.entry.0.clone(), proof: step.proof.clone() }
    }
}

/// What a lease is held by. The grant was verified by the loader.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Leased {
    pub(super) statement: Base64,
    pub(super) signature: Base64,
    /// When the request was sent.
    pub(super) asked: BootTime,
    /// The `release` entry and its place in the log.
    pub(super) entry: Base64,
    pub(super) index: u64,
    /// What led from the keys of the vault file to those that signed.
    pub(super) epochs: Vec<EpochStep>,
}

/// A load that is done.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Loaded {
    pub(super) host: String,
    pub(super) files: usize,
    pub(super) bytes: u64,
    pub(super) seconds: f64,
    /// Of all threads of the loader meanwhile.
    pub(super) cpu_seconds: f64,
    pub(super) times: Times,
    pub(super) place: String,
    pub(super) insecure: bool,
    /// Whether the place is to have huge pages, and how much came to lie in them.
    pub(super) huge: bool,
    /// Where the ciphertext came from.
    pub(super) sources: Vec<String>,
    pub(super) huge_bytes: u64,
}

/// When a load was how far. Files are handed on all at once: the first tensor can be read when all are there.
#[derive(Clone, Copy, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Times {
    /// The keys had come.
    pub(super) keys: BootTime,
    /// The first bytes were opened; `None` where there are none.
    pub(super) first: Option<BootTime>,
    /// All files were there.
    pub(super) all: BootTime,
}

/// Bytes as base64.
#[derive(Clone, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub(super) struct Base64(pub(super) Vec<u8>);

impl Job {
    pub(super) fn name(&self) -> ModelName {
        ModelName { model: self.model.clone(), version: self.version.clone() }
    }

    pub(super) fn hosts(&self) -> Hosts {
        Hosts { addresses: self.hosts.clone(), ca: self.ca.clone() }
    }

    pub(super) fn identity(&self) -> Result<AgentIdentity, Failure> {
        let tpm = self.tpm.as_ref().map(TpmAgent::try_from).transpose()?;
        let chip = self.chip.as_ref().map(ChipAgent::try_from).transpose()?;
        Ok(AgentIdentity { tpm, chip, event_log: self.event_log.clone() })
    }

    pub(super) fn lease_key(&self) -> Result<LeaseKey, Failure> {
        LeaseKey::try_from(self.lease_key.0.as_slice())
            .map_err(|error| Failure::new(Kind::Failed, "job-malformed", error))
    }
}

impl JobDirectory {
    /// Opens it. What is opened into another one nobody would wipe.
    pub(super) fn open(&self) -> Result<Directory, DestinationError> {
        Directory::open_same(&self.path, self.id)
    }
}

impl From<&ChipAgent> for JobChip {
    fn from(agent: &ChipAgent) -> Self {
        let options = agent.collateral.options();
        Self {
            choice: agent.choice.to_string(),
            azure_tcti: agent.azure_tcti.as_ref().map(ToString::to_string),
            collateral: options.store.clone(),
            kds: options.kds.iter().map(ToString::to_string).collect(),
            kds_ca: options.ca.clone(),
        }
    }
}

impl TryFrom<&JobChip> for ChipAgent {
    type Error = Failure;

    fn try_from(job: &JobChip) -> Result<Self, Failure> {
        let choice = job.choice.parse().map_err(|error| Failure::new(Kind::Failed, "job-malformed", error))?;
        let azure_tcti = job.azure_tcti.as_deref().map(str::parse).transpose()?;
        let kds = job.kds.iter().map(|url| url.parse()).collect::<Result<_, _>>()?;
        let (collateral, kds_ca) = (job.collateral.clone(), job.kds_ca.clone());
        let collateral = CollateralArgs { collateral, kds, kds_ca }.open()?;
        Ok(Self { choice, azure_tcti, collateral })
    }
}

impl From<&TpmAgent> for JobTpm {
    fn from(agent: &TpmAgent) -> Self {
        Self {
            tcti: agent.tcti.to_string(),
            ek: agent.tcti.ek().to_string(),
            ak_public: Base64(agent.ak.public.clone()),
            ak_private: Base64(agent.ak.private.clone()),
            ek_certificates: agent.identity.ek_certificates.iter().cloned().map(Base64).collect(),
            ek_public: Base64(agent.identity.ek_public.clone()),
        }
    }
}

impl TryFrom<&JobTpm> for TpmAgent {
    type Error = Failure;

    fn try_from(job: &JobTpm) -> Result<Self, Failure> {
        let ak = TpmObject { public: job.ak_public.0.clone(), private: job.ak_private.0.clone() };
        let certificates = job.ek_certificates.iter().map(|certificate| certificate.0.clone()).collect();
        let ek = job.ek.parse().map_err(|error| Failure::new(Kind::Failed, "job-malformed", error))?;
        Ok(Self::new(job.tcti.parse::<TctiConfig>()?.with_ek(ek), ak, certificates, job.ek_public.0.clone())?)
    }
}

impl Leased {
    pub(super) fn lease(&self) -> Result<SignedLease, Failure> {
        let signature = self.signature.0.as_slice().try_into();
        let signature =
            signature.map_err(|_| Failure::new(Kind::Failed, "loader-malformed", "the lease has no signature"))?;
        Ok(SignedLease { statement: self.statement.0.clone(), signature })
    }
}

impl TryFrom<String> for Base64 {
    type Error = base64::DecodeError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        STANDARD.decode(text).map(Self)
    }
}

impl From<Base64> for String {
    fn from(bytes: Base64) -> Self {
        STANDARD.encode(bytes.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loader_completes_evidence_from_where_its_agent_does() {
        let args = CollateralArgs {
            collateral: Some("/var/lib/collateral".into()),
            kds: vec!["http://mirror.example/amd".parse().unwrap(), "http://127.0.0.1:1".parse().unwrap()],
            kds_ca: Some("/etc/mirror.pem".into()),
        };
        let choice = "sev-guest:/dev/sev-guest".parse().unwrap();
        let agent = ChipAgent { choice, azure_tcti: None, collateral: args.open().unwrap() };
        let json = serde_json::to_string(&JobChip::from(&agent)).unwrap();
        let read = ChipAgent::try_from(&serde_json::from_str::<JobChip>(&json).unwrap()).unwrap();
        let options = read.collateral.options();
        assert_eq!((&options.store, &options.kds, &options.ca), (&args.collateral, &args.kds, &args.kds_ca));
        assert_eq!(read.choice, agent.choice);
    }
}
