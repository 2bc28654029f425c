//! `vaultctl init …`: the genesis ceremony, in steps that can be run again.
//!
//! Nobody signs on another's word: each approver asks the keeper with a nonce and a secret of his own, and signs only a
//! genesis that names exactly the keeper which answered.

mod report;

use std::path::Path;

use attestation::Sha256Digest;
use ledger::approvals::{ApprovalAction, ApprovalStatement};
use ledger::checkpoint::LogVerifier;
use ledger::genesis::{AntiRollback, Core, Genesis, GenesisError, SealTo};
use ledger::policy::Policy;
use ledger::vault_file::VaultFile;
use vault_proto::convert::{Approval, GenesisWitness};

pub(crate) use report::{FetchReport, InitStatus, SignReport, StartReport};

use super::Submission;
use super::policy::{SHORTEN, read_policy_text};
use crate::audit;
use crate::cli::{InitStartArgs, Signing};
use crate::client::Remote;
use crate::failure::{Failure, Kind};
use crate::keeper::{self, CeremonyRun, not_verified};
use crate::session::{Session, read_vault, write_new};
use crate::signing::{self, Signed};
use crate::words::PolicyReport;

/// Name of the vault file in the directory of `init start --out`.
const VAULT_FILE: &str = "vault.json";

/// Core to the keeper, evidence, genesis, vault file, genesis to the keeper. A file that an earlier run left is taken up:
/// it was written after the evidence verified, and before the keeper got the genesis.
pub(crate) async fn start(session: &Session, args: &InitStartArgs) -> Result<StartReport, Failure> {
    let text = read_policy_text(&args.policy)?;
    let core = first_core(args.anti_rollback.into(), &text).map_err(|error| no_beginning(&args.policy, &error))?;
    let path = args.out.join(VAULT_FILE);
    let remote = session.named_host().await?;
    let (vault, resumed) = if path.exists() {
        (resume(&path, &core)?, true)
    } else {
        (begin(session, args, &core, &remote, &path).await?, false)
    };
    let submitted = remote.submit_genesis(vault.genesis().bytes().to_vec()).await;
    let id = submitted.map_err(|failure| introduce(failure, vault.genesis()))?;
    if id != vault.id() {
        return Err(Failure::new(Kind::NotVerified, "vault-id-mismatch", "the keeper computed another vault id")
            .why(format!("{id}, and the genesis that it was sent has {}", vault.id())));
    }
    Ok(StartReport::new(&vault, path, resumed))
}

/// Witnesses can't know a log before its genesis names it: the first run says by what, the next one goes on.
fn introduce(failure: Failure, genesis: &Genesis) -> Failure {
    if failure.code() != "witness-quorum-missing" {
        return failure;
    }
    let vkey = LogVerifier::of(genesis).key().to_string();
    failure.next(format!(
        "give this vkey of the log to whoever runs the witnesses (`vaultctl witness serve --log VKEY`), then run this again:\n{vkey}"
    ))
}

/// The keeper seals to all that the policy makes it prove.
fn first_core(anti_rollback: AntiRollback, text: &str) -> Result<Core, GenesisError> {
    let seal_to = SealTo::proven_by(Policy::parse(text).map_err(GenesisError::Policy)?.keeper());
    Core::new(anti_rollback, seal_to, text)
}

fn no_beginning(file: &Path, error: &GenesisError) -> Failure {
    let next = match error {
        GenesisError::PolicyTooLong { .. } => SHORTEN,
        _ => "correct it, then run `vaultctl policy check`",
    };
    Failure::new(Kind::Usage, error.code(), format!("{} can't begin a vault", file.display())).why(error).next(next)
}

fn resume(path: &Path, core: &Core) -> Result<VaultFile, Failure> {
    let vault = read_vault(path)?;
    if vault.genesis().core().digest() != core.digest() {
        return Err(Failure::new(Kind::Usage, "file-exists", format!("{} is of another ceremony", path.display()))
            .why("its policy or its anti_rollback is another than what was given now")
            .next("choose another --out"));
    }
    Ok(vault)
}

async fn begin(
    session: &Session,
    args: &InitStartArgs,
    core: &Core,
    remote: &Remote,
    path: &Path,
) -> Result<VaultFile, Failure> {
    remote.init_keeper(core.encode()).await?;
    let run = keeper::ceremony_run(remote, core.policy(), session).await?;
    if run.keeper.core() != core.digest() {
        return Err(Failure::new(Kind::NotVerified, "core-mismatch", "the keeper works under another core")
            .why("its evidence names another policy or anti_rollback than it was given"));
    }
    let genesis = Genesis::build(session.now(), core, run.keeper.identity().clone())
        .map_err(|error| Failure::new(Kind::Usage, error.code(), "no genesis can be made of this policy").why(error))?;
    let hosts = if args.advertise.is_empty() { vec![remote.address().to_owned()] } else { args.advertise.clone() };
    let vault = vault_file(genesis, hosts)?;
    write_new(path, &vault.encode())?;
    Ok(vault)
}

