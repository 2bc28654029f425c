//! `vaultctl recover`: everybody judges the recovering keeper himself, by its evidence for his own nonce.

use std::fmt;

use attestation::Sha256Digest;
use ledger::approvals::{ApprovalAction, ApprovalStatement};
use ledger::escrow::{RecoveryMode, ShareFile};
use ledger::keeper_evidence::RecoveringError;
use ledger::policy::Policy;
use ledger::vault_file::VaultFile;
use serde::Serialize;
use vault_proto::convert::{Approval, Contribution, GenesisWitness, RecoveryProgress};

use super::Submission;
use super::propose::check_object;
use crate::audit;
use crate::cli::{ContributeArgs, Signing};
use crate::client::Remote;
use crate::custodian::CustodianKey;
use crate::failure::{Failure, Kind};
use crate::keeper::{self, RecoveryRun};
use crate::session::{self, Session};
use crate::signing::{self, Signed};
use crate::words::{ClaimsReport, machine_in_words};

/// A recovering keeper, as it proved itself.
#[derive(Debug, Serialize)]
pub(crate) struct RecoverReport {
    vault: Sha256Digest,
    object: Sha256Digest,
    mode: &'static str,
    machine: Vec<String>,
    keeper: ClaimsReport,
    log_size: u64,
    log_root: Sha256Digest,
    /// Always here: the counter that would tell is lost.
    rollback_accepted: bool,
    approved_by: Vec<String>,
    approvals: u32,
    shares_of: Vec<String>,
    shares: u32,
    done: bool,
    /// What the caller has just done.
    #[serde(skip_serializing_if = "Option::is_none")]
    did: Option<String>,
}

pub(crate) async fn status(session: &Session) -> Result<RecoverReport, Failure> {
    let file = session.vault()?;
    let remote = session.remote(&file).await?;
    let run = run(&remote, &file, file.policy(), session).await?;
    Ok(RecoverReport::new(&file, &run, run.progress.clone(), None))
}

/// The share is opened only once the keeper has proved itself for what the share is of.
pub(crate) async fn contribute(session: &Session, args: &ContributeArgs) -> Result<RecoverReport, Failure> {
    let file = session.vault()?;
    let share =
        ShareFile::parse(&session::read(&args.share, ledger::escrow::SHARE_FILE_BYTES_MAX)?).map_err(|error| {
            Failure::new(Kind::Usage, error.code(), format!("{} is no share file", args.share.display())).why(error)
        })?;
    let id = share.id().clone();
    if id.vault != file.id() {
        return Err(Failure::new(Kind::Usage, "share-other-vault", "the share is of another vault").why(format!(
            "it is of {}, and the vault file of {}",
            id.vault,
            file.id()
        )));
    }
    let key = CustodianKey::read(&args.key)?;
    let remote = session.remote(&file).await?;
    let run = run(&remote, &file, file.policy(), session).await?;
    if run.keeper.recovery().set != id.set {
        return Err(Failure::new(Kind::Usage, "share-other-set", "the keeper asks for shares of another escrow")
            .why(format!("this share is of escrow {} with the set {}", id.number, id.set))
            .next("look for the share of the newest escrow: its file name begins with share- and its number"));
    }
    session.review(&RecoverReport::new(&file, &run, run.progress.clone(), None).to_string());
    let question = match run.keeper.mode() {
        RecoveryMode::Recover => "Give this keeper your share of the vault's keys?",
        RecoveryMode::Drill => "Give this keeper your share, which it will wipe?",
    };
    session.confirm(question, args.yes)?;
    let object = run.keeper.object();
    let to = &run.keeper.verified().statement().keys().hpke_key;
    let sealed = key.open(&share)?.seal(&id, object, to, session.rng())?;
    let contribution = Contribution { object, index: id.index, enc: sealed.enc, ciphertext: sealed.ciphertext };
    let progress = remote.contribute(contribution).await?;
    let did = format!("{} gave share {}.", id.custodian, id.index);
    Ok(RecoverReport::new(&file, &run, progress, Some(did)))
}

