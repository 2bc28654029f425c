//! `Provision.Status` as domain types. All of it is the host's word.

use std::fmt;

use attestation::{Sha256Digest, Trust, UnixTime};
use ledger::cosignature::WITNESSES_MAX;
use ledger::escrow::CUSTODIANS_MAX;
use ledger::genesis::AntiRollback;
use ledger::state::{ALARMS_SHOWN_MAX, ActivePermit, Alarm, BudgetUse, PERMITS_MAX};
use serde::Serialize;
use vault_proto::convert::{KeeperSealing, Proposal};
use vault_proto::v1;

/// The most leases, and the most proposals, that a status may list.
const LISTED_MAX: usize = 65_536;
/// The most recoveries that a status lists.
const RECOVERIES_MAX: usize = 16;

/// How far a vault is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum VaultState {
    /// The host has no keeper.
    Unreachable,
    /// The keeper was given no core yet.
    Empty,
    /// Approvals of the genesis are missing.
    Ceremony,
    /// It is not open again yet, after a start or a failed commit.
    Closed,
    /// It serves.
    Open,
    /// It handed the vault over to another keeper.
    Retired,
    /// It is to take the place of a lost keeper, and has no keys yet.
    Recovering,
    /// The keeper refuses to serve.
    Stopped,
}

/// Where a vault stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VaultStatus {
    /// How far it is.
    pub state: VaultState,
    /// Why, where it is not open.
    pub reason: String,
    /// From the ceremony on.
    pub vault: Option<Sha256Digest>,
    /// What the keeper's own proof rests on.
    pub tier: Option<Trust>,
    /// How an older copy of the state is noticed.
    pub anti_rollback: Option<AntiRollback>,
    /// Whether the loss of the keeper's TPM is survived.
    pub recoverable: bool,
    /// The policy in force.
    pub policy: Option<PolicyStatus>,
    /// Entries of the log.
    pub log_size: u64,
    /// Root at that size.
    pub log_root: Option<Sha256Digest>,
    /// What waits for approvals.
    pub pending: Vec<Proposal>,
    /// The key epoch and since when, once the vault is open.
    pub epoch: Option<(u32, UnixTime)>,
    /// The leases that count.
    pub leases: Vec<Lease>,
    /// What the budgets have used.
    pub budgets: Vec<BudgetUse>,
    /// Standing approvals and break-glass.
    pub permits: Vec<ActivePermit>,
    /// How many releases rang an alarm.
    pub alarm_count: u64,
    /// The newest of them first.
    pub alarms: Vec<Alarm>,
    /// Where the keeper's time comes from.
    pub time_source: String,
    /// The genesis, exact bytes; empty before the ceremony.
    pub genesis: Vec<u8>,
    /// What the keeper's root is sealed to, once the vault is open.
    pub sealing: Option<KeeperSealing>,
    /// Who cosigns the log, where the vault has witnesses.
    pub witnesses: Option<WitnessQuorum>,
    /// Who holds the vault's keys against the loss of its keeper.
    pub escrow: Option<EscrowHolders>,
    /// The last times that a keeper was lost, newest first.
    pub recoveries: Vec<LostKeeper>,
}

/// Who holds the vault's keys in shares.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct EscrowHolders {
    /// The how manyth escrow it is.
    pub number: u64,
    /// How many shares give the keys.
    pub threshold: u32,
    /// Names of the custodians.
    pub custodians: Vec<String>,
    /// Log index of the `escrow` entry.
    pub entry: u64,
}

/// A keeper that was lost.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LostKeeper {
    /// Log index of the `recover` entry.
    pub entry: u64,
    /// Entries of the log that the vault went on from.
    pub size: u64,
    /// Entries behind these may be missing.
    pub rollback_accepted: bool,
}

/// Who cosigns the log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct WitnessQuorum {
    /// Witnesses that there are.
    pub count: u32,
    /// How many must have cosigned.
    pub quorum: u32,
    /// How many may be faulty.
    pub faulty: u32,
    /// Entries of the newest checkpoint that a quorum cosigned, where this run of the keeper has one.
    pub cosigned_size: Option<u64>,
    /// Who cosigned it.
    pub cosigned_by: Vec<String>,
}

/// The policy in force.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PolicyStatus {
    /// Serial.
    pub serial: u64,
    /// SHA-256 of its text.
    pub digest: Sha256Digest,
    /// Its last moment.
    pub not_after: UnixTime,
}

/// A lease that counts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lease {
    /// Lease id.
    pub id: Sha256Digest,
    /// Release rule.
    pub rule: String,
    /// Model.
    pub model: String,
    /// Its version.
    pub version: String,
    /// Platform id of the guest.
    pub platform: Sha256Digest,
    /// Last moment without a renewal.
    pub renew_by: UnixTime,
    /// What the guest's proof rests on.
    pub tier: Trust,
    /// The program that the guest said it starts, where its rule asked.
    pub program: Option<Sha256Digest>,
}

/// A field that is not what its `.proto` comment says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StatusError {
    field: &'static str,
}

