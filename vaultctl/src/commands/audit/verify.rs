//! `vaultctl audit verify`: no network, no access to the vault, no belief in whoever made the folder.

use std::collections::BTreeMap;
use std::num::NonZero;
use std::path::Path;
use std::sync::Arc;

use attestation::{Claims, EnrolledEks, Sha256Digest, UnixTime};
use ledger::checkpoint::Checkpoint;
use ledger::entry::{Approve, Entry, Proposal, Propose, Release, Renewal};
use ledger::escrow::Recovery;
use ledger::genesis::Genesis;
use ledger::keepers::Joiner;
use ledger::merkle::{Tree, leaf_hash};
use ledger::policy::Policy;
use ledger::state::{Lease, State, Vault};
use ledger::vault_file::VaultFile;
use ring::rand::SystemRandom;
use vault_proto::limits::CHECKPOINT_BYTES_MAX;

use super::html;
use super::read_ahead::read_ahead;
use super::report::{AuditReport, Fault, Verdict};
use super::tally::Tally;
use super::{Progress, named_blobs};
use crate::audit::{self, LogFault, LogReader};
use crate::bundle::Bundle;
use crate::cli::AuditVerifyArgs;
use crate::failure::{Failure, Kind};
use crate::session::{Session, read_text, write_new};
use crate::stored_evidence::{
    Blobs, StoredEvidenceError, approved_recovery, verify_join, verify_recovery, verify_release, verify_renewal,
    verify_witness,
};

/// Pieces of evidence that are verified at once: what is kept in memory.
const BATCH: usize = 512;

pub(crate) fn verify(session: &Session, args: &AuditVerifyArgs) -> Result<AuditReport, Failure> {
    let vault = session.vault()?;
    let bundle = open(&vault, &args.dir)?;
    let checkpoint = match audit::verify_checkpoint(&vault, &bundle.checkpoint()?) {
        Ok(checkpoint) => checkpoint,
        Err(failure) => return Ok(AuditReport::of_fault(vault.id(), Fault::signature(&failure))),
    };
    check_size(&bundle, checkpoint)?;
    let since = match &args.since {
        Some(path) => Some(since(&vault, path)?),
        None => None,
    };
    let report = match consistent(&bundle, checkpoint, since)? {
        Err(fault) => AuditReport::of_fault(vault.id(), fault),
        Ok(()) => fold(session, &vault, &bundle, checkpoint, since)?,
    };
    if let Some(path) = &args.html {
        write_new(path, html::page(&report).as_bytes())?;
    }
    Ok(report)
}

/// A folder that says it is of this vault.
pub(super) fn open(vault: &VaultFile, dir: &Path) -> Result<Bundle, Failure> {
    let bundle = Bundle::open(dir)?;
    if bundle.index().vault != vault.id() {
        return Err(Failure::new(Kind::Usage, "bundle-other-vault", "the folder is of another vault").why(format!(
            "it says {}, and the vault file {}",
            bundle.index().vault,
            vault.id()
        )));
    }
    Ok(bundle)
}

pub(super) fn check_size(bundle: &Bundle, checkpoint: Checkpoint) -> Result<(), Failure> {
    if bundle.index().size == checkpoint.size {
        return Ok(());
    }
    Err(Failure::new(Kind::Usage, "bundle-malformed", "the folder is not what it says").why(format!(
        "{} entries by its index, {} by its checkpoint",
        bundle.index().size,
        checkpoint.size
    )))
}

/// The auditor's own: that it is good is not what is being asked.
fn since(vault: &VaultFile, path: &Path) -> Result<Checkpoint, Failure> {
    audit::verify_checkpoint(vault, &read_text(path, CHECKPOINT_BYTES_MAX)?).map_err(Failure::into_usage)
}

