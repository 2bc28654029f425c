//! Event logs: explained by `evidence show`, held against a quote or against PCR values by `evidence verify`.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::captured_tpm::TpmScene;
use crate::forge::eventlog::{Boot, ROOT_HASH};
use crate::scene::{Ended, run, text};
use crate::vectors;

const QUOTED: [u32; 6] = [0, 4, 7, 9, 10, 11];

/// Recorded logs that can be used.
const RECORDED: [&str; 9] = [
    "arch-linux-workstation",
    "cos-101-amd-sev",
    "eventlogwithsp800155",
    "gdc-host",
    "ovmf-swtpm-debian12",
    "rhel8-uefi",
    "ubuntu-1804-amd-sev",
    "ubuntu-2104-no-secure-boot",
    "ubuntu-2404-amd-sevsnp",
];

/// A TPM that measured this boot, and a policy that allows its PCRs 0 and 11.
fn booted(boot: &Boot) -> TpmScene {
    let mut it = TpmScene::new();
    let pcr_0 = hex::encode(it.tpm.pcrs[0]);
    for index in [0, 1, 2, 3, 4, 5, 6, 7, 8, 9] {
        it.tpm.pcrs[index] = boot.pcrs()[index];
    }
    let file = it.scene.path("policy.toml");
    let policy = std::fs::read_to_string(&file).unwrap();
    let (head, release) = policy.split_once("[release.minilm]").unwrap();
    let release = release.replace(&pcr_0, &hex::encode(it.tpm.pcrs[0]));
    std::fs::write(&file, format!("{head}[release.minilm]{release}")).unwrap();
    it
}

impl TpmScene {
    fn verify_log(&self, log: &[u8]) -> Ended {
        let (blob, log) = (self.blob_over(&QUOTED, b"nonce"), self.file("log", log));
        self.verify(&["--report", &blob, "--event-log", &log], true)
    }
}

#[test]
fn log_that_leads_to_the_quoted_pcrs_is_verified_and_says_what_was_booted() {
    let boot = Boot::default();
    let claims = booted(&boot).verify_log(&boot.log()).verified();
    let said = &claims["boot"];
    assert_eq!((&said["pcrs"], &said["pcrs_extended_later"]), (&json!([0, 4, 7, 9]), &json!([10, 11])));
    assert_eq!((&said["secure_boot"], &said["events"]), (&json!("on"), &json!(14)));
    let sha256 = |bytes: &[u8]| attestation::Sha256Digest::of(bytes).to_string();
    assert_eq!(said["images"], json!([{ "sha256": sha256(b"kernel") }]));
    assert_eq!(said["initrds"], json!([sha256(b"initrd")]));
}

#[test]
fn log_with_one_thing_changed_is_refused_for_that() {
    let boot = Boot::default();
    let it = booted(&boot);
    let log = boot.log();
    let find = |what: &[u8]| log.windows(what.len()).position(|window| window == what).unwrap();
    let changed = |at: usize| {
        let mut log = log.clone();
        log[at] ^= 1;
        it.verify_log(&log)
    };
    changed(find(b"S\0e\0c\0u\0r\0e")).refused("event-data-mismatch");
    let kernel = ring::digest::digest(&ring::digest::SHA256, b"kernel");
    let refusal = changed(find(kernel.as_ref())).refused("event-log-replay-mismatch");
    assert_eq!(refusal["expected"], format!("PCR 4 = {}", hex::encode(boot.pcrs()[4])));
    assert!(refusal["seen"].as_str().unwrap().starts_with("its events lead to "), "{refusal}");
    it.verify_log(&log[..log.len() - 1]).refused("event-log-truncated");
    it.verify_log(&log[..40]).refused("event-log-truncated");
    for other in [
        Boot { secure_boot: false, ..Boot::default() },
        Boot { firmware: "1.1", ..Boot::default() },
        Boot { options: "quiet".to_owned(), ..Boot::default() },
    ] {
        it.verify_log(&other.log()).refused("event-log-replay-mismatch");
    }
    let blob = it.blob_over(&[11], b"nonce");
    let log = it.file("log", &log);
    it.verify(&["--report", &blob, "--event-log", &log], true).refused("pcr-not-quoted");
}

