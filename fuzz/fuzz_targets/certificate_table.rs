//! The table of certificates that a host hands to its guest, and the choice of a chain out of it.
#![no_main]

use attestation::{CertificateTable, SNP_REPORT_BYTES};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Ok(table) = CertificateTable::parse(data) else { return };
    let held: usize = table.iter().map(|(_, entry)| entry.len()).sum();
    assert!(held <= data.len());
    let evidence = table.evidence(vec![0; SNP_REPORT_BYTES]);
    assert!(evidence.certificates.len() <= 3 && evidence.crls.len() <= 1);
});
