//! Places of sealed units, as a person names them.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use attestation::UnitSet;
use ledger::manifest::Manifest;
use serde::{Deserialize, Serialize};
use tokio::runtime::Handle;
use vault_proto::http::{RootsError, Service, ServiceUrl, connector};

use super::cache::Cache;
use super::s3::{Credentials, Signer};
use super::web::{Pace, WebUnits};
use super::{Origin, Sources};
use crate::agent::fetch::RemoteUnits;
use crate::agent::options::absolute;
use crate::failure::{Failure, Kind, plain};
use crate::open::{LocalUnits, ReadBy};

/// The region of S3 services that know of none.
const REGION: &str = "us-east-1";

/// Places of ciphertext, as options.
#[derive(clap::Args, Clone, Debug)]
pub struct SourceArgs {
    /// Take the sealed units from here, what `seal --out` made or a copy of it: a directory, s3://BUCKET/PREFIX, http://… or
    /// https://…. Can be given more than once: tried in this order, and the vault's host last. None of them is trusted: what
    /// it delivers opens, or the next one is asked.
    #[arg(long, value_name = "DIR|URL")]
    pub source: Vec<Place>,
    /// PEM of the authorities that https sources and S3 services are checked by [default: those of the system].
    #[arg(long, value_name = "FILE", requires = "source")]
    pub source_ca: Option<PathBuf>,
    /// The S3 service, where it is not Amazon's.
    #[arg(long, value_name = "URL", requires = "source")]
    pub s3_endpoint: Option<ServiceUrl>,
    /// The region that requests to it are signed for.
    #[arg(long, value_name = "REGION", requires = "source", default_value = REGION)]
    pub s3_region: String,
    /// Credentials for it, as in ~/.aws/credentials [default: AWS_ACCESS_KEY_ID and so on].
    #[arg(long, value_name = "FILE", requires = "source")]
    pub s3_credentials: Option<PathBuf>,
    /// Keep the sealed units here, on a disk of this machine, for later loads of any model: ciphertext, checked when it is
    /// opened. All loads of one user share it.
    #[arg(long, value_name = "DIR", requires = "cache_size")]
    pub cache: Option<PathBuf>,
    /// The most that the cache may hold, as in 200G (K, M, G and T are powers of 1024). What was not used for the longest
    /// time goes.
    #[arg(long, value_name = "SIZE", requires = "cache", value_parser = parse_size)]
    pub cache_size: Option<u64>,
    /// Take the sealed units from this directory, and from nowhere else.
    #[arg(long, value_name = "DIR", conflicts_with = "source")]
    pub ciphertext: Option<PathBuf>,
}

/// The same, as it goes to the loader.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::agent) struct SourceList {
    places: Vec<Place>,
    without_host: bool,
    ca: Option<PathBuf>,
    s3_endpoint: Option<String>,
    s3_region: String,
    s3_credentials: Option<PathBuf>,
    cache: Option<(PathBuf, u64)>,
}

/// A place that has sealed units under the names of FORMAT.md §6.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Place {
    /// A directory of this machine, or one that it shares.
    Directory(PathBuf),
    /// A web server.
    Web(ServiceUrl),
    /// A bucket of an S3 service.
    Bucket {
        /// Its name.
        bucket: String,
        /// What the names of all objects begin with; no slash at either end.
        prefix: String,
    },
}

/// Not a place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlaceError(String);

impl Default for SourceArgs {
    /// The vault's host alone.
    fn default() -> Self {
        Self {
            source: Vec::new(),
            source_ca: None,
            s3_endpoint: None,
            s3_region: REGION.to_owned(),
            s3_credentials: None,
            cache: None,
            cache_size: None,
            ciphertext: None,
        }
    }
}

