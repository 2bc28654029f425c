//! A relay in front of a socket, which a test can hold still or count by.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

const SERVER_WITHIN: Duration = Duration::from_secs(20);
const HELD_WITHIN: Duration = Duration::from_secs(60);

/// Which way bytes go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// From whoever connected.
    Up,
    /// Back to it.
    Down,
}

/// Is told of every run of bytes before it goes on; it may wait, and where it says false the connection ends.
pub type Gate = Arc<dyn Fn(Way, &[u8]) -> bool + Send + Sync>;

/// Holds what comes down while a test looks around.
pub struct Hold {
    after: usize,
    /// Bytes that came, and whether they go on.
    state: Mutex<(usize, bool)>,
    changed: Condvar,
}

impl Hold {
    /// Holds what comes after so many bytes, of all connections together.
    pub fn after(bytes: usize) -> Arc<Self> {
        Arc::new(Self { after: bytes, state: Mutex::default(), changed: Condvar::new() })
    }

    /// For the relay.
    pub fn gate(self: &Arc<Self>) -> Gate {
        let hold = Arc::clone(self);
        Arc::new(move |way, bytes| {
            if way == Way::Down {
                let mut state = hold.state();
                state.0 += bytes.len();
                hold.changed.notify_all();
                let held = |(passed, released): &mut (usize, bool)| *passed > hold.after && !*released;
                drop(hold.changed.wait_while(state, held));
            }
            true
        })
    }

    /// Waits until it holds something.
    pub fn wait(&self) {
        let waited = self.changed.wait_timeout_while(self.state(), HELD_WITHIN, |(passed, _)| *passed <= self.after);
        assert!(!waited.unwrap_or_else(PoisonError::into_inner).1.timed_out(), "so much does not come");
    }

    /// Whether nothing but the first bytes has gone on.
    pub fn is_held(&self) -> bool {
        !self.state().1
    }

    /// Bytes that came.
    pub fn passed(&self) -> usize {
        self.state().0
    }

    /// Lets everything pass.
    pub fn release(&self) {
        self.state().1 = true;
        self.changed.notify_all();
    }

    fn state(&self) -> std::sync::MutexGuard<'_, (usize, bool)> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Relays what connects to `listen` to the unix socket `to`, until this process ends.
pub fn unix(listen: &Path, to: &Path, gate: Gate) {
    let listener = UnixListener::bind(listen).expect("the socket is free");
    let to = to.to_owned();
    thread::spawn(move || {
        for client in listener.incoming() {
            let Ok(client) = client else { return };
            let Some(server) = connect(|| UnixStream::connect(&to)) else { continue };
            pump(client.try_clone().expect("a socket"), server.try_clone().expect("a socket"), Way::Up, &gate);
            pump(server, client, Way::Down, &gate);
        }
    });
}

/// As [`unix`], for TCP.
pub fn tcp(listener: TcpListener, to: SocketAddr, gate: Gate) {
    thread::spawn(move || {
        for client in listener.incoming() {
            let Ok(client) = client else { return };
            let Some(server) = connect(|| TcpStream::connect(to)) else { continue };
            for socket in [&client, &server] {
                socket.set_nodelay(true).expect("a TCP socket");
            }
            pump(client.try_clone().expect("a socket"), server.try_clone().expect("a socket"), Way::Up, &gate);
            pump(server, client, Way::Down, &gate);
        }
    });
}

/// Relays to a software TPM; gives the address in its place. libtss2 takes the control port to be the one after the port for
/// commands.
pub fn tpm(tcti: &str, gate: Gate) -> String {
    let (_, port) = tcti.rsplit_once("port=").expect("a port");
    let port: u16 = port.parse().expect("a port");
    let pairs = (0..64).filter_map(|_| {
        let first = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).ok()?;
        let next = first.local_addr().ok()?.port().checked_add(1)?;
        Some((first, TcpListener::bind((Ipv4Addr::LOCALHOST, next)).ok()?))
    });
    let (commands, control) = pairs.into_iter().next().expect("two free ports in a row");
    let here = commands.local_addr().expect("it listens").port();
    let local = |port: u16| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    tcp(commands, local(port), gate);
    tcp(control, local(port + 1), Arc::new(|_, _| true));
    format!("swtpm:host=127.0.0.1,port={here}")
}

/// Waits for a server that is being started; where none comes, what connected is told so by the end of its connection.
fn connect<S>(try_once: impl Fn() -> io::Result<S>) -> Option<S> {
    let start = Instant::now();
    loop {
        match try_once() {
            Ok(server) => return Some(server),
            Err(_) if start.elapsed() > SERVER_WITHIN => return None,
            Err(_) => thread::sleep(Duration::from_millis(10)),
        }
    }
}

/// One direction, until either side ends; then both do.
fn pump<S: Socket>(mut from: S, mut to: S, way: Way, gate: &Gate) {
    let gate = Arc::clone(gate);
    thread::spawn(move || {
        let mut buffer = vec![0; 64 << 10];
        while let Ok(bytes @ 1..) = from.read(&mut buffer) {
            if !gate(way, &buffer[..bytes]) || to.write_all(&buffer[..bytes]).is_err() {
                break;
            }
        }
        from.close();
        to.close();
    });
}

trait Socket: Read + Write + Send + 'static {
    fn close(&self);
}

impl Socket for UnixStream {
    fn close(&self) {
        let _ = self.shutdown(std::net::Shutdown::Both);
    }
}

impl Socket for TcpStream {
    fn close(&self) {
        let _ = self.shutdown(std::net::Shutdown::Both);
    }
}
