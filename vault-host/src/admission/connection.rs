//! Accepted connections: counted, and closed when their client does not play along.

use std::io;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, TryAcquireError, mpsc, watch};
use tokio::time::Instant;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::server::Connected;

use super::{Admission, Bucket, Queue, WATCHES_PER_CONNECTION_MAX};

/// A connection that has sent no request by then is closed: handshakes hold a place too.
const FIRST_REQUEST_TIME_MAX: Duration = Duration::from_secs(15);
/// Pause after an accept that failed, mostly for want of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// What may be on its way in a unix socket, as far as `net.core.wmem_max` lets it: by the system's own 208 KiB both ends
/// wake each other twice as often.
const UNIX_SEND_BYTES: usize = 1 << 20;
const WARN_EVERY: Duration = Duration::from_secs(60);

/// One connection, as its calls see it. In the extensions of every request.
#[derive(Clone, Debug)]
pub(crate) struct Connection(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    rate: Bucket,
    challenges: Bucket,
    watches: Arc<Semaphore>,
    stream_queue: Queue,
    phase: watch::Sender<Phase>,
    _place: OwnedSemaphorePermit,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// No request came yet.
    New,
    /// A request came.
    Used,
    /// To be closed.
    Closed,
}

impl Connection {
    pub(super) fn new(rate: Bucket, challenges: Bucket, stream_queue: Queue, place: OwnedSemaphorePermit) -> Self {
        let watches = Arc::new(Semaphore::new(WATCHES_PER_CONNECTION_MAX));
        let phase = watch::Sender::new(Phase::New);
        Self(Arc::new(Inner { rate, challenges, watches, stream_queue, phase, _place: place }))
    }

    /// Counts a request. False if that is one too many.
    pub(super) fn take(&self, now: Instant) -> bool {
        self.0.phase.send_if_modified(|phase| {
            let new = *phase == Phase::New;
            if new {
                *phase = Phase::Used;
            }
            new
        });
        self.0.rate.take(now)
    }

    /// Counts a challenge. False if that is one too many.
    pub(super) fn take_challenge(&self, now: Instant) -> bool {
        self.0.challenges.take(now)
    }

    /// A place for a watch, if there is one.
    pub(super) fn watch(&self) -> Result<OwnedSemaphorePermit, TryAcquireError> {
        self.0.watches.clone().try_acquire_owned()
    }

    /// Whether somebody waits for the place of a stream.
    pub(crate) fn is_waited_for(&self) -> bool {
        !self.0.stream_queue.is_empty()
    }

    /// Closes the connection, all its calls included: for a client that does not read what it asked for. A stream alone
    /// can't be given up from here; what it holds stays in memory as long as its connection.
    pub(crate) fn close(&self) {
        self.0.phase.send_replace(Phase::Closed);
    }

    /// Ends when the connection is to be closed.
    async fn closing(self) {
        let mut phase = self.0.phase.subscribe();
        let first = phase.wait_for(|phase| *phase != Phase::New);
        let used = tokio::time::timeout(FIRST_REQUEST_TIME_MAX, first).await.is_ok();
        if used {
            // The sender is in self: it is not gone before this.
            let _ = phase.wait_for(|phase| *phase == Phase::Closed).await;
        }
    }
}

/// A bound listener.
#[derive(Debug)]
pub(crate) enum Listener {
    Tcp(TcpListener),
    Unix {
        listener: UnixListener,
        /// Goes with the listener.
        _file: SocketFile,
    },
}

/// Removes the socket's file when the listener is gone.
#[derive(Debug)]
pub(crate) struct SocketFile(PathBuf);

impl Drop for SocketFile {
    fn drop(&mut self) {
        // It may have been removed already; the next start removes it too.
        let _ = std::fs::remove_file(&self.0);
    }
}

impl Listener {
    /// Listens on a unix socket, in place of a socket file that nobody listens on any more. Group members may connect.
    pub(crate) async fn unix(path: &Path) -> io::Result<Self> {
        use std::os::unix::fs::{FileTypeExt, PermissionsExt};
        match std::fs::symlink_metadata(path) {
            Ok(metadata) if metadata.file_type().is_socket() => {
                if UnixStream::connect(path).await.is_ok() {
                    return Err(io::Error::new(io::ErrorKind::AddrInUse, "somebody listens on it"));
                }
                std::fs::remove_file(path)?;
            }
            _ => {}
        }
        let listener = UnixListener::bind(path)?;
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o660))?;
        Ok(Self::Unix { listener, _file: SocketFile(path.to_owned()) })
    }

    /// Accepts connections until the returned stream is dropped.
    pub(crate) fn incoming(self, admission: Arc<Admission>) -> ReceiverStream<io::Result<Socket>> {
        let (accepted, incoming) = mpsc::channel(1);
        tokio::spawn(async move {
            let mut warned: Option<Instant> = None;
            loop {
                let stream = tokio::select! {
                    () = accepted.closed() => return,
                    stream = self.accept() => stream,
                };
                let stream = match stream {
                    Ok(stream) => stream,
                    Err(error) => {
                        tracing::warn!(%error, "can't accept a connection");
                        tokio::time::sleep(ACCEPT_PAUSE).await;
                        continue;
                    }
                };
                let Some(connection) = admission.connection() else {
                    // Once in a while: whoever floods the host should not flood its log too.
                    if warned.is_none_or(|warned| warned.elapsed() > WARN_EVERY) {
                        tracing::warn!("turning connections away: there are as many as limits.connections allows");
                        warned = Some(Instant::now());
                    }
                    continue;
                };
                if accepted.send(Ok(Socket::new(stream, connection))).await.is_err() {
                    return;
                }
            }
        });
        ReceiverStream::new(incoming)
    }

    async fn accept(&self) -> io::Result<Stream> {
        match self {
            Self::Tcp(listener) => {
                let (stream, _) = listener.accept().await?;
                stream.set_nodelay(true)?;
                Ok(Stream::Tcp(stream))
            }
            Self::Unix { listener, .. } => {
                let (stream, _) = listener.accept().await?;
                // A smaller one than asked for is no reason to turn a client away.
                let _ = rustix::net::sockopt::set_socket_send_buffer_size(&stream, UNIX_SEND_BYTES);
                Ok(Stream::Unix(stream))
            }
        }
    }
}

