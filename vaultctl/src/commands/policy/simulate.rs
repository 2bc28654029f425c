//! `vaultctl policy simulate`: what a candidate would have changed, had it been in force all along.

mod report;
mod sums;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use attestation::{Sha256Digest, UnixTime};
use ledger::decide::PastUnits;
use ledger::entry::{Action, Deny, Entry, Release};
use ledger::manifest::MANIFEST_BYTES_MAX;
use ledger::policy::Policy;
use ledger::state::{LoggedManifest, Rehearsal, State, Vault};

pub(crate) use report::Simulation;

use self::report::{Candidate, Counts};
use self::sums::{Key, Subject, Sums};
use super::read_policy;
use crate::bundle::Bundle;
use crate::cli::PolicySimulateArgs;
use crate::commands::audit::PastLog;
use crate::failure::{Failure, Kind};
use crate::past::{self, Judged};
use crate::session::{Session, read};
use crate::stored_evidence::{Blobs, released_units, verify_release};

/// Refused leases that have ended are forgotten at least this often.
const REFUSED_BETWEEN_SWEEPS: usize = 256;

pub(crate) fn simulate(session: &Session, args: &PolicySimulateArgs) -> Result<Simulation, Failure> {
    let (candidate, _) = read_policy(&args.new)?;
    let candidate = Arc::new(candidate);
    let manifests = read_manifests(&args.manifest)?;
    let log = PastLog::open(session.vault()?, &args.log)?;
    let mut simulator = Simulator::new(Arc::clone(&candidate), log.bundle(), manifests);
    let folded = log.fold(|before, entry| {
        simulator.see(before, entry);
        Ok(())
    })?;
    let vault = folded.vault()?;
    // As of now, but never before the last entry.
    let now = session.now().max(folded.state().time());
    let proposable = vault.check_successor(&candidate, now).err();
    simulator.count_running(vault, folded.state().time());
    let Simulator { releases, denials, without_entry, loses, waits, gains, open, .. } = simulator;
    Ok(Simulation {
        vault: vault.id(),
        size: folded.checkpoint().size,
        in_force: vault.policy().digest(),
        candidate: Candidate::new(&candidate, proposable.as_ref()),
        releases,
        denials,
        denials_without_entry: without_entry,
        loses: loses.listed(),
        waits: waits.listed(),
        gains: gains.listed(),
        open: open.listed(),
    })
}

fn read_manifests(paths: &[PathBuf]) -> Result<BTreeMap<Sha256Digest, Vec<u8>>, Failure> {
    let manifest = |path: &PathBuf| {
        let bytes = read(path, MANIFEST_BYTES_MAX)?;
        Ok((Sha256Digest::of(&bytes), bytes))
    };
    paths.iter().map(manifest).collect()
}

/// Where a release that the candidate would not have let through is summed up.
struct Group {
    waits: bool,
    key: Key,
}

/// Judges each entry as it comes.
struct Simulator<'a> {
    /// What the candidate would have left.
    rehearsal: Rehearsal,
    bundle: &'a Bundle,
    manifests: BTreeMap<Sha256Digest, Vec<u8>>,
    opened: BTreeMap<Sha256Digest, Arc<LoggedManifest>>,
    /// Leases that the candidate would not have granted, and their group: they take no place under it.
    refused: BTreeMap<Sha256Digest, Group>,
    since_sweep: usize,
    releases: Counts,
    denials: Counts,
    without_entry: u64,
    loses: Sums,
    waits: Sums,
    gains: Sums,
    open: Sums,
}

impl<'a> Simulator<'a> {
    fn new(candidate: Arc<Policy>, bundle: &'a Bundle, manifests: BTreeMap<Sha256Digest, Vec<u8>>) -> Self {
        Self {
            rehearsal: Rehearsal::new(candidate),
            bundle,
            manifests,
            opened: BTreeMap::new(),
            refused: BTreeMap::new(),
            since_sweep: 0,
            releases: Counts::default(),
            denials: Counts::default(),
            without_entry: 0,
            loses: Sums::default(),
            waits: Sums::default(),
            gains: Sums::default(),
            open: Sums::default(),
        }
    }

    /// An entry, and the state before it.
    fn see(&mut self, before: &State, entry: &Entry) {
        let index = before.size();
        self.rehearsal.prepare(before);
        match (entry, before.vault()) {
            (Entry::Release(release), Some(vault)) => self.release(index, before, vault, release),
            (Entry::Deny(deny), Some(vault)) => self.denial(index, vault, deny),
            (Entry::DenySummary(summary), _) => {
                self.without_entry = summary.counts.values().fold(self.without_entry, |sum, n| sum.saturating_add(*n));
            }
            // The fold refuses them before the vault is open.
            (Entry::Release(_) | Entry::Deny(_), None) => {}
            (
                Entry::Genesis(_)
                | Entry::Start(_)
                | Entry::Propose(_)
                | Entry::Approve(_)
                | Entry::Policy(_)
                | Entry::Model(_)
                | Entry::Platform(_)
                | Entry::Reseal(_)
                | Entry::Resealed(_)
                | Entry::KeeperJoin(_)
                | Entry::KeeperRetire(_)
                | Entry::Escrow(_)
                | Entry::Recover(_)
                | Entry::KeeperLeave(_)
                | Entry::KeyEpoch(_)
                | Entry::Budget(_)
                | Entry::Permit(_)
                | Entry::Clock(_)
                | Entry::Alarm(_)
                | Entry::Revoke(_)
                | Entry::Extend(_)
                | Entry::Renew(_)
                | Entry::End(_)
                | Entry::Upgrade(_),
                _,
            ) => {}
        }
        self.rehearsal.follow(before, entry);
    }

