//! How slowly a client may take what it asked for, or bring what it announced: whoever goes on slower has given up, or
//! wants the place for nothing.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::Instant;

use super::Connection;
use super::body::Progress;

/// Bytes that a client moves in [`STALL_TIME_MAX`], unless there are fewer to move.
pub(super) const LEAST_BYTES: u64 = 512 << 10;
/// A client that moves less in that time has given up, whatever its connection says.
const STALL_TIME_MAX: Duration = Duration::from_secs(60);
/// The same where others wait for what it has: less than they wait.
const STALL_TIME_WANTED: Duration = Duration::from_secs(10);
/// How often a client is looked at that moves enough.
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// The same of one that could be given up, once somebody waits.
const LOOK_CLOSELY_EVERY: Duration = Duration::from_millis(500);

/// Watches how an answer is taken, and closes its connection where it is not. Ends when the answer is gone, which `gone`
/// says. `wanted` is whether others wait for what it holds.
pub(super) async fn watch(
    progress: Arc<Progress>,
    connection: Connection,
    gone: oneshot::Receiver<()>,
    wanted: impl Fn() -> bool,
) {
    tokio::select! {
        _ = gone => {}
        () = not_taken(&progress, wanted) => {
            tracing::warn!(bytes = progress.taken(), "closed a connection that stopped reading its answer");
            connection.close();
        }
    }
}

async fn not_taken(progress: &Progress, wanted: impl Fn() -> bool) {
    let (mut since, mut taken) = (Instant::now(), progress.taken());
    loop {
        let slow = since.elapsed() >= STALL_TIME_WANTED;
        tokio::time::sleep(if slow { LOOK_CLOSELY_EVERY } else { LOOK_EVERY }).await;
        // Where nothing waits for the client, the host is the slow one.
        if !progress.is_behind() || progress.taken() >= taken + LEAST_BYTES {
            (since, taken) = (Instant::now(), progress.taken());
        } else if is_over(since.elapsed(), &wanted) {
            return;
        }
    }
}

fn is_over(waited: Duration, wanted: impl Fn() -> bool) -> bool {
    waited >= STALL_TIME_MAX || waited >= STALL_TIME_WANTED && wanted()
}

/// How a client brings something: only the time counts in which the host waits for it.
#[derive(Debug, Default)]
pub(crate) struct Bringing {
    waited: Duration,
    bytes: u64,
}

impl Bringing {
    /// Waits for the client; `None` once it is to be given up.
    pub(crate) async fn wait<T>(&mut self, client: impl Future<Output = T>, wanted: impl Fn() -> bool) -> Option<T> {
        let (begun, waited) = (Instant::now(), self.waited);
        let over = async {
            while !is_over(waited + begun.elapsed(), &wanted) {
                tokio::time::sleep(LOOK_CLOSELY_EVERY).await;
            }
        };
        let came = tokio::select! {
            biased;
            came = client => Some(came),
            () = over => None,
        };
        self.waited += begun.elapsed();
        came
    }

    /// So many bytes came.
    pub(crate) fn came(&mut self, bytes: u64) {
        self.bytes += bytes;
        if self.bytes >= LEAST_BYTES {
            *self = Self::default();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::pending;

    use super::*;

    fn after(waited: Duration) -> Bringing {
        Bringing { waited, bytes: 0 }
    }

    #[tokio::test]
    async fn who_brings_little_is_given_up_after_a_minute_and_sooner_where_others_wait() {
        assert_eq!(after(STALL_TIME_MAX).wait(pending::<()>(), || false).await, None);
        assert_eq!(after(STALL_TIME_WANTED).wait(pending::<()>(), || true).await, None);
        let second = Duration::from_secs(1);
        assert!(!is_over(STALL_TIME_MAX - second, || false) && !is_over(STALL_TIME_WANTED - second, || true));
    }

    #[tokio::test]
    async fn the_time_counts_until_enough_came_however_many_messages_that_was() {
        let mut bringing = after(STALL_TIME_MAX);
        bringing.came(LEAST_BYTES - 1);
        assert_eq!(bringing.wait(pending::<()>(), || false).await, None);
        // What is there already is not waited for.
        assert_eq!(bringing.wait(async { 7 }, || false).await, Some(7));
        bringing.came(1);
        assert_eq!((bringing.waited, bringing.bytes), (Duration::ZERO, 0));
    }
}
