//! Accepted connections: counted, and closed when their client does not play along.

use std::io;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, TryAcquireError, mpsc, watch};
use tokio::time::Instant;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::server::Connected;

use super::request::Ahead;
use super::{Admission, Bucket, OTHERS_PER_CONNECTION_MAX, Queue, WATCHES_PER_CONNECTION_MAX};

/// A connection that has sent no request by then is closed: handshakes hold a place too.
const FIRST_REQUEST_TIME_MAX: Duration = Duration::from_secs(15);
/// Pause after an accept that failed, mostly for want of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// What may be on its way in a unix socket, as far as `net.core.wmem_max` lets it: by the system's own 208 KiB both ends
/// wake each other twice as often.
const UNIX_SEND_BYTES: usize = 1 << 20;
const WARN_EVERY: Duration = Duration::from_secs(60);
/// A connection without a call for so long is closed where its place is wanted.
const IDLE_TIME_MIN: Duration = Duration::from_secs(10);
/// How long a new connection waits for the place of one that is being closed.
const CLOSE_TIME_MAX: Duration = Duration::from_secs(1);

/// One connection, as its calls see it. In the extensions of every request.
#[derive(Clone, Debug)]
pub(crate) struct Connection(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    rate: Bucket,
    challenges: Bucket,
    watches: Arc<Semaphore>,
    others: Arc<Semaphore>,
    stream_queue: Queue,
    ahead: Ahead,
    phase: watch::Sender<Phase>,
    calls: Mutex<Calls>,
    _place: OwnedSemaphorePermit,
}

/// Calls under way, their answers included, and since when that is so many.
#[derive(Clone, Copy, Debug)]
struct Calls {
    count: usize,
    since: Instant,
}

/// A call of a connection, until this is dropped.
#[derive(Debug)]
pub(super) struct UnderWay(Connection);

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.count_calls(|count| count.saturating_sub(1));
    }
}

/// A connection that may be gone already.
#[derive(Debug)]
pub(super) struct Known(Weak<Inner>);

impl Known {
    pub(super) fn is_there(&self) -> bool {
        self.0.strong_count() > 0
    }

    /// The connection, and since when, where it has had no call for long enough.
    pub(super) fn idle(&self, now: Instant) -> Option<(Instant, Connection)> {
        let connection = Connection(self.0.upgrade()?);
        let Calls { count, since } = *connection.calls();
        let idle = count == 0 && now.saturating_duration_since(since) >= IDLE_TIME_MIN && !connection.is_closed();
        idle.then_some((since, connection))
    }
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
    pub(super) fn new(
        rate: Bucket,
        challenges: Bucket,
        stream_queue: Queue,
        ahead: Ahead,
        place: OwnedSemaphorePermit,
    ) -> Self {
        let watches = Arc::new(Semaphore::new(WATCHES_PER_CONNECTION_MAX));
        let others = Arc::new(Semaphore::new(OTHERS_PER_CONNECTION_MAX));
        let phase = watch::Sender::new(Phase::New);
        let calls = Mutex::new(Calls { count: 0, since: Instant::now() });
        let inner = Inner { rate, challenges, watches, others, stream_queue, ahead, phase, calls, _place: place };
        Self(Arc::new(inner))
    }

    pub(super) fn known(&self) -> Known {
        Known(Arc::downgrade(&self.0))
    }

    /// A call begins.
    pub(super) fn begin(&self) -> UnderWay {
        self.count_calls(|count| count.saturating_add(1));
        UnderWay(self.clone())
    }

    fn count_calls(&self, change: impl FnOnce(usize) -> usize) {
        let mut calls = self.calls();
        *calls = Calls { count: change(calls.count), since: Instant::now() };
    }

    fn calls(&self) -> std::sync::MutexGuard<'_, Calls> {
        self.0.calls.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn is_closed(&self) -> bool {
        *self.0.phase.borrow() == Phase::Closed
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

    /// A place for a call that is none of ours, if there is one.
    pub(super) fn other(&self) -> Result<OwnedSemaphorePermit, TryAcquireError> {
        self.0.others.clone().try_acquire_owned()
    }

    /// Bytes of its requests that have no place yet.
    pub(super) fn ahead(&self) -> &Ahead {
        &self.0.ahead
    }

    /// Whether somebody waits for the place of a stream.
    pub(crate) fn is_waited_for(&self) -> bool {
        !self.0.stream_queue.is_empty()
    }

    /// Closes the connection, all its calls included: for a client that does not read what it asked for. A stream alone
    /// can't be given up from here; what it holds stays in memory as long as its connection.
    pub(super) fn close(&self) {
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
                let Some(connection) = place_of(&admission).await else {
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

/// A place for a new connection, that of an idle one where there is no other.
async fn place_of(admission: &Admission) -> Option<Connection> {
    let connection = admission.connection();
    if connection.is_some() || !admission.close_idlest(Instant::now()) {
        return connection;
    }
    tracing::debug!("closed a connection that had no call, for a new one");
    tokio::time::timeout(CLOSE_TIME_MAX, admission.connection_to_come()).await.ok()
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
mod tests;