    fn release(&mut self, index: u64, before: &State, vault: &Vault, release: &Release) {
        let subject = Subject::of_release(index, release);
        let judged = self.judge_release(before, vault, release);
        self.releases.add(&judged);
        match judged {
            Judged::Granted => {}
            Judged::Refused(why) => {
                let sums = if why.waits { &mut self.waits } else { &mut self.loses };
                let (waits, key) = (why.waits, sums.add(subject, release.units.bytes, *why));
                self.refuse(vault, release.lease, Group { waits, key });
            }
            Judged::Open { code, why } => self.open.add_open(subject, release.units.bytes, code, why),
        }
    }

    fn judge_release(&mut self, before: &State, vault: &Vault, release: &Release) -> Judged {
        let blobs = (self.bundle.blob(release.evidence), self.bundle.blob(release.binding));
        // What does not bear the entry says nothing about the guest; `audit verify` is for finding that.
        let borne = match &blobs {
            (Some(evidence), Some(preimage)) => {
                let blobs = Blobs { evidence, preimage };
                verify_release(vault.id(), release, vault.policy(), vault.platforms().eks(), blobs).ok().map(|_| blobs)
            }
            (Some(_) | None, _) => None,
        };
        let captured = borne.and_then(|blobs| past::evidence_of(blobs.evidence));
        let asked = borne.and_then(|blobs| released_units(blobs.preimage).ok());
        let given = vault.policy().release_rule(&release.rule).map(|rule| &rule.groups);
        let manifest = self.manifest(before, release);
        let units = match (&asked, manifest.as_deref(), given) {
            (Some(units), Some(manifest), _) => PastUnits::Known { units, manifest },
            (Some(_) | None, _, Some(groups)) => PastUnits::Within(groups),
            (Some(_) | None, _, None) => PastUnits::Unknown,
        };
        let request = past::released_request(release, units);
        let judged = past::judge(vault, &self.rehearsal.allowances(), &request, captured.as_ref());
        // What could not be judged was released: it takes its part.
        if !matches!(judged, Judged::Refused(_)) {
            past::take(&mut self.rehearsal, &request, captured.as_ref(), Some(release.lease));
        }
        judged
    }

    fn denial(&mut self, index: u64, vault: &Vault, deny: &Deny) {
        let subject = Subject::of_denial(index, deny);
        let evidence = self.bundle.blob(deny.evidence);
        let captured = evidence.as_deref().and_then(past::evidence_of);
        let judged = past::judge_denied(deny, vault, &self.rehearsal.allowances(), captured.as_ref());
        self.denials.add(&judged);
        match judged {
            Judged::Granted => {
                if deny.action == Action::Load {
                    let request = past::denied_request(deny, vault);
                    past::take(&mut self.rehearsal, &request, captured.as_ref(), None);
                }
                self.gains.add_gain(subject, deny.code.as_str());
            }
            // It waits already, or is refused in either case.
            Judged::Refused(_) => {}
            Judged::Open { code, why } => self.open.add_open(subject, 0, code, why),
        }
    }

    fn manifest(&mut self, before: &State, release: &Release) -> Option<Arc<LoggedManifest>> {
        let digest = release.manifest;
        if !self.opened.contains_key(&digest) {
            let bytes = self.manifests.get(&digest)?;
            let opened = before.open_manifest(&release.model, &release.version, bytes).ok()?;
            self.opened.insert(digest, Arc::new(opened));
        }
        self.opened.get(&digest).map(Arc::clone)
    }

    fn refuse(&mut self, vault: &Vault, lease: Sha256Digest, group: Group) {
        self.since_sweep += 1;
        if self.since_sweep >= REFUSED_BETWEEN_SWEEPS {
            self.since_sweep = 0;
            self.refused.retain(|id, _| vault.lease(*id).is_some());
        }
        self.refused.insert(lease, group);
    }

    /// Which of the refused leases run at the end of the log.
    fn count_running(&mut self, vault: &Vault, now: UnixTime) {
        for (id, _) in vault.leases(now) {
            if let Some(group) = self.refused.get(&id) {
                let sums = if group.waits { &mut self.waits } else { &mut self.loses };
                sums.runs(&group.key);
            }
        }
    }
}

impl PolicySimulateArgs {
    /// Exit code 1 says that something would change, and nothing else may.
    pub(crate) fn failure(failure: Failure) -> Failure {
        match failure.kind() {
            Kind::Failed => failure.into_usage(),
            Kind::Usage | Kind::Refused | Kind::NotVerified => failure,
        }
    }
}
