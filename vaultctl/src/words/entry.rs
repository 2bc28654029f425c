//! Entries of the log in words.

use std::fmt;

use attestation::{UnixTime, Workload};
use ledger::approvals::{self, ApprovalAction};
use ledger::entry::{
    Approve, Cause, Deny, Entry, Extend, PermitInForce, PlatformAct, Proposal, Propose, ProposedPlatform,
    RecoverInForce, Release, Revoke, TimeSource,
};
use ledger::escrow::Rollback;
use ledger::extension::Extension;
use ledger::genesis::AntiRollback;
use ledger::names::Group;
use ledger::policy::Approver;
use ledger::revocation::{ActKind, RevocationAct};
use ledger::state::{PendingProposal, State, Subject, Vault};
use serde::Serialize;

use super::budget::{alarm_rings, clock_jump, raise_in_words};
use super::claims::{tier_in_words, workload_in_words};
use super::permit::{passed_by, permit_in_words};
use super::upgrade::upgraded;
use crate::print::{count_of, moment, size};

/// Labels of a release that are shown: it lists 32 at most.
const GROUPS_SHOWN: usize = 8;

/// An entry, explained.
#[derive(Debug, Serialize)]
pub struct EntryReport {
    index: u64,
    time: UnixTime,
    says: String,
    entry: Entry,
}

impl EntryReport {
    /// Explains the entry that follows on `before`.
    pub fn new(entry: Entry, before: &State) -> Self {
        Self { index: before.size(), time: entry.time(), says: in_words(&entry, before), entry }
    }
}

impl fmt::Display for EntryReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{:>6}  {}  {:<12}  {}", self.index, moment(self.time), self.entry.type_name(), self.says)
    }
}

/// What an entry says, behind the state `before`.
pub fn in_words(entry: &Entry, before: &State) -> String {
    match entry {
        Entry::Genesis(genesis) => {
            format!("the vault begins; {}; its keeper is {}", rollback(genesis.anti_rollback), genesis.platform)
        }
        Entry::Start(start) => {
            let which = start.keeper.map_or_else(String::new, |keeper| format!(" {}", hex::encode(keeper)));
            let tier = tier_in_words(start.tier);
            let time = match start.time_source {
                TimeSource::HostClock => "the clock of its guest",
                TimeSource::Witnesses => "its witnesses",
            };
            format!("keeper{which} {} started; {tier}; time: {time}", start.version)
        }
        Entry::Propose(propose) => proposed(propose, before),
        Entry::Approve(approve) => approved(approve, before),
        Entry::Policy(policy) => {
            format!("policy {} is in force, proposed at {}: {}", policy.serial, policy.proposal, policy.object)
        }
        Entry::Model(model) => {
            format!("{}@{} is published, proposed at {}", model.model, model.version, model.proposal)
        }
        Entry::Platform(platform) => {
            let what = match platform.act {
                PlatformAct::Add => "is enrolled",
                PlatformAct::Remove => "is removed",
            };
            format!("platform {} {what}, proposed at {}", platform.platform, platform.proposal)
        }
        Entry::Reseal(reseal) => format!(
            "the keeper's root is sealed to another boot state too, proposed at {}: {}",
            reseal.proposal, reseal.object
        ),
        Entry::Resealed(resealed) => {
            format!("the keeper started on the boot state of {}: it starts on the one before no more", resealed.object)
        }
        Entry::KeeperJoin(join) => {
            let beside =
                before.genesis().is_some_and(|genesis| genesis.core().anti_rollback() == AntiRollback::Witnesses);
            let what = if beside { "decides beside the others from here on" } else { "may take over" };
            format!("another keeper {what}, proposed at {}: {}", join.proposal, join.object)
        }
        Entry::KeeperRetire(retire) => format!(
            "the keeper retires: {} follows, whose counter {} reads {}",
            hex::encode(retire.instance),
            hex::encode(retire.counter_name),
            retire.counter
        ),
        Entry::Escrow(escrow) => format!(
            "the vault's keys were split into {}, proposed at {}: {}",
            count_of(escrow.shares.len() as u64, "share"),
            escrow.proposal,
            escrow.object
        ),
        Entry::Recover(recover) => recovered(recover, before),
        Entry::KeeperLeave(leave) => format!(
            "keeper {} decides no more, proposed at {}: {}",
            hex::encode(leave.instance),
            leave.proposal,
            leave.object
        ),
        Entry::KeyEpoch(epoch) => format!(
            "epoch {} begins: the vault has other keys, proposed at {}: {}",
            epoch.epoch, epoch.proposal, epoch.object
        ),
        Entry::Budget(raised) => {
            format!("the raise of budget {} counts, proposed at {}", raised.budget, raised.proposal)
        }
        Entry::Permit(permit) => permitted(permit, before),
        Entry::Clock(jump) => clock_jump(jump),
        Entry::Alarm(alarm) => alarm_rings(alarm, before),
        Entry::Release(release) => released(release) + &passed_by(release, before),
        Entry::Renew(renew) => {
            let leases: Vec<String> = renew.renewals.iter().map(|renewal| renewal.lease.to_string()).collect();
            format!("{} renewed: {}", count_of(leases.len() as u64, "lease"), leases.join(", "))
        }
        Entry::End(end) => match end.cause {
            Cause::Agent => format!("lease {} ended by its holder", end.lease),
        },
        Entry::Revoke(revoke) => revoked(revoke, before),
        Entry::Extend(extend) => extended(extend),
        Entry::Deny(deny) => {
            let Deny { platform, code, model, version, rule, .. } = deny;
            format!("refused {platform} [{code}] {model}@{version} under {rule}{}", starts(deny.workload.as_ref()))
        }
        Entry::DenySummary(summary) if summary.counts.is_empty() => {
            format!("nothing refused since {}", moment(summary.since))
        }
        Entry::DenySummary(summary) => {
            let counts: Vec<String> = summary.counts.iter().map(|(code, count)| format!("{code} {count}")).collect();
            format!("refused since {}: {}", moment(summary.since), counts.join(", "))
        }
        Entry::Upgrade(upgrade) => upgraded(upgrade, before),
    }
}

