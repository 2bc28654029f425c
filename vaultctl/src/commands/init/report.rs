//! What the steps of the ceremony report.

use std::fmt;
use std::path::PathBuf;

use attestation::{Claims, Sha256Digest};
use ledger::checkpoint::LogVerifier;
use ledger::genesis::Genesis;
use ledger::names::Name;
use ledger::state::State;
use ledger::vault_file::VaultFile;
use serde::Serialize;
use vault_proto::convert::Proposal;

use crate::client::{VaultState, VaultStatus};
use crate::words::ClaimsReport;

/// After `init start`.
#[derive(Debug, Serialize)]
pub(crate) struct StartReport {
    vault: Sha256Digest,
    vault_file: PathBuf,
    resumed: bool,
    platform: Sha256Digest,
    approvers: Vec<String>,
    /// What its witnesses, or whoever else follows the log, know it by.
    log_vkey: String,
}

/// After `init fetch`.
#[derive(Debug, Serialize)]
pub(crate) struct FetchReport {
    vault: Sha256Digest,
    vault_file: PathBuf,
}

/// After `init sign`.
#[derive(Debug, Serialize)]
pub(crate) struct SignReport {
    vault: Sha256Digest,
    signed_by: String,
    keeper: ClaimsReport,
    approved_by: Vec<String>,
    missing: Vec<String>,
    open: bool,
}

/// How far the ceremony is.
#[derive(Debug, Serialize)]
pub(crate) struct InitStatus {
    /// Whether this follows from the verified log, or is the host's word.
    verified: bool,
    stage: InitStage,
    #[serde(skip_serializing_if = "Option::is_none")]
    vault: Option<Sha256Digest>,
    approved_by: Vec<String>,
    missing: Vec<String>,
    next: String,
}

/// The stages of a ceremony.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
enum InitStage {
    /// No keeper can be reached.
    KeeperUnreachable,
    /// The keeper was given nothing.
    NotStarted,
    /// Approvals of the genesis are missing.
    Signing,
    /// The vault is open.
    Open,
    /// The keeper refuses to serve.
    Stopped,
}

impl StartReport {
    pub(super) fn new(vault: &VaultFile, vault_file: PathBuf, resumed: bool) -> Self {
        let platform = vault.genesis().keeper().platform;
        let log_vkey = LogVerifier::of(vault.genesis()).key().to_string();
        Self { vault: vault.id(), vault_file, resumed, platform, approvers: approvers(vault.genesis()), log_vkey }
    }
}

impl fmt::Display for StartReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let how = if self.resumed {
            "The genesis of an earlier run was offered again."
        } else {
            "The keeper's evidence verifies."
        };
        writeln!(f, "{how} The vault is not open before every approver has signed.")?;
        writeln!(f, "  vault id:   {}", self.vault)?;
        writeln!(f, "  vault file: {}", self.vault_file.display())?;
        writeln!(f, "  keeper:     {}", self.platform)?;
        writeln!(f, "  log vkey:   {}", self.log_vkey)?;
        writeln!(f, "  must sign:  {}", self.approvers.join(", "))?;
        writeln!(f, "Next: give each of them the vault file, and the vault id over another way. Each runs")?;
        writeln!(f, "  vaultctl init sign --vault {} --key KEY", self.vault_file.display())
    }
}

impl FetchReport {
    pub(super) fn new(vault: &VaultFile, vault_file: PathBuf) -> Self {
        Self { vault: vault.id(), vault_file }
    }
}

impl fmt::Display for FetchReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "Wrote {} of vault {}.", self.vault_file.display(), self.vault)?;
        writeln!(f, "Next: vaultctl init sign --vault {} --key KEY", self.vault_file.display())
    }
}

impl SignReport {
    pub(super) fn new(vault: &VaultFile, signed_by: Name, proposal: &Proposal, claims: &Claims) -> Self {
        let approved_by: Vec<String> = proposal.approved_by.iter().map(ToString::to_string).collect();
        let missing = approvers(vault.genesis()).into_iter().filter(|id| !approved_by.contains(id)).collect();
        Self {
            vault: vault.id(),
            signed_by: signed_by.to_string(),
            keeper: ClaimsReport::from(claims),
            approved_by,
            missing,
            open: proposal.effective,
        }
    }
}