#[test]
fn log_is_asked_for_where_nothing_can_bear_it() {
    let boot = Boot::default();
    let it = booted(&boot);
    let log = it.file("log", &boot.log());
    let verify = |args: &[&str]| run(&[&["evidence", "verify", "--json", "--kind"], args].concat());
    let now = ["--now", "2027-01-15T08:00:00Z"];
    verify(&[&["snp", "--report", &log, "--event-log", &log], &now[..]].concat()).fails(2, "evidence-arguments");
    verify(&[&["tpm", "--report", &log, "--pcrs", &log], &now[..]].concat()).fails(2, "evidence-arguments");
    verify(&["event-log", "--event-log", &log]).fails(2, "evidence-arguments");
    verify(&["event-log", "--pcrs", &log]).fails(2, "evidence-arguments");
    verify(&["event-log", "--event-log", &log, "--pcrs", &log, "--report", &log]).fails(2, "evidence-arguments");
    verify(&["event-log", "--event-log", &log, "--pcrs", &log]).fails(2, "pcrs-unreadable");
}

#[test]
fn azure_quote_does_not_bear_the_log_of_another_machine() {
    let Some(azure) = vectors::named("azure-snp-vtpm", "azure-milan-v3") else { return };
    let directory = tempfile::tempdir().unwrap();
    let log = directory.path().join("log");
    std::fs::write(&log, Boot::default().log()).unwrap();
    let ended = crate::captured_evidence::verify_azure(&azure, &[], &["--event-log", text(&log)]);
    let refusal = ended.refused("event-log-replay-mismatch");
    let pcrs: Vec<String> = serde_json::from_slice(&azure.bytes("tpm-pcrs.json")).unwrap();
    assert_eq!(refusal["expected"], format!("PCR 0 = {}", pcrs[0]));
}

/// A recorded log, and its PCRs of the SHA-256 bank.
fn recorded(name: &str) -> Option<(String, BTreeMap<String, String>)> {
    let folder = vectors::folder("eventlog")?;
    let pcrs: Value =
        serde_json::from_slice(&std::fs::read(folder.join(format!("{name}.pcrs.json"))).unwrap()).unwrap();
    let pcrs = serde_json::from_value(pcrs["pcrs"]["sha256"].clone()).unwrap();
    Some((text(&folder.join(format!("{name}.bin"))).to_owned(), pcrs))
}

#[test]
fn every_recorded_log_leads_to_its_recorded_pcrs_and_no_other() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("pcrs.json");
    for name in RECORDED {
        let Some((log, mut pcrs)) = recorded(name) else { return };
        let verify = |pcrs: &BTreeMap<String, String>| {
            std::fs::write(&file, serde_json::to_vec(pcrs).unwrap()).unwrap();
            run(&["evidence", "verify", "--json", "--kind", "event-log", "--event-log", &log, "--pcrs", text(&file)])
        };
        let verdict = verify(&pcrs).done();
        assert_eq!(verdict["verified"], true, "{name}");
        assert!(verdict["notes"][0].as_str().unwrap().contains("nobody signed"), "{verdict}");
        pcrs.insert("4".to_owned(), "11".repeat(32));
        verify(&pcrs).refused("event-log-replay-mismatch");
    }
}

#[test]
fn every_recorded_log_is_explained_in_words_and_the_others_refused_by_their_reasons() {
    let Some(folder) = vectors::folder("eventlog") else { return };
    let show = |name: &str, form: &[&str]| {
        let file = folder.join(format!("{name}.bin"));
        run(&[&["evidence", "show", text(&file)], form].concat())
    };
    for name in RECORDED {
        let ended = show(name, &[]);
        assert!(ended.stdout.starts_with("NOT VERIFIED"), "{}", ended.stderr);
        let shown = show(name, &["--json"]).done();
        let on = ["cos-101-amd-sev", "eventlogwithsp800155", "rhel8-uefi"].contains(&name);
        assert_eq!(shown["boot"]["secure_boot"], if on { "on" } else { "off" }, "{name}");
        assert!(!shown["boot"]["images"].as_array().unwrap().is_empty(), "{name}");
    }
    let cos = show("cos-101-amd-sev", &["--json"]).done();
    let root = "dm 48d436350a7e83bde985cd3f7e79fa443557743b42243803ce31104ca4719c5d";
    assert_eq!(cos["boot"]["verity_root_hashes"], json!([root]));
    assert_eq!(cos["boot"]["images"][0]["path"], "\\EFI\\BOOT\\BOOTX64.EFI");
    let rhel = show("rhel8-uefi", &["--json"]).done();
    assert!(rhel["boot"]["command_lines"][0].as_str().unwrap().contains("root=UUID=f3948fb4"), "{rhel}");
    for (name, code) in [
        ("debian-10", "event-log-legacy-sha1"),
        ("go-attestation-ebs-sha1", "event-log-legacy-sha1"),
        ("neg-short-no-action", "event-log-spec-id-missing"),
    ] {
        show(name, &["--json"]).fails(2, code);
    }
}

