//! The vault file (FORMAT.md §4): all that an agent must know of a vault beforehand. It proves itself: the id is the
//! digest of the genesis that it carries, and the genesis names the keys and the keeper's rules.
//!
//! Version 2 carries the entries too that changed the policy or the keeper since: whoever has it knows the keeper by the
//! rules that its approvers gave it later, and the one that took over, without the log.

use std::fmt;
use std::sync::Arc;

use attestation::{AkName, HpkePublicKey, IdentityKey, LogKey, Sha256Digest, TrustAnchors};
use serde::{Deserialize, Serialize};

use crate::checkpoint::LogVerifier;
use crate::entry::field;
use crate::genesis::{Genesis, GenesisError};
use crate::json::{self, JsonError};
use crate::keepers::KeeperMachine;
use crate::key_epoch::{self, EpochError, EpochKeys, EpochLink};
use crate::policy::{KeeperRule, Policy};
use crate::state::{FoldError, IndexedEntry, Succeeded, succeed};

/// Longest vault file, in bytes: room for some thirty of the longest policies.
pub const VAULT_FILE_BYTES_MAX: usize = 512 << 10;
/// The most hosts that it names.
pub const HOSTS_MAX: usize = 16;
/// Longest address of a host, in bytes.
pub const HOST_BYTES_MAX: usize = 256;

const VAULT_FILE_VERSION: u64 = 1;
const WITH_POLICIES_VERSION: u64 = 2;

