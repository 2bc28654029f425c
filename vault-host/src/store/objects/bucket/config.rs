//! Which bucket, and who we are there.

use std::fmt;
use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use serde::Deserialize;

/// A bucket of an S3 service, checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BucketConfig {
    /// Its name.
    pub bucket: String,
    /// What the names of all objects begin with; no slash at either end.
    pub prefix: String,
    /// The service, where it is not Amazon's.
    pub endpoint: Option<String>,
    /// The region that requests are signed for.
    pub region: String,
    /// PEM of the authorities of the service's certificate; else those of the system.
    pub ca: Option<PathBuf>,
    /// A file in the form of `~/.aws/credentials`; else the environment has them.
    pub credentials: Option<PathBuf>,
}

/// `[s3]` as it is written.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct RawS3 {
    endpoint: Option<String>,
    region: Option<String>,
    ca: Option<PathBuf>,
    credentials: Option<PathBuf>,
    #[serde(default)]
    insecure_plaintext: bool,
}

/// Why a bucket can't be used as it is configured.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BucketError {
    /// The URL is not one of a bucket.
    Url,
    /// The endpoint is not a URL of a server.
    Endpoint,
    /// Requests would go to another machine in plaintext.
    Plaintext,
    /// Neither file nor environment has credentials.
    Credentials(String),
    /// The file of authorities has none.
    Authority(PathBuf),
    /// No request can carry the settings.
    Settings(String),
}

impl BucketError {
    /// Stable name of the reason.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::Url => "config-store",
            Self::Endpoint => "config-s3-endpoint",
            Self::Plaintext => "config-s3-plaintext",
            Self::Credentials(_) => "s3-credentials",
            Self::Authority(_) => "s3-authority",
            Self::Settings(_) => "s3-settings",
        }
    }
}

impl fmt::Display for BucketError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Url => {
                f.write_str("a store is s3://BUCKET, s3://BUCKET/PREFIX, or postgres://USER@HOST/DATABASE with units")
            }
            Self::Endpoint => f.write_str("s3.endpoint: write https://HOST:PORT, and no path"),
            Self::Plaintext => f.write_str(
                "s3.endpoint is on another machine and has no TLS: write https://…, or set insecure_plaintext = true \
                 if something else protects the way",
            ),
            Self::Credentials(what) => write!(
                f,
                "{what}: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or name a file with aws_access_key_id and \
                 aws_secret_access_key as s3.credentials"
            ),
            Self::Authority(path) => write!(f, "s3.ca: {} has no certificate in PEM", path.display()),
            Self::Settings(why) => write!(f, "the bucket's settings can't be used: {why}"),
        }
    }
}

impl std::error::Error for BucketError {}

impl BucketConfig {
    /// Files that it names.
    pub(crate) fn paths(&self) -> Vec<&PathBuf> {
        [&self.ca, &self.credentials].into_iter().flatten().collect()
    }

    pub(crate) fn parse(url: &str, s3: RawS3) -> Result<Self, BucketError> {
        let rest = url.strip_prefix("s3://").ok_or(BucketError::Url)?;
        let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
        let plain = |text: &str| text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".-_/".contains(&byte));
        let prefix = prefix.trim_end_matches('/');
        let steps = prefix.is_empty() || prefix.split('/').all(|step| !["", ".", ".."].contains(&step));
        if bucket.is_empty() || bucket.contains('/') || !plain(bucket) || !plain(prefix) || !steps {
            return Err(BucketError::Url);
        }
        if let Some(endpoint) = &s3.endpoint {
            let uri: hyper::Uri = endpoint.parse().map_err(|_| BucketError::Endpoint)?;
            let host = uri.host().filter(|_| ["", "/"].contains(&uri.path())).ok_or(BucketError::Endpoint)?;
            match uri.scheme_str() {
                Some("https") => {}
                Some("http") if s3.insecure_plaintext || is_here(host) => {}
                Some("http") => return Err(BucketError::Plaintext),
                _ => return Err(BucketError::Endpoint),
            }
        }
        Ok(Self {
            bucket: bucket.to_owned(),
            prefix: prefix.to_owned(),
            endpoint: s3.endpoint.map(|endpoint| endpoint.trim_end_matches('/').to_owned()),
            region: s3.region.unwrap_or_else(|| "us-east-1".to_owned()),
            ca: s3.ca,
            credentials: s3.credentials,
        })
    }
}

fn is_here(host: &str) -> bool {
    let address = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
    host == "localhost" || address.is_ok_and(|address| address.is_loopback())
}

