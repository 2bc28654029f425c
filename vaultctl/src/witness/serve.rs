//! The HTTP or HTTPS service of a witness: `POST /add-checkpoint` and `GET /SHA-256(origin)/checkpoint`. Connections, their lives, and
//! requests are bounded.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::{BodyExt as _, Full, LengthLimitError, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::header::{ALLOW, CONTENT_TYPE, HeaderValue};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use ledger::witness::{AddCheckpointError, REQUEST_BYTES_MAX, SIZE_CONTENT_TYPE};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;

use super::state::{AddFailure, State};
use super::tls::WitnessTls;
use crate::failure::{Failure, Kind};

/// Connections at once; more wait to be taken.
const CONNECTIONS_MAX: usize = 64;
/// How long a connection may live: a client that needs more opens another.
const CONNECTION_LIFE: Duration = Duration::from_secs(120);
/// How long the head of a request may take, and then its body.
const READ_WITHIN: Duration = Duration::from_secs(10);
/// How long to wait where the system has no room for another connection.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// No value: serving ends with the process.
pub type Never = Infallible;
type Answer = Response<Full<Bytes>>;

/// A witness that has its address.
pub struct BoundWitness {
    listener: TcpListener,
    address: SocketAddr,
    state: Arc<State>,
    tls: Option<WitnessTls>,
}

impl BoundWitness {
    /// Takes an address. With a certificate it speaks HTTPS there, and nothing else.
    ///
    /// # Errors
    /// `listen`.
    pub async fn bind(address: SocketAddr, state: State, tls: Option<WitnessTls>) -> Result<Self, Failure> {
        let failed = |error: std::io::Error| {
            Failure::new(Kind::Failed, "listen", format!("could not listen on {address}")).why(error)
        };
        let listener = TcpListener::bind(address).await.map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        Ok(Self { listener, address, state: Arc::new(state), tls })
    }

    /// The address, with the port that was found.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Serves until the process ends, which it may at any moment: what was answered is durable.
    ///
    /// # Errors
    /// None so far: a connection that fails is its client's matter.
    pub async fn serve(self) -> Result<Never, Failure> {
        let room = Arc::new(Semaphore::new(CONNECTIONS_MAX));
        loop {
            let Ok(permit) = Arc::clone(&room).acquire_owned().await else {
                return Err(Failure::new(Kind::Failed, "listen", "the witness stopped"));
            };
            let Ok((stream, _)) = self.listener.accept().await else {
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            };
            let (state, tls) = (Arc::clone(&self.state), self.tls.clone());
            tokio::spawn(async move {
                match tls {
                    None => converse(state, stream).await,
                    Some(tls) => {
                        if let Ok(Ok(stream)) = tokio::time::timeout(READ_WITHIN, tls.accept(stream)).await {
                            converse(state, stream).await;
                        }
                    }
                }
                drop(permit);
            });
        }
    }
}

/// One connection, to its end.
async fn converse(state: Arc<State>, stream: impl AsyncRead + AsyncWrite + Unpin) {
    let service = service_fn(|request| answer(Arc::clone(&state), request));
    let connection = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(READ_WITHIN)
        .serve_connection(TokioIo::new(stream), service);
    // A client that breaks off or takes too long has no use for an error.
    let _ = tokio::time::timeout(CONNECTION_LIFE, connection).await;
}

async fn answer(state: Arc<State>, request: Request<Incoming>) -> Result<Answer, Infallible> {
    let path = request.uri().path();
    if path == "/add-checkpoint" {
        return Ok(match *request.method() {
            Method::POST => add(state, request.into_body()).await,
            _ => not_allowed("POST"),
        });
    }
    let newest = path.strip_prefix('/').and_then(|rest| rest.strip_suffix("/checkpoint"));
    Ok(match (newest, request.method()) {
        (None, _) => text(StatusCode::NOT_FOUND, "not-found\n"),
        (Some(hash), &Method::GET) => match state.newest(hash) {
            Some(checkpoint) => text(StatusCode::OK, checkpoint),
            None => text(StatusCode::NOT_FOUND, "checkpoint-unknown\n"),
        },
        (Some(_), _) => not_allowed("GET"),
    })
}

async fn add(state: Arc<State>, body: Incoming) -> Answer {
    let body = match tokio::time::timeout(READ_WITHIN, Limited::new(body, REQUEST_BYTES_MAX).collect()).await {
        Ok(Ok(body)) => body.to_bytes(),
        Ok(Err(error)) if error.is::<LengthLimitError>() => {
            return text(StatusCode::PAYLOAD_TOO_LARGE, "add-checkpoint-too-long\n");
        }
        Ok(Err(_)) | Err(_) => return text(StatusCode::REQUEST_TIMEOUT, "add-checkpoint-cut-short\n"),
    };
    // The disk is waited for elsewhere.
    let added = tokio::task::spawn_blocking(move || match std::str::from_utf8(&body) {
        Ok(body) => state.add(body),
        Err(_) => Err(AddFailure::Refused(AddCheckpointError::Malformed)),
    });
    match added.await {
        Ok(Ok(line)) => text(StatusCode::OK, line),
        Ok(Err(failure)) => refuse(&failure),
        Err(_) => text(StatusCode::INTERNAL_SERVER_ERROR, "witness-failed\n"),
    }
}

fn refuse(failure: &AddFailure) -> Answer {
    match failure {
        AddFailure::Refused(AddCheckpointError::Conflict { size }) => {
            let mut answer = text(StatusCode::CONFLICT, format!("{size}\n"));
            answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(SIZE_CONTENT_TYPE));
            answer
        }
        AddFailure::Refused(error) => {
            let status = StatusCode::from_u16(error.status()).unwrap_or(StatusCode::BAD_REQUEST);
            text(status, format!("{}: {error}\n", error.code()))
        }
        // What the disk says is for who runs it, not for who asks.
        AddFailure::Disk(error) => {
            eprintln!("error: a checkpoint was not cosigned: the state could not be written: {error}");
            text(StatusCode::INTERNAL_SERVER_ERROR, "witness-disk\n")
        }
        AddFailure::Clock(error) => {
            eprintln!("error: a checkpoint was not cosigned: the clock is wrong: {error}");
            text(StatusCode::INTERNAL_SERVER_ERROR, "witness-clock\n")
        }
    }
}

fn not_allowed(allowed: &'static str) -> Answer {
    let mut answer = text(StatusCode::METHOD_NOT_ALLOWED, "method-not-allowed\n");
    answer.headers_mut().insert(ALLOW, HeaderValue::from_static(allowed));
    answer
}

fn text(status: StatusCode, body: impl Into<Bytes>) -> Answer {
    let mut answer = Response::new(Full::new(body.into()));
    *answer.status_mut() = status;
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    answer
}