#[test]
fn events_of_a_log_are_lines_of_their_own_whatever_they_say() {
    let it = TpmScene::new();
    let boot = Boot { firmware: "1\n  fake line\u{1b}[2J", secure_boot: false, ..Boot::default() };
    let file = it.file("log", &boot.log());
    let shown = run(&["evidence", "show", &file]).stdout;
    assert!(!shown.contains("\n  fake line") && !shown.contains('\u{1b}'), "{shown}");
    assert!(shown.contains("SECOND LOOK: secure boot is off"), "{shown}");
    assert!(!shown.contains(ROOT_HASH), "the options of a kernel are not in the log: {shown}");
    assert!(shown.contains("bank sha256") && shown.contains(&hex::encode(boot.pcrs()[9])), "{shown}");
}

/// The policy of the scene with a drafted rule in the place of its own.
fn with_drafted(it: &TpmScene, drafted: &str) -> String {
    let full = it.scene.policy("genesis", 1, "none");
    let (before, release_on) = full.split_once("[release.minilm]").unwrap();
    let (_, audit) = release_on.split_once("[audit]").unwrap();
    format!("{before}{}\n[audit]{audit}", &drafted[drafted.find("[release.").unwrap()..])
}

#[test]
fn drafted_rule_asks_for_exactly_the_boot_that_was_seen() {
    let boot = Boot::default();
    let it = booted(&boot);
    let (blob, log) = (it.blob_over(&QUOTED, b"nonce"), it.file("log", &boot.log()));
    let policy = it.scene.path("policy.toml");
    let draft = |more: &[&str]| {
        let args = ["policy", "draft", "--from", &blob, "--event-log", &log, "--now", "2027-01-15T08:00:00Z"];
        run(&[&args[..], more].concat())
    };
    let with_policy = ["--policy", text(&policy)];
    draft(&["--json"]).fails(2, "event-log-unverified");
    let other = ["--command-line", "quiet", "--json"];
    draft(&[&with_policy[..], &other].concat()).fails(4, "kernel-command-line-mismatch");
    let without = draft(&with_policy).stdout;
    assert!(without.contains("command_lines = \"any\""), "{without}");
    let drafted = draft(&[&with_policy[..], &["--command-line", &boot.options]].concat()).stdout;
    assert!(drafted.contains(&format!("verity_root_hashes = [\"{ROOT_HASH}\"]")), "{drafted}");

    // The PCRs of the events open, so that only these are asked.
    let open = [4, 7, 9].iter().fold(with_drafted(&it, &drafted), |policy, pcr| {
        policy.replace(&format!("{pcr} = [\"{}\"]", hex::encode(boot.pcrs()[*pcr])), &format!("{pcr} = \"any\""))
    });
    let file = it.file("drafted.toml", open.as_bytes());
    let mut it = it;
    let mut judge = |boot: &Boot, log: bool| {
        for index in [0, 4, 7, 9] {
            it.tpm.pcrs[index] = boot.pcrs()[index];
        }
        let (blob, log_file) = (it.blob_over(&QUOTED, b"nonce"), it.file("log", &boot.log()));
        let args =
            ["evidence", "verify", "--json", "--kind", "tpm", "--now", "2027-01-15T08:00:00Z", "--report", &blob];
        let log_args = ["--event-log", &log_file];
        run(&[&args[..], &["--policy", &file], if log { &log_args } else { &[] }].concat())
    };
    judge(&boot, true).verified();
    assert_eq!(judge(&boot, false).refused("event-log-missing")["policy_key"], "release.drafted.boot");
    let off = judge(&Boot { secure_boot: false, ..Boot::default() }, true).refused("secure-boot-off");
    assert_eq!(off["policy_key"], "release.drafted.boot.secure_boot");
    judge(&Boot { image: b"other", ..Boot::default() }, true).refused("boot-application-unlisted");
    let line = Boot { options: format!("{} init=/bin/sh", boot.options), ..Boot::default() };
    judge(&line, true).refused("kernel-command-line-mismatch");
    let shown = run(&["policy", "check", &file]).stdout;
    assert!(shown.contains("secure boot on") && shown.contains("asked by their events alone: 4, 7, 9"), "{shown}");
}
