//! The vault file (FORMAT.md §4): all that an agent must know of a vault beforehand. It proves itself: the id is the
//! digest of the genesis that it carries, and the genesis names the keys and the keeper's rules.

use std::fmt;

use attestation::{HpkePublicKey, IdentityKey, LogKey, Sha256Digest, TrustAnchors};
use serde::{Deserialize, Serialize};

use crate::entry::field;
use crate::genesis::{Genesis, GenesisError};
use crate::json::{self, JsonError};
use crate::policy::{KeeperRule, Policy};

/// Longest vault file, in bytes.
pub const VAULT_FILE_BYTES_MAX: usize = 32 << 10;
/// The most hosts that it names.
pub const HOSTS_MAX: usize = 16;
/// Longest address of a host, in bytes.
pub const HOST_BYTES_MAX: usize = 256;

const VAULT_FILE_VERSION: u64 = 1;

/// A vault, as an agent is given it.
#[derive(Debug, Clone)]
pub struct VaultFile {
    genesis: Genesis,
    hosts: Vec<String>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct VaultFileFields {
    v: u64,
    vault: Sha256Digest,
    #[serde(with = "field::base64")]
    genesis: Vec<u8>,
    hosts: Vec<String>,
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
        Ok(Self { genesis, hosts })
    }

    /// Reads a vault file of at most 32 KiB.
    pub fn parse(bytes: &[u8]) -> Result<Self, VaultFileError> {
        if bytes.len() > VAULT_FILE_BYTES_MAX {
            return Err(VaultFileError::TooLong { bytes: bytes.len() });
        }
        let fields: VaultFileFields = json::parse_object(bytes).map_err(VaultFileError::Malformed)?;
        if fields.v != VAULT_FILE_VERSION {
            return Err(VaultFileError::UnknownVersion { found: fields.v });
        }
        let genesis = Genesis::parse(&fields.genesis).map_err(VaultFileError::Genesis)?;
        if genesis.vault_id() != fields.vault {
            return Err(VaultFileError::IdMismatch { named: fields.vault, genesis: genesis.vault_id() });
        }
        Self::new(genesis, fields.hosts)
    }

    /// The file, with a newline at its end.
    pub fn encode(&self) -> Vec<u8> {
        let fields = VaultFileFields {
            v: VAULT_FILE_VERSION,
            vault: self.id(),
            genesis: self.genesis.bytes().to_vec(),
            hosts: self.hosts.clone(),
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
        &self.genesis.keeper().identity_key
    }

    /// Signs checkpoints.
    pub fn log_key(&self) -> &LogKey {
        &self.genesis.keeper().log_key
    }

    /// DEKs are wrapped to it.
    pub fn wrap_key(&self) -> &HpkePublicKey {
        &self.genesis.keeper().wrap_key
    }

    /// The first policy.
    pub fn policy(&self) -> &Policy {
        self.genesis.policy()
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
    /// Longer than 32 KiB.
    TooLong {
        /// How long.
        bytes: usize,
    },
    /// Not a JSON object with exactly the fields of a vault file.
    Malformed(JsonError),
    /// `v` is not 1.
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
            Self::HostCount { .. } => "vault-file-host-count",
            Self::HostMalformed { .. } => "vault-file-host-malformed",
        }
    }
}

impl fmt::Display for VaultFileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooLong { bytes } => write!(f, "a vault file of {bytes} bytes is longer than 32 KiB"),
            Self::Malformed(error) => write!(f, "not a vault file: {error}"),
            Self::UnknownVersion { found } => write!(f, "vault file version {found} is unknown; this program knows 1"),
            Self::Genesis(error) => write!(f, "the genesis in the vault file: {error}"),
            Self::IdMismatch { named, genesis } => {
                write!(f, "the vault file names vault {named}, but its genesis is that of {genesis}")
            }
            Self::HostCount { count } => write!(f, "{count} hosts; a vault file names 1 to {HOSTS_MAX}"),
            Self::HostMalformed { index } => write!(f, "host {index} is not an address such as http://vault:7070"),
        }
    }
}

impl std::error::Error for VaultFileError {}
