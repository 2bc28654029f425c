//! A keeper that is to take the place of a lost one shows itself to each approver and each custodian.

use std::fmt;

use attestation::{Evidence, JoinerKeys, Recover, RecoverChallenge, Sha256Digest, Verified};

use super::{KeeperEvidenceError, KeeperRun, Question};
use crate::escrow::{LogPoint, Recovery, RecoveryMode, Rollback, recovery_plan};
use crate::genesis::Genesis;
use crate::keepers::{JoinError, Joiner};
use crate::state::{FoldError, Vault};

/// What a recovering keeper says that it is about to do. Worth nothing without evidence.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecoveryClaims {
    /// Whether it will keep the vault's keys.
    pub mode: RecoveryMode,
    /// What it made on its machine.
    pub keys: JoinerKeys,
    /// The policy in force at the end of the log.
    pub policy: Sha256Digest,
    /// The log that it goes on from.
    pub from: LogPoint,
    /// The shares that it asks for.
    pub set: Sha256Digest,
    /// Whether anything shows that this log is the newest.
    pub rollback: Rollback,
}

/// A recovering keeper whose evidence verified, in the run of one caller.
pub struct RecoveringKeeper {
    vault: Sha256Digest,
    policy: Sha256Digest,
    mode: RecoveryMode,
    recovery: Recovery,
    verified: Verified<Recover>,
    question: Question,
}

impl KeeperRun<'_> {
    /// The second step with a recovering keeper of the vault of `genesis`: its evidence must be over these claims, and show
    /// what the policy of this run asks of a keeper. Whether log, escrow and policy are those of the vault is for
    /// [`RecoveringKeeper::check`], which takes the log; a custodian has his share's set to compare.
    ///
    /// # Errors
    /// [`RecoveringError::Evidence`].
    pub fn verify_recovering(
        self,
        genesis: &Genesis,
        claims: RecoveryClaims,
        evidence: Evidence,
    ) -> Result<RecoveringKeeper, RecoveringError> {
        let RecoveryClaims { mode, keys, policy, from, set, rollback } = claims;
        let plan = recovery_plan(mode, from, set, rollback);
        let (vault, nonce) = (genesis.vault_id(), self.question.nonce);
        let binding = RecoverChallenge { nonce, vault, policy, plan, tpm: self.tpm_part() }.bind(keys);
        let question = Question { nonce, secret: self.question.secret };
        let verified = self.verify(evidence, binding, genesis.policy().keeper().tpm().pcrs.selection())?;
        let joiner = Joiner::shown(verified.claims(), verified.statement().keys())?;
        let recovery = Recovery { joiner, from, set, rollback };
        Ok(RecoveringKeeper { vault, mode, policy, recovery, verified, question })
    }
}

impl RecoveringKeeper {
    /// Whether it may take the place of the vault's keeper at the end of this log of `size` entries.
    ///
    /// # Errors
    /// [`RecoveringError::Fold`]; [`JoinError::OtherVault`], [`JoinError::PolicyChanged`].
    pub fn check(&self, vault: &Vault, size: u64) -> Result<(), RecoveringError> {
        if self.vault != vault.id() {
            return Err(JoinError::OtherVault.into());
        }
        if self.policy != vault.policy().digest() {
            return Err(JoinError::PolicyChanged.into());
        }
        Ok(vault.check_recovery(&self.recovery, size)?)
    }

    /// Whether it will keep the vault's keys.
    pub fn mode(&self) -> RecoveryMode {
        self.mode
    }

    /// The keeper, and what it goes on from.
    pub fn recovery(&self) -> &Recovery {
        &self.recovery
    }

    /// What approvals and contributions name.
    pub fn object(&self) -> Sha256Digest {
        self.recovery.object(self.vault, self.mode)
    }

    /// What it proved.
    pub fn verified(&self) -> &Verified<Recover> {
        &self.verified
    }

    /// The caller's nonce, for the witness of an approval.
    pub fn nonce(&self) -> &[u8; 32] {
        &self.question.nonce
    }

    /// The caller's secret, for the witness of an approval.
    pub fn activation_secret(&self) -> &[u8; 32] {
        &self.question.secret
    }
}

/// Why a recovering keeper is not taken for one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RecoveringError {
    /// It did not show what it must.
    Evidence(KeeperEvidenceError),
    /// Nor would it be a keeper of this vault at the end of its log.
    Fold(Box<FoldError>),
}

impl RecoveringError {
    /// Stable code.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Evidence(error) => error.code(),
            Self::Fold(error) => error.code(),
        }
    }
}

impl fmt::Display for RecoveringError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Evidence(error) => error.fmt(f),
            Self::Fold(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for RecoveringError {}

impl From<KeeperEvidenceError> for RecoveringError {
    fn from(error: KeeperEvidenceError) -> Self {
        Self::Evidence(error)
    }
}

impl From<FoldError> for RecoveringError {
    fn from(error: FoldError) -> Self {
        Self::Fold(Box::new(error))
    }
}

impl From<JoinError> for RecoveringError {
    fn from(error: JoinError) -> Self {
        FoldError::Join(error).into()
    }
}
