//! The vault of a keeper that has a genesis: the state, the log, and what decides on them.
//!
//! A request is answered at once, or it stages entries and is answered after the commit that makes them durable.

mod budget;
mod epoch;
mod escrow;
mod extend;
mod follow;
mod join;
mod load;
mod open;
mod permit;
mod platform;
mod provision;
mod renew;
mod reseal;
mod revoke;
mod status;
mod time;

use attestation::{KeptChains, Sha256Digest, Trust, UnixTime};
use ledger::checkpoint::Seen;
use ledger::entry::Entry;
use ledger::genesis::Genesis;
use ledger::release_log::{BATCH_ENTRIES_MAX, Batch, Log, LogError, Loggable, Ticket};
use ledger::state::State;
use ring::rand::SystemRandom;
use tokio::sync::oneshot;
use vault_proto::v1::{self, keeper_call::Request, keeper_reply::Response};

use super::challenges::{Challenges, SessionId};
use super::clock::Clock;
use super::commit::{CommitError, Committer};
use super::denials::Denials;
use super::hardware::Hardware;
use super::link::Store;
use super::models::Models;
use super::refusal::Refusal;
use super::retired;
use super::service::{Answer, Job};
use super::snapshots::Snapshots;
use crate::head::Anchor;
use crate::vault_keys::VaultKeys;

use epoch::Epoch;
pub(super) use epoch::is_of;
pub(super) use escrow::Outbox;
use follow::Turned;
pub(super) use open::{OpenError, Opened, Run};
use renew::{OwnRun, Renewals};
pub(super) use reseal::Records;
use revoke::Revoked;

/// Everything that one run of a keeper holds.
pub(super) struct Vault {
    genesis: Genesis,
    /// This keeper's own: the founder's is in the genesis.
    instance: [u8; 32],
    /// That of the keys: the log may have begun the next.
    epoch: Epoch,
    keys: VaultKeys,
    hardware: Hardware,
    tier: Trust,
    store: Store,
    anchor: Anchor,
    records: Records,
    snapshots: Snapshots,
    outbox: Outbox,
    log: Log,
    /// The fold over all entries, the staged ones included: the next decision sees the one before.
    state: State,
    models: Models,
    challenges: Challenges,
    /// Of reports that were verified before.
    chains: KeptChains,
    denials: Denials,
    renewals: Renewals,
    own_run: OwnRun,
    clock: Clock,
    rng: SystemRandom,
    pending: Pending,
}

/// The most entries that one request causes, renewals apart: that the clock was set ahead, an alarm, and a release.
const ENTRIES_PER_JOB_MAX: usize = 3;

/// What waits for the next commit.
#[derive(Default)]
struct Pending {
    /// Durable before the entries.
    blobs: Vec<Vec<u8>>,
    batch: Batch,
    waiting: Vec<Waiting>,
    /// To be told once the entries are durable.
    revoked: Vec<Revoked>,
}

type Reply = oneshot::Sender<Answer>;
/// Makes the answer of a request out of what was committed.
type Finish = Box<dyn FnOnce(&mut Vault) -> Answer + Send>;

struct Waiting {
    reply: Reply,
    session: Option<SessionId>,
    finish: Finish,
}

/// What a handler comes to.
#[expect(clippy::large_enum_variant, reason = "one at a time, consumed at once")]
enum Outcome {
    /// Nothing to write.
    Now(Answer),
    /// After the commit.
    AfterCommit(Finish),
}

impl Vault {
    /// Answers a batch; its entries share one commit.
    ///
    /// # Errors
    /// The commit failed: nothing of it was answered but with a refusal, and the vault must be opened anew.
    pub(super) fn batch(&mut self, jobs: Vec<Job>) -> Result<(), LogError<CommitError>> {
        let refuse_all = |jobs: Vec<Job>, refusal: Refusal| {
            jobs.into_iter().for_each(|job| drop(job.reply.send(Err(refusal.clone()))));
        };
        let _turn = match self.take_turn() {
            Ok(turn @ (Turned::Alone | Turned::Own(_))) => turn,
            Ok(Turned::Not(error)) => {
                refuse_all(jobs, Refusal::busy("log-turn", error));
                return Ok(());
            }
            Err(error) => {
                refuse_all(jobs, uncommitted(&error));
                return Err(error);
            }
        };
        self.own_run = OwnRun::Unknown;
        for job in jobs {
            // So that none of them is turned away where each release takes more than one entry.
            if self.pending.batch.len() + self.renewals.entries(1) + ENTRIES_PER_JOB_MAX > BATCH_ENTRIES_MAX {
                // Also where the renewals alone fill a batch: a commit of nothing else would leave them.
                self.stage_renewals();
                self.commit()?;
            }
            self.handle(job);
        }
        self.end_if_overtaken()?;
        // A queue that is never empty must not put off what is due by time.
        self.due()
    }

