//! `vaultctl evidence verify --kind …`: real evidence, and what must not pass for it.

use serde_json::{Value, json};

use crate::scene::{Ended, run, text};
use crate::vectors::{self, NOW, Vector};

#[test]
fn every_real_report_verifies_with_all_its_claims_or_is_refused_for_its_own_reason() {
    for vector in vectors::all("snp") {
        let ended = vector.verify(&[]);
        if vector.expected["fields"]["policy_bits"]["debug"] == 1 {
            let refusal = ended.refused("snp-debug-allowed");
            assert_eq!(refusal["seen"], *vector.field("policy"));
            continue;
        }
        let verdict = ended.done();
        assert_eq!((&verdict["policy"], &verdict["freshness"]), (&json!("none"), &json!("not checked")));
        let claims = ended.verified();
        assert_eq!(claims["tier"], "hardware");
        assert_eq!(
            claims["anchor"].as_str(),
            Some(&*format!("amd-{}", vector.expected["generation"].as_str().unwrap()))
        );
        check_report(&vector, &claims["snp"]);
    }
}

fn check_report(vector: &Vector, report: &Value) {
    let same = [
        "version",
        "guest_svn",
        "vmpl",
        "family_id",
        "image_id",
        "report_data",
        "measurement",
        "host_data",
        "id_key_digest",
        "author_key_digest",
        "report_id",
        "report_id_ma",
        "reported_tcb",
        "current_tcb",
        "committed_tcb",
        "launch_tcb",
        "cpuid",
    ];
    for field in same {
        assert_eq!(report[field], *vector.field(field), "{field} of {}", vector.name());
    }
    assert_eq!(report["policy"]["bits"], *vector.field("policy"));
    assert_eq!(report["policy"]["smt"], vector.field("policy_bits")["smt"] == 1);
    assert_eq!(report["platform_info"]["bits"], *vector.field("platform_info"));
    for bit in ["smt_en", "tsme_en", "ecc_en", "rapl_dis", "alias_check_complete", "tio_en"] {
        assert_eq!(report["platform_info"][bit], vector.field("platform_bits")[bit] == 1, "{bit}");
    }
    assert_eq!(report["signing_key"], vector.expected["vek"]);
    let masked = vector.field("chip_id").as_str().unwrap().bytes().all(|digit| digit == b'0');
    assert_eq!(report["chip_id"], if masked { Value::Null } else { vector.field("chip_id").clone() });
    assert_eq!(report["csp_id"].is_string(), vector.is_vlek());
    let build = vector.field("current_build");
    let version = format!("{}.{build}", vector.field("current_version").as_str().unwrap());
    assert_eq!(report["current_version"], version);
    assert_eq!(report["crl"]["status"], "absent");
}

#[test]
fn answer_to_a_person_says_what_was_not_checked_and_has_the_claims_as_json() {
    let Some(vector) = vectors::named("snp", "genoa-v5-live") else { return };
    let (report, leaf) = (vector.path("report.bin"), vector.leaf());
    let args = ["evidence", "verify", "--kind", "snp", "--report", text(&report), "--chain", text(&leaf), "--now", NOW];
    let ended = run(&[&args[..], &["--chain", text(vector.roots())]].concat());
    assert_eq!(ended.code, 0, "{}", ended.stderr);
    assert!(ended.stdout.starts_with("VERIFIED: snp"), "{}", ended.stdout);
    assert!(ended.stdout.contains("policy: none, freshness: not checked\n{"), "{}", ended.stdout);
    let claims: Value = serde_json::from_str(&ended.stdout[ended.stdout.find('{').unwrap()..]).unwrap();
    assert_eq!(claims["snp"]["measurement"], *vector.field("measurement"));
    let ended = run(&args);
    assert_eq!(ended.code, 1);
    for said in
        ["REFUSED: snp", "[snp-certificate-missing]", "expected: ", "seen: ", "policy: none, freshness: not checked"]
    {
        assert!(ended.stdout.contains(said), "{said}: {}", ended.stdout);
    }
}

#[test]
fn certificate_that_ran_out_is_refused_for_that() {
    let Some(vector) = vectors::named("snp", "milan-v3-vlek") else { return };
    let (report, leaf) = (vector.path("report.bin"), vector.leaf());
    let args = ["evidence", "verify", "--kind", "snp", "--report", text(&report), "--chain", text(&leaf), "--json"];
    run(&[&args[..], &["--chain", text(vector.roots()), "--now", NOW]].concat()).refused("certificate-expired");
    run(&[&args[..], &["--chain", text(vector.roots()), "--now", "2024-01-01T00:00:00Z"]].concat())
        .refused("certificate-not-yet-valid");
}

