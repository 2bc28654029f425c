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

use super::body::{Holding, Progress};
use super::connection::UnderWay;
use super::{Admission, Connection, Place, ReplyMemory, WorkPlace, pace, request};
use crate::status::Refused;
use crate::telemetry::{self, Kind, Method, RequestId};

/// The answer to a call has to begin by then, once it has its place.
const CALL_TIME_MAX: Duration = Duration::from_secs(45);

/// What a handler knows of its call. In the extensions of every request.
#[derive(Clone, Debug)]
pub(crate) struct CallContext {
    pub(crate) method: Method,
    pub(crate) id: RequestId,
    /// `None` only where there is no connection: in a test.
    pub(crate) connection: Option<Connection>,
    /// For a call of which only few are at work at a time.
    pub(crate) work: Option<WorkPlace>,
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

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let method = Method::of(request.uri().path());
        let id = RequestId::new();
        let span = telemetry::span(method, &id);
        let connection = request.extensions().get::<Connection>().cloned();
        if let Err(refused) = self.admission.admit(method, connection.as_ref()) {
            let response = span.in_scope(|| turned_away(method, &id, &refused));
            return Box::pin(async move { Ok(response) });
        }
        // The instance that poll_ready was called on has to serve the call.
        let ready = self.inner.clone();
        let inner = std::mem::replace(&mut self.inner, ready);
        // Whoever watches a health is idle all the same.
        let under_way = connection.as_ref().filter(|_| method.kind != Kind::Other).map(Connection::begin);
        let call = Call { method, id, connection, admission: self.admission.clone() };
        let answer = async move {
            let answered = call.answer(inner, request, under_way).await;
            Ok(answered.unwrap_or_else(|refused| turned_away(call.method, &call.id, &refused)))
        };
        Box::pin(answer.instrument(span))
    }
}

/// Not in the journal: a flood would push out what somebody may want explained.
fn turned_away(method: Method, id: &RequestId, refused: &Refused) -> Response<Body> {
    tracing::debug!(code = refused.code, "turned away");
    refused.status(method.audience, id).into_http()
}

struct Call {
    method: Method,
    id: RequestId,
    connection: Option<Connection>,
    admission: Arc<Admission>,
}

/// What an answer holds until its client has it.
struct Answer {
    _place: Place,
    _memory: Option<ReplyMemory>,
    _under_way: Option<UnderWay>,
    /// Tells who watches that it is gone.
    _watched: Option<oneshot::Sender<()>>,
}

impl Call {
    async fn answer<S>(
        &self,
        mut inner: S,
        request: Request<Body>,
        under_way: Option<UnderWay>,
    ) -> Result<Response<Body>, Refused>
    where
        S: Service<Request<Body>, Response = Response<Body>, Error = Infallible> + Send,
        S::Future: Send,
    {
        let Self { method, id, connection, admission } = self;
        let kind = method.kind;
        let (head, body) = request.into_parts();
        let body = request::arrive(body, kind, connection.as_ref()).await?;
        let mut place = admission.place(kind, connection.as_ref())?;
        let work = admission.queue(kind, &mut place).await?;
        let mut request = Request::from_parts(head, body);
        let context =
            CallContext { method: *method, id: id.clone(), connection: connection.clone(), work: work.clone() };
        request.extensions_mut().insert(context);
        let answered = match kind {
            // It is answered when all of it came, as long as something comes.
            Kind::Upload => inner.call(request).await,
            _ => {
                let late = |_| Refused::new(Coarse::Unavailable, "call-late", "the call took too long");
                tokio::time::timeout(CALL_TIME_MAX, inner.call(request)).await.map_err(late)?
            }
        };
        drop(work);
        let Ok(mut response) = answered;
        let memory = response.extensions_mut().remove::<ReplyMemory>();
        let progress = Arc::<Progress>::default();
        let watched = self.watch(progress.clone(), memory.is_some());
        let held = Answer { _place: place, _memory: memory, _under_way: under_way, _watched: watched };
        Ok(response.map(|body| Body::new(Holding::new(body, progress, held))))
    }

    /// Sees to it that the answer is taken, or its connection closed. Over watches and what is not ours so little goes that
    /// nothing of it ever waits long.
    fn watch(&self, progress: Arc<Progress>, with_memory: bool) -> Option<oneshot::Sender<()>> {
        let kind = self.method.kind;
        let connection = self.connection.clone().filter(|_| !matches!(kind, Kind::Watch | Kind::Other))?;
        let (watched, gone) = oneshot::channel();
        let admission = self.admission.clone();
        let wanted = move || admission.is_wanted(kind, with_memory);
        tokio::spawn(pace::watch(progress, connection, gone, wanted).in_current_span());
        Some(watched)
    }
}
