//! What stands in the NV index of an Azure vTPM.
#![no_main]

use attestation::{HclReport, Report, SNP_REPORT_BYTES};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Ok(hcl) = HclReport::parse(data) else { return };
    assert_eq!(hcl.report().len(), SNP_REPORT_BYTES);
    assert!(hcl.runtime_data().len() <= data.len());
    let _ = Report::parse(hcl.report(), None);
});
