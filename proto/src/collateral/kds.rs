//! AMD's key service and its mirrors (AMD 57230): GET over HTTP/1.1, one object a request.
//!
//! What comes is signed by AMD, so TLS is for privacy and reachability alone: a mirror may be plain http. Redirects are not
//! followed, and no proxy is looked for in the environment.

use std::error::Error;
use std::fmt;
use std::io::Read;
use std::path::Path;
use std::str::FromStr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::{BodyExt, Empty, LengthLimitError, Limited};
use hyper::body::Incoming;
use hyper::{Request, Response, StatusCode, Uri, header};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore, crypto};

use super::error::{FetchError, SourceError};
use crate::client::causes;

/// AMD's own service.
pub const AMD_KDS: &str = "https://kdsintf.amd.com";
/// Where systems keep the authorities that they trust: Debian and its kin, Red Hat and its kin, SUSE.
const SYSTEM_ROOTS: [&str; 3] =
    ["/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/ca-bundle.pem"];
const ROOTS_BYTES_MAX: u64 = 4 << 20;
/// The longest that a service's `Retry-After` is believed.
pub(super) const RETRY_AFTER_MAX: Duration = Duration::from_secs(60 * 60);

/// `--kds URL`, or `--kds amd`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KdsChoice {
    text: String,
    scheme: Scheme,
    host: String,
    port: u16,
    /// Before the path of an object; no slash at its end.
    prefix: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Scheme {
    Http,
    Https,
}

/// One service, as this process knows it.
pub(super) struct Upstream {
    choice: KdsChoice,
    tls: Option<TlsConnector>,
    /// It asked for silence.
    quiet_until: Mutex<Option<Instant>>,
}

impl FromStr for KdsChoice {
    type Err = SourceError;

    fn from_str(text: &str) -> Result<Self, SourceError> {
        let malformed = || SourceError::Url { text: text.chars().take(200).collect() };
        let url = if text == "amd" { AMD_KDS } else { text };
        let uri: Uri = url.parse().map_err(|_| malformed())?;
        let (scheme, port) = match uri.scheme_str() {
            Some("http") => (Scheme::Http, 80),
            Some("https") => (Scheme::Https, 443),
            Some(_) | None => return Err(malformed()),
        };
        let authority = uri.authority().filter(|authority| !authority.as_str().contains('@')).ok_or_else(malformed)?;
        let host = authority.host().trim_start_matches('[').trim_end_matches(']').to_owned();
        if host.is_empty() || uri.query().is_some() {
            return Err(malformed());
        }
        let port = authority.port_u16().unwrap_or(port);
        Ok(Self { text: text.to_owned(), scheme, host, port, prefix: uri.path().trim_end_matches('/').to_owned() })
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
    let is_needed = choices.iter().any(|choice| choice.scheme == Scheme::Https);
    let tls = if is_needed { Some(connector(ca)?) } else { None };
    let upstream = |choice: &KdsChoice| Upstream {
        choice: choice.clone(),
        tls: tls.clone().filter(|_| choice.scheme == Scheme::Https),
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
        let got = tokio::time::timeout(limit, self.get_unbounded(path, max)).await;
        let got = got.unwrap_or(Err(FetchError::TimedOut));
        if let Err(FetchError::Throttled { retry_after: Some(seconds) }) = &got {
            let until = Instant::now() + Duration::from_secs(*seconds).min(RETRY_AFTER_MAX);
            *self.quiet_until.lock().unwrap_or_else(PoisonError::into_inner) = Some(until);
        }
        got
    }

    async fn get_unbounded(&self, path: &str, max: usize) -> Result<Vec<u8>, FetchError> {
        let KdsChoice { host, port, .. } = &self.choice;
        let tcp = TcpStream::connect((host.as_str(), *port)).await.map_err(|error| unreachable(&error))?;
        match &self.tls {
            None => self.exchange(tcp, path, max).await,
            Some(tls) => {
                let name = ServerName::try_from(host.clone()).map_err(|error| unreachable(&error))?;
                let stream = tls.connect(name, tcp).await.map_err(|error| unreachable(&error))?;
                self.exchange(stream, path, max).await
            }
        }
    }

    async fn exchange<T>(&self, stream: T, path: &str, max: usize) -> Result<Vec<u8>, FetchError>
    where
        T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let opened = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await;
        let (mut sender, connection) = opened.map_err(|error| broken(&error))?;
        // Ends with this call: nothing is kept open, since nothing more is asked for soon.
        let mut driver = JoinSet::new();
        driver.spawn(connection);
        let KdsChoice { host, port, prefix, .. } = &self.choice;
        let host = if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") };
        let request = Request::get(format!("{prefix}{path}"))
            .header(header::HOST, host)
            .header(header::USER_AGENT, concat!("weightvault/", env!("CARGO_PKG_VERSION")))
            .header(header::ACCEPT, "*/*")
            .header(header::CONNECTION, "close")
            .body(Empty::<Bytes>::new())
            .map_err(|error| broken(&error))?;
        let response = sender.send_request(request).await.map_err(|error| broken(&error))?;
        read(response, max).await
    }
}

