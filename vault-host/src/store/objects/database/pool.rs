//! Connections to one server, and statements on them.
//!
//! A statement is made again where its connection was lost, so a conditional one may find that it was carried out before:
//! see [`super::super::place::Written`]. There is no timeout on the server: one that ends while it waits for a standby would
//! acknowledge what the standby has not.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::runtime::Handle;
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;
use tokio_postgres::config::{Host, SslMode, TargetSessionAttrs};
use tokio_postgres::{Client, Error};

use super::failed::Failed;
use super::passfile::password;
use super::schema::VERSION;
use super::tls::Tls;
use super::{PostgresConfig, PostgresError};
use crate::store::StoreError;
use crate::store::objects::authorities::tls_client;

/// As many statements are under way at a time; a server has some hundred connections for all its clients.
const CONNECTIONS_MAX: usize = 8;
/// The longest that one statement may take, made again or not: the keeper waits 30 s for a call.
const STATEMENT_TIME_MAX: Duration = Duration::from_secs(25);
/// How long a statement is made again: a server restarts, or a standby takes over, in that time.
const RETRY_TIME_MAX: Duration = Duration::from_secs(12);
const CONNECT_TIME_MAX: Duration = Duration::from_secs(5);
const BACKOFF_FIRST: Duration = Duration::from_millis(100);
const BACKOFF_MAX: Duration = Duration::from_secs(2);
/// A server that is gone without a word is noticed on an idle connection.
const KEEPALIVE_AFTER: Duration = Duration::from_secs(30);

/// Connections to one server.
pub(super) struct Pool {
    server: tokio_postgres::Config,
    config: PostgresConfig,
    tls: Tls,
    runtime: Handle,
    idle: Mutex<Vec<Connection>>,
    permits: Semaphore,
}

/// One connection; the task moves its bytes, and ends with it.
struct Connection {
    client: Client,
    task: JoinHandle<Result<(), Error>>,
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Pool {
    /// Connects to nothing yet.
    pub(super) fn new(config: &PostgresConfig, runtime: Handle) -> Result<Self, PostgresError> {
        let tls = Tls(Arc::new(tls_client(config.ca.as_deref()).map_err(PostgresError::Authority)?));
        let mut server = config.server.clone();
        server
            .application_name("vault-host")
            .connect_timeout(CONNECT_TIME_MAX)
            .keepalives_idle(KEEPALIVE_AFTER)
            .ssl_mode(if config.tls { SslMode::Require } else { SslMode::Disable })
            // Of several hosts, the one that takes writes.
            .target_session_attrs(TargetSessionAttrs::ReadWrite);
        let (idle, permits) = (Mutex::default(), Semaphore::new(CONNECTIONS_MAX));
        Ok(Self { server, config: config.clone(), tls, runtime, idle, permits })
    }

    /// What an error calls an object.
    pub(super) fn name(&self, object: &str) -> String {
        let host = |host: &Host| match host {
            Host::Tcp(name) => name.clone(),
            Host::Unix(path) => path.display().to_string(),
        };
        let hosts: Vec<_> = self.config.server.get_hosts().iter().map(host).collect();
        let database = self.config.server.get_dbname().unwrap_or_default();
        format!("postgres://{}/{database}/{}/{object}", hosts.join(","), self.config.schema)
    }

    /// Makes a statement about an object, again where it might then come to something. Blocks.
    pub(super) fn run<T>(
        &self,
        object: &str,
        statement: impl AsyncFn(&Client) -> Result<T, Error>,
    ) -> Result<T, StoreError> {
        self.run_checked(object, async |client| Ok(statement(client).await?))
    }

    /// The same, for what finds more wrong than a server does.
    pub(super) fn run_checked<T>(
        &self,
        object: &str,
        statement: impl AsyncFn(&Client) -> Result<T, Failed>,
    ) -> Result<T, StoreError> {
        let begun = Instant::now();
        let repeated = async {
            let mut wait = BACKOFF_FIRST;
            loop {
                match self.once(&statement).await {
                    Err(failed) if failed.passes() && begun.elapsed() + wait < RETRY_TIME_MAX => {
                        tokio::time::sleep(wait).await;
                        wait = (wait * 2).min(BACKOFF_MAX);
                    }
                    done => return done,
                }
            }
        };
        let bounded = async { tokio::time::timeout(STATEMENT_TIME_MAX, repeated).await };
        let done = self.runtime.block_on(bounded).unwrap_or(Err(Failed::Late(STATEMENT_TIME_MAX)));
        done.map_err(|failed| failed.of(self.name(object), VERSION))
    }

    async fn once<T>(&self, statement: &impl AsyncFn(&Client) -> Result<T, Failed>) -> Result<T, Failed> {
        let _permit = self.permits.acquire().await.expect("it is never closed");
        let connection = match self.take_idle() {
            Some(connection) => connection,
            None => self.connect().await?,
        };
        let done = statement(&connection.client).await;
        // After an error nobody knows what the server still does there.
        if done.is_ok() {
            self.idle.lock().unwrap_or_else(PoisonError::into_inner).push(connection);
        }
        done
    }

    fn take_idle(&self) -> Option<Connection> {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        idle.retain(|connection| !connection.client.is_closed());
        idle.pop()
    }

    async fn connect(&self) -> Result<Connection, Failed> {
        let mut server = self.server.clone();
        if let Some(password) = password(&server, self.config.passfile.as_deref()).map_err(Failed::Config)? {
            server.password(password);
        }
        let (client, connection) = server.connect(self.tls.clone()).await?;
        let connection = Connection { client, task: tokio::spawn(connection) };
        check_durable(&connection.client).await?;
        Ok(connection)
    }
}

/// Whether what the server acknowledges is there after its machine has stopped.
async fn check_durable(client: &Client) -> Result<(), Failed> {
    let asked = "SELECT current_setting('fsync'), current_setting('synchronous_commit')";
    let row = client.query_typed_one(asked, &[]).await?;
    match (row.try_get(0)?, row.try_get(1)?) {
        ("off", _) => Err(Failed::NotDurable("fsync")),
        (_, "off") => Err(Failed::NotDurable("synchronous_commit")),
        _ => Ok(()),
    }
}
