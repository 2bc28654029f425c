//! Keepers that share a log take turns to write to it. A turn keeps them out of each other's way, and nothing more: a
//! keeper that goes on past the end of its turn finds its entries refused, and witnesses cosign one log.

use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// How long a keeper waits for its turn.
const TURN_WITHIN: Duration = Duration::from_secs(20);
/// How long a turn lasts at most: longer than a commit with slow witnesses.
const TURN_TIME_MAX: Duration = Duration::from_secs(15);

/// Whose turn it is.
#[derive(Clone, Debug)]
pub(crate) struct Turns(Arc<Semaphore>);

/// The turn of one stream, while it has it.
#[derive(Clone, Debug, Default)]
pub(super) struct OwnTurn(Arc<Mutex<Slot>>);

#[derive(Debug, Default)]
struct Slot {
    number: u64,
    held: Option<OwnedSemaphorePermit>,
}

impl Default for Turns {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(1)))
    }
}

impl OwnTurn {
    /// Waits for the turn, which ends by itself after a time. False where others were at it for too long.
    pub(super) async fn take(&self, turns: &Turns) -> bool {
        self.end();
        let Ok(Ok(permit)) = tokio::time::timeout(TURN_WITHIN, turns.0.clone().acquire_owned()).await else {
            return false;
        };
        let number = {
            let mut slot = self.lock();
            slot.number += 1;
            slot.held = Some(permit);
            slot.number
        };
        let slot = Arc::downgrade(&self.0);
        tokio::spawn(async move {
            tokio::time::sleep(TURN_TIME_MAX).await;
            end_if_held(&slot, number);
        });
        true
    }

    /// Lets the next one write.
    pub(super) fn end(&self) {
        self.lock().held = None;
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Slot> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn end_if_held(slot: &Weak<Mutex<Slot>>, number: u64) {
    let Some(slot) = slot.upgrade() else { return };
    let mut slot = slot.lock().unwrap_or_else(PoisonError::into_inner);
    if slot.number == number && slot.held.take().is_some() {
        tracing::warn!("a keeper kept its turn too long: the next one writes");
    }
}

#[cfg(test)]
mod tests {
    use std::task::{Context, Waker};

    use super::*;

    #[tokio::test]
    async fn one_writes_at_a_time_and_nobody_for_ever() {
        let turns = Turns::default();
        let (one, other) = (OwnTurn::default(), OwnTurn::default());
        assert!(one.take(&turns).await);
        let mut waiting = Box::pin(other.take(&turns));
        assert!(waiting.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
        // Its time is over.
        end_if_held(&Arc::downgrade(&one.0), 1);
        assert!(waiting.await);
        // A turn that was over ends nobody else's, nor the next one of its own.
        one.end();
        assert_eq!(turns.0.available_permits(), 0);
        other.end();
        assert!(one.take(&turns).await);
        end_if_held(&Arc::downgrade(&one.0), 1);
        assert_eq!(turns.0.available_permits(), 0);
        // With its stream a turn ends too.
        let stream = Arc::downgrade(&one.0);
        drop(one);
        end_if_held(&stream, 2);
        assert_eq!(turns.0.available_permits(), 1);
    }
}