/// The entries are those of the checkpoint, the tiles are those of the entries, and the log goes on from an older one.
/// Before any is folded: what a stranger put into the folder must not be blamed on the keeper.
pub(super) fn consistent(
    bundle: &Bundle,
    checkpoint: Checkpoint,
    since: Option<Checkpoint>,
) -> Result<Result<(), Fault>, Failure> {
    let mut tree = Tree::new();
    let mut earlier = None;
    for tile in Bundle::entry_tiles(checkpoint.size) {
        for entry in bundle.entries(tile)? {
            tree.push(leaf_hash(&entry));
        }
    }
    if let Some(since) = since {
        earlier = match tree.root(since.size) {
            _ if since.size > tree.len() => Some(LogFault::Shortened { earlier: since.size, now: tree.len() }),
            Ok(root) if root == since.root => None,
            Ok(_) | Err(_) => Some(LogFault::Forked { earlier: since.size }),
        };
    }
    let same = tree.root(checkpoint.size).is_ok_and(|root| root == checkpoint.root);
    Ok(match (same, earlier) {
        (false, _) => Err(Fault::of_log(&LogFault::RootMismatch)),
        (true, Some(fault)) => Err(Fault::of_log(&fault)),
        (true, None) => bundle.other_hashes(&tree).map_or(Ok(()), |tile| Err(Fault::tile(tile))),
    })
}

/// Folds every entry, and verifies what each rests on.
fn fold(
    session: &Session,
    vault: &VaultFile,
    bundle: &Bundle,
    checkpoint: Checkpoint,
    since: Option<Checkpoint>,
) -> Result<AuditReport, Failure> {
    let progress = Progress::new("entries", checkpoint.size);
    let mut reader = LogReader::new(vault.id());
    let mut tally = Tally::new(*bundle.index());
    let mut policies = Policies::default();
    let mut jobs = Vec::new();
    let of_fault = |fault: LogFault| match fault.newer_program() {
        Some(_) => Err(fault.into()),
        None => Ok(AuditReport::of_fault(vault.id(), Fault::of_log(&fault))),
    };
    read_ahead(bundle, checkpoint.size, |files| {
        for file in files {
            let entries = file?;
            let width = entries.len() as u64;
            for entry in entries {
                let (index, before) = (reader.state().size(), reader.state());
                policies.see(before);
                let exact = match entry {
                    Ok(exact) => exact,
                    Err(fault) => return of_fault(fault),
                };
                tally.entry(index, exact.entry(), before);
                if bundle.index().has_evidence_of(index) {
                    jobs.extend(jobs_of(index, exact.entry(), before, &policies));
                } else {
                    left_out(index, exact.entry(), &mut tally);
                }
                if let Err(fault) = reader.push_exact(exact) {
                    return of_fault(fault);
                }
            }
            progress.add(width);
            if jobs.len() >= BATCH {
                check(bundle, &mut jobs, session.rng(), &mut tally);
            }
        }
        check(bundle, &mut jobs, session.rng(), &mut tally);
        match reader.finish(checkpoint) {
            Ok(log) => Ok(tally.finish(&log, since, session.now())),
            Err(fault) => of_fault(fault),
        }
    })
}

/// An entry outside the span that the folder has evidence of: none is looked for.
fn left_out(index: u64, entry: &Entry, tally: &mut Tally) {
    // Evidence and binding; a refusal names its evidence alone, and rests on nothing.
    for pair in named_blobs(entry).chunks_exact(2) {
        tally.evidence(index, matches!(entry, Entry::Release(_)), Borne::Missing(pair.to_vec()));
    }
}

/// Every policy that was in force so far: a renewal may stand in the log a little later than its decision.
#[derive(Default)]
struct Policies {
    by_digest: BTreeMap<Sha256Digest, Arc<Policy>>,
    all: Arc<[Arc<Policy>]>,
}

impl Policies {
    fn see(&mut self, state: &State) {
        let Some(policy) = state.vault().map(ledger::state::Vault::policy) else { return };
        if self.by_digest.insert(policy.digest(), Arc::clone(policy)).is_none() {
            self.all = self.by_digest.values().cloned().collect();
        }
    }
}

/// Evidence that an entry names, with what it has to bear.
struct Job {
    index: u64,
    evidence: Sha256Digest,
    binding: Sha256Digest,
    bears: Bears,
}

