//! An X.509 certificate, in every place of an EK chain and of an AMD chain, and as an anchor.
#![no_main]

use std::sync::LazyLock;

use attestation::{
    Anchor, CrlRule, EndorsedEk, SNP_REPORT_BYTES, SnpEvidence, Trust, TrustAnchors, UnixTime, VerifiedChain,
};
use libfuzzer_sys::fuzz_target;
use weightvault_fuzz::Recorded;

struct Scene {
    anchors: TrustAnchors,
    recorded: Recorded,
}

static SCENE: LazyLock<Scene> = LazyLock::new(|| {
    let recorded = Recorded::read();
    let anchor = Anchor { name: "recorded".to_owned(), trust: Trust::Emulated, certificate: recorded.anchor.clone() };
    Scene { anchors: TrustAnchors::built_in().with(anchor).expect("an authority"), recorded }
});

fuzz_target!(|data: &[u8]| {
    let Scene { anchors, recorded } = &*SCENE;
    let (certificate, now) = (data.to_vec(), UnixTime(recorded.now));
    let _ = EndorsedEk::verify(std::slice::from_ref(&certificate), anchors, now);
    let mut chain = recorded.ek_certificates.clone();
    chain.push(certificate.clone());
    let _ = EndorsedEk::verify(&chain, anchors, now);

    let chain = vec![certificate.clone(); 3];
    let evidence = SnpEvidence { report: vec![0; SNP_REPORT_BYTES], certificates: chain.clone(), crls: Vec::new() };
    // A root is in no place but its own, and no key of ours is pinned: no chain of one certificate holds.
    assert!(VerifiedChain::verify(&evidence, anchors, CrlRule::IfPresent, now).is_err());
    let _ = SnpEvidence::select(evidence.report, &chain, Vec::new());

    for trust in [Trust::Hardware, Trust::Emulated] {
        let anchor = Anchor { name: "another".to_owned(), trust, certificate: certificate.clone() };
        let _ = TrustAnchors::built_in().with(anchor);
    }
});