/// How an older copy of the state is noticed, in words.
pub fn rollback(anti_rollback: AntiRollback) -> &'static str {
    match anti_rollback {
        AntiRollback::Counter => "an older copy of its state is noticed by a TPM counter",
        AntiRollback::Witnesses => {
            "an older copy of its state is noticed by witnesses, a quorum of which cosigns the log before anything is released"
        }
        AntiRollback::None => "AN OLDER COPY OF ITS STATE IS NOT NOTICED (anti_rollback none)",
    }
}

fn proposed(propose: &Propose, before: &State) -> String {
    match &propose.proposal {
        Proposal::Policy(policy) => {
            let by = signer(&policy.statement, &policy.signature, before);
            format!("{by} proposes policy {}", policy.object)
        }
        Proposal::Platform(platform) => {
            let by = signer(&platform.statement, &platform.signature, before);
            let ProposedPlatform { act, platform: id, label, counts_as, .. } = platform;
            format!("{by} proposes platform {} {label} as {counts_as}: EK {id}", act.as_str())
        }
        Proposal::Reseal(proposed) => {
            let by = signer(&proposed.statement, &proposed.signature, before);
            let pcrs: Vec<String> =
                proposed.pcrs.iter().map(|(index, value)| format!("PCR {index} {}", hex::encode(value))).collect();
            format!("{by} proposes to seal the keeper to {}: {}", pcrs.join(", "), proposed.object)
        }
        Proposal::KeeperJoin(join) => format!(
            "keeper {} on platform {} asks to take over: {}",
            hex::encode(join.instance),
            join.platform,
            join.object
        ),
        Proposal::Escrow(escrow) => {
            let by = signer(&escrow.statement, &escrow.signature, before);
            let custodians: Vec<&str> = escrow.custodians.iter().map(|custodian| custodian.id.as_str()).collect();
            let (threshold, custodians) = (escrow.threshold, custodians.join(", "));
            format!(
                "{by} proposes shares of the vault's keys for {custodians}, {threshold} of which give them: {}",
                escrow.object
            )
        }
        Proposal::Recover(recover) => format!(
            "the vault's keeper is called lost: keeper {} on platform {} is to take its place at entry {}: {}",
            hex::encode(recover.instance),
            recover.platform,
            recover.size,
            recover.object
        ),
        Proposal::KeeperLeave(proposed) => {
            let by = signer(&proposed.statement, &proposed.signature, before);
            format!("{by} proposes that keeper {} leaves: {}", hex::encode(proposed.instance), proposed.object)
        }
        Proposal::KeyEpoch(proposed) => {
            let by = signer(&proposed.statement, &proposed.signature, before);
            format!("{by} asks for keys of epoch {}: {}", proposed.epoch, proposed.object)
        }
        Proposal::Budget(raise) => {
            let by = signer(&raise.statement, &raise.signature, before);
            format!("{by} proposes to raise {}: {}", raise_in_words(raise), raise.object)
        }
        Proposal::Permit(proposed) => {
            let by = signer(&proposed.statement, &proposed.signature, before);
            format!("{by} proposes a {}: {}", permit_in_words(&proposed.permit), proposed.object)
        }
        Proposal::Model(model) => format!(
            "publisher {} proposes {}@{}, {} in {}: {}",
            model.publisher,
            model.model,
            model.version,
            size(model.bytes),
            count_of(u64::from(model.units), "unit"),
            model.object
        ),
        Proposal::Revocation(proposed) => {
            let by = signer(&proposed.statement, &proposed.signature, before);
            format!("{by} proposes to {}: {}", act_in_words(&proposed.revocation, before.vault()), proposed.object)
        }
    }
}