/// Approvers compare the log too: what they do not see is what the vault will have forgotten.
pub(crate) async fn approve(session: &Session, signing: &Signing) -> Result<Submission<RecoverReport>, Failure> {
    let file = session.vault()?;
    let remote = session.remote_of_signer(&file, signing).await?;
    let log = audit::read_log(&remote, &file).await?;
    let vault = log.vault()?;
    let approvers = &vault.policy().approval().approvers;
    signing::check_approver(signing, approvers)?;
    let run = run(&remote, &file, vault.policy(), session).await?;
    run.keeper.check(vault, log.checkpoint().size).map_err(refused)?;
    if *run.keeper.recovery().from.root.as_bytes() != log.checkpoint().root {
        return Err(Failure::new(Kind::NotVerified, "recover-other-log", "the keeper would go on from another log")
            .why("its root is not that of the log that was read and verified here")
            .next("do not sign; find out which host has the newest log"));
    }
    session.review(&RecoverReport::new(&file, &run, run.progress.clone(), None).to_string());
    let statement = ApprovalStatement {
        action: ApprovalAction::Recover,
        object: run.keeper.object(),
        previous: vault.policy().digest(),
        vault: vault.id(),
        serial: vault.policy().serial(),
        not_after: session.now().plus(signing.expires),
    };
    let signature = match signing::obtain(signing, &statement, approvers, session)? {
        Signed::Later(printed) => return Ok(Submission::Printed(printed)),
        Signed::Now(signature) => signature,
    };
    let witness = GenesisWitness {
        nonce: *run.keeper.nonce(),
        activation_secret: *run.keeper.activation_secret(),
        evidence: run.evidence.clone(),
    };
    let approval = Approval { statement: signature.statement, signature: signature.armored, witness: Some(witness) };
    let proposal = remote.submit_approval(approval).await?;
    check_object(&proposal, run.keeper.object())?;
    let progress = RecoveryProgress {
        approved_by: proposal.approved_by,
        approvals: proposal.threshold,
        done: proposal.effective,
        ..run.progress.clone()
    };
    let did = format!("{} approved {}.", signature.approver, proposal.object);
    Ok(Submission::Made(RecoverReport::new(&file, &run, progress, Some(did))))
}

async fn run(remote: &Remote, file: &VaultFile, policy: &Policy, session: &Session) -> Result<RecoveryRun, Failure> {
    keeper::recovery_run(remote, file, policy, session).await
}

fn refused(error: RecoveringError) -> Failure {
    Failure::new(Kind::NotVerified, error.code(), "this keeper can't take the place of the vault's").why(error)
}

impl RecoverReport {
    fn new(file: &VaultFile, run: &RecoveryRun, progress: RecoveryProgress, did: Option<String>) -> Self {
        let recovery = run.keeper.recovery();
        let names = |names: &[ledger::names::Name]| names.iter().map(ToString::to_string).collect();
        Self {
            vault: file.id(),
            object: run.keeper.object(),
            mode: run.keeper.mode().as_str(),
            machine: machine_in_words(&recovery.joiner.machine),
            keeper: ClaimsReport::from(run.keeper.verified().claims()),
            log_size: recovery.from.size,
            log_root: recovery.from.root,
            rollback_accepted: true,
            approved_by: names(&progress.approved_by),
            approvals: progress.approvals,
            shares_of: names(&progress.shares_of),
            shares: progress.shares,
            done: progress.done,
            did,
        }
    }
}

impl fmt::Display for RecoverReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(did) = &self.did {
            writeln!(f, "{did}")?;
        }
        let drill = self.mode == RecoveryMode::Drill.as_str();
        match (drill, self.done) {
            (true, false) => writeln!(f, "A DRILL for the vault {}: the keys are checked and wiped.", self.vault)?,
            (true, true) => {
                writeln!(f, "The drill is over: the shares give the keys of {}, and they were wiped.", self.vault)?;
            }
            (false, false) => writeln!(f, "LOOSER: this machine gets all keys of the vault {}, and", self.vault)?,
            (false, true) => writeln!(f, "The keys of the vault {} are on this machine, and", self.vault)?,
        }
        if !drill {
            writeln!(f, "the keeper of before counts as lost:")?;
        }
        self.machine.iter().try_for_each(|line| writeln!(f, "  {line}"))?;
        writeln!(f, "As its evidence proved it to you now:")?;
        f.write_str(&crate::print::indented(&self.keeper))?;
        writeln!(f, "Log: {} entries, root {}", self.log_size, self.log_root)?;
        if !drill {
            writeln!(
                f,
                "! NOTHING SHOWS THAT THIS LOG IS THE NEWEST: what the lost keeper wrote behind it is forgotten,"
            )?;
            writeln!(
                f,
                "! revocations and leases too. Compare size and root with the last checkpoint that you know of."
            )?;
            let approved = if self.approved_by.is_empty() { "nobody".to_owned() } else { self.approved_by.join(", ") };
            writeln!(f, "Approved by: {approved} ({} of {})", self.approved_by.len(), self.approvals)?;
        }
        let shares = if self.shares_of.is_empty() { "nobody".to_owned() } else { self.shares_of.join(", ") };
        writeln!(f, "Shares of:   {shares} ({} of {})", self.shares_of.len(), self.shares)?;
        writeln!(f, "Object:      {}", self.object)?;
        match (drill, self.done) {
            (true, true) => {
                writeln!(f, "Next: keep a record of it, since the log has none, each under his own name:")?;
                writeln!(f, "  vaultctl --json recover status --vault FILE > drill.json")?;
                writeln!(f, "  ssh-keygen -Y sign -n weightvault-drill -f KEY drill.json")?;
                writeln!(f, "Then clear the machine: vault-enclave keeper --reset-ceremony --dir DIR …")
            }
            (false, true) => {
                writeln!(
                    f,
                    "Next: vaultctl status --vault FILE; vaultctl vault-file --vault FILE --out NEW for whoever seals; a new escrow with"
                )?;
                writeln!(f, "`vaultctl escrow propose`; and never start the lost keeper again")
            }
            (_, false) => Ok(()),
        }
    }
}
