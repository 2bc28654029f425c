//! What an endorsed key signed, and is refused all the same.

use attestation::{CrlStatus, SigningKey, SnpCertificate, SnpError, SnpProduct, TcbComponent, Trust};

use crate::soft::{CLOUD, FMC, Soft, TCB, at, chip};

fn every_platform() -> impl Iterator<Item = (SnpProduct, SigningKey)> {
    SnpProduct::ALL.into_iter().flat_map(|product| [(product, SigningKey::Vcek), (product, SigningKey::Vlek)])
}

/// The refusal of a report of `soft` in which one byte is set.
fn with_byte(soft: Soft, offset: usize, byte: u8) -> SnpError {
    soft.refusal(|soft| soft.report[offset] = byte)
}

#[test]
fn soft_platform_of_every_product_and_key_is_accepted_as_emulated() {
    for (product, kind) in every_platform() {
        let claims = Soft::new(product, kind).verify().unwrap();
        assert_eq!((claims.product(), claims.signing_key()), (product, kind));
        assert_eq!((claims.anchor(), claims.trust()), ("soft", Trust::Emulated));
        assert_eq!(claims.crl(), CrlStatus::Absent);
        let expected = match kind {
            SigningKey::Vcek => (Some(chip(product)), None),
            SigningKey::Vlek => (None, Some(CLOUD)),
        };
        assert_eq!((claims.chip_id().copied(), claims.csp_id()), expected);
        assert!(!claims.is_provisional());
    }
}

#[test]
fn reports_of_versions_2_to_5_are_accepted_and_no_others() {
    for version in 0..=8 {
        let mut soft = Soft::milan();
        soft.report[0] = version;
        if version == 2 {
            soft.report[at::CPUID..at::CPUID + 3].fill(0);
        }
        let result = soft.verify().map(|claims| claims.version());
        let known = (2..=5).contains(&version);
        let expected = if known { Ok(version.into()) } else { Err(SnpError::ReportVersion { found: version.into() }) };
        assert_eq!(result, expected);
    }
}

#[test]
fn report_of_version_2_takes_its_product_from_the_chain() {
    for product in SnpProduct::ALL {
        let mut soft = Soft::new(product, SigningKey::Vcek);
        soft.report[0] = 2;
        soft.report[at::CPUID..at::CPUID + 3].fill(0);
        let claims = soft.verify().unwrap();
        assert_eq!((claims.product(), claims.cpuid()), (product, None));
        assert_eq!(claims.launch_mit_vector(), None);
        assert_eq!(claims.reported_tcb().fmc, (product == SnpProduct::Turin).then_some(FMC));
    }
}

#[test]
fn processor_that_is_unknown_or_of_another_product_is_refused() {
    let unknown = SnpError::CpuUnknown { family: 0x1a, model: 0x50 };
    let refused = Soft::milan().refusal(|soft| soft.report[at::CPUID..at::CPUID + 2].copy_from_slice(&[0x1a, 0x50]));
    assert_eq!(refused, unknown);
    let mismatch = SnpError::ReportProductMismatch { chain: SnpProduct::Milan, report: SnpProduct::Genoa };
    assert_eq!(with_byte(Soft::milan(), at::CPUID + 1, 0x11), mismatch);
}

#[test]
fn every_reserved_byte_must_be_zero() {
    for (product, kind) in every_platform() {
        for version in [2, 3, 4, 5] {
            let mut soft = Soft::new(product, kind);
            soft.report[0] = version;
            if version == 2 {
                soft.report[at::CPUID..at::CPUID + 3].fill(0);
            }
            assert!(soft.verify().is_ok());
            let evidence = soft.evidence();
            for offset in reserved(product, version) {
                let mut changed = evidence.clone();
                changed.report[offset] = 1;
                let refused = crate::vectors::verify_under(&changed, &soft.anchors).unwrap_err();
                assert_eq!(refused, SnpError::ReportReservedNotZero { offset }, "{product} version {version}");
            }
        }
    }
}

