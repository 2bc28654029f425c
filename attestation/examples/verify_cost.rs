//! What it costs to verify evidence, on one thread: JSON, microseconds. `cargo xtask bench --verify` runs it.
//!
//! `verify_cost RUNS VECTORS`: the report is `snp/milan-v3-oc` in `VECTORS`, under AMD's own roots; the TPM evidence is
//! recorded in this tree. Every run is one call, so that a slow one is seen.
#![allow(clippy::unwrap_used, reason = "what is measured has to be good evidence")]

use std::collections::HashMap;
use std::path::Path;
use std::time::Instant;

use attestation::{
    ActivationSecret, Anchor, Binding, CrlRule, EndorsedReport, EndorsedTpm, HpkePublicKey, LeaseKey, Load,
    LoadChallenge, PcrSelection, Report, Sha256Digest, SnpEvidence, TpmIdentity, TpmPart, TpmQuote, Trust,
    TrustAnchors, UnitSet, UnixTime, VerifiedChain, verify_tpm,
};
use serde_json::{Value, json};

/// 2026-07-01.
const NOW: UnixTime = UnixTime(1_782_864_000);

fn main() {
    let mut args = std::env::args().skip(1);
    let (Some(runs), Some(vectors)) = (args.next().and_then(|runs| runs.parse().ok()), args.next()) else {
        eprintln!("usage: verify_cost RUNS VECTORS");
        std::process::exit(2);
    };
    let mut rows = snp(&Path::new(&vectors).join("snp"), runs);
    rows.extend(tpm(runs));
    println!("{}", json!({ "runs": runs, "rows": rows }));
}

fn snp(vectors: &Path, runs: usize) -> Vec<Value> {
    let Ok(report) = std::fs::read(vectors.join("milan-v3-oc/report.bin")) else {
        eprintln!("no SNP rows: there is no milan-v3-oc in {}", vectors.display());
        return Vec::new();
    };
    let mut certificates = vec![std::fs::read(vectors.join("milan-v3-oc/vcek.der")).unwrap()];
    let issuers = std::fs::read_to_string(vectors.join("amd-roots/milan_ask_ark_asvk.pem")).unwrap();
    let end = "-----END CERTIFICATE-----\n";
    let blocks = issuers.split_inclusive(end).take(2);
    certificates.extend(blocks.map(|block| der::pem::decode_vec(block.trim().as_bytes()).unwrap().1));
    let evidence = SnpEvidence { report, certificates, crls: Vec::new() };
    let (anchors, rule) = (TrustAnchors::built_in(), CrlRule::IfPresent);
    let chain = VerifiedChain::verify(&evidence, &anchors, rule, NOW).unwrap();
    let product = chain.product();
    // As a keeper holds chains: found by what was sent.
    let kept = HashMap::from([(VerifiedChain::key(&evidence), chain)]);
    vec![
        row("snp, cold", runs, || EndorsedReport::verify(&evidence, &anchors, rule, NOW).unwrap()),
        row("snp, warm chain", runs, || {
            let chain = kept.get(&VerifiedChain::key(&evidence)).unwrap();
            EndorsedReport::verify_with_chain(&evidence, chain, &anchors, rule, NOW).unwrap()
        }),
        row("snp, report parsing", runs, || Report::parse(&evidence.report, Some(product)).unwrap()),
    ]
}

fn tpm(runs: usize) -> Vec<Value> {
    let recorded: Value = serde_json::from_str(include_str!("../tests/data/swtpm.json")).unwrap();
    let anchor = Anchor { name: "ci-tpm".to_owned(), trust: Trust::Emulated, certificate: bytes(&recorded["anchor"]) };
    let anchors = TrustAnchors::built_in().with(anchor).unwrap();
    let now = UnixTime(recorded["now"].as_u64().unwrap());
    let selection = PcrSelection::try_from([0, 1, 2, 7, 11].as_slice()).unwrap();
    let mut rows = Vec::new();
    for sent in recorded["quotes"].as_array().unwrap() {
        let ek_certificates = recorded["ek_certificates"].as_array().unwrap().iter().map(bytes).collect();
        let identity = TpmIdentity { ek_certificates, ek_public: Vec::new(), ak_public: bytes(&sent["ak_public"]) };
        let pcr = |index: u32| (index, bytes(&recorded["pcrs"][index.to_string()]).try_into().unwrap());
        let quote = TpmQuote {
            identity: identity.clone(),
            attest: bytes(&sent["attest"]),
            signature: bytes(&sent["signature"]),
            pcrs: selection.iter().map(pcr).collect(),
        };
        let tpm = EndorsedTpm::verify(&identity, &anchors, now).unwrap();
        let kind = sent["ak"].as_str().unwrap();
        rows.push(row(&format!("tpm, EK chain, {kind} AK"), runs, || {
            EndorsedTpm::verify(&identity, &anchors, now).unwrap()
        }));
        rows.push(row(&format!("tpm, quote, {kind} AK"), runs, || {
            verify_tpm(quote.clone(), &tpm, binding(&tpm, &sent["secret"]), &selection).unwrap()
        }));
    }
    rows
}

/// The challenge that the recorded quotes are for (`tests/data/README.md`).
fn binding(tpm: &EndorsedTpm, secret: &Value) -> Binding<Load> {
    let challenge = LoadChallenge {
        rule: "serve".to_owned(),
        model: "minilm".to_owned(),
        version: "1.0".to_owned(),
        session: [1; 16],
        nonce: [2; 32],
        vault: Sha256Digest::of(b"vault"),
        policy: Sha256Digest::of(b"policy"),
        manifest: Sha256Digest::of(b"manifest"),
        units: UnitSet::try_from(vec![0, 1, 2]).unwrap(),
        tpm: TpmPart::Activated {
            ak_name: *tpm.ak().name(),
            secret: ActivationSecret::from_bytes(bytes(secret).try_into().unwrap()),
        },
    };
    let hpke = HpkePublicKey::try_from([3; 1665].as_slice()).unwrap();
    challenge.bind(hpke, LeaseKey::try_from([4; 32].as_slice()).unwrap())
}

/// Median, least and most of `runs` calls, in microseconds.
fn row<T>(what: &str, runs: usize, call: impl Fn() -> T) -> Value {
    let time = || {
        let start = Instant::now();
        let result = std::hint::black_box(call());
        let time = start.elapsed().as_secs_f64() * 1e6;
        drop(result);
        time
    };
    let mut times: Vec<f64> = (0..runs.max(1)).map(|_| time()).collect();
    times.sort_by(f64::total_cmp);
    json!({ "what": what, "us": times[times.len() / 2], "least": times[0], "most": times[times.len() - 1] })
}

fn bytes(hex_text: &Value) -> Vec<u8> {
    hex::decode(hex_text.as_str().unwrap()).unwrap()
}
