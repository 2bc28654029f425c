//! The stream of `FetchUnits` below the codec: the same bytes on the wire, and no copy of the data at either end.
//!
//! tonic copies a message once where it is sent and once where it is received, which costs as much as decrypting it. A
//! host of ours sends [`head`] and then the data as it lies in memory; an agent of ours reads frames as they come, by
//! [`UnitStream`]. Either works with any other gRPC program at the other end.
//!
//! ```text
//! message: 0 (not compressed) ‖ length of the rest (4, big-endian) ‖ unit ‖ offset ‖ key and length of `data` ‖ data
//! ```

mod frames;

use std::fmt;
use std::pin::Pin;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use prost::Message;
use tonic::body::Body;
use tonic::codegen::{Service, http};
use tonic::transport::Channel;
use tonic::{Code, Status};

pub use frames::{FrameError, Messages, Piece};

use crate::v1;

const FETCH_UNITS: &str = "/weightvault.v1.Vault/FetchUnits";
/// Key of the field `data`: number 3, length-delimited.
const DATA_KEY: u8 = 3 << 3 | 2;
/// Compression flag and length before each message (the gRPC protocol over HTTP/2).
const PREFIX_BYTES: usize = 5;

/// What goes before `bytes` bytes of data of a `FetchUnitsResponse`. They are at least one and at most
/// [`crate::limits::DATA_BYTES_MAX`].
#[must_use]
pub fn head(unit: u32, offset: u64, bytes: usize) -> Bytes {
    let mut head = vec![0; PREFIX_BYTES];
    let fields = v1::FetchUnitsResponse { unit, offset, data: Bytes::new() };
    // A vector takes what it is given.
    fields.encode(&mut head).expect("a vector grows");
    head.push(DATA_KEY);
    prost::encode_length_delimiter(bytes, &mut head).expect("a vector grows");
    let length = u32::try_from(head.len() - PREFIX_BYTES + bytes).unwrap_or(u32::MAX);
    head[1..PREFIX_BYTES].copy_from_slice(&length.to_be_bytes());
    head.into()
}

/// The answer to a `FetchUnits`, piece by piece.
pub struct UnitStream {
    body: Pin<Box<Body>>,
    frame: Bytes,
    messages: Messages,
}

impl UnitStream {
    /// Sends the request and waits for the answer to begin.
    ///
    /// # Errors
    /// The status of a call that failed or was refused.
    pub async fn fetch(channel: &Channel, request: &v1::FetchUnitsRequest) -> Result<Self, Status> {
        let mut channel = channel.clone();
        let failed = |error: tonic::transport::Error| Status::from_error(Box::new(error));
        std::future::poll_fn(|context| channel.poll_ready(context)).await.map_err(failed)?;
        let response = channel.call(http_request(request)?).await.map_err(failed)?;
        if response.status() != http::StatusCode::OK {
            return Err(Status::unknown(format!("HTTP status {}", response.status())));
        }
        // An answer without a body has its status here.
        match Status::from_header_map(response.headers()) {
            Some(status) if status.code() != Code::Ok => Err(status),
            _ => Ok(Self { body: Box::pin(response.into_body()), frame: Bytes::new(), messages: Messages::default() }),
        }
    }

    /// The next piece; `None` at the end of a stream that the host ended as it should.
    ///
    /// # Errors
    /// [`UnitStreamError`].
    pub async fn next(&mut self) -> Result<Option<Piece>, UnitStreamError> {
        loop {
            if let Some(piece) = self.messages.next(&mut self.frame).map_err(UnitStreamError::Frames)? {
                return Ok(Some(piece));
            }
            let Some(frame) = self.body.frame().await else {
                return Err(UnitStreamError::Status(Status::unavailable("the stream ended without a status")));
            };
            match frame.map_err(UnitStreamError::Status)?.into_data() {
                Ok(data) => self.frame = data,
                Err(frame) => return self.end(frame.trailers_ref()),
            }
        }
    }

    fn end(&self, trailers: Option<&http::HeaderMap>) -> Result<Option<Piece>, UnitStreamError> {
        match trailers.and_then(Status::from_header_map) {
            Some(status) if status.code() == Code::Ok => {
                self.messages.finish().map_err(UnitStreamError::Frames)?;
                Ok(None)
            }
            Some(status) => Err(UnitStreamError::Status(status)),
            None => Err(UnitStreamError::Status(Status::unknown("trailers without a status"))),
        }
    }
}

fn http_request(request: &v1::FetchUnitsRequest) -> Result<http::Request<Body>, Status> {
    let mut message = vec![0; PREFIX_BYTES];
    request.encode(&mut message).map_err(|error| Status::internal(error.to_string()))?;
    let length = u32::try_from(message.len() - PREFIX_BYTES).map_err(|_| Status::internal("a request of 4 GiB"))?;
    message[1..PREFIX_BYTES].copy_from_slice(&length.to_be_bytes());
    http::Request::post(FETCH_UNITS)
        .header(http::header::TE, "trailers")
        .header(http::header::CONTENT_TYPE, "application/grpc")
        .body(Body::new(Full::new(Bytes::from(message))))
        .map_err(|error| Status::internal(error.to_string()))
}

/// Why a stream of units gave nothing more.
#[derive(Debug)]
pub enum UnitStreamError {
    /// It broke, or the host ended it with this.
    Status(Status),
    /// What came is no stream of `FetchUnitsResponse`.
    Frames(FrameError),
}

impl fmt::Display for UnitStreamError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Status(status) => status.fmt(f),
            Self::Frames(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for UnitStreamError {}