fn revoked(revoke: &Revoke, before: &State) -> String {
    let proposals = before.vault().into_iter().flat_map(|vault| vault.pending(revoke.time));
    let proposal = proposals.into_iter().find(|proposal| proposal.entry() == revoke.proposal);
    let what = match proposal.map(|proposal| proposal.subject()) {
        Some(Subject::Revocation { act, .. }) => act_in_words(act, before.vault()),
        // The fold refuses such an entry.
        Some(
            Subject::Policy { .. }
            | Subject::Model(_)
            | Subject::Platform { .. }
            | Subject::Reseal { .. }
            | Subject::Join(_)
            | Subject::KeyEpoch { .. }
            | Subject::Escrow { .. }
            | Subject::Recover(_)
            | Subject::Leave { .. }
            | Subject::Raise { .. }
            | Subject::Permit { .. },
        )
        | None => "nothing that was proposed".to_owned(),
    };
    let did = match revoke.act {
        ActKind::Revoke => format!("in force: {what}; ends {}", count_of(u64::from(revoke.leases), "running lease")),
        ActKind::Lift => format!("in force: {what}"),
    };
    format!("{did}, proposed at {}", revoke.proposal)
}

/// What nobody can tell any more is said wherever the entry is shown.
fn recovered(recover: &RecoverInForce, before: &State) -> String {
    let proposals = before.vault().into_iter().flat_map(|vault| vault.pending(recover.time));
    let proposal = proposals.into_iter().find(|proposal| proposal.entry() == recover.proposal);
    let by = match proposal.map(|proposal| proposal.subject()) {
        Some(Subject::Recover(recovery)) => hex::encode(recovery.joiner.machine.instance),
        // The fold refuses such an entry.
        Some(_) | None => "nobody that was proposed".to_owned(),
    };
    let rollback = match recover.rollback {
        Rollback::Accepted => "ROLLBACK ACCEPTED: what the lost one wrote behind this log is forgotten",
    };
    let lost = hex::encode(recover.lost);
    format!(
        "keeper {lost} is lost, and {by} has its vault by its custodians, proposed at {}; {rollback}",
        recover.proposal
    )
}

fn permitted(effect: &PermitInForce, before: &State) -> String {
    let mut pending = before.vault().into_iter().flat_map(|vault| vault.pending(effect.time));
    let proposal = pending.find(|proposal| proposal.entry() == effect.proposal);
    match proposal.map(PendingProposal::subject) {
        Some(Subject::Permit { permit, .. }) => {
            format!("in force: {}, proposed at {}", permit_in_words(permit), effect.proposal)
        }
        // The fold refuses such an entry.
        _ => "nothing that was proposed".to_owned(),
    }
}

fn extended(extend: &Extend) -> String {
    let Extension { until, leases, .. } = &extend.extension;
    format!(
        "{} ran on without a keeper: {leases}, until {}, signed by {}",
        count_of(u64::from(extend.leases), "lease"),
        moment(*until),
        count_of(extend.approvals.len() as u64, "approver")
    )
}

