//! What real evidence shows.

use attestation::{
    CrlRule, CrlStatus, EndorsedReport, SigningKey, SnpError, TcbVersion, Trust, TrustAnchors, VerifiedChain,
};
use serde_json::{Value, json};

use crate::vectors::{NOW, Vector, all, named};

fn hex_of(bytes: &[u8]) -> Value {
    Value::String(hex::encode(bytes))
}

fn tcb(version: &TcbVersion) -> Value {
    let mut value = json!({
        "bootloader": version.bootloader,
        "tee": version.tee,
        "snp": version.snp,
        "microcode": version.microcode,
    });
    if let Some(fmc) = version.fmc {
        value["fmc"] = json!(fmc);
    }
    value
}

/// Every field of the report, in the form of the vectors.
fn fields(vector: &Vector) -> Value {
    let report = vector.report();
    let (policy, platform, key) = (report.policy(), report.platform_info(), report.key_info());
    let bit = u8::from;
    let number = |vector: u64| format!("{vector:#x}");
    let firmware = |major: u8, minor: u8| format!("{major}.{minor}");
    let (current, committed) = (report.current_version(), report.committed_version());
    json!({
        "version": report.version(),
        "guest_svn": report.guest_svn(),
        "policy": format!("{:#x}", policy.bits()),
        "policy_bits": {
            "abi_minor": policy.abi_minor(),
            "abi_major": policy.abi_major(),
            "smt": bit(policy.smt()),
            "rsvd1": policy.bits() >> 17 & 1,
            "migrate_ma": bit(policy.migrate_ma()),
            "debug": bit(policy.debug()),
            "single_socket": bit(policy.single_socket()),
            "cxl": bit(policy.cxl_allow()),
            "mem_aes_256_xts": bit(policy.mem_aes_256_xts()),
            "rapl_dis": bit(policy.rapl_dis()),
            "ciphertext_hiding": bit(policy.ciphertext_hiding_dram()),
            "page_swap_disable": bit(policy.page_swap_disable()),
        },
        "family_id": hex_of(report.family_id()),
        "image_id": hex_of(report.image_id()),
        "vmpl": report.vmpl(),
        "sig_algo": report.signature_algorithm(),
        "current_tcb": tcb(&report.current_tcb()),
        "platform_info": format!("{:#x}", platform.bits()),
        "platform_bits": {
            "smt_en": bit(platform.smt_en()),
            "tsme_en": bit(platform.tsme_en()),
            "ecc_en": bit(platform.ecc_en()),
            "rapl_dis": bit(platform.rapl_dis()),
            "ciphertext_hiding_en": bit(platform.ciphertext_hiding_dram_en()),
            "alias_check_complete": bit(platform.alias_check_complete()),
            "tio_en": bit(platform.tio_en()),
        },
        "key_info": {
            "author_key_en": bit(key.author_key_en),
            "mask_chip_key": bit(key.mask_chip_key),
            "signing_key": key.signing_key.to_string(),
        },
        "report_data": hex_of(report.report_data()),
        "measurement": hex_of(report.measurement()),
        "host_data": hex_of(report.host_data()),
        "id_key_digest": hex_of(report.id_key_digest()),
        "author_key_digest": hex_of(report.author_key_digest()),
        "report_id": hex_of(report.report_id()),
        "report_id_ma": hex_of(report.report_id_ma()),
        "reported_tcb": tcb(&report.reported_tcb()),
        "cpuid": report.cpuid().map(|cpu| json!({
            "family": cpu.family, "model": cpu.model, "stepping": cpu.stepping,
        })),
        "chip_id": hex_of(report.chip_id()),
        "committed_tcb": tcb(&report.committed_tcb()),
        "current_build": current.build,
        "current_version": firmware(current.major, current.minor),
        "committed_build": committed.build,
        "committed_version": firmware(committed.major, committed.minor),
        "launch_tcb": tcb(&report.launch_tcb()),
        "launch_mit_vector": report.launch_mit_vector().map(number),
        "current_mit_vector": report.current_mit_vector().map(number),
    })
}

