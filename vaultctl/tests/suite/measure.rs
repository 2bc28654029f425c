//! `vaultctl measure …`

use crate::scene::{Scene, run, text};

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
