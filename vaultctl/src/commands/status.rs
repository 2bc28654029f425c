//! `vaultctl status`: what the keeper proved now, beside what the host says.

mod budget;
mod report;

pub(crate) use report::StatusReport;
use report::{Expiry, Verification};

use ledger::policy::Policy;
use ledger::vault_file::VaultFile;

use crate::cli::StatusArgs;
use crate::client::{VaultState, VaultStatus};
use crate::failure::{Failure, Kind};
use crate::keeper::{self, VaultRun};
use crate::session::Session;

pub(crate) async fn status(session: &Session, args: &StatusArgs) -> Result<StatusReport, Failure> {
    let vault = session.vault_if_named()?;
    let remote = match &vault {
        Some(vault) => session.remote(vault).await?,
        None => session.named_host().await?,
    };
    // Before the status: then the status can't be of an older log than the one that was just proved.
    let run = match &vault {
        Some(vault) if !args.insecure_skip_evidence => Some(keeper::vault_run(&remote, vault, session).await),
        _ => None,
    };
    let run = match run {
        Some(Err(failure)) if failure.kind() == Kind::NotVerified => return Err(failure),
        run => run,
    };
    let status = remote.status().await?;
    if let Some(vault) = &vault {
        check_vault(&status, vault)?;
    }
    let verification = match run {
        Some(Ok(run)) => {
            check_against(&status, &run)?;
            Verification::of(&run)
        }
        // The keeper of a vault that is not open has no evidence for it; the host may still say why.
        Some(Err(_)) if status.state != VaultState::Open => Verification::NoEvidence,
        Some(Err(failure)) => return Err(failure),
        None if vault.is_some() => Verification::Skipped,
        None => Verification::NoVaultFile,
    };
    let expiries = expiries(&status, vault.as_ref());
    Ok(StatusReport::new(status, remote.address().to_owned(), verification, expiries, session.now()))
}

/// The host must speak of this vault.
fn check_vault(status: &VaultStatus, vault: &VaultFile) -> Result<(), Failure> {
    match status.vault {
        Some(id) if id != vault.id() => Err(contradiction(format!("it shows the status of vault {id}"))),
        _ => Ok(()),
    }
}

/// What the host says must fit what the keeper has just proved.
fn check_against(status: &VaultStatus, run: &VaultRun) -> Result<(), Failure> {
    let (proved, claims) = (run.verified.statement(), run.verified.claims());
    if status.state != VaultState::Open || status.vault != Some(proved.vault()) {
        return Err(contradiction("it says that the vault is not open".to_owned()));
    }
    if status.tier != Some(claims.trust()) {
        return Err(contradiction(format!("the keeper's tier is {}", claims.trust())));
    }
    if status.log_size < run.checkpoint.size {
        return Err(contradiction(format!(
            "it shows a log of {} entries, and the keeper's has {}",
            status.log_size, run.checkpoint.size
        )));
    }
    // A longer log may have come to be in between, with another policy.
    let same_log = status.log_size == run.checkpoint.size;
    if same_log && status.log_root.is_none_or(|root| *root.as_bytes() != run.checkpoint.root) {
        return Err(contradiction("it shows another log root".to_owned()));
    }
    if same_log && status.policy.is_none_or(|policy| policy.digest != proved.policy()) {
        return Err(contradiction("it shows another policy in force".to_owned()));
    }
    Ok(())
}

fn contradiction(why: String) -> Failure {
    Failure::new(Kind::NotVerified, "host-contradicts-keeper", "the host does not say what the keeper proved")
        .why(why)
        .next(
            "do not believe this host; ask another one with --host, or read the log with `vaultctl log verify --fresh`",
        )
}

/// Every end that is coming, the next one first.
fn expiries(status: &VaultStatus, vault: Option<&VaultFile>) -> Vec<Expiry> {
    let mut expiries = Vec::new();
    match (&status.policy, vault) {
        (Some(policy), _) => expiries.push(Expiry::new(format!("policy {}", policy.serial), policy.not_after)),
        (None, Some(vault)) => expiries.push(Expiry::new("policy 1".to_owned(), vault.policy().not_after())),
        (None, None) => (),
    }
    if let Some(policy) = vault.map(VaultFile::policy).filter(|policy| is_in_force(policy, status)) {
        let anchors = policy.trust_anchors().iter();
        expiries.extend(
            anchors.map(|(anchor, until)| Expiry::new(format!("certificate of anchor {}", anchor.name), until)),
        );
    }
    for lease in &status.leases {
        let what = format!("lease {} of {}@{} on {}", lease.id, lease.model, lease.version, lease.platform);
        expiries.push(Expiry::new(what, lease.renew_by));
    }
    expiries.sort_by_key(Expiry::at);
    expiries
}

/// Whether the policy of the vault file is the one in force: of a later one the text is only in the log.
fn is_in_force(policy: &Policy, status: &VaultStatus) -> bool {
    status.policy.is_none_or(|in_force| in_force.digest == policy.digest())
}
