//! The control socket: gRPC, for `vault-enclave status` and whoever loads and unloads.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::mpsc;
use tokio_stream::Stream;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Server;
use tonic::transport::server::{Connected, UdsConnectInfo};
use tonic::{Request, Response, Status};
use vault_proto::agent::v1;
use vault_proto::agent::v1::agent_server::AgentServer;
use vault_proto::convert::{LoadOrder, ModelName, WireError};

use super::access::{Access, Controller, Peer, Reader};
use super::agent::Agent;
use super::models::{Models, Why};
use super::places::{Bounds, Place, Places, accept};
use crate::failure::{Failure, Kind};

/// Requests of one connection at a time, watches included.
const CALLS_MAX: u32 = 16;
/// A request names a model and a list of units.
const REQUEST_BYTES_MAX: usize = 256 << 10;

/// Serves until it is dropped.
///
/// # Errors
/// The server failed.
pub(super) async fn serve(
    listener: UnixListener,
    access: Access,
    agent: Arc<Agent>,
    bounds: Bounds,
) -> Result<(), Failure> {
    let incoming = incoming(listener, access.clone(), Arc::clone(&agent.models), bounds);
    let service = AgentServer::new(Control { access, agent }).max_decoding_message_size(REQUEST_BYTES_MAX);
    // The second alone counts watches, whose answers begin at once.
    let mut server =
        Server::builder().concurrency_limit_per_connection(CALLS_MAX as usize).max_concurrent_streams(CALLS_MAX);
    let served = server.add_service(service).serve_with_incoming(incoming).await;
    served.map_err(|error| Failure::new(Kind::Failed, "control", vault_proto::client::causes(&error)))
}

/// Accepts until what this gives is dropped. Whoever may do nothing, or has no place left, gets no connection that he could hold.
fn incoming(
    listener: UnixListener,
    access: Access,
    models: Arc<Models>,
    bounds: Bounds,
) -> ReceiverStream<io::Result<Admitted>> {
    let (lookers, controllers) = (Places::new(bounds.lookers), Places::new(bounds.controllers));
    let admit = move |stream: &UnixStream| {
        let peer = Peer::of(stream);
        let places = if access.controller(peer).is_ok() { &controllers } else { &lookers };
        access.reader(peer, |peer| models.is_listed(peer)).and_then(|reader| places.take(reader))
    };
    let (accepted, incoming) = mpsc::channel(1);
    tokio::spawn(async move {
        loop {
            let stream = tokio::select! {
                () = accepted.closed() => return,
                stream = accept(&listener) => stream,
            };
            if let Ok(place) = admit(&stream)
                && accepted.send(Ok(Admitted { stream, _place: place })).await.is_err()
            {
                return;
            }
        }
    });
    ReceiverStream::new(incoming)
}

/// A connection that has a place.
struct Admitted {
    stream: UnixStream,
    _place: Place,
}

impl Connected for Admitted {
    type ConnectInfo = UdsConnectInfo;

    fn connect_info(&self) -> UdsConnectInfo {
        self.stream.connect_info()
    }
}

impl AsyncRead for Admitted {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Admitted {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffers: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, buffers)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

struct Control {
    access: Access,
    agent: Arc<Agent>,
}

impl Control {
    fn controller<T>(&self, request: &Request<T>) -> Result<Controller, Status> {
        Ok(self.access.controller(asker(request))?)
    }

    fn reader<T>(&self, request: &Request<T>) -> Result<Reader, Status> {
        Ok(self.access.reader(asker(request), |peer| self.agent.models.is_listed(peer))?)
    }
}

fn asker<T>(request: &Request<T>) -> Peer {
    let info = request.extensions().get::<UdsConnectInfo>();
    info.and_then(|info| info.peer_cred).map_or(Peer::NONE, Peer::from)
}

fn models(agent: &Agent, reader: Reader) -> Vec<v1::Model> {
    agent.models.list(reader).into_iter().map(v1::Model::from).collect()
}

fn malformed(error: WireError) -> Status {
    Status::invalid_argument(format!("{error} ({})", error.code()))
}

#[tonic::async_trait]
impl v1::agent_server::Agent for Control {
    type WatchModelsStream = Pin<Box<dyn Stream<Item = Result<v1::WatchModelsResponse, Status>> + Send>>;

    async fn list_models(
        &self,
        request: Request<v1::ListModelsRequest>,
    ) -> Result<Response<v1::ListModelsResponse>, Status> {
        let models = models(&self.agent, self.reader(&request)?);
        Ok(Response::new(v1::ListModelsResponse { models }))
    }

    async fn watch_models(
        &self,
        request: Request<v1::WatchModelsRequest>,
    ) -> Result<Response<Self::WatchModelsStream>, Status> {
        let reader = self.reader(&request)?;
        let mut changes = self.agent.models.changes();
        let agent = Arc::clone(&self.agent);
        // One that nobody takes is not followed by another.
        let (sender, receiver) = mpsc::channel(1);
        tokio::spawn(async move {
            loop {
                changes.mark_unchanged();
                let models = models(&agent, reader);
                if sender.send(Ok(v1::WatchModelsResponse { models })).await.is_err() {
                    return;
                }
                tokio::select! {
                    changed = changes.changed() => if changed.is_err() { return },
                    () = sender.closed() => return,
                }
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(receiver))))
    }

    async fn load_model(
        &self,
        request: Request<v1::LoadModelRequest>,
    ) -> Result<Response<v1::LoadModelResponse>, Status> {
        let controller = self.controller(&request)?;
        let order = LoadOrder::try_from(request.into_inner()).map_err(malformed)?;
        self.agent.load(&controller, order)?;
        Ok(Response::new(v1::LoadModelResponse {}))
    }

    async fn unload_model(
        &self,
        request: Request<v1::UnloadModelRequest>,
    ) -> Result<Response<v1::UnloadModelResponse>, Status> {
        self.controller(&request)?;
        let name = ModelName::try_from(request.into_inner()).map_err(malformed)?;
        self.agent.models.end(&name, Why::Unloaded).await?;
        Ok(Response::new(v1::UnloadModelResponse {}))
    }
}