async fn read(response: Response<Incoming>, max: usize) -> Result<Vec<u8>, FetchError> {
    match response.status() {
        StatusCode::OK => {}
        StatusCode::NOT_FOUND => return Err(FetchError::NotFound),
        StatusCode::TOO_MANY_REQUESTS => return Err(FetchError::Throttled { retry_after: retry_after(&response) }),
        other => return Err(FetchError::Status { status: other.as_u16() }),
    }
    match Limited::new(response.into_body(), max).collect().await {
        Ok(body) => Ok(body.to_bytes().to_vec()),
        Err(error) if error.is::<LengthLimitError>() => Err(FetchError::TooLarge),
        Err(error) => Err(broken(error.as_ref())),
    }
}

/// In seconds. As a date it is not read: AMD's service sends seconds.
fn retry_after(response: &Response<Incoming>) -> Option<u64> {
    response.headers().get(header::RETRY_AFTER)?.to_str().ok()?.trim().parse().ok()
}

fn unreachable(error: &(dyn Error + 'static)) -> FetchError {
    FetchError::Unreachable { why: causes(error) }
}

fn broken(error: &(dyn Error + 'static)) -> FetchError {
    FetchError::Broken { why: causes(error) }
}

fn connector(ca: Option<&Path>) -> Result<TlsConnector, SourceError> {
    let file = roots_file(ca, &SYSTEM_ROOTS)?;
    let refuse = |why: String| SourceError::Ca { why: format!("{}: {why}", file.display()) };
    let mut pem = Vec::new();
    let read = std::fs::File::open(file).and_then(|opened| opened.take(ROOTS_BYTES_MAX).read_to_end(&mut pem));
    read.map_err(|error| refuse(error.to_string()))?;
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(&pem) {
        let certificate = certificate.map_err(|error| refuse(error.to_string()))?;
        // A system's list may hold one that the library does not take; the others still count.
        let _ = roots.add(certificate);
    }
    if roots.is_empty() {
        return Err(refuse("no certificate in it can be used".to_owned()));
    }
    let config = ClientConfig::builder_with_provider(Arc::new(crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| refuse(error.to_string()))?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(TlsConnector::from(Arc::new(config)))
}

/// The file that was named, else the first of the system's that is there.
fn roots_file<'a>(named: Option<&'a Path>, system: &[&'a str]) -> Result<&'a Path, SourceError> {
    let of_system = || system.iter().copied().map(Path::new).find(|file| file.exists());
    named.or_else(of_system).ok_or(SourceError::RootsMissing)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> (Scheme, String, u16, String) {
        let choice: KdsChoice = text.parse().expect(text);
        (choice.scheme, choice.host, choice.port, choice.prefix)
    }

    #[test]
    fn service_is_named_by_its_address() {
        let none = String::new();
        assert_eq!(parse("amd"), (Scheme::Https, "kdsintf.amd.com".to_owned(), 443, none.clone()));
        assert_eq!(parse("http://[::1]:8080/"), (Scheme::Http, "::1".to_owned(), 8080, none));
        assert_eq!(parse("https://m.example/amd/"), (Scheme::Https, "m.example".to_owned(), 443, "/amd".to_owned()));
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
        let none = roots_file(None, &["/nonexistent/roots.pem"]).map_err(|error| error.code());
        assert_eq!(none, Err("kds-roots-missing"));
        let named = Path::new("/nonexistent/named.pem");
        assert_eq!(roots_file(Some(named), &["/"]), Ok(named), "the file that was named counts alone");
        assert_eq!(roots_file(None, &["/nonexistent", "/"]), Ok(Path::new("/")));
    }
}
