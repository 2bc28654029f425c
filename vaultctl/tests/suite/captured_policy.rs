//! Captured evidence against a rule, and the rule that `vaultctl policy draft` writes out of it.

use serde_json::json;
use tempfile::TempDir;

use crate::captured_evidence::verify_azure;
use crate::forge::tpm::SoftTpm;
use crate::scene::{Ended, PCRS, Scene, run, text};
use crate::vectors::{self, NOW, Vector, policy_with};

/// A vector, and the rule that was drafted from it, which does without a revocation list: the vectors have none.
struct Drafted {
    vector: Vector,
    rule: String,
    directory: TempDir,
}

impl Drafted {
    fn new(folder: &str, name: &str) -> Option<Self> {
        let vector = vectors::named(folder, name)?;
        let rule = draft(&vector).replace("crl = \"required\"", "crl = \"if-present\"");
        Some(Self { vector, rule, directory: tempfile::tempdir().unwrap() })
    }

    /// Verifies the vector against the rule, changed in one place.
    fn verify(&self, from: &str, to: &str) -> Ended {
        assert!(self.rule.contains(from), "{from} is not in\n{}", self.rule);
        let policy = self.directory.path().join("policy.toml");
        std::fs::write(&policy, policy_with(&self.rule.replacen(from, to, 1))).unwrap();
        match self.vector.expected.get("azure") {
            Some(_) => verify_azure(&self.vector, &[], &["--policy", text(&policy)]),
            None => self.vector.verify(&["--policy", text(&policy)]),
        }
    }

    /// Verifies it against a rule with another line in the place of the one that starts so.
    fn verify_line(&self, start: &str, line: &str) -> Ended {
        let old =
            self.rule.lines().find(|old| old.starts_with(start)).unwrap_or_else(|| panic!("{start}\n{}", self.rule));
        self.verify(old, line)
    }
}

/// `policy draft` of a vector, verified by its chain.
fn draft(vector: &Vector) -> String {
    let (leaf, roots) = (vector.leaf(), vector.roots());
    let mut args = vec!["policy", "draft", "--chain", text(&leaf), "--chain", text(roots), "--now", vector.now()];
    let paths = ["report.bin", "hcl-report.bin", "tpm-quote.msg", "tpm-quote.sig", "tpm-pcrs.json"]
        .map(|name| vector.path(name));
    let [report, hcl, quote, signature, pcrs] = paths.each_ref().map(|path| text(path));
    match vector.expected.get("azure") {
        Some(_) => args.extend(["--from", hcl, "--quote", quote, "--quote-signature", signature, "--pcrs", pcrs]),
        None => args.extend(["--from", report]),
    }
    let ended = run(&args);
    assert_eq!(ended.code, 0, "{}{}", vector.name(), ended.stderr);
    assert!(ended.stdout.contains("# The evidence verified at"), "{}", ended.stdout);
    ended.stdout
}

#[test]
fn drafted_rule_parses_in_a_policy_and_is_strict_about_its_own_evidence_too() {
    let all = vectors::all("snp").into_iter().chain(vectors::all("azure-snp-vtpm"));
    for vector in all.filter(|vector| vector.expected["fields"]["policy_bits"]["debug"] == 0) {
        let folder = if vector.expected.get("azure").is_some() { "azure-snp-vtpm" } else { "snp" };
        let drafted = Drafted::new(folder, vector.name()).unwrap();
        let ended = drafted.verify("[release.drafted]", "[release.drafted]");
        // The committed TCB is the least one even where the host reports less; then the draft says so.
        let said = drafted.rule.contains("# This very evidence would be refused: its reported TCB");
        assert_eq!(said, reports_less_than_committed(&vector), "{}", vector.name());
        if said {
            ended.refused("snp-reported-tcb-below-minimum");
        } else {
            let verdict = ended.done();
            assert_eq!(verdict["rule"], "drafted");
            assert!(verdict["policy"].as_str().unwrap().starts_with("sha256:"), "{verdict}");
        }
        let strict = drafted.verify("crl = \"if-present\"", "crl = \"required\"").refused("snp-crl-missing");
        assert_eq!(strict["expected"], "a revocation list in force");
    }
}