fn vault_file(genesis: Genesis, hosts: Vec<String>) -> Result<VaultFile, Failure> {
    VaultFile::new(genesis, hosts).map_err(|error| {
        Failure::new(Kind::Usage, error.code(), "no vault file can be made")
            .why(error)
            .next("name the host as others reach it with --advertise URL")
    })
}

/// Makes the vault file from the genesis that a host shows. Its id must be the one that the caller was told.
pub(crate) async fn fetch(session: &Session, path: &Path, expect: Sha256Digest) -> Result<FetchReport, Failure> {
    let remote = session.named_host().await?;
    let status = remote.status().await?;
    if status.genesis.is_empty() {
        return Err(Failure::new(Kind::Failed, "genesis-missing", "the host has no genesis yet")
            .next("vaultctl init start begins the ceremony"));
    }
    let found = Sha256Digest::of(&status.genesis);
    if found != expect {
        return Err(Failure::new(
            Kind::NotVerified,
            "vault-id-mismatch",
            "this is another vault than you were told of",
        )
        .why(format!("the host's genesis is that of {found}"))
        .next("ask whoever started the ceremony for the vault id, and this host's operator for his host"));
    }
    let genesis = Genesis::parse(&status.genesis)
        .map_err(|error| Failure::new(Kind::NotVerified, error.code(), "the host's genesis is none").why(error))?;
    let vault = vault_file(genesis, vec![remote.address().to_owned()])?;
    write_new(path, &vault.encode())?;
    Ok(FetchReport::new(&vault, path.to_owned()))
}

/// The approver's own evidence run, what the genesis says, then his signature.
pub(crate) async fn sign(session: &Session, signing: &Signing) -> Result<Submission<SignReport>, Failure> {
    let vault = session.vault()?;
    let genesis = vault.genesis();
    let approvers = &genesis.policy().approval().approvers;
    signing::check_approver(signing, approvers)?;
    let remote = session.remote(&vault).await?;
    let run = keeper::ceremony_run(&remote, genesis.policy(), session).await?;
    run.keeper.check(genesis).map_err(not_verified)?;
    session.review(&review(session, genesis, &run));
    let statement = ApprovalStatement {
        action: ApprovalAction::Genesis,
        object: genesis.vault_id(),
        previous: genesis.core().digest(),
        vault: genesis.vault_id(),
        serial: 0,
        not_after: session.now().plus(signing.expires),
    };
    let signature = match signing::obtain(signing, &statement, approvers, session)? {
        Signed::Later(printed) => return Ok(Submission::Printed(printed)),
        Signed::Now(signature) => signature,
    };
    let witness = GenesisWitness {
        nonce: *run.keeper.nonce(),
        activation_secret: *run.keeper.activation_secret(),
        evidence: run.evidence,
    };
    let approval = Approval { statement: signature.statement, signature: signature.armored, witness: Some(witness) };
    let proposal = remote.submit_approval(approval).await?;
    Ok(Submission::Made(SignReport::new(&vault, signature.approver, &proposal, run.keeper.verified().claims())))
}

/// What an approver is about to sign: the policy word for word, what it means, and the keeper that he saw.
fn review(session: &Session, genesis: &Genesis, run: &CeremonyRun) -> String {
    let claims = crate::words::ClaimsReport::from(run.keeper.verified().claims());
    format!(
        "The policy, word for word:\n\n{}\n\nWhat it means:\n\n{}\nThe keeper, as its TPM proved it to you now:\n{}\n\
         Its keys, instance, TPM and attestation key are those that the genesis names. {}.\n\nVault id:\n{}\n",
        genesis.core().policy_text(),
        PolicyReport::new(genesis.policy(), session.now()),
        crate::print::indented(claims),
        crate::words::rollback(genesis.core().anti_rollback()),
        genesis.vault_id()
    )
}

/// Who has signed: from the log, where a vault file says which; else by the host's word.
pub(crate) async fn status(session: &Session) -> Result<InitStatus, Failure> {
    match session.vault_if_named()? {
        Some(vault) => {
            let remote = session.remote(&vault).await?;
            let told = remote.status().await?;
            if told.genesis.is_empty() {
                return Ok(InitStatus::of_host(&told));
            }
            let log = audit::read_log(&remote, &vault).await?;
            Ok(InitStatus::of_log(&vault, log.state()))
        }
        None => Ok(InitStatus::of_host(&session.named_host().await?.status().await?)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::policy::tests::template_filled_in;

    #[test]
    fn a_first_policy_that_is_too_long_is_told_what_to_take_out() {
        let long = format!("{}#{}\n", template_filled_in(), "x".repeat(1 << 10));
        let error = first_core(AntiRollback::None, &long).unwrap_err();
        let failure = no_beginning(Path::new("policy.toml"), &error);
        assert_eq!((failure.code(), failure.next_step()), ("genesis-policy-too-long", Some(SHORTEN)));
        let error = first_core(AntiRollback::Witnesses, &template_filled_in()).unwrap_err();
        let failure = no_beginning(Path::new("policy.toml"), &error);
        assert_eq!(failure.code(), "core-witnesses-missing");
        assert!(failure.next_step().unwrap().contains("vaultctl policy check"));
    }
}
