//! A revocation list beside a chain that holds, which is read from `WEIGHTVAULT_VECTORS` (`snp/milan-v3-oc`, and AMD's roots).
//! Unless AMD signed it, a list is refused.
#![no_main]

use std::path::PathBuf;
use std::sync::LazyLock;

use attestation::{CrlRule, SnpEvidence, TrustAnchors, UnixTime, VerifiedChain};
use libfuzzer_sys::fuzz_target;

/// 2026-07-01.
const NOW: UnixTime = UnixTime(1_782_864_000);

static GOOD: LazyLock<(TrustAnchors, SnpEvidence)> = LazyLock::new(|| {
    let vectors =
        PathBuf::from(std::env::var_os("WEIGHTVAULT_VECTORS").expect("WEIGHTVAULT_VECTORS is set")).join("snp");
    let read = |path: &str| std::fs::read(vectors.join(path)).expect("the vector is there");
    let roots = String::from_utf8(read("amd-roots/milan_ask_ark_asvk.pem")).expect("PEM is text");
    let mut certificates = weightvault_fuzz::from_pem(&roots);
    certificates.truncate(2);
    certificates.insert(0, read("milan-v3-oc/vcek.der"));
    let evidence = SnpEvidence { report: Vec::new(), certificates, crls: Vec::new() };
    let anchors = TrustAnchors::built_in();
    VerifiedChain::verify(&evidence, &anchors, CrlRule::IfPresent, NOW).expect("the chain holds");
    (anchors, evidence)
});

fuzz_target!(|data: &[u8]| {
    let (anchors, evidence) = &*GOOD;
    let mut evidence = evidence.clone();
    evidence.crls.push(data.to_vec());
    let _ = VerifiedChain::verify(&evidence, anchors, CrlRule::IfPresent, NOW);
});
