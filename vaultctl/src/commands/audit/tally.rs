//! What is counted while a log is read, and what it amounts to.

use std::collections::BTreeMap;

use attestation::{Claims, Sha256Digest, UnixTime};
use ledger::checkpoint::Checkpoint;
use ledger::decide::Shown;
use ledger::entry::{Entry, PlatformAct, PlatformInForce, Release};
use ledger::genesis::{AntiRollback, Genesis};
use ledger::permit::PermitKind;
use ledger::state::{State, Vault};

use super::measurements::Measurements;
use super::report::{
    AuditReport, Finding, Gap, LISTED_MAX, Listed, LogReport, PolicyLine, ReleaseLine, Released, Sum, Today, Verdict,
};
use super::verify::Borne;
use crate::audit::VerifiedLog;
use crate::bundle::Index;
use crate::print::moment;
use crate::words::{PolicyReport, active_in_words, in_words, rollback};

/// What is counted while the log is read.
pub(super) struct Tally {
    index: Index,
    first_entry: Option<UnixTime>,
    evidence_verified: u64,
    findings: Listed<Finding>,
    gaps: Listed<Gap>,
    released: Released,
    denied: BTreeMap<String, u64>,
    policies: Vec<PolicyLine>,
    /// Each act that deserves a look: a signed log has them, so none is left out, however many there are.
    stands_out: Vec<String>,
    /// First releases to a machine, a program, a code: a fleet has many.
    first_releases: Listed<String>,
    /// Bytes of releases whose evidence is still being verified, which says the code.
    awaiting_code: BTreeMap<u64, u64>,
    measurements: Measurements,
}

impl Tally {
    pub(super) fn new(index: Index) -> Self {
        Self {
            index,
            first_entry: None,
            evidence_verified: 0,
            findings: Listed::new(),
            gaps: Listed::new(),
            released: Released::default(),
            denied: BTreeMap::new(),
            policies: Vec::new(),
            stands_out: Vec::new(),
            first_releases: Listed::new(),
            awaiting_code: BTreeMap::new(),
            measurements: Measurements::default(),
        }
    }

    /// An entry, and the state before it.
    pub(super) fn entry(&mut self, index: u64, entry: &Entry, before: &State) {
        self.first_entry.get_or_insert(entry.time());
        if let Entry::Alarm(alarm) = entry {
            self.measurements.alarm(alarm);
        }
        match entry {
            Entry::Genesis(genesis) => {
                if genesis.anti_rollback == AntiRollback::None {
                    self.stands_out.push(rollback(genesis.anti_rollback).to_owned());
                }
            }
            Entry::Release(release) => {
                if let Some(vault) = before.vault() {
                    self.measurements.release(index, release, vault.policy());
                }
                self.by_break_glass(index, release, before);
                self.release(index, release);
            }
            Entry::Deny(deny) => self.denied(deny.code.to_string(), 1),
            Entry::DenySummary(summary) => {
                summary.counts.iter().for_each(|(code, count)| self.denied(format!("{code} (unproven)"), *count));
            }
            Entry::Platform(platform) if platform.act == PlatformAct::Add => {
                let PlatformInForce { platform, time, .. } = platform;
                let when = moment(*time);
                self.stands_out.push(format!(
                    "entry {index}, {when}: EK {platform}, which has no certificate, is taken from here on"
                ));
            }
            Entry::Policy(policy) => {
                self.policies.push(PolicyLine { serial: policy.serial, since: policy.time, digest: policy.object });
            }
            Entry::Revoke(_) | Entry::Extend(_) => {
                let said = in_words(entry, before);
                self.stands_out.push(format!("entry {index}, {}: {said}", moment(entry.time())));
            }
            Entry::Approve(_) if self.policies.is_empty() => {
                if let Some(genesis) = before.genesis() {
                    let (serial, digest) = (genesis.policy().serial(), genesis.policy().digest());
                    self.policies.push(PolicyLine { serial, since: genesis.time(), digest });
                }
            }
            Entry::Reseal(reseal) => {
                let when = moment(reseal.time);
                self.stands_out.push(format!(
                    "entry {index}, {when}: the keeper is sealed to another boot state too: {}",
                    reseal.object
                ));
            }
            Entry::Permit(_)
            | Entry::Alarm(_)
            | Entry::Clock(_)
            | Entry::Budget(_)
            | Entry::KeeperJoin(_)
            | Entry::KeeperRetire(_)
            | Entry::KeyEpoch(_)
            | Entry::Escrow(_)
            | Entry::Recover(_)
            | Entry::KeeperLeave(_)
            | Entry::Upgrade(_) => {
                self.stands_out.push(format!("entry {index}, {}: {}", moment(entry.time()), in_words(entry, before)));
            }
            Entry::Approve(_)
            | Entry::Start(_)
            | Entry::Propose(_)
            | Entry::Model(_)
            | Entry::Platform(_)
            | Entry::Resealed(_)
            | Entry::Renew(_)
            | Entry::End(_) => {}
        }
    }

