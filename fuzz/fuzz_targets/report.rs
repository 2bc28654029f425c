//! ATTESTATION_REPORT, under every product that a chain could name: what is read is kept byte by byte.
#![no_main]

use attestation::{Report, SnpProduct};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let products = SnpProduct::ALL.into_iter().map(Some).chain([None]);
    for report in products.filter_map(|product| Report::parse(data, product).ok()) {
        assert_eq!(report.as_bytes(), data);
        let _ = (report.current_tcb(), report.policy(), report.platform_info(), report.key_info(), report.cpuid());
        let _ = (report.is_provisional(), report.signature(), report.launch_mit_vector(), format!("{report:?}"));
    }
});
