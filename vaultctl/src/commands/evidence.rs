//! `vaultctl evidence …`

mod entry;

use std::fmt;
use std::path::Path;

use attestation::{AttestationKey, Sha256Digest};
use serde::Serialize;
use vault_proto::convert::EvidenceSet;
use vault_proto::limits::BLOB_BYTES_MAX;

pub(crate) use entry::verify_entry;

use crate::failure::{Failure, Kind};
use crate::keeper;
use crate::print::indented;
use crate::session::{Session, read};
use crate::words::ClaimsReport;

/// What a stored evidence set says. Nothing of it is verified.
#[derive(Debug, Serialize)]
pub(crate) struct ShowReport {
    verified: bool,
    digest: Sha256Digest,
    ek_certificates: Vec<Sha256Digest>,
    ak_name: Option<String>,
    attest_bytes: usize,
    pcrs: Vec<Pcr>,
}

#[derive(Debug, Serialize)]
struct Pcr {
    index: u32,
    sha256: String,
}

/// What the keeper proved just now.
#[derive(Debug, Serialize)]
pub(crate) struct KeeperReport {
    verified: bool,
    vault: Sha256Digest,
    policy: Sha256Digest,
    log_size: u64,
    log_root: Sha256Digest,
    claims: ClaimsReport,
}

pub(crate) fn show(file: &Path) -> Result<ShowReport, Failure> {
    let blob = read(file, BLOB_BYTES_MAX)?;
    let quote = match EvidenceSet::from_blob(&blob) {
        Ok(set) => set.tpm,
        Err(error) => {
            return Err(Failure::new(Kind::Usage, error.code(), format!("{} is not an evidence set", file.display()))
                .why(error)
                .next("give the blob that an entry of the log names under `evidence`"));
        }
    };
    let ak = AttestationKey::parse(&quote.identity.ak_public).ok();
    Ok(ShowReport {
        verified: false,
        digest: Sha256Digest::of(&blob),
        ek_certificates: quote.identity.ek_certificates.iter().map(|der| Sha256Digest::of(der)).collect(),
        ak_name: ak.map(|ak| hex::encode(ak.name().as_bytes())),
        attest_bytes: quote.attest.len(),
        pcrs: quote.pcrs.iter().map(|(index, value)| Pcr { index: *index, sha256: hex::encode(value) }).collect(),
    })
}

pub(crate) async fn verify_keeper(session: &Session) -> Result<KeeperReport, Failure> {
    let vault = session.vault()?;
    let remote = session.remote(&vault).await?;
    let run = keeper::vault_run(&remote, &vault, session).await?;
    Ok(KeeperReport {
        verified: true,
        vault: run.verified.statement().vault(),
        policy: run.verified.statement().policy(),
        log_size: run.checkpoint.size,
        log_root: Sha256Digest::from_bytes(run.checkpoint.root),
        claims: ClaimsReport::from(run.verified.claims()),
    })
}

impl fmt::Display for ShowReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "Evidence set {}. NOT VERIFIED: what a quote is for is not in it.", self.digest)?;
        for (index, digest) in self.ek_certificates.iter().enumerate() {
            let what = if index == 0 { "EK certificate" } else { "issuer" };
            writeln!(f, "  {what}: {digest}")?;
        }
        let ak = self.ak_name.as_deref().unwrap_or("not an attestation key that could be taken");
        writeln!(f, "  AK name: {ak}")?;
        writeln!(f, "  attestation: {} bytes", self.attest_bytes)?;
        self.pcrs.iter().try_for_each(|pcr| writeln!(f, "  PCR {:>2}: {}", pcr.index, pcr.sha256))?;
        writeln!(f, "`vaultctl evidence verify --entry INDEX` verifies the evidence of an entry.")
    }
}

impl fmt::Display for KeeperReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "Verified now, with a nonce of this run: the keeper of vault {}", self.vault)?;
        writeln!(f, "  policy in force: {}", self.policy)?;
        writeln!(f, "  log:             {} entries, root {}", self.log_size, self.log_root)?;
        f.write_str(&indented(&self.claims))
    }
}