    /// A keeper that signs senseless counts stops no audit.
    fn denied(&mut self, code: String, count: u64) {
        let sum = self.denied.entry(code).or_default();
        *sum = sum.saturating_add(count);
    }

    /// Such a release stands out whether a rule rings or not.
    fn by_break_glass(&mut self, index: u64, release: &Release, before: &State) {
        let has_glass =
            |vault: &Vault| vault.permits().iter().any(|active| active.permit.kind == PermitKind::BreakGlass);
        let Some(vault) = before.vault().filter(|vault| has_glass(vault)) else { return };
        if let Some(entry) = vault.permits_used(release).and_then(|used| used.break_glass) {
            let when = moment(release.time);
            self.stands_out.push(format!(
                "entry {index}, {when}: released {}@{} to {} BY THE BREAK-GLASS of entry {entry}",
                release.model, release.version, release.platform
            ));
        }
    }

    fn release(&mut self, index: u64, release: &Release) {
        let bytes = release.units.bytes;
        let (day, platform) = (day(release.time), release.platform.to_string());
        let model = format!("{}@{}", release.model, release.version);
        if !self.released.by_platform.contains_key(&platform) {
            let when = moment(release.time);
            self.first_releases.push(format!("entry {index}, {when}: first release to platform {platform}"));
        }
        let sums = [
            &mut self.released.total,
            self.released.by_day.entry(day).or_default(),
            self.released.by_model.entry(model.clone()).or_default(),
            self.released.by_platform.entry(platform).or_default(),
        ];
        sums.into_iter().for_each(|sum| sum.add(bytes));
        if let Some(workload) = &release.workload {
            let program = format!("program {}", workload.program);
            if !self.released.by_program.contains_key(&program) {
                let when = moment(release.time);
                let first = format!("entry {index}, {when}: first release to {program}, as its guest says");
                self.first_releases.push(first);
            }
            self.released.by_program.entry(program).or_default().add(bytes);
        }
        self.awaiting_code.insert(index, bytes);
        if self.released.newest.len() == LISTED_MAX {
            self.released.newest.remove(0);
        }
        self.released.newest.push(ReleaseLine {
            index,
            time: release.time,
            model,
            rule: release.rule.to_string(),
            platform: release.platform,
            bytes,
            tier: release.tier,
            renew_by: release.renew_by,
            workload: release.workload,
        });
    }