#[test]
fn every_tampered_report_is_refused() {
    let Some(folder) = vectors::folder("snp") else { return };
    let tampered: Value = serde_json::from_slice(&std::fs::read(folder.join("tampered.json")).unwrap()).unwrap();
    let mutations = tampered["mutations"].as_array().unwrap();
    assert_eq!(mutations.len(), 26);
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("report.bin");
    for vector in ["milan-v2-gcp", "genoa-v5-live", "turin-v5-oc"].map(|name| vectors::named("snp", name).unwrap()) {
        for mutation in mutations {
            let mut report = vector.bytes("report.bin");
            let byte = &mut report[usize::try_from(mutation["offset"].as_u64().unwrap()).unwrap()];
            match mutation["xor"].as_u64() {
                Some(bits) => *byte ^= u8::try_from(bits).unwrap(),
                None => *byte = 6,
            }
            std::fs::write(&file, report).unwrap();
            let ended = vector.verify_report(&file, &[]);
            let verdict: Value = serde_json::from_str(&ended.stdout).unwrap();
            assert_eq!((ended.code, &verdict["verified"]), (1, &json!(false)), "{} {mutation}", vector.name());
        }
        let report = vector.bytes("report.bin");
        for other in [&report[..1183], &[report.as_slice(), &[0]].concat()] {
            std::fs::write(&file, other).unwrap();
            let refusal = vector.verify_report(&file, &[]).refused("snp-report-length");
            assert_eq!(
                (&refusal["expected"], &refusal["seen"]),
                (&json!("1184 bytes"), &json!(other.len().to_string()))
            );
        }
    }
}

#[test]
fn chain_of_another_chip_kind_or_product_is_refused() {
    let all = vectors::all("snp");
    let of = |name: &str| all.iter().find(|vector| vector.name() == name);
    let (Some(gcp), Some(azure), Some(vlek)) = (of("milan-v2-gcp"), of("milan-v2-azure"), of("milan-v3-vlek")) else {
        return;
    };
    let genoa = of("genoa-v5-live").unwrap();
    let verify = |report: &Vector, leaf: &Vector, roots: &Vector| {
        let (report, leaf, now) = (report.path("report.bin"), leaf.leaf(), report.now());
        let args = ["evidence", "verify", "--json", "--kind", "snp", "--report", text(&report), "--now", now];
        run(&[&args[..], &["--chain", text(&leaf), "--chain", text(roots.roots())]].concat())
    };
    verify(gcp, azure, gcp).refused("snp-report-signature-invalid");
    verify(gcp, gcp, genoa).refused("snp-certificate-missing");
    verify(gcp, vlek, gcp).refused("snp-certificate-missing");
    verify(vlek, gcp, gcp).refused("snp-certificate-missing");
}

#[test]
fn certificates_come_in_any_order_and_form() {
    let Some(vector) = vectors::named("snp", "milan-v3-oc") else { return };
    let directory = tempfile::tempdir().unwrap();
    let write = |name: &str, bytes: &[u8]| {
        let path = directory.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        path
    };
    let report = vector.path("report.bin");
    let verify = |chain: &std::path::Path| {
        let args =
            ["evidence", "verify", "--json", "--kind", "snp", "--report", text(&report), "--now", NOW, "--chain"];
        run(&[&args[..], &[text(chain)]].concat())
    };
    let pem = std::fs::read_to_string(vector.roots()).unwrap();
    let leaf = base64::Engine::encode(&base64::prelude::BASE64_STANDARD, vector.bytes("vcek.der"));
    let block = format!("-----BEGIN CERTIFICATE-----\n{leaf}\n-----END CERTIFICATE-----\n");
    verify(&write("last.pem", format!("{pem}{block}").as_bytes())).verified();
    verify(&write("first.pem", format!("{block}{pem}").as_bytes())).verified();
    let [ask, ark, _] = authorities(&pem);
    verify(&write("auxblob", &table(&[(ARK, &ark), (VCEK, &vector.bytes("vcek.der")), (ASK, &ask)]))).verified();
    verify(&write("bare", &table(&[(VCEK, &vector.bytes("vcek.der"))]))).refused("snp-certificate-missing");
    let ended = verify(&write("junk", b"certainly no certificate, nor a table of any"));
    ended.fails(2, "certificates-unreadable");
}

const VCEK: [u8; 16] = *b"\x63\xda\x75\x8d\xe6\x64\x45\x64\xad\xc5\xf4\xb9\x3b\xe8\xac\xcd";
const ASK: [u8; 16] = *b"\x4a\xb7\xb3\x79\xbb\xac\x4f\xe4\xa0\x2f\x05\xae\xf3\x27\xc7\x82";
const ARK: [u8; 16] = *b"\xc0\xb4\x06\xa4\xa8\x03\x49\x52\x97\x43\x3f\xb6\x01\x4c\xd0\xae";

