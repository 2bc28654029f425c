//! Keeps a lease alive: renews it with fresh evidence, and ends it.
//!
//! A thread of its own, since the TPM blocks; whoever waits for the lease looks at [`Lease::term`].

use std::fmt;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::Duration;

use attestation::{RenewChallenge, Sha256Digest, Workload};
use ledger::lease::{LeaseStatement, end_message, renew_message};
use ledger::revocation::RevokedLease;
use ledger::vault_file::VaultFile;
use ring::rand::{SecureRandom, SystemRandom};
use tokio::sync::{oneshot, watch};
use vault_proto::collateral::Refresher;
use vault_proto::convert::{Challenge, ChallengeFor, ChallengeRequest, EndLease, ModelName, RenewRequest, SignedLease};

use super::attester::AgentIdentity;
use super::error::SessionError;
use super::extensions::{Extended, Extensions};
use super::lease_signer::LeaseSigner;
use super::load::{EXIT_LEASE_LOST, EXIT_REVOKED};
use super::outage::Outage;
use super::remote::{Hosts, Remote};
use super::session::verify_renewal;
use super::term::{BootTime, Term};
use super::watcher::Watch;
use crate::failure::{Failure, Kind};

/// How long the end of a lease is tried: it ends by itself anyway.
pub(super) const END_TIME_MAX: Duration = Duration::from_secs(5);
/// How long one try of a renewal may take on the way: a third of what is left, within these.
const TRY_TIME_MIN: Duration = Duration::from_secs(5);
const TRY_TIME_MAX: Duration = Duration::from_secs(60);
/// The timers of threads stand still while the machine sleeps, leases do not.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// What a renewal needs.
pub(super) struct Holder {
    pub(super) vault: VaultFile,
    pub(super) hosts: Hosts,
    pub(super) model: ModelName,
    /// What its release says that is started.
    pub(super) workload: Option<Workload>,
    pub(super) identity: AgentIdentity,
    pub(super) signer: Arc<LeaseSigner>,
    pub(super) newest: SignedLease,
    pub(super) statement: LeaseStatement,
    pub(super) extensions: Extensions,
    pub(super) outage: Outage,
}

/// A lease that is held.
pub(super) struct Lease {
    watch: Watch,
    term: watch::Receiver<Term>,
    stop: Sender<()>,
    ended: oneshot::Receiver<Result<(), Failure>>,
}

/// Why a lease is lost.
pub(super) enum Lost {
    /// It was not renewed by its deadline.
    NotRenewed,
    /// Its vault has revoked it.
    Revoked(RevokedLease),
}

impl Lost {
    /// The status that `load` and `run` end with.
    pub(super) fn exit_code(&self) -> u8 {
        match self {
            Self::NotRenewed => EXIT_LEASE_LOST,
            Self::Revoked(_) => EXIT_REVOKED,
        }
    }
}

impl From<&Lost> for Failure {
    fn from(lost: &Lost) -> Self {
        match lost {
            Lost::NotRenewed => Self::new(Kind::Failed, "lease-lost", lost),
            Lost::Revoked(_) => Self::new(Kind::Refused, "lease-revoked", lost),
        }
    }
}

impl fmt::Display for Lost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotRenewed => f.write_str("the lease is lost: it was not renewed in time"),
            Self::Revoked(revoked) => write!(
                f,
                "the lease is revoked, by entry {} of the vault's log: `vaultctl log show --from {0} --count 1` says what \
                 is",
                revoked.index()
            ),
        }
    }
}

impl Lease {
    /// Starts to renew, and to listen.
    ///
    /// # Errors
    /// No thread.
    pub(super) fn hold(holder: Holder, term: Term) -> Result<Self, Failure> {
        let watch = Watch::start(holder.vault.clone(), holder.hosts.clone(), holder.statement.lease, &holder.signer)?;
        let (stop, stopped) = channel();
        let (sender, receiver) = watch::channel(term);
        let (told, ended) = oneshot::channel();
        let work = move || {
            let _ = told.send(holder.run(&stopped, &sender));
        };
        let thread = std::thread::Builder::new().name("lease".to_owned()).spawn(work);
        thread.map_err(|error| Failure::io("no thread for the lease", &error))?;
        Ok(Self { watch, term: receiver, stop, ended })
    }

    /// Its term now.
    pub(super) fn term(&self) -> Term {
        *self.term.borrow()
    }

