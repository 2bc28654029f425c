//! From files to evidence of one kind.

use std::path::Path;

use attestation::{
    AzureQuote, EVENT_LOG_BYTES_MAX, Evidence, HclReport, QuoteStatement, SNP_REPORT_BYTES, SnpEvidence, TpmIdentity,
    TpmQuote, VerifyError,
};
use vault_proto::convert::EvidenceSet;
use vault_proto::limits::BLOB_BYTES_MAX;

use super::files::{Certificates, read_files, read_pcrs};
use super::{AzureCaptured, Captured};
use crate::cli::{Beside, EvidenceKind};
use crate::failure::{Failure, Kind};
use crate::session::read;

const QUOTE_BYTES_MAX: usize = 4 << 10;
const RUNTIME_BYTES_MAX: usize = 16 << 10;
pub(super) const HCL_MAGIC: &[u8] = b"HCLA";
/// TPMI_ALG_SIG_SCHEME RSASSA, TPMI_ALG_HASH SHA-256, 256 bytes: what stands before a bare signature in TPMT_SIGNATURE.
const RSASSA_SHA256_256: [u8; 6] = [0x00, 0x14, 0x00, 0x0b, 0x01, 0x00];

/// Evidence, or why what was given is none of that kind: the inner error is a refusal, the outer one wrong use.
type Loaded = Result<Result<Captured, VerifyError>, Failure>;

/// What was given.
#[derive(Debug)]
pub struct Given {
    /// The evidence, or why it is none of that kind.
    pub evidence: Result<Captured, VerifyError>,
    /// The event log: that of `--event-log`, else that of the evidence blob.
    pub event_log: Option<Vec<u8>>,
}

/// Reads evidence of this kind out of a report, which may be an evidence blob, and what comes with it.
pub fn load(kind: EvidenceKind, report: Option<&Path>, beside: &Beside) -> Result<Given, Failure> {
    let mut event_log = beside.event_log.as_deref().map(read_event_log).transpose()?;
    let bytes = report.map(|path| read(path, BLOB_BYTES_MAX)).transpose()?;
    let files = read_files(&beside.chain, &beside.crl)?;
    // A bare report can't be a blob, nor a blob a report: the first byte of a report is its version.
    if let Some(set) = bytes.as_deref().and_then(|bytes| EvidenceSet::from_blob(bytes).ok()) {
        if beside.quote.is_some() || beside.runtime.is_some() {
            return Err(usage(
                "an evidence blob holds its own quote and runtime data",
                "leave --quote and --runtime out",
            ));
        }
        event_log = event_log.or(set.event_log);
        return Ok(Given { evidence: of_set(kind, set.evidence, files), event_log });
    }
    let evidence = match kind {
        EvidenceKind::Snp => snp(bytes, beside, files),
        EvidenceKind::AzureSnpVtpm => azure(bytes, beside, files),
        EvidenceKind::Tpm => tpm(bytes, beside, files),
    };
    Ok(Given { evidence: evidence?, event_log })
}

/// Stored evidence, as it was sent.
pub fn of_evidence(evidence: Evidence) -> Result<Captured, VerifyError> {
    let kind = match &evidence {
        Evidence::Tpm(_) => EvidenceKind::Tpm,
        Evidence::Snp(_) | Evidence::SnpTpm { .. } => EvidenceKind::Snp,
        Evidence::AzureSnpVtpm(_) => EvidenceKind::AzureSnpVtpm,
    };
    of_set(kind, evidence, Certificates::default())
}

fn of_set(kind: EvidenceKind, evidence: Evidence, files: Certificates) -> Result<Captured, VerifyError> {
    match (kind, evidence) {
        (EvidenceKind::Snp, Evidence::Snp(evidence)) => {
            Ok(Captured::Snp { evidence: with(evidence, files), unbound_tpm: false })
        }
        (EvidenceKind::Snp, Evidence::SnpTpm { report, .. }) => {
            Ok(Captured::Snp { evidence: with(report, files), unbound_tpm: true })
        }
        (EvidenceKind::AzureSnpVtpm, Evidence::AzureSnpVtpm(azure)) => {
            let hcl = HclReport::parse(&azure.hcl_report)?;
            let (certificates, crls) = (azure.certificates, azure.crls);
            let evidence = with(SnpEvidence { report: hcl.report().to_vec(), certificates, crls }, files);
            let (ak_public, quote) = (Some(azure.ak_public), azure.quote);
            Ok(Captured::Azure(Box::new(AzureCaptured { hcl, evidence, ak_public, quote })))
        }
        (EvidenceKind::Tpm, Evidence::Tpm(mut quote)) => {
            quote.identity.ek_certificates.extend(files.certificates);
            Ok(Captured::Tpm(quote))
        }
        (EvidenceKind::Snp, Evidence::Tpm(_) | Evidence::AzureSnpVtpm(_))
        | (EvidenceKind::AzureSnpVtpm, Evidence::Tpm(_) | Evidence::Snp(_) | Evidence::SnpTpm { .. })
        | (EvidenceKind::Tpm, Evidence::Snp(_) | Evidence::SnpTpm { .. } | Evidence::AzureSnpVtpm(_)) => {
            Err(VerifyError::FormMismatch)
        }
    }
}

