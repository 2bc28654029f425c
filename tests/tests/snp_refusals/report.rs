//! What a report says, and what it says against its leaf.

use attestation::{Report, SigningKey, SnpError, SnpProduct, TcbComponent};
use vault_tests::forge::amd::Product;
use vault_tests::forge::report::{POLICY_DEBUG, POLICY_MIGRATE_MA, put_signature};

use super::{Input, Output, with_input, with_output, with_platform, with_report};

#[test]
fn form() {
    assert_eq!(with_output(|it| it.evidence.report.truncate(1183)), SnpError::ReportLength { found: 1183 });
    assert_eq!(with_output(|it| it.evidence.report.push(0)), SnpError::ReportLength { found: 1185 });
    for found in [0, 1, 6, 7, 0x0100_0003] {
        assert_eq!(with_platform(|it| it.report_version = found), SnpError::ReportVersion { found });
    }
    assert_eq!(with_report(|it| it[0x34] = 3), SnpError::ReportSignatureAlgorithm { found: 3 });
    assert_eq!(with_report(|it| it[0x48] |= 1 << 5), SnpError::KeyInfoUnknown { bits: 1 << 5 });
    assert_eq!(with_report(|it| it[0x48] = 2 << 2), SnpError::SigningKeyUnknown { found: 2 });
    assert_eq!(with_platform(|it| it.mask_chip_key = true), SnpError::ReportUnsigned);
    assert_eq!(with_input(|it| it.guest.policy |= 1 << 26), SnpError::PolicyBitsUnknown { bits: 1 << 26 });
    assert_eq!(with_input(|it| it.guest.policy &= !(1 << 17)), SnpError::PolicyReservedBitClear);
    assert_eq!(with_platform(|it| it.platform_info |= 1 << 8), SnpError::PlatformInfoUnknown { bits: 1 << 8 });
}

#[test]
fn reserved_bytes() {
    // Of every product, version 5; those inside a TCB version are Milan's.
    for offset in [0x4C, 0x4F, 0x18B, 0x19F, 0x1EB, 0x1EF, 0x208, 0x29F, 0x3A, 0x182, 0x185, 0x1E2, 0x1F5] {
        assert_eq!(with_report(|it| it[offset] = 1), SnpError::ReportReservedNotZero { offset });
    }
    // Not signed: anyone can write them.
    for offset in [0x2D0, 0x2E7, 0x318, 0x32F, 0x330, 0x49F] {
        assert_eq!(with_output(|it| it.evidence.report[offset] = 1), SnpError::ReportReservedNotZero { offset });
    }
    for (version, offset) in [(2, 0x188), (3, 0x1F8), (4, 0x200)] {
        let input = Input::on(Input::new(Product::Milan).platform.with(|it| it.report_version = version));
        let output = input.output(&input.vek.issued(), input.report(|it| it[offset] = 0x19));
        assert_eq!(output.refusal(), SnpError::ReportReservedNotZero { offset });
    }
    let turin = Input::new(Product::Turin);
    let output = turin.output(&turin.vek.issued(), turin.report(|it| it[0x3C] = 1));
    assert_eq!(output.refusal(), SnpError::ReportReservedNotZero { offset: 0x3C });
}

#[test]
fn product() {
    let unknown = SnpError::CpuUnknown { family: 0x1A, model: 0x50 };
    assert_eq!(with_platform(|it| it.cpuid = [0x1A, 0x50, 0]), unknown);
    let mismatch = SnpError::ReportProductMismatch { chain: SnpProduct::Milan, report: SnpProduct::Genoa };
    assert_eq!(with_platform(|it| it.cpuid = Product::Genoa.cpuid()), mismatch);
    let input = Input::on(Input::new(Product::Milan).platform.with(|it| it.report_version = 2));
    assert_eq!(Report::parse(&input.report(|_| {}), None), Err(SnpError::ReportProductUnknown));
}

