//! `vaultctl extend`: written with the policy in force, signed wherever the approvers are, submitted when there is a keeper.

use std::fmt;
use std::path::{Path, PathBuf};

use attestation::Sha256Digest;
use ledger::approvals::{ApprovalAction, ApprovalStatement};
use ledger::entry::{Entry, Proposal};
use ledger::extension::{
    EXTENSION_FILE_BYTES_MAX, ExtendedLeases, Extension, ExtensionApproval, ExtensionError, ExtensionFile,
};
use ledger::policy::Policy;
use ledger::vault_file::VaultFile;
use serde::Serialize;

use super::Submission;
use crate::audit;
use crate::cli::{ExtendNewArgs, Signing};
use crate::failure::{Failure, Kind};
use crate::print::{count_of, moment};
use crate::session::{Session, read, replace, write_new};
use crate::signing::{self, Signed};

/// An extension file, as it is now.
#[derive(Debug, Serialize)]
pub(crate) struct ExtendReport {
    file: PathBuf,
    object: Sha256Digest,
    says: Vec<String>,
    signed_by: Vec<String>,
    threshold: u32,
}

/// What a keeper made of one.
#[derive(Debug, Serialize)]
pub(crate) struct SubmitReport {
    leases: u32,
}

pub(crate) async fn new(session: &Session, args: &ExtendNewArgs) -> Result<ExtendReport, Failure> {
    let vault = session.vault()?;
    let leases = match (&args.what.model, args.what.lease) {
        (Some(model), _) => ExtendedLeases::Model { model: model.clone(), version: args.version.clone() },
        (None, Some(lease)) => ExtendedLeases::Lease { lease },
        (None, None) => ExtendedLeases::All {},
    };
    let from = args.from.unwrap_or(session.now());
    let extension = Extension::new(from, args.until, leases).map_err(refused)?;
    let remote = session.remote(&vault).await?;
    let (checkpoint, _) = audit::checkpoint(&remote, &vault).await?;
    let mut texts = vec![vault.genesis().core().policy_text().to_owned()];
    let log = audit::read_log_to(&remote, &vault, checkpoint, |_, bytes| {
        if let Ok(Entry::Propose(propose)) = Entry::parse(bytes)
            && let Proposal::Policy(proposed) = propose.proposal
        {
            texts.push(proposed.policy);
        }
    })
    .await?;
    let in_force = log.vault()?.policy().digest();
    // The fold took the policy from the log, or from the genesis.
    let policy = texts.into_iter().find(|text| Sha256Digest::of(text.as_bytes()) == in_force).ok_or_else(|| {
        Failure::new(Kind::NotVerified, "policy-text-missing", "the log does not have the text of the policy in force")
    })?;
    let file = ExtensionFile { policy, extension, approvals: Vec::new() };
    write_new(&args.out, &file.encode())?;
    report(&args.out, &file, &vault)
}

pub(crate) fn sign(session: &Session, path: &Path, signing: &Signing) -> Result<Submission<ExtendReport>, Failure> {
    let vault = session.vault()?;
    let mut file = read_file(path)?;
    let policy = policy_of(&file)?;
    let approvers = &policy.approval().approvers;
    signing::check_approver(signing, approvers)?;
    session.review(&report(path, &file, &vault)?.to_string());
    let statement = statement(&file.extension, &policy, &vault);
    let signature = match signing::obtain(signing, &statement, approvers, session)? {
        Signed::Later(printed) => return Ok(Submission::Printed(printed)),
        Signed::Now(signature) => signature,
    };
    let text = String::from_utf8(signature.statement)
        .map_err(|error| Failure::new(Kind::Usage, "statement-malformed", "the statement is not text").why(error))?;
    file.approvals.push(ExtensionApproval { statement: text, signature: signature.armored });
    // As agents check it, but for the number: a second signature of one approver shows here.
    signed_by(&file, &policy, &vault)?;
    replace(path, &file.encode())?;
    report(path, &file, &vault).map(Submission::Made)
}

