//! What stands between a host and its database, and cuts a connection at a moment that a test chooses.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UnixStream};

/// Which way is cut.
#[derive(Clone, Copy, Debug)]
pub enum CutAt {
    /// The request never comes.
    Request,
    /// It is carried out, and the answer never comes.
    Answer,
}

type Plan = (CutAt, Vec<u8>, Box<dyn FnOnce() + Send>);

/// Passes bytes on, until told to cut.
pub struct Relay {
    pub port: u16,
    plan: Arc<Mutex<Option<Plan>>>,
}

impl Relay {
    pub async fn start(to: &Path) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let plan: Arc<Mutex<Option<Plan>>> = Arc::default();
        let (plans, to) = (plan.clone(), to.to_owned());
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(pass(client, to.clone(), plans.clone()));
            }
        });
        Self { port, plan }
    }

    /// Cuts the connection on which a request with these bytes comes, once, after `meanwhile`.
    pub fn cut(&self, at: CutAt, request: &[u8], meanwhile: impl FnOnce() + Send + 'static) {
        *self.plan.lock().unwrap() = Some((at, request.to_vec(), Box::new(meanwhile)));
    }

    /// Whether it came to that.
    pub fn was_cut(&self) -> bool {
        self.plan.lock().unwrap().is_none()
    }
}

/// Either side's end is both sides' end.
async fn pass(mut client: TcpStream, to: PathBuf, plans: Arc<Mutex<Option<Plan>>>) {
    let mut server = UnixStream::connect(to).await.unwrap();
    let (mut request, mut answer) = (vec![0; 1 << 20], vec![0; 1 << 20]);
    loop {
        tokio::select! {
            read = client.read(&mut request) => {
                let Ok(length @ 1..) = read else { return };
                let came = &request[..length];
                let now = plans.lock().unwrap().take_if(|(_, bytes, _)| came.windows(bytes.len()).any(|part| part == bytes));
                if let Some((at, _, meanwhile)) = now {
                    if matches!(at, CutAt::Answer) {
                        server.write_all(came).await.unwrap();
                        assert!(server.read(&mut answer).await.unwrap() > 0, "the server answers");
                    }
                    tokio::task::spawn_blocking(meanwhile).await.unwrap();
                    return;
                }
                if server.write_all(came).await.is_err() {
                    return;
                }
            }
            read = server.read(&mut answer) => {
                let Ok(length @ 1..) = read else { return };
                if client.write_all(&answer[..length]).await.is_err() {
                    return;
                }
            }
        }
    }
}