/// The reserved bytes (SEV-SNP Firmware ABI, Tables ATTESTATION_REPORT and TCB_VERSION), written down a second time.
fn reserved(product: SnpProduct, version: u8) -> impl Iterator<Item = usize> {
    let tcb = if product == SnpProduct::Turin { [4, 5, 6, 6] } else { [2, 3, 4, 5] };
    let tcbs = [0x038, 0x180, 0x1e0, 0x1f0].into_iter().flat_map(move |at| tcb.map(|byte| at + byte));
    let cpuid = if version == 2 { 0x188 } else { 0x18b };
    let end_of_fields = if version == 5 { 0x208 } else { 0x1f8 };
    tcbs.chain(0x04c..0x050)
        .chain(cpuid..0x1a0)
        .chain([0x1eb, 0x1ef])
        .chain(end_of_fields..0x2a0)
        .chain(0x2d0..0x2e8)
        .chain(0x318..0x4a0)
}

#[test]
fn unknown_bits_and_values_are_refused() {
    let set = |offset, byte| with_byte(Soft::milan(), offset, byte);
    assert_eq!(set(0x34, 2), SnpError::ReportSignatureAlgorithm { found: 2 });
    assert_eq!(set(at::KEY_INFO, 0x20), SnpError::KeyInfoUnknown { bits: 0x20 });
    assert_eq!(set(at::KEY_INFO + 3, 0x80), SnpError::KeyInfoUnknown { bits: 0x8000_0000 });
    for found in 2..=6 {
        assert_eq!(set(at::KEY_INFO, found << 2), SnpError::SigningKeyUnknown { found: found.into() });
    }
    assert_eq!(set(at::KEY_INFO, 7 << 2), SnpError::ReportUnsigned);
    assert_eq!(set(at::GUEST_POLICY + 2, 0x01), SnpError::PolicyReservedBitClear);
    assert_eq!(set(at::GUEST_POLICY + 3, 0x04), SnpError::PolicyBitsUnknown { bits: 1 << 26 });
    assert_eq!(set(at::GUEST_POLICY + 7, 0x80), SnpError::PolicyBitsUnknown { bits: 1 << 63 });
    assert_eq!(set(at::PLATFORM_INFO + 1, 1), SnpError::PlatformInfoUnknown { bits: 1 << 8 });
    for found in [4, 255] {
        assert_eq!(set(at::VMPL, found), SnpError::VmplUnknown { found: found.into() });
    }
    // What a report has that the host asked for.
    let host = Soft::milan().refusal(|soft| soft.report[at::VMPL..at::VMPL + 4].fill(0xff));
    assert_eq!(host, SnpError::VmplUnknown { found: u32::MAX });
}

#[test]
fn bits_that_are_for_a_policy_to_judge_are_claims() {
    let mut soft = Soft::milan();
    soft.report[at::GUEST_POLICY..at::GUEST_POLICY + 4].copy_from_slice(&[0x1f, 0x01, 0xf3, 0x03]);
    soft.report[at::PLATFORM_INFO] = 0xff;
    soft.report[at::KEY_INFO] = 3;
    soft.report[at::VMPL] = 3;
    let claims = soft.verify().unwrap();
    let (policy, platform) = (claims.policy(), claims.platform_info());
    assert_eq!((policy.abi_major(), policy.abi_minor()), (1, 0x1f));
    assert!(policy.smt() && policy.single_socket() && policy.cxl_allow() && policy.mem_aes_256_xts());
    assert!(policy.rapl_dis() && policy.ciphertext_hiding_dram() && policy.page_swap_disable());
    assert!(platform.smt_en() && platform.tsme_en() && platform.ecc_en() && platform.rapl_dis());
    assert!(platform.ciphertext_hiding_dram_en() && platform.alias_check_complete() && platform.tio_en());
    assert!(claims.author_key_en() && claims.mask_chip_key());
    assert_eq!(claims.vmpl(), 3);
}

#[test]
fn guest_whose_memory_others_may_have_is_refused() {
    assert_eq!(with_byte(Soft::milan(), at::GUEST_POLICY + 2, 0x0b), SnpError::Debug);
    assert_eq!(with_byte(Soft::milan(), at::GUEST_POLICY + 2, 0x07), SnpError::MigrationAllowed);
    for offset in [at::REPORT_ID_MA, at::REPORT_ID_MA + 31] {
        assert_eq!(with_byte(Soft::milan(), offset, 0xfe), SnpError::MigrationAgent);
    }
}