pub(crate) async fn submit(session: &Session, path: &Path) -> Result<SubmitReport, Failure> {
    let vault = session.vault()?;
    let file = read_file(path)?;
    file.verify(vault.id(), policy_of(&file)?.digest()).map_err(refused)?;
    let leases = session.remote(&vault).await?.submit_extension(file.encode()).await?;
    Ok(SubmitReport { leases })
}

fn statement(extension: &Extension, policy: &Policy, vault: &VaultFile) -> ApprovalStatement {
    ApprovalStatement {
        action: ApprovalAction::Extend,
        object: extension.object(),
        previous: policy.digest(),
        vault: vault.id(),
        serial: policy.serial(),
        not_after: extension.until,
    }
}

fn read_file(path: &Path) -> Result<ExtensionFile, Failure> {
    ExtensionFile::parse(&read(path, EXTENSION_FILE_BYTES_MAX)?).map_err(refused)
}

fn policy_of(file: &ExtensionFile) -> Result<Policy, Failure> {
    Policy::parse(&file.policy)
        .map_err(|error| Failure::new(Kind::Usage, error.code(), "the extension names no policy").why(error))
}

/// Whose signatures count. Fewer than it takes are no fault yet.
fn signed_by(file: &ExtensionFile, policy: &Policy, vault: &VaultFile) -> Result<Vec<String>, Failure> {
    match file.verify(vault.id(), policy.digest()) {
        Ok(_) | Err(ExtensionError::TooFew { .. }) => {}
        Err(error) => return Err(refused(error)),
    }
    let approvers = &policy.approval().approvers;
    let signer = |approval: &ExtensionApproval| {
        let signed = ledger::approvals::verify(approval.statement.as_bytes(), &approval.signature, approvers);
        signed.map(|signed| signed.approver().to_string()).map_err(|error| refused(ExtensionError::Approval(error)))
    };
    file.approvals.iter().map(signer).collect()
}

fn report(path: &Path, file: &ExtensionFile, vault: &VaultFile) -> Result<ExtendReport, Failure> {
    let policy = policy_of(file)?;
    let Extension { not_before, until, leases, .. } = &file.extension;
    Ok(ExtendReport {
        file: path.to_owned(),
        object: file.extension.object(),
        says: vec![
            format!("LOOSER: without a keeper, {leases} runs on until {}", moment(*until)),
            format!("counts from {}; a keeper that answers has the last word", moment(*not_before)),
            format!("under policy {} ({}): compare it with `vaultctl status`", policy.serial(), policy.digest()),
        ],
        signed_by: signed_by(file, &policy, vault)?,
        threshold: policy.approval().threshold,
    })
}

fn refused(error: ExtensionError) -> Failure {
    Failure::new(Kind::Usage, error.code(), "this extension does not count").why(error)
}

impl fmt::Display for ExtendReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "extension {}, in {}", self.object, self.file.display())?;
        self.says.iter().try_for_each(|line| writeln!(f, "  {line}"))?;
        let signed = if self.signed_by.is_empty() { "nobody".to_owned() } else { self.signed_by.join(", ") };
        writeln!(f, "  signed by: {signed} ({} of {})", self.signed_by.len(), self.threshold)?;
        match self.signed_by.len() as u64 >= u64::from(self.threshold) {
            true => {
                writeln!(
                    f,
                    "Next: give it to agents: vault-enclave load|run|agent … --extension FILE, or --extensions DIR"
                )
            }
            false => writeln!(f, "Next: other approvers run vaultctl extend sign FILE --vault FILE --key KEY"),
        }
    }
}

impl fmt::Display for SubmitReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.leases {
            0 => writeln!(f, "No lease runs longer by it: all that it is about do already, or there is none."),
            leases => writeln!(f, "In the log: {} run longer by it.", count_of(leases.into(), "lease")),
        }
    }
}
