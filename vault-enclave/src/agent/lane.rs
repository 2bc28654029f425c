//! Connections that the opening threads drive themselves. A thread reads a frame from its own socket, and opens it while
//! it is in that core's cache: no other thread is woken for it. A connection of HTTP/2 is one task, so a shared one would
//! also be as fast as one core.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::runtime::{Builder, Runtime};

use super::remote::Remote;

/// Connections of one load, beside the one that all its calls share. A core receives and opens 3 GB/s or more.
const LANES_MAX: usize = 8;

/// The connections of one load.
#[derive(Default)]
pub(super) struct Lanes(Mutex<Known>);

#[derive(Default)]
struct Known {
    idle: Vec<Connected>,
    /// How many there are, or could not be had.
    tried: usize,
}

struct Connected {
    remote: Remote,
    /// Of one thread: nothing goes on but while somebody waits for it.
    runtime: Runtime,
}

/// A connection in the hands of one thread, which others may use afterwards.
pub(super) struct Lane {
    /// Present until the drop.
    connected: Option<Connected>,
    lanes: Arc<Lanes>,
}

impl Lanes {
    /// A connection to the host of `remote`; `None` where there are enough, or the host takes no more.
    pub(super) fn take(self: &Arc<Self>, remote: &Remote) -> Option<Lane> {
        let idle = {
            let mut known = self.known();
            let idle = known.idle.pop();
            if idle.is_none() {
                if known.tried == LANES_MAX {
                    return None;
                }
                known.tried += 1;
            }
            idle
        };
        let connected = match idle {
            Some(connected) => connected,
            None => Connected::to(remote)?,
        };
        Some(Lane { connected: Some(connected), lanes: self.clone() })
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Connected {
    fn to(remote: &Remote) -> Option<Self> {
        let runtime = Builder::new_current_thread().enable_all().build().ok()?;
        let remote = runtime.block_on(remote.again()).ok()?;
        Some(Self { remote, runtime })
    }
}

impl Lane {
    pub(super) fn remote(&self) -> &Remote {
        &self.connected().remote
    }

    pub(super) fn block_on<T>(&self, future: impl Future<Output = T>) -> T {
        self.connected().runtime.block_on(future)
    }

    fn connected(&self) -> &Connected {
        self.connected.as_ref().expect("it is taken out by the drop alone")
    }
}

impl Drop for Lane {
    fn drop(&mut self) {
        self.lanes.known().idle.extend(self.connected.take());
    }
}

#[cfg(test)]
mod tests {
    use tokio_stream::wrappers::TcpListenerStream;
    use tonic::service::Routes;
    use tonic::transport::Server;

    use super::*;
    use crate::agent::remote::Hosts;

    #[test]
    fn a_load_has_so_many_connections_of_its_own_and_uses_them_again() {
        let server = Runtime::new().unwrap();
        let listener = server.block_on(tokio::net::TcpListener::bind("127.0.0.1:0")).unwrap();
        let addresses = vec![format!("http://{}", listener.local_addr().unwrap())];
        let incoming = TcpListenerStream::new(listener);
        server.spawn(Server::builder().add_routes(Routes::default()).serve_with_incoming(incoming));
        let remote = server.block_on(Hosts { addresses, ca: None }.connect()).unwrap();
        let lanes = Arc::<Lanes>::default();
        let taken: Vec<Lane> = std::iter::from_fn(|| lanes.take(&remote)).collect();
        assert_eq!(taken.len(), LANES_MAX);
        drop(taken);
        assert_eq!(lanes.known().idle.len(), LANES_MAX);
        assert!(lanes.take(&remote).is_some());
        assert_eq!(lanes.known().tried, LANES_MAX);
    }

    #[test]
    fn a_host_that_takes_no_more_connections_leaves_the_shared_one() {
        let server = Runtime::new().unwrap();
        let listener = server.block_on(tokio::net::TcpListener::bind("127.0.0.1:0")).unwrap();
        let addresses = vec![format!("http://{}", listener.local_addr().unwrap())];
        let accepted = server.spawn(async move { listener.accept().await.map(|(stream, _)| stream) });
        let remote = server.block_on(Hosts { addresses, ca: None }.connect()).unwrap();
        // The listener is gone with the task: nobody listens any more.
        let _kept = server.block_on(accepted).unwrap().unwrap();
        assert!(Arc::<Lanes>::default().take(&remote).is_none());
    }
}
