//! Which keeper has the vault, which one may take over, and which ones had it before.

use std::sync::Arc;

use attestation::{Sha256Digest, UnixTime};

use super::error::FoldError;
use super::proposals::{PendingProposal, Subject};
use super::reseal::Sealing;
use super::stored::stored;
use super::vault::Vault;
use crate::entry::{KeeperJoin, KeeperRetire, ProposedJoin};
use crate::keepers::{JOIN_SECS_MAX, JoinError, Joiner, KeeperMachine};

/// The keepers of a vault.
#[derive(Debug, Clone)]
pub struct Keepers {
    current: KeeperMachine,
    /// Those of before, the founder first.
    former: Vec<KeeperMachine>,
    revision: u64,
    approved: Option<ApprovedJoiner>,
    /// The keeper has retired, and this one has not started yet.
    successor: Option<Arc<Joiner>>,
}

/// A keeper that approvers let in.
#[derive(Debug, Clone)]
pub struct ApprovedJoiner {
    object: Sha256Digest,
    joiner: Arc<Joiner>,
    not_after: UnixTime,
    entry: u64,
}

stored!(Keepers { current, former, revision, approved, successor });

stored!(ApprovedJoiner { object, joiner, not_after, entry });

impl Keepers {
    pub(super) fn founded_by(founder: KeeperMachine) -> Self {
        Self { current: founder, former: Vec::new(), revision: 0, approved: None, successor: None }
    }

    /// The keeper of the vault: the one whose run was the last to start.
    pub fn current(&self) -> &KeeperMachine {
        &self.current
    }

    /// The keepers of before, the founder first.
    pub fn former(&self) -> &[KeeperMachine] {
        &self.former
    }

    /// How many keepers were let in so far: the next proposal must say so.
    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// The one that may take over.
    pub fn approved(&self) -> Option<&ApprovedJoiner> {
        self.approved.as_ref()
    }

    /// The one that the retired keeper named. Nothing follows but its start.
    pub fn successor(&self) -> Option<&Arc<Joiner>> {
        self.successor.as_ref()
    }

    /// Whether this is the keeper, or was it: by its instance, or by its attestation key.
    pub fn knows(&self, machine: &KeeperMachine) -> bool {
        let same = |known: &KeeperMachine| known.instance == machine.instance || known.ak_name == machine.ak_name;
        same(&self.current) || self.former.iter().any(same)
    }

    pub(super) fn void_approved(&mut self) {
        self.approved = None;
    }

    /// The founder's runs name no keeper, as they did before there could be another.
    fn started(&mut self, keeper: Option<[u8; 32]>) -> Result<(), JoinError> {
        let expected = match &self.successor {
            Some(successor) => Some(successor.machine.instance),
            None => (!self.former.is_empty()).then_some(self.current.instance),
        };
        if keeper != expected {
            return Err(if self.successor.is_some() { JoinError::Retired } else { JoinError::OtherKeeper });
        }
        if let Some(successor) = self.successor.take() {
            self.former.push(std::mem::replace(&mut self.current, successor.machine));
        }
        Ok(())
    }
}

impl ApprovedJoiner {
    /// What the approvals named.
    pub fn object(&self) -> Sha256Digest {
        self.object
    }

    /// The keeper.
    pub fn joiner(&self) -> &Joiner {
        &self.joiner
    }

    /// Until when it may take over.
    pub fn not_after(&self) -> UnixTime {
        self.not_after
    }

    /// Index of its `keeper-join` entry.
    pub fn entry(&self) -> u64 {
        self.entry
    }

    /// Refuses after its last moment.
    ///
    /// # Errors
    /// [`JoinError::ApprovalOver`].
    pub fn check_time(&self, now: UnixTime) -> Result<(), JoinError> {
        match now > self.not_after {
            true => Err(JoinError::ApprovalOver { not_after: self.not_after }),
            false => Ok(()),
        }
    }
}

impl Vault {
    /// The keepers of this vault.
    pub fn keepers(&self) -> &Keepers {
        &self.keepers
    }

    pub(super) fn proposed_join(
        &self,
        index: u64,
        time: UnixTime,
        proposed: &ProposedJoin,
    ) -> Result<PendingProposal, FoldError> {
        self.check_policy_runs(time)?;
        let joiner = proposed.joiner();
        if proposed.object != joiner.object(self.id(), proposed.revision) {
            return Err(FoldError::ObjectMismatch);
        }
        if proposed.revision != self.keepers.revision {
            return Err(FoldError::Join(JoinError::Revision { expected: self.keepers.revision }));
        }
        if proposed.not_after > time.plus(JOIN_SECS_MAX) {
            return Err(FoldError::Join(JoinError::TooLong));
        }
        self.check_joiner(&joiner).map_err(FoldError::Join)?;
        let not_after = proposed.not_after.min(self.policy().not_after());
        let subject = Subject::Join(Arc::new(joiner));
        let threshold = self.policy().approval().threshold;
        Ok(PendingProposal::new(index, proposed.object, subject, not_after, threshold))
    }

    pub(super) fn keeper_join(&mut self, index: u64, effect: &KeeperJoin) -> Result<(), FoldError> {
        let proposal = self.proposals.at(effect.proposal)?;
        let Subject::Join(joiner) = proposal.subject() else {
            return Err(FoldError::ActionMismatch);
        };
        if effect.object != proposal.object() {
            return Err(FoldError::ObjectMismatch);
        }
        self.check_policy_runs(effect.time)?;
        proposal.check_effective(effect.time)?;
        self.check_joiner(joiner).map_err(FoldError::Join)?;
        let (object, joiner, not_after) = (effect.object, Arc::clone(joiner), proposal.not_after());
        // One at a time: it takes the place of whoever was let in before, and nobody else's approvals go on to count.
        self.keepers.approved = Some(ApprovedJoiner { object, joiner, not_after, entry: index });
        self.keepers.revision = self.keepers.revision.saturating_add(1);
        self.proposals.void_joins(|_| true);
        Ok(())
    }

    pub(super) fn keeper_retire(&mut self, effect: &KeeperRetire) -> Result<(), FoldError> {
        let approved = self.keepers.approved.as_ref().ok_or(FoldError::Join(JoinError::NotApproved))?;
        if effect.object != approved.object {
            return Err(FoldError::Join(JoinError::NotApproved));
        }
        approved.check_time(effect.time).map_err(FoldError::Join)?;
        self.check_policy_runs(effect.time)?;
        let joiner = &approved.joiner;
        self.check_joiner(joiner).map_err(FoldError::Join)?;
        let named = (effect.instance, effect.counter_name, effect.counter);
        if named != (joiner.machine.instance, joiner.counter_name, joiner.counter) {
            return Err(FoldError::Join(JoinError::OtherSuccessor));
        }
        self.keepers.successor = Some(Arc::clone(joiner));
        self.keepers.approved = None;
        // What was sealed, and is yet to be, was the root of the keeper that is no more.
        self.sealing = Sealing::default();
        self.proposals.void_reseals();
        self.proposals.void_epochs();
        self.proposals.void_joins(|_| true);
        Ok(())
    }

    /// Refuses whatever comes between the last entry of a keeper and the start of its successor.
    pub(super) fn check_not_retired(&self) -> Result<(), FoldError> {
        match self.keepers.successor {
            Some(_) => Err(FoldError::Join(JoinError::Retired)),
            None => Ok(()),
        }
    }

    pub(super) fn keeper_started(&mut self, keeper: Option<[u8; 32]>) -> Result<(), FoldError> {
        self.keepers.started(keeper).map_err(FoldError::Join)
    }
}
