//! `vaultctl measure …`

#[path = "../../../attestation/src/launch/image.rs"]
mod firmware;

use attestation::{Sha256Digest, arguments_digest, environment_digest, script_program};
use ledger::policy::Policy;

use crate::scene::{Ended, Scene, run, text};

/// The digests of an event log that is made here: Spec ID with SHA-256 alone, then one separator in PCR 7.
fn log() -> Vec<u8> {
    let mut spec = b"Spec ID Event03\0\0\0\0\0\0\x02\0\x02\x01\0\0\0\x0b\0\x20\0\0".to_vec();
    let mut log = [0u32, 3].map(u32::to_le_bytes).concat();
    log.extend([0; 20]);
    log.extend((spec.len() as u32).to_le_bytes());
    log.append(&mut spec);
    log.extend([7u32, 4, 1].map(u32::to_le_bytes).concat());
    log.extend(11u16.to_le_bytes());
    log.extend(ring::digest::digest(&ring::digest::SHA256, &[0; 4]).as_ref());
    log.extend(4u32.to_le_bytes());
    log.extend([0; 4]);
    log
}

#[test]
fn a_log_gives_its_pcrs_and_a_fragment_for_a_policy() {
    let scene = Scene::new();
    let file = scene.path("log.bin");
    std::fs::write(&file, log()).unwrap();
    let report = run(&["measure", "pcr", "--eventlog", text(&file), "--json"]).done();
    // A PCR with one separator and nothing else; every PC has it in PCR 3 or 6.
    let value = "3d458cfe55cc03ea1f443f1562beec8df51c75e14a9fcf9a7234a13f198e7969";
    assert_eq!(report["pcrs"]["7"], value);
    assert_eq!(report["policy"], format!("pcrs = {{ 7 = [\"{value}\"] }}\n"));
    std::fs::write(&file, &log()[..70]).unwrap();
    run(&["measure", "pcr", "--eventlog", text(&file), "--json"]).fails(2, "event-log-truncated");
}

/// A PE image without sections that is also a Linux kernel of boot protocol 2.15.
fn kernel() -> Vec<u8> {
    let mut file = vec![0; 4096];
    let mut put = |at: usize, what: &[u8]| file[at..at + what.len()].copy_from_slice(what);
    put(0, b"MZ");
    put(0x3c, &[0x40]);
    put(0x40, b"PE\0\0");
    put(0x54, &[240]);
    put(0x58, &0x20bu16.to_le_bytes());
    put(0x58 + 60, &0x400u32.to_le_bytes());
    put(0x58 + 108, &[16]);
    put(0x202, b"HdrS\x0f\x02");
    put(0x211, &[1]);
    put(0x236, &[0x7f]);
    file
}

#[test]
fn pcr_4_is_given_only_for_a_loader_that_is_named() {
    let scene = Scene::new();
    let (file, initrd) = (scene.path("vmlinuz"), scene.path("initrd"));
    std::fs::write(&file, kernel()).unwrap();
    std::fs::write(&initrd, b"initrd").unwrap();
    let measure = |more: &[&str]| {
        let fixed = ["measure", "pcr", "--json", "--kernel", text(&file), "--initrd", text(&initrd)];
        run(&[&fixed, more].concat())
    };
    let report = measure(&[]).done();
    let indices =
        |report: &serde_json::Value| -> Vec<String> { report["pcrs"].as_object().unwrap().keys().cloned().collect() };
    assert_eq!(indices(&report), ["9"]);
    assert!(report["notes"].to_string().contains("PCR 4 is left out"));
    let values = ["file", "qemu-q35:512", "qemu-q35:513"].map(|loader| {
        let report = measure(&["--loader", loader]).done();
        assert_eq!(indices(&report), ["4", "9"]);
        report["pcrs"]["4"].as_str().unwrap().to_owned()
    });
    assert!(values[0] != values[1] && values[1] != values[2]);
    // What is known is said as a section on events, too.
    let said = measure(&["--loader", "file", "--append", "quiet a=\"b\""]).done();
    let boot = said["boot"].as_str().unwrap();
    assert!(boot.contains("command_lines = [\"quiet a=\\\"b\\\" initrd=initrd\"]\n"), "{boot}");
    let digest = Sha256Digest::of(b"initrd");
    assert!(boot.contains(&format!("initrds = [\"{digest}\"]\n")) && boot.contains("images = [\"sha256:"), "{boot}");
    assert!(measure(&[]).done()["boot"].is_null());
    measure(&["--loader", "qemu-q35:512", "--append", "vga=1"]).fails(2, "kernel-header-video-mode");
    assert_eq!(measure(&["--loader", "qemu-pc:512"]).code, 2);
    // A log without an application in PCR 4 does not say what else is in it.
    let base = scene.path("log.bin");
    std::fs::write(&base, log()).unwrap();
    let report = measure(&["--loader", "file", "--base-eventlog", text(&base)]).done();
    assert_eq!(indices(&report), ["7", "9"]);
}