#[test]
fn signature() {
    assert_eq!(with_output(|it| it.evidence.report[0x50] ^= 1), SnpError::ReportSignatureInvalid);
    let other = Input::new(Product::Milan).key;
    assert_eq!(with_input(|it| it.key = other), SnpError::ReportSignatureInvalid);
    let zeros = |report: &mut Vec<u8>| {
        let mut bytes = report.as_slice().try_into().unwrap();
        put_signature(&mut bytes, &[0; 96]);
        *report = bytes.to_vec();
    };
    assert_eq!(with_output(|it| zeros(&mut it.evidence.report)), SnpError::ReportSignatureInvalid);
    let mismatch = |leaf, report| SnpError::SigningKeyMismatch { leaf, report };
    assert_eq!(with_report(|it| it[0x48] = 1 << 2), mismatch(SigningKey::Vcek, SigningKey::Vlek));
    let leased = Input::leased();
    let output = leased.output(&leased.vek.issued(), leased.report(|it| it[0x48] = 0));
    assert_eq!(output.refusal(), mismatch(SigningKey::Vlek, SigningKey::Vcek));
}

#[test]
fn chip() {
    assert_eq!(with_input(|it| it.platform.chip_id[0] ^= 1), SnpError::ChipMismatch);
    assert_eq!(with_input(|it| it.platform.chip_id[63] ^= 1), SnpError::ChipMismatch);
    assert_eq!(with_platform(|it| it.mask_chip_id = true), SnpError::ChipMasked);
    let mut turin = Input::new(Product::Turin);
    turin.platform.chip_id[8] = 1;
    assert_eq!(Output::good(&turin).refusal(), SnpError::ChipMismatch);
}

#[test]
fn tcb() {
    let leaf = |component| SnpError::LeafTcbMismatch { component };
    assert_eq!(with_input(|it| it.vek.tcb.bootloader += 1), leaf(TcbComponent::Bootloader));
    assert_eq!(with_input(|it| it.vek.tcb.tee += 1), leaf(TcbComponent::Tee));
    assert_eq!(with_input(|it| it.vek.tcb.snp -= 1), leaf(TcbComponent::Snp));
    assert_eq!(with_input(|it| it.vek.tcb.microcode -= 1), leaf(TcbComponent::Microcode));
    let mut turin = Input::new(Product::Turin);
    turin.vek.tcb.fmc += 1;
    assert_eq!(Output::good(&turin).refusal(), leaf(TcbComponent::Fmc));
    let reported = |component| SnpError::ReportedAboveCurrent { component };
    assert_eq!(with_platform(|it| it.reported.snp += 1), reported(TcbComponent::Snp));
    let committed = |component| SnpError::CommittedAboveCurrent { component };
    assert_eq!(with_platform(|it| it.committed.microcode += 1), committed(TcbComponent::Microcode));
}

#[test]
fn guest() {
    assert_eq!(with_input(|it| it.guest.policy |= POLICY_DEBUG), SnpError::Debug);
    assert_eq!(with_input(|it| it.guest.policy |= POLICY_MIGRATE_MA), SnpError::MigrationAllowed);
    assert_eq!(with_input(|it| it.guest.migration_agent = Some([1; 32])), SnpError::MigrationAgent);
    for found in [4, u32::MAX] {
        assert_eq!(with_input(|it| it.guest.vmpl = found), SnpError::VmplUnknown { found });
    }
}

#[test]
fn what_is_a_matter_of_policy_is_claimed_and_not_refused() {
    let provisional = Input::new(Product::Genoa).platform.with(|it| it.committed.snp -= 1);
    assert!(Output::good(&Input::on(provisional)).verify().unwrap().claims().is_provisional());
    let mut below = Input::new(Product::Milan);
    below.guest.vmpl = 3;
    assert_eq!(Output::good(&below).verify().unwrap().report().vmpl(), 3);
}
