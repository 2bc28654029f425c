//! Which database, and where the units are.

use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;

use serde::Deserialize;
use tokio_postgres::config::Host;

use crate::store::objects::{BucketConfig, BucketError, RawS3};

const SCHEMA_DEFAULT: &str = "weightvault";
/// Longest name in Postgres.
const NAME_BYTES_MAX: usize = 63;

/// A database, checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PostgresConfig {
    /// Hosts, ports, database and user. There is no password in it.
    pub(super) server: tokio_postgres::Config,
    /// The schema that has the tables.
    pub schema: String,
    /// Whether to ask for TLS: always, unless every host is a socket or an address of this machine, or somebody said
    /// `insecure_plaintext`.
    pub tls: bool,
    /// PEM of the authorities of the server's certificate; else those of the system.
    pub ca: Option<PathBuf>,
    /// A file in the form of `~/.pgpass`; else the environment has the password, if there is one.
    pub passfile: Option<PathBuf>,
    /// Where sealed units are.
    pub units: UnitsConfig,
}

/// Where the sealed units of a store in a database are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum UnitsConfig {
    /// In a directory that all hosts of the database have.
    Directory(PathBuf),
    /// In a bucket.
    Bucket(BucketConfig),
}

/// `[postgres]` as it is written.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct RawPostgres {
    schema: Option<String>,
    ca: Option<PathBuf>,
    passfile: Option<PathBuf>,
    #[serde(default)]
    insecure_plaintext: bool,
}

/// Why a database can't be used as it is configured.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PostgresError {
    /// The URL is not one of a database, or has more in it.
    Url,
    /// The URL has a password in it.
    Password,
    /// The schema is no plain name.
    Schema,
    /// It is not said where units go, or not a place for them.
    Units,
    /// Units go to a bucket that can't be used.
    Bucket(BucketError),
    /// The file of authorities has none.
    Authority(PathBuf),
    /// The file of passwords can't be used.
    Passfile {
        /// Which.
        path: PathBuf,
        /// Why.
        reason: String,
    },
}

impl PostgresError {
    /// Stable name of the reason.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::Url => "config-postgres-url",
            Self::Password => "config-postgres-password",
            Self::Schema => "config-postgres-schema",
            Self::Units => "config-units",
            Self::Bucket(error) => error.code(),
            Self::Authority(_) => "postgres-authority",
            Self::Passfile { .. } => "postgres-passfile",
        }
    }
}

impl fmt::Display for PostgresError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Url => f.write_str(
                "store: write postgres://USER@HOST:PORT/DATABASE, or postgres://USER@/DATABASE?host=/DIRECTORY for a \
                 socket; several hosts have commas between them, and everything else is in [postgres]",
            ),
            Self::Password => f.write_str(
                "store: take the password out of the URL: set PGPASSWORD, or name a file with \
                 HOST:PORT:DATABASE:USER:PASSWORD as postgres.passfile",
            ),
            Self::Schema => f.write_str("postgres.schema: write a name of a-z, 0-9 and _"),
            Self::Units => f.write_str(
                "units: a database does not take sealed units; write units = \"s3://BUCKET/PREFIX\", or \"/DIRECTORY\" \
                 that every host of this database has",
            ),
            Self::Bucket(error) => write!(f, "units: {error}"),
            Self::Authority(path) => write!(f, "postgres.ca: {} has no certificate in PEM", path.display()),
            Self::Passfile { path, reason } => write!(f, "postgres.passfile: {}: {reason}", path.display()),
        }
    }
}

impl std::error::Error for PostgresError {}

impl PostgresConfig {
    /// As statements have it: it may be a word of the language.
    pub(super) fn quoted_schema(&self) -> String {
        format!("\"{}\"", self.schema)
    }

    /// Whether this is the URL of a database at all.
    pub(crate) fn is_url(store: &str) -> bool {
        store.starts_with("postgres://") || store.starts_with("postgresql://")
    }

    pub(crate) fn parse(
        url: &str,
        postgres: RawPostgres,
        units: Option<&str>,
        s3: Option<RawS3>,
    ) -> Result<Self, PostgresError> {
        let server = parse_server(url)?;
        let RawPostgres { schema, ca, passfile, insecure_plaintext } = postgres;
        let schema = schema.unwrap_or_else(|| SCHEMA_DEFAULT.to_owned());
        let of_a_name = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_';
        let begins = schema.bytes().next().is_some_and(|byte| !byte.is_ascii_digit());
        if !begins || !schema.bytes().all(of_a_name) || schema.len() > NAME_BYTES_MAX {
            return Err(PostgresError::Schema);
        }
        let units = match (units, s3) {
            (Some(url), s3) if url.starts_with("s3://") => {
                UnitsConfig::Bucket(BucketConfig::parse(url, s3.unwrap_or_default()).map_err(PostgresError::Bucket)?)
            }
            (Some(dir), None) if dir.starts_with('/') => UnitsConfig::Directory(dir.into()),
            _ => return Err(PostgresError::Units),
        };
        let here = server.get_hosts().iter().all(|host| match host {
            Host::Tcp(name) => name == "localhost" || name.parse().is_ok_and(|ip: IpAddr| ip.is_loopback()),
            Host::Unix(_) => true,
        });
        let sockets = server.get_hosts().iter().all(|host| matches!(host, Host::Unix(_)));
        // On this machine an authority is what asks for TLS.
        let tls = !sockets && (ca.is_some() || !here) && !insecure_plaintext;
        Ok(Self { server, schema, tls, ca, passfile, units })
    }
}

