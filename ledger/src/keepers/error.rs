use std::fmt;

use attestation::{PcrSelection, Sha256Digest, UnixTime};

use crate::keeper_evidence::KeeperEvidenceError;
use crate::policy::PcrMismatch;

/// Why a keeper does not take over, or an entry about it may not stand where it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum JoinError {
    /// The vault counts, and this keeper shows no counter.
    CounterMissing,
    /// It shows a counter, and the vault has none.
    CounterUnexpected,
    /// As many keepers decide already as may.
    TooMany,
    /// The challenge was of another vault.
    OtherVault,
    /// The policy changed since the challenge was made.
    PolicyChanged,
    /// The policy in force is over.
    PolicyExpired {
        /// Its last moment.
        not_after: UnixTime,
    },
    /// The evidence does not show what `[keeper]` asks for.
    Evidence(KeeperEvidenceError),
    /// It is the keeper already, or was it before.
    KeeperAlready,
    /// Fewer, more or other PCRs than the first policy names for the keeper.
    OtherSelection {
        /// Those that it names.
        expected: PcrSelection,
    },
    /// `[keeper]` of the policy in force does not allow what it booted.
    PcrsNotAllowed(PcrMismatch),
    /// `keeper.eks` does not list its TPM.
    PlatformNotListed {
        /// Its platform id.
        platform: Sha256Digest,
    },
    /// `[keeper.snp]` does not list its launch digest.
    MeasurementNotAllowed,
    /// It shows a launch digest where none is asked for, or none where one is.
    OtherForm,
    /// There have been other changes of keepers since the approvals were asked for.
    Revision {
        /// How many there have been.
        expected: u64,
    },
    /// It waits longer than a proposal may.
    TooLong,
    /// No approved keeper is this one.
    NotApproved,
    /// The approval of the keeper is over.
    ApprovalOver {
        /// Its last moment.
        not_after: UnixTime,
    },
    /// What is said of the successor is not what was approved.
    OtherSuccessor,
    /// The keeper has retired: nothing follows but the start of its successor.
    Retired,
    /// A run of another keeper than the one of the vault.
    OtherKeeper,
    /// No keeper of the vault is the one that is to leave.
    Unknown,
    /// No other keeper has the vault's keys.
    LastKeeper,
}

impl JoinError {
    /// Stable code.
    pub fn code(&self) -> &'static str {
        match self {
            Self::CounterMissing => "join-counter-missing",
            Self::CounterUnexpected => "join-counter-unexpected",
            Self::TooMany => "join-too-many",
            Self::OtherVault => "join-other-vault",
            Self::PolicyChanged => "policy-changed",
            Self::PolicyExpired { .. } => "policy-expired",
            Self::Evidence(error) => error.code(),
            Self::KeeperAlready => "join-keeper-already",
            Self::OtherSelection { .. } => "join-pcr-selection",
            Self::PcrsNotAllowed(_) => "join-pcrs-not-allowed",
            Self::PlatformNotListed { .. } => "join-platform-not-listed",
            Self::MeasurementNotAllowed => "join-measurement-not-allowed",
            Self::OtherForm => "join-other-form",
            Self::Revision { .. } => "join-revision",
            Self::TooLong => "join-too-long",
            Self::NotApproved => "join-not-approved",
            Self::ApprovalOver { .. } => "join-approval-over",
            Self::OtherSuccessor => "join-other-successor",
            Self::Retired => "keeper-retired",
            Self::OtherKeeper => "start-other-keeper",
            Self::Unknown => "leave-unknown-keeper",
            Self::LastKeeper => "leave-last-keeper",
        }
    }
}

impl fmt::Display for JoinError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::CounterMissing => f.write_str("this vault counts in TPMs, and the keeper shows no counter"),
            Self::CounterUnexpected => {
                f.write_str("the keeper shows a counter, and this vault has none (its anti_rollback is another)")
            }
            Self::TooMany => {
                write!(f, "{} keepers decide already: have one leave first", super::KEEPERS_MAX)
            }
            Self::OtherVault => f.write_str("the challenge was of another vault"),
            Self::PolicyChanged => f.write_str("the policy changed since the challenge was made: ask for a new one"),
            Self::PolicyExpired { not_after } => write!(f, "the policy in force ended at {}", not_after.seconds()),
            Self::Evidence(error) => error.fmt(f),
            Self::KeeperAlready => {
                f.write_str("this keeper has the vault, or had it: another one needs a directory of its own")
            }
            Self::OtherSelection { expected } => {
                let pcrs: Vec<String> = expected.iter().map(|index| index.to_string()).collect();
                write!(f, "a keeper of this vault quotes exactly the PCRs {}", pcrs.join(", "))
            }
            Self::PcrsNotAllowed(mismatch) => {
                write!(
                    f,
                    "{mismatch}, which `keeper.pcrs` of the policy in force does not allow: change the policy first"
                )
            }
            Self::PlatformNotListed { platform } => write!(f, "`keeper.eks` does not list platform {platform}"),
            Self::MeasurementNotAllowed => {
                f.write_str("`keeper.snp.measurements` of the policy in force does not list its launch digest")
            }
            Self::OtherForm => f.write_str("it does not show what `keeper.require` asks for, no more and no less"),
            Self::Revision { expected } => {
                write!(f, "there have been {expected} changes of keepers, another number than the proposal says")
            }
            Self::TooLong => write!(f, "a keeper waits at most {} days to take over", super::JOIN_SECS_MAX / 86_400),
            Self::NotApproved => f.write_str("approvers have not let this keeper in"),
            Self::ApprovalOver { not_after } => {
                write!(f, "approvers let it in until {}: propose it anew", not_after.seconds())
            }
            Self::OtherSuccessor => f.write_str("what is said of the successor is not what was approved"),
            Self::Retired => f.write_str("the keeper has retired: nothing follows but the start of its successor"),
            Self::OtherKeeper => f.write_str("another keeper starts than the one that the log names"),
            Self::Unknown => f.write_str("no keeper of this vault has that instance: see `vaultctl keeper status`"),
            Self::LastKeeper => {
                f.write_str("no other keeper has the vault's keys and has started: the vault would be lost")
            }
        }
    }
}

impl std::error::Error for JoinError {}