#[test]
fn fragments_are_understood_by_the_policy_language() {
    let scene = Scene::new();
    let (ovmf, kernel_file) = (scene.path("OVMF.fd"), scene.path("vmlinuz"));
    std::fs::write(&ovmf, firmware::full().bytes()).unwrap();
    std::fs::write(&kernel_file, kernel()).unwrap();
    let snp = |more: &[&str]| {
        let fixed = ["measure", "snp", "--json", "--vcpus", "2", "--vcpu-type", "EPYC-Milan", "--ovmf", text(&ovmf)];
        run(&[&fixed, more].concat()).done()
    };
    let zero = format!("sha256:{}", "00".repeat(32));
    let policy = scene.policy(&zero, 2, &zero);
    let (before, rule) = policy.split_once("[release.minilm]").unwrap();
    let (_, after) = rule.split_once("\neks = \"any\"\n").unwrap();
    // The keys of a rule that requires `proof`, and sections at the end.
    let with = |proof: &str, keys: &str, sections: &str| {
        let before = before.replace("[keeper]\nrequire = [\"tpm\"]", &format!("[keeper]\nrequire = [\"{proof}\"]"));
        let head = "[release.minilm]\nmodels = [\"minilm\"]\ngroups = \"any\"";
        Policy::parse(&format!("{before}{head}\nrequire = [\"{proof}\"]\n{keys}{after}{sections}"))
    };
    let rest = "chips = \"any\"\nmin_tcb.milan = { bootloader = 4, tee = 0, snp = 24, microcode = 219 }\nvmpl = 0\n\
                min_report_version = 3\ncrl = \"required\"\nsmt = true\nprovisional_firmware = false\n";
    let section = |above: &str, report: &serde_json::Value| {
        format!("\n[{above}.snp]\n{}{rest}", report["policy"].as_str().unwrap())
    };
    let of_line = |line: &str| snp(&["--kernel", text(&kernel_file), "--append", line]);
    let keeper = section("keeper", &of_line("keeper"));
    with("snp", "", &(keeper.clone() + &section("release.minilm", &of_line("guest")))).unwrap();
    // A digest that covers no kernel does not say that it does; a person has to.
    let error = with("snp", "", &(keeper + &section("release.minilm", &snp(&[])))).unwrap_err();
    assert_eq!((error.key.as_str(), error.code()), ("release.minilm.snp.code_covered_by", "policy-key-missing"));

    // PCR 11 keeps the rule apart from the keeper's.
    let pcrs = run(&["measure", "pcr", "--json", "--kernel", text(&kernel_file), "--loader", "file"]).done();
    let fragment = pcrs["policy"].as_str().unwrap().replace(" }", &format!(", 11 = [\"{}\"] }}", "77".repeat(32)));
    with("tpm", &format!("{fragment}eks = \"any\"\n"), "").unwrap();
    let line =
        ["measure", "pcr", "--json", "--kernel", text(&kernel_file), "--loader", "file", "--append", "a=\"b c\""];
    let boot = run(&line).done()["boot"].as_str().unwrap().to_owned();
    let [firmware, agent] = ["11", "77"].map(|digits| digits.repeat(32));
    let pcrs =
        format!("pcrs = {{ 0 = [\"{firmware}\"], 4 = \"any\", 9 = \"any\", 11 = [\"{agent}\"] }}\neks = \"any\"\n");
    with("tpm", &pcrs, &format!("\n[release.minilm.boot]\n{boot}")).unwrap();
}

#[test]
fn what_cannot_be_measured_is_refused_with_its_code() {
    let scene = Scene::new();
    let file = scene.path("zeros");
    std::fs::write(&file, [0; 4096]).unwrap();
    let snp = ["measure", "snp", "--json", "--vcpus", "1", "--vcpu-type", "EPYC-Milan", "--ovmf", text(&file)];
    run(&snp).fails(2, "firmware-not-ovmf");
    run(&["measure", "pcr", "--json", "--kernel", text(&file)]).fails(2, "pe-malformed");
    run(&["measure", "pcr", "--json", "--uki", text(&file)]).fails(2, "pe-malformed");
    assert_eq!(run(&["measure", "pcr"]).code, 2);
}

