//! Every field of a report and of a quote, for programs.

use std::collections::BTreeMap;

use attestation::{CrlStatus, GuestPolicy, PlatformInfo, QuoteStatement, Report, SnpClaims, TcbVersion, UnixTime};
use serde::Serialize;

use crate::print::moment;

/// All that a report says. Hex is in lower case.
#[derive(Debug, Clone, Serialize)]
pub struct ReportFields {
    version: u32,
    /// Not named by a report of version 2: then the one of its chain, or none where there is no chain.
    product: Option<&'static str>,
    cpuid: Option<Cpu>,
    guest_svn: u32,
    policy: PolicyBits,
    family_id: String,
    image_id: String,
    vmpl: u32,
    signature_algorithm: u32,
    signing_key: String,
    author_key_en: bool,
    mask_chip_key: bool,
    platform_info: PlatformBits,
    report_data: String,
    measurement: String,
    host_data: String,
    id_key_digest: String,
    author_key_digest: String,
    report_id: String,
    report_id_ma: String,
    /// Nothing where the host masks it.
    chip_id: Option<String>,
    reported_tcb: Tcb,
    current_tcb: Tcb,
    committed_tcb: Tcb,
    launch_tcb: Tcb,
    current_version: String,
    committed_version: String,
    provisional_firmware: bool,
    launch_mit_vector: Option<String>,
    current_mit_vector: Option<String>,
}

#[derive(Debug, Clone, Serialize)]
struct Cpu {
    family: u8,
    model: u8,
    stepping: u8,
}

#[derive(Debug, Clone, Serialize)]
struct Tcb {
    #[serde(skip_serializing_if = "Option::is_none")]
    fmc: Option<u8>,
    bootloader: u8,
    tee: u8,
    snp: u8,
    microcode: u8,
}

#[derive(Debug, Clone, Serialize)]
#[expect(clippy::struct_excessive_bools, reason = "they are the bits of one word")]
struct PolicyBits {
    bits: String,
    abi_major: u8,
    abi_minor: u8,
    smt: bool,
    migrate_ma: bool,
    debug: bool,
    single_socket: bool,
    cxl_allow: bool,
    mem_aes_256_xts: bool,
    rapl_dis: bool,
    ciphertext_hiding_dram: bool,
    page_swap_disable: bool,
}

#[derive(Debug, Clone, Serialize)]
#[expect(clippy::struct_excessive_bools, reason = "they are the bits of one word")]
struct PlatformBits {
    bits: String,
    smt_en: bool,
    tsme_en: bool,
    ecc_en: bool,
    rapl_dis: bool,
    ciphertext_hiding_dram_en: bool,
    alias_check_complete: bool,
    tio_en: bool,
}

/// What a report's chain adds once it holds.
#[derive(Debug, Clone, Serialize)]
pub struct ChainFields {
    /// The cloud whose VLEK signed.
    csp_id: Option<String>,
    crl: CrlFields,
}

#[derive(Debug, Clone, Serialize)]
struct CrlFields {
    status: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    next_update: Option<String>,
}

/// All that a quote says.
#[derive(Debug, Clone, Serialize)]
pub struct QuoteFields {
    signer: String,
    extra_data: String,
    clock_ms: u64,
    reset_count: u32,
    restart_count: u32,
    safe: bool,
    firmware_version: String,
    pcr_digest: String,
    pcrs: BTreeMap<u32, String>,
}

