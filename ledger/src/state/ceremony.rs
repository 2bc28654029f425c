//! From the genesis to the open vault: every approver signs, each with evidence from his own run.

use std::sync::Arc;

use attestation::Sha256Digest;

use super::error::FoldError;
use super::statement::Expected;
use super::stored::stored;
use super::vault::Vault;
use crate::approvals::{self, ApprovalAction};
use crate::entry::Approve;
use crate::genesis::Genesis;
use crate::names::Name;

/// A genesis that waits for approvals.
#[derive(Debug, Clone)]
pub struct Ceremony {
    genesis: Arc<Genesis>,
    approvals: Vec<(Name, Sha256Digest)>,
}

stored!(Ceremony { genesis, approvals });

impl Ceremony {
    pub(super) fn new(genesis: Genesis) -> Self {
        Self { genesis: Arc::new(genesis), approvals: Vec::new() }
    }

    /// The genesis.
    pub fn genesis(&self) -> &Genesis {
        &self.genesis
    }

    /// Who has signed, in order.
    pub fn approved_by(&self) -> impl Iterator<Item = &Name> {
        self.approvals.iter().map(|(approver, _)| approver)
    }

    /// Who has not.
    pub fn missing(&self) -> impl Iterator<Item = &Name> {
        let all = self.genesis.policy().approval().approvers.iter().map(|approver| &approver.id);
        all.filter(|id| self.approved_by().all(|signed| signed != *id))
    }

    /// The last approval gives the vault.
    pub(super) fn approve(&mut self, approve: &Approve) -> Result<Option<Vault>, FoldError> {
        let policy = self.genesis.policy();
        let signed = approvals::verify(approve.statement.as_bytes(), &approve.signature, &policy.approval().approvers)
            .map_err(FoldError::Approval)?;
        let expected = Expected {
            action: ApprovalAction::Genesis,
            object: self.genesis.vault_id(),
            previous: self.genesis.core().digest(),
            vault: self.genesis.vault_id(),
            serial: 0,
        };
        expected.check(signed.statement(), approve.time)?;
        let witness = approve.witness.ok_or(FoldError::WitnessMissing)?;
        if self.approved_by().any(|id| id == signed.approver()) {
            return Err(FoldError::AlreadyApproved { approver: signed.approver().clone() });
        }
        // Each approver checked the keeper himself, with his own nonce: nobody signs on another's word.
        if self.approvals.iter().any(|(_, evidence)| *evidence == witness.evidence) {
            return Err(FoldError::WitnessRepeated);
        }
        self.approvals.push((signed.approver().clone(), witness.evidence));
        Ok(self.missing().next().is_none().then(|| Vault::open(Arc::clone(&self.genesis))))
    }
}