/// A vault, as an agent is given it.
#[derive(Debug, Clone)]
pub struct VaultFile {
    genesis: Genesis,
    hosts: Vec<String>,
    policies: Vec<IndexedEntry>,
    /// The last of them.
    policy: Arc<Policy>,
    /// Those that they lead to; there is one at least.
    keepers: Vec<KeeperMachine>,
    /// Those of the last epoch that it knows.
    keys: EpochKeys,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct VaultFileFields {
    v: u64,
    vault: Sha256Digest,
    #[serde(with = "field::base64")]
    genesis: Vec<u8>,
    hosts: Vec<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    policies: Option<Vec<PolicyEntry>>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct PolicyEntry {
    index: u64,
    #[serde(with = "field::base64")]
    entry: Vec<u8>,
}

impl VaultFile {
    /// Names 1 to 16 hosts, each `http://…` or `https://…`. They are not trusted: they relay and store.
    pub fn new(genesis: Genesis, hosts: Vec<String>) -> Result<Self, VaultFileError> {
        if hosts.is_empty() || hosts.len() > HOSTS_MAX {
            return Err(VaultFileError::HostCount { count: hosts.len() });
        }
        if let Some(index) = hosts.iter().position(|host| !is_address(host)) {
            return Err(VaultFileError::HostMalformed { index });
        }
        let policy = Arc::new(genesis.policy().clone());
        let keepers = vec![KeeperMachine::from(genesis.keeper())];
        let keys = EpochKeys::from(genesis.keeper());
        Ok(Self { genesis, hosts, policies: Vec::new(), policy, keepers, keys })
    }

    /// The same with the entries that changed policy and keeper since, as [`Succession`](crate::state::Succession) keeps them.
    pub fn with_policies(self, policies: Vec<IndexedEntry>) -> Result<Self, VaultFileError> {
        let Succeeded { policy, keepers, keys } =
            succeed(&self.genesis, &policies).map_err(VaultFileError::Policies)?;
        let file = Self { policies, policy, keepers, keys, ..self };
        match file.encode().len() {
            bytes if bytes > VAULT_FILE_BYTES_MAX => Err(VaultFileError::TooLong { bytes }),
            _ => Ok(file),
        }
    }

    /// Reads a vault file of at most 512 KiB.
    pub fn parse(bytes: &[u8]) -> Result<Self, VaultFileError> {
        if bytes.len() > VAULT_FILE_BYTES_MAX {
            return Err(VaultFileError::TooLong { bytes: bytes.len() });
        }
        let fields: VaultFileFields = json::parse_object(bytes).map_err(VaultFileError::Malformed)?;
        let policies = match (fields.v, fields.policies) {
            (VAULT_FILE_VERSION, None) => Vec::new(),
            (WITH_POLICIES_VERSION, Some(policies)) if !policies.is_empty() => policies,
            (VAULT_FILE_VERSION | WITH_POLICIES_VERSION, _) => return Err(VaultFileError::PoliciesMisplaced),
            (found, _) => return Err(VaultFileError::UnknownVersion { found }),
        };
        let genesis = Genesis::parse(&fields.genesis).map_err(VaultFileError::Genesis)?;
        if genesis.vault_id() != fields.vault {
            return Err(VaultFileError::IdMismatch { named: fields.vault, genesis: genesis.vault_id() });
        }
        let file = Self::new(genesis, fields.hosts)?;
        file.with_policies(policies.into_iter().map(|policy| (policy.index, policy.entry)).collect())
    }

    /// The file, with a newline at its end.
    pub fn encode(&self) -> Vec<u8> {
        let entry = |(index, entry): &IndexedEntry| PolicyEntry { index: *index, entry: entry.clone() };
        let policies = (!self.policies.is_empty()).then(|| self.policies.iter().map(entry).collect());
        let fields = VaultFileFields {
            v: if policies.is_some() { WITH_POLICIES_VERSION } else { VAULT_FILE_VERSION },
            vault: self.id(),
            genesis: self.genesis.bytes().to_vec(),
            hosts: self.hosts.clone(),
            policies,
        };
        let mut bytes = serde_json::to_vec(&fields).expect("every field is text, an integer, or a list of texts");
        bytes.push(b'\n');
        bytes
    }

    /// The vault's id.
    pub fn id(&self) -> Sha256Digest {
        self.genesis.vault_id()
    }

    /// Its genesis.
    pub fn genesis(&self) -> &Genesis {
        &self.genesis
    }

    /// Where to ask, in the order to try.
    pub fn hosts(&self) -> &[String] {
        &self.hosts
    }

    /// Signs grants and leases.
    pub fn identity_key(&self) -> &IdentityKey {
        &self.keys.identity_key
    }

    /// Signs checkpoints.
    pub fn log_key(&self) -> &LogKey {
        &self.genesis.keeper().log_key
    }

    /// DEKs are wrapped to it.
    pub fn wrap_key(&self) -> &HpkePublicKey {
        &self.keys.wrap_key
    }

    /// The newest policy that it knows: the first one, unless it carries later ones.
    pub fn policy(&self) -> &Policy {
        &self.policy
    }

    /// The newest keeper that it knows: the founder, unless it carries the entries by which another one took over. Of
    /// several, the one that was there first.
    pub fn keeper(&self) -> &KeeperMachine {
        &self.keepers[0]
    }

    /// Every keeper that it knows to decide.
    pub fn keepers(&self) -> &[KeeperMachine] {
        &self.keepers
    }

    /// The keeper with this attestation key; where it knows none, the one that evidence will then not be of.
    pub fn keeper_with(&self, ak_name: &AkName) -> &KeeperMachine {
        self.keepers.iter().find(|keeper| keeper.ak_name == *ak_name).unwrap_or_else(|| self.keeper())
    }

    /// The newest keys that it knows: of the genesis, unless it carries or follows a later epoch.
    pub fn keys(&self) -> &EpochKeys {
        &self.keys
    }

    /// The same that goes on with the keys which these links lead to. The file that it is written as stays what it was.
    pub fn following(self, links: &[EpochLink]) -> Result<Self, EpochError> {
        let keys = key_epoch::follow(&self.keys, &LogVerifier::of(&self.genesis), links)?;
        Ok(Self { keys, ..self })
    }

    /// What a keeper of this vault must prove.
    pub fn keeper_rule(&self) -> &KeeperRule {
        self.policy().keeper()
    }

    /// What the keeper's evidence is verified under.
    pub fn trust_anchors(&self) -> &TrustAnchors {
        self.policy().trust_anchors()
    }
}

fn is_address(host: &str) -> bool {
    // `unix:/path` is for an agent on the host's own machine.
    let schemes = ["http://", "https://", "unix:/"];
    let authority = schemes.iter().find_map(|scheme| host.strip_prefix(scheme));
    host.len() <= HOST_BYTES_MAX
        && authority.is_some_and(|rest| !rest.is_empty() && rest.bytes().all(|byte| byte.is_ascii_graphic()))
}

/// Why bytes are not a vault file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum VaultFileError {
    /// Longer than 512 KiB.
    TooLong {
        /// How long.
        bytes: usize,
    },
    /// Not a JSON object with exactly the fields of a vault file.
    Malformed(JsonError),
    /// `v` is neither 1 nor 2.
    UnknownVersion {
        /// What it is.
        found: u64,
    },
    /// The genesis.
    Genesis(GenesisError),
    /// The id is not that of the genesis.
    IdMismatch {
        /// In the file.
        named: Sha256Digest,
        /// Of the genesis.
        genesis: Sha256Digest,
    },
    /// Version 1 with policies, or version 2 without.
    PoliciesMisplaced,
    /// The entries do not make a policy out of the first one.
    Policies(FoldError),
    /// No host, or more than 16.
    HostCount {
        /// How many.
        count: usize,
    },
    /// A host that is not `http://…` or `https://…`, or is longer than 256 bytes.
    HostMalformed {
        /// Which, from 0.
        index: usize,
    },
}

impl VaultFileError {
    /// Stable code.
    pub fn code(&self) -> &'static str {
        match self {
            Self::TooLong { .. } => "vault-file-too-long",
            Self::Malformed(_) => "vault-file-malformed",
            Self::UnknownVersion { .. } => "vault-file-version-unknown",
            Self::Genesis(error) => error.code(),
            Self::IdMismatch { .. } => "vault-id-mismatch",
            Self::PoliciesMisplaced => "vault-file-policies-misplaced",
            Self::Policies(error) => error.code(),
            Self::HostCount { .. } => "vault-file-host-count",
            Self::HostMalformed { .. } => "vault-file-host-malformed",
        }
    }
}

impl fmt::Display for VaultFileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooLong { bytes } => write!(f, "a vault file of {bytes} bytes is longer than 512 KiB"),
            Self::Malformed(error) => write!(f, "not a vault file: {error}"),
            Self::UnknownVersion { found } => {
                write!(f, "vault file version {found} is unknown; this program knows 1 and 2")
            }
            Self::Genesis(error) => write!(f, "the genesis in the vault file: {error}"),
            Self::IdMismatch { named, genesis } => {
                write!(f, "the vault file names vault {named}, but its genesis is that of {genesis}")
            }
            Self::PoliciesMisplaced => f.write_str("a vault file of version 2 has later policies, and no other has"),
            Self::Policies(error) => write!(f, "the later policies in the vault file: {error}"),
            Self::HostCount { count } => write!(f, "{count} hosts; a vault file names 1 to {HOSTS_MAX}"),
            Self::HostMalformed { index } => write!(f, "host {index} is not an address such as http://vault:7070"),
        }
    }
}

impl std::error::Error for VaultFileError {}