/// Stored evidence as it is, unless more came with it.
fn with(mut evidence: SnpEvidence, files: Certificates) -> SnpEvidence {
    evidence.crls.extend(files.crls);
    if files.certificates.is_empty() {
        return evidence;
    }
    let all = [evidence.certificates, files.certificates].concat();
    SnpEvidence::select(evidence.report, &all, evidence.crls)
}

fn snp(report: Option<Vec<u8>>, beside: &Beside, files: Certificates) -> Loaded {
    if beside.quote.is_some() || beside.runtime.is_some() {
        let next = "leave --quote and --runtime out, or say --kind azure-snp-vtpm";
        return Err(usage("nothing binds a quote to a bare report", next));
    }
    let report = report.ok_or_else(report_missing)?;
    let evidence = SnpEvidence::select(report, &files.certificates, files.crls);
    Ok(Ok(Captured::Snp { evidence, unbound_tpm: false }))
}

fn azure(report: Option<Vec<u8>>, beside: &Beside, files: Certificates) -> Loaded {
    let report = report.ok_or_else(report_missing)?;
    let runtime = beside.runtime.as_deref().map(|path| read(path, RUNTIME_BYTES_MAX)).transpose()?;
    let hcl = match runtime {
        Some(_) if report.starts_with(HCL_MAGIC) => {
            return Err(usage("an HCL report holds its own runtime data", "leave --runtime out"));
        }
        Some(runtime) => HclReport::from_parts(report, runtime),
        None if report.len() == SNP_REPORT_BYTES => {
            return Err(usage("the report came without its HCL frame", "give its runtime data with --runtime FILE"));
        }
        None => HclReport::parse(&report),
    };
    let hcl = match hcl {
        Ok(hcl) => hcl,
        Err(error) => return Ok(Err(VerifyError::Hcl(error))),
    };
    let quote = read_quote(beside)?;
    let ak_public = beside.ak.as_deref().map(read_ak).transpose()?;
    let evidence = SnpEvidence::select(hcl.report().to_vec(), &files.certificates, files.crls);
    Ok(Ok(Captured::Azure(Box::new(AzureCaptured { hcl, evidence, ak_public, quote }))))
}

fn tpm(report: Option<Vec<u8>>, beside: &Beside, files: Certificates) -> Loaded {
    if report.is_some() {
        let next =
            "give the quote with --quote, --quote-signature, --pcrs and --ak, and the chain of the EK with --chain";
        return Err(usage("--report is not an evidence blob", next));
    }
    let AzureQuote { attest, signature, pcrs } = read_quote(beside)?;
    let ak =
        beside.ak.as_deref().ok_or_else(|| usage("which key quoted?", "give the AK's public area with --ak FILE"))?;
    let identity = TpmIdentity { ek_certificates: files.certificates, ek_public: Vec::new(), ak_public: read_ak(ak)? };
    Ok(Ok(Captured::Tpm(TpmQuote { identity, attest, signature, pcrs })))
}

fn read_quote(beside: &Beside) -> Result<AzureQuote, Failure> {
    let (Some(attest), Some(signature), Some(pcrs)) = (&beside.quote, &beside.quote_signature, &beside.pcrs) else {
        return Err(usage("there is no quote", "give --quote, --quote-signature and --pcrs"));
    };
    let attest = read(attest, QUOTE_BYTES_MAX)?;
    let mut signature = read(signature, QUOTE_BYTES_MAX)?;
    if signature.len() == 256 {
        signature = [&RSASSA_SHA256_256, signature.as_slice()].concat();
    }
    let statement = QuoteStatement::parse(&attest).ok();
    let quoted = statement.as_ref().and_then(QuoteStatement::sha256_pcrs);
    Ok(AzureQuote { attest, signature, pcrs: read_pcrs(pcrs, quoted)? })
}

/// TPMT_PUBLIC, also out of a TPM2B_PUBLIC.
fn read_ak(path: &Path) -> Result<Vec<u8>, Failure> {
    let bytes = read(path, QUOTE_BYTES_MAX)?;
    match bytes.split_first_chunk::<2>() {
        Some((size, rest)) if usize::from(u16::from_be_bytes(*size)) == rest.len() => Ok(rest.to_vec()),
        _ => Ok(bytes),
    }
}

/// The file of `--event-log`.
pub fn read_event_log(path: &Path) -> Result<Vec<u8>, Failure> {
    read(path, EVENT_LOG_BYTES_MAX)
}

fn report_missing() -> Failure {
    usage("there is no report", "give it with --report FILE")
}

fn usage(what: &str, next: &str) -> Failure {
    Failure::new(Kind::Usage, "evidence-arguments", what).next(next)
}
