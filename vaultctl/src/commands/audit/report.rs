//! What an auditor is told: what was checked, what is wrong or missing, what happened, and who could cause a release.

use std::collections::BTreeMap;
use std::fmt;

use attestation::{Sha256Digest, Trust, UnixTime, Workload};
use serde::Serialize;

use crate::failure::{Failure, Kind};
use crate::print::{count_of, entries, moment, size};
use crate::words::{PolicyReport, tier_in_words, workload_in_words};

/// How many findings, gaps, releases and first releases are listed one by one; all are counted.
pub(super) const LISTED_MAX: usize = 1000;

/// What the bundle amounts to. Each has an exit code of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// Everything verifies and nothing is missing.
    Verified,
    /// The checkpoint is not signed by the vault's log key.
    Signature,
    /// The entries are not those of the checkpoint, or of an older one.
    Consistency,
    /// An entry that no keeper should have written.
    Fold,
    /// Evidence does not bear the entry that names it.
    Evidence,
    /// What is there verifies, and evidence is missing.
    Gaps,
}

impl Verdict {
    /// The exit code.
    pub const fn exit_code(self) -> u8 {
        match self {
            Self::Verified => 0,
            Self::Signature => 10,
            Self::Consistency => 11,
            Self::Fold => 12,
            Self::Evidence => 13,
            Self::Gaps => 14,
        }
    }
}

/// The answer.
#[derive(Debug, Serialize)]
pub(crate) struct AuditReport {
    pub(super) verdict: Verdict,
    pub(super) vault: Sha256Digest,
    /// What ends the audit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) fault: Option<Fault>,
    /// What the log says, where it can be believed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) log: Option<Box<LogReport>>,
}

/// Something that does not verify.
#[derive(Debug, Serialize)]
pub(crate) struct Fault {
    #[serde(skip)]
    verdict: Verdict,
    code: String,
    why: String,
}

/// What a log shows whose every entry is permitted by those before it.
#[derive(Debug, Serialize)]
pub(super) struct LogReport {
    pub(super) size: u64,
    pub(super) root: Sha256Digest,
    /// Size of the older checkpoint that this log continues.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) continues: Option<u64>,
    pub(super) first_entry: UnixTime,
    pub(super) last_entry: UnixTime,
    /// Pieces of evidence that were verified again, at their own time.
    pub(super) evidence_verified: u64,
    pub(super) findings: Listed<Finding>,
    pub(super) gaps: Listed<Gap>,
    pub(super) today: Today,
    pub(super) released: Released,
    pub(super) denied: BTreeMap<String, u64>,
    /// All of it: what an approver, a keeper or an alarm did is never left out.
    pub(super) stands_out: Vec<String>,
    /// First releases to a machine, a program, a code.
    pub(super) first_releases: Listed<String>,
    pub(super) policies: Vec<PolicyLine>,
}

/// Who could cause a release, by the last entry.
#[derive(Debug, Serialize)]
pub(super) struct Today {
    pub(super) at: UnixTime,
    pub(super) says: Vec<String>,
    pub(super) leases: u64,
    pub(super) policy: Option<PolicyReport>,
}

/// What was released.
#[derive(Debug, Default, Serialize)]
pub(super) struct Released {
    pub(super) total: Sum,
    pub(super) by_day: BTreeMap<String, Sum>,
    pub(super) by_model: BTreeMap<String, Sum>,
    pub(super) by_platform: BTreeMap<String, Sum>,
    pub(super) by_code: BTreeMap<String, Sum>,
    /// By the program that the guest said it starts, where it was asked.
    pub(super) by_program: BTreeMap<String, Sum>,
    /// The newest.
    pub(super) newest: Vec<ReleaseLine>,
}

/// Releases, counted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub(super) struct Sum {
    pub(super) releases: u64,
    pub(super) bytes: u64,
}

#[derive(Debug, Serialize)]
pub(super) struct ReleaseLine {
    pub(super) index: u64,
    pub(super) time: UnixTime,
    pub(super) model: String,
    pub(super) rule: String,
    pub(super) platform: Sha256Digest,
    pub(super) bytes: u64,
    pub(super) tier: Trust,
    pub(super) renew_by: UnixTime,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) workload: Option<Workload>,
}

#[derive(Debug, Serialize)]
pub(super) struct PolicyLine {
    pub(super) serial: u64,
    pub(super) since: UnixTime,
    pub(super) digest: Sha256Digest,
}

#[derive(Debug, Serialize)]
pub(super) struct Finding {
    pub(super) index: u64,
    pub(super) code: &'static str,
    pub(super) why: String,
}

#[derive(Debug, Serialize)]
pub(super) struct Gap {
    pub(super) index: u64,
    pub(super) missing: Vec<Sha256Digest>,
    /// Left out of the bundle as asked, and not lost.
    pub(super) left_out: bool,
}

/// The first ones, and how many there are.
#[derive(Debug, Serialize)]
pub(super) struct Listed<T> {
    pub(super) count: u64,
    pub(super) first: Vec<T>,
}

impl<T> Listed<T> {
    pub(super) const fn new() -> Self {
        Self { count: 0, first: Vec::new() }
    }

    pub(super) fn push(&mut self, item: T) {
        self.count += 1;
        if self.first.len() < LISTED_MAX {
            self.first.push(item);
        }
    }
}

impl Fault {
    pub(super) fn new(verdict: Verdict, code: &str, why: String) -> Self {
        Self { verdict, code: code.to_owned(), why }
    }

