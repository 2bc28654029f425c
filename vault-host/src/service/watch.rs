//! Watches of leases: an open stream each, over which little goes.

use std::time::Duration;

use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;
use tracing::Instrument;
use vault_proto::convert::WatchLease;
use vault_proto::v1::{self, WatchLeaseResponse, watch_lease_response::Event};

use super::Host;
use crate::link::{Call, Listening, Reply};
use crate::status::Refused;

/// How often a watch says that it goes on: the `.proto` comment says 30 seconds at most.
const SAY_EVERY: Duration = Duration::from_secs(20);
/// Messages that wait for the client.
const WAITING_MAX: usize = 2;

type Events = mpsc::Sender<Result<WatchLeaseResponse, Status>>;

/// Asks the keeper, which checks the signature, and then listens.
pub(super) async fn begin(
    host: &Host,
    request: WatchLease,
) -> Result<ReceiverStream<Result<WatchLeaseResponse, Status>>, Refused> {
    // Before the keeper is asked, so that no notice comes between.
    let listening = host.keepers.notices().listen(request.lease_id);
    let pick = |reply| if let Reply::WatchLease(reply) = reply { Some(reply) } else { None };
    let v1::LeaseWatched { notice } = host.relay(Call::WatchLease(request.into()), pick).await?;
    let (events, stream) = mpsc::channel(WAITING_MAX);
    let first = notice.map_or(Event::Watching(true), Event::Notice);
    tokio::spawn(watch(first, listening, events).in_current_span());
    Ok(ReceiverStream::new(stream))
}

/// Ends with the notice, with its client, and with the stream to the keeper.
async fn watch(mut event: Event, mut listening: Listening, events: Events) {
    loop {
        let last = matches!(event, Event::Notice(_));
        let message = Ok(WatchLeaseResponse { event: Some(event) });
        // A client that reads nothing has given up.
        if events.send_timeout(message, SAY_EVERY).await.is_err() || last {
            return;
        }
        event = tokio::select! {
            heard = listening.heard() => match heard {
                Some(notice) => Event::Notice(notice),
                None => return,
            },
            () = tokio::time::sleep(SAY_EVERY) => Event::Watching(true),
            () = events.closed() => return,
        };
    }
}
