//! `vaultctl evidence …`

mod entry;

use std::fmt;
use std::path::Path;

use attestation::{AttestationKey, Evidence, Sha256Digest};
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
    form: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    snp: Option<SnpShown>,
    ek_certificates: Vec<Sha256Digest>,
    ak_name: Option<String>,
    pcrs: Vec<Pcr>,
}

/// A report, unread: `vaultctl evidence verify` reads it.
#[derive(Debug, Serialize)]
struct SnpShown {
    report: Sha256Digest,
    bytes: usize,
    certificates: Vec<Sha256Digest>,
}

impl SnpShown {
    fn of(report: &[u8], certificates: &[Vec<u8>]) -> Self {
        let certificates = certificates.iter().map(|der| Sha256Digest::of(der)).collect();
        Self { report: Sha256Digest::of(report), bytes: report.len(), certificates }
    }
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
    let evidence = match EvidenceSet::from_blob(&blob) {
        Ok(set) => set.evidence,
        Err(error) => {
            return Err(Failure::new(Kind::Usage, error.code(), format!("{} is not an evidence set", file.display()))
                .why(error)
                .next("give the blob that an entry of the log names under `evidence`"));
        }
    };
    let form = evidence.form().to_string();
    let (snp, quote, pcrs) = match evidence {
        Evidence::Tpm(quote) => (None, Some(quote.clone()), quote.pcrs),
        Evidence::Snp(report) => (Some(SnpShown::of(&report.report, &report.certificates)), None, Vec::new()),
        Evidence::SnpTpm { report, quote } => {
            (Some(SnpShown::of(&report.report, &report.certificates)), Some(quote.clone()), quote.pcrs)
        }
        Evidence::AzureSnpVtpm(azure) => {
            (Some(SnpShown::of(&azure.hcl_report, &azure.certificates)), None, azure.quote.pcrs)
        }
    };
    let ak = quote.as_ref().and_then(|quote| AttestationKey::parse(&quote.identity.ak_public).ok());
    let certificates = quote.map_or(Vec::new(), |quote| quote.identity.ek_certificates);
    Ok(ShowReport {
        verified: false,
        digest: Sha256Digest::of(&blob),
        form,
        snp,
        ek_certificates: certificates.iter().map(|der| Sha256Digest::of(der)).collect(),
        ak_name: ak.map(|ak| hex::encode(ak.name().as_bytes())),
        pcrs: pcrs.iter().map(|(index, value)| Pcr { index: *index, sha256: hex::encode(value) }).collect(),
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
        writeln!(f, "Evidence set {}, {}. NOT VERIFIED: what it is for is not in it.", self.digest, self.form)?;
        if let Some(snp) = &self.snp {
            writeln!(f, "  SNP report: {} bytes, {}", snp.bytes, snp.report)?;
            snp.certificates.iter().try_for_each(|digest| writeln!(f, "  its certificate: {digest}"))?;
        }
        for (index, digest) in self.ek_certificates.iter().enumerate() {
            let what = if index == 0 { "EK certificate" } else { "issuer" };
            writeln!(f, "  {what}: {digest}")?;
        }
        if let Some(ak) = &self.ak_name {
            writeln!(f, "  AK name: {ak}")?;
        }
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
