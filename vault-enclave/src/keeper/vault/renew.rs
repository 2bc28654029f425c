//! Renewal and end of leases.
//!
//! Under `counter` a renewal costs no NV increment of its own: the keeper signs a lease statement without proof, which
//! joins the next counted commit, whatever that is for. None is signed while an uncounted one is older than
//! [`UNCOUNTED_MAX`]. So a run that its host paused, and replaced by another one meanwhile, has to find that out before it
//! signs: once in each batch it asks the TPM whether it has the counter still. A run that takes the counter later writes its
//! `start` later, behind which the lease counts for a full one more; and the holder counts it from before its request came.
//!
//! Under `witnesses` there may be other keepers, or such a run, and nothing that says so but the log: a renewal is answered
//! after its commit. Under `none` nothing says so at all.
//!
//! No commit may leave out a renewal that was signed before it: a start counts the leases that ran at the last entry, and
//! whoever kills the keeper then would have a lease that nobody counts.

use std::time::{Duration, Instant};

use attestation::{Sha256Digest, UnixTime};
use ledger::decide::decide_renew;
use ledger::entry::{Cause, End, Entry, Renew, Renewal};
use ledger::genesis::AntiRollback;
use ledger::lease::{LeaseStatement, end_message, renew_message};
use ledger::release_log::{BATCH_ENTRIES_MAX, LogError};
use ledger::state::{Lease, RENEWAL_COMMIT_SECS_MAX};
use prost::Message;
use vault_proto::convert::{EndLease, RenewRequest};
use vault_proto::v1::{self, keeper_reply::Response};

use super::load::{name_reported_ak, unknown_lease};
use super::{Outcome, Reply, Vault, Waiting, uncommitted};
use crate::head::AnchorError;
use crate::keeper::challenges::{Asked, Pending};
use crate::keeper::commit::CommitError;
use crate::keeper::refusal::Refusal;

/// Age in boot time at which uncounted renewals are committed by themselves.
const COMMIT_AFTER: Duration = Duration::from_secs(120);
/// Age at which no further renewal is signed.
const UNCOUNTED_MAX: Duration = Duration::from_secs(300);
/// Renewals that one entry holds: 16 KiB has room for about 40.
const RENEWALS_PER_ENTRY: usize = 32;

/// Renewals that no commit has counted yet.
#[derive(Default)]
pub(super) struct Renewals {
    /// In the order of their decisions.
    uncounted: Vec<Renewal>,
    oldest: Option<Instant>,
}

/// What a batch knows about whether this run still is the one that counts.
#[derive(Default)]
pub(super) enum OwnRun {
    /// Nobody has asked yet.
    #[default]
    Unknown,
    /// It is.
    Stands,
    /// Another one has its place.
    Overtaken(AnchorError),
}

impl Renewals {
    /// Entries that these and `more` renewals take.
    pub(super) fn entries(&self, more: usize) -> usize {
        (self.uncounted.len() + more).div_ceil(RENEWALS_PER_ENTRY)
    }

    /// Whether the fold would refuse them behind an entry of `now`.
    fn are_of_another_time(&self, now: UnixTime) -> bool {
        self.uncounted.first().is_some_and(|first| first.issued.plus(RENEWAL_COMMIT_SECS_MAX) < now)
    }
}

impl Vault {
    /// Redeems a renew challenge.
    pub(super) fn renew_lease(&mut self, request: v1::RenewLeaseRequest, reply: Reply) {
        let digest = Sha256Digest::of(&request.encode_to_vec());
        let Some((redemption, reply)) = self.redeem(&request.session, digest, reply) else { return };
        let session = redemption.session;
        let outcome =
            self.decide_renewal(redemption.pending, request).unwrap_or_else(|refusal| Outcome::Now(Err(refusal)));
        self.settle(outcome, Some(session), reply);
    }