impl SourceArgs {
    /// One that was given and names a place with the units of one model.
    pub(in crate::agent) fn option(&self) -> Option<&'static str> {
        let given = [("--source", !self.source.is_empty()), ("--ciphertext", self.ciphertext.is_some())];
        given.iter().find(|(_, is_given)| *is_given).map(|(option, _)| *option)
    }

    pub(in crate::agent) fn list(&self) -> Result<SourceList, Failure> {
        let places = self.source.iter().cloned().chain(self.ciphertext.clone().map(Place::Directory));
        // The loader has another working directory.
        let places = places.map(|place| match place {
            Place::Directory(path) => absolute(&path).map(Place::Directory),
            place @ (Place::Web(_) | Place::Bucket { .. }) => Ok(place),
        });
        let path = |path: &Option<PathBuf>| path.as_deref().map(absolute).transpose();
        Ok(SourceList {
            places: places.collect::<Result<_, _>>()?,
            without_host: self.ciphertext.is_some(),
            ca: path(&self.source_ca)?,
            s3_endpoint: self.s3_endpoint.as_ref().map(ToString::to_string),
            s3_region: self.s3_region.clone(),
            s3_credentials: path(&self.s3_credentials)?,
            cache: path(&self.cache)?.zip(self.cache_size),
        })
    }
}

impl SourceList {
    /// The vault's host alone, or this directory alone.
    pub(in crate::agent) fn only(ciphertext: Option<PathBuf>) -> Self {
        let without_host = ciphertext.is_some();
        Self { places: ciphertext.map(Place::Directory).into_iter().collect(), without_host, ..Self::default() }
    }

    /// The places, and `host` behind them unless there is to be no other; in front of them a cache with room for `units`.
    ///
    /// # Errors
    /// A place that can't be opened is told and passed over where another follows.
    pub(in crate::agent) fn open<'m>(
        &self,
        manifest: &'m Manifest,
        units: &UnitSet,
        host: RemoteUnits,
        runtime: &Handle,
    ) -> Result<Sources<'m>, Failure> {
        let cache = self.cache.as_ref().map(|(path, bound)| Cache::open(path, *bound, manifest, units));
        let mut sources = Sources::new(manifest, cache.transpose()?);
        for place in &self.places {
            match self.open_place(place, manifest, runtime) {
                Ok(from) => sources.add(place.to_string(), from),
                Err(failure) if self.without_host => return Err(failure),
                Err(failure) => eprintln!("{}", passed_over(place, &failure)),
            }
        }
        if !self.without_host {
            sources.add("the vault's host".to_owned(), Origin::Host(host));
        }
        Ok(sources)
    }

    fn open_place<'m>(&self, place: &Place, manifest: &'m Manifest, runtime: &Handle) -> Result<Origin<'m>, Failure> {
        let web = |url: ServiceUrl, prefix, signer| {
            let authorities = |error: RootsError| {
                Failure::new(Kind::Failed, "source-authorities", error).next("name a file with --source-ca")
            };
            let tls = url.is_https().then(|| connector(self.ca.as_deref())).transpose().map_err(authorities)?;
            Ok(Origin::Web(WebUnits::new(Service::new(url, tls), prefix, signer, runtime.clone(), Pace::default())))
        };
        match place {
            Place::Directory(path) => LocalUnits::new(path, manifest, ReadBy::Probe)
                .map(Origin::Directory)
                .map_err(|error| Failure::io(path.display(), &error)),
            Place::Web(url) => web(url.clone(), String::new(), None),
            Place::Bucket { bucket, prefix } => {
                let amazon = || format!("https://s3.{}.amazonaws.com", self.s3_region);
                let endpoint = self.s3_endpoint.clone().unwrap_or_else(amazon);
                let url = format!("{endpoint}/{bucket}/{prefix}").parse::<ServiceUrl>();
                let url = url.map_err(|error| Failure::new(Kind::Usage, "s3-endpoint", error))?;
                let credentials = Credentials::read(self.s3_credentials.as_deref())?;
                let signer = Signer::new(url.host_header(), self.s3_region.clone(), credentials);
                web(url.clone(), url.prefix().to_owned(), Some(signer))
            }
        }
    }
}

