//! The commands: each reads, checks, and gives one report.

mod approve;
mod audit;
mod collateral;
mod escrow;
mod evidence;
mod explain;
mod extend;
mod init;
mod keeper;
mod leases;
mod log;
mod measure;
mod models;
mod pending;
mod platform;
mod policy;
mod propose;
mod recover;
mod revoke;
mod status;
mod vault_file;
mod witness;

pub use audit::Verdict;

use std::fmt::Display;
use std::io::{ErrorKind, Write};
use std::path::Path;

use ledger::permit::PermitKind;
use serde::Serialize;

use crate::cli::{
    AuditCommand, CollateralCommand, Command, CustodianCommand, EscrowCommand, EvidenceCommand, EvidenceVerifyArgs,
    ExtendCommand, InitCommand, KeeperCommand, LogCommand, MeasureCommand, PlatformCommand, PolicyCommand,
    PolicySimulateArgs, ProposeCommand, RecoverCommand, VerifyKind, WitnessCommand,
};
use crate::failure::{EXIT_DIFFERS, EXIT_NOT_YET, EXIT_REFUSED_EVIDENCE, Failure};
use crate::print::emit;
use crate::session::Session;

/// How a command ended that did not fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Done, and what was checked holds.
    Done,
    /// Done, and what was asked about is not there yet.
    NotYet,
    /// Captured evidence was judged and refused.
    Refused,
    /// A policy would have decided otherwise than the past did.
    Differs,
    /// An audit bundle was judged.
    Audited(Verdict),
}

impl Outcome {
    /// The exit code.
    pub const fn exit_code(self) -> u8 {
        match self {
            Self::Done => 0,
            Self::NotYet => EXIT_NOT_YET,
            Self::Refused => EXIT_REFUSED_EVIDENCE,
            Self::Differs => EXIT_DIFFERS,
            Self::Audited(verdict) => verdict.exit_code(),
        }
    }
}

/// Runs a command and writes its report to `out`.
pub async fn run(session: &Session, command: Command, out: &mut impl Write) -> Result<Outcome, Failure> {
    match command {
        Command::Policy(command) => policy_command(session, &command, out),
        Command::Init(command) => init_command(session, command, out).await,
        Command::Status(args) => {
            let report = status::status(session, &args).await?;
            let outcome = if report.is_open() { Outcome::Done } else { Outcome::NotYet };
            write(session, &report, out).map(|_| outcome)
        }
        Command::Models => write(session, &models::models(session).await?, out),
        Command::Propose(ProposeCommand::Policy { file, signing }) => {
            match propose::policy(session, &file, &signing).await? {
                Submission::Made(report) => write(session, &report, out),
                Submission::Printed(report) => write(session, &report, out),
            }
        }
        Command::Platform(command) => platform_command(session, &command, out).await,
        Command::Propose(ProposeCommand::Budget(args)) => match propose::budget(session, &args).await? {
            Submission::Made(report) => write(session, &report, out),
            Submission::Printed(report) => write(session, &report, out),
        },
        Command::Propose(ProposeCommand::Standing(args)) => {
            match propose::permit(session, PermitKind::Standing, &args).await? {
                Submission::Made(report) => write(session, &report, out),
                Submission::Printed(report) => write(session, &report, out),
            }
        }
        Command::Propose(ProposeCommand::BreakGlass(args)) => {
            match propose::permit(session, PermitKind::BreakGlass, &args).await? {
                Submission::Made(report) => write(session, &report, out),
                Submission::Printed(report) => write(session, &report, out),
            }
        }
        Command::Propose(ProposeCommand::KeyEpoch { signing }) => match propose::key_epoch(session, &signing).await? {
            Submission::Made(report) => write(session, &report, out),
            Submission::Printed(report) => write(session, &report, out),
        },
        Command::Propose(ProposeCommand::Reseal(args)) => match propose::reseal(session, &args).await? {
            Submission::Made(report) => write(session, &report, out),
            Submission::Printed(report) => write(session, &report, out),
        },
        Command::Propose(ProposeCommand::KeeperLeave(args)) => match propose::leave(session, &args).await? {
            Submission::Made(report) => write(session, &report, out),
            Submission::Printed(report) => write(session, &report, out),
        },
        Command::Keeper(KeeperCommand::Status) => write(session, &keeper::status(session).await?, out),
        Command::Keeper(KeeperCommand::Pending) => write(session, &keeper::pending(session).await?, out),
        Command::Custodian(CustodianCommand::Keygen { name, out: path }) => {
            write(session, &escrow::keygen(session, &name, &path)?, out)
        }
        Command::Escrow(command) => escrow_command(session, &command, out).await,
        Command::Recover(command) => recover_command(session, &command, out).await,
        Command::Pending => write(session, &pending::pending(session).await?, out),
        Command::VaultFile { out: path } => write(session, &vault_file::renew(session, &path).await?, out),
        Command::Approve(args) => match approve::approve(session, &args).await? {
            Submission::Made(report) => write(session, &report, out),
            Submission::Printed(report) => write(session, &report, out),
        },
        Command::Revoke(args) => match revoke::revoke(session, &args).await? {
            Submission::Made(report) => write(session, &report, out),
            Submission::Printed(report) => write(session, &report, out),
        },
        Command::Extend(command) => extend_command(session, &command, out).await,
        Command::Leases => write(session, &leases::leases(session).await?, out),
        Command::Evidence(command) => evidence_command(session, &command, out).await,
        Command::Collateral(CollateralCommand::Prefetch(args)) => {
            let report = collateral::prefetch(session, &args).await?;
            let outcome = if report.is_complete() { Outcome::Done } else { Outcome::NotYet };
            write(session, &report, out).map(|_| outcome)
        }
        Command::Collateral(CollateralCommand::List { dir }) => write(session, &collateral::list(session, &dir)?, out),
        Command::Measure(MeasureCommand::Snp(args)) => write(session, &measure::snp(&args)?, out),
        Command::Measure(MeasureCommand::Pcr(args)) => write(session, &measure::pcr(&args)?, out),
        Command::Measure(MeasureCommand::Workload(args)) => write(session, &measure::workload(&args)?, out),
        Command::Log(command) => log_command(session, &command, out).await,
        Command::Audit(AuditCommand::Export(args)) => {
            let report = audit::export(session, &args).await?;
            let outcome = if report.is_complete() { Outcome::Done } else { Outcome::NotYet };
            write(session, &report, out).map(|_| outcome)
        }
        Command::Audit(AuditCommand::Verify(args)) => {
            let report = audit::verify(session, &args)?;
            write(session, &report, out).map(|_| Outcome::Audited(report.verdict()))
        }
        Command::Witness(WitnessCommand::Keygen(args)) => write(session, &witness::keygen(session, &args)?, out),
        Command::Witness(WitnessCommand::Serve(args)) => {
            let (bound, report) = witness::bind(&args).await?;
            write(session, &report, out)?;
            bound.serve().await.map(|never| match never {})
        }
        Command::Explain(args) => write(session, &explain::explain(session, &args).await?, out),
    }
}

