//! Where the vault stands, for people and dashboards.

use attestation::{Sha256Digest, UnixTime};
use ledger::entry::{PlatformChange, ProposedModel, TimeSource};
use ledger::names::Name;
use ledger::permit::PermitKind;
use ledger::revocation::ActKind;
use ledger::state::{Member, PendingProposal, Subject};
use vault_proto::convert::{KeeperIdentity, Proposal, ProposalAction};
use vault_proto::limits::SUMMARY_BYTES_MAX;
use vault_proto::v1::{self, keeper_reply::Response};

use super::Vault;
use crate::keeper::refusal::Refusal;
use crate::keeper::witnesses::witnesses;

impl Vault {
    pub(super) fn status(&mut self) -> Response {
        let now = self.now();
        let vault = self.state.vault();
        let pending = match vault {
            Some(vault) => vault.pending(now).map(|proposal| self.waiting(proposal, now)).collect(),
            None => self.ceremony().into_iter().collect(),
        };
        let leases = vault.into_iter().flat_map(|vault| vault.leases(now)).map(|(id, lease)| v1::LeaseSummary {
            lease_id: id.as_bytes().to_vec(),
            rule: lease.rule.to_string(),
            model: lease.model.to_string(),
            version: lease.version.to_string(),
            platform: lease.platform.as_bytes().to_vec(),
            renew_by: lease.renew_by.seconds(),
            tier: lease.tier.to_string(),
            program: lease.workload.map_or_else(Vec::new, |workload| workload.program.as_bytes().to_vec()),
        });
        let leases = leases.collect();
        let alarms = vault.into_iter().flat_map(|vault| vault.alarms()).cloned().map(v1::AlarmSummary::from).collect();
        let budgets = vault.into_iter().flat_map(|vault| vault.budget_uses(now)).map(v1::BudgetUse::from).collect();
        let permits =
            vault.into_iter().flat_map(|vault| vault.permits()).cloned().map(v1::PermitSummary::from).collect();
        let policy = vault.map(|vault| vault.policy());
        let open = policy.is_some();
        let head = self.log.head();
        Response::Status(v1::StatusResponse {
            state: if open { "open" } else { "ceremony" }.to_owned(),
            reason: if open { String::new() } else { "approvers of the genesis have not all signed".to_owned() },
            vault_id: self.vault_id().as_bytes().to_vec(),
            tier: self.tier.to_string(),
            anti_rollback: self.genesis.core().anti_rollback().as_str().to_owned(),
            recoverable: vault.is_some_and(|vault| {
                vault.is_recoverable() || vault.keepers().others().iter().any(Member::has_started)
            }),
            policy_serial: policy.map_or(0, |policy| policy.serial()),
            policy_digest: policy.map_or_else(Vec::new, |policy| policy.digest().as_bytes().to_vec()),
            policy_not_after: policy.map_or(0, |policy| policy.not_after().seconds()),
            log_size: head.size,
            log_root: head.root.to_vec(),
            pending,
            leases,
            budgets,
            alarm_count: vault.map_or(0, |vault| vault.alarm_count()),
            alarms,
            permits,
            time_source: match self.clock.source() {
                TimeSource::HostClock => "host clock",
                TimeSource::Witnesses => "witnesses",
            }
            .to_owned(),
            genesis: self.genesis.bytes().to_vec(),
            sealing: self.sealing(),
            epoch: vault.map_or(0, |vault| vault.epochs().present().epoch),
            epoch_since: vault.map_or(0, |vault| vault.epochs().since().seconds()),
            witnesses: self.genesis.policy().witnesses().map(|policy| witnesses(policy, self.log.seen())),
            escrow: vault.and_then(super::escrow::in_force),
            recoveries: vault.map(super::escrow::recoveries).unwrap_or_default(),
        })
    }

    pub(super) fn identity(&self) -> Response {
        Response::GetKeeperIdentity(self.own_identity().into())
    }

    pub(super) fn initialised(&self) -> Response {
        Response::InitKeeper(v1::InitKeeperResponse { identity: Some(self.own_identity().into()) })
    }

