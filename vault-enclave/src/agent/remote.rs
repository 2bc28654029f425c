//! The calls of an agent. What a host answers is a claim.

use std::time::Duration;

use ledger::key_epoch::EpochLink;
use ledger::manifest::{MANIFEST_BYTES_MAX, Manifest};
use ledger::vault_file::VaultFile;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Response, Status, Streaming};
use vault_proto::bulk::UnitStream;
use vault_proto::client::{CallError, connect};
use vault_proto::convert::{
    Challenge, ChallengeRequest, EndLease, Grant, KeyEpochLinks, KeyEpochsRequest, ModelName, ReleaseRequest,
    RenewRequest, SignedLease, WatchEvent, WatchLease,
};
use vault_proto::limits::VAULT_REPLY_BYTES_MAX;
use vault_proto::v1;
use vault_proto::v1::vault_client::VaultClient;

use super::error::SessionError;
use crate::failure::{Failure, Kind};

/// The client's limit governs the frames that the server sends. The most that HTTP/2 knows is 16 MiB; beyond 1 MiB the
/// allocator maps and unmaps every buffer.
const FRAME_BYTES_MAX: u32 = (1 << 20) - 1;
/// What a host may send ahead of the threads that open, and so what may wait in memory.
const STREAM_WINDOW_BYTES: u32 = 8 << 20;
const CONNECTION_WINDOW_BYTES: u32 = 16 << 20;
/// How often the same request is sent again where its answer got lost.
const REPEATS_MAX: u32 = 3;
const WATCH: &str = "WatchLease";
const REPEAT_AFTER: Duration = Duration::from_millis(500);

/// Which hosts to ask, in order, and the PEM of the authority for those with `https`.
#[derive(Clone, Debug)]
pub struct Hosts {
    /// Addresses.
    pub addresses: Vec<String>,
    /// PEM.
    pub ca: Option<String>,
}

/// A host that accepted a connection.
#[derive(Clone)]
pub struct Remote {
    address: String,
    channel: Channel,
}

/// Why a call gave nothing: the vault or the way to it, or an answer that is none.
#[derive(Debug)]
pub enum RemoteError {
    /// The call failed or was refused.
    Call(CallError),
    /// The answer is not what it must be.
    Answer(Failure),
}

impl Hosts {
    /// Connects to the first that accepts.
    ///
    /// # Errors
    /// `host-unreachable`, and what is wrong with an address.
    pub async fn connect(&self) -> Result<Remote, Failure> {
        let ca = self.ca.as_ref().map(String::as_bytes);
        let (address, channel) = connect(&self.addresses, ca, tuned).await?;
        Ok(Remote { address, channel })
    }
}

fn tuned(endpoint: Endpoint) -> Endpoint {
    endpoint
        .max_frame_size(FRAME_BYTES_MAX)
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
}

impl Remote {
    /// The address that answered.
    #[must_use]
    pub fn address(&self) -> &str {
        &self.address
    }

    /// A model's manifest. Whether it is the one that the publisher signed is for the grant to say.
    ///
    /// # Errors
    /// [`RemoteError`].
    pub async fn manifest(&self, model: ModelName) -> Result<Manifest, RemoteError> {
        const METHOD: &str = "GetManifest";
        let answer = self.client().get_manifest(v1::GetManifestRequest::from(model)).await;
        let bytes = self.answer(METHOD, answer)?.manifest;
        if bytes.len() > MANIFEST_BYTES_MAX {
            return Err(self.malformed(METHOD, format!("a manifest of {} bytes", bytes.len())));
        }
        Manifest::parse(&bytes).map_err(|error| RemoteError::Answer(error.into()))
    }

    /// A challenge.
    ///
    /// # Errors
    /// [`RemoteError`].
    pub async fn challenge(&self, request: ChallengeRequest) -> Result<Challenge, RemoteError> {
        let answer = self.client().get_challenge(v1::GetChallengeRequest::from(request)).await;
        self.read("GetChallenge", answer)
    }

    /// Redeems a load challenge. The same bytes are sent again where no answer came: they get the same answer.
    ///
    /// # Errors
    /// [`RemoteError`].
    pub async fn release(&self, request: ReleaseRequest) -> Result<Grant, RemoteError> {
        let request = v1::ReleaseKeysRequest::from(request);
        let answer = repeated(|| async { self.client().release_keys(request.clone()).await }).await;
        self.read("ReleaseKeys", answer)
    }

    /// Redeems a renew challenge, likewise.
    ///
    /// # Errors
    /// [`RemoteError`].
    pub async fn renew(&self, request: RenewRequest) -> Result<SignedLease, RemoteError> {
        let request = v1::RenewLeaseRequest::from(request);
        let answer = repeated(|| async { self.client().renew_lease(request.clone()).await }).await;
        self.read("RenewLease", answer)
    }

    /// Ends a lease.
    ///
    /// # Errors
    /// [`RemoteError`].
    pub async fn end(&self, request: EndLease) -> Result<(), RemoteError> {
        let answer = self.client().end_lease(v1::EndLeaseRequest::from(request)).await;
        self.answer("EndLease", answer).map(drop)
    }

