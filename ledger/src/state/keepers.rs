//! Which keepers have the vault, which one may take over, and which ones had it before.

use std::sync::Arc;

use attestation::{Sha256Digest, UnixTime};

use super::error::FoldError;
use super::proposals::{PendingProposal, Subject};
use super::reseal::Sealing;
use super::stored::stored;
use super::vault::Vault;
use crate::approvals::ApprovalAction;
use crate::entry::{KeeperJoin, KeeperLeave, KeeperRetire, ProposedJoin, ProposedLeave};
use crate::genesis::AntiRollback;
use crate::keepers::{JOIN_SECS_MAX, JoinError, Joiner, KeeperMachine, leave_object};

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
    /// Under witnesses, those that decide beside the first one, in the order in which they were let in.
    others: Vec<Member>,
    /// Whether there were ever others: the log may have entries of keepers that this one knows nothing of.
    shared: bool,
}

/// A keeper beside another.
#[derive(Debug, Clone)]
pub struct Member {
    let_in: ApprovedJoiner,
    /// It has the keys: it has written an entry of its own.
    started: bool,
}

/// A keeper that approvers let in.
#[derive(Debug, Clone)]
pub struct ApprovedJoiner {
    object: Sha256Digest,
    joiner: Arc<Joiner>,
    not_after: UnixTime,
    entry: u64,
}

stored!(Keepers { current, former, revision, approved, successor, others, shared });

stored!(Member { let_in, started });

stored!(ApprovedJoiner { object, joiner, not_after, entry });

impl Keepers {
    pub(super) fn founded_by(founder: KeeperMachine) -> Self {
        Self {
            current: founder,
            former: Vec::new(),
            revision: 0,
            approved: None,
            successor: None,
            others: Vec::new(),
            shared: false,
        }
    }

    /// The keeper of the vault: the one whose run was the last to start. Of several, the one that was there first.
    pub fn current(&self) -> &KeeperMachine {
        &self.current
    }

    /// Those that decide beside it.
    pub fn others(&self) -> &[Member] {
        &self.others
    }

    /// Every keeper that may write to the log.
    pub fn all(&self) -> impl Iterator<Item = &KeeperMachine> {
        std::iter::once(&self.current).chain(self.others.iter().map(Member::machine))
    }

    /// Whether other keepers decide on the same log, or did: no keeper promises anything that is not in it.
    pub fn is_shared(&self) -> bool {
        self.shared
    }

    /// The keeper among the others that was let in as this one, and that has not started yet.
    pub fn waiting(&self, joiner: &Joiner) -> Option<&ApprovedJoiner> {
        let waiting = self.others.iter().filter(|member| !member.started).map(Member::let_in);
        waiting.into_iter().find(|let_in| *let_in.joiner() == *joiner)
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
        self.all().chain(&self.former).any(same)
    }

    pub(super) fn void_approved(&mut self) {
        self.approved = None;
    }

    /// Nothing follows but the start of this one.
    pub(super) fn succeeded_by(&mut self, successor: Arc<Joiner>) {
        self.successor = Some(successor);
        self.approved = None;
    }

