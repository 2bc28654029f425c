//! What was typed. What it means is in [`commands`](crate::commands).

mod audit;
mod budget;
mod escrow;
mod evidence;
mod explain;
mod extend;
mod keeper;
mod leave;
mod measure;
mod permit;
mod reseal;
mod revoke;
mod witness;

use std::path::PathBuf;

use attestation::{Sha256Digest, Trust, UnixTime};
use clap::{Args, Parser, Subcommand, ValueEnum};
use ledger::genesis::AntiRollback;
use ledger::names::Name;
use vault_proto::collateral::KdsChoice;

pub use audit::{AuditCommand, AuditExportArgs, AuditVerifyArgs, Position};
pub use budget::BudgetArgs;
pub use escrow::{ContributeArgs, CustodianCommand, EscrowCommand, EscrowProposeArgs, RecoverCommand};
pub use evidence::{Beside, EvidenceCommand, EvidenceKind, EvidenceVerifyArgs, ExtraData, ReportData, VerifyKind};
pub use explain::{ExplainArgs, PolicySimulateArgs, RefusalName};
pub use permit::{Guests, PermitArgs};

pub use keeper::KeeperCommand;

pub use extend::{ExtendCommand, ExtendNewArgs, ExtendWhat};
pub use revoke::{RevokeArgs, RevokeWhat};

pub use leave::ProposeLeaveArgs;
pub use measure::{KernelLoader, MeasureCommand, MeasurePcrArgs, MeasureSnpArgs, MeasureWorkloadArgs};
pub use reseal::ProposeResealArgs;
pub(crate) use reseal::hex_of;
pub use witness::{WitnessCommand, WitnessKeygenArgs, WitnessServeArgs};

/// Exit codes, for `--help`.
const EXIT_CODES: &str = "\
Exit codes:
  0  done, and everything that was checked holds
  1  could not do it: a file, the network, ssh-keygen
  2  wrong use: arguments, or a file that is not what it should be
  3  refused by the vault; the code is the exact reason
  4  something does not verify: evidence, a signature, the log. Do not go on
  5  not yet: approvals are missing, the vault is not open, or some collateral could not be had
`evidence verify --kind` has codes of its own: 0 verified, 1 refused, 2 wrong use; `audit verify` and
`policy simulate` too: see their --help.

With --json the result is one JSON document on standard output, a failure one on standard error.
Keys of approvers are never read: KEY goes to `ssh-keygen -Y sign -n weightvault -f KEY`. It may be a private key file, a public key
whose private half ssh-agent holds, or a security key (sk-…).";

