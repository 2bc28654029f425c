//! Dials the keeper, keeps one stream to it, dials again when it ends.

use std::sync::Arc;
use std::time::Duration;

use hyper_util::rt::TokioIo;
use ring::rand::{SecureRandom, SystemRandom};
use tokio::net::UnixStream;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::{Channel, ClientTlsConfig, Endpoint, Uri};
use tonic::{Status, Streaming};
use vault_proto::limits::LINK_MESSAGE_BYTES_MAX;
use vault_proto::v1::keeper_link_client::KeeperLinkClient;
use vault_proto::v1::{AttachResponse, attach_response};

use super::serve_store::StoreCalls;
use super::{KeeperAddress, Link, Notices, State, Stream, Turns, Witnesses};
use crate::server::root_cause;
use crate::store::Store;

const DIAL_TIME_MAX: Duration = Duration::from_secs(5);
const BACKOFF_FIRST: Duration = Duration::from_millis(100);
const BACKOFF_MAX: Duration = Duration::from_secs(5);
/// A stream that lasted so long was a good one: the next dial does not wait longer than the first.
const GOOD_STREAM: Duration = Duration::from_secs(10);
const KEEP_ALIVE_EVERY: Duration = Duration::from_secs(10);
const KEEP_ALIVE_TIME_MAX: Duration = Duration::from_secs(10);
const SWEEP_EVERY: Duration = Duration::from_secs(5);
/// How often a host that has a stream says so to the others.
pub(crate) const ANNOUNCE_EVERY: Duration = Duration::from_secs(30);
/// Messages that wait to be sent.
const OUTGOING_MAX: usize = 64;

/// A keeper, and how to dial it.
#[derive(Clone, Debug)]
pub(crate) struct Dial {
    address: KeeperAddress,
    endpoint: Endpoint,
}

impl Dial {
    /// With the certificates of `tls`, which an `https` address needs and no other has.
    pub(crate) fn new(address: KeeperAddress, tls: Option<ClientTlsConfig>) -> Result<Self, tonic::transport::Error> {
        let endpoint = match &address {
            // The authority means nothing here: the stream goes to the one address of the configuration.
            KeeperAddress::Unix(_) => Endpoint::from_static("http://keeper"),
            KeeperAddress::Tcp(address) => Endpoint::from_shared(format!("http://{address}"))?,
            KeeperAddress::Tls { .. } => Endpoint::from_shared(address.to_string())?,
        };
        let endpoint = endpoint
            .connect_timeout(DIAL_TIME_MAX)
            .tcp_nodelay(true)
            .http2_keep_alive_interval(KEEP_ALIVE_EVERY)
            .keep_alive_timeout(KEEP_ALIVE_TIME_MAX)
            .keep_alive_while_idle(true);
        let endpoint = match (&address, tls) {
            // The name that the certificate must have; of an IPv6 address without its brackets.
            (KeeperAddress::Tls { host, .. }, Some(tls)) => endpoint.tls_config(tls.domain_name(host))?,
            (_, Some(tls)) => endpoint.tls_config(tls)?,
            (_, None) => endpoint,
        };
        Ok(Self { address, endpoint })
    }

    async fn connect(&self) -> Result<Channel, tonic::transport::Error> {
        match &self.address {
            KeeperAddress::Tcp(_) | KeeperAddress::Tls { .. } => self.endpoint.connect().await,
            KeeperAddress::Unix(path) => {
                let path = path.clone();
                let connect = tower::service_fn(move |_: Uri| {
                    let path = path.clone();
                    async move { UnixStream::connect(path).await.map(TokioIo::new) }
                });
                self.endpoint.connect_with_connector(connect).await
            }
        }
    }
}

/// What a host does for its keeper.
#[derive(Clone, Debug)]
pub(crate) struct Services {
    /// Log and blobs.
    pub(crate) store: Arc<dyn Store>,
    /// Who can be asked to cosign the log.
    pub(crate) witnesses: Witnesses,
    /// Whose turn it is to write to the log.
    pub(crate) turns: Turns,
    /// What the other hosts of the store are told.
    pub(crate) advertise: Option<String>,
}

/// Keeps a stream to a keeper until the returned future is dropped. The future never ends by itself.
pub(crate) fn run(dial: Dial, services: Services, notices: Notices) -> (Link, impl Future<Output = ()> + Send + use<>) {
    let (sender, state) = watch::channel(State::Down("not dialled yet".to_owned()));
    (Link { state }, keep_attached(dial, services, sender, notices))
}