    fn decide_renewal(&mut self, pending: Pending, request: v1::RenewLeaseRequest) -> Result<Outcome, Refusal> {
        let Asked::Renew(mut challenge) = pending.asked else {
            return Err(Refusal::denied("challenge-action", "this challenge was made for another action"));
        };
        let RenewRequest { session, lease_id, evidence, lease, lease_signature, workload } = request.try_into()?;
        if lease_id != challenge.lease {
            return Err(Refusal::denied("lease-mismatch", "the request names another lease than its challenge"));
        }
        let now = self.now();
        self.check_shown_lease(&lease_id, &lease, now)?;
        let blob = evidence.blob();
        let lease_key = challenge.lease_key.clone();
        name_reported_ak(&mut challenge.tpm, &evidence.evidence)?;
        let binding = challenge.bind_workload(workload);
        lease_key
            .verify(&renew_message(&session, &lease_id, binding.digest()), &lease_signature)
            .map_err(|_| Refusal::denied("lease-signature", "the lease key did not sign this request"))?;
        let verified = self.verify(evidence, binding, &pending.expected, pending.events.as_ref())?;
        self.stage_renewals_of_another_time();
        if self.renewals.uncounted.iter().any(|renewal| renewal.lease == lease_id) {
            // The decision must see the renewal before.
            self.stage_renewals();
        }
        if self.pending.batch.len() + self.renewals.entries(1) > BATCH_ENTRIES_MAX {
            return Err(Refusal::batch_full());
        }
        let grant = match decide_renew(&self.state, verified, now) {
            Ok(grant) => grant,
            Err(denial) => return self.deny(&denial, blob, now),
        };
        if self.renewals.oldest.is_some_and(|oldest| oldest.elapsed() > UNCOUNTED_MAX) {
            return Err(Refusal::unavailable("renewals-uncounted", "older renewals are not in the log yet: try again"));
        }
        self.check_due(&lease_id, grant.lease_statement().renew_by)?;
        self.check_own_run()?;
        let renewal = grant.renewal(Sha256Digest::of(&blob));
        let lease = self.sign_lease(&grant.lease_statement())?;
        self.store.put_blobs(vec![blob, grant.preimage().to_vec()])?;
        self.renewals.uncounted.push(renewal);
        self.renewals.oldest.get_or_insert_with(Instant::now);
        let answer = Ok(Response::RenewLease(lease.into()));
        match self.genesis.core().anti_rollback() {
            AntiRollback::Witnesses => Ok(Outcome::AfterCommit(Box::new(move |_| answer))),
            AntiRollback::Counter | AntiRollback::None => Ok(Outcome::Now(answer)),
        }
    }

    /// Where its rule has a shorter lease now, it is renewed once that ends no sooner than what was signed before: whoever
    /// does not get the renewal has that still.
    fn check_due(&self, lease_id: &Sha256Digest, renew_by: UnixTime) -> Result<(), Refusal> {
        let signed_until = self.opened()?.lease(*lease_id).map(Lease::signed_until);
        match signed_until.filter(|until| renew_by < *until) {
            Some(until) => {
                Err(Refusal::busy("lease-not-due", format!("it runs until {until} as it is: try again later")))
            }
            None => Ok(()),
        }
    }

    /// Once in each batch, whose requests all came before this.
    fn check_own_run(&mut self) -> Result<(), Refusal> {
        if matches!(self.own_run, OwnRun::Unknown) {
            let error = match self.anchor.check_run() {
                Ok(()) => {
                    self.own_run = OwnRun::Stands;
                    return Ok(());
                }
                Err(error) => error,
            };
            let refusal = Refusal::unavailable(error.code(), &error);
            if self.anchor.may_serve() {
                // The TPM gave no answer.
                return Err(refusal);
            }
            self.own_run = OwnRun::Overtaken(error);
        }
        match &self.own_run {
            OwnRun::Overtaken(error) => Err(Refusal::unavailable(error.code(), error)),
            OwnRun::Unknown | OwnRun::Stands => Ok(()),
        }
    }