impl ReportFields {
    /// `product_known`: the report, or the chain that it verified under, says which processor it is from.
    pub fn of(report: &Report, product_known: bool) -> Self {
        Self {
            version: report.version(),
            product: product_known.then(|| report.product().as_str()),
            cpuid: report.cpuid().map(|cpu| Cpu { family: cpu.family, model: cpu.model, stepping: cpu.stepping }),
            guest_svn: report.guest_svn(),
            policy: PolicyBits::of(report.policy()),
            family_id: hex::encode(report.family_id()),
            image_id: hex::encode(report.image_id()),
            vmpl: report.vmpl(),
            signature_algorithm: report.signature_algorithm(),
            signing_key: report.key_info().signing_key.to_string(),
            author_key_en: report.key_info().author_key_en,
            mask_chip_key: report.key_info().mask_chip_key,
            platform_info: PlatformBits::of(report.platform_info()),
            report_data: hex::encode(report.report_data()),
            measurement: hex::encode(report.measurement()),
            host_data: hex::encode(report.host_data()),
            id_key_digest: hex::encode(report.id_key_digest()),
            author_key_digest: hex::encode(report.author_key_digest()),
            report_id: hex::encode(report.report_id()),
            report_id_ma: hex::encode(report.report_id_ma()),
            chip_id: Some(report.chip_id()).filter(|chip| *chip != &[0; 64]).map(hex::encode),
            reported_tcb: Tcb::of(report.reported_tcb()),
            current_tcb: Tcb::of(report.current_tcb()),
            committed_tcb: Tcb::of(report.committed_tcb()),
            launch_tcb: Tcb::of(report.launch_tcb()),
            current_version: report.current_version().to_string(),
            committed_version: report.committed_version().to_string(),
            provisional_firmware: report.is_provisional(),
            launch_mit_vector: report.launch_mit_vector().map(|bits| format!("{bits:#x}")),
            current_mit_vector: report.current_mit_vector().map(|bits| format!("{bits:#x}")),
        }
    }
}

impl Tcb {
    const fn of(tcb: TcbVersion) -> Self {
        let TcbVersion { fmc, bootloader, tee, snp, microcode } = tcb;
        Self { fmc, bootloader, tee, snp, microcode }
    }
}

impl PolicyBits {
    fn of(policy: GuestPolicy) -> Self {
        Self {
            bits: format!("{:#x}", policy.bits()),
            abi_major: policy.abi_major(),
            abi_minor: policy.abi_minor(),
            smt: policy.smt(),
            migrate_ma: policy.migrate_ma(),
            debug: policy.debug(),
            single_socket: policy.single_socket(),
            cxl_allow: policy.cxl_allow(),
            mem_aes_256_xts: policy.mem_aes_256_xts(),
            rapl_dis: policy.rapl_dis(),
            ciphertext_hiding_dram: policy.ciphertext_hiding_dram(),
            page_swap_disable: policy.page_swap_disable(),
        }
    }
}

impl PlatformBits {
    fn of(info: PlatformInfo) -> Self {
        Self {
            bits: format!("{:#x}", info.bits()),
            smt_en: info.smt_en(),
            tsme_en: info.tsme_en(),
            ecc_en: info.ecc_en(),
            rapl_dis: info.rapl_dis(),
            ciphertext_hiding_dram_en: info.ciphertext_hiding_dram_en(),
            alias_check_complete: info.alias_check_complete(),
            tio_en: info.tio_en(),
        }
    }
}

impl From<&SnpClaims> for ChainFields {
    fn from(claims: &SnpClaims) -> Self {
        let (status, next_update): (_, Option<UnixTime>) = match claims.crl() {
            CrlStatus::Absent => ("absent", None),
            CrlStatus::OutOfDate => ("out-of-date", None),
            CrlStatus::Current { next_update } => ("current", Some(next_update)),
        };
        let crl = CrlFields { status, next_update: next_update.map(moment) };
        Self { csp_id: claims.csp_id().map(str::to_owned), crl }
    }
}

impl QuoteFields {
    /// A quote and the values that it is over, or that came with it.
    pub fn of(statement: &QuoteStatement, pcrs: &BTreeMap<u32, [u8; 32]>) -> Self {
        Self {
            signer: hex::encode(&statement.signer),
            extra_data: hex::encode(&statement.extra_data),
            clock_ms: statement.clock,
            reset_count: statement.reset_count,
            restart_count: statement.restart_count,
            safe: statement.safe,
            firmware_version: format!("{:#x}", statement.firmware_version),
            pcr_digest: hex::encode(&statement.pcr_digest),
            pcrs: pcrs.iter().map(|(index, value)| (*index, hex::encode(value))).collect(),
        }
    }
}
