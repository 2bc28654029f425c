//! Where everything is that outlives a host.

use std::path::PathBuf;

use super::ConfigError;
use crate::store::{BucketConfig, PostgresConfig, RawPostgres, RawS3, UnitsConfig};

/// Where everything is that outlives a host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StoreConfig {
    /// In its data directory.
    DataDir,
    /// In a bucket, for any number of hosts; the data directory keeps the journal alone.
    Bucket(BucketConfig),
    /// In a database, for any number of hosts, with sealed units beside it.
    Postgres(Box<PostgresConfig>),
}

/// What of a configuration says it, as it is written.
pub(super) struct RawStore {
    pub(super) store: Option<String>,
    pub(super) units: Option<String>,
    pub(super) s3: Option<RawS3>,
    pub(super) postgres: Option<RawPostgres>,
}

impl StoreConfig {
    pub(super) fn checked(raw: RawStore) -> Result<Self, ConfigError> {
        let RawStore { store, units, s3, postgres } = raw;
        let url = store.as_deref();
        if let Some(url) = url.filter(|url| PostgresConfig::is_url(url)) {
            let in_bucket = units.as_deref().is_some_and(|units| units.starts_with("s3://"));
            if s3.is_some() && !in_bucket {
                return Err(ConfigError::S3WithoutStore);
            }
            let config = PostgresConfig::parse(url, postgres.unwrap_or_default(), units.as_deref(), s3);
            return config.map(|config| Self::Postgres(Box::new(config))).map_err(ConfigError::Postgres);
        }
        if postgres.is_some() || units.is_some() {
            return Err(ConfigError::PostgresWithoutStore);
        }
        match (url, s3) {
            (Some(url), s3) => {
                BucketConfig::parse(url, s3.unwrap_or_default()).map(Self::Bucket).map_err(ConfigError::Bucket)
            }
            (None, Some(_)) => Err(ConfigError::S3WithoutStore),
            (None, None) => Ok(Self::DataDir),
        }
    }

    /// Whether several hosts can have it.
    pub(crate) fn is_shared(&self) -> bool {
        *self != Self::DataDir
    }

    /// Files and directories that it names.
    pub(super) fn paths(&self) -> Vec<&PathBuf> {
        match self {
            Self::DataDir => Vec::new(),
            Self::Bucket(bucket) => bucket.paths(),
            Self::Postgres(postgres) => {
                let units = match &postgres.units {
                    UnitsConfig::Directory(dir) => vec![dir],
                    UnitsConfig::Bucket(bucket) => bucket.paths(),
                };
                [&postgres.ca, &postgres.passfile].into_iter().flatten().chain(units).collect()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Config;

    const GOOD: &str = "data_dir = \"/d\"\nkeeper = \"unix:/k\"\nunix = \"/h\"\n";
    const DATABASE: &str = "store = \"postgres://host@db.example/vaults\"\n";

    fn parse(more: &str) -> Result<StoreConfig, &'static str> {
        Config::parse(&format!("{GOOD}{more}")).map(|config| config.store).map_err(|error| error.code())
    }

    #[test]
    fn a_store_is_in_the_data_directory_a_bucket_or_a_database() {
        assert_eq!(parse(""), Ok(StoreConfig::DataDir));
        assert!(matches!(parse("store = \"s3://vaults/prod\""), Ok(StoreConfig::Bucket(_))));
        let postgres = parse(&format!("{DATABASE}units = \"/srv/units\"\n[postgres]\nschema = \"prod\"")).unwrap();
        assert!(matches!(&postgres, StoreConfig::Postgres(config) if config.schema == "prod" && config.tls));
        let in_bucket = parse(&format!("{DATABASE}units = \"s3://units\"\n[s3]\nregion = \"eu-west-1\"")).unwrap();
        assert!(in_bucket.is_shared() && postgres.is_shared());
        parse(&format!("advertise = \"https://a.example\"\n{DATABASE}units = \"/srv/units\"")).unwrap();
    }

    #[test]
    fn what_nobody_would_read_and_what_is_missing_is_refused() {
        assert_eq!(parse("store = \"mysql://db\""), Err("config-store"));
        assert_eq!(parse(DATABASE), Err("config-units"));
        assert_eq!(parse("units = \"/srv/units\""), Err("config-postgres-without-store"));
        assert_eq!(parse("store = \"s3://vaults\"\n[postgres]\n"), Err("config-postgres-without-store"));
        assert_eq!(parse("[s3]\n"), Err("config-s3-without-store"));
        assert_eq!(parse(&format!("{DATABASE}units = \"/srv/units\"\n[s3]\n")), Err("config-s3-without-store"));
        assert_eq!(
            parse(&format!("{DATABASE}units = \"/u\"\n[postgres]\nca = \"ca.pem\"")),
            Err("config-relative-path")
        );
        assert_eq!(parse(&format!("{DATABASE}units = \"/u\"\n[postgres]\npassword = \"x\"")), Err("config-form"));
    }
}