    /// Another run has the vault: nothing that this one decided since is of any worth.
    ///
    /// # Errors
    /// Where it is so: the vault must be opened anew.
    pub(super) fn end_if_overtaken(&mut self) -> Result<(), LogError<CommitError>> {
        let OwnRun::Overtaken(error) = std::mem::take(&mut self.own_run) else { return Ok(()) };
        let error = LogError::Commit(CommitError::Anchor(error));
        for Waiting { reply, session, .. } in std::mem::take(&mut self.pending).waiting {
            self.send(Err(uncommitted(&error)), session, reply);
        }
        Err(error)
    }

    /// An agent renews only with a signed lease that has not run out: else a keeper whose uncounted renewals were
    /// lost could not tell a lease that it renewed from one that lapsed.
    fn check_shown_lease(
        &mut self,
        lease_id: &Sha256Digest,
        lease: &vault_proto::convert::SignedLease,
        now: UnixTime,
    ) -> Result<(), Refusal> {
        let message = LeaseStatement::message(&lease.statement);
        let epochs = self.opened()?.epochs();
        // What an older epoch's key signed goes on, as long as it was signed in that epoch.
        let shown = LeaseStatement::parse(&lease.statement)
            .ok()
            .filter(|shown| epochs.signed(&message, &lease.signature, shown.issued))
            .ok_or_else(|| Refusal::denied("lease-statement-signature", "this vault did not sign the shown lease"))?;
        if shown.vault != self.vault_id() || shown.lease != *lease_id {
            return Err(Refusal::denied("lease-mismatch", "the shown lease is of another lease or vault"));
        }
        // What the log extended has no statement of its own.
        let extended = self.opened()?.lease(*lease_id).and_then(|lease| lease.extended);
        if shown.renew_by < now && extended.is_none_or(|until| until < now) {
            return Err(Refusal::denied("lease-expired", format!("the shown lease ran out at {}", shown.renew_by)));
        }
        Ok(())
    }

    /// Makes a commit for the uncounted renewals, if it is time for one and nothing else makes one.
    pub(super) fn stage_due_renewals(&mut self) {
        let due = self.renewals.oldest.is_some_and(|oldest| oldest.elapsed() > COMMIT_AFTER);
        if due {
            self.stage_renewals();
        }
    }

    /// After a jump of the clock the renewals from before it come into the log first: behind an entry from after it they
    /// would be too late. Otherwise they wait for the commit, so that a request which is refused causes none.
    pub(super) fn stage_renewals_of_another_time(&mut self) {
        let now = self.now();
        if self.renewals.are_of_another_time(now) {
            self.stage_renewals();
        }
    }

    /// Renewals join every commit that happens anyway. There is room for them, since whatever else was staged left it.
    ///
    /// Their entries are of the time of their decisions, or of the entry before: of the present time, they would come too
    /// late where the clock has jumped.
    pub(super) fn stage_renewals(&mut self) {
        let renewals = std::mem::take(&mut self.renewals);
        for chunk in renewals.uncounted.chunks(RENEWALS_PER_ENTRY) {
            let newest = chunk.last().map_or(UnixTime(0), |renewal| renewal.issued);
            let time = newest.max(self.state.time());
            self.stage_quietly(&Entry::Renew(Renew { time, renewals: chunk.to_vec() }));
        }
    }

    /// Ends a lease early.
    pub(super) fn end_lease(&mut self, request: v1::EndLeaseRequest) -> Result<Outcome, Refusal> {
        let EndLease { lease_id, lease_signature } = request.try_into()?;
        let now = self.now();
        let lease = self.opened()?.lease(lease_id).ok_or_else(|| unknown_lease(lease_id))?;
        lease
            .lease_key
            .verify(&end_message(&self.vault_id(), &lease_id), &lease_signature)
            .map_err(|_| Refusal::denied("lease-signature", "the lease key did not sign this request"))?;
        // A renewal after its lease's end would be refused by the fold.
        self.stage_renewals();
        self.stage_entry(&Entry::End(End { time: now, lease: lease_id, cause: Cause::Agent }))?;
        Ok(Outcome::AfterCommit(Box::new(|_| Ok(Response::EndLease(v1::EndLeaseResponse {})))))
    }
}