    /// What is due by time alone: the deny summary, and renewals that no commit counted yet.
    ///
    /// # Errors
    /// As [`Self::batch`].
    pub(super) fn tick(&mut self) -> Result<(), LogError<CommitError>> {
        match self.take_turn()? {
            _turn @ (Turned::Alone | Turned::Own(_)) => self.due(),
            // It is due still.
            Turned::Not(_) => Ok(()),
        }
    }

    fn due(&mut self) -> Result<(), LogError<CommitError>> {
        // Its last entry is its last, and that of these keys.
        if self.is_retired() || self.moves_on() {
            return self.commit();
        }
        self.watch_clock();
        let now = self.now();
        if let Some(summary) = self.denials.due(now) {
            self.stage_quietly(&Entry::DenySummary(summary));
        }
        self.stage_due_renewals();
        self.commit()
    }

    fn handle(&mut self, job: Job) {
        let Job { request, reply } = job;
        if self.is_retired() {
            let _ = reply.send(Err(retired::refusal()));
            return;
        }
        if self.moves_on() {
            let message = "the vault begins a key epoch: try again in a moment";
            let _ = reply.send(Err(Refusal::unavailable("epoch-begins", message)));
            return;
        }
        self.watch_clock();
        match request {
            Request::ReleaseKeys(request) => self.release_keys(request, reply),
            Request::RenewLease(request) => self.renew_lease(request, reply),
            Request::JoinKeeper(request) => self.join_keeper(request, reply),
            request => {
                let outcome = self.answer(request).unwrap_or_else(|refusal| Outcome::Now(Err(refusal)));
                self.settle(outcome, None, reply);
            }
        }
    }

    fn answer(&mut self, request: Request) -> Result<Outcome, Refusal> {
        match request {
            Request::GetChallenge(request) => self.get_challenge(request),
            Request::GetJoinChallenge(request) => self.get_join_challenge(request),
            Request::EndLease(request) => self.end_lease(request),
            Request::GetKeeperIdentity(_) => Ok(Outcome::Now(Ok(self.identity()))),
            Request::GetKeeperEvidence(request) => self.keeper_evidence(request),
            Request::PublishModel(request) => self.publish_model(request),
            Request::SubmitPolicy(request) => self.submit_policy(request),
            Request::SubmitPlatform(request) => self.submit_platform(request),
            Request::SubmitReseal(request) => self.submit_reseal(request),
            Request::SubmitEscrow(request) => self.submit_escrow(request),
            Request::SubmitKeeperLeave(request) => self.submit_keeper_leave(request),
            Request::SubmitKeyEpoch(request) => self.submit_key_epoch(request),
            Request::GetKeyEpochs(request) => self.key_epochs(request),
            Request::SubmitRaise(request) => self.submit_raise(request),
            Request::SubmitApproval(request) => self.submit_approval(request),
            Request::SubmitRevocation(request) => self.submit_revocation(request),
            Request::SubmitPermit(request) => self.submit_permit(request),
            Request::WatchLease(request) => self.watch_lease(request),
            Request::SubmitExtension(request) => self.submit_extension(request),
            Request::Status(_) => Ok(Outcome::Now(Ok(self.status()))),
            // The same again gets the same answer: a caller may not have seen the first.
            Request::InitKeeper(request) if Sha256Digest::of(&request.core) == self.genesis.core().digest() => {
                Ok(Outcome::Now(Ok(self.initialised())))
            }
            Request::SubmitGenesis(request) if Sha256Digest::of(&request.genesis) == self.vault_id() => {
                let vault_id = self.vault_id().as_bytes().to_vec();
                Ok(Outcome::Now(Ok(Response::SubmitGenesis(v1::SubmitGenesisResponse { vault_id }))))
            }
            Request::GetRecovery(_) | Request::ContributeShare(_) => {
                Err(Refusal::denied("keeper-not-lost", "this keeper has its vault: nothing is recovered here"))
            }
            Request::InitKeeper(_) | Request::SubmitGenesis(_) => {
                Err(Refusal::denied("vault-exists", "this keeper has a genesis: it can't be given another"))
            }
            Request::ReleaseKeys(_) | Request::RenewLease(_) | Request::JoinKeeper(_) => {
                unreachable!("handled by session")
            }
        }
    }

    /// Sends an answer, or lets it wait for the commit.
    fn settle(&mut self, outcome: Outcome, session: Option<SessionId>, reply: Reply) {
        match outcome {
            Outcome::Now(answer) => {
                if let Err(refusal) = &answer {
                    self.denials.count(refusal.code());
                }
                self.send(answer, session, reply);
            }
            Outcome::AfterCommit(finish) => self.pending.waiting.push(Waiting { reply, session, finish }),
        }
    }

