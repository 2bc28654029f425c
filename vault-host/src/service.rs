//! The gRPC services: each method parses, calls, maps.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use tonic::{Request, Response, Status};
use tracing::Span;
use vault_proto::v1::Coarse;

use crate::admission::{Admission, CallContext, ReplyMemory};
use crate::journal::{Journal, Record};
use crate::link::{Call, Keepers, LinkError, Reply};
use crate::status::Refused;
use crate::store::{Store, StoreError};
use crate::telemetry::{Method, RequestId};

mod audit;
mod fetch;
mod provision;
mod sizes;
mod units;
mod upload;
mod vault;
mod watch;
mod work;

pub(crate) use audit::AuditService;
pub(crate) use provision::ProvisionService;
pub(crate) use sizes::ProvisionBySize;
pub(crate) use units::WithUnits;
pub(crate) use vault::VaultService;
pub use work::WORK_MAX;
pub(crate) use work::Work;

/// How long an answer about the other hosts is good.
const ELSEWHERE_FOR: Duration = Duration::from_secs(2);

/// What the services share.
#[derive(Debug)]
pub(crate) struct Host {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) keepers: Keepers,
    pub(crate) journal: Arc<Journal>,
    pub(crate) admission: Arc<Admission>,
    /// Held by the one publication that is being made.
    pub(crate) publishing: Arc<tokio::sync::Mutex<()>>,
    /// Threads for what blocks.
    pub(crate) work: Work,
    /// Hosts that have the keeper, and when that was asked for.
    pub(crate) elsewhere: tokio::sync::Mutex<Option<(Instant, Vec<String>)>>,
}

impl Host {
    /// Relays a call to a keeper. `pick` takes the reply that belongs to it.
    async fn relay<T>(&self, call: Call, pick: impl FnOnce(Reply) -> Option<T>) -> Result<T, Refused> {
        let reply = match self.keepers.call(call).await {
            Ok(reply) => reply,
            Err(error) => return Err(self.without_answer(error).await),
        };
        pick(reply).ok_or_else(|| LinkError::WrongReply.into())
    }

    /// Why the keeper gave no answer; where this host does not reach it, which do.
    async fn without_answer(&self, error: LinkError) -> Refused {
        let LinkError::Unreachable { reason } = &error else { return error.into() };
        // Callers come by the thousand when a keeper is away: the store is asked for all of them at once.
        let mut elsewhere = self.elsewhere.lock().await;
        if elsewhere.as_ref().is_none_or(|(asked, _)| asked.elapsed() >= ELSEWHERE_FOR) {
            let hosts = self.on_disk(|store| store.attached_hosts()).await.unwrap_or_default();
            *elsewhere = Some((Instant::now(), hosts));
        }
        match elsewhere.as_ref().map_or(&[][..], |(_, hosts)| hosts.as_slice()) {
            [] => error.into(),
            hosts => {
                let message =
                    format!("this host does not reach the keeper, but these do: {} ({reason})", hosts.join(", "));
                Refused::new(Coarse::Unavailable, "keeper-elsewhere", message)
            }
        }
    }

    /// Does something with the disk.
    async fn on_disk<T: Send + 'static>(
        &self,
        act: impl FnOnce(&dyn Store) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, Refused> {
        let store = self.store.clone();
        self.work.run(move || act(&*store)).await?.map_err(Refused::from)
    }

    /// Answers a call: what `act` gives, or a status. The exact reason of a refusal goes to the journal.
    async fn answer<T>(
        &self,
        context: CallContext,
        act: impl Future<Output = Result<T, Refused>>,
    ) -> Result<Response<T>, Status> {
        match act.await {
            Ok(answer) => {
                Span::current().record("outcome", "ok");
                tracing::info!("answered");
                Ok(Response::new(answer))
            }
            Err(refused) => Err(self.refuse(&context, refused).await),
        }
    }

    /// As [`Host::answer`], with memory that the answer holds until it has been sent.
    async fn answer_holding<T>(
        &self,
        context: CallContext,
        act: impl Future<Output = Result<(T, ReplyMemory), Refused>>,
    ) -> Result<Response<T>, Status> {
        let (answer, memory) = self.answer(context, act).await?.into_inner();
        let mut response = Response::new(answer);
        response.extensions_mut().insert(memory);
        Ok(response)
    }

    async fn refuse(&self, context: &CallContext, refused: Refused) -> Status {
        let span = Span::current();
        span.record("outcome", "refused").record("code", refused.code.as_str());
        tracing::info!(reason = refused.message, "refused");
        let record = Record {
            time: SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs()),
            request_id: context.id.to_string(),
            method: context.method.name.to_owned(),
            code: refused.code.clone(),
            message: refused.message.clone(),
        };
        let journal = self.journal.clone();
        match self.work.run(move || journal.record(&record)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::warn!(%error, "can't write the journal"),
            Err(_) => tracing::error!("the journal panicked"),
        }
        refused.status(context.method.audience, &context.id)
    }
}

/// Takes a request apart: the message, and the call that it came with.
fn enter<M>(mut request: Request<M>) -> (CallContext, M) {
    let context = request.extensions_mut().remove::<CallContext>();
    // Every request comes through the admission layer; one that did not still has a name.
    let context = context.unwrap_or_else(|| CallContext {
        method: Method::of(""),
        id: RequestId::new(),
        connection: None,
        work: None,
    });
    (context, request.into_inner())
}
