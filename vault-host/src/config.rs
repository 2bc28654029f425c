//! The one configuration file. [`CONFIG_TEMPLATE`] has every key, and what it is for.

mod advertise;
mod error;
mod store;
mod witnesses;

use std::collections::BTreeMap;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use serde::Deserialize;

pub(crate) use advertise::{ADDRESS_BYTES_MAX, is_address};
pub use error::ConfigError;
pub use store::StoreConfig;
pub use witnesses::Witness;

use crate::link::KeeperAddress;
use crate::store::{RawPostgres, RawS3};

/// A configuration to start from: the keys that every host needs, and all others behind a `#`.
pub const CONFIG_TEMPLATE: &str = include_str!("config/template.toml");

/// Checked settings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Where everything is stored.
    pub data_dir: PathBuf,
    /// What has log, blobs and models in the place of the data directory, where that keeps the journal alone.
    pub store: StoreConfig,
    /// How others reach this host, for what the other hosts of the store say.
    pub advertise: Option<String>,
    /// Where the keepers of the vault listen: one, or several that share its log.
    pub keepers: Vec<KeeperAddress>,
    /// Certificates for keepers at `https`, and for no other.
    pub keeper_tls: Option<KeeperTls>,
    /// TCP address to listen on.
    pub listen: Option<SocketAddr>,
    /// TCP address for provisioning calls; where it is set, they are refused on `listen`.
    pub provision_listen: Option<SocketAddr>,
    /// Where the witnesses of the vault are, by name.
    pub witnesses: BTreeMap<String, Witness>,
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

/// PEM files for dialling the keeper over TLS, read when the host starts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeeperTls {
    /// The authority of the keeper's certificate. No other is asked.
    pub ca: PathBuf,
    /// The certificate that this host shows, for a keeper that asks for one.
    pub identity: Option<Tls>,
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

/// What is written, before any of it is checked.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawConfig {
    data_dir: PathBuf,
    store: Option<String>,
    units: Option<String>,
    s3: Option<RawS3>,
    postgres: Option<RawPostgres>,
    advertise: Option<String>,
    keeper: String,
    #[serde(default)]
    other_keepers: Vec<String>,
    listen: Option<SocketAddr>,
    provision_listen: Option<SocketAddr>,
    unix: Option<PathBuf>,
    tls: Option<Tls>,
    keeper_tls: Option<RawKeeperTls>,
    #[serde(default)]
    insecure_plaintext_listener: bool,
    #[serde(default)]
    insecure_plaintext_keeper: bool,
    #[serde(default = "default_keep_free_mib")]
    keep_free_mib: u32,
    #[serde(default)]
    witnesses: BTreeMap<String, witnesses::RawWitness>,
    #[serde(default)]
    limits: Limits,
    #[serde(default)]
    log_format: LogFormat,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawKeeperTls {
    ca: PathBuf,
    cert: Option<PathBuf>,
    key: Option<PathBuf>,
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
        let keepers = std::iter::once(&raw.keeper).chain(&raw.other_keepers).map(|keeper| keeper.parse());
        let keepers: Vec<KeeperAddress> = keepers.collect::<Result<_, _>>().map_err(ConfigError::KeeperAddress)?;
        for (index, keeper) in keepers.iter().enumerate() {
            if let KeeperAddress::Tcp(address) = keeper
                && !address.ip().is_loopback()
                && !raw.insecure_plaintext_keeper
            {
                return Err(ConfigError::PlaintextKeeper(*address));
            }
            if keepers[..index].contains(keeper) {
                return Err(ConfigError::KeeperRepeated(keeper.clone()));
            }
        }
        let RawConfig { store, units, s3, postgres, .. } = raw;
        let store = StoreConfig::checked(store::RawStore { store, units, s3, postgres })?;
        let advertise = advertise::checked(raw.advertise, store.is_shared())?;
        let keeper_tls = keeper_tls(&keepers, raw.keeper_tls)?;
        let witnesses = witnesses::checked(raw.witnesses)?;
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
        let identities = raw.tls.iter().chain(keeper_tls.iter().filter_map(|tls| tls.identity.as_ref()));
        let tls_paths = identities.flat_map(|tls| [&tls.cert, &tls.key]).chain(keeper_tls.iter().map(|tls| &tls.ca));
        let tls_paths = tls_paths.chain(witnesses.values().filter_map(|witness| witness.ca.as_ref()));
        if let Some(path) = paths.chain(tls_paths).chain(store.paths()).find(|path| !path.is_absolute()) {
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
            store,
            advertise,
            keepers,
            keeper_tls,
            listen: raw.listen,
            provision_listen: raw.provision_listen,
            unix: raw.unix,
            tls: raw.tls,
            keep_free: u64::from(raw.keep_free_mib) << 20,
            witnesses,
            limits: raw.limits,
            log_format: raw.log_format,
        })
    }
}

