//! The evidence that an entry of the log rests on, verified again.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use attestation::{Claims, Sha256Digest, UnixTime};
use ledger::entry::{Approve, Entry, Proposal, Propose, Release, Renew};
use ledger::keepers::Joiner;
use ledger::policy::Policy;
use ledger::state::State;
use serde::Serialize;

use crate::audit;
use crate::client::Remote;
use crate::failure::{Failure, Kind};
use crate::print::{indented, moment};
use crate::session::Session;
use crate::stored_evidence::{
    Blobs, StoredEvidenceError, approved_recovery, verify_join, verify_recovery, verify_release, verify_renewal,
    verify_witness,
};
use crate::words::ClaimsReport;

/// Evidence of an entry that verifies.
#[derive(Debug, Serialize)]
pub(crate) struct EntryEvidenceReport {
    verified: bool,
    index: u64,
    #[serde(rename = "type")]
    type_name: &'static str,
    time: UnixTime,
    /// One piece; for a renewal entry one for each lease.
    evidence: Vec<Piece>,
}

#[derive(Debug, Serialize)]
struct Piece {
    digest: Sha256Digest,
    claims: ClaimsReport,
}

/// What the reading of the log leaves behind for this.
#[derive(Default)]
struct Found {
    /// Every policy that was in force before the entry.
    policies: BTreeMap<Sha256Digest, Arc<Policy>>,
    /// The state before the entry, and its bytes.
    entry: Option<(State, Vec<u8>)>,
}

pub(crate) async fn verify_entry(session: &Session, index: u64) -> Result<EntryEvidenceReport, Failure> {
    let vault = session.vault()?;
    let remote = session.remote(&vault).await?;
    let (checkpoint, _) = audit::checkpoint(&remote, &vault).await?;
    let mut found = Found::default();
    audit::read_log_to(&remote, &vault, checkpoint, |before, bytes| found.see(index, before, bytes)).await?;
    let Found { policies, entry } = found;
    let (before, bytes) = entry.ok_or_else(|| {
        Failure::new(Kind::Usage, "entry-unknown", format!("there is no entry {index}"))
            .why(format!("the log has {} entries", checkpoint.size))
    })?;
    let exact = audit::entry(index, &bytes)?;
    let entry = exact.entry();
    let (type_name, time) = (entry.type_name(), entry.time());
    let evidence = match &entry {
        Entry::Approve(approve) => vec![witness(session, &remote, &before, approve).await?],
        Entry::Release(release) => vec![self::release(&remote, &before, release, &policies).await?],
        Entry::Renew(renew) => renewals(&remote, &before, renew, &policies).await?,
        Entry::Propose(Propose { proposal: Proposal::KeeperJoin(join), .. }) => {
            let joiner = Some(join.joiner());
            vec![self::join(&remote, &before, (join.evidence, join.binding), joiner, time).await?]
        }
        Entry::KeeperRetire(retire) => {
            let approved = before.vault().and_then(|vault| vault.keepers().approved());
            let joiner = approved.map(|approved| approved.joiner().clone());
            vec![self::join(&remote, &before, (retire.evidence, retire.binding), joiner, time).await?]
        }
        Entry::Genesis(_)
        | Entry::Start(_)
        | Entry::Propose(_)
        | Entry::Policy(_)
        | Entry::Model(_)
        | Entry::Platform(_)
        | Entry::Reseal(_)
        | Entry::Resealed(_)
        | Entry::KeeperJoin(_)
        | Entry::Escrow(_)
        | Entry::Recover(_)
        | Entry::KeeperLeave(_)
        | Entry::KeyEpoch(_)
        | Entry::End(_)
        | Entry::Revoke(_)
        | Entry::Extend(_)
        | Entry::Deny(_)
        | Entry::Budget(_)
        | Entry::Permit(_)
        | Entry::Clock(_)
        | Entry::Alarm(_)
        | Entry::DenySummary(_)
        | Entry::Upgrade(_) => return Err(without_evidence(index, type_name)),
    };
    Ok(EntryEvidenceReport { verified: true, index, type_name, time, evidence })
}

impl Found {
    fn see(&mut self, index: u64, before: &State, bytes: &[u8]) {
        if before.size() > index {
            return;
        }
        if let Some(vault) = before.vault() {
            self.policies.entry(vault.policy().digest()).or_insert_with(|| Arc::clone(vault.policy()));
        }
        if before.size() == index {
            self.entry = Some((before.clone(), bytes.to_vec()));
        }
    }
}