fn parse_server(url: &str) -> Result<tokio_postgres::Config, PostgresError> {
    let settings = url.split_once('?').map_or("", |(_, settings)| settings);
    if settings.split('&').any(|setting| setting.starts_with("password=")) {
        return Err(PostgresError::Password);
    }
    if !settings.is_empty() && settings.split('&').any(|setting| !setting.starts_with("host=")) {
        return Err(PostgresError::Url);
    }
    let server: tokio_postgres::Config = url.parse().map_err(|_| PostgresError::Url)?;
    if server.get_password().is_some() {
        return Err(PostgresError::Password);
    }
    let sockets = server.get_hosts().iter().filter(|host| matches!(host, Host::Unix(_))).count();
    let hosts = server.get_hosts().len();
    if hosts == 0 || ![0, hosts].contains(&sockets) || server.get_dbname().is_none() || server.get_user().is_none() {
        return Err(PostgresError::Url);
    }
    Ok(server)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(url: &str, postgres: &str) -> Result<PostgresConfig, PostgresError> {
        PostgresConfig::parse(url, toml::from_str(postgres).unwrap(), Some("/srv/units"), None)
    }

    const URL: &str = "postgres://host@db.example:5432/vaults";

    #[test]
    fn what_leaves_this_machine_goes_over_tls() {
        let tls = |url: &str, postgres: &str| parse(url, postgres).unwrap().tls;
        for far in [URL, "postgres://host@10.0.0.7/vaults", "postgres://host@localhost,db.example/vaults"] {
            assert!(tls(far, ""), "{far}");
            assert!(!tls(far, "insecure_plaintext = true"), "{far}");
        }
        let socket = "postgres://host@/vaults?host=/run/postgresql";
        for here in ["postgres://host@127.0.0.1/vaults", "postgresql://host@[::1]:5433/vaults", socket] {
            assert!(!tls(here, ""), "{here}");
        }
        assert!(tls("postgres://host@localhost/vaults", "ca = \"/ca.pem\""));
        assert!(!tls(socket, "ca = \"/ca.pem\""), "a socket has none");
    }

    #[test]
    fn other_urls_are_refused_and_a_password_above_all_and_is_not_shown() {
        let wrong = [
            "postgres://host@db.example",
            "postgres://db.example/vaults",
            "postgres://host@/vaults",
            "postgres://host@db.example/vaults?sslmode=disable",
            "postgres://host@db.example/vaults?host=/run&options=-c",
            "postgres://host@db.example,%2Frun/vaults",
            "postgres://host@db.example:x/vaults",
        ];
        for url in wrong {
            assert_eq!(parse(url, "").unwrap_err(), PostgresError::Url, "{url}");
        }
        for url in ["postgres://host:hunter2@db.example/vaults", "postgres://host@db/vaults?password=hunter2"] {
            let refused = parse(url, "").unwrap_err();
            assert_eq!(refused, PostgresError::Password, "{url}");
            assert!(!refused.to_string().contains("hunter2"));
        }
        assert!(!format!("{:?}", parse(URL, "").unwrap()).contains("hunter2"));
    }

    #[test]
    fn a_schema_is_a_plain_name() {
        assert_eq!(parse(URL, "").unwrap().schema, "weightvault");
        assert_eq!(parse(URL, "schema = \"prod_eu\"").unwrap().schema, "prod_eu");
        let long = "x".repeat(64);
        for name in ["", "Prod", "1st", "a-b", "a\\\"b", "a;b", &long] {
            let refused = parse(URL, &format!("schema = \"{name}\"")).unwrap_err();
            assert_eq!(refused, PostgresError::Schema, "{name}");
        }
    }

    #[test]
    fn units_have_a_place_of_their_own() {
        let units = |units, s3: &str| {
            let s3 = (!s3.is_empty()).then(|| toml::from_str(s3).unwrap());
            PostgresConfig::parse(URL, RawPostgres::default(), units, s3).map(|config| config.units)
        };
        assert_eq!(units(Some("/srv/units"), "").unwrap(), UnitsConfig::Directory("/srv/units".into()));
        let bucket = units(Some("s3://vaults/units"), "region = \"eu-west-1\"").unwrap();
        assert!(matches!(bucket, UnitsConfig::Bucket(bucket) if bucket.region == "eu-west-1"));
        for (wrong, s3) in [(None, ""), (Some("units"), ""), (Some("/srv/units"), "region = \"eu-west-1\"")] {
            assert_eq!(units(wrong, s3).unwrap_err().code(), "config-units", "{wrong:?}");
        }
        assert_eq!(units(Some("s3://"), "").unwrap_err().code(), "config-store");
    }
}
