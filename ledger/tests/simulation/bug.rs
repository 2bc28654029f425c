//! Bugs that are planted on purpose, one at a time: a simulation that does not find them would not find ours.

use super::scene::Guard;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bug {
    /// Entries are written after the answer went out.
    ReleaseBeforeAppend,
    /// Head and counter go before the entries.
    CounterBeforeEntries,
    /// The counter goes before the head.
    CounterBeforeHead,
    /// A run signs and serves after its first counted commit.
    OneCommitBeforeServing,
    /// A head one ahead of the counter is taken, and its increment is not finished.
    CounterStaysBehind,
    /// Nobody looks which run the counter belongs to.
    NoRunRegister,
    /// Two of four witnesses are taken for a quorum, though one may be faulty.
    HalfIsAQuorum,
    /// A quorum is reckoned without the witness that may be faulty.
    FaultyWitnessUncounted,
    /// Keys leave the keeper before witnesses were asked.
    ReleaseBeforeQuorum,
    /// A start knows no lease of the runs before it.
    RestartForgetsLeases,
    /// A start knows no release of the runs before it, as far as budgets go.
    BudgetRefillsOnRestart,
    /// Time passes as the host's clock says.
    HostSetsTheClock,
    /// A clock that was turned back is measured on as if it were not.
    ClockTurnedBackMeasures,
    /// Entries say the time of the host's clock.
    EntriesOfTheHostsTime,
    /// An approval that is shown again counts again.
    ApprovalCountsTwice,
    /// A lease is renewed whatever was revoked.
    RevocationNotAsked,
    /// What a revocation in the same commit covers is released all the same.
    RevokedInTheSameCommit,
    /// A commit leaves out renewals that were signed before it.
    RenewalsLeftOut,
    /// A clock that was set ahead ends leases in the keeper's count.
    JumpEndsLeases,
    /// It does so to those that were revoked, to which a start gives no more time.
    JumpEndsRevoked,
    /// A run that another one took the place of renews until it commits.
    OvertakenRunRenews,
    /// A renewal ends a lease sooner in the keeper's count, and its holder may not get it.
    RenewalShortensLease,
    /// An agent counts its term from the answer, not from its request.
    TermFromTheAnswer,
    /// An agent takes an extension that one approver signed.
    OneSignatureExtends,
}

/// What must hold after each step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Law {
    /// A key left the keeper, and its entry was not durable, counted or cosigned.
    NoEntryNoKey,
    /// More was released in a window, or is held at once, than policy and approvers allow.
    Budget,
    LeasesAtOnce,
    /// Two heads were accepted of which neither continues the other.
    OneLog,
    /// A lease lasts beyond what was signed for it, or a revoked one was signed for again.
    LeaseBound,
    /// An entry is of a time before the entry before it.
    TimeGoesOn,
    /// Something took effect without its approvals, or twice.
    Threshold,
    /// The log that was shown to the world does not fold.
    Auditor,
    /// A kill, on a disk that loses nothing, was the end of the vault.
    KillsAreSurvived,
}

/// Which runs are told about, which law shows it.
pub const ALL: [(Bug, Guard, &[Law]); 24] = [
    (Bug::ReleaseBeforeAppend, Guard::Counter, &[Law::NoEntryNoKey]),
    (Bug::CounterBeforeEntries, Guard::Counter, &[Law::KillsAreSurvived]),
    (Bug::CounterBeforeHead, Guard::Counter, &[Law::KillsAreSurvived]),
    (Bug::OneCommitBeforeServing, Guard::Counter, &[Law::OneLog, Law::NoEntryNoKey]),
    (Bug::CounterStaysBehind, Guard::Counter, &[Law::OneLog, Law::KillsAreSurvived]),
    (Bug::NoRunRegister, Guard::Counter, &[Law::OneLog]),
    (Bug::HalfIsAQuorum, Guard::Witnesses, &[Law::OneLog, Law::NoEntryNoKey]),
    (Bug::FaultyWitnessUncounted, Guard::OneFaultyOfThree, &[Law::OneLog]),
    (Bug::ReleaseBeforeQuorum, Guard::Witnesses, &[Law::NoEntryNoKey, Law::OneLog]),
    (Bug::RestartForgetsLeases, Guard::Counter, &[Law::LeasesAtOnce]),
    (Bug::BudgetRefillsOnRestart, Guard::Counter, &[Law::Budget]),
    (Bug::HostSetsTheClock, Guard::Counter, &[Law::Budget, Law::LeasesAtOnce]),
    (Bug::ClockTurnedBackMeasures, Guard::Counter, &[Law::Budget, Law::LeasesAtOnce]),
    (Bug::EntriesOfTheHostsTime, Guard::Counter, &[Law::TimeGoesOn]),
    (Bug::ApprovalCountsTwice, Guard::Counter, &[Law::Threshold]),
    (Bug::RevocationNotAsked, Guard::Counter, &[Law::LeaseBound]),
    (Bug::RevokedInTheSameCommit, Guard::Counter, &[Law::LeaseBound]),
    (Bug::RenewalsLeftOut, Guard::Counter, &[Law::LeasesAtOnce]),
    (Bug::JumpEndsLeases, Guard::Counter, &[Law::LeasesAtOnce]),
    (Bug::JumpEndsRevoked, Guard::Counter, &[Law::LeasesAtOnce]),
    (Bug::OvertakenRunRenews, Guard::Counter, &[Law::LeaseBound, Law::LeasesAtOnce]),
    (Bug::RenewalShortensLease, Guard::Counter, &[Law::LeaseBound, Law::LeasesAtOnce]),
    (Bug::TermFromTheAnswer, Guard::Counter, &[Law::LeaseBound]),
    (Bug::OneSignatureExtends, Guard::Counter, &[Law::LeaseBound]),
];