    /// What became of evidence that an entry names.
    pub(super) fn evidence(&mut self, index: u64, is_release: bool, borne: Borne) {
        let code = match borne {
            Borne::Yes(claims) => {
                self.evidence_verified += 1;
                if is_release
                    && let Err((code, why)) = self.measurements.shown(index, Shown::from(claims.as_ref()).measurement())
                {
                    self.findings.push(Finding { index, code, why });
                }
                code_of(&claims)
            }
            Borne::Missing(missing) => {
                self.measurements.forget(index);
                let left_out = !self.index.has_evidence_of(index);
                self.gaps.push(Gap { index, missing, left_out });
                "not known: its evidence is missing".to_owned()
            }
            Borne::No(error) => {
                self.measurements.forget(index);
                self.findings.push(Finding { index, code: error.code(), why: error.to_string() });
                "not known: its evidence does not verify".to_owned()
            }
        };
        if let Some(bytes) = self.awaiting_code.remove(&index).filter(|_| is_release) {
            if !self.released.by_code.contains_key(&code) {
                self.first_releases.push(format!("entry {index}: first release to code {code}"));
            }
            self.released.by_code.entry(code).or_default().add(bytes);
        }
    }

    pub(super) fn finish(self, log: &VerifiedLog, since: Option<Checkpoint>, now: UnixTime) -> AuditReport {
        let (checkpoint, state) = (log.checkpoint(), log.state());
        let verdict = match (self.findings.count, self.gaps.count) {
            (0, 0) => Verdict::Verified,
            (0, _) => Verdict::Gaps,
            (_, _) => Verdict::Evidence,
        };
        let report = LogReport {
            size: checkpoint.size,
            root: Sha256Digest::from_bytes(checkpoint.root),
            continues: since.map(|since| since.size),
            first_entry: self.first_entry.unwrap_or(state.time()),
            last_entry: state.time(),
            evidence_verified: self.evidence_verified,
            findings: self.findings,
            gaps: self.gaps,
            today: today(state, now),
            released: self.released,
            denied: self.denied,
            stands_out: self.stands_out,
            first_releases: self.first_releases,
            policies: self.policies,
        };
        let vault = state.genesis().map_or_else(|| self.index.vault, Genesis::vault_id);
        AuditReport { verdict, vault, fault: None, log: Some(Box::new(report)) }
    }
}

impl Sum {
    fn add(&mut self, bytes: u64) {
        self.releases += 1;
        self.bytes = self.bytes.saturating_add(bytes);
    }
}

fn day(time: UnixTime) -> String {
    moment(time).chars().take(10).collect()
}

/// What ran in the guest, as far as the evidence says.
fn code_of(claims: &Claims) -> String {
    let launched = claims.report().map(|report| format!("launch digest {}", hex::encode(report.measurement())));
    let booted = claims.quote().map(|quote| {
        let indices: Vec<String> = quote.pcrs().keys().map(ToString::to_string).collect();
        let values: Vec<u8> = quote.pcrs().values().flatten().copied().collect();
        format!("PCRs {} of {}", indices.join(" "), Sha256Digest::of(&values))
    });
    launched.into_iter().chain(booted).collect::<Vec<_>>().join(", ")
}

fn today(state: &State, now: UnixTime) -> Today {
    let at = state.time();
    let Some(vault) = state.vault() else {
        let says = vec!["nobody: the vault is not open, approvals of its genesis are missing".to_owned()];
        return Today { at, says, leases: 0, policy: None };
    };
    let policy = vault.policy();
    let approval = policy.approval();
    let ids: Vec<String> = approval.approvers.iter().map(|person| person.id.to_string()).collect();
    let mut says = vec![format!("by another policy: any {} of {}, together", approval.threshold, ids.join(", "))];
    for (name, rule) in policy.publish_rules() {
        says.push(format!(
            "by publishing {}: a key of [publish.{name}], and any {} of the approvers",
            rule.models, rule.approvals
        ));
    }
    let published: Vec<String> =
        vault.models().map(|model| format!("{}@{}", model.proposed.model, model.proposed.version)).collect();
    for (name, rule) in policy.release_rules() {
        let proofs: Vec<String> = rule.guest.require().iter().map(ToString::to_string).collect();
        let by = match rule.approvals {
            None => "without anybody".to_owned(),
            Some(count) => format!("as any {count} of the approvers have allowed"),
        };
        says.push(format!(
            "{by}: a guest that proves {} as [release.{name}] asks gets {}, groups {}; {} of at most {} leases run",
            proofs.join(" and "),
            rule.models,
            rule.groups,
            vault.lease_count(name, at),
            rule.max_leases
        ));
    }
    says.extend(vault.permits().iter().map(|active| format!("allowed: {}", active_in_words(active))));
    if let Some(count) = approval.break_glass_threshold {
        says.push(format!("by break-glass, past budgets, holds and approvals: any {count} of the approvers"));
    }
    says.push(match published.is_empty() {
        true => "published: no model yet".to_owned(),
        false => format!("published: {}", published.join(", ")),
    });
    let leases = vault.leases(at).count() as u64;
    Today { at, says, leases, policy: Some(PolicyReport::new(policy, now)) }
}