    /// Its terms from now on.
    pub(super) fn terms(&self) -> watch::Receiver<Term> {
        self.term.clone()
    }

    /// Resolves when the lease is lost.
    pub(super) async fn lost(&self) -> Lost {
        tokio::select! {
            () = self.over() => Lost::NotRenewed,
            revoked = self.watch.revoked() => Lost::Revoked(revoked),
        }
    }

    /// Whether it is lost by now: asked before anything is begun under it.
    pub(super) fn lost_by_now(&self) -> Option<Lost> {
        let over = || self.term().is_over().then_some(Lost::NotRenewed);
        self.watch.revoked_by_now().map(Lost::Revoked).or_else(over)
    }

    /// Resolves when its deadline has passed.
    async fn over(&self) {
        loop {
            let left = BootTime::now().until(self.term().deadline());
            if left.is_zero() {
                return;
            }
            tokio::time::sleep(left.min(LOOK_EVERY)).await;
        }
    }

    /// Ends it at the keeper, within a few seconds or not at all.
    ///
    /// # Errors
    /// It was not ended: it ends by itself, and counts until then.
    pub(super) async fn end(self) -> Result<(), Failure> {
        // A thread that is gone lost the lease.
        let _ = self.stop.send(());
        let late =
            || Failure::new(Kind::Failed, "lease-not-ended", "the lease could not be ended in time: it ends by itself");
        match tokio::time::timeout(END_TIME_MAX + LOOK_EVERY, self.ended).await {
            Ok(Ok(ended)) => ended,
            Ok(Err(_)) | Err(_) => Err(late()),
        }
    }
}