fn reports_less_than_committed(vector: &Vector) -> bool {
    let level = |tcb: &str, part: &str| vector.field(tcb)[part].as_u64();
    let parts = ["fmc", "bootloader", "tee", "snp", "microcode"];
    parts.iter().any(|part| level("reported_tcb", part) < level("committed_tcb", part))
}

/// What is changed in the rule, the code, and the key of the policy that asks.
type Case = (&'static str, &'static str, &'static str, &'static str);

#[test]
fn each_key_of_a_rule_has_its_own_refusal() {
    let Some(genoa) = Drafted::new("snp", "genoa-v5-live") else { return };
    let tcb = "{ bootloader = 10, tee = 0, snp = 27, microcode = 28 }";
    let product = "min_tcb = { turin = { fmc = 0, bootloader = 0, tee = 0, snp = 0, microcode = 0 } }";
    let cases: [Case; 12] = [
        ("measurements", "measurements = [\"48\"]", "snp-measurement-not-allowed", "measurements"),
        ("chips", "chips = [\"sha256:32\"]", "snp-chip-not-listed", "chips"),
        ("min_tcb", product, "snp-product-not-listed", "min_tcb"),
        ("min_tcb", "min_tcb = { genoa = TCB }", "snp-current-tcb-below-minimum", "min_tcb.genoa"),
        ("vmpl", "vmpl = 1", "snp-vmpl-not-allowed", "vmpl"),
        ("smt", "smt = false", "snp-smt-not-allowed", "smt"),
        ("host_data", "host_data = [\"32\"]", "snp-host-data-not-allowed", "host_data"),
        ("min_guest_svn", "min_guest_svn = 1", "snp-guest-svn-below-minimum", "min_guest_svn"),
        ("min_guest_svn", "id_keys = [\"48\"]", "snp-id-key-not-allowed", "id_keys"),
        ("min_guest_svn", "author_keys = [\"48\"]", "snp-author-key-not-allowed", "author_keys"),
        ("min_firmware", "min_firmware = \"1.55.50\"", "snp-firmware-below-minimum", "min_firmware"),
        ("platform", "platform = [\"tsme\"]", "snp-platform-feature-missing", "platform"),
    ];
    for (start, line, code, key) in cases {
        let line = line.replace("TCB", tcb).replace("\"48\"", &format!("\"{}\"", "5".repeat(96)));
        let line = line.replace("sha256:32", &format!("sha256:{}", "5".repeat(64)));
        let line = line.replace("\"32\"", &format!("\"{}\"", "5".repeat(64)));
        let refusal = genoa.verify_line(start, &line).refused(code);
        assert_eq!(refusal["policy_key"], format!("release.drafted.snp.{key}"), "{refusal}");
        assert_eq!(refusal["freshness"], "not checked");
    }
}

#[test]
fn keys_that_only_some_reports_miss_have_their_own_refusals_too() {
    let Some(old) = Drafted::new("snp", "milan-v2-gcp") else { return };
    old.verify_line("min_report_version", "min_report_version = 3").refused("snp-report-version-below-minimum");
    let cloud = Drafted::new("snp", "milan-v3-vlek").unwrap();
    let refusal = cloud.verify_line("csps", "csps = [\"CN=another\"]").refused("snp-csp-not-listed");
    assert_eq!(refusal["policy_key"], "release.drafted.snp.csps");
    // A rule for a cloud's key lets no chip's own key in.
    assert!(cloud.rule.contains("so no chip's own key may sign"), "{}", cloud.rule);
    let azure = Drafted::new("azure-snp-vtpm", "azure-milan-v2").unwrap();
    azure.verify("provisional_firmware = true", "provisional_firmware = false").refused("snp-provisional-firmware");
    let refusal = azure.verify_line("7 = ", &format!("7 = [\"{}\"]", "7".repeat(64))).refused("pcr-not-allowed");
    assert_eq!(refusal["policy_key"], "release.drafted.pcrs.7");
}

#[test]
fn evidence_of_another_kind_than_the_rule_wants_is_refused() {
    let Some(genoa) = Drafted::new("snp", "genoa-v5-live") else { return };
    let azure = Drafted::new("azure-snp-vtpm", "azure-genoa-v3").unwrap();
    let policy = genoa.directory.path().join("azure.toml");
    std::fs::write(&policy, policy_with(&azure.rule)).unwrap();
    let refusal = genoa.vector.verify(&["--policy", text(&policy)]).refused("proof-missing");
    assert_eq!((&refusal["expected"], &refusal["seen"]), (&json!("azure-snp-vtpm"), &json!("snp")));
}