#[cfg(test)]
mod tests {
    use ledger::entry::DenySummary;
    use ledger::merkle::{Tree, leaf_hash};

    use super::*;
    use crate::audit::LogReader;
    use crate::commands::audit::html::page;

    /// The recorded log that has every type of entry, behind what `before` told the tally.
    fn audited(before: impl FnOnce(&mut Tally, &[Entry])) -> AuditReport {
        let data = concat!(env!("CARGO_MANIFEST_DIR"), "/../ledger/tests/governance/data/fold.jsonl");
        let recorded = std::fs::read_to_string(data).unwrap();
        let lines: Vec<&[u8]> = recorded.lines().map(str::as_bytes).collect();
        let parsed: Vec<Entry> = lines.iter().map(|line| Entry::parse(line).unwrap()).collect();
        let vault = Sha256Digest::of(lines[0]);
        let (mut reader, mut tree) = (LogReader::new(vault), Tree::new());
        let mut tally = Tally::new(Index::new(vault, lines.len() as u64, (0, 0)));
        before(&mut tally, &parsed);
        for (index, (entry, line)) in (0..).zip(parsed.iter().zip(&lines)) {
            tally.entry(index, entry, reader.state());
            reader.push(line).unwrap();
            tree.push(leaf_hash(line));
        }
        let (size, now) = (tree.len(), reader.state().time());
        let checkpoint = Checkpoint { size, root: tree.root(size).unwrap() };
        tally.finish(&reader.finish(checkpoint).unwrap(), None, now)
    }

    #[test]
    fn a_fleet_of_machines_hides_no_act_behind_their_first_releases() {
        let machines = 2 * LISTED_MAX as u64;
        let report = audited(|tally, entries| {
            let release = entries.iter().find_map(|entry| match entry {
                Entry::Release(release) => Some(release),
                _ => None,
            });
            for machine in 0..machines {
                let platform = Sha256Digest::of(&machine.to_be_bytes());
                tally.release(machine, &Release { platform, ..Release::clone(release.unwrap()) });
            }
        });
        let log = report.log.as_ref().unwrap();
        assert!(log.first_releases.count >= machines);
        assert_eq!(log.first_releases.first.len(), LISTED_MAX);
        let json = serde_json::to_value(&log.stands_out).unwrap().to_string();
        for shown in [json, report.to_string(), page(&report)] {
            for act in
                ["BREAK-GLASS for at most", "ALARM: a (", "revoke group layer.9", "is lost, and", "CLOCK WAS SET"]
            {
                assert!(shown.contains(act), "{act}");
            }
        }
        assert!(report.to_string().contains("First releases"), "{report}");
        let more = format!("and {} more", log.first_releases.count - LISTED_MAX as u64);
        assert!(report.to_string().contains(&more) && page(&report).contains(&more), "{more}");
    }

    #[test]
    fn counts_that_no_sum_holds_stop_no_audit() {
        let report = audited(|tally, _| {
            let counts = BTreeMap::from([("quote-pcr".parse().unwrap(), u64::MAX)]);
            let summary = DenySummary { time: UnixTime(2), since: UnixTime(1), counts };
            for index in 0..2 {
                tally.entry(index, &Entry::DenySummary(summary.clone()), &State::new());
            }
        });
        assert_eq!(report.log.unwrap().denied["quote-pcr (unproven)"], u64::MAX);
    }
}
