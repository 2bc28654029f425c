//! `vaultctl evidence show FILE`: every kind of file, explained to a person.

use serde_json::Value;

use crate::captured_evidence::table;
use crate::scene::{run, text};
use crate::vectors::{self, Vector};

/// What a person reads of a file of a vector.
fn said(vector: &Vector, name: &str) -> String {
    let ended = run(&["evidence", "show", text(&vector.path(name))]);
    assert_eq!(ended.code, 0, "{}", ended.stderr);
    assert!(ended.stdout.starts_with("NOT VERIFIED"), "{}", ended.stdout);
    ended.stdout
}

/// The line of a field.
fn line<'a>(said: &'a str, field: &str) -> &'a str {
    let is_it = |line: &&str| line.get(2..).is_some_and(|rest| rest.split("  ").next() == Some(field));
    said.lines().find(is_it).unwrap_or_else(|| panic!("no {field} in\n{said}"))
}

#[test]
fn every_field_of_a_report_is_explained_and_what_deserves_a_second_look_is_marked() {
    let Some(debug) = vectors::named("snp", "milan-v2-debug-policy") else { return };
    let shown = said(&debug, "report.bin");
    assert!(line(&shown, "policy.debug").starts_with("! policy.debug"), "{shown}");
    assert!(line(&shown, "policy.debug").contains("SECOND LOOK: nothing in this guest is secret"), "{shown}");
    assert!(line(&shown, "product").contains("not named"));
    let genoa = vectors::named("snp", "genoa-v5-live").unwrap();
    let shown = said(&genoa, "report.bin");
    assert!(line(&shown, "policy.debug").starts_with("  policy.debug"), "{shown}");
    for field in [
        "measurement",
        "report_data",
        "host_data",
        "chip_id",
        "report_id",
        "report_id_ma",
        "id_key_digest",
        "author_key_digest",
        "family_id",
        "image_id",
        "policy",
        "platform_info",
    ] {
        let value = genoa.field(field).as_str().unwrap();
        assert!(line(&shown, field).contains(value), "{field}");
    }
    let vlek = vectors::named("snp", "milan-v3-vlek").unwrap();
    let shown = said(&vlek, "report.bin");
    assert!(line(&shown, "signing_key").contains("SECOND LOOK"), "{shown}");
    assert!(line(&shown, "chip_id").contains("SECOND LOOK: the host masks it"), "{shown}");
}

#[test]
fn hcl_report_and_quote_are_explained() {
    let Some(azure) = vectors::named("azure-snp-vtpm", "azure-milan-v2") else { return };
    let shown = said(&azure, "hcl-report.bin");
    assert!(line(&shown, "committed_tcb").contains("SECOND LOOK: the host can still roll"), "{shown}");
    assert!(line(&shown, "console-enabled").contains("SECOND LOOK"), "{shown}");
    assert!(line(&shown, "secure-boot").starts_with("  secure-boot"), "{shown}");
    let shown = said(&azure, "tpm-quote.msg");
    assert!(line(&shown, "extra_data").contains("6368616c6c656e6765"), "{shown}");
    assert!(line(&shown, "pcr_digest").contains(azure.expected["azure"]["pcr_digest"].as_str().unwrap()), "{shown}");
}

#[test]
fn certificate_table_is_shown_entry_by_entry() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("auxblob");
    let vlek = *b"\xa8\x07\x4b\xc2\xa2\x5a\x48\x3e\xaa\xe6\x39\xc0\x45\xa0\xb8\xa1";
    std::fs::write(&file, table(&[(vlek, b"leaf")])).unwrap();
    let shown = run(&["evidence", "show", "--json", text(&file)]).done();
    assert_eq!(
        (&shown["verified"], &shown["sections"][0]["fields"][0]["field"]),
        (&Value::from(false), &"VLEK".into())
    );
}

#[test]
fn file_that_is_nothing_or_broken_is_wrong_use() {
    let Some(azure) = vectors::named("azure-snp-vtpm", "azure-milan-v2") else { return };
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("file");
    let show = |bytes: &[u8]| {
        std::fs::write(&file, bytes).unwrap();
        run(&["evidence", "show", "--json", text(&file)])
    };
    show(b"nothing that is known").fails(2, "evidence-unknown");
    show(b"").fails(2, "evidence-unknown");
    show(&azure.bytes("hcl-report.bin")[..1000]).fails(2, "hcl-truncated");
    let mut report = azure.bytes("report.bin");
    report[0x4c] = 1;
    show(&report).fails(2, "snp-report-reserved-not-zero");
    let quote = azure.bytes("tpm-quote.msg");
    show(&quote[..quote.len() - 1]).fails(2, "attest-malformed");
}
