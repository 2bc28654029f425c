//! A range of what a path has, piece by piece as it arrives.

use std::fmt;
use std::ops::Range;

use bytes::Bytes;
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use hyper::header;
use hyper::{HeaderMap, Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::task::JoinSet;

use super::{Connection, HttpError, Service, broken};

/// The answer to a request for a range. The connection ends with it.
pub struct RangeBody {
    body: Incoming,
    left: u64,
    _driver: JoinSet<Result<(), hyper::Error>>,
}

/// Why a range is not had.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RangeError {
    /// The exchange itself.
    Http(HttpError),
    /// The service answers with this status, and not with a range. Redirects are not followed.
    Status(u16),
    /// It answers with another range than the one that was asked for, or with none.
    OtherRange,
    /// The range ended early.
    CutShort {
        /// Bytes that were still to come.
        left: u64,
    },
}

impl Service {
    /// GET of `range` of what `path` has, behind the address; `headers` go along.
    ///
    /// # Errors
    /// [`RangeError`]. Nothing here is bounded in time: the caller bounds it.
    pub async fn range(
        &self,
        path: &str,
        range: Range<u64>,
        headers: &[(&str, String)],
    ) -> Result<RangeBody, RangeError> {
        let mut request = Request::builder()
            .method(Method::GET)
            .uri(format!("{}{path}", self.url.prefix))
            .header(header::HOST, self.url.host_header())
            .header(header::USER_AGENT, concat!("weightvault/", env!("CARGO_PKG_VERSION")))
            .header(header::ACCEPT, "*/*")
            .header(header::CONNECTION, "close")
            .header(header::RANGE, format!("bytes={}-{}", range.start, range.end.saturating_sub(1)));
        for (name, value) in headers {
            request = request.header(*name, value);
        }
        let request = request.body(Empty::new()).map_err(|error| RangeError::Http(broken(&error)))?;
        let stream = self.connect().await.map_err(RangeError::Http)?;
        let (response, driver) = exchange(stream, request).await.map_err(RangeError::Http)?;
        check(response.status(), response.headers(), &range)?;
        Ok(RangeBody { body: response.into_body(), left: range.end - range.start, _driver: driver })
    }
}

impl RangeBody {
    /// The next piece; `None` once all of the range was given. What comes behind it is not read.
    ///
    /// # Errors
    /// [`RangeError`].
    pub async fn next(&mut self) -> Result<Option<Bytes>, RangeError> {
        while self.left > 0 {
            let Some(frame) = self.body.frame().await else { return Err(RangeError::CutShort { left: self.left }) };
            let frame = frame.map_err(|error| RangeError::Http(broken(&error)))?;
            // Trailers say nothing here.
            let Ok(mut piece) = frame.into_data() else { continue };
            piece.truncate(usize::try_from(self.left).unwrap_or(usize::MAX));
            self.left -= piece.len() as u64;
            if !piece.is_empty() {
                return Ok(Some(piece));
            }
        }
        Ok(None)
    }
}

/// A service that knows no ranges gives the whole, which is good where the range is its start.
fn check(status: StatusCode, headers: &HeaderMap, range: &Range<u64>) -> Result<(), RangeError> {
    let content = headers.get(header::CONTENT_RANGE).and_then(|value| value.to_str().ok());
    match (status, content.map(|text| text.strip_prefix("bytes ").unwrap_or_default())) {
        (StatusCode::PARTIAL_CONTENT, Some(content)) => {
            let wanted = format!("{}-{}/", range.start, range.end.saturating_sub(1));
            if content.starts_with(&wanted) { Ok(()) } else { Err(RangeError::OtherRange) }
        }
        (StatusCode::OK, None) if range.start == 0 => Ok(()),
        (StatusCode::OK | StatusCode::PARTIAL_CONTENT, _) => Err(RangeError::OtherRange),
        (status, _) => Err(RangeError::Status(status.as_u16())),
    }
}

async fn exchange(
    stream: Box<dyn Connection>,
    request: Request<Empty<Bytes>>,
) -> Result<(Response<Incoming>, JoinSet<Result<(), hyper::Error>>), HttpError> {
    let opened = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await;
    let (mut sender, connection) = opened.map_err(|error| broken(&error))?;
    let mut driver = JoinSet::new();
    driver.spawn(connection);
    let response = sender.send_request(request).await.map_err(|error| broken(&error))?;
    Ok((response, driver))
}

impl fmt::Display for RangeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Http(error) => error.fmt(f),
            Self::Status(status @ 300..=399) => write!(f, "HTTP status {status}, and redirects are not followed"),
            Self::Status(status) => write!(f, "HTTP status {status}"),
            Self::OtherRange => f.write_str("another range came than the one that was asked for, or none"),
            Self::CutShort { left } => write!(f, "it ended {left} bytes early"),
        }
    }
}

impl std::error::Error for RangeError {}

#[cfg(test)]
mod tests {
    use super::*;

    fn checked(status: u16, content: Option<&str>, range: Range<u64>) -> Result<(), RangeError> {
        let mut headers = HeaderMap::new();
        headers.extend(content.map(|text| (header::CONTENT_RANGE, text.parse().unwrap())));
        check(StatusCode::from_u16(status).unwrap(), &headers, &range)
    }

    #[test]
    fn only_the_range_that_was_asked_for_is_taken() {
        assert_eq!(checked(206, Some("bytes 5-9/40"), 5..10), Ok(()));
        assert_eq!(checked(206, Some("bytes 0-9/*"), 0..10), Ok(()));
        assert_eq!(checked(200, None, 0..10), Ok(()));
        for (status, content, range) in [
            (206, None, 0..10),
            (206, Some("bytes 5-10/40"), 5..10),
            (206, Some("bytes 5-99/40"), 5..10),
            (206, Some("bytes 4-9/40"), 5..10),
            (206, Some("5-9/40"), 5..10),
            (200, None, 5..10),
            (200, Some("bytes 0-9/40"), 0..10),
        ] {
            assert_eq!(
                checked(status, content, range.clone()),
                Err(RangeError::OtherRange),
                "{status} {content:?} {range:?}"
            );
        }
        for status in [204, 302, 404, 416, 503] {
            assert_eq!(checked(status, None, 0..10), Err(RangeError::Status(status)));
        }
    }
}