    /// For a command that is no audit, and can't go on.
    pub(super) fn into_failure(self) -> Failure {
        Failure::new(Kind::NotVerified, self.code, "the folder is not the log of this vault")
            .why(self.why)
            .next("`vaultctl audit verify DIR` says more; export it again from another host")
    }
}

impl AuditReport {
    /// An audit that ended early: nothing that the log says is to be believed.
    pub(super) fn of_fault(vault: Sha256Digest, fault: Fault) -> Self {
        Self { verdict: fault.verdict, vault, fault: Some(fault), log: None }
    }

    /// What it amounts to.
    pub(crate) const fn verdict(&self) -> Verdict {
        self.verdict
    }

    /// The verdict in a sentence.
    pub(super) fn headline(&self) -> String {
        match (&self.fault, &self.log) {
            (Some(fault), _) => format!("NOT VERIFIED [{}]: {}", fault.code, fault.why),
            (None, Some(log)) => match self.verdict {
                Verdict::Verified => format!("VERIFIED: {}, each permitted by those before it", entries(log.size)),
                Verdict::Gaps => format!(
                    "INCOMPLETE: {} verify; {} of the evidence that they name missing",
                    entries(log.size),
                    count_of(log.gaps.count, "piece")
                ),
                Verdict::Signature | Verdict::Consistency | Verdict::Fold | Verdict::Evidence => {
                    format!(
                        "NOT VERIFIED: evidence does not bear the entry that names it, {}",
                        count_of(log.findings.count, "piece")
                    )
                }
            },
            (None, None) => "nothing was verified".to_owned(),
        }
    }
}

impl LogReport {
    /// Warnings about the policy in force.
    pub(super) fn warnings(&self) -> &[String] {
        self.today.policy.as_ref().map_or(&[], PolicyReport::warnings)
    }

    /// What is wrong or missing, a line each.
    pub(super) fn wrong(&self) -> Vec<String> {
        let finding = |finding: &Finding| format!("entry {}: {} [{}]", finding.index, finding.why, finding.code);
        let gap = |gap: &Gap| {
            let missing: Vec<String> = gap.missing.iter().map(ToString::to_string).collect();
            let how = if gap.left_out { "left out of this bundle" } else { "MISSING" };
            format!("entry {}: {how}: {}", gap.index, missing.join(", "))
        };
        let mut lines: Vec<String> = self.findings.first.iter().map(finding).collect();
        lines.extend(self.gaps.first.iter().map(gap));
        let more = self.findings.count + self.gaps.count - lines.len() as u64;
        lines.extend((more > 0).then(|| format!("and {more} more")));
        lines
    }

    /// First releases, a line each.
    pub(super) fn first_releases(&self) -> Vec<String> {
        let more = self.first_releases.count - self.first_releases.first.len() as u64;
        self.first_releases.first.iter().cloned().chain((more > 0).then(|| format!("and {more} more"))).collect()
    }

    /// What was checked, in a paragraph.
    pub(super) fn checked(&self) -> Vec<String> {
        let mut lines = vec![
            format!("root {} as the vault's log key signed it; every entry folded", self.root),
            format!(
                "{} of evidence verified again, at the time of its entry",
                count_of(self.evidence_verified, "piece")
            ),
            format!("from {} to {}", moment(self.first_entry), moment(self.last_entry)),
        ];
        lines.extend(self.continues.map(|size| format!("continues the older checkpoint of {}", entries(size))));
        lines
    }
}

impl fmt::Display for AuditReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.headline())?;
        writeln!(f, "  vault {}", self.vault)?;
        let Some(log) = &self.log else { return Ok(()) };
        log.checked().iter().try_for_each(|line| writeln!(f, "  {line}"))?;
        section(f, "What is wrong or missing", &log.wrong())?;
        section(f, &format!("Who could cause a release, at {}", moment(log.today.at)), &log.today.says)?;
        section(f, "What in the policy in force deserves a second look", log.warnings())?;
        section(f, "What stands out", &log.stands_out)?;
        section(f, "First releases", &log.first_releases())?;
        let released = &log.released;
        let total = format!("Released: {}", sum(released.total));
        let Released { by_model, by_platform, by_code, by_program, by_day, .. } = released;
        let lines: Vec<String> = [by_model, by_platform, by_code, by_program, by_day]
            .into_iter()
            .flatten()
            .map(|(what, count)| format!("{what}: {}", sum(*count)))
            .collect();
        writeln!(f, "\n{total}")?;
        lines.iter().try_for_each(|line| writeln!(f, "  {line}"))?;
        section(f, "The newest releases", &released.newest.iter().rev().take(20).map(line).collect::<Vec<_>>())?;
        let denied: Vec<String> = log.denied.iter().map(|(code, count)| format!("{code}: {count}")).collect();
        section(f, "Refused, by code", &denied)
    }
}

fn section(f: &mut fmt::Formatter<'_>, title: &str, lines: &[String]) -> fmt::Result {
    if lines.is_empty() {
        return Ok(());
    }
    writeln!(f, "\n{title}")?;
    lines.iter().try_for_each(|line| writeln!(f, "  {line}"))
}

fn sum(sum: Sum) -> String {
    format!("{}, {}", count_of(sum.releases, "release"), size(sum.bytes))
}

fn line(release: &ReleaseLine) -> String {
    format!(
        "{:>6}  {}  {} ({}) to {} under {}; {}; lease to {}{}",
        release.index,
        moment(release.time),
        release.model,
        size(release.bytes),
        release.platform,
        release.rule,
        tier_in_words(release.tier),
        moment(release.renew_by),
        release.workload.map_or_else(String::new, |workload| format!("; starts {}", workload_in_words(&workload)))
    )
}