    /// The founder's runs name no keeper, as they did before there could be another.
    fn started(&mut self, keeper: Option<[u8; 32]>, founder: [u8; 32]) -> Result<(), JoinError> {
        if self.shared {
            return self.one_started(keeper, founder);
        }
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

impl Keepers {
    /// Takes one of the others away; where it is the first one, gives the one that is the first from now on.
    fn leave(&mut self, instance: [u8; 32]) -> Option<KeeperMachine> {
        let first = self.current.instance == instance;
        let goes = |member: &Member| if first { member.started } else { member.machine().instance == instance };
        let member = self.others.iter().position(goes).map(|index| self.others.remove(index))?;
        if first {
            return Some(*member.machine());
        }
        self.former.push(*member.machine());
        None
    }

    /// Whether this keeper decided beside others, and left.
    pub fn has_left(&self, instance: [u8; 32]) -> bool {
        self.shared && self.former.iter().any(|keeper| keeper.instance == instance)
    }

    fn one_started(&mut self, keeper: Option<[u8; 32]>, founder: [u8; 32]) -> Result<(), JoinError> {
        let instance = match keeper {
            None => founder,
            Some(instance) if instance == founder => return Err(JoinError::OtherKeeper),
            Some(instance) => instance,
        };
        if self.current.instance == instance {
            return Ok(());
        }
        let member = self.others.iter_mut().find(|member| member.machine().instance == instance);
        member.ok_or(JoinError::OtherKeeper)?.started = true;
        Ok(())
    }
}

impl Member {
    /// Its machine.
    pub fn machine(&self) -> &KeeperMachine {
        &self.let_in.joiner().machine
    }

    /// How it was let in.
    pub fn let_in(&self) -> &ApprovedJoiner {
        &self.let_in
    }

    /// Whether a run of it is in the log.
    pub fn has_started(&self) -> bool {
        self.started
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
        let let_in = ApprovedJoiner { object, joiner, not_after, entry: index };
        match self.genesis().core().anti_rollback() {
            // One at a time: it takes the place of whoever was let in before.
            AntiRollback::Counter | AntiRollback::None => self.keepers.approved = Some(let_in),
            AntiRollback::Witnesses => {
                self.keepers.others.push(Member { let_in, started: false });
                self.keepers.shared = true;
                self.proposals.void_reseals();
                self.proposals.void_epochs();
            }
        }
        // Nobody else's approvals go on to count.
        self.proposals.void_leaves();
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
        self.keepers.succeeded_by(Arc::clone(joiner));
        // What was sealed, and is yet to be, was the root of the keeper that is no more.
        self.sealing = Sealing::default();
        self.proposals.void_reseals();
        self.proposals.void_epochs();
        self.proposals.void_joins(|_| true);
        Ok(())
    }

    pub(super) fn proposed_leave(
        &self,
        index: u64,
        time: UnixTime,
        proposed: &ProposedLeave,
    ) -> Result<PendingProposal, FoldError> {
        self.check_policy_runs(time)?;
        if proposed.object != leave_object(self.id(), proposed.revision, proposed.instance) {
            return Err(FoldError::ObjectMismatch);
        }
        if proposed.revision != self.keepers.revision {
            return Err(FoldError::Join(JoinError::Revision { expected: self.keepers.revision }));
        }
        let signed = self.verify(&proposed.statement, &proposed.signature)?;
        self.expected(ApprovalAction::ProposeKeeperLeave, proposed.object).check(signed.statement(), time)?;
        self.check_leave(proposed.instance).map_err(FoldError::Join)?;
        let not_after = signed.statement().not_after.min(self.policy().not_after());
        let subject = Subject::Leave { proposer: signed.approver().clone(), instance: proposed.instance };
        let threshold = self.policy().approval().threshold;
        Ok(PendingProposal::new(index, proposed.object, subject, not_after, threshold))
    }

    /// Whether this keeper may leave: of those that stay, one must have shown that it has the keys.
    ///
    /// # Errors
    /// [`JoinError::Unknown`], [`JoinError::LastKeeper`].
    pub fn check_leave(&self, instance: [u8; 32]) -> Result<(), JoinError> {
        if self.keepers.all().all(|keeper| keeper.instance != instance) {
            return Err(JoinError::Unknown);
        }
        let others = self.keepers.others.iter();
        let stays = others.filter(|member| member.started && member.machine().instance != instance).count();
        match stays > 0 || self.keepers.current.instance != instance {
            true => Ok(()),
            false => Err(JoinError::LastKeeper),
        }
    }

    pub(super) fn keeper_leave(&mut self, effect: &KeeperLeave) -> Result<(), FoldError> {
        let proposal = self.proposals.at(effect.proposal)?;
        let Subject::Leave { instance, .. } = proposal.subject() else {
            return Err(FoldError::ActionMismatch);
        };
        let instance = *instance;
        if effect.object != proposal.object() || effect.instance != instance {
            return Err(FoldError::ObjectMismatch);
        }
        self.check_policy_runs(effect.time)?;
        proposal.check_effective(effect.time)?;
        self.check_leave(instance).map_err(FoldError::Join)?;
        if let Some(next) = self.keepers.leave(instance) {
            self.keepers.former.push(std::mem::replace(&mut self.keepers.current, next));
            // What was sealed was the root of the keeper that is no more.
            self.sealing = Sealing::default();
        }
        self.keepers.revision = self.keepers.revision.saturating_add(1);
        self.proposals.void_leaves();
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
        let founder = self.genesis().keeper().instance;
        self.keepers.started(keeper, founder).map_err(FoldError::Join)
    }
}