async fn witness(session: &Session, remote: &Remote, before: &State, approve: &Approve) -> Result<Piece, Failure> {
    let (Some(witness), Some(genesis)) = (approve.witness, before.genesis()) else {
        return Err(without_evidence(before.size(), "approve, of a policy or a model"));
    };
    let (evidence, preimage) = blobs(remote, witness.evidence, witness.binding).await?;
    let blobs = Blobs { evidence: &evidence, preimage: &preimage };
    let recovery = before.vault().and_then(|vault| Some((vault, approved_recovery(vault, approve)?)));
    let verified = match recovery {
        Some((vault, recovery)) => verify_recovery(vault, &recovery, approve.time, blobs, session.rng()),
        None => verify_witness(genesis, approve.time, blobs, session.rng()),
    };
    piece(witness.evidence, verified)
}

async fn join(
    remote: &Remote,
    before: &State,
    (evidence, binding): (Sha256Digest, Sha256Digest),
    joiner: Option<Joiner>,
    time: UnixTime,
) -> Result<Piece, Failure> {
    let (bytes, preimage) = blobs(remote, evidence, binding).await?;
    let blobs = Blobs { evidence: &bytes, preimage: &preimage };
    match before.vault().zip(joiner) {
        Some((vault, joiner)) => piece(evidence, verify_join(vault, &joiner, time, blobs)),
        None => piece(evidence, Err(StoredEvidenceError::PreimageMismatch)),
    }
}

async fn release(
    remote: &Remote,
    before: &State,
    release: &Release,
    policies: &BTreeMap<Sha256Digest, Arc<Policy>>,
) -> Result<Piece, Failure> {
    let (evidence, preimage) = blobs(remote, release.evidence, release.binding).await?;
    let blobs = Blobs { evidence: &evidence, preimage: &preimage };
    let (Some(vault), Some(policy)) = (before.vault(), policies.get(&release.policy)) else {
        return piece(release.evidence, Err(StoredEvidenceError::RuleUnknown));
    };
    piece(release.evidence, verify_release(vault.id(), release, policy, vault.platforms().eks(), blobs))
}

async fn renewals(
    remote: &Remote,
    before: &State,
    renew: &Renew,
    policies: &BTreeMap<Sha256Digest, Arc<Policy>>,
) -> Result<Vec<Piece>, Failure> {
    let mut pieces = Vec::new();
    for renewal in &renew.renewals {
        let lease = before.vault().and_then(|vault| Some((vault, vault.lease(renewal.lease)?)));
        let (evidence, preimage) = blobs(remote, renewal.evidence, renewal.binding).await?;
        let blobs = Blobs { evidence: &evidence, preimage: &preimage };
        let verified = match lease {
            Some((vault, lease)) => {
                let (policies, enrolled) = (policies.values().map(Arc::as_ref), vault.platforms().eks());
                verify_renewal(vault.id(), renewal, lease, policies, enrolled, blobs)
            }
            None => Err(StoredEvidenceError::PreimageMismatch),
        };
        pieces.push(piece(renewal.evidence, verified)?);
    }
    Ok(pieces)
}

async fn blobs(remote: &Remote, evidence: Sha256Digest, binding: Sha256Digest) -> Result<(Vec<u8>, Vec<u8>), Failure> {
    Ok((remote.blob(evidence).await?, remote.blob(binding).await?))
}

fn piece(digest: Sha256Digest, verified: Result<Claims, StoredEvidenceError>) -> Result<Piece, Failure> {
    match verified {
        Ok(claims) => Ok(Piece { digest, claims: ClaimsReport::from(&claims) }),
        Err(error) => {
            Err(Failure::new(Kind::NotVerified, error.code(), format!("evidence {digest} does not bear its entry"))
                .why(error)
                .next("a keeper that does what its code says does not write such an entry: keep the log"))
        }
    }
}

fn without_evidence(index: u64, type_name: &str) -> Failure {
    Failure::new(Kind::Usage, "entry-without-evidence", format!("entry {index} names no evidence to verify"))
        .why(format!("it is of type {type_name}"))
        .next("`vaultctl log show` lists the entries: approvals of the genesis, releases and renewals name evidence")
}

impl fmt::Display for EntryEvidenceReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (index, kind, time) = (self.index, self.type_name, moment(self.time));
        writeln!(f, "Verified: entry {index} ({kind}, {time}) rests on evidence that holds.")?;
        for piece in &self.evidence {
            writeln!(f, "evidence {}", piece.digest)?;
            f.write_str(&indented(&piece.claims))?;
        }
        Ok(())
    }
}
