//! Puts it together: listeners, services, health, the stream to the keeper, and the end.

use std::fmt;
use std::fs;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::net::TcpListener;
use tokio::runtime::Handle;
use tokio::sync::{Notify, watch};
use tokio::task::{JoinError, JoinSet};
use tonic::service::Routes;
use tonic::transport::{Certificate, ClientTlsConfig, Identity, ServerTlsConfig};
use tonic_health::ServingStatus;
use tonic_health::server::HealthReporter;
use vault_proto::http::RootsError;
use vault_proto::limits::{VAULT_MESSAGE_BYTES_MAX, VAULT_REPLY_BYTES_MAX};
use vault_proto::v1::audit_server::AuditServer;
use vault_proto::v1::vault_server::VaultServer;

use crate::admission::{Admission, AdmissionLayer, Listener};
use crate::config::{Config, KeeperTls, Tls};
use crate::journal::Journal;
use crate::link::KeeperAddress;
use crate::link::{self, Dial, Keepers, Notices, Turns, Witnesses};
use crate::service::{AuditService, Host, ProvisionBySize, ProvisionService, VaultService, WORK_MAX, WithUnits, Work};
use crate::store::{self, ABANDONED_AFTER, Store, StoreError};

/// How long calls under way may go on after the host was told to stop.
const DRAIN_TIME_MAX: Duration = Duration::from_secs(20);
/// How often abandoned uploads are looked for.
const SWEEP_EVERY: Duration = Duration::from_secs(3600);

/// Streams of one connection: 200 releases at once fit on one.
const CONNECTION_STREAMS_MAX: u32 = 256;
/// The largest frames that a client may send; small frames cost uploads half their speed.
const FRAME_BYTES_MAX: u32 = (1 << 20) - 1;
/// A request has no long headers: the longest is the path of a method.
const HEADER_BYTES_MAX: u32 = 16 << 10;
const KEEP_ALIVE_EVERY: Duration = Duration::from_secs(30);
const KEEP_ALIVE_TIME_MAX: Duration = Duration::from_secs(20);
/// Requests of the audit service are names and numbers.
const AUDIT_MESSAGE_BYTES_MAX: usize = 4 << 10;

/// How a certificate begins in PEM (RFC 7468 section 5.1).
const PEM_CERTIFICATE: &[u8] = b"-----BEGIN CERTIFICATE-----";

/// Why the host can't start or go on.
#[derive(Debug)]
pub enum ServeError {
    /// The data directory can't be used.
    Store(StoreError),
    /// The journal can't be written.
    Journal(io::Error),
    /// An address can't be listened on.
    Listen {
        /// Which.
        address: String,
        /// The system's reason.
        source: io::Error,
    },
    /// A TLS file can't be read.
    TlsFile {
        /// Which.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// The TLS files are not a certificate chain and its key.
    Tls(tonic::transport::Error),
    /// The file of the keeper's authority has no certificate.
    KeeperAuthority(PathBuf),
    /// The keeper's address, or the files for dialling it over TLS, can't be used.
    Keeper(tonic::transport::Error),
    /// The file of a witness's authority can't be used.
    WitnessAuthority {
        /// Name of the witness.
        name: String,
        /// Why not.
        error: RootsError,
    },
    /// A listener ended that nobody had told to.
    Transport(String),
}

impl ServeError {
    /// Stable name of the reason.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::Store(error) => error.code(),
            Self::Journal(_) => "journal-error",
            Self::Listen { .. } => "listen-error",
            Self::TlsFile { .. } => "tls-file",
            Self::Tls(_) => "tls-identity",
            Self::KeeperAuthority(_) => "keeper-tls-authority",
            Self::Keeper(_) => "keeper-tls-identity",
            Self::WitnessAuthority { .. } => "witness-authority",
            Self::Transport(_) => "transport-error",
        }
    }
}

impl fmt::Display for ServeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Store(error) => error.fmt(f),
            Self::Journal(error) => write!(f, "can't write the journal in the data directory: {error}"),
            Self::Listen { address, source } => write!(f, "can't listen on {address}: {source}"),
            Self::TlsFile { path, source } => write!(f, "can't read {}: {source}", path.display()),
            Self::Tls(error) => {
                write!(f, "tls.cert and tls.key are not a PEM certificate chain and its key: {}", root_cause(error))
            }
            Self::KeeperAuthority(path) => {
                write!(f, "keeper_tls.ca: {} has no certificate in PEM", path.display())
            }
            Self::Keeper(error) => write!(
                f,
                "keeper_tls.cert and keeper_tls.key are not a PEM certificate chain and its key, or keeper names no \
                 server that a certificate could be for: {}",
                root_cause(error)
            ),
            Self::WitnessAuthority { name, error } => write!(f, "witnesses.\"{name}\".ca: {error}"),
            Self::Transport(why) => write!(f, "a listener ended: {why}"),
        }
    }
}