    fn own_identity(&self) -> KeeperIdentity {
        let keeper = self.genesis.keeper();
        let open = self.state.vault();
        let pcrs = self.genesis.policy().keeper().tpm().pcrs.selection();
        KeeperIdentity {
            tpm: self.hardware.identity.clone(),
            instance: self.instance,
            core_digest: self.genesis.core().digest(),
            wrap_key: self.keys.wrap_key().clone(),
            identity_key: self.keys.identity_key().clone(),
            log_key: keeper.log_key.clone(),
            vault_id: open.map(|_| self.vault_id()),
            pcrs,
        }
    }

    /// A proposal by what its approvals name, whether it waits or took effect.
    pub(super) fn proposal(&self, object: Sha256Digest) -> Result<v1::Proposal, Refusal> {
        let now = self.clock.shown(self.state.time());
        let found = match self.state.vault() {
            Some(vault) => match vault.pending(now).find(|proposal| proposal.object() == object) {
                Some(proposal) => Some(self.waiting(proposal, now)),
                None => self.effective(vault, object),
            },
            None => self.ceremony().filter(|_| object == self.vault_id()),
        };
        found.ok_or_else(|| {
            Refusal::unknown("proposal-unknown", format!("nothing is proposed as {object}: see `vaultctl pending`"))
        })
    }

    fn waiting(&self, proposal: &PendingProposal, now: UnixTime) -> v1::Proposal {
        let (action, summary) = match proposal.subject() {
            Subject::Policy { proposer, policy } => {
                (ProposalAction::Policy, format!("policy {} by {proposer}", policy.serial()))
            }
            Subject::Raise { proposer, raise } => {
                (ProposalAction::Budget, format!("raise of budget {} by {proposer}", raise.budget))
            }
            Subject::Permit { proposer, permit } => {
                (permit_action(permit.kind), summary(&format!("{permit} by {proposer}")))
            }
            Subject::Model(model) => {
                let ProposedModel { model, version, bytes, units, .. } = model;
                (ProposalAction::Model, format!("model {model}@{version}, {bytes} bytes in {units} units"))
            }
            Subject::Platform { proposer, change } => {
                let PlatformChange { act, label, .. } = change;
                (ProposalAction::Platform, format!("platform {} {label} by {proposer}", act.as_str()))
            }
            Subject::Reseal { proposer, .. } => {
                (ProposalAction::Reseal, format!("another boot state of the keeper by {proposer}"))
            }
            Subject::KeyEpoch { proposer, next } => {
                (ProposalAction::KeyEpoch, format!("keys of epoch {} by {proposer}", next.keys.epoch))
            }
            Subject::Join(joiner) => {
                (ProposalAction::KeeperJoin, format!("another keeper, on platform {}", joiner.machine.platform))
            }
            Subject::Escrow { proposer, plan } => {
                let (threshold, count) = (plan.threshold, plan.custodians.len());
                (
                    ProposalAction::Escrow,
                    format!("shares for {count} custodians, {threshold} give the keys, by {proposer}"),
                )
            }
            Subject::Recover(recovery) => {
                let platform = recovery.joiner.machine.platform;
                (ProposalAction::Recover, format!("a keeper in the place of a lost one, on platform {platform}"))
            }
            Subject::Leave { proposer, instance } => {
                let instance = hex::encode(instance);
                (ProposalAction::KeeperLeave, format!("keeper {instance} leaves, by {proposer}"))
            }
            Subject::Revocation { proposer, act } => {
                let action = match act.kind() {
                    ActKind::Revoke => ProposalAction::Revoke,
                    ActKind::Lift => ProposalAction::LiftRevocation,
                };
                (action, summary(&format!("{act} by {proposer}")))
            }
        };
        let approved_by = proposal.approved_by(now).cloned().collect();
        self.describe(action, proposal.object(), approved_by, proposal.threshold(), proposal.entry(), summary)
    }

