//! The answer to `FetchUnits` below the codec, which would copy all of it (`vault_proto::bulk`).

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::Frame;
use tonic::Status;
use tonic::body::Body;
use tonic::codegen::http::{HeaderMap, Request, Response};
use tonic::server::NamedService;
use tower::Service;
use vault_proto::bulk::head;

use super::fetch::Messages;

/// Messages that are sent without the codec. The handler puts them into the extensions of an answer with an empty stream.
#[derive(Clone)]
pub(super) struct Units(Arc<Mutex<Option<Messages>>>);

impl Units {
    pub(super) fn new(messages: Messages) -> Self {
        Self(Arc::new(Mutex::new(Some(messages))))
    }

    fn take(&self) -> Option<Messages> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

/// A service whose answers may have [`Units`].
#[derive(Clone, Debug)]
pub(crate) struct WithUnits<S>(pub(crate) S);

impl<S: NamedService> NamedService for WithUnits<S> {
    const NAME: &'static str = S::NAME;
}

impl<S> Service<Request<Body>> for WithUnits<S>
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible>,
    S::Future: Send + 'static,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.0.poll_ready(context)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let answer = self.0.call(request);
        Box::pin(async move {
            let mut response = answer.await?;
            let messages = response.extensions_mut().remove::<Units>().and_then(|units| units.take());
            Ok(match messages {
                Some(messages) => response.map(|_| Body::new(UnitBody { messages, data: None, ended: false })),
                None => response,
            })
        })
    }
}

/// Each message as two frames: what goes before the data, and the data as it lies in memory.
struct UnitBody {
    messages: Messages,
    data: Option<Bytes>,
    ended: bool,
}

impl http_body::Body for UnitBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        if let Some(data) = self.data.take() {
            return Poll::Ready(Some(Ok(Frame::data(data))));
        }
        if self.ended {
            return Poll::Ready(None);
        }
        let status = match self.messages.poll(context) {
            Poll::Pending => return Poll::Pending,
            Poll::Ready(Some(Ok(message))) => {
                let head = head(message.unit, message.offset, message.data.len());
                self.data = Some(message.data);
                return Poll::Ready(Some(Ok(Frame::data(head))));
            }
            Poll::Ready(Some(Err(status))) => status,
            Poll::Ready(None) => Status::ok(""),
        };
        self.ended = true;
        let mut trailers = HeaderMap::new();
        Poll::Ready(Some(status.add_header(&mut trailers).map(|()| Frame::trailers(trailers))))
    }

    fn is_end_stream(&self) -> bool {
        self.ended
    }
}