/// A signature that was submitted, or a statement that was written for signing elsewhere.
pub(crate) enum Submission<T> {
    /// Submitted.
    Made(T),
    /// Written.
    Printed(crate::signing::Printed),
}

async fn extend_command(session: &Session, command: &ExtendCommand, out: &mut impl Write) -> Result<Outcome, Failure> {
    match command {
        ExtendCommand::New(args) => write(session, &extend::new(session, args).await?, out),
        ExtendCommand::Sign { file, signing } => match extend::sign(session, file, signing)? {
            Submission::Made(report) => write(session, &report, out),
            Submission::Printed(report) => write(session, &report, out),
        },
        ExtendCommand::Submit { file } => write(session, &extend::submit(session, file).await?, out),
    }
}

async fn escrow_command(session: &Session, command: &EscrowCommand, out: &mut impl Write) -> Result<Outcome, Failure> {
    match command {
        EscrowCommand::Propose(args) => match escrow::propose(session, args).await? {
            Submission::Made(report) => write(session, &report, out),
            Submission::Printed(report) => write(session, &report, out),
        },
        EscrowCommand::Fetch { out: path } => write(session, &escrow::fetch(session, path).await?, out),
        EscrowCommand::Status => write(session, &escrow::status(session).await?, out),
    }
}

async fn recover_command(
    session: &Session,
    command: &RecoverCommand,
    out: &mut impl Write,
) -> Result<Outcome, Failure> {
    match command {
        RecoverCommand::Status => write(session, &recover::status(session).await?, out),
        RecoverCommand::Contribute(args) => write(session, &recover::contribute(session, args).await?, out),
        RecoverCommand::Approve { signing } => match recover::approve(session, signing).await? {
            Submission::Made(report) => write(session, &report, out),
            Submission::Printed(report) => write(session, &report, out),
        },
    }
}