    /// A proposal that took effect: the state keeps what it changed, not who asked.
    fn effective(&self, vault: &ledger::state::Vault, object: Sha256Digest) -> Option<v1::Proposal> {
        let (action, entry, summary) = if object == self.vault_id() {
            (ProposalAction::Genesis, 0, "genesis".to_owned())
        } else if object == vault.policy().digest() {
            (ProposalAction::Policy, 0, format!("policy {}", vault.policy().serial()))
        } else if let Some(entry) = vault.platforms().effective(object) {
            (ProposalAction::Platform, entry, "platform".to_owned())
        } else if vault.sealing().object() == Some(object) {
            (ProposalAction::Reseal, 0, "another boot state of the keeper".to_owned())
        } else if let Some(approved) = vault.keepers().approved().filter(|approved| approved.object() == object) {
            (ProposalAction::KeeperJoin, approved.entry(), "another keeper".to_owned())
        } else if let Some(escrow) = vault.escrows().current().filter(|escrow| escrow.object() == object) {
            (ProposalAction::Escrow, escrow.entry(), "custodians of the vault's keys".to_owned())
        } else if let Some(member) = vault.keepers().others().iter().find(|member| member.let_in().object() == object) {
            (ProposalAction::KeeperJoin, member.let_in().entry(), "another keeper".to_owned())
        } else if vault.epochs().begun().is_some_and(|begun| begun.object == object) {
            let entry = vault.epochs().entries().last().copied().unwrap_or(0);
            (ProposalAction::KeyEpoch, entry, format!("keys of epoch {}", vault.epochs().present().epoch))
        } else if let Some(raise) = vault.raises().iter().find(|raise| raise.object == object) {
            (ProposalAction::Budget, raise.entry, format!("raise of budget {}", raise.budget))
        } else if let Some(active) = vault.permits().iter().find(|active| active.object == object) {
            (permit_action(active.permit.kind), active.entry, summary(&active.permit.to_string()))
        } else {
            let model = vault.models().find(|model| model.proposed.object == object)?;
            let ProposedModel { model: name, version, .. } = &model.proposed;
            (ProposalAction::Model, model.entry, format!("model {name}@{version}"))
        };
        Some(v1::Proposal { effective: true, ..self.describe(action, object, Vec::new(), 0, entry, summary) })
    }

    /// The genesis, while approvers are missing.
    fn ceremony(&self) -> Option<v1::Proposal> {
        let ceremony = self.state.ceremony()?;
        let approvers = u32::try_from(self.genesis.policy().approval().approvers.len()).unwrap_or(u32::MAX);
        let approved_by = ceremony.approved_by().cloned().collect();
        let summary = "genesis: every approver signs".to_owned();
        Some(self.describe(ProposalAction::Genesis, self.vault_id(), approved_by, approvers, 0, summary))
    }

    fn describe(
        &self,
        action: ProposalAction,
        object: Sha256Digest,
        approved_by: Vec<Name>,
        threshold: u32,
        entry: u64,
        summary: String,
    ) -> v1::Proposal {
        let (previous, serial) = match (action, self.state.vault()) {
            (
                ProposalAction::Policy
                | ProposalAction::Model
                | ProposalAction::Platform
                | ProposalAction::Reseal
                | ProposalAction::KeeperJoin
                | ProposalAction::Escrow
                | ProposalAction::Recover
                | ProposalAction::KeeperLeave
                | ProposalAction::KeyEpoch
                | ProposalAction::Budget
                | ProposalAction::Revoke
                | ProposalAction::LiftRevocation
                | ProposalAction::Standing
                | ProposalAction::BreakGlass,
                Some(vault),
            ) => (vault.policy().digest(), vault.policy().serial()),
            (_, _) => (self.genesis.core().digest(), 0),
        };
        let proposal =
            Proposal { action, object, previous, serial, approved_by, threshold, effective: false, entry, summary };
        proposal.into()
    }
}

/// What names PCRs may be longer than a line.
fn summary(text: &str) -> String {
    text.chars().take(SUMMARY_BYTES_MAX).collect()
}

const fn permit_action(kind: PermitKind) -> ProposalAction {
    match kind {
        PermitKind::Standing => ProposalAction::Standing,
        PermitKind::BreakGlass => ProposalAction::BreakGlass,
    }
}
