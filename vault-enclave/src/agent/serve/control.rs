//! The control socket: gRPC, for `vault-enclave status` and whoever loads and unloads.

use std::pin::Pin;
use std::sync::Arc;

use tokio::net::{UnixListener, UnixStream};
use tokio::sync::mpsc;
use tokio_stream::wrappers::{ReceiverStream, UnixListenerStream};
use tokio_stream::{Stream, StreamExt};
use tonic::transport::Server;
use tonic::transport::server::UdsConnectInfo;
use tonic::{Request, Response, Status};
use vault_proto::agent::v1;
use vault_proto::agent::v1::agent_server::AgentServer;
use vault_proto::convert::{LoadOrder, ModelName, WireError};

use super::access::{Access, Controller, Peer, Reader};
use super::agent::Agent;
use super::models::Why;
use crate::failure::{Failure, Kind};

/// Requests of one connection at a time, watches included.
const CALLS_MAX: usize = 16;
/// A request names a model and a list of units.
const REQUEST_BYTES_MAX: usize = 256 << 10;

/// Serves until it is dropped.
///
/// # Errors
/// The listener failed.
pub(super) async fn serve(listener: UnixListener, access: Access, agent: Arc<Agent>) -> Result<(), Failure> {
    let (admitted, models) = (access.clone(), Arc::clone(&agent.models));
    // Whoever may do nothing gets no connection that he could hold.
    let incoming = UnixListenerStream::new(listener).filter(move |stream| {
        let is_reader = |stream| admitted.reader(peer_of(stream), |peer| models.is_listed(peer)).is_ok();
        stream.as_ref().map_or(true, is_reader)
    });
    let service = AgentServer::new(Control { access, agent }).max_decoding_message_size(REQUEST_BYTES_MAX);
    let server = Server::builder().concurrency_limit_per_connection(CALLS_MAX).add_service(service);
    let served = server.serve_with_incoming(incoming).await;
    served.map_err(|error| Failure::new(Kind::Failed, "control", vault_proto::client::causes(&error)))
}

fn peer_of(stream: &UnixStream) -> Peer {
    stream.peer_cred().map_or(NOBODY, Peer::from)
}

/// What no process is.
const NOBODY: Peer = Peer { uid: u32::MAX, gid: u32::MAX };

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
    info.and_then(|info| info.peer_cred).map_or(NOBODY, Peer::from)
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
