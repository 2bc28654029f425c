//! AMD's key service and its mirrors (AMD 57230): GET over HTTP/1.1, one object a request.
//!
//! What comes is signed by AMD, so TLS is for privacy and reachability alone: a mirror may be plain http.

use std::fmt;
use std::path::Path;
use std::str::FromStr;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use hyper::{HeaderMap, StatusCode, header};

use super::error::{FetchError, SourceError};
use crate::http::{HttpError, RootsError, Service, ServiceUrl, connector};

/// AMD's own service.
pub const AMD_KDS: &str = "https://kdsintf.amd.com";
/// The longest that a service's `Retry-After` is believed.
pub(super) const RETRY_AFTER_MAX: Duration = Duration::from_secs(60 * 60);

/// `--kds URL`, or `--kds amd`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KdsChoice {
    text: String,
    url: ServiceUrl,
}

/// One service, as this process knows it.
pub(super) struct Upstream {
    choice: KdsChoice,
    service: Service,
    /// It asked for silence.
    quiet_until: Mutex<Option<Instant>>,
}

impl FromStr for KdsChoice {
    type Err = SourceError;

    fn from_str(text: &str) -> Result<Self, SourceError> {
        let url = if text == "amd" { AMD_KDS } else { text };
        let url = url.parse().map_err(|_| SourceError::Url { text: text.chars().take(200).collect() })?;
        Ok(Self { text: text.to_owned(), url })
    }
}

impl fmt::Display for KdsChoice {
    /// As it was given.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Debug for Upstream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Upstream({})", self.choice)
    }
}

pub(super) fn upstreams(choices: &[KdsChoice], ca: Option<&Path>) -> Result<Vec<Upstream>, SourceError> {
    let is_needed = choices.iter().any(|choice| choice.url.is_https());
    let tls = if is_needed { Some(connector(ca)?) } else { None };
    let upstream = |choice: &KdsChoice| Upstream {
        choice: choice.clone(),
        service: Service::new(choice.url.clone(), tls.clone()),
        quiet_until: Mutex::new(None),
    };
    Ok(choices.iter().map(upstream).collect())
}

impl Upstream {
    pub(super) fn url(&self) -> String {
        self.choice.to_string()
    }

    /// How long it still wants not to be asked.
    pub(super) fn quiet_for(&self) -> Duration {
        let until = *self.quiet_until.lock().unwrap_or_else(PoisonError::into_inner);
        until.map_or(Duration::ZERO, |until| until.saturating_duration_since(Instant::now()))
    }

    /// One request: the body of a 200, at most `max` bytes, within `limit`.
    pub(super) async fn get(&self, path: &str, max: usize, limit: Duration) -> Result<Vec<u8>, FetchError> {
        let response = self.service.get(path, max, limit).await?;
        match response.status() {
            StatusCode::OK => Ok(response.into_body()),
            StatusCode::NOT_FOUND => Err(FetchError::NotFound),
            StatusCode::TOO_MANY_REQUESTS => {
                let retry_after = retry_after(response.headers());
                if let Some(seconds) = retry_after {
                    let until = Instant::now() + Duration::from_secs(seconds).min(RETRY_AFTER_MAX);
                    *self.quiet_until.lock().unwrap_or_else(PoisonError::into_inner) = Some(until);
                }
                Err(FetchError::Throttled { retry_after })
            }
            other => Err(FetchError::Status { status: other.as_u16() }),
        }
    }
}

/// In seconds. As a date it is not read: AMD's service sends seconds.
fn retry_after(headers: &HeaderMap) -> Option<u64> {
    headers.get(header::RETRY_AFTER)?.to_str().ok()?.trim().parse().ok()
}

impl From<HttpError> for FetchError {
    fn from(error: HttpError) -> Self {
        match error {
            HttpError::Unreachable { why } => Self::Unreachable { why },
            HttpError::TimedOut => Self::TimedOut,
            HttpError::TooLarge => Self::TooLarge,
            HttpError::Broken { why } => Self::Broken { why },
        }
    }
}

impl From<RootsError> for SourceError {
    fn from(error: RootsError) -> Self {
        match error {
            RootsError::Missing => Self::RootsMissing,
            RootsError::Refused { why } => Self::Ca { why },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> String {
        text.parse::<KdsChoice>().expect(text).url.to_string()
    }

    #[test]
    fn service_is_named_by_its_address() {
        assert_eq!(parse("amd"), "https://kdsintf.amd.com:443");
        assert_eq!(parse("http://[::1]:8080/"), "http://[::1]:8080");
        assert_eq!(parse("http://m.example"), "http://m.example:80");
        assert_eq!(parse("https://m.example/amd/"), "https://m.example:443/amd");
        assert_eq!("amd".parse::<KdsChoice>().map(|choice| choice.to_string()), Ok("amd".to_owned()));
        for wrong in ["", "AMD", "m.example", "ftp://m.example", "http://", "http://u@m.example", "http://m.example?x"]
        {
            assert_eq!(wrong.parse::<KdsChoice>(), Err(SourceError::Url { text: wrong.to_owned() }));
        }
    }

    #[test]
    fn https_needs_an_authority_that_can_be_read() {
        let choice = ["https://m.example".parse().expect("an address")];
        let code = |file: &Path| upstreams(&choice, Some(file)).map_err(|error| error.code()).err();
        assert_eq!(code(Path::new("/nonexistent")), Some("kds-ca"));
        assert_eq!(code(Path::new("/dev/null")), Some("kds-ca"));
        assert_eq!(SourceError::from(RootsError::Missing).code(), "kds-roots-missing");
    }
}