impl fmt::Display for StatusError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} is not what it must be", self.field)
    }
}

impl TryFrom<v1::StatusResponse> for VaultStatus {
    type Error = StatusError;

    fn try_from(status: v1::StatusResponse) -> Result<Self, StatusError> {
        if status.pending.len() > LISTED_MAX || status.leases.len() > LISTED_MAX || status.budgets.len() > LISTED_MAX {
            return Err(StatusError { field: "the number of proposals or leases" });
        }
        if status.permits.len() > 2 * PERMITS_MAX {
            return Err(StatusError { field: "permits" });
        }
        if status.alarms.len() > ALARMS_SHOWN_MAX {
            return Err(StatusError { field: "alarms" });
        }
        let policy = match digest("policy_digest", &status.policy_digest)? {
            None => None,
            Some(digest) => Some(PolicyStatus {
                serial: status.policy_serial,
                digest,
                not_after: UnixTime(status.policy_not_after),
            }),
        };
        let pending = status.pending.into_iter().map(Proposal::try_from);
        let sealing = status.sealing.map(KeeperSealing::try_from);
        let alarms = status.alarms.into_iter().map(Alarm::try_from);
        let permits = status.permits.into_iter().map(ActivePermit::try_from);
        let budgets = status.budgets.into_iter().map(BudgetUse::try_from);
        Ok(Self {
            state: state(&status.state)?,
            reason: status.reason,
            vault: digest("vault_id", &status.vault_id)?,
            tier: optional(&status.tier, tier)?,
            anti_rollback: optional(&status.anti_rollback, anti_rollback)?,
            recoverable: status.recoverable,
            policy,
            log_size: status.log_size,
            log_root: digest("log_root", &status.log_root)?,
            pending: pending.collect::<Result<_, _>>().map_err(|_| StatusError { field: "pending" })?,
            epoch: (status.epoch > 0).then_some((status.epoch, UnixTime(status.epoch_since))),
            leases: status.leases.into_iter().map(Lease::try_from).collect::<Result<_, _>>()?,
            budgets: budgets.collect::<Result<_, _>>().map_err(|_| StatusError { field: "budgets" })?,
            permits: permits.collect::<Result<_, _>>().map_err(|_| StatusError { field: "permits" })?,
            alarm_count: status.alarm_count,
            alarms: alarms.collect::<Result<_, _>>().map_err(|_| StatusError { field: "alarms" })?,
            time_source: status.time_source,
            genesis: status.genesis,
            sealing: sealing.transpose().map_err(|_| StatusError { field: "sealing" })?,
            witnesses: status.witnesses.map(WitnessQuorum::try_from).transpose()?,
            escrow: status.escrow.map(EscrowHolders::try_from).transpose()?,
            recoveries: recoveries(status.recoveries)?,
        })
    }
}

impl TryFrom<v1::WitnessStatus> for WitnessQuorum {
    type Error = StatusError;

    fn try_from(status: v1::WitnessStatus) -> Result<Self, StatusError> {
        let v1::WitnessStatus { count, quorum, faulty, cosigned_size, cosigned_by } = status;
        if cosigned_by.len() > WITNESSES_MAX || quorum > count {
            return Err(StatusError { field: "witnesses" });
        }
        let cosigned_size = Some(cosigned_size).filter(|size| *size > 0);
        Ok(Self { count, quorum, faulty, cosigned_size, cosigned_by })
    }
}

impl TryFrom<v1::EscrowStatus> for EscrowHolders {
    type Error = StatusError;

    fn try_from(status: v1::EscrowStatus) -> Result<Self, StatusError> {
        let v1::EscrowStatus { number, threshold, custodians, entry } = status;
        if custodians.len() > CUSTODIANS_MAX {
            return Err(StatusError { field: "escrow" });
        }
        Ok(Self { number, threshold, custodians, entry })
    }
}

fn recoveries(recoveries: Vec<v1::RecoveryStatus>) -> Result<Vec<LostKeeper>, StatusError> {
    let refused = StatusError { field: "recoveries" };
    if recoveries.len() > RECOVERIES_MAX {
        return Err(refused);
    }
    let lost = |v1::RecoveryStatus { entry, size, rollback }| match rollback.as_str() {
        "accepted" => Ok(LostKeeper { entry, size, rollback_accepted: true }),
        _ => Err(refused),
    };
    recoveries.into_iter().map(lost).collect()
}

impl TryFrom<v1::LeaseSummary> for Lease {
    type Error = StatusError;

    fn try_from(lease: v1::LeaseSummary) -> Result<Self, StatusError> {
        Ok(Self {
            id: digest("lease_id", &lease.lease_id)?.ok_or(StatusError { field: "lease_id" })?,
            rule: lease.rule,
            model: lease.model,
            version: lease.version,
            platform: digest("platform", &lease.platform)?.ok_or(StatusError { field: "platform" })?,
            renew_by: UnixTime(lease.renew_by),
            tier: tier(&lease.tier)?,
            program: digest("program", &lease.program)?,
        })
    }
}