/// A certificate table: heads of GUID, offset and length, an empty one, then the data.
pub(crate) fn table(entries: &[([u8; 16], &[u8])]) -> Vec<u8> {
    let mut offset = (entries.len() + 1) * 24;
    let mut bytes = Vec::new();
    for (guid, data) in entries {
        let number = |number: usize| u32::try_from(number).unwrap().to_le_bytes();
        bytes.extend([&guid[..], &number(offset), &number(data.len())].concat());
        offset += data.len();
    }
    bytes.extend([0; 24]);
    bytes.extend(entries.iter().flat_map(|(_, data)| *data));
    bytes
}

/// ASK, ARK, ASVK of a PEM file.
pub(crate) fn authorities(pem: &str) -> [Vec<u8>; 3] {
    let blocks = pem.split("-----BEGIN CERTIFICATE-----").skip(1);
    let body = |block: &str| block.split("-----END").next().unwrap_or_default().split_whitespace().collect::<String>();
    let decode = |body: String| base64::Engine::decode(&base64::prelude::BASE64_STANDARD, body).unwrap();
    blocks.map(|block| decode(body(block))).collect::<Vec<_>>().try_into().unwrap()
}

#[test]
fn report_data_is_compared_in_full() {
    let Some(vector) = vectors::named("snp", "genoa-v5-live") else { return };
    let own = vector.field("report_data").as_str().unwrap().to_owned();
    let ended = vector.verify(&["--report-data", &own.to_uppercase()]);
    assert_eq!(ended.done()["freshness"], "checked against --report-data");
    let other = format!("{}1", &own[..127]);
    let refusal = vector.verify(&["--report-data", &other]).refused("snp-report-data-mismatch");
    assert_eq!((&refusal["expected"], &refusal["seen"]), (&json!(other), &json!(own)));
    assert_eq!(refusal["freshness"], "not checked");
    assert_eq!(vector.verify(&["--report-data", &own[..126]]).code, 2);
}

#[test]
fn revocation_list_that_is_none_is_refused() {
    let Some(vector) = vectors::named("snp", "genoa-v5-live") else { return };
    let directory = tempfile::tempdir().unwrap();
    let crl = directory.path().join("crl.der");
    std::fs::write(&crl, b"\x30\x03\x02\x01\x01").unwrap();
    vector.verify(&["--crl", text(&crl)]).refused("snp-crl-malformed");
}

/// `evidence verify --kind azure-snp-vtpm` with files of the vector, each of which may be another.
pub(crate) fn verify_azure(vector: &Vector, files: &[(&str, &str)], more: &[&str]) -> Ended {
    let own = [
        ("--report", "hcl-report.bin"),
        ("--quote", "tpm-quote.msg"),
        ("--quote-signature", "tpm-quote.sig"),
        ("--pcrs", "tpm-pcrs.json"),
        ("--chain", "vcek.der"),
    ];
    let mut args: Vec<String> =
        ["evidence", "verify", "--json", "--kind", "azure-snp-vtpm", "--now", NOW].map(str::to_owned).into();
    for (flag, name) in own {
        let path = files.iter().find(|(other, _)| *other == flag).map(|(_, path)| (*path).to_owned());
        args.extend([flag.to_owned(), path.unwrap_or_else(|| text(&vector.path(name)).to_owned())]);
    }
    args.extend(["--chain".to_owned(), text(vector.roots()).to_owned()]);
    let args: Vec<&str> = args.iter().map(String::as_str).chain(more.iter().copied()).collect();
    run(&args)
}

fn nonce(vector: &Vector) -> String {
    vector.expected["azure"]["qualifying_data_hex"].as_str().unwrap().to_owned()
}

#[test]
fn every_real_azure_guest_verifies_with_its_nonce() {
    for vector in vectors::all("azure-snp-vtpm") {
        let nonce = nonce(&vector);
        let ended = verify_azure(&vector, &[], &["--extra-data", &nonce]);
        assert_eq!(ended.done()["freshness"], "checked against --extra-data");
        let claims = ended.verified();
        check_report(&vector, &claims["snp"]);
        assert_eq!(claims["tpm"]["extra_data"], nonce);
        assert_eq!(claims["tpm"]["pcr_digest"], vector.expected["azure"]["pcr_digest"]);
        let pcrs: Vec<String> = serde_json::from_slice(&vector.bytes("tpm-pcrs.json")).unwrap();
        assert_eq!((claims["tpm"]["pcrs"]["7"].as_str(), pcrs.len()), (Some(pcrs[7].as_str()), 24));
        // The same out of its parts, and without a nonce.
        let (report, runtime) = (vector.path("report.bin"), vector.path("runtime-data.json"));
        let ended = verify_azure(&vector, &[("--report", text(&report))], &["--runtime", text(&runtime)]);
        assert_eq!(ended.done()["freshness"], "not checked");
        verify_azure(&vector, &[], &["--extra-data", &format!("{nonce}00")]).refused("binding-mismatch");
    }
}