impl std::error::Error for ServeError {}

/// A host that has its data directory and its addresses, and serves nothing yet.
#[derive(Debug)]
pub struct BoundHost {
    store: Arc<dyn Store>,
    journal: Arc<Journal>,
    config: Config,
    keepers: Vec<Dial>,
    witnesses: Witnesses,
    listeners: Vec<(Listener, Services, Option<ServerTlsConfig>)>,
    listen: Option<SocketAddr>,
    provision_listen: Option<SocketAddr>,
}

/// What a listener serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Services {
    All,
    AllButProvision,
}

impl BoundHost {
    /// Opens the data directory and binds the addresses.
    ///
    /// # Errors
    /// See [`ServeError`].
    pub async fn bind(config: Config) -> Result<Self, ServeError> {
        let tls = config.tls.as_ref().map(read_tls).transpose()?;
        let keepers = keepers(&config)?;
        let witnesses = witnesses(&config)?;
        let (to_open, runtime) = (config.clone(), Handle::current());
        let open = move || store::open(&to_open, runtime);
        let store = tokio::task::spawn_blocking(open).await.expect("opening a store does not panic");
        let store = store.map_err(ServeError::Store)?;
        let journal = Arc::new(Journal::open(&config.data_dir).map_err(ServeError::Journal)?);
        let mut listeners = Vec::new();
        let mut addresses = [None, None];
        let on_listen = if config.provision_listen.is_some() { Services::AllButProvision } else { Services::All };
        let wanted = [(config.listen, on_listen), (config.provision_listen, Services::All)];
        for ((address, services), bound) in wanted.into_iter().zip(&mut addresses) {
            let Some(address) = address else { continue };
            let failed = |source| ServeError::Listen { address: address.to_string(), source };
            let listener = TcpListener::bind(address).await.map_err(failed)?;
            *bound = Some(listener.local_addr().map_err(failed)?);
            listeners.push((Listener::Tcp(listener), services, tls.clone()));
        }
        if let Some(path) = &config.unix {
            let failed = |source| ServeError::Listen { address: path.display().to_string(), source };
            listeners.push((Listener::unix(path).await.map_err(failed)?, Services::All, None));
        }
        let [listen, provision_listen] = addresses;
        Ok(Self { store, journal, config, keepers, witnesses, listeners, listen, provision_listen })
    }

    /// The TCP address that it listens on: the one of the configuration, with the port that the system chose for port
    /// 0.
    #[must_use]
    pub fn listen(&self) -> Option<SocketAddr> {
        self.listen
    }

    /// The same for `provision_listen`.
    #[must_use]
    pub fn provision_listen(&self) -> Option<SocketAddr> {
        self.provision_listen
    }

