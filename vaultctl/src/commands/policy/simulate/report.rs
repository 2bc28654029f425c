//! What a simulation says.

use std::fmt;

use attestation::Sha256Digest;
use ledger::policy::Policy;
use ledger::state::FoldError;
use serde::Serialize;

use super::sums::{Group, Groups};
use crate::past::Judged;
use crate::print::{count_of, entries, moment, size};

/// What a candidate would have changed.
#[derive(Debug, Serialize)]
pub(crate) struct Simulation {
    pub(super) vault: Sha256Digest,
    pub(super) size: u64,
    pub(super) in_force: Sha256Digest,
    pub(super) candidate: Candidate,
    /// Releases of the past, as they would come out.
    pub(super) releases: Counts,
    /// Denials with an entry, as they would come out.
    pub(super) denials: Counts,
    /// Refusals of which the log has the number alone: they are not judged.
    pub(super) denials_without_entry: u64,
    pub(super) loses: Groups,
    /// Releases that would have waited for approvers.
    pub(super) waits: Groups,
    pub(super) gains: Groups,
    pub(super) open: Groups,
}

/// The policy that is tried out.
#[derive(Debug, Serialize)]
pub(super) struct Candidate {
    digest: Sha256Digest,
    serial: u64,
    /// Why it could not be proposed as it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    not_proposable: Option<NotProposable>,
}

#[derive(Debug, Serialize)]
struct NotProposable {
    code: &'static str,
    why: String,
}

/// Decisions, counted.
#[derive(Debug, Clone, Copy, Default, Serialize)]
pub(super) struct Counts {
    granted: u64,
    refused: u64,
    /// Of those refused, what approvers could have let through.
    waiting: u64,
    open: u64,
}

impl Candidate {
    pub(super) fn new(policy: &Policy, error: Option<&FoldError>) -> Self {
        let not_proposable = error.map(|error| NotProposable { code: error.code(), why: error.to_string() });
        Self { digest: policy.digest(), serial: policy.serial(), not_proposable }
    }
}

impl Counts {
    pub(super) fn add(&mut self, judged: &Judged) {
        match judged {
            Judged::Granted => self.granted += 1,
            Judged::Refused(why) => {
                self.refused += 1;
                self.waiting += u64::from(why.waits);
            }
            Judged::Open { .. } => self.open += 1,
        }
    }
}

impl Simulation {
    /// Whether a decision of the past would be another.
    pub(crate) const fn differs(&self) -> bool {
        self.releases.refused > 0 || self.denials.granted > 0
    }

    /// Whether every decision could be judged.
    pub(crate) const fn is_complete(&self) -> bool {
        self.releases.open == 0 && self.denials.open == 0
    }

    fn headline(&self) -> &'static str {
        match (self.differs(), self.is_complete()) {
            (true, _) => "DIFFERENT: decisions of the past would be others",
            (false, true) => "THE SAME: every decision of the past would be what it was",
            (false, false) => "NOT KNOWN: no decision is known to be another, and some could not be judged",
        }
    }
}

impl fmt::Display for Simulation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { candidate, releases, denials, .. } = self;
        writeln!(f, "{}", self.headline())?;
        writeln!(f, "  vault     {}, {}", self.vault, entries(self.size))?;
        writeln!(f, "  in force  {}", self.in_force)?;
        writeln!(f, "  candidate {}, serial {}", candidate.digest, candidate.serial)?;
        if let Some(not) = &candidate.not_proposable {
            writeln!(f, "  it can't be proposed as it is: {} [{}]", not.why, not.code)?;
        }
        let Counts { granted, refused, waiting, open } = releases;
        write!(f, "  releases  {granted} as they were, {} would be refused, ", refused - waiting)?;
        writeln!(f, "{waiting} would wait for approvers, {open} not judged")?;
        let Counts { granted, refused, open, .. } = denials;
        writeln!(f, "  denials   {refused} as they were, {granted} would be granted, {open} not judged")?;
        if self.denials_without_entry > 0 {
            writeln!(f, "            {} more without an entry, not judged", self.denials_without_entry)?;
        }
        section(f, "Who would lose access", &self.loses)?;
        section(f, "Who would have to wait for approvers", &self.waits)?;
        section(f, "Who would gain access", &self.gains)?;
        section(f, "What could not be judged", &self.open)?;
        if self.open.groups.iter().any(|group| group.code.as_deref() == Some("groups-not-known")) {
            writeln!(f, "  next: give the manifests of those models with --manifest FILE")?;
        }
        Ok(())
    }
}

fn section(f: &mut fmt::Formatter<'_>, title: &str, groups: &Groups) -> fmt::Result {
    if groups.groups.is_empty() {
        return Ok(());
    }
    writeln!(f, "\n{title}")?;
    groups.groups.iter().try_for_each(|group| one(f, group))?;
    if groups.more > 0 {
        writeln!(f, "  and {} of further groups", count_of(groups.more, "decision"))?;
    }
    Ok(())
}

fn one(f: &mut fmt::Formatter<'_>, group: &Group) -> fmt::Result {
    let Group { rule, model, platform, decisions, .. } = group;
    let span = match group.first_entry == group.last_entry {
        true => format!("entry {}", group.first_entry),
        false => format!("entries {} to {}", group.first_entry, group.last_entry),
    };
    let bytes = if group.bytes > 0 { format!(", {}", size(group.bytes)) } else { String::new() };
    writeln!(f, "  {model} to {platform} under {rule}")?;
    let count = count_of(*decisions, "decision");
    writeln!(f, "    {count}{bytes}; {span}, the last at {}", moment(group.last_time))?;
    if group.running > 0 {
        writeln!(f, "    {} RUNNING at the last entry would not be renewed", count_of(group.running, "lease"))?;
    }
    if let Some(why) = &group.why {
        writeln!(f, "    refused [{}]: {}: expected {}, seen {}", why.code, why.claim, why.expected, why.seen)?;
        if let Some(key) = &why.policy_key {
            writeln!(f, "    policy key: {key}")?;
        }
        writeln!(f, "    would pass if {}", why.remedy)?;
    }
    match (&group.code, &group.open) {
        (Some(code), Some(why)) => writeln!(f, "    {why} [{code}]"),
        (Some(code), None) => writeln!(f, "    was refused [{code}]"),
        (None, _) => Ok(()),
    }
}
