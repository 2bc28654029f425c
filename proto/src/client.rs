//! How a program reaches a host, and how a failed call reads. What a host answers is a claim: it is checked where it is
//! used.

use std::error::Error;
use std::fmt;
use std::time::Duration;

use prost::Message;
use tonic::client::Grpc;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint};
use tonic::{Code, Request, Response, Status};
use tonic_prost::ProstCodec;

use crate::v1;

/// The trailer of a gRPC status that carries a [`v1::Refusal`].
pub const REFUSAL_TRAILER: &str = "weightvault-refusal-bin";
/// How long one host may take to accept a connection, in seconds.
pub const CONNECT_SECS_MAX: u64 = 5;
/// How long a call may take, in seconds: the keeper's TPM makes keys in some of them.
pub const CALL_SECS_MAX: u64 = 120;
/// Where every host says whether a service of its answers (gRPC Health Checking Protocol).
const HEALTH_CHECK: &str = "/grpc.health.v1.Health/Check";
/// The service that answers while its host has a stream to the keeper.
const VAULT_SERVICE: &str = "weightvault.v1.Vault";
/// `SERVING` in `grpc.health.v1.HealthCheckResponse.ServingStatus`.
const SERVING: i32 = 1;
/// Characters that are kept of a text that somebody else wrote.
const TEXT_CHARS_MAX: usize = 2_000;

/// Where a host is, and how to make sure of it: `http://…`, `https://…` or `unix:/path`.
///
/// Nothing that the vault does depends on TLS. `ca` is the PEM of the authority for `https` hosts; no other authority is
/// asked.
///
/// # Errors
/// [`AddressError`].
pub fn endpoint(address: &str, ca: Option<&[u8]>) -> Result<Endpoint, AddressError> {
    let usable = ["http://", "https://", "unix:"].iter().any(|scheme| address.starts_with(scheme));
    let endpoint = Endpoint::from_shared(address.to_owned()).ok().filter(|_| usable);
    let endpoint = endpoint
        .ok_or_else(|| AddressError::Malformed { address: cut(address) })?
        .connect_timeout(Duration::from_secs(CONNECT_SECS_MAX))
        .timeout(Duration::from_secs(CALL_SECS_MAX))
        .tcp_nodelay(true);
    if !address.starts_with("https://") {
        return Ok(endpoint);
    }
    let ca = ca.ok_or_else(|| AddressError::AuthorityMissing { address: cut(address) })?;
    endpoint
        .tls_config(ClientTlsConfig::new().ca_certificate(Certificate::from_pem(ca)))
        .map_err(|error| AddressError::AuthorityMalformed { why: causes(&error) })
}

/// Connects to the first of these addresses whose host has a keeper, else to the first that accepts, which still answers
/// reads; and names it. `tune` sets what the caller needs beyond [`endpoint`].
///
/// # Errors
/// [`ConnectError`].
pub async fn connect(
    addresses: &[String],
    ca: Option<&[u8]>,
    tune: impl Fn(Endpoint) -> Endpoint,
) -> Result<(String, Channel), ConnectError> {
    let mut reasons = Vec::new();
    let mut without_keeper = None;
    for address in addresses {
        match tune(endpoint(address, ca).map_err(ConnectError::Address)?).connect().await {
            // Where there is no choice there is no question.
            Ok(channel) if addresses.len() == 1 || has_keeper(&channel).await => return Ok((address.clone(), channel)),
            Ok(channel) => without_keeper = without_keeper.or_else(|| Some((address.clone(), channel))),
            Err(error) => reasons.push(format!("{address}: {}", causes(&error))),
        }
    }
    without_keeper.ok_or(ConnectError::NoAnswer { reasons })
}

/// Whether a host says that it has a stream to the keeper. A host that lies can do no more than one that answers nothing.
pub async fn has_keeper(channel: &Channel) -> bool {
    let check = async {
        let mut client = Grpc::new(channel.clone());
        client.ready().await.ok()?;
        let request = Request::new(HealthCheckRequest { service: VAULT_SERVICE.to_owned() });
        let path = PathAndQuery::from_static(HEALTH_CHECK);
        let answer: Result<Response<HealthCheckResponse>, Status> =
            client.unary(request, path, ProstCodec::default()).await;
        Some(answer.ok()?.into_inner().status == SERVING)
    };
    tokio::time::timeout(Duration::from_secs(CONNECT_SECS_MAX), check).await.is_ok_and(|says| says == Some(true))
}

/// `grpc.health.v1.HealthCheckRequest`.
#[derive(Clone, PartialEq, Eq, Message)]
struct HealthCheckRequest {
    #[prost(string, tag = "1")]
    service: String,
}

