//! HTTP/1.1 to the bucket: hyper over rustls, with the authorities that the configuration names and no others.

use std::path::{Path, PathBuf};
use std::time::Duration;

use http_body_util::BodyExt;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector as TcpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use object_store::ClientOptions;
use object_store::client::{
    HttpClient, HttpConnector, HttpError, HttpErrorKind, HttpRequest, HttpRequestBody, HttpResponse, HttpResponseBody,
    HttpService,
};
use tokio_rustls::rustls::crypto::ring::default_provider;
use tokio_rustls::rustls::pki_types::CertificateDer;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

use super::BucketError;

/// Where systems keep the authorities that they trust: Debian and its kin, Red Hat and its kin, SUSE.
const SYSTEM_ROOTS: [&str; 3] =
    ["/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/ca-bundle.pem"];
const CONNECT_TIME_MAX: Duration = Duration::from_secs(5);
/// From the request to the head of its answer.
const ANSWER_TIME_MAX: Duration = Duration::from_secs(10);
const IDLE_TIME_MAX: Duration = Duration::from_secs(20);
const IDLE_CONNECTIONS_MAX: usize = 64;

/// A client that follows no redirect and asks no proxy.
#[derive(Clone, Debug)]
pub(super) struct Http(Client<HttpsConnector<TcpConnector>, HttpRequestBody>);

impl Http {
    /// A client that believes the authorities of `ca`, else those of the system.
    pub(super) fn new(ca: Option<&Path>) -> Result<Self, BucketError> {
        let system = || SYSTEM_ROOTS.into_iter().map(PathBuf::from).find(|path| path.exists());
        let path = ca.map(Path::to_owned).or_else(system);
        let mut roots = RootCertStore::empty();
        if let Some(path) = &path {
            let bad = || BucketError::Authority(path.clone());
            for certificate in CertificateDer::pem_file_iter(path).map_err(|_| bad())? {
                // A system's bundle may have one that this library can't use.
                let _ = roots.add(certificate.map_err(|_| bad())?);
            }
            if roots.is_empty() {
                return Err(bad());
            }
        }
        let tls = ClientConfig::builder_with_provider(default_provider().into())
            .with_safe_default_protocol_versions()
            .expect("the provider has them")
            .with_root_certificates(roots)
            .with_no_client_auth();
        let mut tcp = TcpConnector::new();
        tcp.set_connect_timeout(Some(CONNECT_TIME_MAX));
        tcp.set_nodelay(true);
        tcp.enforce_http(false);
        let connector = HttpsConnectorBuilder::new().with_tls_config(tls).https_or_http().enable_http1();
        let client = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(IDLE_TIME_MAX)
            .pool_max_idle_per_host(IDLE_CONNECTIONS_MAX)
            .build(connector.wrap_connector(tcp));
        Ok(Self(client))
    }
}

impl HttpConnector for Http {
    fn connect(&self, _: &ClientOptions) -> object_store::Result<HttpClient> {
        Ok(HttpClient::new(self.clone()))
    }
}

#[tonic::async_trait]
impl HttpService for Http {
    async fn call(&self, request: HttpRequest) -> Result<HttpResponse, HttpError> {
        let answered = tokio::time::timeout(ANSWER_TIME_MAX, self.0.request(request)).await;
        let response = match answered {
            Err(late) => return Err(HttpError::new(HttpErrorKind::Timeout, late)),
            Ok(Err(error)) if error.is_connect() => return Err(HttpError::new(HttpErrorKind::Connect, error)),
            Ok(answered) => answered.map_err(|error| HttpError::new(HttpErrorKind::Interrupted, error))?,
        };
        let cut = |error: hyper::Error| HttpError::new(HttpErrorKind::Interrupted, error);
        Ok(response.map(|body| HttpResponseBody::new(body.map_err(cut))))
    }
}