async fn keep_attached(dial: Dial, services: Services, state: watch::Sender<State>, notices: Notices) {
    let address = &dial.address;
    let mut backoff = BACKOFF_FIRST;
    let mut said = String::new();
    loop {
        let begun = Instant::now();
        let status = match attach(&dial, &services, &state, &notices).await {
            Ok(()) => "the keeper ended the stream".to_owned(),
            Err(status) => status.message().to_owned(),
        };
        if begun.elapsed() > GOOD_STREAM {
            backoff = BACKOFF_FIRST;
        }
        if let State::Up(stream) = state.send_replace(State::Down(format!("{address}: {status}"))) {
            stream.end();
            notices.forget();
            said.clear();
        }
        // Each reason once, not each dial.
        if said != status {
            tracing::warn!(keeper = %address, reason = status, "no stream to the keeper");
            said = status;
        }
        tokio::time::sleep(with_jitter(backoff)).await;
        backoff = (2 * backoff).min(BACKOFF_MAX);
    }
}

/// One stream, from dial to end. Returns only after every store call of this stream has ended.
async fn attach(
    dial: &Dial,
    services: &Services,
    state: &watch::Sender<State>,
    notices: &Notices,
) -> Result<(), Status> {
    // A host that can't reach its store is of no use to a keeper, which asks the one that attached last.
    let shared = services.store.clone();
    let refreshed = tokio::task::spawn_blocking(move || shared.attached()).await;
    refreshed
        .map_err(|_| Status::internal("the store panicked"))?
        .map_err(|error| Status::unavailable(format!("{}: {error}", error.code())))?;
    let dialled = tokio::time::timeout(DIAL_TIME_MAX, dial.connect()).await;
    let channel = dialled
        .map_err(|_| Status::unavailable("no answer"))?
        .map_err(|error| Status::unavailable(root_cause(&error)))?;
    let mut client = KeeperLinkClient::new(channel)
        .max_decoding_message_size(LINK_MESSAGE_BYTES_MAX)
        .max_encoding_message_size(LINK_MESSAGE_BYTES_MAX);
    let (outgoing, messages) = mpsc::channel(OUTGOING_MAX);
    let attached = tokio::time::timeout(DIAL_TIME_MAX, client.attach(ReceiverStream::new(messages))).await;
    let incoming = attached.map_err(|_| Status::unavailable("no answer to Attach"))??.into_inner();

    let stream = Arc::new(Stream::new(outgoing.clone()));
    state.send_replace(State::Up(stream.clone()));
    tracing::info!(keeper = %dial.address, "attached to the keeper");
    let mut store_calls = StoreCalls::new(services, outgoing);
    let ended = tokio::select! {
        ended = receive(incoming, &stream, &mut store_calls, notices) => ended,
        () = keep_announced(services) => unreachable!("it goes on"),
    };
    // Calls fail at once; store calls that began are seen to their end, so that none runs beside the next stream.
    stream.end();
    store_calls.finish().await;
    announce(services, false).await;
    ended
}

/// Says again and again where the keeper is reached, until it is dropped.
async fn keep_announced(services: &Services) {
    let mut every = tokio::time::interval(ANNOUNCE_EVERY);
    loop {
        every.tick().await;
        announce(services, true).await;
    }
}

/// Others are told in vain where this fails: they say then that nobody has the keeper.
async fn announce(services: &Services, attached: bool) {
    let Some(address) = services.advertise.clone() else { return };
    let store = services.store.clone();
    match tokio::task::spawn_blocking(move || store.announce(&address, attached)).await {
        Ok(Err(error)) => tracing::warn!(code = error.code(), %error, "can't tell the other hosts"),
        Ok(Ok(())) => {}
        Err(_) => tracing::error!("the store panicked"),
    }
}

async fn receive(
    mut incoming: Streaming<AttachResponse>,
    stream: &Stream,
    store_calls: &mut StoreCalls,
    notices: &Notices,
) -> Result<(), Status> {
    let mut sweep = tokio::time::interval(SWEEP_EVERY);
    loop {
        let message = tokio::select! {
            message = incoming.message() => message?,
            now = sweep.tick() => {
                stream.forget_late_calls(now);
                continue;
            }
        };
        let Some(message) = message else { return Ok(()) };
        match message.kind {
            Some(attach_response::Kind::Reply(reply)) => {
                if !stream.answer(message.id, reply.response) {
                    tracing::debug!(id = message.id, "a reply that nobody waits for");
                }
            }
            Some(attach_response::Kind::StoreCall(call)) => store_calls.take(message.id, call).await,
            Some(attach_response::Kind::Notice(notice)) => notices.hand_on(&notice),
            None => return Err(Status::invalid_argument("the keeper sent a message of an unknown kind")),
        }
    }
}

/// Half to all of a wait, so that hosts of one keeper do not dial in step.
fn with_jitter(wait: Duration) -> Duration {
    let mut byte = [0];
    // Without randomness the whole wait is as good.
    let share = if SystemRandom::new().fill(&mut byte).is_ok() { u32::from(byte[0]) } else { 255 };
    wait / 2 + wait / 2 * share / 255
}
