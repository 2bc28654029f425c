//! `vaultctl evidence verify --kind tpm`, and evidence blobs of every form.

use attestation::{AzureEvidence, AzureQuote, Evidence, SnpEvidence};
use serde_json::json;
use tempfile::TempDir;
use vault_proto::convert::EvidenceSet;

use crate::captured_evidence::authorities;
use crate::forge::tpm::SoftTpm;
use crate::scene::{Ended, PCRS, Scene, run, text};
use crate::vectors::{self, NOW, Vector};

/// A TPM in software, its evidence blob, and a policy that trusts its vendor.
pub(crate) struct TpmScene {
    pub(crate) scene: Scene,
    pub(crate) tpm: SoftTpm,
    files: TempDir,
}

impl TpmScene {
    pub(crate) fn new() -> Self {
        let mut tpm = SoftTpm::ecc();
        tpm.pcrs[11] = [0x77; 32];
        Self { scene: Scene::new(), tpm, files: tempfile::tempdir().unwrap() }
    }

    pub(crate) fn file(&self, name: &str, bytes: &[u8]) -> String {
        let path = self.files.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        text(&path).to_owned()
    }

    fn blob(&self, extra_data: &[u8]) -> String {
        self.blob_over(&PCRS, extra_data)
    }

    pub(crate) fn blob_over(&self, pcrs: &[u32], extra_data: &[u8]) -> String {
        let identity = self.tpm.identity(&self.scene.authority, &[]);
        let evidence = Evidence::Tpm(self.tpm.quote(&identity, pcrs, extra_data));
        self.file("evidence.bin", &EvidenceSet { evidence, event_log: None }.blob())
    }

    /// At a time at which the authority of the scene and its policy hold.
    pub(crate) fn verify(&self, args: &[&str], with_policy: bool) -> Ended {
        let policy = self.scene.path("policy.toml");
        let base = ["evidence", "verify", "--json", "--kind", "tpm", "--now", "2027-01-15T08:00:00Z"];
        let policy = ["--policy", text(&policy)];
        run(&[&base[..], if with_policy { &policy } else { &[] }, args].concat())
    }
}

#[test]
fn quote_of_a_tpm_verifies_under_the_anchors_of_a_policy_and_its_ak_stays_unbound() {
    let it = TpmScene::new();
    let blob = it.blob(b"nonce");
    let verdict = it.verify(&["--report", &blob, "--extra-data", "6e6f6e6365"], true).done();
    assert_eq!((&verdict["rule"], &verdict["freshness"]), (&json!("minilm"), &json!("checked against --extra-data")));
    assert!(verdict["notes"][0].as_str().unwrap().contains("not shown"), "{verdict}");
    let claims = &verdict["claims"];
    assert_eq!((&claims["tier"], &claims["anchor"]), (&json!("emulated"), &json!("vendor")));
    assert!(claims["tpm"]["bound_by"].as_str().unwrap().starts_with("nothing"), "{claims}");
    assert_eq!(claims["tpm"]["pcrs"]["11"], "77".repeat(32));
    it.verify(&["--report", &blob, "--extra-data", "6e6f"], true).refused("binding-mismatch");
    it.verify(&["--report", &blob], false).refused("ek-anchor-unknown");
}

#[test]
fn quote_of_a_tpm_is_read_out_of_its_files() {
    let it = TpmScene::new();
    let identity = it.tpm.identity(&it.scene.authority, &[]);
    let quote = it.tpm.quote(&identity, &PCRS, b"nonce");
    let sized = [&u16::try_from(identity.ak_public.len()).unwrap().to_be_bytes()[..], &identity.ak_public].concat();
    let pcrs: std::collections::BTreeMap<String, String> =
        quote.pcrs.iter().map(|(index, value)| (index.to_string(), hex::encode(value))).collect();
    let (ek, ak) = (it.file("ek.der", &identity.ek_certificates[0]), it.file("ak.pub", &sized));
    let (attest, signature) = (it.file("quote.msg", &quote.attest), it.file("quote.sig", &quote.signature));
    let pcrs = it.file("pcrs.json", &serde_json::to_vec(&pcrs).unwrap());
    let quote = ["--quote", &attest, "--quote-signature", &signature, "--pcrs", &pcrs, "--chain", &ek];
    let claims = it.verify(&[&quote[..], &["--ak", &ak]].concat(), true).verified();
    let name = attestation::AttestationKey::parse(&identity.ak_public).unwrap();
    assert_eq!(claims["tpm"]["ak_name"], hex::encode(name.name().as_bytes()));
    it.verify(&quote, true).fails(2, "evidence-arguments");
    let other = it.file("other.pub", &SoftTpm::ecc().ak_public.bytes());
    it.verify(&[&quote[..], &["--ak", &other]].concat(), true).refused("quote-signature-invalid");
}

