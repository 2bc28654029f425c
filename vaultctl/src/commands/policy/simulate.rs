//! `vaultctl policy simulate`: what a candidate would have changed, had it been in force all along.

mod report;
mod sums;

use std::collections::BTreeMap;
use std::path::PathBuf;

use attestation::{Sha256Digest, UnixTime};
use ledger::decide::PastUnits;
use ledger::entry::{Action, Deny, Entry, Release};
use ledger::manifest::MANIFEST_BYTES_MAX;
use ledger::names::Name;
use ledger::policy::Policy;
use ledger::state::{LoggedManifest, State, Vault};

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
    let manifests = read_manifests(&args.manifest)?;
    let log = PastLog::open(session.vault()?, &args.log)?;
    let mut simulator = Simulator::new(&candidate, log.bundle(), manifests);
    let folded = log.fold(|before, entry| {
        simulator.see(before, entry);
        Ok(())
    })?;
    let vault = folded.vault()?;
    // As of now, but never before the last entry.
    let now = session.now().max(folded.state().time());
    let proposable = vault.check_successor(&candidate, now).err();
    simulator.count_running(vault, folded.state().time());
    let Simulator { releases, denials, without_entry, loses, gains, open, .. } = simulator;
    Ok(Simulation {
        vault: vault.id(),
        size: folded.checkpoint().size,
        in_force: vault.policy().digest(),
        candidate: Candidate::new(&candidate, proposable.as_ref()),
        releases,
        denials,
        denials_without_entry: without_entry,
        loses: loses.listed(),
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

/// Judges each entry as it comes.
struct Simulator<'a> {
    candidate: &'a Policy,
    bundle: &'a Bundle,
    manifests: BTreeMap<Sha256Digest, Vec<u8>>,
    opened: BTreeMap<Sha256Digest, LoggedManifest>,
    /// Leases that the candidate would not have granted, and their group: they take no place under it.
    refused: BTreeMap<Sha256Digest, Key>,
    since_sweep: usize,
    releases: Counts,
    denials: Counts,
    without_entry: u64,
    loses: Sums,
    gains: Sums,
    open: Sums,
}

impl<'a> Simulator<'a> {
    fn new(candidate: &'a Policy, bundle: &'a Bundle, manifests: BTreeMap<Sha256Digest, Vec<u8>>) -> Self {
        Self {
            candidate,
            bundle,
            manifests,
            opened: BTreeMap::new(),
            refused: BTreeMap::new(),
            since_sweep: 0,
            releases: Counts::default(),
            denials: Counts::default(),
            without_entry: 0,
            loses: Sums::default(),
            gains: Sums::default(),
            open: Sums::default(),
        }
    }

    /// An entry, and the state before it.
    fn see(&mut self, before: &State, entry: &Entry) {
        let index = before.size();
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
    }

    fn release(&mut self, index: u64, before: &State, vault: &Vault, release: &Release) {
        let subject = Subject::of_release(index, release);
        let judged = self.judge_release(before, vault, release);
        self.releases.add(&judged);
        match judged {
            Judged::Granted => {}
            Judged::Refused(why) => {
                let group = self.loses.add(subject, release.units.bytes, *why);
                self.refuse(vault, release.lease, group);
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
        let (candidate, leases) = (self.candidate, self.leases(vault, &release.rule, release.time));
        let given = vault.policy().release_rule(&release.rule).map(|rule| &rule.groups);
        let units = match (&asked, self.manifest(before, release), given) {
            (Some(units), Some(manifest), _) => PastUnits::Known { units, manifest },
            (Some(_) | None, _, Some(groups)) => PastUnits::Within(groups),
            (Some(_) | None, _, None) => PastUnits::Unknown,
        };
        let named = (&release.rule, &release.model, &release.version);
        let request = past::request(Action::Load, release.time, named, release.platform, (units, leases));
        past::judge(vault, candidate, request, captured.as_ref())
    }

    fn denial(&mut self, index: u64, vault: &Vault, deny: &Deny) {
        let subject = Subject::of_denial(index, deny);
        let evidence = self.bundle.blob(deny.evidence);
        let captured = evidence.as_deref().and_then(past::evidence_of);
        let leases = self.leases(vault, &deny.rule, deny.time);
        let judged = past::judge_denied(deny, vault, self.candidate, captured.as_ref(), leases);
        self.denials.add(&judged);
        match judged {
            Judged::Granted => self.gains.add_gain(subject, deny.code.as_str()),
            Judged::Refused(_) => {}
            Judged::Open { code, why } => self.open.add_open(subject, 0, code, why),
        }
    }

    fn manifest(&mut self, before: &State, release: &Release) -> Option<&LoggedManifest> {
        let digest = release.manifest;
        if !self.opened.contains_key(&digest) {
            let bytes = self.manifests.get(&digest)?;
            let opened = before.open_manifest(&release.model, &release.version, bytes).ok()?;
            self.opened.insert(digest, opened);
        }
        self.opened.get(&digest)
    }

    /// Leases of the rule that would run under the candidate: those that ran, without what it would not have granted.
    fn leases(&self, vault: &Vault, rule: &Name, now: UnixTime) -> u32 {
        let runs =
            |id: &&Sha256Digest| vault.lease(**id).is_some_and(|lease| lease.rule == *rule && now <= lease.renew_by);
        let refused = self.refused.keys().filter(runs).count();
        vault.lease_count(rule, now).saturating_sub(u32::try_from(refused).unwrap_or(u32::MAX))
    }

    fn refuse(&mut self, vault: &Vault, lease: Sha256Digest, group: Key) {
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
                self.loses.runs(group);
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
