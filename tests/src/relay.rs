//! A relay in front of a socket, which a test can hold still or count by.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

const SERVER_WITHIN: Duration = Duration::from_secs(20);
const PATIENCE: Duration = Duration::from_secs(60);
/// Runs of bytes that no unit of a model comes in.
const SMALL: usize = 8 << 10;
/// Of a slow link: so many bytes in so long.
const PART: usize = 4 << 10;
const SLOW: Duration = Duration::from_millis(250);

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

/// Holds what goes through a relay from a run of bytes on that a test chooses, until it is let go.
#[derive(Default)]
pub struct Hold {
    state: Mutex<Held>,
    changed: Condvar,
}

#[derive(Default, PartialEq, Eq)]
enum Held {
    #[default]
    NotYet,
    Now,
    NoMore,
}

impl Hold {
    /// At every run of bytes that `is` is true of.
    pub fn at(is: impl Fn(Way, &[u8]) -> bool + Send + Sync + 'static) -> (Arc<Self>, Gate) {
        let hold = Arc::<Self>::default();
        let held = Arc::clone(&hold);
        let gate: Gate = Arc::new(move |way, bytes| {
            if is(way, bytes) {
                held.stand_still();
            }
            true
        });
        (hold, gate)
    }

    /// At everything that comes back, once so many bytes did.
    pub fn after(bytes: usize) -> (Arc<Self>, Gate) {
        let passed = AtomicUsize::new(0);
        Self::at(move |way, run| way == Way::Down && passed.fetch_add(run.len(), Ordering::SeqCst) + run.len() > bytes)
    }

    /// Waits until something is held.
    pub fn wait(&self) {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = self.changed.wait_timeout_while(state, PATIENCE, |state| *state == Held::NotYet);
        assert!(!waited.unwrap_or_else(PoisonError::into_inner).1.timed_out(), "nothing comes that is to be held");
    }

    /// Lets it go, and everything from now on.
    pub fn release(&self) {
        *self.state.lock().unwrap_or_else(PoisonError::into_inner) = Held::NoMore;
        self.changed.notify_all();
    }

    fn stand_still(&self) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if *state == Held::NotYet {
            *state = Held::Now;
            self.changed.notify_all();
        }
        drop(self.changed.wait_while(state, |state| *state == Held::Now));
    }
}

/// A link that is slow for what has the bytes of units, once so many have come back, until it is told to be quick. Calls go on
/// beside it.
pub fn slow_after(bytes: usize) -> (Arc<AtomicBool>, Gate) {
    let (quick, passed) = (Arc::<AtomicBool>::default(), AtomicUsize::new(0));
    let told = Arc::clone(&quick);
    let gate: Gate = Arc::new(move |way, run| {
        if way == Way::Down && passed.fetch_add(run.len(), Ordering::SeqCst) + run.len() > bytes && run.len() > SMALL {
            let mut parts = run.chunks(PART);
            while parts.next().is_some() && !told.load(Ordering::SeqCst) {
                thread::sleep(SLOW);
            }
        }
        true
    });
    (quick, gate)
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
