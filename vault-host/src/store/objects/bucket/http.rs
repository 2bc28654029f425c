//! HTTP/1.1 to the bucket: hyper over rustls, with the authorities that the configuration names and no others.

use std::path::Path;
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

use super::BucketError;
use crate::store::objects::authorities::tls_client;

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
        let tls = tls_client(ca).map_err(BucketError::Authority)?;
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
