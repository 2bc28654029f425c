//! HTTP/1.1 as a client: one request over a connection of its own, within bounds of time and bytes. Redirects are not
//! followed, and no proxy is looked for in the environment.

mod range;

use std::error::Error;
use std::fmt;
use std::io::Read;
use std::path::Path;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::body::Incoming;
use hyper::{Method, Request, Response, Uri, header};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
pub use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore, crypto};

pub use range::{RangeBody, RangeError};

use crate::client::causes;

/// Where systems keep the authorities that they trust: Debian and its kin, Red Hat and its kin, SUSE.
const SYSTEM_ROOTS: [&str; 3] =
    ["/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/ca-bundle.pem"];
const ROOTS_BYTES_MAX: u64 = 4 << 20;

/// `http://` or `https://`, host, port, and what stands before each path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceUrl {
    is_https: bool,
    host: String,
    port: u16,
    /// No slash at its end.
    prefix: String,
}

/// Not such an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UrlError;

/// A service that can be asked.
#[derive(Clone)]
pub struct Service {
    url: ServiceUrl,
    tls: Option<TlsConnector>,
}

/// Why there is no answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HttpError {
    /// No connection, or one that broke.
    Unreachable {
        /// What the system says.
        why: String,
    },
    /// No whole answer in time.
    TimedOut,
    /// More bytes than may come.
    TooLarge,
    /// Fewer bytes than were announced, or no HTTP.
    Broken {
        /// What the library says.
        why: String,
    },
}

/// Why there are no authorities to check a server by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RootsError {
    /// No file was given, and none of the system found.
    Missing,
    /// The file can't be used.
    Refused {
        /// The file, and what is wrong.
        why: String,
    },
}

impl FromStr for ServiceUrl {
    type Err = UrlError;

    fn from_str(text: &str) -> Result<Self, UrlError> {
        let uri: Uri = text.parse().map_err(|_| UrlError)?;
        let (is_https, port) = match uri.scheme_str() {
            Some("http") => (false, 80),
            Some("https") => (true, 443),
            Some(_) | None => return Err(UrlError),
        };
        let authority = uri.authority().filter(|authority| !authority.as_str().contains('@')).ok_or(UrlError)?;
        let host = authority.host().trim_start_matches('[').trim_end_matches(']').to_owned();
        if host.is_empty() || uri.query().is_some() {
            return Err(UrlError);
        }
        let port = authority.port_u16().unwrap_or(port);
        Ok(Self { is_https, host, port, prefix: uri.path().trim_end_matches('/').to_owned() })
    }
}

impl ServiceUrl {
    /// Whether it is asked over TLS.
    #[must_use]
    pub fn is_https(&self) -> bool {
        self.is_https
    }
}

impl fmt::Display for ServiceUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.is_https { "https" } else { "http" };
        write!(f, "{scheme}://{}{}", self.authority(), self.prefix)
    }
}

impl ServiceUrl {
    fn authority(&self) -> String {
        format!("{}:{}", self.bracketed_host(), self.port)
    }

    /// The value of `Host`: without the port where it is the usual one, as signatures over it have it.
    #[must_use]
    pub fn host_header(&self) -> String {
        let usual = if self.is_https { 443 } else { 80 };
        if self.port == usual { self.bracketed_host() } else { self.authority() }
    }

    /// What stands before each path; no slash at its end.
    #[must_use]
    pub fn prefix(&self) -> &str {
        &self.prefix
    }

    fn bracketed_host(&self) -> String {
        if self.host.contains(':') { format!("[{}]", self.host) } else { self.host.clone() }
    }
}

impl fmt::Debug for Service {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Service({})", self.url)
    }
}

impl Service {
    /// Over TLS where the address is https, which needs a connector.
    #[must_use]
    pub fn new(url: ServiceUrl, tls: Option<TlsConnector>) -> Self {
        let tls = tls.filter(|_| url.is_https);
        Self { url, tls }
    }

    /// GET of a path behind the address; the body of an answer of success has at most `max` bytes.
    ///
    /// # Errors
    /// [`HttpError`]; a status is none.
    pub async fn get(&self, path: &str, max: usize, limit: Duration) -> Result<Response<Vec<u8>>, HttpError> {
        self.send(Method::GET, path, Bytes::new(), max, limit).await
    }

    /// POST of a body, as [`Service::get`].
    ///
    /// # Errors
    /// [`HttpError`]; a status is none.
    pub async fn post(
        &self,
        path: &str,
        body: String,
        max: usize,
        limit: Duration,
    ) -> Result<Response<Vec<u8>>, HttpError> {
        self.send(Method::POST, path, body.into(), max, limit).await
    }