/// An act in words. What a lift lifts is in the state before it.
pub(crate) fn act_in_words(act: &RevocationAct, vault: Option<&Vault>) -> String {
    match act {
        RevocationAct::Revoke { scope, .. } => format!("revoke {scope}"),
        RevocationAct::Lift { entry } => {
            let lifted = vault.and_then(|vault| vault.revocations().find(|(index, _)| index == entry));
            match lifted {
                Some((_, revocation)) => format!("lift the revocation of {} (entry {entry})", revocation.scope),
                None => format!("lift the revocation of entry {entry}"),
            }
        }
    }
}

fn approved(approve: &Approve, before: &State) -> String {
    let by = signer(&approve.statement, &approve.signature, before);
    match approvals::ApprovalStatement::parse(approve.statement.as_bytes()) {
        Ok(statement) => {
            let what = match statement.action {
                ApprovalAction::Genesis => "the genesis",
                ApprovalAction::ProposePolicy => "the proposal of policy",
                ApprovalAction::Policy => "policy",
                ApprovalAction::Model => "model",
                ApprovalAction::ProposePlatform => "the proposal of platform",
                ApprovalAction::Platform => "platform",
                ApprovalAction::ProposeReseal => "the proposal of reseal",
                ApprovalAction::Reseal => "reseal",
                ApprovalAction::KeeperJoin => "keeper",
                ApprovalAction::ProposeEscrow => "the proposal of escrow",
                ApprovalAction::Escrow => "escrow",
                ApprovalAction::Recover => "recovery",
                ApprovalAction::ProposeKeeperLeave => "the proposal that a keeper leaves",
                ApprovalAction::KeeperLeave => "that a keeper leaves",
                ApprovalAction::ProposeKeyEpoch => "the proposal of a key epoch",
                ApprovalAction::KeyEpoch => "key epoch",
                ApprovalAction::ProposeBudget => "the proposal of raise",
                ApprovalAction::Budget => "raise",
                ApprovalAction::Revoke => "the revocation",
                ApprovalAction::LiftRevocation => "the lift of a revocation",
                ApprovalAction::Extend => "the extension",
                ApprovalAction::ProposeStanding => "the proposal of standing approval",
                ApprovalAction::Standing => "standing approval",
                ApprovalAction::ProposeBreakGlass => "the proposal of break-glass",
                ApprovalAction::BreakGlass => "BREAK-GLASS",
            };
            format!("{by} approves {what} {}", statement.object)
        }
        Err(error) => format!("{by}: {error}"),
    }
}

fn released(release: &Release) -> String {
    format!(
        "{} of {}@{} ({}) to {} under {}; {}{}; lease {} to {}{}",
        count_of(u64::from(release.units.count), "unit"),
        release.model,
        release.version,
        size(release.units.bytes),
        release.platform,
        release.rule,
        groups(release),
        tier_in_words(release.tier),
        release.lease,
        moment(release.renew_by),
        starts(release.workload.as_ref())
    )
}

/// Behind the rest of a line; nothing where nobody asked.
fn starts(workload: Option<&Workload>) -> String {
    workload.map_or_else(String::new, |workload| format!("; starts {}", workload_in_words(workload)))
}

/// Which parts of the model it gave, header units aside, where the entry lists them.
fn groups(release: &Release) -> String {
    let labels = release.marks.as_ref().and_then(|marks| marks.groups());
    let labels: Vec<&str> =
        labels.into_iter().flatten().filter(|group| !group.is_header()).map(Group::as_str).collect();
    let shown = labels.iter().take(GROUPS_SHOWN).copied().collect::<Vec<_>>().join(", ");
    match labels.len() {
        0 => String::new(),
        1 => format!("group {shown}; "),
        count if count > GROUPS_SHOWN => format!("groups {shown} and {} more; ", count - GROUPS_SHOWN),
        _ => format!("groups {shown}; "),
    }
}

/// Who signed, among the approvers that are in force before the entry.
fn signer(statement: &str, signature: &str, before: &State) -> String {
    match approvals::verify(statement.as_bytes(), signature, approvers(before)) {
        Ok(signed) => signed.approver().to_string(),
        Err(error) => format!("nobody ({error})"),
    }
}

fn approvers(state: &State) -> &[Approver] {
    match (state.vault(), state.genesis()) {
        (Some(vault), _) => &vault.policy().approval().approvers,
        (None, Some(genesis)) => &genesis.policy().approval().approvers,
        (None, None) => &[],
    }
}
