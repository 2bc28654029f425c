//! The one configuration file.
//!
//! ```toml
//! data_dir = "/var/lib/weightvault"
//! keeper = "unix:/run/weightvault/keeper.sock"      # or "tcp://IP:PORT"
//! listen = "127.0.0.1:7440"                         # this or unix, or both
//! unix = "/run/weightvault/host.sock"
//! provision_listen = "10.0.0.1:7441"                # optional: Provision is served here and on the unix socket only
//! insecure_plaintext_listener = false               # true: listen beyond this machine without tls
//! insecure_plaintext_keeper = false                 # true: dial a keeper beyond this machine
//! keep_free_mib = 1024                              # what uploads leave free on the disk, for the log
//! log_format = "text"                               # or "json"
//! [tls]                                             # for both TCP listeners
//! cert = "/etc/weightvault/host.pem"
//! key = "/etc/weightvault/host.key"
//! [limits]
//! connections = 2048
//! streams = 64                                      # fetches and uploads at a time
//! requests_per_second = 2000
//! requests_per_second_per_connection = 500
//! challenges_per_second_per_connection = 32         # eight times as many at once: 256 guests behind one proxy
//! ```

use std::fmt;
use std::fs;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::link::KeeperAddress;

/// Checked settings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Where everything is stored.
    pub data_dir: PathBuf,
    /// Where the keeper listens.
    pub keeper: KeeperAddress,
    /// TCP address to listen on.
    pub listen: Option<SocketAddr>,
    /// TCP address for provisioning calls; where it is set, they are refused on `listen`.
    pub provision_listen: Option<SocketAddr>,
    /// Unix socket to listen on.
    pub unix: Option<PathBuf>,
    /// Certificate and key of the TCP listeners.
    pub tls: Option<Tls>,
    /// Bytes of the disk that uploads leave free.
    pub keep_free: u64,
    /// Limits before anything is verified.
    pub limits: Limits,
    /// Form of the log lines on standard error.
    pub log_format: LogFormat,
}

/// PEM files of a TLS listener, read when the host starts.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tls {
    /// Certificate chain, the host's own first.
    pub cert: PathBuf,
    /// Its private key.
    pub key: PathBuf,
}

/// Limits that hold for everyone together or for one connection, never for a key that a stranger can mint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// Open connections.
    pub connections: u32,
    /// FetchUnits and UploadUnit streams under way.
    pub streams: u32,
    /// Requests a second, all connections together; twice as many at once.
    pub requests_per_second: u32,
    /// Requests a second on one connection; twice as many at once.
    pub requests_per_second_per_connection: u32,
    /// Challenges a second that one connection may ask for; eight times as many at once. They are asked for before anything
    /// is proved, so a stranger's are what fills the keeper's table.
    pub challenges_per_second_per_connection: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 2048,
            streams: 64,
            requests_per_second: 2000,
            requests_per_second_per_connection: 500,
            challenges_per_second_per_connection: 32,
        }
    }
}

/// Form of log lines.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

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
    /// Neither `listen` nor `unix` is set.
    NoListener,
    /// A path is not absolute.
    RelativePath(PathBuf),
    /// A TCP listener beyond this machine has no TLS.
    PlaintextListener(SocketAddr),
    /// A keeper beyond this machine would be dialled without TLS.
    PlaintextKeeper(SocketAddr),
    /// `provision_listen` is set without `listen`, or is the same.
    ProvisionListener,
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
            Self::NoListener => "config-no-listener",
            Self::RelativePath(_) => "config-relative-path",
            Self::PlaintextListener(_) => "config-plaintext-listener",
            Self::PlaintextKeeper(_) => "config-plaintext-keeper",
            Self::ProvisionListener => "config-provision-listener",
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
                "the keeper at {address} is on another machine: reach it through a tunnel on this one, \
                 or set insecure_plaintext_keeper = true if the network between is private"
            ),
            Self::ProvisionListener => {
                f.write_str("provision_listen is a second address beside listen: set both, and not the same")
            }
            Self::ZeroLimit => f.write_str("a limit of 0 refuses everything: write at least 1"),
        }
    }
}

impl std::error::Error for ConfigError {}

/// What is written, before any of it is checked.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawConfig {
    data_dir: PathBuf,
    keeper: String,
    listen: Option<SocketAddr>,
    provision_listen: Option<SocketAddr>,
    unix: Option<PathBuf>,
    tls: Option<Tls>,
    #[serde(default)]
    insecure_plaintext_listener: bool,
    #[serde(default)]
    insecure_plaintext_keeper: bool,
    #[serde(default = "default_keep_free_mib")]
    keep_free_mib: u32,
    #[serde(default)]
    limits: Limits,
    #[serde(default)]
    log_format: LogFormat,
}

impl Config {
    /// Reads and checks a file.
    ///
    /// # Errors
    /// What is wrong and what to write instead.
    pub fn read(path: &Path) -> Result<Self, ConfigError> {
        let text =
            fs::read_to_string(path).map_err(|source| ConfigError::Unreadable { path: path.to_owned(), source })?;
        Self::parse(&text)
    }