    async fn send(
        &self,
        method: Method,
        path: &str,
        body: Bytes,
        max: usize,
        limit: Duration,
    ) -> Result<Response<Vec<u8>>, HttpError> {
        let request = Request::builder()
            .method(method)
            .uri(format!("{}{path}", self.url.prefix))
            .header(header::HOST, self.url.host_header())
            .header(header::USER_AGENT, concat!("weightvault/", env!("CARGO_PKG_VERSION")))
            .header(header::ACCEPT, "*/*")
            .header(header::CONNECTION, "close")
            .body(Full::new(body))
            .map_err(|error| broken(&error))?;
        tokio::time::timeout(limit, self.send_unbounded(request, max)).await.unwrap_or(Err(HttpError::TimedOut))
    }

    async fn send_unbounded(&self, request: Request<Full<Bytes>>, max: usize) -> Result<Response<Vec<u8>>, HttpError> {
        exchange(self.connect().await?, request, max).await
    }

    async fn connect(&self) -> Result<Box<dyn Connection>, HttpError> {
        let ServiceUrl { is_https, host, port, .. } = &self.url;
        let tcp = TcpStream::connect((host.as_str(), *port)).await.map_err(|error| unreachable(&error))?;
        match (&self.tls, is_https) {
            (None, false) => Ok(Box::new(tcp)),
            (Some(tls), _) => {
                let name = ServerName::try_from(host.clone()).map_err(|error| unreachable(&error))?;
                Ok(Box::new(tls.connect(name, tcp).await.map_err(|error| unreachable(&error))?))
            }
            (None, true) => {
                Err(HttpError::Unreachable { why: "no authorities to check its certificate by".to_owned() })
            }
        }
    }
}

/// TCP, with TLS or without.
trait Connection: AsyncRead + AsyncWrite + Unpin + Send {}

impl<T: AsyncRead + AsyncWrite + Unpin + Send> Connection for T {}

async fn exchange<T>(stream: T, request: Request<Full<Bytes>>, max: usize) -> Result<Response<Vec<u8>>, HttpError>
where
    T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let opened = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await;
    let (mut sender, connection) = opened.map_err(|error| broken(&error))?;
    // Ends with this call: nothing is kept open, since nothing more is asked for soon.
    let mut driver = JoinSet::new();
    driver.spawn(connection);
    let response = sender.send_request(request).await.map_err(|error| broken(&error))?;
    read(response, max).await
}

async fn read(response: Response<Incoming>, max: usize) -> Result<Response<Vec<u8>>, HttpError> {
    let (parts, body) = response.into_parts();
    let body = match Limited::new(body, max).collect().await {
        Ok(body) => body.to_bytes().to_vec(),
        // What a refusal says beside its status can be done without.
        Err(_) if !parts.status.is_success() => Vec::new(),
        Err(error) if error.is::<LengthLimitError>() => return Err(HttpError::TooLarge),
        Err(error) => return Err(broken(error.as_ref())),
    };
    Ok(Response::from_parts(parts, body))
}

fn unreachable(error: &(dyn Error + 'static)) -> HttpError {
    HttpError::Unreachable { why: causes(error) }
}

fn broken(error: &(dyn Error + 'static)) -> HttpError {
    HttpError::Broken { why: causes(error) }
}

impl fmt::Display for HttpError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreachable { why } => write!(f, "no connection: {why}"),
            Self::TimedOut => f.write_str("no whole answer in time"),
            Self::TooLarge => f.write_str("its answer is too long"),
            Self::Broken { why } => write!(f, "its answer was cut short or is not HTTP: {why}"),
        }
    }
}

impl Error for HttpError {}

impl fmt::Display for UrlError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("want http://HOST or https://HOST, with a port and a path if need be, and no user or query")
    }
}

impl Error for UrlError {}

impl fmt::Display for RootsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing => f.write_str("no authorities of the system were found: name a file"),
            Self::Refused { why } => f.write_str(why),
        }
    }
}

impl Error for RootsError {}

/// Checks servers by the authorities of this file, else by the system's.
///
/// # Errors
/// [`RootsError`].
pub fn connector(ca: Option<&Path>) -> Result<TlsConnector, RootsError> {
    let file = roots_file(ca, &SYSTEM_ROOTS)?;
    let refuse = |why: String| RootsError::Refused { why: format!("{}: {why}", file.display()) };
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
fn roots_file<'a>(named: Option<&'a Path>, system: &[&'a str]) -> Result<&'a Path, RootsError> {
    let of_system = || system.iter().copied().map(Path::new).find(|file| file.exists());
    named.or_else(of_system).ok_or(RootsError::Missing)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn authorities_are_those_of_the_named_file_alone_else_of_the_system() {
        assert_eq!(roots_file(None, &["/nonexistent/roots.pem"]), Err(RootsError::Missing));
        let named = Path::new("/nonexistent/named.pem");
        assert_eq!(roots_file(Some(named), &["/"]), Ok(named), "the file that was named counts alone");
        assert_eq!(roots_file(None, &["/nonexistent", "/"]), Ok(Path::new("/")));
    }
}