#[test]
fn quote_that_a_rule_does_not_allow_is_refused_with_the_key_that_asks() {
    let mut it = TpmScene::new();
    it.tpm.pcrs[11] = [0x78; 32];
    let blob = it.blob(b"nonce");
    let refusal = it.verify(&["--report", &blob], true).refused("pcr-not-allowed");
    assert_eq!(refusal["policy_key"], "release.minilm.pcrs.11");
    assert_eq!(refusal["claim"], "boot state");
    assert!(refusal["seen"].as_str().unwrap().contains(&"78".repeat(32)), "{refusal}");
    it.verify(&["--report", &blob, "--rule", "other"], true).fails(2, "rule-unknown");
    let policy = it.scene.path("policy.toml");
    let args = ["evidence", "verify", "--json", "--kind", "tpm", "--report", &blob, "--policy", text(&policy), "--now"];
    run(&[&args[..], &["2036-04-01T00:00:00Z"]].concat()).refused("policy-expired");
}

#[test]
fn evidence_blob_of_each_form_is_taken_under_its_own_kind_alone() {
    let (Some(snp), Some(azure)) =
        (vectors::named("snp", "genoa-v5-live"), vectors::named("azure-snp-vtpm", "azure-milan-v3"))
    else {
        return;
    };
    let chain = |vector: &Vector| {
        let [ask, ark, _] = authorities(&std::fs::read_to_string(vector.roots()).unwrap());
        vec![vector.bytes("vcek.der"), ask, ark]
    };
    let report = SnpEvidence { report: snp.bytes("report.bin"), certificates: chain(&snp), crls: Vec::new() };
    let it = TpmScene::new();
    let quote = it.tpm.quote(&it.tpm.identity(&it.scene.authority, &[]), &PCRS, b"nonce");
    let write = |name: &str, evidence: Evidence| it.file(name, &EvidenceSet { evidence, event_log: None }.blob());
    let files = [
        ("snp", write("snp", Evidence::Snp(report.clone()))),
        ("tpm", write("tpm", Evidence::Tpm(quote.clone()))),
        ("azure-snp-vtpm", write("azure", Evidence::AzureSnpVtpm(azure_evidence(&azure, chain(&azure))))),
    ];
    let verify =
        |kind: &str, file: &str| run(&["evidence", "verify", "--json", "--kind", kind, "--report", file, "--now", NOW]);
    for (kind, _) in &files {
        for (_, file) in files.iter().filter(|(other, _)| other != kind) {
            verify(kind, file).refused("evidence-form-mismatch");
        }
    }
    verify("snp", &files[0].1).verified();
    verify("azure-snp-vtpm", &files[2].1).refused("hcl-ak-mismatch");
    let both = write("both", Evidence::SnpTpm { report, quote });
    assert!(verify("snp", &both).done()["notes"][0].as_str().unwrap().contains("nothing binds that TPM"));
}

/// The vector as a guest would send it, with another AK: the vectors have no public area of theirs.
fn azure_evidence(vector: &Vector, certificates: Vec<Vec<u8>>) -> AzureEvidence {
    let pcrs: Vec<String> = serde_json::from_slice(&vector.bytes("tpm-pcrs.json")).unwrap();
    let pcrs = (0..).zip(pcrs).map(|(index, value)| (index, hex::decode(value).unwrap().try_into().unwrap())).collect();
    let signature = [&[0x00, 0x14, 0x00, 0x0b, 0x01, 0x00][..], &vector.bytes("tpm-quote.sig")].concat();
    AzureEvidence {
        hcl_report: vector.bytes("hcl-report.bin"),
        certificates,
        crls: Vec::new(),
        ak_public: SoftTpm::rsa().ak_public.bytes(),
        quote: AzureQuote { attest: vector.bytes("tpm-quote.msg"), signature, pcrs },
    }
}
