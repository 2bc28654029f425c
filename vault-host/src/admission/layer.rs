//! What happens to every request before its service sees it.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::sync::oneshot;
use tonic::body::Body;
use tonic::codegen::http::{Request, Response};
use tower::{Layer, Service};
use tracing::Instrument;
use vault_proto::v1::Coarse;

use super::body::Holding;
use super::{Admission, Connection, ReplyMemory};
use crate::status::Refused;
use crate::telemetry::{self, Kind, Method, RequestId};

/// A call that is no stream has to be answered by then, the reading of its request included.
const CALL_TIME_MAX: Duration = Duration::from_secs(45);
/// An answer from disk has to be read by then.
const REPLY_TIME_MAX: Duration = Duration::from_secs(60);

/// What a handler knows of its call. In the extensions of every request.
#[derive(Clone, Debug)]
pub(crate) struct CallContext {
    pub(crate) method: Method,
    pub(crate) id: RequestId,
    /// `None` only where there is no connection: in a test.
    pub(crate) connection: Option<Connection>,
}

/// Puts [`Admission`] in front of a service.
#[derive(Clone, Debug)]
pub(crate) struct AdmissionLayer(pub(crate) Arc<Admission>);

impl<S> Layer<S> for AdmissionLayer {
    type Service = Admitting<S>;

    fn layer(&self, inner: S) -> Admitting<S> {
        Admitting { admission: self.0.clone(), inner }
    }
}

/// A service behind [`Admission`].
#[derive(Clone, Debug)]
pub(crate) struct Admitting<S> {
    admission: Arc<Admission>,
    inner: S,
}

impl<S> Service<Request<Body>> for Admitting<S>
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<Body>) -> Self::Future {
        let method = Method::of(request.uri().path());
        let id = RequestId::new();
        let span = telemetry::span(method, &id);
        let connection = request.extensions().get::<Connection>().cloned();
        let place = match self.admission.admit(method, connection.as_ref()) {
            Ok(place) => place,
            Err(refused) => {
                // Not in the journal: a flood would push out what somebody may want explained.
                span.in_scope(|| tracing::debug!(code = refused.code, "turned away"));
                let response = refused.status(method.audience, &id).into_http();
                return Box::pin(async move { Ok(response) });
            }
        };
        request.extensions_mut().insert(CallContext { method, id: id.clone(), connection: connection.clone() });
        // The instance that poll_ready was called on has to serve the call.
        let ready = self.inner.clone();
        let mut inner = std::mem::replace(&mut self.inner, ready);
        let admission = self.admission.clone();
        let answer = async move {
            let place = match admission.queue(method, place).await {
                Ok(place) => place,
                Err(refused) => return Ok(refused.status(method.audience, &id).into_http()),
            };
            let mut response = match method.kind {
                Kind::Stream | Kind::Watch | Kind::Other => inner.call(request).await?,
                Kind::Call | Kind::Challenge | Kind::Publish => {
                    match tokio::time::timeout(CALL_TIME_MAX, inner.call(request)).await {
                        Ok(response) => response?,
                        Err(_) => {
                            let late = Refused::new(Coarse::Unavailable, "call-late", "the call took too long");
                            late.status(method.audience, &id).into_http()
                        }
                    }
                }
            };
            let memory = response.extensions_mut().remove::<ReplyMemory>();
            let watch = memory.is_some().then(|| close_if_not_read(connection)).flatten();
            Ok(response.map(|body| Body::new(Holding::new(body, (place, memory, watch)))))
        };
        Box::pin(answer.instrument(span))
    }
}

/// Closes the connection unless the returned value is dropped in time, which happens when the answer has been sent.
fn close_if_not_read(connection: Option<Connection>) -> Option<oneshot::Sender<()>> {
    let connection = connection?;
    let (sent, was_sent) = oneshot::channel::<()>();
    tokio::spawn(async move {
        if tokio::time::timeout(REPLY_TIME_MAX, was_sent).await.is_err() {
            connection.close();
        }
    });
    Some(sent)
}
