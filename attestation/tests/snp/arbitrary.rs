//! Whatever bytes come, every reader answers, and none accepts more than it should.

use attestation::{
    Anchor, CertificateTable, CrlRule, EndorsedReport, HclReport, Report, SNP_REPORT_BYTES, SnpEvidence, SnpProduct,
    Trust, TrustAnchors,
};
use proptest::collection::vec;
use proptest::prelude::*;

use crate::vectors::{NOW, named, verify};

/// Bytes that get past the first checks of a report more often than random ones do.
fn nearly_a_report() -> impl Strategy<Value = Vec<u8>> {
    let changes = vec((0..SNP_REPORT_BYTES, any::<u8>()), 0..8);
    (0_u8..8, any::<[u8; 3]>(), changes).prop_map(|(version, cpu, changes)| {
        let mut report = vec![0; SNP_REPORT_BYTES];
        report[0] = version;
        report[0x0a] = 2;
        report[0x34] = 1;
        report[0x188..0x18b].copy_from_slice(&cpu);
        for (offset, byte) in changes {
            report[offset] = byte;
        }
        report
    })
}

proptest! {
    #[test]
    fn any_bytes_are_a_report_or_refused(bytes in vec(any::<u8>(), 0..1300)) {
        for product in [None, Some(SnpProduct::Milan), Some(SnpProduct::Genoa), Some(SnpProduct::Turin)] {
            if let Ok(report) = Report::parse(&bytes, product) {
                prop_assert_eq!(&report.as_bytes()[..], &bytes[..]);
            }
        }
    }

    #[test]
    fn report_that_is_read_is_kept_byte_by_byte(bytes in nearly_a_report()) {
        for product in SnpProduct::ALL {
            if let Ok(report) = Report::parse(&bytes, Some(product)) {
                prop_assert_eq!(&report.as_bytes()[..], &bytes[..]);
                prop_assert!((2..=5).contains(&report.version()));
                prop_assert_eq!(report.product(), product);
            }
        }
    }

    #[test]
    fn any_bytes_are_a_table_or_refused(bytes in vec(any::<u8>(), 0..600)) {
        if let Ok(table) = CertificateTable::parse(&bytes) {
            let total: usize = table.iter().map(|(_, data)| data.len()).sum();
            prop_assert!(total <= bytes.len());
        }
    }

    #[test]
    fn any_bytes_are_an_hcl_report_or_refused(bytes in vec(any::<u8>(), 0..1400)) {
        let mut framed = [b"HCLA\x01\0\0\0", bytes.as_slice()].concat();
        prop_assert!(HclReport::parse(&bytes).is_err());
        let _ = HclReport::parse(&framed);
        framed.truncate(40);
        prop_assert!(HclReport::parse(&framed).is_err());
    }

    #[test]
    fn no_bytes_are_certificates_of_a_chain(certificates in vec(vec(any::<u8>(), 0..300), 0..5)) {
        let evidence = SnpEvidence { report: vec![0; SNP_REPORT_BYTES], certificates, crls: Vec::new() };
        prop_assert!(verify(&evidence, NOW).is_err());
        let selected = SnpEvidence::select(evidence.report, &evidence.certificates, Vec::new());
        prop_assert!(selected.certificates.is_empty());
    }

    #[test]
    fn no_bytes_are_a_revocation_list(crl in vec(any::<u8>(), 0..300)) {
        if let Some(vector) = named("milan-v3-oc") {
            let mut evidence = vector.evidence;
            evidence.crls.push(crl);
            let anchors = TrustAnchors::built_in();
            let refused = EndorsedReport::verify(&evidence, &anchors, CrlRule::IfPresent, NOW).unwrap_err();
            prop_assert_eq!(refused.code(), "snp-crl-malformed");
        }
    }

    #[test]
    fn no_bytes_are_an_anchor(certificate in vec(any::<u8>(), 0..300)) {
        let anchor = Anchor { name: "soft".to_owned(), trust: Trust::Emulated, certificate };
        prop_assert!(TrustAnchors::built_in().with(anchor).is_err());
    }
}