    fn send(&mut self, answer: Answer, session: Option<SessionId>, reply: Reply) {
        if let Some(session) = session {
            self.challenges.answered(session, &answer);
        }
        // The caller may be gone; what was decided stays.
        let _ = reply.send(answer);
    }

    /// Applies an entry to the pending state and stages the decision behind it, which its commit turns into `Logged`.
    fn stage<T: Loggable>(&mut self, decision: T) -> Result<Ticket<T>, Refusal> {
        self.stage_renewals_of_another_time();
        if self.pending.batch.len() + self.renewals.entries(0) >= BATCH_ENTRIES_MAX {
            return Err(Refusal::batch_full());
        }
        let entry = decision.entry_bytes();
        self.state.apply(self.state.size(), &entry).map_err(|error| Refusal::denied(error.code(), error))?;
        self.pending.batch.stage(decision).map_err(|error| Refusal::unavailable(error.code(), error))
    }

    /// Stages an entry that no decision waits behind.
    fn stage_entry(&mut self, entry: &Entry) -> Result<(), Refusal> {
        let bytes = entry.encode().map_err(|error| Refusal::denied(error.code(), error))?;
        self.stage(Plain(bytes)).map(drop)
    }

    /// Stages an entry that nobody waits for. The fold refuses none that this file makes; if it did, it is not written.
    fn stage_quietly(&mut self, entry: &Entry) {
        if let Err(refusal) = self.stage_entry(entry) {
            tracing::error!(%refusal, "an entry of the keeper's own was not written");
        }
    }

    /// Makes everything staged durable, then answers who waits. Nothing staged: nothing done.
    fn commit(&mut self) -> Result<(), LogError<CommitError>> {
        if !self.pending.batch.is_empty() || !self.pending.waiting.is_empty() {
            self.stage_renewals();
        }
        let Pending { blobs, batch, waiting, revoked } = std::mem::take(&mut self.pending);
        if batch.is_empty() {
            self.tend_records();
            self.tend_outbox();
            return Ok(());
        }
        let mut committer = Committer {
            store: &self.store,
            anchor: &mut self.anchor,
            keys: &self.keys,
            blobs,
            shared: is_shared(&self.state),
        };
        let committed = self.log.commit(batch, &mut committer);
        if committed.is_ok() {
            self.clock.heard(self.log.seen().and_then(Seen::not_before));
            // Before the answer: whoever is told that a reseal took effect may reboot at once.
            self.tend_records();
            self.tend_outbox();
            self.announce(&revoked);
        }
        for Waiting { reply, session, finish } in waiting {
            let answer = match &committed {
                Ok(_) => finish(self),
                Err(error) => Err(uncommitted(error)),
            };
            self.send(answer, session, reply);
        }
        // After the answers, of what is counted.
        self.snapshots.follow(committed?, &self.store);
        Ok(())
    }

    /// The keeper stops: a start after this folds nothing again.
    pub(super) fn stop(&self) {
        if self.pending.batch.is_empty() {
            self.snapshots.write(&self.state, self.log.tree());
        }
    }

    /// Never before the last entry.
    fn now(&mut self) -> UnixTime {
        self.clock.now(self.state.time())
    }

    fn vault_id(&self) -> Sha256Digest {
        self.genesis.vault_id()
    }

    /// The open vault of the state.
    ///
    /// # Errors
    /// As [`opened`].
    fn opened(&self) -> Result<&ledger::state::Vault, Refusal> {
        opened(&self.state)
    }
}

/// What whoever waits is told of a commit that failed. Nothing of it was released; its entries may be in the log.
fn uncommitted(error: &LogError<CommitError>) -> Refusal {
    match error {
        LogError::NoQuorum(missing) => Refusal::unavailable(missing.code(), missing),
        LogError::Stopped
        | LogError::OtherVault
        | LogError::Append(_)
        | LogError::Commit(_)
        | LogError::Sign(_)
        | LogError::Signature(_)
        | LogError::Cosign(_)
        | LogError::Publish(_)
        | LogError::Followed(_) => Refusal::unavailable("commit-failed", "the log could not be written: try again"),
    }
}

/// The open vault of a state.
///
/// # Errors
/// `vault-not-open` before the last approver of the genesis has signed.
fn opened(state: &State) -> Result<&ledger::state::Vault, Refusal> {
    state.vault().ok_or_else(|| {
        Refusal::unavailable("vault-not-open", "approvers of the genesis are missing: see `vaultctl init status`")
    })
}

/// Whether other keepers write to the log, or did.
fn is_shared(state: &State) -> bool {
    state.vault().is_some_and(|vault| vault.keepers().is_shared())
}

/// Exact bytes of an entry.
struct Plain(Vec<u8>);

impl Loggable for Plain {
    fn entry_bytes(&self) -> Vec<u8> {
        self.0.clone()
    }
}
