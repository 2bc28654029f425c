//! The vault's keys in shares: proposed, split once approved, and given to the host once the entry is committed.
//!
//! The shares wait in the keeper's own directory, sealed, from before the commit until the host has them: a cut between the
//! two loses none, and a commit that fails gives none away.

use std::sync::Arc;
use std::time::{Duration, Instant};

use attestation::{HpkePublicKey, Sha256Digest, UnixTime};
use ledger::entry::{self, Entry, EscrowInForce, Propose, ProposedEscrow};
use ledger::escrow::{EscrowPlan, Rollback};
use vault_proto::convert::EscrowSubmission;
use vault_proto::v1::{self, keeper_reply::Response};

use super::open::OpenError;
use super::provision::utf8;
use super::{Outcome, Vault};
use crate::escrow::{Splitting, split};
use crate::keeper::recovery;
use crate::keeper::refusal::Refusal;
use crate::keeper_dir::{KeeperDir, KeeperDirError};
use crate::record::{open_outbox, seal_outbox};

/// How long the keeper waits before it tries again to give shares to the host.
const AGAIN_AFTER: Duration = Duration::from_secs(5);
/// The most recoveries that a status shows.
const RECOVERIES_SHOWN_MAX: usize = 16;

/// Shares that wait until their entry is in the log.
pub(in crate::keeper) struct Outbox {
    dir: Arc<KeeperDir>,
    /// There may be some, to be looked after at this time.
    due: Option<Instant>,
}

impl Outbox {
    /// Their file in the keeper's directory.
    pub(in crate::keeper) const FILE: &str = "escrow";

    /// Of a run that begins: it looks after what one before may have left.
    pub(in crate::keeper) fn new(dir: Arc<KeeperDir>) -> Self {
        Self { dir, due: Some(Instant::now()) }
    }

    fn put(&mut self, record: &[u8]) -> Result<(), KeeperDirError> {
        self.due = Some(Instant::now());
        self.dir.replace(Self::FILE, record)
    }
}

/// The keys were split, and the shares are in the outbox.
pub(super) struct Split(Splitting);

impl Split {
    /// The entry that says so.
    pub(super) fn into_entry(self, time: UnixTime, proposal: u64, object: Sha256Digest) -> Entry {
        let Splitting { record, digests, .. } = self.0;
        let record = Sha256Digest::of(&record);
        Entry::Escrow(EscrowInForce { time, proposal, object, record, shares: digests })
    }
}

impl Vault {
    /// Proposes custodians, signed by an approver. Their keys are kept beside the log.
    pub(super) fn submit_escrow(&mut self, request: v1::SubmitEscrowRequest) -> Result<Outcome, Refusal> {
        let EscrowSubmission { plan, keys, statement, signature } = request.try_into()?;
        let now = self.now();
        let proposed = ProposedEscrow::new(&plan, self.vault_id(), utf8("statement", statement)?, signature);
        let vetted = self.opened()?.vet_escrow(&proposed, now);
        vetted.map_err(|error| Refusal::denied(error.code(), error))?;
        let object = proposed.object;
        self.stage_entry(&Entry::Propose(Propose { time: now, proposal: entry::Proposal::Escrow(proposed) }))?;
        self.pending.blobs.extend(keys.iter().map(|key| key.as_bytes().to_vec()));
        self.stage_effects()?;
        Ok(Outcome::AfterCommit(Box::new(move |vault| {
            let proposal = Some(vault.proposal(object)?);
            Ok(Response::SubmitEscrow(v1::SubmitEscrowResponse { proposal }))
        })))
    }