/// The engineer's tool of a weight vault: genesis, policy, approvals, status, log.
#[derive(Debug, Parser)]
#[command(name = "vaultctl", version, after_help = EXIT_CODES, max_term_width = 120)]
pub struct Cli {
    /// Where to ask, and in which form to answer.
    #[command(flatten)]
    pub global: Global,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// Options of every command.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Everywhere")]
pub struct Global {
    /// The vault file: which vault, its genesis, its hosts.
    #[arg(long, global = true, value_name = "FILE")]
    pub vault: Option<PathBuf>,
    /// A host, in the place of those of the vault file: http://…, https://… or unix:/path.
    #[arg(long, global = true, value_name = "URL")]
    pub host: Option<String>,
    /// PEM of the certificate authority of https hosts.
    #[arg(long, global = true, value_name = "FILE")]
    pub ca: Option<PathBuf>,
    /// SSH key of a reader or approver, for a log whose policy names its readers. It signs only if the host asks. Whoever
    /// approves or proposes with --key reads with that one.
    #[arg(long, global = true, value_name = "KEY", env = "WEIGHTVAULT_READER_KEY")]
    pub reader_key: Option<PathBuf>,
    /// Machine output.
    #[arg(long, global = true)]
    pub json: bool,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Write, check and compare policies. Needs no vault.
    #[command(subcommand)]
    Policy(PolicyCommand),
    /// The genesis ceremony: start it, sign it, see who is missing.
    #[command(subcommand)]
    Init(InitCommand),
    /// Where the vault stands: tier, policy, every coming expiry. Verifies the keeper's own evidence, freshly.
    Status(StatusArgs),
    /// The models that the vault has.
    Models,
    /// Propose a change. (A model is proposed by `vault-enclave seal`.)
    #[command(subcommand)]
    Propose(ProposeCommand),
    /// TPMs whose endorsement key has no certificate: enrol one, remove one, list them.
    #[command(subcommand)]
    Platform(PlatformCommand),
    /// More than one keeper over time: which one has the vault, and which ones ask to take over.
    #[command(subcommand)]
    Keeper(KeeperCommand),
    /// The key of somebody who keeps a share of a vault's keys. Needs no vault.
    #[command(subcommand)]
    Custodian(CustodianCommand),
    /// Against the loss of the keeper: shares of the vault's keys for custodians, some of whom together give them back.
    #[command(subcommand)]
    Escrow(EscrowCommand),
    /// The keeper is lost: judge the one that is to take its place, and give it your share or your approval. Drills too.
    #[command(subcommand)]
    Recover(RecoverCommand),
    /// What waits for approvals, as changes in words.
    Pending,
    /// Write the vault file anew, with the policies that came into force since and the keepers that took over: whoever has it
    /// knows the keeper by the newest.
    ///
    /// After a policy that changes `[keeper]`, before the first reboot into what a reseal names, and after another keeper took
    /// over, everybody who seals or asks the keeper for evidence needs it.
    VaultFile {
        /// Where to write it: not the file that --vault names.
        #[arg(long, value_name = "FILE")]
        out: PathBuf,
    },
    /// Approve a proposal: shows the change in words, then signs.
    Approve(ApproveArgs),
    /// End leases and release no more of something, until approvers lift it. Shows who has confirmed the end.
    Revoke(RevokeArgs),
    /// The leases that run, and until when at most.
    Leases,
    /// Let leases run on while no keeper can be reached: a file that approvers sign, and agents take.
    #[command(subcommand)]
    Extend(ExtendCommand),
    /// What evidence says, and whether it verifies.
    #[command(subcommand)]
    Evidence(EvidenceCommand),
    /// Certificates and revocation lists of SNP chips, for machines that shall not ask AMD themselves. Needs no vault.
    #[command(subcommand)]
    Collateral(CollateralCommand),
    /// What a machine will prove, computed before it boots: for a policy. Needs no vault.
    #[command(subcommand)]
    Measure(MeasureCommand),
    /// The log: checkpoint, verification, entries in words.
    #[command(subcommand)]
    Log(LogCommand),
    /// The log and its evidence as a folder, verified offline, with a report of what happened.
    #[command(subcommand)]
    Audit(AuditCommand),
    /// Cosign the checkpoints of logs, so that nobody is shown another log than the others. Needs no vault; anybody can run it.
    #[command(subcommand)]
    Witness(WitnessCommand),
    /// The exact reason of a refusal, and what would have made it pass.
    Explain(ExplainArgs),
}

/// `vaultctl policy …`
#[derive(Debug, Subcommand)]
pub enum PolicyCommand {
    /// Print a commented policy to start from.
    Template,
    /// Read a policy and explain it in words.
    Check {
        /// The policy, TOML.
        file: PathBuf,
    },
    /// Say in words what a change of policy changes.
    Diff {
        /// The policy before.
        old: PathBuf,
        /// The policy after.
        new: PathBuf,
    },
    /// Write a strict release rule out of captured evidence, to be pasted into a policy.
    Draft(Box<PolicyDraftArgs>),
    /// Try a policy out on the past: which releases would have been refused, and why; which refusals granted. Offline.
    #[command(after_help = explain::SIMULATE_EXIT_CODES)]
    Simulate(PolicySimulateArgs),
}

/// `vaultctl policy draft`
#[derive(Debug, Args)]
pub struct PolicyDraftArgs {
    /// An evidence blob, an SNP report, or Azure's HCL report.
    #[arg(long, value_name = "FILE", required_unless_present = "quote")]
    pub from: Option<PathBuf>,
    /// What it is, where its bytes do not tell: a bare report of Azure's, a quote.
    #[arg(long, value_enum)]
    pub kind: Option<EvidenceKind>,
    /// What comes with it. With --chain, or an evidence blob, the evidence is verified first.
    #[command(flatten)]
    pub beside: Beside,
    /// With --event-log: the text of the kernel's command line, as its EFI stub got it. It goes into the rule if the log shows
    /// that it was this one.
    #[arg(long, value_name = "TEXT", requires = "event_log")]
    pub command_line: Option<String>,
    /// Take trust anchors from this policy: without it no EK can be verified.
    #[arg(long, value_name = "FILE")]
    pub policy: Option<PathBuf>,
    /// Name of the rule, and of its one model.
    #[arg(long, value_name = "NAME", default_value = "drafted")]
    pub name: String,
    /// Judge certificates at this moment, and not now.
    #[arg(long, value_name = "RFC3339", value_parser = evidence::moment)]
    pub now: Option<UnixTime>,
}

/// `vaultctl init …`
#[derive(Debug, Subcommand)]
pub enum InitCommand {
    /// Give an empty keeper its policy, verify its evidence, make the genesis and the vault file. Can be run again.
    ///
    /// Whoever reaches an empty keeper first gives it a policy: hold the ceremony where nobody else reaches the host, by its
    /// unix socket or a private `provision_listen`. A stranger who was first is noticed; until a genesis is
    /// committed, `vault-enclave keeper --reset-ceremony` begins anew.
    Start(InitStartArgs),
    /// Get the vault file of a ceremony that somebody else started.
    Fetch {
        /// Where to write it.
        #[arg(long, value_name = "FILE")]
        out: PathBuf,
        /// The id that whoever started told you, over another way than this host.
        #[arg(long, value_name = "SHA256")]
        expect: Sha256Digest,
    },
    /// Verify the keeper's evidence yourself, compare it with the genesis, and sign. Every approver does this.
    Sign(InitSignArgs),
    /// Who has signed, who is missing, what comes next.
    Status,
}

/// `vaultctl init start`
#[derive(Debug, Args)]
pub struct InitStartArgs {
    /// The first policy.
    #[arg(long, value_name = "FILE")]
    pub policy: PathBuf,
    /// How the keeper notices an older copy of its state. There is no default.
    #[arg(long, value_enum)]
    pub anti_rollback: AntiRollbackArg,
    /// Directory for the vault file, `vault.json`.
    #[arg(long, value_name = "DIR")]
    pub out: PathBuf,
    /// Address of the host for the vault file, where others reach it at another one than --host. May be repeated.
    #[arg(long, value_name = "URL")]
    pub advertise: Vec<String>,
}

/// `--anti-rollback`
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum AntiRollbackArg {
    /// A counter in the keeper's TPM. For one keeper whose TPM the host can't roll back.
    Counter,
    /// A quorum of the policy's witnesses. Nothing is released before they have cosigned the log.
    Witnesses,
    /// Nothing notices it. For a laptop; every status says so.
    None,
}

/// `vaultctl init sign`
#[derive(Debug, Args)]
pub struct InitSignArgs {
    /// How to sign.
    #[command(flatten)]
    pub signing: Signing,
}

/// How a statement gets its signature.
#[derive(Debug, Clone, Args)]
pub struct Signing {
    /// Your key, for ssh-keygen.
    #[arg(long, value_name = "KEY", required_unless_present_any = ["print_statement", "signature"])]
    pub key: Option<PathBuf>,
    /// For how long the signature counts: 90s, 30m, 12h, 7d.
    #[arg(long, value_name = "SPAN", default_value = "7d", value_parser = span)]
    pub expires: u64,
    /// Do not ask. Without a terminal nothing is signed unless this is given.
    #[arg(long)]
    pub yes: bool,
    /// Sign nothing: write the statement to FILE, for `ssh-keygen -Y sign -n weightvault -f KEY FILE`.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["key", "signature"])]
    pub print_statement: Option<PathBuf>,
    /// Sign nothing: submit this signature, FILE.sig of a statement that --print-statement wrote.
    #[arg(long, value_name = "FILE", conflicts_with = "key")]
    pub signature: Option<PathBuf>,
    /// The statement that --signature is over; without this, its path without `.sig`.
    #[arg(long, value_name = "FILE", requires = "signature")]
    pub statement: Option<PathBuf>,
}

/// `vaultctl status`
#[derive(Debug, Args)]
pub struct StatusArgs {
    /// Do not ask the keeper for evidence: believe the host. The output says that nothing was verified.
    #[arg(long)]
    pub insecure_skip_evidence: bool,
}

/// `vaultctl propose …`
#[derive(Debug, Subcommand)]
pub enum ProposeCommand {
    /// Propose a policy. You must be an approver of the policy in force.
    Policy {
        /// The policy, TOML.
        file: PathBuf,
        /// How to sign.
        #[command(flatten)]
        signing: Signing,
    },
    /// Propose to seal the keeper to the boot state that an update will bring, before the reboot that brings it.
    Reseal(ProposeResealArgs),
    /// Propose that one of several keepers decides no more. You must be an approver of the policy in force.
    KeeperLeave(ProposeLeaveArgs),
    /// Ask the keeper to make keys for the next epoch: what ends an update, or follows a keeper that retired. You must be an
    /// approver of the policy in force.
    KeyEpoch {
        /// How to sign.
        #[command(flatten)]
        signing: Signing,
    },
    /// Propose to let something through above a budget, once. You must be an approver of the policy in force.
    Budget(BudgetArgs),
    /// Propose a standing approval: so many releases under a rule that asks for approvals. You must be an approver of the
    /// policy in force.
    ///
    /// A policy that does not list it under `approval.standing` ends it.
    Standing(PermitArgs),
    /// Propose to let releases pass budgets, alarms that hold and missing standing approvals, for a day at most. You must be
    /// an approver of the policy in force.
    ///
    /// It takes `approval.break_glass_threshold` approvals. Every release by it rings an alarm. What a guest must prove and
    /// what was revoked stays as it is; any policy ends it.
    BreakGlass(PermitArgs),
}

/// `vaultctl platform …`
#[derive(Debug, Subcommand)]
pub enum PlatformCommand {
    /// Propose that an EK without a certificate be enrolled. You must be an approver of the policy in force, which must have
    /// `[platforms]`; rules with `ek_without_certificate = true` take the EK once enough approvers agree.
    Add {
        /// Platform id of the EK, `sha256:…`: what `vault-enclave evidence` prints on that machine. Nothing vouches for it
        /// but you: read it there yourself.
        platform: Sha256Digest,
        /// What people call the machine.
        #[arg(long, value_name = "NAME")]
        label: Name,
        /// What its TPM counts as. There is no default: `hardware` says that you know the chip.
        #[arg(long, value_name = "hardware|emulated")]
        counts_as: Trust,
        /// How to sign.
        #[command(flatten)]
        signing: Signing,
    },
    /// Propose that an enrolled EK be taken no more.
    Remove {
        /// Platform id of the EK, `sha256:…`.
        platform: Sha256Digest,
        /// How to sign.
        #[command(flatten)]
        signing: Signing,
    },
    /// The enrolled EKs, from the verified log.
    List,
}

/// `vaultctl approve`
#[derive(Debug, Args)]
pub struct ApproveArgs {
    /// What to approve: `sha256:…`, as `vaultctl pending` shows it.
    #[arg(required_unless_present = "latest", conflicts_with = "latest")]
    pub object: Option<Sha256Digest>,
    /// Approve the newest proposal that is pending; with --yes only where it is the only one.
    #[arg(long)]
    pub latest: bool,
    /// How to sign.
    #[command(flatten)]
    pub signing: Signing,
}

/// `vaultctl collateral …`
#[derive(Debug, Subcommand)]
pub enum CollateralCommand {
    /// Fetch what the hosts of a list need into a store, for `vault-enclave … --collateral DIR`. Can be run again: it goes on
    /// where it was.
    Prefetch(PrefetchArgs),
    /// What is in a store, and until when it counts.
    List {
        /// The store.
        dir: PathBuf,
    },
}

/// `vaultctl collateral prefetch`
#[derive(Debug, Args)]
pub struct PrefetchArgs {
    /// One host a line: PRODUCT CHIP_ID bootloader=N tee=N snp=N microcode=N (Turin: fmc=N too), or the path of a report that
    /// was captured on it.
    #[arg(long, value_name = "FILE")]
    pub hosts: PathBuf,
    /// The store; made where it is missing.
    #[arg(long, value_name = "DIR")]
    pub out: PathBuf,
    /// Key service: http://…, https://…, or amd for AMD's own. Can be given more than once: asked in order.
    #[arg(long, value_name = "URL", default_value = "amd")]
    pub kds: Vec<KdsChoice>,
    /// PEM of the authorities that https key services are checked by [default: those of the system].
    #[arg(long, value_name = "FILE")]
    pub kds_ca: Option<PathBuf>,
    /// For how long one object is tried, with all waiting for a busy service: 30s, 2m, 1h.
    #[arg(long, value_name = "SPAN", default_value = "2m", value_parser = span)]
    pub within: u64,
}

/// `vaultctl log …`
#[derive(Debug, Subcommand)]
pub enum LogCommand {
    /// The newest checkpoint, verified with the vault's log key.
    Checkpoint {
        /// Write the signed note to FILE, for a later `vaultctl log verify --since FILE`.
        #[arg(long, value_name = "FILE")]
        out: Option<PathBuf>,
    },
    /// Read the whole log: fold every entry, compute the root, compare it with the signed checkpoint.
    Verify {
        /// An older checkpoint: the log must be a continuation of that one.
        #[arg(long, value_name = "FILE")]
        since: Option<PathBuf>,
        /// Ask the keeper for evidence, so that the checkpoint is shown to be its newest.
        #[arg(long)]
        fresh: bool,
    },
    /// Entries in words, each checked.
    Show {
        /// First index.
        #[arg(long, value_name = "INDEX", default_value_t = 0)]
        from: u64,
        /// At most so many.
        #[arg(long, value_name = "ENTRIES", default_value_t = 1_000)]
        count: u64,
    },
}

impl From<AntiRollbackArg> for AntiRollback {
    fn from(arg: AntiRollbackArg) -> Self {
        match arg {
            AntiRollbackArg::Counter => Self::Counter,
            AntiRollbackArg::Witnesses => Self::Witnesses,
            AntiRollbackArg::None => Self::None,
        }
    }
}

/// `90s`, `30m`, `12h`, `7d`: whole seconds, minutes, hours or days, at most a year. Gives seconds.
fn span(text: &str) -> Result<u64, String> {
    const SECS_MAX: u64 = 366 * 24 * 60 * 60;
    let malformed = || "write a whole number and s, m, h or d, such as 7d; at most 366d".to_owned();
    let (number, unit) = text.split_at_checked(text.len().saturating_sub(1)).ok_or_else(malformed)?;
    let scale = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 60 * 60,
        "d" => 24 * 60 * 60,
        _ => return Err(malformed()),
    };
    let count: u64 = number.parse().map_err(|_| malformed())?;
    count.checked_mul(scale).filter(|seconds| (1..=SECS_MAX).contains(seconds)).ok_or_else(malformed)
}