fn workload(more: &[&str]) -> Ended {
    run(&[&["measure", "workload", "--json"], more].concat())
}

#[test]
fn a_workload_gives_a_fragment_that_a_rule_understands() {
    let scene = Scene::new();
    let (program, script, interpreter) = (scene.path("serve"), scene.path("serve.py"), scene.path("python"));
    std::fs::write(&program, b"\x7fELF program").unwrap();
    std::fs::write(&interpreter, b"\x7fELF interpreter").unwrap();
    std::fs::write(&script, b"#!/opt/guest/python -I\nserve()\n").unwrap();

    let line = ["--env", "A=1", "--env", "B=2", "--program", text(&program), "--", "serve", "--port", "1"];
    let report = workload(&line).done();
    let of = |key: &str| report[key].as_str().unwrap().parse::<Sha256Digest>().unwrap();
    assert_eq!(of("program"), Sha256Digest::of(b"\x7fELF program"));
    assert_eq!(of("arguments"), arguments_digest(&[b"serve", b"--port", b"1"]));
    assert_eq!(of("environment"), environment_digest(&[b"A=1", b"B=2"]));
    assert!(report["image"].is_null() && report["interpreter"].is_null(), "{report}");
    let policy = scene
        .policy("genesis", 1, "none")
        .replace("max_leases", &format!("{}max_leases", report["policy"].as_str().unwrap()));
    let policy = Policy::parse(&policy).unwrap();
    assert!(policy.release_rules().values().all(|rule| rule.workloads.asks()));
    // Of two variables with one name `run` gives the last, in any order of the others.
    let again = ["--env", "B=2", "--env", "A=9", "--env", "A=1", "--program", text(&program), "--", "serve"];
    assert_eq!(workload(&again).done()["environment"], report["environment"]);
    assert_ne!(workload(&again).done()["arguments"], report["arguments"]);

    // A script is one program with its interpreter, which another place may have.
    let line = ["--program", text(&script), "--interpreter", text(&interpreter), "--", "serve.py"];
    let scripted = workload(&line).done();
    let (text_digest, interpreter_digest) =
        (Sha256Digest::of(b"#!/opt/guest/python -I\nserve()\n"), Sha256Digest::of(b"\x7fELF interpreter"));
    assert_eq!(scripted["program"], script_program(&text_digest, &interpreter_digest).to_string());
    let image = Sha256Digest::of(b"image").to_string();
    let named = workload(&["--image", &image, "--program", text(&program), "--", "serve"]).done();
    assert!(named["policy"].as_str().unwrap().contains(&format!("image = \"{image}\"")), "{named}");

    // What somebody may believe to be pinned, and is not.
    let said = |line: &[&str]| workload(line).done()["notes"].to_string();
    assert!(
        said(&["--program", text(&interpreter), "--", "python", text(&script)]).contains("in no digest. A script is")
    );
    std::fs::write(&script, b"#!/usr/bin/env python\n").unwrap();
    let env = scene.path("env");
    std::fs::write(&env, b"\x7fELF env").unwrap();
    let line = ["--program", text(&script), "--interpreter", text(&env), "--", "serve.py"];
    assert!(said(&line).contains("the program that env finds"));
}

#[test]
fn what_the_kernel_would_not_execute_is_no_workload() {
    let scene = Scene::new();
    let file = scene.path("serve");
    let refused = |bytes: &[u8], more: &[&str]| {
        std::fs::write(&file, bytes).unwrap();
        workload(&[&["--program", text(&file)], more, &["--", "serve"]].concat()).fails(2, "workload-unfit");
    };
    refused(b"echo\n", &[]);
    refused(b"#!python\n", &[]);
    refused(b"#!/bin/sh\n", &["--interpreter", text(&file)]);
    refused(b"\x7fELF", &["--interpreter", text(&file)]);
    workload(&["--", "no-such-program-anywhere"]).fails(2, "workload-unfit");
    for variable in ["A", "=1", "TSS2_LOG=x"] {
        assert_eq!(workload(&["--env", variable, "--program", text(&file), "--", "serve"]).code, 2);
    }
}