#[test]
fn draft_of_evidence_that_nobody_verified_says_so() {
    let Some(genoa) = vectors::named("snp", "genoa-v5-live") else { return };
    let report = genoa.path("report.bin");
    let ended = run(&["policy", "draft", "--json", "--name", "llama", "--from", text(&report)]).done();
    assert_eq!((&ended["verified"], &ended["kind"]), (&json!(false), &json!("snp")));
    let rule = ended["toml"].as_str().unwrap();
    assert!(rule.contains("# NOT VERIFIED") && rule.contains("[release.llama.snp]"), "{rule}");
    // The rule is the same one: a report of version 3 or later names its processor itself.
    let chips = |rule: &str| rule.lines().find(|line| line.starts_with("chips")).map(str::to_owned);
    assert_eq!(chips(rule), chips(&draft(&genoa)));
}

#[test]
fn no_rule_is_drafted_from_evidence_that_does_not_hold_or_does_not_say_enough() {
    let draft = |args: &[&str]| run(&[&["policy", "draft", "--json"], args].concat());
    let (Some(debug), Some(old)) =
        (vectors::named("snp", "milan-v2-debug-policy"), vectors::named("snp", "milan-v2-gcp"))
    else {
        return;
    };
    let (report, leaf, roots) = (debug.path("report.bin"), debug.leaf(), debug.roots());
    let args = ["--from", text(&report), "--chain", text(&leaf), "--chain", text(roots), "--now", NOW];
    draft(&args).fails(4, "snp-debug-allowed");
    draft(&["--from", text(&old.path("report.bin"))]).fails(2, "chain-missing");
    let vlek = vectors::named("snp", "milan-v3-vlek").unwrap();
    draft(&["--from", text(&vlek.path("report.bin"))]).fails(2, "chain-missing");
    draft(&["--from", text(&old.leaf())]).fails(2, "evidence-unknown");
    draft(&["--from", text(&report), "--name", "Not A Name"]).fails(2, "name-malformed");
    assert_eq!(draft(&[]).code, 2);
}

#[test]
fn rule_for_a_tpm_is_drafted_with_its_ek_and_its_pcrs() {
    let scene = Scene::new();
    let mut tpm = SoftTpm::ecc();
    tpm.pcrs[11] = [0x77; 32];
    let evidence = attestation::Evidence::Tpm(tpm.quote(&tpm.identity(&scene.authority, &[]), &PCRS, b"nonce"));
    let file = scene.path("evidence.bin");
    std::fs::write(&file, vault_proto::convert::EvidenceSet { evidence, event_log: None }.blob()).unwrap();
    let policy = scene.path("policy.toml");
    let claimed = run(&["policy", "draft", "--from", text(&file)]).stdout;
    assert!(claimed.contains("# NOT VERIFIED"), "{claimed}");
    let args = ["policy", "draft", "--from", text(&file), "--policy", text(&policy), "--now", "2027-01-15T08:00:00Z"];
    let verified = run(&args).stdout;
    assert!(verified.contains("under vendor (emulated)"), "{verified}");
    let rule = |text: &str| text[text.find("[release.").unwrap()..].to_owned();
    assert_eq!(rule(&claimed), rule(&verified), "the EK is the claimed one");
    // In a policy with the anchor of the scene the evidence verifies against it.
    let full = scene.policy("genesis", 1, "none");
    let (before, release_on) = full.split_once("[release.minilm]").unwrap();
    let (_, audit) = release_on.split_once("[audit]").unwrap();
    let drafted = scene.path("drafted.toml");
    std::fs::write(&drafted, format!("{before}{}\n[audit]{audit}", rule(&verified))).unwrap();
    let args = ["evidence", "verify", "--kind", "tpm", "--report", text(&file), "--policy", text(&drafted)];
    assert_eq!(scene.run(&[&args[..], &["--now", "2027-01-15T08:00:00Z"]].concat()).done()["rule"], "drafted");
}
