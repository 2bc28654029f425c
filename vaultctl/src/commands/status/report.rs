//! What `status` reports.

mod sealing;

use std::collections::BTreeMap;
use std::fmt;

use attestation::{Sha256Digest, Trust, UnixTime};
use ledger::genesis::AntiRollback;
use serde::Serialize;

use super::budget::{AlarmLine, BudgetLine, PermitLine};

use crate::client::{EscrowHolders, Lease, LostKeeper, VaultState, VaultStatus, WitnessQuorum};
use crate::keeper::VaultRun;
use crate::print::{count_of, distance, moment};
use crate::words::{rollback, tier_in_words};
use sealing::SealingLine;

/// Where a vault stands.
#[derive(Debug, Serialize)]
pub(crate) struct StatusReport {
    host: String,
    verification: Verification,
    state: VaultState,
    #[serde(skip_serializing_if = "String::is_empty")]
    reason: String,
    vault: Option<Sha256Digest>,
    tier: Option<Trust>,
    anti_rollback: Option<AntiRollback>,
    recoverable: bool,
    policy: Option<PolicyLine>,
    log: LogLine,
    time_source: String,
    pending: Vec<PendingLine>,
    leases: Vec<LeaseLine>,
    budgets: Vec<BudgetLine>,
    permits: Vec<PermitLine>,
    alarm_count: u64,
    alarms: Vec<AlarmLine>,
    expiries: Vec<Expiry>,
    #[serde(skip_serializing_if = "Option::is_none")]
    sealing: Option<SealingLine>,
    #[serde(skip_serializing_if = "Option::is_none")]
    epoch: Option<EpochLine>,
    #[serde(skip_serializing_if = "Option::is_none")]
    witnesses: Option<WitnessQuorum>,
    #[serde(skip_serializing_if = "Option::is_none")]
    escrow: Option<EscrowHolders>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    recoveries: Vec<LostKeeper>,
    #[serde(skip)]
    now: UnixTime,
}

/// What of a status was verified.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "is", rename_all = "kebab-case")]
pub(super) enum Verification {
    /// The keeper's evidence, for a nonce of this run, names the vault, its keys, this policy and this checkpoint.
    Fresh {
        /// What the proof rests on.
        tier: Trust,
        /// Platform id of the keeper.
        platform: Sha256Digest,
        /// SHA-256 of the policy in force.
        policy: Sha256Digest,
        /// Entries of the log.
        log_size: u64,
    },
    /// Nothing: no vault file says which vault it should be.
    NoVaultFile,
    /// Nothing: the caller said so.
    Skipped,
    /// Nothing: there is no keeper that could prove anything.
    NoEvidence,
}

/// An end that is coming.
#[derive(Debug, Serialize)]
pub(super) struct Expiry {
    what: String,
    at: UnixTime,
}

#[derive(Debug, Serialize)]
struct PolicyLine {
    serial: u64,
    digest: Sha256Digest,
    not_after: UnixTime,
}

#[derive(Debug, Serialize)]
struct EpochLine {
    number: u32,
    since: UnixTime,
}

#[derive(Debug, Serialize)]
struct LogLine {
    size: u64,
    root: Option<Sha256Digest>,
}

#[derive(Debug, Serialize)]
struct PendingLine {
    action: &'static str,
    object: Sha256Digest,
    approved_by: Vec<String>,
    threshold: u32,
    summary: String,
}

#[derive(Debug, Serialize)]
struct LeaseLine {
    lease: Sha256Digest,
    rule: String,
    model: String,
    version: String,
    platform: Sha256Digest,
    tier: Trust,
    renew_by: UnixTime,
    #[serde(skip_serializing_if = "Option::is_none")]
    program: Option<Sha256Digest>,
}

impl Verification {
    pub(super) fn of(run: &VaultRun) -> Self {
        let (statement, claims) = (run.verified.statement(), run.verified.claims());
        Self::Fresh {
            tier: claims.trust(),
            platform: claims.platform(),
            policy: statement.policy(),
            log_size: run.checkpoint.size,
        }
    }
}

impl Expiry {
    pub(super) fn new(what: String, at: UnixTime) -> Self {
        Self { what, at }
    }

    pub(super) fn at(&self) -> UnixTime {
        self.at
    }
}

