//! What passes between an agent and a reader: one line in, frames out (FORMAT.md §12). Tiny, since Python and others write
//! it again.

use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::os::fd::BorrowedFd;
use std::time::Duration;

use ledger::names::{Name, Version};
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags};
use serde::Serialize;
use tokio::io::{AsyncReadExt, Interest};
use tokio::net::UnixStream;
use vault_proto::convert::{AgentModel, AgentModelState};

use super::error::ServeError;
use super::models::{Wanted, Why};

/// A request with its newline.
const LINE_BYTES_MAX: usize = 256;
/// The JSON of a frame.
const FRAME_BYTES_MAX: usize = 256 << 10;
/// How long a reader may take to ask, and to take one frame.
const ASK_TIME_MAX: Duration = Duration::from_secs(10);
const TAKE_TIME_MAX: Duration = Duration::from_secs(10);

/// What a reader asks.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Request {
    /// What there is.
    List,
    /// The files of a model, and word of it as long as the connection lasts.
    Open(Wanted),
}

/// What a reader is told.
#[derive(Serialize)]
#[serde(tag = "frame", rename_all = "kebab-case")]
pub(super) enum Frame<'a> {
    /// The answer to [`Request::List`].
    Models { models: Vec<Listed> },
    /// The model is on its way.
    Loading { problem: Option<&'a str> },
    /// A file: its descriptor comes with the first byte of this frame.
    File { path: &'a str, bytes: u64 },
    /// All files were sent.
    Ready { model: &'a str, version: &'a str, files: usize, bytes: u64 },
    /// The memory is wiped in so many seconds.
    Draining { seconds: u64, why: &'static str, message: String },
    /// It is wiped. The last frame.
    Gone { why: &'static str, message: String },
    /// Nothing comes of the request. The last frame.
    Refused { code: &'static str, message: String },
}

/// A model in a list.
#[derive(Serialize)]
pub(super) struct Listed {
    model: String,
    version: String,
    state: &'static str,
    files: u32,
    bytes: u64,
    seconds: u64,
    problem: String,
}

impl Request {
    /// Reads a request to its newline.
    ///
    /// # Errors
    /// [`ServeError`]; `None` where the reader went away.
    pub(super) async fn read(stream: &mut UnixStream) -> Option<Result<Self, ServeError>> {
        Self::read_within(stream, ASK_TIME_MAX).await
    }

    async fn read_within(stream: &mut UnixStream, time: Duration) -> Option<Result<Self, ServeError>> {
        let line = async {
            let mut line = Vec::new();
            loop {
                // Nothing may follow, so nothing is lost by reading on.
                match stream.read_buf(&mut line).await {
                    Ok(0) | Err(_) => return None,
                    Ok(_) if line.ends_with(b"\n") => return Some(Ok(line)),
                    Ok(_) if line.len() >= LINE_BYTES_MAX => return Some(Err(ServeError::RequestTooLong)),
                    Ok(_) => {}
                }
            }
        };
        match tokio::time::timeout(time, line).await {
            Ok(line) => line.map(|line| Self::parse(&line?)),
            Err(_) => Some(Err(ServeError::RequestLate)),
        }
    }

    fn parse(line: &[u8]) -> Result<Self, ServeError> {
        if line.len() > LINE_BYTES_MAX {
            return Err(ServeError::RequestTooLong);
        }
        let line = std::str::from_utf8(line).ok().and_then(|line| line.strip_suffix('\n'));
        match line.ok_or(ServeError::RequestMalformed)?.split(' ').collect::<Vec<_>>().as_slice() {
            ["v1", "list"] => Ok(Self::List),
            ["v1", "open", model] => Wanted::parse(model).map(Self::Open).ok_or(ServeError::RequestMalformed),
            _ => Err(ServeError::RequestMalformed),
        }
    }
}

impl Wanted {
    fn parse(text: &str) -> Option<Self> {
        let (model, version) = match text.split_once('@') {
            Some((model, version)) => (model, Some(version)),
            None => (text, None),
        };
        let version = version.map(|version| Version::try_from(version.to_owned())).transpose().ok()?;
        Some(Self { model: Name::try_from(model.to_owned()).ok()?, version })
    }
}

impl Frame<'_> {
    /// Sends it whole, and this descriptor with its first byte.
    ///
    /// # Errors
    /// The reader is gone, or takes too long.
    pub(super) async fn send(&self, stream: &UnixStream, descriptor: Option<BorrowedFd<'_>>) -> io::Result<()> {
        self.send_within(stream, descriptor, TAKE_TIME_MAX).await
    }

    async fn send_within(
        &self,
        stream: &UnixStream,
        descriptor: Option<BorrowedFd<'_>>,
        time: Duration,
    ) -> io::Result<()> {
        let bytes = self.bytes()?;
        let send = async {
            let mut rest = bytes.as_slice();
            let mut descriptor = descriptor;
            while !rest.is_empty() {
                let sent = stream.async_io(Interest::WRITABLE, || send_some(stream, rest, descriptor)).await?;
                // It went along with whatever went first.
                descriptor = None;
                rest = &rest[sent..];
            }
            Ok(())
        };
        tokio::time::timeout(time, send).await.map_err(|_| io::ErrorKind::TimedOut)?
    }

    fn bytes(&self) -> io::Result<Vec<u8>> {
        let json = serde_json::to_vec(self)?;
        let length = u32::try_from(json.len()).ok().filter(|length| *length as usize <= FRAME_BYTES_MAX);
        let length = length.ok_or_else(|| io::Error::other("a frame that is too long"))?;
        Ok([&length.to_be_bytes(), json.as_slice()].concat())
    }

    /// What an end is told as.
    pub(super) fn gone(why: &Why) -> Self {
        Self::Gone { why: why.code(), message: why.problem() }
    }

    /// What a refusal is told as.
    pub(super) fn refused(error: &ServeError) -> Self {
        Self::Refused { code: error.code(), message: error.to_string() }
    }
}

fn send_some(stream: &UnixStream, bytes: &[u8], descriptor: Option<BorrowedFd<'_>>) -> io::Result<usize> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    let descriptors: Vec<BorrowedFd<'_>> = descriptor.into_iter().collect();
    if !descriptors.is_empty() && !control.push(SendAncillaryMessage::ScmRights(&descriptors)) {
        return Err(io::Error::other("no room for a descriptor"));
    }
    Ok(rustix::net::sendmsg(stream, &[IoSlice::new(bytes)], &mut control, SendFlags::NOSIGNAL | SendFlags::DONTWAIT)?)
}

impl From<AgentModel> for Listed {
    fn from(model: AgentModel) -> Self {
        let state = match model.state {
            AgentModelState::Loading => "loading",
            AgentModelState::Ready => "ready",
            AgentModelState::Draining => "draining",
            AgentModelState::Gone => "gone",
        };
        Self {
            model: model.model.model.to_string(),
            version: model.model.version.to_string(),
            state,
            files: model.files,
            bytes: model.bytes,
            seconds: model.seconds,
            problem: model.problem,
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt;

    use super::*;

    fn open(model: &str, version: Option<&str>) -> Request {
        let version = version.map(|version| version.parse().unwrap());
        Request::Open(Wanted { model: model.parse().unwrap(), version })
    }

    #[test]
    fn a_request_is_one_of_two_lines() {
        assert_eq!(Request::parse(b"v1 list\n"), Ok(Request::List));
        assert_eq!(Request::parse(b"v1 open minilm@1.0\n"), Ok(open("minilm", Some("1.0"))));
        assert_eq!(Request::parse(b"v1 open minilm\n"), Ok(open("minilm", None)));
        let bad: [&[u8]; 12] = [
            b"",
            b"\n",
            b"v1 list",
            b"v2 list\n",
            b"v1 list x\n",
            b"v1  list\n",
            b"v1 open\n",
            b"v1 open \n",
            b"v1 open ../x\n",
            b"v1 open a@\n",
            b"v1 open a@1@2\n",
            b"v1 open a\xff\n",
        ];
        for bad in bad {
            assert_eq!(Request::parse(bad), Err(ServeError::RequestMalformed), "{bad:?}");
        }
        assert_eq!(Request::parse(b"v1 list\nv1 list\n"), Err(ServeError::RequestMalformed));
    }

    proptest::proptest! {
        /// Nobody's bytes are read as a request that has another spelling.
        #[test]
        fn a_request_has_one_spelling(line in "v1 (list|open [a-z0-9._@A-Z+ -]{0,70})\\n|.{0,80}\\n?") {
            let spelled = match Request::parse(line.as_bytes()) {
                Ok(Request::List) => "v1 list\n".to_owned(),
                Ok(Request::Open(Wanted { model, version: None })) => format!("v1 open {model}\n"),
                Ok(Request::Open(Wanted { model, version: Some(version) })) => format!("v1 open {model}@{version}\n"),
                Err(_) => return Ok(()),
            };
            proptest::prop_assert_eq!(spelled, line);
        }
    }

    #[tokio::test]
    async fn a_line_without_an_end_is_not_waited_for_for_ever() {
        let (mut agent, mut reader) = UnixStream::pair().unwrap();
        reader.write_all(b"v1 li").await.unwrap();
        let late = Request::read_within(&mut agent, Duration::from_millis(10)).await;
        assert_eq!(late, Some(Err(ServeError::RequestLate)));
        reader.write_all(&[b'x'; LINE_BYTES_MAX]).await.unwrap();
        assert_eq!(Request::read(&mut agent).await, Some(Err(ServeError::RequestTooLong)));
        reader.write_all(b"v1 list\n").await.unwrap();
        assert_eq!(Request::read(&mut agent).await, Some(Ok(Request::List)));
        drop(reader);
        assert_eq!(Request::read(&mut agent).await, None);
    }

    #[tokio::test]
    async fn a_frame_is_length_and_json_and_one_that_nobody_takes_is_given_up() {
        let (agent, mut reader) = UnixStream::pair().unwrap();
        Frame::gone(&Why::LeaseLost).send(&agent, None).await.unwrap();
        let json = br#"{"frame":"gone","why":"lease-lost","message":"lease-lost"}"#;
        let mut frame = vec![0; 4 + json.len()];
        reader.read_exact(&mut frame).await.unwrap();
        assert_eq!(frame, [&(json.len() as u32).to_be_bytes(), json.as_slice()].concat());
        let long = "x".repeat(60_000);
        let error = loop {
            let frame = Frame::Loading { problem: Some(&long) };
            match frame.send_within(&agent, None, Duration::from_millis(10)).await {
                Ok(()) => {}
                Err(error) => break error,
            }
        };
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        let problem = "x".repeat(FRAME_BYTES_MAX);
        assert!(Frame::Loading { problem: Some(&problem) }.send(&agent, None).await.is_err());
    }
}
