//! What a file is, by its bytes.

use attestation::{CertificateTable, SNP_REPORT_BYTES};
use vault_proto::convert::EvidenceSet;

use super::load::HCL_MAGIC;

/// TPM_GENERATED_VALUE: every TPMS_ATTEST starts so.
const ATTEST_MAGIC: [u8; 4] = [0xff, 0x54, 0x43, 0x47];

/// What a file is. A kind that is added later has to be handled wherever one is.
#[derive(Debug)]
pub enum Detected<'a> {
    /// An evidence blob (FORMAT.md §3).
    Set(Box<EvidenceSet>),
    /// ATTESTATION_REPORT.
    Report(&'a [u8]),
    /// An HCL report of Azure's.
    Hcl(&'a [u8]),
    /// A host's certificate table.
    Table(CertificateTable<'a>),
    /// TPMS_ATTEST.
    Attest(&'a [u8]),
    /// A TCG event log, of whatever form.
    EventLog(&'a [u8]),
}

impl<'a> Detected<'a> {
    /// No two kinds can have the same bytes: a report has its length and a version first, and the others their magic. An
    /// event log begins with an event, which a certificate table can't: its first entry has no GUID of a certificate. That
    /// table has no magic, and is looked for last.
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
        if is_event_log(bytes) {
            return Some(Self::EventLog(bytes));
        }
        if let Ok(set) = EvidenceSet::from_blob(bytes) {
            return Some(Self::Set(Box::new(set)));
        }
        CertificateTable::parse(bytes).ok().filter(|table| table.iter().len() > 0).map(Self::Table)
    }
}

/// Whether the bytes begin as a log does: TCG_PCClientPCREvent with the signature of a Spec ID event, or, in the old form,
/// an event of the firmware's first PCRs (PCR 4, type 4, SHA-1 digest 20, length 4, data).
fn is_event_log(bytes: &[u8]) -> bool {
    let Some((header, data)) = bytes.split_first_chunk::<32>() else { return false };
    let number = |at: usize| u32::from_le_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]);
    let (pcr, event_type, length) = (number(0), number(4), number(28));
    let whole = usize::try_from(length).is_ok_and(|length| length <= data.len());
    let known = matches!(event_type, 1..=0x12 | 0x8000_0001..=0x8000_0010);
    pcr < 8 && known && (data.starts_with(b"Spec ID Event") || whole)
}
