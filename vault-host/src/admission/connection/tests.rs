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

#[tokio::test]
async fn an_idle_connection_is_known_as_such_while_it_has_no_call() {
    let admission = Admission::new(&Limits::default());
    let connection = admission.connection().unwrap();
    let known = connection.known();
    let later = Instant::now() + IDLE_TIME_MIN;
    assert!(known.idle(Instant::now()).is_none() && known.idle(later).is_some());
    let call = connection.begin();
    assert!(known.idle(later).is_none());
    drop(call);
    assert!(known.idle(later + IDLE_TIME_MIN).is_some());
    connection.close();
    assert!(known.idle(later + IDLE_TIME_MIN).is_none(), "it is on its way out");
    drop(connection);
    assert!(!known.is_there());
}
