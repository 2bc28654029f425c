//! A host that lies: it stands between a guest and the true host, and changes what it is told to in the answers.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio_stream::wrappers::UnixListenerStream;
use tokio_stream::{Stream, StreamExt};
use tonic::transport::{Channel, Endpoint, Server};
use tonic::{Request, Response, Status, Streaming};
use vault_proto::v1::vault_client::VaultClient;
use vault_proto::v1::vault_server::{Vault, VaultServer};
use vault_proto::v1::{self, GetChallengeResponse, ReleaseKeysResponse};

use crate::World;

/// What becomes of the note under a proof, and of that under the first one.
pub type NoteChange = Arc<dyn Fn(&str, &str) -> String + Send + Sync>;

/// What it changes.
#[derive(Clone)]
pub enum Lie {
    /// Nothing.
    None,
    /// Something in a challenge.
    Challenge(fn(&mut GetChallengeResponse)),
    /// Something in a grant; it has kept the first grant that it relayed.
    Grant(fn(&mut ReleaseKeysResponse, &ReleaseKeysResponse)),
    /// Something in the note of a grant's proof; it has kept that of the first grant too.
    Note(NoteChange),
    /// The ciphertext of unit 2, in every byte.
    Ciphertext,
    /// The first renewal is answered to nobody. The next one is asked for by this policy, which is the host's own, and gets that
    /// answer. Then it is away.
    Policy([u8; 32]),
}

/// One that runs until it is dropped.
pub struct Hostile {
    url: String,
    state: Arc<Mutex<State>>,
    server: tokio::task::JoinHandle<()>,
}

struct State {
    lie: Lie,
    first: Option<ReleaseKeysResponse>,
    renewal: Kept,
}

/// A renewal that the keeper signed, and its holder has not seen.
enum Kept {
    NotYet,
    Here(v1::RenewLeaseResponse),
    Gone,
}

impl Hostile {
    /// In front of the world's host.
    pub async fn start(world: &World) -> Self {
        let channel = Endpoint::from_shared(world.url()).expect("a URL").connect().await.expect("the host listens");
        let state = Arc::new(Mutex::new(State { lie: Lie::None, first: None, renewal: Kept::NotYet }));
        let socket = world.path("hostile.sock");
        let listener = tokio::net::UnixListener::bind(&socket).expect("the socket is free");
        let relay = Relay { state: Arc::clone(&state), host: VaultClient::new(channel) };
        let server = Server::builder().add_service(VaultServer::new(relay));
        let server = tokio::spawn(async move {
            // Its end is the end of the test.
            let _ = server.serve_with_incoming(UnixListenerStream::new(listener)).await;
        });
        Self { url: format!("unix:{}", socket.display()), state, server }
    }

    /// Where it listens.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// From now on it lies so.
    pub fn tell(&self, lie: Lie) {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).lie = lie;
    }
}

impl Drop for Hostile {
    fn drop(&mut self) {
        self.server.abort();
    }
}

struct Relay {
    state: Arc<Mutex<State>>,
    host: VaultClient<Channel>,
}

impl Relay {
    fn lie(&self) -> Lie {
        self.state().lie.clone()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn host(&self) -> VaultClient<Channel> {
        self.host.clone()
    }
}

type Units = std::pin::Pin<Box<dyn Stream<Item = Result<v1::FetchUnitsResponse, Status>> + Send>>;

#[tonic::async_trait]
impl Vault for Relay {
    type FetchUnitsStream = Units;
    type WatchLeaseStream = Streaming<v1::WatchLeaseResponse>;

    async fn get_challenge(
        &self,
        request: Request<v1::GetChallengeRequest>,
    ) -> Result<Response<GetChallengeResponse>, Status> {
        let mut answer = self.host().get_challenge(request.into_inner()).await?.into_inner();
        let state = self.state();
        match (&state.lie, &state.renewal) {
            (Lie::Challenge(change), _) => change(&mut answer),
            (Lie::Policy(policy), Kept::Here(_)) => answer.policy_digest = policy.to_vec(),
            (Lie::Policy(_), Kept::Gone) => return Err(away()),
            (Lie::Policy(_), Kept::NotYet) | (Lie::None | Lie::Grant(_) | Lie::Note(_) | Lie::Ciphertext, _) => {}
        }
        Ok(Response::new(answer))
    }