impl From<Lease> for LeaseLine {
    fn from(lease: Lease) -> Self {
        let Lease { id, rule, model, version, platform, renew_by, tier, program } = lease;
        Self { lease: id, rule, model, version, platform, tier, renew_by, program }
    }
}

impl StatusReport {
    pub(super) fn new(
        status: VaultStatus,
        host: String,
        verification: Verification,
        expiries: Vec<Expiry>,
        now: UnixTime,
    ) -> Self {
        let pending = status.pending.into_iter().map(|proposal| PendingLine {
            action: proposal.action.as_str(),
            object: proposal.object,
            approved_by: proposal.approved_by.iter().map(ToString::to_string).collect(),
            threshold: proposal.threshold,
            summary: proposal.summary,
        });
        let policy = status.policy.map(|policy| PolicyLine {
            serial: policy.serial,
            digest: policy.digest,
            not_after: policy.not_after,
        });
        Self {
            host,
            verification,
            state: status.state,
            reason: status.reason,
            vault: status.vault,
            tier: status.tier,
            anti_rollback: status.anti_rollback,
            recoverable: status.recoverable,
            policy,
            log: LogLine { size: status.log_size, root: status.log_root },
            time_source: status.time_source,
            pending: pending.collect(),
            leases: status.leases.into_iter().map(LeaseLine::from).collect(),
            permits: status.permits.into_iter().map(|active| PermitLine::new(active, now)).collect(),
            alarm_count: status.alarm_count,
            alarms: status.alarms.into_iter().map(|alarm| AlarmLine::new(alarm, now)).collect(),
            budgets: status.budgets.into_iter().map(|line| BudgetLine::new(line, now)).collect(),
            expiries,
            sealing: status.sealing.map(SealingLine::from),
            epoch: status.epoch.map(|(number, since)| EpochLine { number, since }),
            witnesses: status.witnesses,
            escrow: status.escrow,
            recoveries: status.recoveries,
            now,
        }
    }

    /// Whether the vault serves.
    pub(crate) fn is_open(&self) -> bool {
        self.state == VaultState::Open
    }

    fn fmt_vault(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = match self.state {
            VaultState::Unreachable => "UNREACHABLE: the host has no keeper",
            VaultState::Empty => "empty: the keeper waits for `vaultctl init start`",
            VaultState::Ceremony => "in its ceremony: approvals of the genesis are missing",
            VaultState::Closed => "CLOSED: the keeper can't open its vault now",
            VaultState::Open => "open",
            VaultState::Recovering => "RECOVERING: a keeper that is to take the place of a lost one",
            VaultState::Retired => "RETIRED: the keeper handed its vault over to another one",
            VaultState::Stopped => "STOPPED: the keeper refuses to serve",
        };
        writeln!(f, "state:     {state}")?;
        if !self.reason.is_empty() {
            writeln!(f, "  why:     {}", self.reason)?;
        }
        if let Some(vault) = self.vault {
            writeln!(f, "vault:     {vault}")?;
        }
        if let Some(tier) = self.tier {
            writeln!(f, "tier:      {}", tier_in_words(tier))?;
        }
        if let Some(anti_rollback) = self.anti_rollback {
            writeln!(f, "rollback:  {}", rollback(anti_rollback))?;
        }
        if let Some(WitnessQuorum { count, quorum, faulty, cosigned_size, cosigned_by }) = &self.witnesses {
            let cosigned = match cosigned_size {
                Some(size) => format!("{size} entries cosigned by {}", cosigned_by.join(", ")),
                None => "nothing cosigned in this run".to_owned(),
            };
            writeln!(f, "witnesses: {quorum} of {count} must cosign, {faulty} may be faulty; {cosigned}")?;
        }
        if self.vault.is_some() && !self.recoverable {
            writeln!(f, "loss:      NOT RECOVERABLE: with the keeper's TPM or chip every sealed model is lost")?;
            if self.anti_rollback == Some(AntiRollback::Counter) && self.state == VaultState::Open {
                writeln!(
                    f,
                    "           until custodians hold shares of its keys: see `vaultctl escrow propose --help`"
                )?;
            }
        }
        if let (Some(escrow), true) = (&self.escrow, self.recoverable) {
            let EscrowHolders { number, threshold, custodians, entry } = escrow;
            let custodians = custodians.join(", ");
            writeln!(
                f,
                "loss:      {threshold} of {custodians} and the approvers give another keeper the keys (escrow {number}, entry {entry})"
            )?;
        }
        for LostKeeper { entry, size, .. } in &self.recoveries {
            writeln!(
                f,
                "! A keeper was lost (entry {entry}), ROLLBACK ACCEPTED: what it wrote behind its first {size} entries is forgotten"
            )?;
        }
        if let Some(sealing) = &self.sealing {
            write!(f, "{sealing}")?;
        }
        if let Some(EpochLine { number, since }) = &self.epoch {
            writeln!(f, "keys:      epoch {number}, since {}", moment(*since))?;
        }
        if let Some(policy) = &self.policy {
            writeln!(f, "policy:    {}, {}", policy.serial, policy.digest)?;
        }
        let root = self.log.root.map_or_else(|| "none yet".to_owned(), |root| root.to_string());
        writeln!(f, "log:       {} entries, root {root}", self.log.size)?;
        if !self.time_source.is_empty() {
            writeln!(f, "time:      {}", self.time_source)?;
        }
        Ok(())
    }
}