enum Bears {
    Genesis {
        genesis: Box<Genesis>,
        time: UnixTime,
    },
    Join {
        /// Before the entry.
        vault: Box<Vault>,
        joiner: Box<Joiner>,
        time: UnixTime,
    },
    Recovery {
        /// Before the entry.
        vault: Box<Vault>,
        recovery: Arc<Recovery>,
        time: UnixTime,
    },
    Release {
        vault: Sha256Digest,
        release: Box<Release>,
        policy: Option<Arc<Policy>>,
        enrolled: Arc<EnrolledEks>,
    },
    Renewal {
        vault: Sha256Digest,
        renewal: Renewal,
        lease: Option<Box<Lease>>,
        policies: Arc<[Arc<Policy>]>,
        enrolled: Arc<EnrolledEks>,
    },
}

fn jobs_of(index: u64, entry: &Entry, before: &State, policies: &Policies) -> Vec<Job> {
    let vault = before.vault().map(ledger::state::Vault::id);
    let enrolled = || before.vault().map(|vault| Arc::clone(vault.platforms().eks())).unwrap_or_default();
    match (entry, vault) {
        (Entry::Approve(approve), Some(_)) => recovery_job(index, approve, before).into_iter().collect(),
        (Entry::Approve(approve), None) => approve
            .witness
            .zip(before.genesis())
            .map(|(seen, genesis)| Job {
                index,
                evidence: seen.evidence,
                binding: seen.binding,
                bears: Bears::Genesis { genesis: Box::new(genesis.clone()), time: approve.time },
            })
            .into_iter()
            .collect(),
        (Entry::Release(release), Some(vault)) => {
            let policy = policies.by_digest.get(&release.policy).cloned();
            let bears = Bears::Release { vault, release: release.clone(), policy, enrolled: enrolled() };
            vec![Job { index, evidence: release.evidence, binding: release.binding, bears }]
        }
        (Entry::Renew(renew), Some(vault)) => {
            let job = |renewal: &Renewal| {
                let lease = before.vault().and_then(|vault| vault.lease(renewal.lease)).cloned().map(Box::new);
                let (policies, enrolled) = (Arc::clone(&policies.all), enrolled());
                let bears = Bears::Renewal { vault, renewal: *renewal, lease, policies, enrolled };
                Job { index, evidence: renewal.evidence, binding: renewal.binding, bears }
            };
            renew.renewals.iter().map(job).collect()
        }
        (Entry::Propose(Propose { proposal: Proposal::KeeperJoin(join), .. }), _) => {
            let of = (join.evidence, join.binding);
            join_job(index, entry, before, of, Some(join.joiner())).into_iter().collect()
        }
        (Entry::KeeperRetire(retire), _) => {
            let approved = before.vault().and_then(|vault| vault.keepers().approved());
            let joiner = approved.map(|approved| approved.joiner().clone());
            join_job(index, entry, before, (retire.evidence, retire.binding), joiner).into_iter().collect()
        }
        // The fold refuses a release before the vault is open.
        (Entry::Release(_) | Entry::Renew(_), None) => Vec::new(),
        (
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
            | Entry::Budget(_)
            | Entry::Permit(_)
            | Entry::Clock(_)
            | Entry::Alarm(_)
            | Entry::End(_)
            | Entry::Revoke(_)
            | Entry::Extend(_)
            | Entry::Deny(_)
            | Entry::DenySummary(_)
            | Entry::Upgrade(_),
            _,
        ) => Vec::new(),
    }
}

/// `None` for an approval of something else.
fn recovery_job(index: u64, approve: &Approve, before: &State) -> Option<Job> {
    let (vault, seen) = before.vault().zip(approve.witness)?;
    let recovery = approved_recovery(vault, approve)?;
    let bears = Bears::Recovery { vault: Box::new(vault.clone()), recovery, time: approve.time };
    Some(Job { index, evidence: seen.evidence, binding: seen.binding, bears })
}

/// `None` where the fold refuses the entry.
fn join_job(
    index: u64,
    entry: &Entry,
    before: &State,
    (evidence, binding): (Sha256Digest, Sha256Digest),
    joiner: Option<Joiner>,
) -> Option<Job> {
    let (vault, joiner) = before.vault().zip(joiner)?;
    let bears = Bears::Join { vault: Box::new(vault.clone()), joiner: Box::new(joiner), time: entry.time() };
    Some(Job { index, evidence, binding, bears })
}