    /// Serves until `stop` ends, then lets calls under way go on for a bounded time.
    ///
    /// # Errors
    /// A listener failed.
    pub async fn serve(self, stop: impl Future<Output = ()> + Send) -> Result<(), ServeError> {
        let admission = Arc::new(Admission::new(&self.config.limits));
        let advertise = self.config.advertise.clone();
        let (witnesses, turns) = (self.witnesses, Turns::default());
        let services = link::Services { store: self.store.clone(), witnesses, turns, advertise };
        let (notices, mut links, mut background) = (Notices::default(), Vec::new(), JoinSet::new());
        for keeper in self.keepers {
            let (link, attached) = link::run(keeper, services.clone(), notices.clone());
            links.push(link);
            background.spawn(attached);
        }
        let keepers = Keepers::new(links, notices);
        let host = Arc::new(Host {
            store: self.store.clone(),
            keepers: keepers.clone(),
            journal: self.journal,
            admission: admission.clone(),
            publishing: Arc::default(),
            work: Work::new(WORK_MAX),
            elsewhere: tokio::sync::Mutex::new(None),
        });
        let (health, health_service) = tonic_health::server::health_reporter();
        let (stopping, stopped) = watch::channel(false);
        let mut listeners = JoinSet::new();
        for (listener, services, tls) in self.listeners {
            let routes = routes(&host, services).add_service(health_service.clone());
            let mut server = transport(&admission);
            if let Some(tls) = tls {
                server = server.tls_config(tls).map_err(ServeError::Tls)?;
            }
            let incoming = listener.incoming(admission.clone());
            let mut stopped = stopped.clone();
            listeners.spawn(async move {
                let stop = async move {
                    // An error means that nobody can say stop any more.
                    let _ = stopped.wait_for(|stopped| *stopped).await;
                };
                server.serve_with_incoming_shutdown(routes.prepare(), incoming, stop).await
            });
        }
        for address in [self.listen, self.provision_listen].into_iter().flatten() {
            tracing::info!(%address, tls = self.config.tls.is_some(), "listening");
        }
        let notices = keepers.notices().clone();
        background.spawn(report_health(keepers, health.clone()));
        background.spawn(remove_abandoned_uploads(self.store));

        let failed = tokio::select! {
            () = stop => None,
            Some(ended) = listeners.join_next() => Some(ended),
        };
        tracing::info!("stopping");
        report(&health, ServingStatus::NotServing).await;
        stopping.send_replace(true);
        notices.stop();
        let drain = async { while listeners.join_next().await.is_some() {} };
        if tokio::time::timeout(DRAIN_TIME_MAX, drain).await.is_err() {
            tracing::warn!("calls were under way when the time to stop was over");
        }
        failed.map_or(Ok(()), |ended| Err(ServeError::Transport(why_ended(ended))))
    }
}

/// Of a listener that nobody had told to end: a host without it serves nobody who comes that way, and is to be started again.
fn why_ended(listener: Result<Result<(), tonic::transport::Error>, JoinError>) -> String {
    match listener {
        Ok(Ok(())) => "it takes no more connections".to_owned(),
        Ok(Err(error)) => root_cause(&error),
        Err(error) => error.to_string(),
    }
}

/// Checks that the TLS files of a configuration are there and fit each other.
///
/// # Errors
/// [`ServeError::TlsFile`], [`ServeError::Tls`], [`ServeError::KeeperAuthority`], [`ServeError::Keeper`].
pub fn check_tls(config: &Config) -> Result<(), ServeError> {
    keepers(config)?;
    witnesses(config)?;
    let Some(tls) = config.tls.as_ref().map(read_tls).transpose()? else { return Ok(()) };
    tonic::transport::Server::builder().tls_config(tls).map(drop).map_err(ServeError::Tls)
}

/// Asks whether the bucket or the database of a configuration can be used, if it names one. Blocks.
///
/// # Errors
/// [`ServeError::Store`].
pub fn check_store(config: &Config, runtime: Handle) -> Result<(), ServeError> {
    store::probe(config, runtime).map_err(ServeError::Store)
}

fn read_tls(tls: &Tls) -> Result<ServerTlsConfig, ServeError> {
    Ok(ServerTlsConfig::new().identity(read_identity(tls)?))
}

fn witnesses(config: &Config) -> Result<Witnesses, ServeError> {
    Witnesses::new(&config.witnesses).map_err(|(name, error)| ServeError::WitnessAuthority { name, error })
}

fn keepers(config: &Config) -> Result<Vec<Dial>, ServeError> {
    let tls = config.keeper_tls.as_ref().map(read_keeper_tls).transpose()?;
    let dial = |keeper: &KeeperAddress| {
        // Not for one on this machine: see `Config::parse`.
        let tls = tls.clone().filter(|_| matches!(keeper, KeeperAddress::Tls { .. }));
        Dial::new(keeper.clone(), tls).map_err(ServeError::Keeper)
    };
    config.keepers.iter().map(dial).collect()
}

fn read_keeper_tls(tls: &KeeperTls) -> Result<ClientTlsConfig, ServeError> {
    // The TLS library takes a file without certificates as an authority that signed nothing.
    let ca = read(&tls.ca)?;
    if !ca.windows(PEM_CERTIFICATE.len()).any(|window| window == PEM_CERTIFICATE) {
        return Err(ServeError::KeeperAuthority(tls.ca.clone()));
    }
    let config = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(ca));
    match &tls.identity {
        Some(identity) => Ok(config.identity(read_identity(identity)?)),
        None => Ok(config),
    }
}

fn read_identity(tls: &Tls) -> Result<Identity, ServeError> {
    Ok(Identity::from_pem(read(&tls.cert)?, read(&tls.key)?))
}