impl fmt::Display for StatusReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.fmt_vault(f)?;
        if !self.expiries.is_empty() {
            writeln!(f, "coming expiries:")?;
        }
        for expiry in &self.expiries {
            writeln!(f, "  {}  {} ({})", moment(expiry.at), expiry.what, distance(expiry.at, self.now))?;
        }
        if !self.pending.is_empty() {
            writeln!(f, "{} for approvals; `vaultctl pending` shows the change:", waits(self.pending.len()))?;
        }
        for line in &self.pending {
            let (given, needed) = (line.approved_by.len(), line.threshold);
            writeln!(f, "  {} {}: {given} of {needed}; {}", line.action, line.object, line.summary)?;
        }
        if !self.leases.is_empty() {
            writeln!(f, "{} in force", count_of(self.leases.len() as u64, "lease"))?;
        }
        let mut by_program: BTreeMap<Sha256Digest, u64> = BTreeMap::new();
        self.leases
            .iter()
            .filter_map(|line| line.program)
            .for_each(|program| *by_program.entry(program).or_default() += 1);
        for (program, count) in by_program {
            writeln!(f, "  {} for program {program}, as the guests say", count_of(count, "lease"))?;
        }
        if !self.budgets.is_empty() {
            writeln!(f, "budgets:")?;
        }
        self.budgets.iter().try_for_each(|line| writeln!(f, "  {line}"))?;
        if !self.permits.is_empty() {
            writeln!(f, "let through by approvers:")?;
        }
        self.permits.iter().try_for_each(|line| writeln!(f, "  {line}"))?;
        if self.alarm_count > 0 {
            writeln!(f, "{}; the newest:", alarms(self.alarm_count))?;
        }
        self.alarms.iter().try_for_each(|alarm| writeln!(f, "  {alarm}"))?;
        write!(f, "{}", self.verification)
    }
}

fn alarms(count: u64) -> String {
    if count == 1 { "ALARM: 1 release rang".to_owned() } else { format!("ALARMS: {count} releases rang") }
}

fn waits(count: usize) -> String {
    if count == 1 { "1 proposal waits".to_owned() } else { format!("{count} proposals wait") }
}

impl fmt::Display for Verification {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Fresh { platform, log_size, .. } => {
                writeln!(f, "Verified now: the keeper's own evidence (platform {platform}) names this vault, its")?;
                writeln!(
                    f,
                    "policy and a log of {log_size} entries. Proposals and leases are as the host lists them;"
                )?;
                writeln!(f, "`vaultctl log verify --fresh` checks all of it.")
            }
            Self::NoVaultFile => {
                writeln!(f, "NOT VERIFIED: this is the host's word. Give the vault file with --vault FILE.")
            }
            Self::Skipped => {
                writeln!(f, "NOT VERIFIED: this is the host's word, as --insecure-skip-evidence asked for.")
            }
            Self::NoEvidence => writeln!(f, "NOT VERIFIED: this is the host's word. There is no keeper to prove it."),
        }
    }
}