/// What became of a job.
pub(super) enum Borne {
    /// The evidence bears the entry.
    Yes(Box<Claims>),
    /// These files are missing.
    Missing(Vec<Sha256Digest>),
    /// It does not.
    No(StoredEvidenceError),
}

/// Verifies a batch on all cores.
fn check(bundle: &Bundle, jobs: &mut Vec<Job>, rng: &SystemRandom, tally: &mut Tally) {
    let cores = std::thread::available_parallelism().map_or(1, NonZero::get);
    let share = jobs.len().div_ceil(cores).max(1);
    let done: Vec<Vec<(u64, bool, Borne)>> = std::thread::scope(|scope| {
        let work = |part: &[Job]| {
            let one = |job: &Job| (job.index, matches!(job.bears, Bears::Release { .. }), job.run(bundle, rng));
            part.iter().map(one).collect()
        };
        let threads: Vec<_> = jobs.chunks(share).map(|part| scope.spawn(move || work(part))).collect();
        // A thread that panicked is a fault of ours, and must not look like evidence that holds.
        threads.into_iter().map(|thread| thread.join().expect("verification does not panic")).collect()
    });
    for (index, is_release, borne) in done.into_iter().flatten() {
        tally.evidence(index, is_release, borne);
    }
    jobs.clear();
}

impl Job {
    fn run(&self, bundle: &Bundle, rng: &SystemRandom) -> Borne {
        let (evidence, preimage) = match (bundle.blob(self.evidence), bundle.blob(self.binding)) {
            (Some(evidence), Some(preimage)) => (evidence, preimage),
            (evidence, preimage) => {
                let missing = [(evidence, self.evidence), (preimage, self.binding)];
                let missing = missing.into_iter().filter(|(blob, _)| blob.is_none()).map(|(_, digest)| digest);
                return Borne::Missing(missing.collect());
            }
        };
        let blobs = Blobs { evidence: &evidence, preimage: &preimage };
        let verified = match &self.bears {
            Bears::Genesis { genesis, time } => verify_witness(genesis, *time, blobs, rng),
            Bears::Recovery { vault, recovery, time } => verify_recovery(vault, recovery, *time, blobs, rng),
            Bears::Join { vault, joiner, time } => verify_join(vault, joiner, *time, blobs),
            Bears::Release { vault, release, policy: Some(policy), enrolled } => {
                verify_release(*vault, release, policy, enrolled, blobs)
            }
            Bears::Release { policy: None, .. } => Err(StoredEvidenceError::RuleUnknown),
            Bears::Renewal { vault, renewal, lease: Some(lease), policies, enrolled } => {
                verify_renewal(*vault, renewal, lease, policies.iter().map(Arc::as_ref), enrolled, blobs)
            }
            Bears::Renewal { lease: None, .. } => Err(StoredEvidenceError::PreimageMismatch),
        };
        match verified {
            Ok(claims) => Borne::Yes(Box::new(claims)),
            Err(error) => Borne::No(error),
        }
    }
}

impl Fault {
    fn signature(failure: &Failure) -> Self {
        Self::new(Verdict::Signature, failure.code(), failure.to_string())
    }

    fn of_log(fault: &LogFault) -> Self {
        let verdict = match fault {
            LogFault::Entry { .. } | LogFault::Fold { .. } | LogFault::RecoveryRoot { .. } => Verdict::Fold,
            LogFault::OtherVault { .. }
            | LogFault::SizeMismatch { .. }
            | LogFault::RootMismatch
            | LogFault::Shortened { .. }
            | LogFault::Forked { .. } => Verdict::Consistency,
        };
        Self::new(verdict, fault.code(), fault.to_string())
    }

    fn tile(tile: ledger::tiles::Tile) -> Self {
        Self::new(Verdict::Consistency, "tile-mismatch", format!("{tile} is missing, or not that of the entries"))
    }
}