#[test]
fn azure_guest_whose_parts_do_not_belong_together_is_refused() {
    let (Some(vector), Some(other)) =
        (vectors::named("azure-snp-vtpm", "azure-milan-v2"), vectors::named("azure-snp-vtpm", "azure-milan-v3"))
    else {
        return;
    };
    let directory = tempfile::tempdir().unwrap();
    let changed = |name: &str, from: &[u8], to: &[u8]| {
        let bytes = vector.bytes(name);
        let at = bytes.windows(from.len()).position(|window| window == from).unwrap();
        let path = directory.path().join(name);
        std::fs::write(&path, [&bytes[..at], to, &bytes[at + from.len()..]].concat()).unwrap();
        path
    };
    let (report, runtime) =
        (vector.path("report.bin"), changed("runtime-data.json", b"secure-boot\":true", b"secure-boot\":TRUE"));
    verify_azure(&vector, &[("--report", text(&report))], &["--runtime", text(&runtime)])
        .refused("hcl-runtime-data-mismatch");
    let refused = |flag: &str, path: &std::path::Path, code: &str| {
        verify_azure(&vector, &[(flag, text(path))], &[]).refused(code)
    };
    refused("--quote", &other.path("tpm-quote.msg"), "quote-signature-invalid");
    refused("--quote", &changed("tpm-quote.msg", b"\xffTCG", b"\xfeTCG"), "quote-signature-invalid");
    refused("--quote-signature", &other.path("tpm-quote.sig"), "quote-signature-invalid");
    refused("--quote-signature", &vector.path("tpm-quote.msg"), "quote-signature-scheme");
    refused("--pcrs", &other.path("tpm-pcrs.json"), "pcr-digest-mismatch");
    refused("--pcrs", &changed("tpm-pcrs.json", b"\"f3a7", b"\"f3a8"), "pcr-digest-mismatch");
    refused("--report", &changed("hcl-report.bin", b"HCLA", b"HCLA\0"), "hcl-version");
    refused("--report", &other.path("hcl-report.bin"), "snp-report-signature-invalid");
    let one = directory.path().join("one.json");
    std::fs::write(&one, format!("{{\"7\":\"{}\"}}", "00".repeat(32))).unwrap();
    refused("--pcrs", &one, "pcr-selection-mismatch");
}

#[test]
fn what_cannot_be_judged_is_wrong_use() {
    let (Some(snp), Some(azure)) =
        (vectors::named("snp", "genoa-v5-live"), vectors::named("azure-snp-vtpm", "azure-milan-v2"))
    else {
        return;
    };
    let report = azure.path("report.bin");
    verify_azure(&azure, &[("--report", text(&report))], &[]).fails(2, "evidence-arguments");
    let runtime = azure.path("runtime-data.json");
    verify_azure(&azure, &[], &["--runtime", text(&runtime)]).fails(2, "evidence-arguments");
    verify_azure(&azure, &[], &["--report-data", &"00".repeat(64)]).fails(2, "evidence-arguments");
    verify_azure(&azure, &[("--pcrs", text(&runtime))], &[]).fails(2, "pcrs-unreadable");
    snp.verify(&["--extra-data", "00"]).fails(2, "evidence-arguments");
    snp.verify_report(std::path::Path::new("/nowhere"), &[]).fails(2, "file");
    run(&["evidence", "verify", "--json", "--kind", "snp", "--now", NOW]).fails(2, "evidence-arguments");
    run(&["evidence", "verify", "--json", "--kind", "tpm", "--now", NOW]).fails(2, "evidence-arguments");
    for wrong in [
        &["--kind", "snp", "--report", "r"][..],
        &["--kind", "snp", "--report", "r", "--now", "today"],
        &["--kind", "sgx", "--report", "r", "--now", NOW],
        &["--kind", "snp", "--entry", "1", "--now", NOW],
        &["--kind", "tpm", "--quote", "q", "--now", NOW],
        &["--report", "r"],
    ] {
        assert_eq!(run(&[&["evidence", "verify"], wrong].concat()).code, 2, "{wrong:?}");
    }
}