    /// Splits the keys as approvers said, and puts the shares where nobody sees them before the entry is committed.
    pub(super) fn split_keys(&mut self, plan: &EscrowPlan) -> Result<Split, Refusal> {
        let mut keys = Vec::new();
        for custodian in &plan.custodians {
            let key = HpkePublicKey::try_from(self.store.blob(custodian.key)?.as_slice());
            keys.push(key.map_err(|_| Refusal::denied("hpke-public-key", "a custodian's key is no key"))?);
        }
        let vault = self.vault_id();
        let splitting =
            split(&self.keys, vault, plan, &keys, &self.rng).map_err(|error| Refusal::denied(error.code(), error))?;
        let record = seal_outbox(self.keys.kek(), vault, plan.object(vault), &in_bytes(&splitting), &self.rng)
            .map_err(|error| Refusal::unavailable(error.code(), error))?;
        self.outbox.put(&record).map_err(|error| Refusal::unavailable(error.code(), error))?;
        Ok(Split(splitting))
    }

    /// Gives the host the shares whose entry is committed, and forgets those whose entry never will be.
    pub(super) fn tend_outbox(&mut self) {
        if self.outbox.due.is_none_or(|due| Instant::now() < due) {
            return;
        }
        self.outbox.due = match self.empty_outbox() {
            Ok(()) => None,
            Err(refusal) => {
                tracing::warn!(%refusal, "the host does not have the custodians' shares yet: trying again");
                Some(Instant::now() + AGAIN_AFTER)
            }
        };
    }

    /// After a start: what this keeper began with is in the log.
    ///
    /// # Errors
    /// The disk's.
    pub(super) fn settle_recovery(&self) -> Result<(), OpenError> {
        let removed = self.outbox.dir.remove(recovery::FILE);
        removed.map_err(|error| OpenError::Refused(Refusal::unavailable(error.code(), error)))
    }

    fn empty_outbox(&self) -> Result<(), Refusal> {
        let dir = |error: KeeperDirError| Refusal::unavailable(error.code(), error);
        let Some(record) = self.outbox.dir.read(Outbox::FILE).map_err(dir)? else { return Ok(()) };
        if let Some(blobs) = self.committed_shares(&record) {
            self.store.put_blobs(blobs)?;
            tracing::info!("the host has the custodians' shares: `vaultctl escrow fetch` writes them to files");
        }
        self.outbox.dir.remove(Outbox::FILE).map_err(dir)
    }

    /// The blobs in the outbox, if the log names them.
    fn committed_shares(&self, record: &[u8]) -> Option<Vec<Vec<u8>>> {
        let escrow = self.state.vault()?.escrows().current()?;
        let bytes = open_outbox(self.keys.kek(), self.vault_id(), escrow.object(), record).ok()?;
        let blobs = recovery::fields(&bytes)?;
        let shares = escrow.shares(self.vault_id()).map(|(_, digests)| digests.sealed);
        let named = std::iter::once(escrow.record()).chain(shares);
        named.eq(blobs.iter().map(|blob| Sha256Digest::of(blob))).then_some(blobs)
    }
}

/// Record and shares, each behind its length.
fn in_bytes(splitting: &Splitting) -> Vec<u8> {
    let all = std::iter::once(&splitting.record).chain(&splitting.sealed);
    let fields: Vec<&[u8]> = all.map(Vec::as_slice).collect();
    attestation::lv(&fields)
}

/// For people: who holds the present keys.
pub(super) fn in_force(vault: &ledger::state::Vault) -> Option<v1::EscrowStatus> {
    let escrow = vault.escrow_in_force().ok()?;
    let plan = escrow.plan();
    Some(v1::EscrowStatus {
        number: plan.number,
        threshold: plan.threshold,
        custodians: plan.custodians.iter().map(|custodian| custodian.id.to_string()).collect(),
        entry: escrow.entry(),
    })
}

/// For people: when a keeper was lost, and whether the log may have lost entries then.
pub(super) fn recoveries(vault: &ledger::state::Vault) -> Vec<v1::RecoveryStatus> {
    let all = vault.escrows().recovered().iter().rev().take(RECOVERIES_SHOWN_MAX);
    let of = all.map(|recovered| v1::RecoveryStatus {
        entry: recovered.entry(),
        size: recovered.from().size,
        rollback: match recovered.rollback() {
            Rollback::Accepted => "accepted".to_owned(),
        },
    });
    of.collect()
}