/// Settings that would not be used, or without which nothing could be dialled, are refused: else TLS that somebody asked for
/// might not be there.
fn keeper_tls(keepers: &[KeeperAddress], raw: Option<RawKeeperTls>) -> Result<Option<KeeperTls>, ConfigError> {
    let any = keepers.iter().any(|keeper| matches!(keeper, KeeperAddress::Tls { .. }));
    match (any, raw) {
        (true, None) => Err(ConfigError::KeeperTls("an https keeper needs ca, the file of its certificate authority")),
        (true, Some(RawKeeperTls { ca, cert, key })) => {
            let identity = match (cert, key) {
                (Some(cert), Some(key)) => Some(Tls { cert, key }),
                (None, None) => None,
                (Some(_), None) | (None, Some(_)) => {
                    return Err(ConfigError::KeeperTls("set cert and key, both or none"));
                }
            };
            Ok(Some(KeeperTls { ca, identity }))
        }
        (false, Some(_)) => Err(ConfigError::KeeperTls("it is for a keeper at https://HOST:PORT, and this one is not")),
        (false, None) => Ok(None),
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
    fn several_keepers_have_an_address_each_and_tls_where_one_needs_it() {
        let keeper = "keeper = \"unix:/run/weightvault/keeper.sock\"\n";
        let with = |others: &str| format!("{keeper}other_keepers = [{others}]\n");
        let config =
            Config::parse(&GOOD.replace(keeper, &with("\"unix:/run/2.sock\", \"tcp:127.0.0.1:7701\""))).unwrap();
        assert_eq!(config.keepers.len(), 3);
        let again = refused(keeper, &with("\"unix:/run/weightvault/keeper.sock\""));
        assert_eq!(again.code(), "config-keeper-repeated");
        assert_eq!(refused(keeper, &with("\"https://keeper.example:7701\"")).code(), "config-keeper-tls");
        assert_eq!(refused(keeper, &with("\"tcp:10.0.0.7:7701\"")).code(), "config-plaintext-keeper");
        assert_eq!(refused(keeper, &with("\"keeper\"")).code(), "config-keeper");
    }

    #[test]
    fn three_lines_are_enough() {
        let config = Config::parse(GOOD).unwrap();
        assert_eq!(config.listen, Some("127.0.0.1:7440".parse().unwrap()));
        assert_eq!(config.limits, Limits::default());
        assert_eq!(config.tls, None);
        assert_eq!(config.keep_free, 1 << 30);
    }

    /// The template with the `#` off every key and every section.
    fn template_with_every_key() -> String {
        let begins_one = |first: char| first == '[' || first.is_ascii_lowercase();
        let taken_off = |line: &'static str| line.strip_prefix('#').filter(|rest| rest.starts_with(begins_one));
        CONFIG_TEMPLATE.lines().map(|line| format!("{}\n", taken_off(line).unwrap_or(line))).collect()
    }

    #[test]
    fn the_template_is_taken_as_it_is_printed() {
        let config = Config::parse(CONFIG_TEMPLATE).unwrap();
        assert_eq!((config.limits, config.keep_free, config.tls), (Limits::default(), 1 << 30, None));
        assert_eq!(config.store, StoreConfig::DataDir);
    }

    #[test]
    fn the_template_is_taken_with_every_key_and_shows_the_defaults() {
        let config = Config::parse(&template_with_every_key()).unwrap();
        assert_eq!((config.limits, config.keep_free, config.log_format), (Limits::default(), 1 << 30, LogFormat::Text));
        assert_eq!(config.keepers.len(), 2);
        assert_eq!(config.provision_listen, Some("127.0.0.1:7441".parse().unwrap()));
        assert_eq!(config.witnesses["witness.example/1"].url.to_string(), "https://witness.example:443/1");
        assert!(matches!(config.store, StoreConfig::Postgres(_)));
        assert!(config.tls.is_some() && config.keeper_tls.is_some_and(|tls| tls.identity.is_some()));
    }

    /// What a refusal of an unknown key names is every key that there is.
    #[test]
    fn the_template_leaves_no_key_out() {
        let template = template_with_every_key();
        let sections =
            ["", "[tls]", "[keeper_tls]", "[s3]", "[postgres]", "[witnesses.\"witness.example/1\"]", "[limits]"];
        let mut known = 0;
        for section in sections {
            let error = refused("", &format!("{section}\nno_such_key = 1")).to_string();
            let (_, expected) = error.split_once("expected").unwrap();
            let body = match section {
                "" => template.as_str(),
                _ => template.split_once(&format!("\n{section}\n")).unwrap().1.split("\n[").next().unwrap(),
            };
            for key in expected.split('`').skip(1).step_by(2) {
                let has = |line: &str| line.starts_with(&format!("{key} = ")) || line.starts_with(&format!("[{key}"));
                assert!(body.lines().any(has), "{section} {key}");
                known += 1;
            }
        }
        assert!(known > 30, "{known} keys");
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
    fn a_keeper_over_tls_needs_an_authority_and_no_other_keeper_has_one() {
        let tls = GOOD.replace("unix:/run/weightvault/keeper.sock", "https://keeper.example:7701");
        let parse = |more: &str| Config::parse(&format!("{tls}\n{more}"));
        let code = |more: &str| parse(more).unwrap_err().code();
        let ca = "[keeper_tls]\nca = \"/ca\"\n";
        let keeper = |identity| Some(KeeperTls { ca: "/ca".into(), identity });
        assert_eq!(parse(ca).unwrap().keeper_tls, keeper(None));
        let mutual = parse(&format!("{ca}cert = \"/c\"\nkey = \"/k\"")).unwrap();
        assert_eq!(mutual.keeper_tls, keeper(Some(Tls { cert: "/c".into(), key: "/k".into() })));
        for wrong in ["", &format!("{ca}cert = \"/c\""), &format!("{ca}key = \"/k\"")] {
            assert_eq!(code(wrong), "config-keeper-tls", "{wrong}");
        }
        assert_eq!(code("[keeper_tls]\nca = \"ca\""), "config-relative-path");
        assert_eq!(code(&format!("{ca}cert = \"c\"\nkey = \"/k\"")), "config-relative-path");
        assert_eq!(refused("", ca).code(), "config-keeper-tls");
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
        assert_eq!(refused("", "[witnesses.w]\nurl = \"w.example\"").code(), "config-witness");
        assert_eq!(refused("", "[witnesses.w]\nurl = \"http://w.example\"\nca = \"/ca\"").code(), "config-witness");
        let ca = "[witnesses.w]\nurl = \"https://w.example\"\nca = \"ca\"";
        assert_eq!(refused("", ca).code(), "config-relative-path");
        let many: String = (0..17).map(|n| format!("[witnesses.w{n}]\nurl = \"http://w.example\"\n")).collect();
        assert_eq!(refused("", &many).code(), "config-witness");
        assert_eq!(Config::read(Path::new("/nonexistent")).unwrap_err().code(), "config-unreadable");
    }
}
