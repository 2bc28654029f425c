//! Real evidence with one thing changed.

use std::thread;

use attestation::{
    CertificateError, CrlRule, EndorsedReport, Report, SnpCertificate, SnpError, TrustAnchors, VerifiedChain,
};
use serde_json::Value;

use crate::vectors::{NOW, Vector, all, folder, named, verify};

/// Endorses a changed report under the chain of its vector, which is verified once.
struct Endorser<'a> {
    vector: &'a Vector,
    chain: VerifiedChain,
    anchors: TrustAnchors,
}

impl<'a> Endorser<'a> {
    fn new(vector: &'a Vector) -> Self {
        let anchors = TrustAnchors::built_in();
        let chain = VerifiedChain::verify(&vector.evidence, &anchors, CrlRule::IfPresent, vector.now()).unwrap();
        Self { vector, chain, anchors }
    }

    fn refusal(&self, report: &[u8]) -> Option<SnpError> {
        let mut evidence = self.vector.evidence.clone();
        evidence.report = report.to_vec();
        let (rule, now) = (CrlRule::IfPresent, self.vector.now());
        EndorsedReport::verify_with_chain(&evidence, &self.chain, &self.anchors, rule, now).err()
    }
}

#[test]
fn every_single_bit_of_every_report_counts() {
    let vectors = all();
    thread::scope(|scope| {
        for vector in &vectors {
            scope.spawn(|| {
                let endorser = Endorser::new(vector);
                let mut report = vector.evidence.report.clone();
                for bit in 0..report.len() * 8 {
                    report[bit / 8] ^= 1 << (bit % 8);
                    let refusal = endorser.refusal(&report);
                    // A genuine report that is refused for what it says would be so whatever is changed in it.
                    assert!(
                        refusal.is_some_and(|error| error != SnpError::Debug),
                        "{}: bit {bit}: {refusal:?}",
                        vector.name
                    );
                    report[bit / 8] ^= 1 << (bit % 8);
                }
            });
        }
    });
}

#[test]
fn listed_mutations_are_refused_for_a_reason_of_their_class() {
    let Some(folder) = folder("snp") else { return };
    let listed: Value = serde_json::from_slice(&std::fs::read(folder.join("tampered.json")).unwrap()).unwrap();
    let mutations = listed["mutations"].as_array().unwrap();
    assert_eq!(mutations.len(), 26);
    for vector in all() {
        let endorser = Endorser::new(&vector);
        for mutation in mutations {
            let mut report = vector.evidence.report.clone();
            let offset = usize::try_from(mutation["offset"].as_u64().unwrap()).unwrap();
            match mutation["xor"].as_u64() {
                Some(mask) => report[offset] ^= u8::try_from(mask).unwrap(),
                None => report[offset] = 6,
            }
            let refusal = endorser.refusal(&report).unwrap();
            let reason = mutation["reason"].as_str().unwrap();
            assert!(is_of_class(&refusal, reason), "{}: {}: {refusal:?}", vector.name, mutation["name"]);
        }
    }
}

/// What a changed byte may be refused for. One that is checked before the signature is has another reason than that.
fn is_of_class(refusal: &SnpError, reason: &str) -> bool {
    match reason {
        "unsupported-version" => *refusal == SnpError::ReportVersion { found: 6 },
        "unsupported-algorithm" => matches!(refusal, SnpError::ReportSignatureAlgorithm { .. }),
        "reserved-nonzero" | "malformed-signature" => matches!(refusal, SnpError::ReportReservedNotZero { .. }),
        "signature" => matches!(
            refusal,
            SnpError::ReportSignatureInvalid
                // Byte 388 is reserved in every product, byte 392 in version 2 and the CPU's family in later ones.
                | SnpError::ReportReservedNotZero { offset: 388 | 392 }
                | SnpError::CpuUnknown { .. }
        ),
        other => panic!("{other}"),
    }
}

#[test]
fn report_that_is_cut_or_lengthened_is_refused() {
    for vector in all() {
        let endorser = Endorser::new(&vector);
        let report = &vector.evidence.report;
        let short = endorser.refusal(&report[..1183]);
        assert_eq!(short, Some(SnpError::ReportLength { found: 1183 }));
        assert_eq!(endorser.refusal(&[report, &[0][..]].concat()), Some(SnpError::ReportLength { found: 1185 }));
        assert_eq!(endorser.refusal(&[]), Some(SnpError::ReportLength { found: 0 }));
    }
}

#[test]
fn genuine_report_of_a_guest_that_may_be_debugged_is_refused_for_that() {
    let Some(vector) = named("milan-v2-debug-policy") else { return };
    assert_eq!(vector.verify().unwrap_err(), SnpError::Debug);
}

#[test]
fn expired_vlek_is_refused_for_that_and_was_good_before() {
    let Some(vector) = named("milan-v3-vlek") else { return };
    assert!(vector.verify().is_ok());
    let expired = SnpError::Certificate { certificate: SnpCertificate::Leaf, error: CertificateError::Expired };
    assert_eq!(verify(&vector.evidence, NOW).unwrap_err(), expired);
}

#[test]
fn report_of_version_2_needs_a_chain_to_say_its_product() {
    let Some(vector) = named("milan-v2-gcp") else { return };
    assert_eq!(Report::parse(&vector.evidence.report, None), Err(SnpError::ReportProductUnknown));
}
