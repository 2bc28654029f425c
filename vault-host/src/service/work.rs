//! Threads for what blocks on behalf of callers: some, so that others are left.

use std::sync::Arc;

use tokio::sync::Semaphore;
use vault_proto::v1::Coarse;

use crate::status::Refused;

/// How much of it there is at a time. The keepers' log is not to wait for callers, and streams have a bound of their own.
pub const WORK_MAX: usize = 96;

/// Places for it.
#[derive(Clone, Debug)]
pub(crate) struct Work(Arc<Semaphore>);

impl Work {
    pub(crate) fn new(places: usize) -> Self {
        Self(Arc::new(Semaphore::new(places)))
    }

    /// Runs what blocks where it may. It has its place until it is done, also where the caller is gone.
    pub(super) async fn run<T: Send + 'static>(&self, act: impl FnOnce() -> T + Send + 'static) -> Result<T, Refused> {
        let unfinished = || Refused::new(Coarse::Unavailable, "host-panicked", "the host could not finish the call");
        let place = self.0.clone().acquire_owned().await.map_err(|_| unfinished())?;
        let done = tokio::task::spawn_blocking(move || {
            let done = act();
            drop(place);
            done
        });
        done.await.map_err(|_| unfinished())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn work_has_its_thread_until_it_is_done_though_its_caller_is_gone() {
        let work = Work::new(1);
        let (go_on, wait) = std::sync::mpsc::channel::<()>();
        let (begun, has_begun) = tokio::sync::oneshot::channel();
        let first = tokio::spawn({
            let work = work.clone();
            async move {
                let act = move || {
                    begun.send(()).unwrap();
                    wait.recv().unwrap();
                };
                work.run(act).await
            }
        });
        has_begun.await.unwrap();
        first.abort();
        let _ = first.await;
        let second = tokio::spawn(async move { work.run(|| 7).await });
        tokio::task::yield_now().await;
        assert!(!second.is_finished(), "there is one thread");
        go_on.send(()).unwrap();
        assert_eq!(second.await.unwrap().unwrap(), 7);
    }
}
