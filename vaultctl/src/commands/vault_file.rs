//! `vaultctl vault-file`

use std::fmt;
use std::path::{Path, PathBuf};

use attestation::Sha256Digest;
use ledger::state::Succession;
use serde::Serialize;

use crate::audit;
use crate::failure::{Failure, Kind};
use crate::session::{Session, write_new};

/// A vault file that was written anew.
#[derive(Debug, Serialize)]
pub(crate) struct VaultFileReport {
    vault: Sha256Digest,
    file: PathBuf,
    policy_serial: u64,
    policy: Sha256Digest,
    /// Instances of the keepers.
    keepers: Vec<String>,
}

pub(crate) async fn renew(session: &Session, out: &Path) -> Result<VaultFileReport, Failure> {
    let file = session.vault()?;
    let remote = session.remote(&file).await?;
    let (checkpoint, _) = audit::checkpoint(&remote, &file).await?;
    let mut succession = Succession::default();
    // An entry that is none, the fold refuses.
    let see = |state: &ledger::state::State, bytes: &[u8]| drop(succession.see(state.size(), bytes));
    let log = audit::read_log_to(&remote, &file, checkpoint, see).await?;
    let (in_force, keepers) = (log.vault()?.policy().digest(), log.vault()?.keepers());
    let unusable = |error: ledger::vault_file::VaultFileError| {
        Failure::new(Kind::Failed, error.code(), "the policies do not fit a vault file").why(error)
    };
    let hosts = file.hosts().to_vec();
    let renewed = ledger::vault_file::VaultFile::new(file.genesis().clone(), hosts)
        .and_then(|renewed| renewed.with_policies(succession.into_entries()))
        .map_err(unusable)?;
    if renewed.policy().digest() != in_force || !renewed.keepers().iter().eq(keepers.all()) {
        let message = "the entries do not lead to the policy in force and its keepers";
        return Err(Failure::new(Kind::NotVerified, "policy-other", message));
    }
    // An older log than the one before would be an older policy too, or an older keeper.
    if renewed.policy().serial() < file.policy().serial() || !keepers.knows(file.keeper()) {
        return Err(Failure::new(
            Kind::NotVerified,
            "log-older",
            "this host shows an older log than the vault file knows",
        )
        .next("ask another host with --host"));
    }
    write_new(out, &renewed.encode())?;
    let policy_serial = renewed.policy().serial();
    let keepers = renewed.keepers().iter().map(|keeper| hex::encode(keeper.instance)).collect();
    Ok(VaultFileReport { vault: file.id(), file: out.to_owned(), policy_serial, policy: in_force, keepers })
}

impl fmt::Display for VaultFileReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{} knows the vault {} and its policy {}.", self.file.display(), self.vault, self.policy_serial)?;
        writeln!(f, "  policy: {}", self.policy)?;
        for keeper in &self.keepers {
            writeln!(f, "  keeper: {keeper}")?;
        }
        writeln!(
            f,
            "Next: give it to everybody who seals models or asks the keeper for evidence, in the place of theirs."
        )
    }
}
