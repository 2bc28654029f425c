//! Why a configuration is refused, and what to write instead.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;

use crate::link::KeeperAddress;
use crate::store::{BucketError, PostgresError};

/// Why a configuration is refused.
#[derive(Debug)]
pub enum ConfigError {
    /// The file can't be read.
    Unreadable {
        /// Which.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// The file is not TOML of the right form.
    Form(Box<toml::de::Error>),
    /// The keeper's address is not one.
    KeeperAddress(&'static str),
    /// Two keepers have one address.
    KeeperRepeated(KeeperAddress),
    /// Neither `listen` nor `unix` is set.
    NoListener,
    /// A path is not absolute.
    RelativePath(PathBuf),
    /// A TCP listener beyond this machine has no TLS.
    PlaintextListener(SocketAddr),
    /// A keeper beyond this machine would be dialled without TLS.
    PlaintextKeeper(SocketAddr),
    /// `[keeper_tls]` does not fit the keeper's address, or has half of a certificate and its key.
    KeeperTls(&'static str),
    /// A witness's address is none, or it has a file that nobody would read.
    Witness {
        /// Its name.
        name: String,
        /// What to write.
        hint: &'static str,
    },
    /// `provision_listen` is set without `listen`, or is the same.
    ProvisionListener,
    /// `advertise` is no address, or nobody would read it.
    Advertise(&'static str),
    /// The bucket.
    Bucket(BucketError),
    /// The database.
    Postgres(PostgresError),
    /// `[postgres]` or `units` without a store there.
    PostgresWithoutStore,
    /// `[s3]` without a store there.
    S3WithoutStore,
    /// A limit of zero would refuse everything.
    ZeroLimit,
}

impl ConfigError {
    /// Stable name of the reason.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::Unreadable { .. } => "config-unreadable",
            Self::Form(_) => "config-form",
            Self::KeeperAddress(_) => "config-keeper",
            Self::KeeperRepeated(_) => "config-keeper-repeated",
            Self::NoListener => "config-no-listener",
            Self::RelativePath(_) => "config-relative-path",
            Self::PlaintextListener(_) => "config-plaintext-listener",
            Self::PlaintextKeeper(_) => "config-plaintext-keeper",
            Self::KeeperTls(_) => "config-keeper-tls",
            Self::Witness { .. } => "config-witness",
            Self::ProvisionListener => "config-provision-listener",
            Self::Advertise(_) => "config-advertise",
            Self::Bucket(error) => error.code(),
            Self::Postgres(error) => error.code(),
            Self::PostgresWithoutStore => "config-postgres-without-store",
            Self::S3WithoutStore => "config-s3-without-store",
            Self::ZeroLimit => "config-zero-limit",
        }
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreadable { path, source } => write!(f, "can't read {}: {source}", path.display()),
            Self::Form(error) => error.fmt(f),
            Self::KeeperAddress(hint) => write!(f, "keeper: {hint}"),
            Self::KeeperRepeated(address) => write!(f, "other_keepers: {address} is named twice"),
            Self::NoListener => {
                f.write_str("set listen = \"IP:PORT\" or unix = \"/path\": nobody could reach this host")
            }
            Self::RelativePath(path) => write!(f, "{}: write an absolute path", path.display()),
            Self::PlaintextListener(address) => write!(
                f,
                "{address} can be reached from other machines: set tls = {{ cert = \"…\", key = \"…\" }}, \
                 or insecure_plaintext_listener = true if something in front of it does TLS"
            ),
            Self::PlaintextKeeper(address) => write!(
                f,
                "the keeper at {address} is on another machine: start it with --tls-cert and --tls-key and write \
                 keeper = \"https://HOST:PORT\" with [keeper_tls], or set insecure_plaintext_keeper = true if \
                 something else protects the way"
            ),
            Self::KeeperTls(hint) => write!(f, "keeper_tls: {hint}"),
            Self::Witness { name, hint } => write!(f, "witnesses.\"{name}\": {hint}"),
            Self::ProvisionListener => {
                f.write_str("provision_listen is a second address beside listen: set both, and not the same")
            }
            Self::Advertise(hint) => write!(f, "advertise: {hint}"),
            Self::Bucket(error) => write!(f, "store: {error}"),
            Self::Postgres(error) => error.fmt(f),
            Self::PostgresWithoutStore => f.write_str(
                "postgres, units: they are for store = \"postgres://USER@HOST:PORT/DATABASE\", which is not set",
            ),
            Self::S3WithoutStore => {
                f.write_str("s3: it is for store or units = \"s3://BUCKET/PREFIX\", which is not set")
            }
            Self::ZeroLimit => f.write_str("a limit of 0 refuses everything: write at least 1"),
        }
    }
}

impl std::error::Error for ConfigError {}
