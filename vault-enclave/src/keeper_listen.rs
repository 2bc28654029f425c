//! Where a keeper listens for its host, and what protects the way between them.
//!
//! Nothing that the vault does depends on it: whoever reaches the link can relay and refuse, no more, and keys cross it
//! wrapped to guests. TLS is a second layer, without which whoever is on the way reads which guest asks for which model; with
//! `--tls-client-ca` nobody else than the host can take its place either.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, UnixListener};
use tokio_stream::Stream;
use tokio_stream::wrappers::{TcpListenerStream, UnixListenerStream};
use tonic::transport::server::{Connected, Router};
use tonic::transport::{Certificate, Identity, Server, ServerTlsConfig};
use vault_proto::v1::keeper_link_server::{KeeperLink, KeeperLinkServer};

/// How long a TLS handshake may take.
const HANDSHAKE_TIME_MAX: Duration = Duration::from_secs(5);
/// How a certificate begins in PEM (RFC 7468 section 5.1).
const PEM_CERTIFICATE: &[u8] = b"-----BEGIN CERTIFICATE-----";

/// Options of `vault-enclave keeper` about its link.
#[derive(clap::Args, Debug)]
pub struct ListenArgs {
    /// Where the host dials: `unix:/path/to/socket`, or `tcp:IP:PORT`, which beyond this machine needs TLS. Whoever reaches
    /// it can relay and refuse, no more.
    #[arg(long, value_name = "ADDRESS")]
    listen: Option<String>,
    /// PEM of the keeper's TLS certificate, its own first. The host then dials https://HOST:PORT, and its [keeper_tls] names
    /// the authority.
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    tls_cert: Option<PathBuf>,
    /// PEM of its private key.
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    tls_key: Option<PathBuf>,
    /// PEM of the authority of hosts' certificates: only a host that shows one is let in. Use an authority of the link's own.
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    tls_client_ca: Option<PathBuf>,
    /// Listen beyond this machine without TLS.
    #[arg(long, conflicts_with = "tls_cert")]
    insecure_plaintext_link: bool,
}

/// A checked place to listen at.
#[derive(Debug)]
pub struct Listen(Place);

#[derive(Debug)]
enum Place {
    Unix(PathBuf),
    Tcp(SocketAddr),
    Tls(SocketAddr, Box<ServerTlsConfig>),
}

/// Why a keeper does not listen there.
#[derive(Debug)]
pub enum ListenError {
    /// No address was given.
    Missing,
    /// Neither `unix:` with an absolute path nor `tcp:` with an IP address and a port.
    Address(String),
    /// An address beyond this machine, without TLS.
    Plaintext(SocketAddr),
    /// TLS for a unix socket.
    TlsOnUnix,
    /// A TLS file can't be read.
    TlsFile(PathBuf, io::Error),
    /// The file of the hosts' authority has no certificate.
    TlsClientAuthority(PathBuf),
    /// The TLS files are not a certificate chain and its key.
    TlsIdentity(String),
    /// The address can't be listened on.
    Bind(String, io::Error),
    /// The listener failed, or ended before it was told to.
    Transport(String),
}

impl ListenArgs {
    /// As it was typed.
    #[must_use]
    pub fn address(&self) -> &str {
        self.listen.as_deref().unwrap_or_default()
    }

    /// Checks them and reads the TLS files.
    ///
    /// # Errors
    /// All of [`ListenError`] but `Bind` and `Transport`.
    pub fn check(&self) -> Result<Listen, ListenError> {
        let tls = match self.tls_cert.as_ref().zip(self.tls_key.as_ref()) {
            Some((cert, key)) => Some(tls(cert, key, self.tls_client_ca.as_deref())?),
            None => None,
        };
        let listen = self.listen.as_deref().ok_or(ListenError::Missing)?;
        let malformed = || ListenError::Address(listen.to_owned());
        match (listen.split_once(':').ok_or_else(malformed)?, tls) {
            (("unix", path), None) if path.starts_with('/') => Ok(Listen(Place::Unix(path.into()))),
            (("unix", path), Some(_)) if path.starts_with('/') => Err(ListenError::TlsOnUnix),
            (("tcp", address), tls) => {
                let address = address.strip_prefix("//").unwrap_or(address);
                let address: SocketAddr = address.parse().map_err(|_| malformed())?;
                match tls {
                    Some(tls) => Ok(Listen(Place::Tls(address, Box::new(tls)))),
                    None if address.ip().is_loopback() || self.insecure_plaintext_link => {
                        Ok(Listen(Place::Tcp(address)))
                    }
                    None => Err(ListenError::Plaintext(address)),
                }
            }
            _ => Err(malformed()),
        }
    }
}

