//! `vaultctl custodian`, `vaultctl escrow`

use std::fmt;
use std::path::{Path, PathBuf};

use attestation::Sha256Digest;
use ledger::approvals::{ApprovalAction, ApprovalStatement};
use ledger::escrow::{Custodian, EscrowPlan, ShareFile};
use ledger::names::Name;
use serde::Serialize;
use vault_proto::convert::EscrowSubmission;

use super::Submission;
use super::propose::check_object;
use crate::audit;
use crate::cli::EscrowProposeArgs;
use crate::custodian::{CustodianKey, CustodianPublic};
use crate::failure::{Failure, Kind};
use crate::session::{Session, write_new};
use crate::signing::{self, Signed};
use crate::words::escrow_in_words;

/// A key that was made.
#[derive(Debug, Serialize)]
pub(crate) struct KeygenReport {
    custodian: Name,
    key: Sha256Digest,
    private_file: PathBuf,
    public_file: PathBuf,
}

/// Custodians that were proposed.
#[derive(Debug, Serialize)]
pub(crate) struct EscrowReport {
    object: Sha256Digest,
    proposed_by: String,
    threshold: u32,
    approvals: u32,
    entry: u64,
}

/// Shares that were written.
#[derive(Debug, Serialize)]
pub(crate) struct FetchReport {
    number: u64,
    threshold: u32,
    files: Vec<PathBuf>,
}

/// Who holds shares.
#[derive(Debug, Serialize)]
pub(crate) struct EscrowStatusReport {
    vault: Sha256Digest,
    recoverable: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    says: Option<Vec<String>>,
    entry: Option<u64>,
}

pub(crate) fn keygen(session: &Session, name: &Name, out: &Path) -> Result<KeygenReport, Failure> {
    let mut public_file = out.as_os_str().to_owned();
    public_file.push(".pub");
    let key = CustodianKey::create(name, out, session.rng())?.public();
    key.write(Path::new(&public_file))?;
    let (private_file, public_file) = (out.to_owned(), public_file.into());
    Ok(KeygenReport { custodian: name.clone(), key: key.digest(), private_file, public_file })
}

pub(crate) async fn propose(session: &Session, args: &EscrowProposeArgs) -> Result<Submission<EscrowReport>, Failure> {
    let vault_file = session.vault()?;
    let custodians = args.custodians.iter().map(|file| CustodianPublic::read(file)).collect::<Result<Vec<_>, _>>()?;
    let remote = session.remote_of_signer(&vault_file, &args.signing).await?;
    let log = audit::read_log(&remote, &vault_file).await?;
    let vault = log.vault()?;
    let named = custodians.iter().map(|known| Custodian { id: known.custodian.clone(), key: known.digest() });
    let plan = vault.next_escrow(args.threshold, named.collect());
    plan.check()
        .map_err(|error| Failure::new(Kind::Usage, error.code(), "the vault's keys can't be split so").why(error))?;
    let approvers = &vault.policy().approval().approvers;
    signing::check_approver(&args.signing, approvers)?;
    session.review(&escrow_in_words(&plan).join("\n"));
    let object = plan.object(vault.id());
    let statement = ApprovalStatement {
        action: ApprovalAction::ProposeEscrow,
        object,
        previous: vault.policy().digest(),
        vault: vault.id(),
        serial: vault.policy().serial(),
        not_after: session.now().plus(args.signing.expires),
    };
    let signature = match signing::obtain(&args.signing, &statement, approvers, session)? {
        Signed::Later(printed) => return Ok(Submission::Printed(printed)),
        Signed::Now(signature) => signature,
    };
    let EscrowPlan { threshold, .. } = plan;
    let keys = custodians.into_iter().map(|known| known.key).collect();
    let submission = EscrowSubmission { plan, keys, statement: signature.statement, signature: signature.armored };
    let proposal = remote.submit_escrow(submission).await?;
    check_object(&proposal, object)?;
    let (approvals, entry) = (proposal.threshold, proposal.entry);
    Ok(Submission::Made(EscrowReport {
        object,
        proposed_by: signature.approver.to_string(),
        threshold,
        approvals,
        entry,
    }))
}

