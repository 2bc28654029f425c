//! What a file is, by its bytes.

use attestation::{CertificateTable, Evidence, SNP_REPORT_BYTES};
use vault_proto::convert::EvidenceSet;

use super::load::HCL_MAGIC;

/// TPM_GENERATED_VALUE: every TPMS_ATTEST starts so.
const ATTEST_MAGIC: [u8; 4] = [0xff, 0x54, 0x43, 0x47];

/// What a file is. A kind that is added later has to be handled wherever one is.
#[derive(Debug)]
pub enum Detected<'a> {
    /// An evidence blob (FORMAT.md §3).
    Set(Box<Evidence>),
    /// ATTESTATION_REPORT.
    Report(&'a [u8]),
    /// An HCL report of Azure's.
    Hcl(&'a [u8]),
    /// A host's certificate table.
    Table(CertificateTable<'a>),
    /// TPMS_ATTEST.
    Attest(&'a [u8]),
}

impl<'a> Detected<'a> {
    /// No two kinds can have the same bytes: a report has its length and a version first, and the others their magic. A
    /// certificate table has neither, and is looked for last.
    pub fn of(bytes: &'a [u8]) -> Option<Self> {
        if bytes.len() == SNP_REPORT_BYTES && (1..=u8::MAX).contains(&bytes[0]) && bytes[1..4] == [0; 3] {
            return Some(Self::Report(bytes));
        }
        if bytes.starts_with(HCL_MAGIC) {
            return Some(Self::Hcl(bytes));
        }
        if bytes.starts_with(&ATTEST_MAGIC) {
            return Some(Self::Attest(bytes));
        }
        if let Ok(set) = EvidenceSet::from_blob(bytes) {
            return Some(Self::Set(Box::new(set.evidence)));
        }
        CertificateTable::parse(bytes).ok().filter(|table| table.iter().len() > 0).map(Self::Table)
    }
}
