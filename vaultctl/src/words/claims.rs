//! What verified evidence shows.

use std::collections::BTreeMap;
use std::fmt;

use attestation::{Claims, EvidenceForm, QuoteClaims, Sha256Digest, SigningKey, SnpClaims, Trust, Workload};
use serde::Serialize;

use crate::print::span;

/// Claims of evidence, verified.
#[derive(Debug, Clone, Serialize)]
pub struct ClaimsReport {
    tier: Trust,
    form: String,
    anchor: String,
    platform: Sha256Digest,
    #[serde(skip_serializing_if = "Option::is_none")]
    snp: Option<SnpReport>,
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    quote: Option<QuoteReport>,
    /// Whether something says that the TPM measured this machine.
    #[serde(skip_serializing_if = "is_true")]
    tpm_bound: bool,
}

/// What a TPM quoted.
#[derive(Debug, Clone, Serialize)]
struct QuoteReport {
    ak_name: String,
    pcrs: BTreeMap<u32, String>,
    reset_count: u32,
    restart_count: u32,
    clock_ms: u64,
}

/// What a report shows, in short.
#[derive(Debug, Clone, Serialize)]
struct SnpReport {
    product: String,
    version: u32,
    signed_by: String,
    measurement: String,
    host_data: String,
    vmpl: u32,
    reported_tcb: String,
    committed_tcb: String,
    firmware: String,
    report_id: String,
}

impl ClaimsReport {
    /// What the proof rests on.
    pub fn tier(&self) -> Trust {
        self.tier
    }
}

impl From<&Claims> for ClaimsReport {
    fn from(claims: &Claims) -> Self {
        Self {
            tier: claims.trust(),
            form: EvidenceForm::of(claims).to_string(),
            anchor: claims.anchor().to_owned(),
            platform: claims.platform(),
            snp: claims.report().map(SnpReport::from),
            quote: claims.quote().map(QuoteReport::from),
            tpm_bound: match claims {
                Claims::Tpm { .. } | Claims::Snp(_) | Claims::SnpVtpm { .. } => true,
                Claims::SnpUnboundTpm { .. } => false,
            },
        }
    }
}

impl From<&QuoteClaims> for QuoteReport {
    fn from(quote: &QuoteClaims) -> Self {
        Self {
            ak_name: hex::encode(quote.ak_name().as_bytes()),
            pcrs: quote.pcrs().iter().map(|(index, value)| (*index, hex::encode(value))).collect(),
            reset_count: quote.reset_count(),
            restart_count: quote.restart_count(),
            clock_ms: quote.clock(),
        }
    }
}

impl From<&SnpClaims> for SnpReport {
    fn from(report: &SnpClaims) -> Self {
        Self {
            product: report.product().to_string(),
            version: report.version(),
            signed_by: match report.signing_key() {
                SigningKey::Vcek => "the chip (VCEK)".to_owned(),
                SigningKey::Vlek => format!("a cloud (VLEK), {}", report.csp_id().unwrap_or_default()),
            },
            measurement: hex::encode(report.measurement()),
            host_data: hex::encode(report.host_data()),
            vmpl: report.vmpl(),
            reported_tcb: report.reported_tcb().to_string(),
            committed_tcb: report.committed_tcb().to_string(),
            firmware: report.current_version().to_string(),
            report_id: hex::encode(report.report_id()),
        }
    }
}

impl fmt::Display for ClaimsReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "tier:      {}", tier_in_words(self.tier))?;
        writeln!(f, "evidence:  {}", self.form)?;
        writeln!(f, "anchor:    {}", self.anchor)?;
        writeln!(f, "platform:  {}", self.platform)?;
        if let Some(snp) = &self.snp {
            writeln!(f, "SNP:       {}, report version {}, signed by {}", snp.product, snp.version, snp.signed_by)?;
            writeln!(f, "launched:  {}", snp.measurement)?;
            writeln!(f, "host data: {}", snp.host_data)?;
            writeln!(f, "TCB:       {} reported, {} committed", snp.reported_tcb, snp.committed_tcb)?;
            writeln!(f, "firmware:  {}, VMPL {}", snp.firmware, snp.vmpl)?;
        }
        let Some(quote) = &self.quote else { return Ok(()) };
        if !self.tpm_bound {
            writeln!(f, "TPM:       UNBOUND: nothing says that it measured this guest")?;
        }
        writeln!(f, "AK name:   {}", quote.ak_name)?;
        let powered = span(quote.clock_ms / 1_000);
        writeln!(f, "boot:      reset {}, restart {}, TPM powered {powered}", quote.reset_count, quote.restart_count)?;
        quote.pcrs.iter().try_for_each(|(index, value)| writeln!(f, "PCR {index:>2}:    {value}"))
    }
}

/// The tier, and what it does not prove.
pub fn tier_in_words(tier: Trust) -> &'static str {
    match tier {
        Trust::Emulated => "EMULATED (a software TPM or a soft SNP platform: proves nothing about hardware)",
        Trust::Hardware => "hardware",
    }
}

/// What a guest said that it starts.
pub fn workload_in_words(workload: &Workload) -> String {
    let Workload { program, arguments, environment, image } = workload;
    let image = image.map_or_else(String::new, |image| format!(", image {image}"));
    format!("program {program}, arguments {arguments}, environment {environment}{image}")
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "what serde calls it with")]
fn is_true(value: &bool) -> bool {
    *value
}