/// Each share is the one that the verified log names, whatever the host gives.
pub(crate) async fn fetch(session: &Session, out: &Path) -> Result<FetchReport, Failure> {
    let file = session.vault()?;
    let remote = session.remote(&file).await?;
    let log = audit::read_log(&remote, &file).await?;
    let vault = log.vault()?;
    let escrow = vault.escrow_in_force().map_err(|error| {
        Failure::new(Kind::Usage, error.code(), "there are no shares of this vault's keys")
            .why(error)
            .next("vaultctl escrow propose --custodian A.pub --custodian B.pub --threshold 2 --vault FILE --key KEY")
    })?;
    std::fs::create_dir_all(out).map_err(|error| Failure::file("make", out, &error))?;
    let mut files = Vec::new();
    for (id, digests) in escrow.shares(vault.id()) {
        let path = out.join(format!("share-{}-{}-{}.json", id.number, id.index, id.custodian));
        let share = ShareFile::new(id, remote.blob(digests.sealed).await?).map_err(|error| {
            Failure::new(Kind::NotVerified, error.code(), "what the log names as a share is none").why(error)
        })?;
        write_new(&path, &share.encode())?;
        files.push(path);
    }
    Ok(FetchReport { number: escrow.plan().number, threshold: escrow.plan().threshold, files })
}

pub(crate) async fn status(session: &Session) -> Result<EscrowStatusReport, Failure> {
    let file = session.vault()?;
    let remote = session.remote(&file).await?;
    let log = audit::read_log(&remote, &file).await?;
    let vault = log.vault()?;
    let escrow = vault.escrow_in_force().ok();
    Ok(EscrowStatusReport {
        vault: vault.id(),
        recoverable: vault.is_recoverable(),
        says: escrow.map(|escrow| escrow_in_words(escrow.plan())),
        entry: escrow.map(ledger::state::Escrow::entry),
    })
}

impl fmt::Display for KeygenReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "Made the key of custodian {}:", self.custodian)?;
        writeln!(f, "  {}", self.key)?;
        writeln!(f, "Private: {}. Keep it offline, with a copy somewhere else.", self.private_file.display())?;
        writeln!(f, "Public:  {}. Give it to the vault's approvers,", self.public_file.display())?;
        writeln!(f, "  and tell them the digest above over another way.")
    }
}

impl fmt::Display for EscrowReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{} proposed custodians of the vault's keys (entry {}).", self.proposed_by, self.entry)?;
        writeln!(f, "  object: {}", self.object)?;
        writeln!(f, "  {} shares give the keys", self.threshold)?;
        writeln!(f, "Next: {} approvers run", self.approvals)?;
        writeln!(f, "  vaultctl approve {} --vault FILE --key KEY", self.object)?;
        writeln!(f, "and then the shares are fetched: vaultctl escrow fetch --vault FILE --out DIR")
    }
}

impl fmt::Display for FetchReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "Shares of escrow {}, {} of which give the vault's keys:", self.number, self.threshold)?;
        self.files.iter().try_for_each(|file| writeln!(f, "  {}", file.display()))?;
        writeln!(f, "Give each to its custodian, who keeps it apart from the others. Then practise:")?;
        writeln!(
            f,
            "  vault-enclave keeper --recover FILE --drill --dir DIR …, on a machine as the policy's [keeper] asks"
        )
    }
}

impl fmt::Display for EscrowStatusReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.says, self.entry) {
            (Some(says), Some(entry)) => {
                writeln!(f, "Escrow of the keys of {} (entry {entry}):", self.vault)?;
                says.iter().try_for_each(|line| writeln!(f, "  {line}"))?;
            }
            (_, _) => writeln!(f, "NOT RECOVERABLE: nobody holds shares of the keys of {}", self.vault)?,
        }
        match (self.recoverable, self.says.is_some()) {
            (false, true) => {
                writeln!(
                    f,
                    "NOT RECOVERABLE all the same: only a vault with anti_rollback `counter` can be given another keeper"
                )
            }
            (true, _) => {
                writeln!(f, "If the keeper is lost: vault-enclave keeper --recover FILE --accept-rollback --dir DIR …")
            }
            (false, false) => writeln!(
                f,
                "Next: vaultctl escrow propose --custodian A.pub --custodian B.pub --threshold 2 --vault FILE --key KEY"
            ),
        }
    }
}