    /// Checks the text of a file.
    ///
    /// # Errors
    /// What is wrong and what to write instead.
    pub fn parse(text: &str) -> Result<Self, ConfigError> {
        let raw: RawConfig = toml::from_str(text).map_err(|error| ConfigError::Form(Box::new(error)))?;
        let keeper = raw.keeper.parse().map_err(ConfigError::KeeperAddress)?;
        if let KeeperAddress::Tcp(address) = keeper
            && !address.ip().is_loopback()
            && !raw.insecure_plaintext_keeper
        {
            return Err(ConfigError::PlaintextKeeper(address));
        }
        if raw.listen.is_none() && raw.unix.is_none() {
            return Err(ConfigError::NoListener);
        }
        if raw.provision_listen.is_some() && (raw.listen.is_none() || raw.listen == raw.provision_listen) {
            return Err(ConfigError::ProvisionListener);
        }
        let plaintext = raw.tls.is_none() && !raw.insecure_plaintext_listener;
        let beyond_this_machine = |address: &SocketAddr| !address.ip().is_loopback();
        if let Some(address) = [raw.listen, raw.provision_listen].into_iter().flatten().find(beyond_this_machine)
            && plaintext
        {
            return Err(ConfigError::PlaintextListener(address));
        }
        let paths = [Some(&raw.data_dir), raw.unix.as_ref()].into_iter().flatten();
        let tls_paths = raw.tls.iter().flat_map(|tls| [&tls.cert, &tls.key]);
        if let Some(path) = paths.chain(tls_paths).find(|path| !path.is_absolute()) {
            return Err(ConfigError::RelativePath(path.clone()));
        }
        let Limits {
            connections,
            streams,
            requests_per_second,
            requests_per_second_per_connection,
            challenges_per_second_per_connection,
        } = raw.limits;
        let rates = [requests_per_second, requests_per_second_per_connection, challenges_per_second_per_connection];
        if [connections, streams].contains(&0) || rates.contains(&0) {
            return Err(ConfigError::ZeroLimit);
        }
        Ok(Self {
            data_dir: raw.data_dir,
            keeper,
            listen: raw.listen,
            provision_listen: raw.provision_listen,
            unix: raw.unix,
            tls: raw.tls,
            keep_free: u64::from(raw.keep_free_mib) << 20,
            limits: raw.limits,
            log_format: raw.log_format,
        })
    }
}

fn default_keep_free_mib() -> u32 {
    1024
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = r#"
        data_dir = "/var/lib/weightvault"
        keeper = "unix:/run/weightvault/keeper.sock"
        listen = "127.0.0.1:7440"
    "#;

    fn refused(change: &str, to: &str) -> ConfigError {
        let text = if change.is_empty() { format!("{GOOD}\n{to}") } else { GOOD.replace(change, to) };
        Config::parse(&text).unwrap_err()
    }

    #[test]
    fn three_lines_are_enough() {
        let config = Config::parse(GOOD).unwrap();
        assert_eq!(config.listen, Some("127.0.0.1:7440".parse().unwrap()));
        assert_eq!(config.limits, Limits::default());
        assert_eq!(config.tls, None);
        assert_eq!(config.keep_free, 1 << 30);
    }

    #[test]
    fn the_example_in_the_documentation_is_taken() {
        let source = include_str!("config.rs");
        let lines = source.lines().skip_while(|line| *line != "//! ```toml").skip(1);
        let text: Vec<_> =
            lines.take_while(|line| *line != "//! ```").map(|line| line.trim_start_matches("//! ")).collect();
        let config = Config::parse(&text.join("\n")).unwrap();
        assert_eq!(config.limits, Limits::default());
        assert_eq!(config.provision_listen, Some("10.0.0.1:7441".parse().unwrap()));
    }

    #[test]
    fn an_unknown_key_is_refused() {
        assert!(matches!(refused("", "insecure = true"), ConfigError::Form(_)));
        assert!(matches!(refused("", "[limits]\nconections = 3"), ConfigError::Form(_)));
    }

    #[test]
    fn a_listener_beyond_this_machine_needs_tls_or_the_insecure_word() {
        for address in ["0.0.0.0:7440", "10.0.0.1:7440", "[::]:7440"] {
            let error = refused("127.0.0.1:7440", address);
            assert!(matches!(error, ConfigError::PlaintextListener(_)), "{error}");
        }
        let remote = GOOD.replace("127.0.0.1", "0.0.0.0");
        Config::parse(&format!("{remote}\ninsecure_plaintext_listener = true")).unwrap();
        Config::parse(&format!("{remote}\n[tls]\ncert = \"/c\"\nkey = \"/k\"")).unwrap();
        let provision = refused("", "provision_listen = \"10.0.0.1:1\"");
        assert!(matches!(provision, ConfigError::PlaintextListener(_)));
    }

    #[test]
    fn a_keeper_beyond_this_machine_needs_the_insecure_word() {
        let remote = GOOD.replace("unix:/run/weightvault/keeper.sock", "tcp://10.0.0.2:7000");
        assert!(matches!(Config::parse(&remote), Err(ConfigError::PlaintextKeeper(_))));
        Config::parse(&format!("{remote}\ninsecure_plaintext_keeper = true")).unwrap();
        Config::parse(&remote.replace("10.0.0.2", "127.0.0.1")).unwrap();
    }

    #[test]
    fn other_mistakes_are_refused_with_their_own_codes() {
        let keeper = "unix:/run/weightvault/keeper.sock";
        assert_eq!(refused(keeper, "/run/keeper.sock").code(), "config-keeper");
        assert_eq!(refused(keeper, "unix:keeper.sock").code(), "config-keeper");
        assert_eq!(refused(keeper, "tcp://localhost:7").code(), "config-keeper");
        assert_eq!(refused("listen = \"127.0.0.1:7440\"", "").code(), "config-no-listener");
        assert_eq!(refused("/var/lib/weightvault", "weightvault").code(), "config-relative-path");
        assert_eq!(refused("", "unix = \"host.sock\"").code(), "config-relative-path");
        assert_eq!(refused("", "provision_listen = \"127.0.0.1:7440\"").code(), "config-provision-listener");
        assert_eq!(refused("", "[limits]\nstreams = 0").code(), "config-zero-limit");
        assert_eq!(Config::read(Path::new("/nonexistent")).unwrap_err().code(), "config-unreadable");
    }
}