/// `grpc.health.v1.HealthCheckResponse`.
#[derive(Clone, PartialEq, Eq, Message)]
struct HealthCheckResponse {
    #[prost(int32, tag = "1")]
    status: i32,
}

/// An error and its causes: tonic's own text is only "transport error".
#[must_use]
pub fn causes(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        // Some layers repeat what the one below says.
        let below = error.to_string();
        if !text.ends_with(&below) {
            text = format!("{text}: {below}");
        }
        cause = error.source();
    }
    text
}

/// Why an address can't be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AddressError {
    /// None of the three forms.
    Malformed {
        /// As given.
        address: String,
    },
    /// An `https` address, and no authority to check it by.
    AuthorityMissing {
        /// As given.
        address: String,
    },
    /// The authority is not PEM.
    AuthorityMalformed {
        /// What the TLS library says.
        why: String,
    },
}

/// Why no host could be reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ConnectError {
    /// One of the addresses is none.
    Address(AddressError),
    /// Nobody accepts.
    NoAnswer {
        /// For each address.
        reasons: Vec<String>,
    },
}

/// A call that failed. With a [`v1::Refusal`] in its trailer it was refused by the vault; without one the host, or
/// something on the way to it, failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CallError {
    method: &'static str,
    address: String,
    status: Code,
    refusal: Option<v1::Refusal>,
    message: String,
}

impl CallError {
    /// Reads the status of a failed call.
    #[must_use]
    pub fn new(method: &'static str, address: &str, status: &Status) -> Self {
        let refusal = refusal(status);
        let message = refusal.as_ref().map_or(status.message(), |refusal| &refusal.message);
        let message = if message.is_empty() { causes(status) } else { message.to_owned() };
        Self { method, address: address.to_owned(), status: status.code(), message: cut(&message), refusal }
    }

    /// Stable name: the vault's own code, or what failed on the way.
    #[must_use]
    pub fn code(&self) -> &str {
        match (&self.refusal, self.status) {
            (Some(refusal), _) => &refusal.code,
            (None, Code::Unavailable) => "host-unavailable",
            (None, Code::DeadlineExceeded | Code::Cancelled) => "host-timeout",
            (None, Code::Unimplemented) => "method-unknown",
            (None, Code::ResourceExhausted) => "host-busy",
            (None, _) => "call-failed",
        }
    }

    /// Names the refusal in the host's journal, for `vaultctl explain`.
    #[must_use]
    pub fn request_id(&self) -> Option<&str> {
        self.refusal.as_ref().map(|refusal| refusal.request_id.as_str()).filter(|id| !id.is_empty())
    }

    /// Whether the vault itself said no.
    #[must_use]
    pub fn is_refusal(&self) -> bool {
        self.refusal.is_some()
    }

    /// Whether the very same request may be sent again: it did not arrive, or its answer got lost, or the vault could not
    /// answer.
    #[must_use]
    pub fn may_repeat(&self) -> bool {
        matches!(self.status, Code::Unavailable | Code::DeadlineExceeded | Code::Cancelled | Code::Unknown)
    }

    /// Whether something moved, and a new challenge may do.
    #[must_use]
    pub fn is_try_again(&self) -> bool {
        self.status == Code::Aborted
    }

    /// Whether there was too much at once.
    #[must_use]
    pub fn is_busy(&self) -> bool {
        self.status == Code::ResourceExhausted
    }

    /// What a person does next.
    #[must_use]
    pub fn next_step(&self) -> String {
        if let Some(id) = self.request_id() {
            return format!("vaultctl explain {id} --vault FILE");
        }
        let step = match self.status {
            Code::Unavailable | Code::DeadlineExceeded | Code::Cancelled => {
                "check that vault-host and its keeper run; `vaultctl status --vault FILE` says what the host knows"
            }
            Code::Unimplemented => "check that this program and vault-host are of the same version",
            Code::ResourceExhausted => "wait a moment and try again",
            _ => "the host's journal says more",
        };
        step.to_owned()
    }
}

fn refusal(status: &Status) -> Option<v1::Refusal> {
    let trailer = status.metadata().get_bin(REFUSAL_TRAILER)?.to_bytes().ok()?;
    let refusal = v1::Refusal::decode(trailer).ok()?;
    let v1::Refusal { code, request_id, message } = refusal;
    Some(v1::Refusal { code: cut(&code), request_id: cut(&request_id), message: cut(&message) })
}

fn cut(text: &str) -> String {
    text.chars().take(TEXT_CHARS_MAX).collect()
}

impl fmt::Display for CallError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { method, address, message, .. } = self;
        match self.is_refusal() {
            true => write!(f, "{method} was refused: {message}"),
            false => write!(f, "{method} failed at {address}: {message}"),
        }
    }
}