impl Listen {
    /// Serves until `stop` ends.
    ///
    /// # Errors
    /// [`ListenError::Bind`], [`ListenError::Transport`].
    pub async fn serve(
        self,
        link: KeeperLinkServer<impl KeeperLink>,
        stop: impl Future<Output = ()>,
    ) -> Result<(), ListenError> {
        match self.0 {
            Place::Unix(path) => {
                let failed = |error| ListenError::Bind(format!("unix:{}", path.display()), error);
                // A socket that a killed run left behind; a live one is held by the directory's lock.
                match std::fs::remove_file(&path) {
                    Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(error)),
                    _ => {}
                }
                let incoming = UnixListenerStream::new(UnixListener::bind(&path).map_err(failed)?);
                serve_on(Server::builder().add_service(link), incoming, stop).await
            }
            Place::Tcp(address) => serve_tcp(Server::builder().add_service(link), address, stop).await,
            Place::Tls(address, tls) => {
                let mut server = Server::builder().tls_config(*tls).map_err(identity)?;
                serve_tcp(server.add_service(link), address, stop).await
            }
        }
    }
}

async fn serve_tcp(server: Router, address: SocketAddr, stop: impl Future<Output = ()>) -> Result<(), ListenError> {
    let listener = TcpListener::bind(address).await;
    let listener = listener.map_err(|error| ListenError::Bind(format!("tcp:{address}"), error))?;
    serve_on(server, TcpListenerStream::new(listener), stop).await
}

/// A keeper whose listener ended serves no host, and is to be started again.
async fn serve_on<S: AsyncRead + AsyncWrite + Connected + Unpin + Send + 'static>(
    server: Router,
    incoming: impl Stream<Item = io::Result<S>>,
    stop: impl Future<Output = ()>,
) -> Result<(), ListenError> {
    let mut told = false;
    let stop = async {
        stop.await;
        told = true;
    };
    server.serve_with_incoming_shutdown(incoming, stop).await.map_err(transport)?;
    if told { Ok(()) } else { Err(ListenError::Transport("it takes no more connections".to_owned())) }
}

fn tls(cert: &Path, key: &Path, client_ca: Option<&Path>) -> Result<ServerTlsConfig, ListenError> {
    let read = |path: &Path| std::fs::read(path).map_err(|error| ListenError::TlsFile(path.to_owned(), error));
    let config =
        ServerTlsConfig::new().identity(Identity::from_pem(read(cert)?, read(key)?)).timeout(HANDSHAKE_TIME_MAX);
    // Tried alone first, so that each file has its own error.
    Server::builder().tls_config(config.clone()).map_err(identity)?;
    let Some(path) = client_ca else { return Ok(config) };
    let authority = read(path)?;
    let none = || ListenError::TlsClientAuthority(path.to_owned());
    if !authority.windows(PEM_CERTIFICATE.len()).any(|window| window == PEM_CERTIFICATE) {
        return Err(none());
    }
    let config = config.client_ca_root(Certificate::from_pem(authority));
    Server::builder().tls_config(config.clone()).map_err(|_| none())?;
    Ok(config)
}

fn identity(error: tonic::transport::Error) -> ListenError {
    ListenError::TlsIdentity(vault_proto::client::causes(&error))
}

fn transport(error: tonic::transport::Error) -> ListenError {
    ListenError::Transport(vault_proto::client::causes(&error))
}

impl ListenError {
    /// Stable name of the refusal.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::Missing => "listen-missing",
            Self::Address(_) => "listen-address",
            Self::Plaintext(_) => "listen-plaintext",
            Self::TlsOnUnix => "listen-tls-on-unix",
            Self::TlsFile(..) => "listen-tls-file",
            Self::TlsClientAuthority(_) => "listen-tls-client-authority",
            Self::TlsIdentity(_) => "listen-tls-identity",
            Self::Bind(..) => "listen-bind",
            Self::Transport(_) => "listen-transport",
        }
    }
}

impl fmt::Display for ListenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing => {
                f.write_str("say where the host dials: --listen unix:/absolute/path, or --listen tcp:IP:PORT")
            }
            Self::Address(text) => {
                write!(f, "--listen {text}: write unix:/absolute/path or tcp:IP:PORT, with a number for the address")
            }
            Self::Plaintext(address) => write!(
                f,
                "{address} can be reached from other machines: give --tls-cert FILE and --tls-key FILE, or \
                 --insecure-plaintext-link if something else protects the way to the host"
            ),
            Self::TlsOnUnix => {
                f.write_str("a unix socket has no TLS: its directory says who reaches it; leave --tls-cert out")
            }
            Self::TlsFile(path, error) => write!(f, "can't read {}: {error}", path.display()),
            Self::TlsClientAuthority(path) => {
                write!(f, "--tls-client-ca: {} has no certificate of an authority in PEM", path.display())
            }
            Self::TlsIdentity(why) => {
                write!(f, "--tls-cert and --tls-key are not a PEM certificate chain and its key: {why}")
            }
            Self::Bind(address, error) => write!(f, "can't listen on {address}: {error}"),
            Self::Transport(why) => write!(f, "the link failed: {why}"),
        }
    }
}

impl std::error::Error for ListenError {}

#[cfg(test)]
mod tests;