    async fn release_keys(
        &self,
        request: Request<v1::ReleaseKeysRequest>,
    ) -> Result<Response<ReleaseKeysResponse>, Status> {
        let mut answer = self.host().release_keys(request.into_inner()).await?.into_inner();
        let mut state = self.state();
        let first = state.first.get_or_insert_with(|| answer.clone()).clone();
        match &state.lie {
            Lie::Grant(change) => change(&mut answer, &first),
            Lie::Note(change) => {
                let (proof, note) = answer.log_proof.split_once("\n\n").expect("a proof ends with its checkpoint");
                let (_, old) = first.log_proof.split_once("\n\n").expect("a proof ends with its checkpoint");
                answer.log_proof = format!("{proof}\n\n{}", change(note, old));
            }
            Lie::None | Lie::Challenge(_) | Lie::Ciphertext | Lie::Policy(_) => {}
        }
        Ok(Response::new(answer))
    }

    async fn fetch_units(&self, request: Request<v1::FetchUnitsRequest>) -> Result<Response<Units>, Status> {
        let chunks = self.host().fetch_units(request.into_inner()).await?.into_inner();
        let lies = matches!(self.lie(), Lie::Ciphertext);
        let chunks = chunks.map(move |chunk| {
            let mut chunk = chunk?;
            if lies && chunk.unit == 2 {
                let mut data = chunk.data.to_vec();
                data.iter_mut().for_each(|byte| *byte ^= 1);
                chunk.data = data.into();
            }
            Ok(chunk)
        });
        Ok(Response::new(Box::pin(chunks)))
    }

    async fn renew_lease(
        &self,
        request: Request<v1::RenewLeaseRequest>,
    ) -> Result<Response<v1::RenewLeaseResponse>, Status> {
        if !matches!(self.lie(), Lie::Policy(_)) {
            return self.host().renew_lease(request.into_inner()).await;
        }
        if matches!(self.state().renewal, Kept::NotYet) {
            let kept = self.host().renew_lease(request.into_inner()).await?.into_inner();
            self.state().renewal = Kept::Here(kept);
            // What says that a connection was lost is sent again as it is, and would use up what was kept.
            return Err(Status::resource_exhausted("too many requests"));
        }
        match std::mem::replace(&mut self.state().renewal, Kept::Gone) {
            Kept::Here(kept) => Ok(Response::new(kept)),
            Kept::NotYet | Kept::Gone => Err(away()),
        }
    }

    async fn end_lease(&self, request: Request<v1::EndLeaseRequest>) -> Result<Response<v1::EndLeaseResponse>, Status> {
        self.host().end_lease(request.into_inner()).await
    }

    async fn watch_lease(
        &self,
        request: Request<v1::WatchLeaseRequest>,
    ) -> Result<Response<Self::WatchLeaseStream>, Status> {
        self.host().watch_lease(request.into_inner()).await
    }

    async fn submit_extension(
        &self,
        request: Request<v1::SubmitExtensionRequest>,
    ) -> Result<Response<v1::SubmitExtensionResponse>, Status> {
        self.host().submit_extension(request.into_inner()).await
    }

    async fn get_key_epochs(
        &self,
        request: Request<v1::GetKeyEpochsRequest>,
    ) -> Result<Response<v1::GetKeyEpochsResponse>, Status> {
        self.host().get_key_epochs(request.into_inner()).await
    }

    async fn get_manifest(
        &self,
        request: Request<v1::GetManifestRequest>,
    ) -> Result<Response<v1::GetManifestResponse>, Status> {
        self.host().get_manifest(request.into_inner()).await
    }

    async fn list_models(
        &self,
        request: Request<v1::ListModelsRequest>,
    ) -> Result<Response<v1::ListModelsResponse>, Status> {
        self.host().list_models(request.into_inner()).await
    }
}

fn away() -> Status {
    Status::unavailable("there is no keeper")
}