#[derive(Debug)]
enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
}

/// A connection's bytes. Reads fail once the connection is to be closed.
pub(crate) struct Socket {
    stream: Stream,
    connection: Connection,
    closing: Pin<Box<dyn Future<Output = ()> + Send>>,
}

impl Socket {
    fn new(stream: Stream, connection: Connection) -> Self {
        let closing = Box::pin(connection.clone().closing());
        Self { stream, connection, closing }
    }
}

impl Connected for Socket {
    type ConnectInfo = Connection;

    fn connect_info(&self) -> Connection {
        self.connection.clone()
    }
}

impl AsyncRead for Socket {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.closing.as_mut().poll(cx).is_ready() {
            return Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into()));
        }
        match &mut self.stream {
            Stream::Tcp(stream) => Pin::new(stream).poll_read(cx, buffer),
            Stream::Unix(stream) => Pin::new(stream).poll_read(cx, buffer),
        }
    }
}

impl AsyncWrite for Socket {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match &mut self.stream {
            Stream::Tcp(stream) => Pin::new(stream).poll_write(cx, bytes),
            Stream::Unix(stream) => Pin::new(stream).poll_write(cx, bytes),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.stream {
            Stream::Tcp(stream) => Pin::new(stream).poll_flush(cx),
            Stream::Unix(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.stream {
            Stream::Tcp(stream) => Pin::new(stream).poll_shutdown(cx),
            Stream::Unix(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match &mut self.stream {
            Stream::Tcp(stream) => Pin::new(stream).poll_write_vectored(cx, slices),
            Stream::Unix(stream) => Pin::new(stream).poll_write_vectored(cx, slices),
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio_stream::StreamExt;

    use super::*;
    use crate::config::Limits;

    async fn pair() -> (TcpStream, Socket) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let admission = Arc::new(Admission::new(&Limits::default()));
        let socket = Listener::Tcp(listener).incoming(admission).next().await.unwrap().unwrap();
        (client, socket)
    }

    #[tokio::test]
    async fn a_connection_that_is_closed_reads_nothing_more() {
        let (mut client, mut socket) = pair().await;
        client.write_all(b"a").await.unwrap();
        assert_eq!(socket.read_u8().await.unwrap(), b'a');
        let connection = socket.connect_info();
        let waiting = tokio::spawn(async move { socket.read_u8().await });
        tokio::task::yield_now().await;
        connection.close();
        assert_eq!(waiting.await.unwrap().unwrap_err().kind(), io::ErrorKind::ConnectionAborted);
        assert!(matches!(client.read(&mut [0]).await, Ok(0) | Err(_)));
    }

    #[tokio::test]
    async fn a_unix_socket_takes_more_at_a_time_than_it_would_by_itself() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("host.sock");
        let listener = Listener::unix(&path).await.unwrap();
        let client = UnixStream::connect(&path).await.unwrap();
        let Stream::Unix(accepted) = listener.accept().await.unwrap() else { panic!("a unix socket") };
        let bytes = |socket| rustix::net::sockopt::socket_send_buffer_size(socket).unwrap();
        assert!(bytes(&accepted) > bytes(&client));
    }

    #[tokio::test]
    async fn a_used_connection_stays_open() {
        let (mut client, mut socket) = pair().await;
        assert!(socket.connect_info().take(Instant::now()));
        client.write_all(b"a").await.unwrap();
        assert_eq!(socket.read_u8().await.unwrap(), b'a');
    }

    #[tokio::test]
    async fn a_socket_that_somebody_listens_on_is_not_taken_over() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("host.sock");
        let first = Listener::unix(&path).await.unwrap();
        assert_eq!(Listener::unix(&path).await.unwrap_err().kind(), io::ErrorKind::AddrInUse);
        drop(first);
        assert!(!path.exists());
        std::fs::write(&path, b"a file of somebody else").unwrap();
        assert!(Listener::unix(&path).await.is_err());
        assert!(path.exists());
    }
}