impl fmt::Display for SignReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{} signed the genesis of vault {}.", self.signed_by, self.vault)?;
        if self.open {
            writeln!(f, "Every approver has signed: the vault is open.")?;
            writeln!(
                f,
                "NOT RECOVERABLE: with the keeper's TPM or chip every model would be lost, until custodians hold shares"
            )?;
            writeln!(f, "of its keys (anti_rollback `counter` alone): vaultctl escrow propose --help")?;
            return writeln!(f, "Next: vaultctl status --vault FILE; then seal a model with vault-enclave seal");
        }
        writeln!(f, "  signed:  {}", self.approved_by.join(", "))?;
        writeln!(f, "  missing: {}", self.missing.join(", "))
    }
}

impl InitStatus {
    /// From the folded log.
    pub(super) fn of_log(vault: &VaultFile, state: &State) -> Self {
        let all = approvers(vault.genesis());
        let (stage, missing) = match (state.vault(), state.ceremony()) {
            (Some(_), _) => (InitStage::Open, Vec::new()),
            (None, Some(ceremony)) => (InitStage::Signing, ceremony.missing().map(ToString::to_string).collect()),
            (None, None) => (InitStage::NotStarted, all.clone()),
        };
        let approved_by = all.into_iter().filter(|id| !missing.contains(id)).collect();
        Self { verified: true, stage, vault: Some(vault.id()), approved_by, missing, next: next(stage) }
    }

    /// By the host's word.
    pub(super) fn of_host(status: &VaultStatus) -> Self {
        let stage = match status.state {
            VaultState::Unreachable => InitStage::KeeperUnreachable,
            VaultState::Empty => InitStage::NotStarted,
            VaultState::Ceremony => InitStage::Signing,
            // Whatever became of it since, its ceremony is over.
            VaultState::Open | VaultState::Closed | VaultState::Retired | VaultState::Recovering => InitStage::Open,
            VaultState::Stopped => InitStage::Stopped,
        };
        let all = Genesis::parse(&status.genesis).map_or_else(|_| Vec::new(), |genesis| approvers(&genesis));
        let signed: Vec<String> =
            status.pending.iter().flat_map(|proposal| proposal.approved_by.iter().map(ToString::to_string)).collect();
        let open = stage == InitStage::Open;
        let (approved_by, missing) = all.into_iter().partition(|id| open || signed.contains(id));
        Self { verified: false, stage, vault: status.vault, approved_by, missing, next: next(stage) }
    }

    /// Whether the ceremony is over.
    pub(crate) fn is_open(&self) -> bool {
        self.stage == InitStage::Open
    }
}

impl fmt::Display for InitStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let said = if self.verified { "by the verified log" } else { "BY THE HOST'S WORD, not verified" };
        let stage = match self.stage {
            InitStage::KeeperUnreachable => "the host has no keeper",
            InitStage::NotStarted => "not started",
            InitStage::Signing => "approvals of the genesis are missing",
            InitStage::Open => "over: the vault is open",
            InitStage::Stopped => "the keeper refuses to serve",
        };
        writeln!(f, "Ceremony: {stage} ({said})")?;
        if let Some(vault) = self.vault {
            writeln!(f, "  vault id: {vault}")?;
        }
        for (label, ids) in [("signed:  ", &self.approved_by), ("missing: ", &self.missing)] {
            if !ids.is_empty() {
                writeln!(f, "  {label} {}", ids.join(", "))?;
            }
        }
        writeln!(f, "Next: {}", self.next)
    }
}

fn next(stage: InitStage) -> String {
    match stage {
        InitStage::KeeperUnreachable => "start vault-enclave keeper, and check that vault-host reaches it",
        InitStage::NotStarted => {
            "vaultctl init start --policy FILE --anti-rollback counter|witnesses|none --host URL --out DIR"
        }
        InitStage::Signing => "each who is missing runs: vaultctl init sign --vault FILE --key KEY",
        InitStage::Open => "`vaultctl status --vault FILE`; then seal a model with `vault-enclave seal`",
        InitStage::Stopped => "`vaultctl status --vault FILE` says why",
    }
    .to_owned()
}

fn approvers(genesis: &Genesis) -> Vec<String> {
    genesis.policy().approval().approvers.iter().map(|approver| approver.id.to_string()).collect()
}