#[test]
fn leaf_is_for_exactly_the_reported_tcb() {
    let components = [TcbComponent::Bootloader, TcbComponent::Tee, TcbComponent::Snp, TcbComponent::Microcode];
    for (product, offsets) in [(SnpProduct::Genoa, [0, 1, 6, 7]), (SnpProduct::Turin, [1, 2, 3, 7])] {
        for ((offset, component), level) in offsets.into_iter().zip(components).zip(TCB) {
            let soft = || Soft::new(product, SigningKey::Vcek);
            // A lower and a higher one: the key was derived for this one alone.
            let lower = with_byte(soft(), at::REPORTED_TCB + offset, level - 1);
            let higher = with_byte(soft(), at::REPORTED_TCB + offset, level + 1);
            assert_eq!([lower, higher], [SnpError::LeafTcbMismatch { component }; 2]);
        }
    }
    let soft = Soft::new(SnpProduct::Turin, SigningKey::Vcek);
    let component = TcbComponent::Fmc;
    assert_eq!(with_byte(soft, at::REPORTED_TCB, FMC + 1), SnpError::LeafTcbMismatch { component });
}

#[test]
fn tcb_above_the_current_one_is_refused_in_each_component() {
    let of_turin =
        [TcbComponent::Fmc, TcbComponent::Bootloader, TcbComponent::Tee, TcbComponent::Snp, TcbComponent::Microcode];
    for (offset, component) in [0, 1, 2, 3, 7].into_iter().zip(of_turin) {
        let soft = || Soft::new(SnpProduct::Turin, SigningKey::Vcek);
        // All others are far above, which must not make up for it.
        let mut current = [255, 255, 255, 255, 0, 0, 0, 255];
        let reported = soft().refusal(|soft| {
            current[offset] = soft.report[at::REPORTED_TCB + offset] - 1;
            soft.report[at::CURRENT_TCB..at::CURRENT_TCB + 8].copy_from_slice(&current);
        });
        assert_eq!(reported, SnpError::ReportedAboveCurrent { component });
        let committed = soft().refusal(|soft| soft.report[at::COMMITTED_TCB + offset] += 1);
        assert_eq!(committed, SnpError::CommittedAboveCurrent { component });
    }
}

#[test]
fn firmware_that_is_not_committed_is_a_claim() {
    for change in [|soft: &mut Soft| soft.report[at::CURRENT_TCB + 7] += 1, |soft: &mut Soft| soft.report[0x1e8] = 1] {
        let mut soft = Soft::milan();
        change(&mut soft);
        assert!(soft.verify().unwrap().is_provisional());
    }
}

#[test]
fn vcek_is_of_exactly_the_chip_in_the_report() {
    for product in SnpProduct::ALL {
        for offset in [0, 7, 8, 63] {
            let soft = Soft::new(product, SigningKey::Vcek);
            let refused = soft.refusal(|soft| soft.report[at::CHIP_ID + offset] ^= 1);
            assert_eq!(refused, SnpError::ChipMismatch, "{product}, byte {offset}");
        }
        let masked =
            Soft::new(product, SigningKey::Vcek).refusal(|soft| soft.report[at::CHIP_ID..at::CHIP_ID + 64].fill(0));
        assert_eq!(masked, SnpError::ChipMasked);
    }
}

#[test]
fn report_must_name_the_kind_of_key_that_signed_it() {
    let (vcek, vlek) = (SigningKey::Vcek, SigningKey::Vlek);
    let refused = with_byte(Soft::milan(), at::KEY_INFO, 1 << 2);
    assert_eq!(refused, SnpError::SigningKeyMismatch { leaf: vcek, report: vlek });
    let refused = with_byte(Soft::new(SnpProduct::Milan, vlek), at::KEY_INFO, 0);
    assert_eq!(refused, SnpError::SigningKeyMismatch { leaf: vlek, report: vcek });
}

#[test]
fn soft_platform_is_refused_under_the_built_in_anchors() {
    let soft = Soft::milan();
    let refused = crate::vectors::verify(&soft.evidence(), crate::vectors::NOW).unwrap_err();
    assert_eq!(refused, SnpError::RootUnknown);
    let mut evidence = soft.evidence();
    evidence.certificates.truncate(2);
    let refused = crate::vectors::verify(&evidence, crate::vectors::NOW).unwrap_err();
    assert_eq!(refused, SnpError::CertificateMissing(SnpCertificate::Root));
    assert!(crate::vectors::verify_under(&evidence, &soft.anchors).is_ok(), "the anchor has the certificate");
    evidence.certificates[1][600] ^= 1;
    let refused = crate::vectors::verify_under(&evidence, &soft.anchors).unwrap_err();
    assert_eq!(refused, SnpError::CertificateMissing(SnpCertificate::Root));
}