#[test]
fn every_field_of_every_report_is_read_as_expected() {
    for vector in all() {
        let (found, expected) = (fields(&vector), &vector.expected["fields"]);
        for (name, value) in found.as_object().unwrap() {
            assert_eq!(value, &expected[name], "{}: {name}", vector.name);
        }
        let unread: Vec<_> =
            expected.as_object().unwrap().keys().filter(|name| found.get(name.as_str()).is_none()).collect();
        assert!(unread.is_empty(), "{}: {unread:?}", vector.name);
    }
}

#[test]
fn every_report_is_endorsed_by_the_root_of_its_product_and_the_debugged_one_is_refused_for_that() {
    for vector in all() {
        let endorsed = match vector.verify() {
            Err(SnpError::Debug) if vector.is_debug() => continue,
            result => result.unwrap_or_else(|error| panic!("{}: {error}", vector.name)),
        };
        assert!(!vector.is_debug(), "{}", vector.name);
        let claims = endorsed.claims();
        assert_eq!(claims.report(), &vector.report(), "{}", vector.name);
        assert_eq!(claims.product(), vector.product);
        assert_eq!(claims.anchor(), format!("amd-{}", vector.product.as_str().to_lowercase()));
        assert_eq!(claims.trust(), Trust::Hardware);
        assert_eq!(claims.crl(), CrlStatus::Absent);
        assert!(claims.not_after() > vector.now());
        let expected = &vector.expected;
        assert_eq!(tcb(&claims.reported_tcb()), expected["vek_extensions"]["tcb"], "{}", vector.name);
        let (chip, cloud) = (claims.chip_id().map(|chip| &chip[..]), claims.csp_id());
        match claims.signing_key() {
            SigningKey::Vcek => {
                let hardware_id = hex::decode(expected["vek_extensions"]["hwid"].as_str().unwrap()).unwrap();
                assert_eq!((&chip.unwrap()[..hardware_id.len()], cloud), (&hardware_id[..], None));
            }
            SigningKey::Vlek => {
                assert_eq!(chip, None);
                assert_eq!(cloud, expected["vek_extensions"]["csp_id"].as_str());
            }
        }
        assert_eq!(claims.is_provisional(), is_provisional(&expected["fields"]), "{}", vector.name);
    }
}

fn is_provisional(fields: &Value) -> bool {
    ["tcb", "build", "version"]
        .iter()
        .any(|what| fields[format!("current_{what}")] != fields[format!("committed_{what}")])
}

#[test]
fn report_data_must_be_all_64_bytes() {
    let Some(vector) = named("milan-v3-oc") else { return };
    let endorsed = vector.verify().unwrap();
    let data = *vector.report().report_data();
    assert_eq!(endorsed.check_report_data(&data), Ok(()));
    for index in 0..64 {
        let mut other = data;
        other[index] ^= 1;
        assert_eq!(endorsed.check_report_data(&other), Err(SnpError::ReportDataMismatch), "byte {index}");
    }
}

#[test]
fn chain_is_verified_once_for_many_reports_and_its_dates_each_time() {
    let (Some(first), Some(second)) = (named("milan-v3-oc"), named("milan-v3-oc-second-report")) else { return };
    assert_eq!(VerifiedChain::key(&first.evidence), VerifiedChain::key(&second.evidence), "one chip, one TCB");
    let anchors = TrustAnchors::built_in();
    let chain = VerifiedChain::verify(&first.evidence, &anchors, CrlRule::IfPresent, NOW).unwrap();
    for vector in [&first, &second] {
        let endorsed =
            EndorsedReport::verify_with_chain(&vector.evidence, &chain, &anchors, CrlRule::IfPresent, NOW).unwrap();
        assert_eq!(endorsed.claims(), vector.verify().unwrap().claims());
    }
    let later = chain.not_after().plus(1);
    let refused = |evidence, rule, now| {
        EndorsedReport::verify_with_chain(evidence, &chain, &anchors, rule, now).map(EndorsedReport::into_claims)
    };
    let expired = refused(&first.evidence, CrlRule::IfPresent, later).unwrap_err();
    assert_eq!(expired.code(), "certificate-expired");
    assert_eq!(refused(&first.evidence, CrlRule::Required, NOW).unwrap_err(), SnpError::CrlMissing);
    let other = named("milan-v3-dstack").unwrap();
    assert_eq!(refused(&other.evidence, CrlRule::IfPresent, NOW).unwrap_err(), SnpError::ChainChanged);
}