#[cfg(test)]
#[path = "../../tests/documented_commands.rs"]
mod documented_commands;

#[cfg(test)]
pub(crate) mod tests {
    use clap::CommandFactory;

    use super::*;

    /// Whether a command that a person is told to run is one. FILE, KEY and DIR stand for themselves.
    pub(crate) fn takes(command: &str) -> bool {
        Cli::try_parse_from(command.split_whitespace()).is_ok()
    }

    #[test]
    fn the_definition_of_the_commands_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn commands_of_the_documents_are_taken() {
        let operate = include_str!("../../docs/operate.md");
        let readme = include_str!("../../README.md");
        let (blocks, signed) = (
            documented_commands::in_blocks(operate, "vaultctl"),
            documented_commands::in_text(readme, "vaultctl", "--key KEY"),
        );
        assert!(blocks.len() >= 6 && signed.len() >= 8, "{blocks:?} {signed:?}");
        // Words that stand for something with a form of its own.
        let words = [("INSTANCE", "4".repeat(64)), ("NAME", "name".to_owned()), ("RULE", "rule".to_owned())];
        let fill = |command: String| words.iter().fold(command, |text, (word, value)| text.replace(word, value));
        documented_commands::assert_taken::<Cli>(blocks.into_iter().chain(signed).map(fill));
    }