fn policy_command(session: &Session, command: &PolicyCommand, out: &mut impl Write) -> Result<Outcome, Failure> {
    match command {
        PolicyCommand::Template => write(session, &policy::template(), out),
        PolicyCommand::Check { file } => write(session, &policy::check(session, file)?, out),
        PolicyCommand::Diff { old, new } => write(session, &policy::diff(old, new)?, out),
        PolicyCommand::Draft(args) => write(session, &policy::draft(session, args)?, out),
        PolicyCommand::Simulate(args) => {
            let report = policy::simulate(session, args).map_err(PolicySimulateArgs::failure)?;
            let outcome = match (report.differs(), report.is_complete()) {
                (true, _) => Outcome::Differs,
                (false, true) => Outcome::Done,
                (false, false) => Outcome::NotYet,
            };
            write(session, &report, out).map_err(PolicySimulateArgs::failure).map(|_| outcome)
        }
    }
}

async fn init_command(session: &Session, command: InitCommand, out: &mut impl Write) -> Result<Outcome, Failure> {
    match command {
        InitCommand::Start(args) => write(session, &init::start(session, &args).await?, out),
        InitCommand::Fetch { out: path, expect } => write(session, &init::fetch(session, &path, expect).await?, out),
        InitCommand::Sign(args) => match init::sign(session, &args.signing).await? {
            Submission::Made(report) => write(session, &report, out),
            Submission::Printed(report) => write(session, &report, out),
        },
        InitCommand::Status => {
            let report = init::status(session).await?;
            let outcome = if report.is_open() { Outcome::Done } else { Outcome::NotYet };
            write(session, &report, out).map(|_| outcome)
        }
    }
}

async fn platform_command(
    session: &Session,
    command: &PlatformCommand,
    out: &mut impl Write,
) -> Result<Outcome, Failure> {
    let (wanted, signing) = match command {
        PlatformCommand::Add { platform, label, counts_as, signing } => {
            (platform::Wanted::Add { platform: *platform, label, counts_as: *counts_as }, signing)
        }
        PlatformCommand::Remove { platform, signing } => (platform::Wanted::Remove { platform: *platform }, signing),
        PlatformCommand::List => return write(session, &platform::list(session).await?, out),
    };
    match platform::propose(session, wanted, signing).await? {
        Submission::Made(report) => write(session, &report, out),
        Submission::Printed(report) => write(session, &report, out),
    }
}

async fn evidence_command(
    session: &Session,
    command: &EvidenceCommand,
    out: &mut impl Write,
) -> Result<Outcome, Failure> {
    match command {
        EvidenceCommand::Show { file: Some(file), .. } => write(session, &evidence::show(file)?, out),
        EvidenceCommand::Show { file: None, .. } => write(session, &evidence::verify_keeper(session).await?, out),
        EvidenceCommand::Verify(args) => match (args.kind, args.entry) {
            (Some(kind), _) => captured_evidence(session, kind, args, out).map_err(Failure::into_usage),
            (None, Some(index)) => write(session, &evidence::verify_entry(session, index).await?, out),
            (None, None) => write(session, &evidence::verify_keeper(session).await?, out),
        },
    }
}

/// Its exit code 1 says that the evidence is refused, and nothing else may.
fn captured_evidence(
    session: &Session,
    kind: VerifyKind,
    args: &EvidenceVerifyArgs,
    out: &mut impl Write,
) -> Result<Outcome, Failure> {
    let verdict = match kind.evidence() {
        Some(kind) => evidence::verify_captured(kind, args)?,
        None => evidence::verify_event_log(args)?,
    };
    write(session, &verdict, out)?;
    Ok(if verdict.is_verified() { Outcome::Done } else { Outcome::Refused })
}

async fn log_command(session: &Session, command: &LogCommand, out: &mut impl Write) -> Result<Outcome, Failure> {
    match command {
        LogCommand::Checkpoint { out: path } => write(session, &log::checkpoint(session, path.as_deref()).await?, out),
        LogCommand::Verify { since, fresh } => {
            write(session, &log::verify(session, since.as_deref(), *fresh).await?, out)
        }
        LogCommand::Show { from, count } => write(session, &log::show(session, *from, *count).await?, out),
    }
}

fn write<T: Display + Serialize>(session: &Session, report: &T, out: &mut impl Write) -> Result<Outcome, Failure> {
    match emit(report, session.form(), out).and_then(|()| out.flush()) {
        // Whoever reads has what it wanted, as `head` does; what came of the command stays what it is.
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(Outcome::Done),
        written => written
            .map(|()| Outcome::Done)
            .map_err(|error| Failure::file("write", Path::new("standard output"), &error)),
    }
}