fn state(text: &str) -> Result<VaultState, StatusError> {
    match text {
        "unreachable" => Ok(VaultState::Unreachable),
        "empty" => Ok(VaultState::Empty),
        "ceremony" => Ok(VaultState::Ceremony),
        "closed" => Ok(VaultState::Closed),
        "open" => Ok(VaultState::Open),
        "recovering" => Ok(VaultState::Recovering),
        "retired" => Ok(VaultState::Retired),
        "stopped" => Ok(VaultState::Stopped),
        _ => Err(StatusError { field: "state" }),
    }
}

fn tier(text: &str) -> Result<Trust, StatusError> {
    text.parse().map_err(|_| StatusError { field: "tier" })
}

fn anti_rollback(text: &str) -> Result<AntiRollback, StatusError> {
    match text {
        "counter" => Ok(AntiRollback::Counter),
        "witnesses" => Ok(AntiRollback::Witnesses),
        "none" => Ok(AntiRollback::None),
        _ => Err(StatusError { field: "anti_rollback" }),
    }
}

fn optional<T>(text: &str, read: fn(&str) -> Result<T, StatusError>) -> Result<Option<T>, StatusError> {
    if text.is_empty() { Ok(None) } else { read(text).map(Some) }
}

/// A digest, or nothing where the field is empty.
fn digest(field: &'static str, bytes: &[u8]) -> Result<Option<Sha256Digest>, StatusError> {
    match bytes {
        [] => Ok(None),
        bytes => Sha256Digest::try_from(bytes).map(Some).map_err(|_| StatusError { field }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open() -> v1::StatusResponse {
        v1::StatusResponse {
            state: "open".to_owned(),
            vault_id: vec![1; 32],
            tier: "emulated".to_owned(),
            anti_rollback: "counter".to_owned(),
            policy_serial: 1,
            policy_digest: vec![2; 32],
            policy_not_after: 9,
            log_size: 4,
            log_root: vec![3; 32],
            leases: vec![v1::LeaseSummary {
                lease_id: vec![4; 32],
                platform: vec![5; 32],
                tier: "emulated".to_owned(),
                program: vec![6; 32],
                ..Default::default()
            }],
            ..Default::default()
        }
    }

    #[test]
    fn a_status_is_read() {
        let status = VaultStatus::try_from(open()).unwrap();
        assert_eq!((status.state, status.tier), (VaultState::Open, Some(Trust::Emulated)));
        assert_eq!(status.policy.map(|policy| policy.not_after), Some(UnixTime(9)));
        assert_eq!(status.leases.len(), 1);
        assert_eq!(status.leases[0].program, Some(Sha256Digest::from_bytes([6; 32])));
    }

    #[test]
    fn an_empty_keeper_has_neither_vault_nor_policy() {
        let empty = v1::StatusResponse { state: "empty".to_owned(), ..Default::default() };
        let status = VaultStatus::try_from(empty).unwrap();
        assert_eq!((status.vault, status.policy, status.tier), (None, None, None));
    }

    #[test]
    fn a_field_that_is_not_what_it_must_be_is_refused_by_its_name() {
        type Change = fn(&mut v1::StatusResponse);
        let changes: [(&str, Change); 18] = [
            ("escrow", |status| {
                let custodians = vec!["notary".to_owned(); 17];
                status.escrow = Some(v1::EscrowStatus { custodians, ..Default::default() });
            }),
            ("recoveries", |status| status.recoveries.push(v1::RecoveryStatus::default())),
            ("recoveries", |status| {
                let lost = v1::RecoveryStatus { rollback: "accepted".to_owned(), ..Default::default() };
                status.recoveries = vec![lost; 17];
            }),
            ("witnesses", |status| {
                status.witnesses = Some(v1::WitnessStatus { quorum: 1, ..Default::default() });
            }),
            ("alarms", |status| status.alarms.push(v1::AlarmSummary::default())),
            ("alarms", |status| status.alarms = vec![v1::AlarmSummary::default(); 17]),
            ("permits", |status| status.permits.push(v1::PermitSummary::default())),
            ("permits", |status| status.permits = vec![v1::PermitSummary::default(); 129]),
            ("budgets", |status| status.budgets.push(v1::BudgetUse::default())),
            ("state", |status| status.state = "fine".to_owned()),
            ("vault_id", |status| status.vault_id = vec![1; 31]),
            ("tier", |status| status.tier = "gold".to_owned()),
            ("anti_rollback", |status| status.anti_rollback = "maybe".to_owned()),
            ("log_root", |status| status.log_root.push(0)),
            ("lease_id", |status| status.leases[0].lease_id.clear()),
            ("program", |status| status.leases[0].program.push(0)),
            ("sealing", |status| status.sealing = Some(v1::KeeperSealing::default())),
            ("pending", |status| status.pending.push(v1::Proposal::default())),
        ];
        for (field, change) in changes {
            let mut status = open();
            change(&mut status);
            assert_eq!(VaultStatus::try_from(status), Err(StatusError { field }));
        }
    }
}