    #[test]
    fn help_documents_the_exit_codes() {
        let help = Cli::command().render_help().to_string();
        for code in 0..=5 {
            assert!(help.contains(&format!("\n  {code}  ")), "{code}");
        }
    }

    #[test]
    fn spans_are_whole_and_bounded() {
        assert_eq!(span("90s"), Ok(90));
        assert_eq!(span("30m"), Ok(1_800));
        assert_eq!(span("7d"), Ok(604_800));
        for wrong in ["", "d", "0d", "7", "7w", "-1d", "1.5h", "367d", "99999999999999999999d", "7 d", "7é"] {
            assert!(span(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn something_must_sign_an_approval_and_something_be_approved() {
        let object = format!("sha256:{}", "0".repeat(64));
        let parse = |args: &[&str]| Cli::try_parse_from([&["vaultctl", "approve"], args].concat());
        assert!(parse(&[&object, "--key", "k"]).is_ok());
        assert!(parse(&["--latest", "--print-statement", "s"]).is_ok());
        assert!(parse(&[&object, "--signature", "s.sig", "--vault", "v"]).is_ok());
        assert!(parse(&[&object]).is_err());
        assert!(parse(&["--key", "k"]).is_err());
        assert!(parse(&[&object, "--latest", "--key", "k"]).is_err());
        assert!(parse(&[&object, "--key", "k", "--print-statement", "s"]).is_err());
        assert!(parse(&["sha256:1", "--key", "k"]).is_err());
    }
}