impl Holder {
    fn run(mut self, stop: &Receiver<()>, term: &watch::Sender<Term>) -> Result<(), Failure> {
        // So that a renewal finds its revocation list fetched: it ends with this function.
        let collateral = self.identity.chip.as_ref().map(|chip| Arc::clone(&chip.collateral));
        let _refresher = collateral.map(Refresher::start).transpose()?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|error| Failure::io("no runtime for the lease", &error))?;
        let mut failures = 0;
        let mut next = term.borrow().renew_at(random());
        loop {
            if sleep_until(next, stop) == Woken::ToStop {
                let end = end_lease(&self.hosts, &self.vault, self.statement.lease, &self.signer);
                let late =
                    || Failure::new(Kind::Failed, "lease-not-ended", "no answer in time: the lease ends by itself");
                return runtime.block_on(async { tokio::time::timeout(END_TIME_MAX, end).await.map_err(|_| late())? });
            }
            let now = *term.borrow();
            match self.renew(&runtime, now) {
                Ok(renewed) => {
                    failures = 0;
                    if std::mem::take(&mut self.outage).extension().is_some() {
                        eprintln!("the keeper is back: the lease is renewed");
                    }
                    next = renewed.renew_at(random());
                    tracing::info!(seconds = BootTime::now().until(renewed.deadline()).as_secs(), "lease renewed");
                    // Nobody looks any more: the next message says to stop.
                    let _ = term.send(renewed);
                }
                Err(failure) => {
                    failures += 1;
                    // One that accepts connections and does not answer must not stand in the way of the others.
                    self.hosts.addresses.rotate_left(1);
                    let left = BootTime::now().until(now.deadline());
                    eprintln!("the lease could not be renewed, {} s are left of it: {failure}", left.as_secs());
                    let now = self.without_keeper(now, &failure);
                    let _ = term.send(now);
                    match now.retry_at(BootTime::now(), failures, random()) {
                        Some(at) => next = at,
                        // Lost: nothing is left to end.
                        None => return Ok(()),
                    }
                }
            }
        }
    }

    /// The term of the lease after a renewal that failed.
    fn without_keeper(&mut self, term: Term, failure: &Failure) -> Term {
        // Not the policy of a challenge: a host could name one whose approvers are its own.
        let LeaseStatement { lease, policy, .. } = self.statement;
        let (vault, model) = (self.vault.id(), &self.model);
        let now = term.keeper_time(BootTime::now());
        let find = || self.extensions.longest(&Extended { vault, policy, lease, model, now });
        self.outage.after(failure, term, find)
    }

    fn renew(&mut self, runtime: &tokio::runtime::Runtime, term: Term) -> Result<Term, Failure> {
        let left = BootTime::now().until(term.deadline());
        let limit = (left / 3).clamp(TRY_TIME_MIN, TRY_TIME_MAX);
        let late = |_| Failure::new(Kind::Failed, "host-timeout", "the host took too long to answer");
        let challenge = runtime.block_on(async { tokio::time::timeout(limit, self.challenge()).await });
        let (remote, challenge) = challenge.map_err(late)??;
        let request = self.answer(challenge)?;
        let asked = BootTime::now();
        let answer = runtime.block_on(async { tokio::time::timeout(limit, remote.renew(request)).await });
        let renewed = answer.map_err(late)??;
        self.statement = match verify_renewal(&self.vault, &self.statement, &renewed) {
            // By the keys of an epoch that began meanwhile.
            Err(SessionError::LeaseSignature) => {
                let follow = remote.follow(&self.vault);
                let followed = runtime.block_on(async { tokio::time::timeout(limit, follow).await });
                (self.vault, _) = followed.map_err(late)??;
                verify_renewal(&self.vault, &self.statement, &renewed)?
            }
            verified => verified?,
        };
        self.newest = renewed;
        Ok(term.renewed(asked, &self.statement))
    }

    async fn challenge(&self) -> Result<(Remote, Challenge), Failure> {
        let remote = self.hosts.connect().await?;
        if let Some(file) = self.outage.extension() {
            match remote.extend(file.to_vec()).await.map_err(Failure::from) {
                // A host that knows no extensions may still renew.
                Err(failure) if failure.code() != "method-unknown" => return Err(failure),
                Ok(()) | Err(_) => {}
            }
        }
        let request = ChallengeRequest {
            rule: self.statement.rule.clone(),
            model: self.model.model.clone(),
            version: self.model.version.clone(),
            action: ChallengeFor::Renew { lease_id: self.statement.lease },
            tpm: self.identity.tpm_identity(),
            forms: self.identity.forms(),
        };
        let challenge = remote.challenge(request).await?;
        let (expected, found) = (self.vault.id(), challenge.vault_id);
        if expected != found {
            return Err(SessionError::OtherVault { expected, found }.into());
        }
        Ok((remote, challenge))
    }

    /// Fresh evidence for a challenge. The TPM is open for no longer than that.
    fn answer(&self, challenge: Challenge) -> Result<RenewRequest, Failure> {
        let attester = self.identity.open()?;
        let session = challenge.session;
        let lease_id = self.statement.lease;
        // As it is in the log: whatever the host says that the keeper asks for.
        let workload = self.workload;
        let binding = RenewChallenge {
            rule: self.statement.rule.as_str().to_owned(),
            session,
            nonce: challenge.nonce,
            vault: challenge.vault_id,
            policy: challenge.policy,
            lease: lease_id,
            lease_key: self.signer.public().clone(),
            tpm: attester.part(&challenge)?,
        }
        .bind_workload(workload);
        let evidence = attester.evidence(&binding, &challenge.asked)?;
        let lease_signature = self.signer.sign(&renew_message(&session, &lease_id, binding.digest()))?;
        Ok(RenewRequest { session, lease_id, evidence, lease: self.newest.clone(), lease_signature, workload })
    }
}

/// Ends a lease with its own key. Good for a lease that the agent never saw, too.
pub(super) async fn end_lease(
    hosts: &Hosts,
    vault: &VaultFile,
    lease: Sha256Digest,
    signer: &LeaseSigner,
) -> Result<(), Failure> {
    let lease_signature = signer.sign(&end_message(&vault.id(), &lease))?;
    let remote = hosts.connect().await?;
    Ok(remote.end(EndLease { lease_id: lease, lease_signature }).await?)
}

#[derive(PartialEq, Eq)]
enum Woken {
    InTime,
    ToStop,
}

fn sleep_until(at: BootTime, stop: &Receiver<()>) -> Woken {
    loop {
        let left = BootTime::now().until(at);
        match stop.recv_timeout(left.min(LOOK_EVERY)) {
            // Whoever dropped the lease wants it no more.
            Ok(()) | Err(RecvTimeoutError::Disconnected) => return Woken::ToStop,
            Err(RecvTimeoutError::Timeout) if left <= LOOK_EVERY => return Woken::InTime,
            Err(RecvTimeoutError::Timeout) => {}
        }
    }
}

/// For jitter. Where the system gives none, a fleet renews together.
fn random() -> u64 {
    let mut bytes = [0; 8];
    let _ = SystemRandom::new().fill(&mut bytes);
    u64::from_be_bytes(bytes)
}