/// Who we are: read when the store is opened, never shown.
pub(super) struct Credentials {
    pub(super) key_id: String,
    pub(super) secret: String,
    pub(super) token: Option<String>,
}

impl Credentials {
    /// Of the file where one is named, else of the environment.
    pub(super) fn read(file: Option<&Path>) -> Result<Self, BucketError> {
        let Some(path) = file else {
            return Self::of("the environment has no credentials", |name| {
                std::env::var(name.to_uppercase()).ok().filter(|value| !value.is_empty())
            });
        };
        let unreadable = |error| BucketError::Credentials(format!("s3.credentials: {}: {error}", path.display()));
        let text = fs::read_to_string(path).map_err(unreadable)?;
        Self::of(&format!("s3.credentials: {} has none under [default]", path.display()), |name| in_file(&text, name))
    }

    /// What stands in the header of each request. The client takes for granted that a header can carry it.
    pub(super) fn check(&self, region: &str) -> Result<(), BucketError> {
        let token = self.token.as_deref().unwrap_or_default();
        for (what, text) in [("s3.region", region), ("aws_access_key_id", &self.key_id), ("aws_session_token", token)] {
            if !text.bytes().all(|byte| byte.is_ascii_graphic()) {
                return Err(BucketError::Settings(format!("{what} has a character that is no part of one")));
            }
        }
        Ok(())
    }

    fn of(missing: &str, get: impl Fn(&str) -> Option<String>) -> Result<Self, BucketError> {
        let need = |name| get(name).ok_or_else(|| BucketError::Credentials(missing.to_owned()));
        Ok(Self {
            key_id: need("aws_access_key_id")?,
            secret: need("aws_secret_access_key")?,
            token: get("aws_session_token"),
        })
    }
}

/// The value of a key under `[default]`, or before any section.
fn in_file(text: &str, name: &str) -> Option<String> {
    let mut section = "default";
    text.lines().map(str::trim).find_map(|line| {
        if let Some(named) = line.strip_prefix('[').and_then(|line| line.strip_suffix(']')) {
            section = named.trim();
        }
        let (key, value) = line.split_once('=').filter(|_| section == "default")?;
        (key.trim() == name && !value.trim().is_empty()).then(|| value.trim().to_owned())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(url: &str, s3: &str) -> Result<BucketConfig, BucketError> {
        BucketConfig::parse(url, toml::from_str(s3).unwrap())
    }

    #[test]
    fn a_bucket_with_and_without_prefix() {
        let config = parse("s3://vault/prod/eu/", "endpoint = \"https://s3.example:9000/\"").unwrap();
        assert_eq!((config.bucket.as_str(), config.prefix.as_str()), ("vault", "prod/eu"));
        assert_eq!(config.endpoint.as_deref(), Some("https://s3.example:9000"));
        assert_eq!(parse("s3://vault", "").unwrap().prefix, "");
    }

    #[test]
    fn other_urls_and_plaintext_to_other_machines_are_refused() {
        for url in ["vault", "s3://", "s3:///x", "s3://vault/a//b", "s3://vault/../b", "gs://vault", "s3://va ult"] {
            assert_eq!(parse(url, "").unwrap_err(), BucketError::Url, "{url}");
        }
        let plain = "endpoint = \"http://s3.example\"";
        assert_eq!(parse("s3://vault", plain).unwrap_err(), BucketError::Plaintext);
        parse("s3://vault", &format!("{plain}\ninsecure_plaintext = true")).unwrap();
        for here in ["http://127.0.0.1:9", "http://[::1]:9", "http://localhost:9"] {
            parse("s3://vault", &format!("endpoint = \"{here}\"")).unwrap();
        }
        for endpoint in ["s3.example", "ftp://s3.example", "https://s3.example/path"] {
            let refused = parse("s3://vault", &format!("endpoint = \"{endpoint}\"")).unwrap_err();
            assert_eq!(refused, BucketError::Endpoint, "{endpoint}");
        }
    }

    #[test]
    fn credentials_come_from_the_default_section() {
        let text = "[other]\naws_access_key_id = x\n[default]\naws_access_key_id = a\naws_secret_access_key = b\n";
        let read = Credentials::of("none", |name| in_file(text, name)).ok().unwrap();
        assert_eq!((read.key_id.as_str(), read.secret.as_str(), read.token), ("a", "b", None));
        let missing = Credentials::of("none", |name| in_file("[other]\naws_access_key_id = x", name)).err().unwrap();
        assert_eq!(missing.code(), "s3-credentials");
        assert!(Credentials::read(Some(Path::new("/nonexistent"))).is_err());
    }
}