/// What a person is told of a place that can't be opened.
fn passed_over(place: &Place, failure: &Failure) -> String {
    let place = place.to_string();
    // Some failures name the place themselves.
    let message = failure.message();
    let message = message.strip_prefix(&format!("{place}: ")).unwrap_or(message);
    let next = failure.next_step().map(|next| format!("\n  next: {next}")).unwrap_or_default();
    plain(&format!("warning: {place}: {message} ({}); the next source is asked{next}", failure.code()))
}

impl FromStr for Place {
    type Err = PlaceError;

    fn from_str(text: &str) -> Result<Self, PlaceError> {
        let refused = || PlaceError(text.to_owned());
        if let Some(rest) = text.strip_prefix("s3://") {
            let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
            let prefix = prefix.trim_end_matches('/');
            // Names that need no escapes in a URL or a signature, and no steps that somebody could resolve.
            let plain = |text: &str| text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".-_/".contains(&byte));
            let steps = prefix.is_empty() || prefix.split('/').all(|step| !["", ".", ".."].contains(&step));
            if bucket.is_empty() || !plain(bucket) || !plain(prefix) || !steps {
                return Err(refused());
            }
            return Ok(Self::Bucket { bucket: bucket.to_owned(), prefix: prefix.to_owned() });
        }
        if text.starts_with("http://") || text.starts_with("https://") {
            return text.parse().map(Self::Web).map_err(|_| refused());
        }
        if text.is_empty() || text.contains("://") { Err(refused()) } else { Ok(Self::Directory(text.into())) }
    }
}

/// Bytes, with K, M, G or T for powers of 1024.
fn parse_size(text: &str) -> Result<u64, String> {
    let refused = || format!("{text:?} is not a size, as in 200G");
    let (number, shift) = match text.chars().last().ok_or_else(refused)? {
        'K' => (&text[..text.len() - 1], 10),
        'M' => (&text[..text.len() - 1], 20),
        'G' => (&text[..text.len() - 1], 30),
        'T' => (&text[..text.len() - 1], 40),
        _ => (text, 0),
    };
    let number: u64 = number.parse().map_err(|_| refused())?;
    number.checked_mul(1 << shift).ok_or_else(refused)
}

impl TryFrom<String> for Place {
    type Error = PlaceError;

    fn try_from(text: String) -> Result<Self, PlaceError> {
        text.parse()
    }
}

impl std::convert::From<Place> for String {
    fn from(place: Place) -> Self {
        place.to_string()
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Directory(path) => write!(f, "{}", path.display()),
            Self::Web(url) => url.fmt(f),
            Self::Bucket { bucket, prefix } if prefix.is_empty() => write!(f, "s3://{bucket}"),
            Self::Bucket { bucket, prefix } => write!(f, "s3://{bucket}/{prefix}"),
        }
    }
}

impl fmt::Display for PlaceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} is not a place of sealed units: want a directory, s3://BUCKET/PREFIX, or http(s)://…", self.0)
    }
}

impl std::error::Error for PlaceError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_that_is_passed_over_is_named_once_with_the_advice_behind() {
        let bucket: Place = "s3://vaults/models".parse().unwrap();
        let failure = Failure::new(Kind::Failed, "s3-credentials", "there are none").next("name a file");
        assert_eq!(
            passed_over(&bucket, &failure),
            "warning: s3://vaults/models: there are none (s3-credentials); the next source is asked\n  next: name a file"
        );
        let directory: Place = "/srv/models".parse().unwrap();
        let failure = Failure::new(Kind::Failed, "io", "/srv/models: no such file");
        let told = "warning: /srv/models: no such file (io); the next source is asked";
        assert_eq!(passed_over(&directory, &failure), told);
    }
}
