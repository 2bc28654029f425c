//! Listens for the revocation of a lease, as long as it is held.
//!
//! A host that says nothing, or that knows no watches, takes away the speed and no more: the lease can't be renewed and
//! ends by its time. What a host says is worth nothing before it is verified, so that none can end a lease.

use std::time::Duration;

use attestation::Sha256Digest;
use ledger::checkpoint::LogVerifier;
use ledger::revocation::{Notice, RevokedLease, watch_message};
use ledger::vault_file::VaultFile;
use ring::rand::{SecureRandom, SystemRandom};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use vault_proto::convert::{RevocationNotice, WatchEvent, WatchLease};

use super::lease_signer::LeaseSigner;
use super::remote::Hosts;
use crate::failure::{Failure, Kind};

/// A host says something at least every 30 seconds.
const SILENCE_MAX: Duration = Duration::from_secs(75);
/// Least and most that a watch which ended waits before it is opened again.
const BACKOFF_MIN: Duration = Duration::from_millis(500);
const BACKOFF_MAX: Duration = Duration::from_secs(30);

/// What a watch needs.
struct Watcher {
    vault: VaultFile,
    hosts: Hosts,
    request: WatchLease,
    /// What was last said to the person: each reason once.
    said: Option<String>,
}

/// A watch that goes on until it is dropped.
pub(super) struct Watch {
    revoked: watch::Receiver<Option<RevokedLease>>,
    task: JoinHandle<()>,
}

impl Watch {
    /// Starts to listen, on the runtime that it is called on.
    ///
    /// # Errors
    /// The lease key can't sign.
    pub(super) fn start(
        vault: VaultFile,
        hosts: Hosts,
        lease: Sha256Digest,
        signer: &LeaseSigner,
    ) -> Result<Self, Failure> {
        let lease_signature = signer.sign(&watch_message(&vault.id(), &lease))?;
        let request = WatchLease { lease_id: lease, lease_signature };
        let (sender, revoked) = watch::channel(None);
        let watcher = Watcher { vault, hosts, request, said: None };
        Ok(Self { revoked, task: tokio::spawn(watcher.run(sender)) })
    }

    /// Resolves when the lease is known to be revoked.
    pub(super) async fn revoked(&self) -> RevokedLease {
        let mut revoked = self.revoked.clone();
        match revoked.wait_for(Option::is_some).await.map(|revoked| revoked.clone()) {
            Ok(Some(revoked)) => revoked,
            // The task is gone, and nothing is heard any more.
            Ok(None) | Err(_) => std::future::pending().await,
        }
    }

    /// Whether it is known to be revoked by now.
    pub(super) fn revoked_by_now(&self) -> Option<RevokedLease> {
        self.revoked.borrow().clone()
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Watcher {
    async fn run(mut self, revoked: watch::Sender<Option<RevokedLease>>) {
        let mut failures = 0u32;
        loop {
            let mut heard = false;
            match self.watch(&mut heard).await {
                Ok(lease) => {
                    // Nobody looks any more where nobody holds the lease.
                    let _ = revoked.send(Some(lease));
                    return;
                }
                Err(failure) => {
                    failures = if heard { 1 } else { failures.saturating_add(1) };
                    // One that does not say what it must does not stand in the way of the others.
                    self.hosts.addresses.rotate_left(1);
                    self.say(&failure);
                }
            }
            tokio::time::sleep(backoff(failures)).await;
        }
    }

    /// One stream, to its end or to a notice that holds.
    async fn watch(&mut self, heard: &mut bool) -> Result<RevokedLease, Failure> {
        let mut events = self.hosts.connect().await?.watch(self.request.clone()).await?;
        let failed = |code: &str, why: &str| Failure::new(Kind::Failed, code, why);
        loop {
            let event = tokio::time::timeout(SILENCE_MAX, events.next()).await;
            match event.map_err(|_| failed("watch-silent", "the host says nothing"))?? {
                Some(WatchEvent::Watching) => {
                    *heard = true;
                    self.said = None;
                }
                Some(WatchEvent::Notice(notice)) => {
                    if self.verify(&notice).is_err() {
                        // By the keys of an epoch that began meanwhile.
                        (self.vault, _) = self.hosts.connect().await?.follow(&self.vault).await?;
                    }
                    return self.verify(&notice);
                }
                None => return Err(failed("watch-ended", "the host ended the watch")),
            }
        }
    }

    fn verify(&self, notice: &RevocationNotice) -> Result<RevokedLease, Failure> {
        let RevocationNotice { entry, log_proof, leases, signature } = notice;
        let log = LogVerifier::of(self.vault.genesis());
        Notice { entry, log_proof, leases, signature }
            .verify(self.request.lease_id, &log, self.vault.identity_key())
            .map_err(|error| Failure::new(Kind::NotVerified, error.code(), error))
    }

    fn say(&mut self, failure: &Failure) {
        let why = failure.to_string();
        if self.said.as_ref() != Some(&why) {
            eprintln!(
                "warning: the lease is not watched: a revocation is seen when it is renewed, or ends it by its time: {why}"
            );
            self.said = Some(why);
        }
    }
}

/// Half to all of a wait that doubles, so that a fleet does not come back together.
fn backoff(failures: u32) -> Duration {
    let wait = BACKOFF_MIN.saturating_mul(1 << failures.saturating_sub(1).min(6)).min(BACKOFF_MAX);
    let mut byte = [0];
    // Without randomness the whole wait is as good.
    let share = if SystemRandom::new().fill(&mut byte).is_ok() { u32::from(byte[0]) } else { 255 };
    wait / 2 + wait / 2 * share / 255
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_watch_that_ends_again_and_again_comes_back_slower_and_never_at_once() {
        for (failures, most) in [(1, 500), (2, 1_000), (3, 2_000), (7, 30_000), (u32::MAX, 30_000)] {
            let wait = backoff(failures).as_millis();
            assert!((most / 2..=most).contains(&wait), "{failures}: {wait}");
        }
    }
}
