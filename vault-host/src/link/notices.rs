//! Who listens for the revocation of which lease. The host hands notices on; what they are worth is for the agent to check.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use attestation::Sha256Digest;
use tokio::sync::mpsc;
use vault_proto::limits::NOTICE_LEASES_MAX;
use vault_proto::v1::RevocationNotice;

/// Listeners, by lease.
#[derive(Clone, Debug, Default)]
pub(crate) struct Notices(Arc<Mutex<Table>>);

#[derive(Debug, Default)]
struct Table {
    next: u64,
    stopped: bool,
    listeners: HashMap<Sha256Digest, HashMap<u64, mpsc::Sender<RevocationNotice>>>,
}

/// Listens for one lease, until it is dropped.
#[derive(Debug)]
pub(crate) struct Listening {
    notices: Notices,
    lease: Sha256Digest,
    number: u64,
    receiver: mpsc::Receiver<RevocationNotice>,
}

impl Notices {
    /// Listens from now on. How many do is bounded by the places that [`Admission`](crate::admission::Admission) gives.
    pub(crate) fn listen(&self, lease: Sha256Digest) -> Listening {
        let (sender, receiver) = mpsc::channel(1);
        let mut table = self.lock();
        table.next += 1;
        let number = table.next;
        // Without a sender the listener hears at once that there is nothing to hear.
        if !table.stopped {
            table.listeners.entry(lease).or_default().insert(number, sender);
        }
        drop(table);
        Listening { notices: self.clone(), lease, number, receiver }
    }

    /// Hands a notice to those who listen for a lease of it.
    pub(crate) fn hand_on(&self, notice: &RevocationNotice) {
        let mut table = self.lock();
        // As many as a notice may name: a keeper's message may be longer than that.
        for lease in notice.leases.iter().take(NOTICE_LEASES_MAX) {
            let Ok(lease) = Sha256Digest::try_from(lease.as_slice()) else { continue };
            for sender in table.listeners.remove(&lease).unwrap_or_default().into_values() {
                // Whoever is gone wants it no more, and there is room for one.
                let _ = sender.try_send(notice.clone());
            }
        }
    }

    /// The stream to the keeper ended: nobody knows what was missed, so all have to ask again.
    pub(super) fn forget(&self) {
        self.lock().listeners.clear();
    }

    /// The host ends: nobody is to be waited for.
    pub(crate) fn stop(&self) {
        let mut table = self.lock();
        table.stopped = true;
        table.listeners.clear();
    }

    fn lock(&self) -> MutexGuard<'_, Table> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Listening {
    /// The notice; `None` where it has to be asked for anew.
    pub(crate) async fn heard(&mut self) -> Option<RevocationNotice> {
        self.receiver.recv().await
    }
}

impl Drop for Listening {
    fn drop(&mut self) {
        let mut table = self.notices.lock();
        if let Entry::Occupied(mut listeners) = table.listeners.entry(self.lease) {
            listeners.get_mut().remove(&self.number);
            if listeners.get().is_empty() {
                listeners.remove();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lease(n: u8) -> Sha256Digest {
        Sha256Digest::from_bytes([n; 32])
    }

    fn notice(leases: &[u8]) -> RevocationNotice {
        let leases = leases.iter().map(|n| lease(*n).as_bytes().to_vec()).collect();
        RevocationNotice { leases, ..RevocationNotice::default() }
    }

    #[tokio::test]
    async fn a_notice_goes_to_those_who_listen_for_its_leases() {
        let notices = Notices::default();
        let [mut one, mut again, mut other] = [1, 1, 2].map(|n| notices.listen(lease(n)));
        notices.hand_on(&notice(&[1, 3]));
        assert_eq!(one.heard().await, Some(notice(&[1, 3])));
        assert_eq!(again.heard().await, Some(notice(&[1, 3])));
        assert!(other.receiver.try_recv().is_err());
        notices.forget();
        assert_eq!(other.heard().await, None);
    }

    #[tokio::test]
    async fn a_notice_is_of_no_more_leases_than_one_may_name() {
        let notices = Notices::default();
        let [mut last, mut behind] = [1, 2].map(|n| notices.listen(lease(n)));
        let mut long = notice(&[7; NOTICE_LEASES_MAX + 1]);
        long.leases[NOTICE_LEASES_MAX - 1] = lease(1).as_bytes().to_vec();
        long.leases[NOTICE_LEASES_MAX] = lease(2).as_bytes().to_vec();
        notices.hand_on(&long);
        assert_eq!(last.heard().await, Some(long));
        assert!(behind.receiver.try_recv().is_err());
    }

    #[tokio::test]
    async fn who_is_gone_leaves_nothing_behind_and_a_host_that_ends_takes_none() {
        let notices = Notices::default();
        drop([1, 1, 2].map(|n| notices.listen(lease(n))));
        assert!(notices.lock().listeners.is_empty());
        notices.stop();
        assert_eq!(notices.listen(lease(1)).heard().await, None);
    }
}