    /// What leads from the keys of a vault file to the present ones; nothing where they are, or where the host knows no epochs.
    ///
    /// # Errors
    /// [`RemoteError`].
    pub async fn key_epochs(&self, vault: &VaultFile) -> Result<Vec<EpochLink>, RemoteError> {
        const METHOD: &str = "GetKeyEpochs";
        let request = v1::GetKeyEpochsRequest::from(KeyEpochsRequest { known: vault.keys().epoch });
        match self.client().get_key_epochs(request).await {
            Err(status) if status.code() == Code::Unimplemented => Ok(Vec::new()),
            answer => self.read(METHOD, answer).map(|KeyEpochLinks { links }| links),
        }
    }

    /// The vault file that goes on with the present keys, and what led to them.
    ///
    /// # Errors
    /// What the host says; [`SessionError::Epoch`] where it does not lead there.
    pub async fn follow(&self, vault: &VaultFile) -> Result<(VaultFile, Vec<EpochLink>), Failure> {
        let links = self.key_epochs(vault).await?;
        let vault = vault.clone().following(&links).map_err(SessionError::Epoch)?;
        Ok((vault, links))
    }

    /// Tells the keeper by which extension a lease ran on.
    ///
    /// # Errors
    /// [`RemoteError`].
    pub async fn extend(&self, extension: Vec<u8>) -> Result<(), RemoteError> {
        let request = v1::SubmitExtensionRequest { extension };
        let answer = self.client().submit_extension(request).await;
        self.answer("SubmitExtension", answer).map(drop)
    }

    /// Watches a lease: gives events until the host ends the stream.
    ///
    /// # Errors
    /// [`RemoteError`].
    pub async fn watch(&self, request: WatchLease) -> Result<Watched, RemoteError> {
        let answer = self.client().watch_lease(v1::WatchLeaseRequest::from(request)).await;
        let events = self.answer(WATCH, answer)?;
        Ok(Watched { remote: self.clone(), events })
    }

    /// Begins a stream of ciphertext.
    pub(super) async fn fetch(&self, request: &v1::FetchUnitsRequest) -> Result<UnitStream, Status> {
        UnitStream::fetch(&self.channel, request).await
    }

    fn client(&self) -> VaultClient<Channel> {
        VaultClient::new(self.channel.clone()).max_decoding_message_size(VAULT_REPLY_BYTES_MAX)
    }

    fn answer<T>(&self, method: &'static str, answer: Result<Response<T>, Status>) -> Result<T, RemoteError> {
        let failed = |status| RemoteError::Call(CallError::new(method, &self.address, &status));
        answer.map(Response::into_inner).map_err(failed)
    }

    fn read<W, T>(&self, method: &'static str, answer: Result<Response<W>, Status>) -> Result<T, RemoteError>
    where
        T: TryFrom<W>,
        T::Error: std::fmt::Display,
    {
        T::try_from(self.answer(method, answer)?).map_err(|error| self.malformed(method, error))
    }

    fn malformed(&self, method: &str, why: impl std::fmt::Display) -> RemoteError {
        let message = format!("{} does not answer {method} as it must: {why}", self.address);
        let failure = Failure::new(Kind::Failed, "answer-malformed", message);
        RemoteError::Answer(failure.next("check that vault-enclave and vault-host are of the same version"))
    }
}

/// An open watch of a lease.
pub struct Watched {
    remote: Remote,
    events: Streaming<v1::WatchLeaseResponse>,
}

impl Watched {
    /// The next event; `None` at the end.
    ///
    /// # Errors
    /// [`RemoteError`].
    pub async fn next(&mut self) -> Result<Option<WatchEvent>, RemoteError> {
        let failed = |status| RemoteError::Call(CallError::new(WATCH, &self.remote.address, &status));
        let event = self.events.message().await.map_err(failed)?;
        event.map(WatchEvent::try_from).transpose().map_err(|error| self.remote.malformed(WATCH, error))
    }
}

/// Calls again where the answer got lost on the way, with the same bytes.
async fn repeated<T, F>(call: impl Fn() -> F) -> Result<Response<T>, Status>
where
    F: Future<Output = Result<Response<T>, Status>>,
{
    let mut repeats = 0;
    loop {
        match call().await {
            Err(status) if repeats < REPEATS_MAX && got_lost(&status) => {
                repeats += 1;
                tokio::time::sleep(REPEAT_AFTER * repeats).await;
            }
            answer => return answer,
        }
    }
}

/// A refusal is an answer: it stays the same.
fn got_lost(status: &Status) -> bool {
    let error = CallError::new("", "", status);
    error.may_repeat() && !error.is_refusal()
}

impl RemoteError {
    /// Whether a new challenge may do.
    #[must_use]
    pub fn is_try_again(&self) -> bool {
        matches!(self, Self::Call(error) if error.is_try_again() || error.is_busy())
    }
}

impl From<RemoteError> for Failure {
    fn from(error: RemoteError) -> Self {
        match error {
            RemoteError::Call(error) => error.into(),
            RemoteError::Answer(failure) => failure,
        }
    }
}