fn read(path: &PathBuf) -> Result<Vec<u8>, ServeError> {
    fs::read(path).map_err(|source| ServeError::TlsFile { path: path.clone(), source })
}

fn routes(host: &Arc<Host>, services: Services) -> Routes {
    let vault = VaultServer::new(VaultService(host.clone()))
        .max_decoding_message_size(VAULT_MESSAGE_BYTES_MAX)
        .max_encoding_message_size(VAULT_REPLY_BYTES_MAX);
    let audit = AuditServer::new(AuditService(host.clone()))
        .max_decoding_message_size(AUDIT_MESSAGE_BYTES_MAX)
        .max_encoding_message_size(VAULT_REPLY_BYTES_MAX);
    let routes = Routes::new(WithUnits(vault)).add_service(audit);
    match services {
        Services::All => routes.add_service(ProvisionBySize::new(ProvisionService(host.clone()))),
        Services::AllButProvision => routes,
    }
}

type Transport = tonic::transport::Server<tower::layer::util::Stack<AdmissionLayer, tower::layer::util::Identity>>;

fn transport(admission: &Arc<Admission>) -> Transport {
    tonic::transport::Server::builder()
        // Windows grow with what a connection really moves: fixed large ones would let every idle connection send as
        // much.
        .http2_adaptive_window(Some(true))
        .max_frame_size(FRAME_BYTES_MAX)
        .max_concurrent_streams(CONNECTION_STREAMS_MAX)
        .http2_max_header_list_size(HEADER_BYTES_MAX)
        .http2_keepalive_interval(Some(KEEP_ALIVE_EVERY))
        .http2_keepalive_timeout(Some(KEEP_ALIVE_TIME_MAX))
        .layer(AdmissionLayer(admission.clone()))
}

/// The process as a whole serves from its start to its stop; the Vault service serves while there is a keeper.
async fn report_health(keepers: Keepers, health: HealthReporter) {
    health.set_service_status("", ServingStatus::Serving).await;
    let changed = Arc::new(Notify::new());
    let watching = keepers.watch_links(changed.clone());
    tokio::pin!(watching);
    loop {
        let status = if keepers.down().is_none() { ServingStatus::Serving } else { ServingStatus::NotServing };
        health.set_service_status("weightvault.v1.Vault", status).await;
        tokio::select! {
            () = changed.notified() => {}
            () = &mut watching => return,
        }
    }
}

async fn report(health: &HealthReporter, status: ServingStatus) {
    health.set_service_status("", status).await;
    health.set_service_status("weightvault.v1.Vault", status).await;
}

async fn remove_abandoned_uploads(store: Arc<dyn Store>) {
    loop {
        let store = store.clone();
        let before = SystemTime::now() - ABANDONED_AFTER;
        match tokio::task::spawn_blocking(move || store.remove_abandoned(before)).await {
            Ok(Ok(0)) => {}
            Ok(Ok(models)) => tracing::info!(models, "removed uploads that nobody went on with"),
            Ok(Err(error)) => tracing::warn!(code = error.code(), %error, "can't remove abandoned uploads"),
            Err(error) => tracing::error!(%error, "the sweep panicked"),
        }
        tokio::time::sleep(SWEEP_EVERY).await;
    }
}

/// The system's reason at the bottom of an error that says only `transport error`.
pub(crate) fn root_cause(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    cause.to_string()
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpStream;

    use super::*;
    use crate::config::Limits;

    #[tokio::test]
    async fn a_listener_that_ends_by_itself_is_a_failure_however_it_does() {
        let admission = Arc::new(Admission::new(&Limits::default()));
        let mut listeners = JoinSet::new();
        let (_, health) = tonic_health::server::health_reporter();
        let nobody = tokio_stream::empty::<io::Result<TcpStream>>();
        let server = transport(&admission).add_service(health);
        listeners.spawn(server.serve_with_incoming_shutdown(nobody, std::future::pending()));
        listeners.spawn(async { Err(tonic::transport::Endpoint::from_shared("").unwrap_err()) });
        listeners.spawn(async { panic!("a listener panics") });
        let mut said = 0;
        while let Some(ended) = listeners.join_next().await {
            let error = ServeError::Transport(why_ended(ended));
            assert_eq!(error.code(), "transport-error");
            assert!(error.to_string().len() > "a listener ended: ".len(), "{error}");
            said += 1;
        }
        assert_eq!(said, 3);
    }
}