impl AddressError {
    /// Stable name.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::Malformed { .. } => "host-malformed",
            Self::AuthorityMissing { .. } => "ca-missing",
            Self::AuthorityMalformed { .. } => "ca-malformed",
        }
    }

    /// What a person does next.
    #[must_use]
    pub fn next_step(&self) -> &'static str {
        match self {
            Self::Malformed { .. } => "write http://HOST:PORT, https://HOST:PORT or unix:/path/to/socket",
            Self::AuthorityMissing { .. } => "give its PEM with --ca FILE",
            Self::AuthorityMalformed { .. } => "--ca takes a PEM file with at least one certificate",
        }
    }
}

impl fmt::Display for AddressError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Malformed { address } => write!(f, "{address:?} is not the address of a host"),
            Self::AuthorityMissing { address } => write!(f, "{address} needs a certificate authority to check it by"),
            Self::AuthorityMalformed { why } => write!(f, "can't use the certificate authority: {why}"),
        }
    }
}

impl ConnectError {
    /// Stable name.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::Address(error) => error.code(),
            Self::NoAnswer { .. } => "host-unreachable",
        }
    }

    /// What a person does next.
    #[must_use]
    pub fn next_step(&self) -> &'static str {
        match self {
            Self::Address(error) => error.next_step(),
            Self::NoAnswer { .. } => "check that vault-host runs there, or name another one with --host",
        }
    }
}

impl fmt::Display for ConnectError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(error) => error.fmt(f),
            Self::NoAnswer { reasons } => write!(f, "no host answers: {}", reasons.join("; ")),
        }
    }
}

impl Error for CallError {}
impl Error for AddressError {}
impl Error for ConnectError {}

#[cfg(test)]
mod tests {
    use tonic::metadata::{MetadataMap, MetadataValue};

    use super::*;

    fn denied(trailer: &[u8]) -> Status {
        let mut metadata = MetadataMap::new();
        metadata.insert_bin(REFUSAL_TRAILER, MetadataValue::from_bytes(trailer));
        Status::with_metadata(Code::PermissionDenied, "denied", metadata)
    }

    #[test]
    fn a_trailer_gives_the_code_the_reason_and_the_request() {
        let request_id = "00".repeat(16);
        let refusal = v1::Refusal { code: "denied".into(), request_id: request_id.clone(), message: "no".into() };
        let error = CallError::new("ReleaseKeys", "http://vault", &denied(&refusal.encode_to_vec()));
        assert_eq!((error.code(), error.request_id()), ("denied", Some(request_id.as_str())));
        assert_eq!(error.next_step(), format!("vaultctl explain {request_id} --vault FILE"));
        assert_eq!(error.to_string(), "ReleaseKeys was refused: no");
        assert!(!error.may_repeat() && !error.is_try_again());
    }

    #[test]
    fn a_status_without_a_readable_trailer_is_no_refusal() {
        let broken = CallError::new("ReleaseKeys", "http://vault", &denied(b"\xff\xff"));
        assert_eq!((broken.is_refusal(), broken.code()), (false, "call-failed"));
        let gone = CallError::new("ReleaseKeys", "http://vault", &Status::unavailable("gone"));
        assert_eq!((gone.code(), gone.may_repeat()), ("host-unavailable", true));
        assert!(gone.next_step().contains("`vaultctl status --vault FILE`"));
    }

    #[test]
    fn a_long_text_of_a_host_is_cut() {
        let refusal = v1::Refusal { code: "x".repeat(9_999), ..Default::default() };
        assert_eq!(CallError::new("M", "h", &denied(&refusal.encode_to_vec())).code().len(), TEXT_CHARS_MAX);
    }

    #[test]
    fn an_address_has_one_of_three_forms() {
        for good in ["http://127.0.0.1:7700", "unix:/run/vault.sock"] {
            assert!(endpoint(good, None).is_ok(), "{good}");
        }
        for bad in ["", "vault:7700", "ftp://vault", "http://"] {
            assert_eq!(endpoint(bad, None).unwrap_err().code(), "host-malformed", "{bad}");
        }
    }

    #[test]
    fn tls_without_an_authority_of_its_own_is_refused() {
        assert_eq!(endpoint("https://vault", None).unwrap_err().code(), "ca-missing");
    }

    #[test]
    fn an_authority_that_is_no_certificate_is_refused() {
        let pem = "-----BEGIN CERTIFICATE-----\n!!!!\n-----END CERTIFICATE-----\n";
        assert_eq!(endpoint("https://vault", Some(pem.as_bytes())).unwrap_err().code(), "ca-malformed");
    }
}
