//! How a server says that it has read its model.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::{Duration, SystemTime};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// How long one look may take.
const LOOK_TIME_MAX: Duration = Duration::from_millis(500);

/// What is looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ready {
    /// A file that is written after the model was there.
    File(PathBuf),
    /// Something listens there: `HOST:PORT`.
    Tcp(String),
    /// A GET is answered with 200.
    Http {
        /// `HOST:PORT`.
        address: String,
        /// With its first slash.
        path: String,
    },
}

/// A text that says nothing to look at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReadyError(String);

/// Looks again and again. What is ready before the model is there says nothing of this model.
pub(super) struct Readiness {
    ready: Ready,
    since: SystemTime,
    /// It was seen not to be ready since then.
    was_not: bool,
}

impl Readiness {
    /// Of a server that starts to read the model now.
    pub(super) fn new(ready: Ready) -> Self {
        Self { ready, since: SystemTime::now(), was_not: false }
    }

    /// The same from now on.
    pub(super) fn begin_again(&mut self) {
        (self.since, self.was_not) = (SystemTime::now(), false);
    }

    /// Whether the server has become ready.
    pub(super) async fn has_come(&mut self) -> bool {
        let is = match &self.ready {
            // Its time says that it is a new one.
            Ready::File(path) => {
                let written = std::fs::metadata(path).and_then(|metadata| metadata.modified());
                return written.is_ok_and(|written| written >= self.since);
            }
            Ready::Tcp(address) => in_time(async { TcpStream::connect(address).await.map(|_| true) }).await,
            Ready::Http { address, path } => in_time(get(address, path)).await,
        };
        let has_come = is && self.was_not;
        self.was_not |= !is;
        has_come
    }
}

async fn in_time(look: impl Future<Output = std::io::Result<bool>>) -> bool {
    matches!(tokio::time::timeout(LOOK_TIME_MAX, look).await, Ok(Ok(true)))
}

/// The first line of the answer is all that counts.
async fn get(address: &str, path: &str) -> std::io::Result<bool> {
    let mut stream = TcpStream::connect(address).await?;
    let request = format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut status = [0; 12];
    stream.read_exact(&mut status).await?;
    Ok(matches!(&status, b"HTTP/1.0 200" | b"HTTP/1.1 200"))
}

impl FromStr for Ready {
    type Err = ReadyError;

    fn from_str(text: &str) -> Result<Self, ReadyError> {
        let refused = || ReadyError(text.to_owned());
        let (kind, what) = text.split_once(':').ok_or_else(refused)?;
        let is_plain = !what.is_empty() && !what.contains(|c: char| c.is_whitespace() || c.is_control());
        let has_port = |address: &str| {
            address.rsplit_once(':').is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok())
        };
        match kind {
            "file" if what.starts_with('/') => Ok(Self::File(what.into())),
            "tcp" if is_plain && has_port(what) => Ok(Self::Tcp(what.to_owned())),
            "http" if is_plain => {
                let rest = what.strip_prefix("//").ok_or_else(refused)?;
                let (address, path) = rest.find('/').map_or((rest, "/"), |slash| rest.split_at(slash));
                if !has_port(address) {
                    return Err(refused());
                }
                Ok(Self::Http { address: address.to_owned(), path: path.to_owned() })
            }
            _ => Err(refused()),
        }
    }
}

impl fmt::Display for ReadyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} is not file:/PATH, tcp:HOST:PORT or http://HOST:PORT/PATH", self.0)
    }
}

impl std::error::Error for ReadyError {}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn it_is_a_file_a_port_or_an_answer() {
        assert_eq!("file:/run/ready".parse(), Ok(Ready::File("/run/ready".into())));
        assert_eq!("tcp:127.0.0.1:80".parse(), Ok(Ready::Tcp("127.0.0.1:80".to_owned())));
        let http = |path: &str| Ok(Ready::Http { address: "[::1]:8000".to_owned(), path: path.to_owned() });
        assert_eq!("http://[::1]:8000/health?x".parse(), http("/health?x"));
        assert_eq!("http://[::1]:8000".parse(), http("/"));
        for bad in [
            "",
            "file:",
            "file:ready",
            "tcp:80",
            "tcp::80",
            "tcp:h:x",
            "http:h:80/",
            "http://h/",
            "https://h:1/",
            "http://h:1/ x",
        ] {
            assert_eq!(bad.parse::<Ready>(), Err(ReadyError(bad.to_owned())), "{bad:?}");
        }
    }

    #[tokio::test]
    async fn a_file_counts_where_it_is_newer_than_the_model() {
        let file = tempfile::NamedTempFile::new().unwrap();
        file.as_file().set_modified(SystemTime::now() - Duration::from_secs(60)).unwrap();
        let mut readiness = Readiness::new(Ready::File(file.path().to_owned()));
        assert!(!readiness.has_come().await);
        file.as_file().set_modified(SystemTime::now() + Duration::from_secs(1)).unwrap();
        assert!(readiness.has_come().await);
    }

    #[tokio::test]
    async fn a_port_that_was_open_before_says_nothing() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let mut readiness = Readiness::new(Ready::Tcp(address.to_string()));
        assert!(!readiness.has_come().await);
        drop(listener);
        assert!(!readiness.has_come().await);
        let _again = TcpListener::bind(address).unwrap();
        assert!(readiness.has_come().await);
        readiness.begin_again();
        assert!(!readiness.has_come().await);
    }

    #[tokio::test]
    async fn an_answer_other_than_200_is_not_ready() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let ready = format!("http://{}/health", listener.local_addr().unwrap()).parse().unwrap();
        let answers = ["503 Service Unavailable", "200 OK"];
        let server = std::thread::spawn(move || {
            for answer in answers {
                let (mut stream, _) = listener.accept().unwrap();
                let mut request = [0; 17];
                stream.read_exact(&mut request).unwrap();
                assert_eq!(&request, b"GET /health HTTP/");
                stream.write_all(format!("HTTP/1.1 {answer}\r\n\r\n").as_bytes()).unwrap();
            }
        });
        let mut readiness = Readiness::new(ready);
        assert!(!readiness.has_come().await);
        assert!(readiness.has_come().await);
        server.join().unwrap();
    }
}
