//! The fields of an SEV-SNP report.

use attestation::{GuestPolicy, PlatformInfo, Report, SigningKey};

use super::{Explained, Section, on_off};

/// Every field of a report, in the order of its bytes.
pub fn explain_report(report: &Report) -> Section {
    let mut fields = identity(report);
    fields.extend(policy(report.policy()));
    fields.extend(platform(report.platform_info()));
    fields.extend(launched(report));
    fields.extend(versions(report));
    fields.push(Explained::new(
        "signature",
        hex::encode(report.signature()),
        "r and s of ECDSA P-384, big-endian; not checked here",
    ));
    Section { title: "SNP report".to_owned(), fields }
}

fn identity(report: &Report) -> Vec<Explained> {
    let product = if report.version() == 2 { "not named" } else { report.product().as_str() };
    let cpu = report.cpuid().map_or_else(
        || "not named".to_owned(),
        |cpu| format!("family {:#04x}, model {:#04x}, stepping {}", cpu.family, cpu.model, cpu.stepping),
    );
    let key_info = report.key_info();
    let masked = report.chip_id() == &[0; 64];
    vec![
        Explained::new("version", report.version(), "format of the report, 2 to 5")
            .look_if(report.version() == 2, "old firmware: the report does not say which processor it is from"),
        Explained::new("product", product, "processor line, which decides the root and the layout of TCBs"),
        Explained::new("cpuid", cpu, "the processor"),
        Explained::new("signing_key", key_info.signing_key, "vcek: the chip's own key; vlek: a key of the cloud")
            .look_if(
                key_info.signing_key == SigningKey::Vlek,
                "proves a cloud and no chip: it may load the key into any of its machines",
            ),
        Explained::new("signature_algorithm", report.signature_algorithm(), "1: ECDSA P-384 with SHA-384"),
        Explained::new("chip_id", hex::encode(report.chip_id()), "the chip, for life")
            .look_if(masked, "the host masks it"),
        Explained::new("mask_chip_key", on_off(key_info.mask_chip_key), "the host keeps its chip's key from guests"),
        Explained::new("vmpl", report.vmpl(), "privilege level that asked, 0 the most privileged")
            .look_if(report.vmpl() > 3, "no guest has it: the host asked for this report"),
        Explained::new("report_id", hex::encode(report.report_id()), "this launch of this guest, new each time"),
        Explained::new("report_id_ma", hex::encode(report.report_id_ma()), "its migration agent; all ones: none")
            .look_if(report.report_id_ma() != &[0xff; 32], "a migration agent can move the guest and its secrets"),
    ]
}

fn policy(policy: GuestPolicy) -> Vec<Explained> {
    let abi = format!("{}.{}", policy.abi_major(), policy.abi_minor());
    vec![
        Explained::new("policy", format!("{:#x}", policy.bits()), "what the guest's owner allows its host"),
        Explained::new("policy.abi", abi, "least version of the firmware ABI"),
        Explained::new("policy.debug", on_off(policy.debug()), "the host may read and write the guest's memory")
            .look_if(policy.debug(), "nothing in this guest is secret; no verifier here takes it"),
        Explained::new("policy.migrate_ma", on_off(policy.migrate_ma()), "a migration agent may be associated")
            .look_if(policy.migrate_ma(), "the guest and its secrets can be moved; no verifier here takes it"),
        Explained::new("policy.smt", on_off(policy.smt()), "two threads of a core may run")
            .look_if(policy.smt(), "a neighbour on the same core has side channels"),
        Explained::new("policy.single_socket", on_off(policy.single_socket()), "the guest runs on one socket only"),
        Explained::new("policy.cxl_allow", on_off(policy.cxl_allow()), "CXL devices and memory may be populated"),
        Explained::new("policy.mem_aes_256_xts", on_off(policy.mem_aes_256_xts()), "memory must use AES-256-XTS"),
        Explained::new("policy.rapl_dis", on_off(policy.rapl_dis()), "the power sensor must be off"),
        Explained::new(
            "policy.ciphertext_hiding_dram",
            on_off(policy.ciphertext_hiding_dram()),
            "the host must not be able to read ciphertext",
        ),
        Explained::new(
            "policy.page_swap_disable",
            on_off(policy.page_swap_disable()),
            "the host may not swap or move pages through the firmware",
        ),
    ]
}

fn platform(info: PlatformInfo) -> Vec<Explained> {
    vec![
        Explained::new("platform_info", format!("{:#x}", info.bits()), "how the host has set its machine up"),
        Explained::new("platform.smt_en", on_off(info.smt_en()), "two threads of a core run")
            .look_if(info.smt_en(), "a neighbour on the same core has side channels"),
        Explained::new("platform.tsme_en", on_off(info.tsme_en()), "the whole memory is encrypted, the host's too"),
        Explained::new("platform.ecc_en", on_off(info.ecc_en()), "memory has error correction"),
        Explained::new("platform.rapl_dis", on_off(info.rapl_dis()), "the power sensor is off"),
        Explained::new(
            "platform.ciphertext_hiding_dram_en",
            on_off(info.ciphertext_hiding_dram_en()),
            "the host can't read ciphertext",
        ),
        Explained::new(
            "platform.alias_check_complete",
            on_off(info.alias_check_complete()),
            "no two addresses were found to be the same memory",
        )
        .look_if(!info.alias_check_complete(), "not shown that memory has no aliases (CVE-2024-21944, \"BadRAM\")"),
        Explained::new("platform.tio_en", on_off(info.tio_en()), "trusted IO"),
    ]
}

fn launched(report: &Report) -> Vec<Explained> {
    let blank = |digest: &[u8]| digest.iter().all(|byte| *byte == 0);
    let author_key = report.author_key_digest();
    vec![
        Explained::new("measurement", hex::encode(report.measurement()), "digest of what was launched")
            .look_if(blank(report.measurement()), "all zero: nothing was measured"),
        Explained::new("report_data", hex::encode(report.report_data()), "what the guest put in: challenge and keys")
            .look_if(blank(report.report_data()), "all zero: the report was made for nobody in particular"),
        Explained::new("host_data", hex::encode(report.host_data()), "what the host put in at launch"),
        Explained::new("guest_svn", report.guest_svn(), "security version, out of the ID block"),
        Explained::new("family_id", hex::encode(report.family_id()), "out of the ID block"),
        Explained::new("image_id", hex::encode(report.image_id()), "out of the ID block"),
        Explained::new(
            "id_key_digest",
            hex::encode(report.id_key_digest()),
            "key that signed the ID block; zero: none",
        ),
        Explained::new("author_key_en", on_off(report.key_info().author_key_en), "an author key signed the ID key"),
        Explained::new("author_key_digest", hex::encode(author_key), "that author key; zero: none"),
    ]
}

fn versions(report: &Report) -> Vec<Explained> {
    let (reported, current) = (report.reported_tcb(), report.current_tcb());
    let (committed, launch) = (report.committed_tcb(), report.launch_tcb());
    let vector = |bits: Option<u64>| bits.map_or_else(|| "not reported".to_owned(), |bits| format!("{bits:#x}"));
    let provisional = "the host can still roll its firmware back";
    vec![
        Explained::new("reported_tcb", reported, "the TCB that the signing key was derived for")
            .look_if(!current.meets(&reported), "above the current one, which no firmware states"),
        Explained::new("current_tcb", current, "the TCB that runs now")
            .look_if(!current.meets(&committed), "below the committed one, which no firmware states"),
        Explained::new("committed_tcb", committed, "the host can't go back below it")
            .look_if(current != committed, provisional),
        Explained::new("launch_tcb", launch, "the TCB when the guest was launched")
            .look_if(!launch.meets(&reported), "older than the reported one: what leaked then stays leaked"),
        Explained::new("current_version", report.current_version(), "firmware that runs now"),
        Explained::new("committed_version", report.committed_version(), "firmware that the host can't go back below")
            .look_if(report.current_version() != report.committed_version(), provisional),
        Explained::new("launch_mit_vector", vector(report.launch_mit_vector()), "mitigations in force at launch"),
        Explained::new("current_mit_vector", vector(report.current_mit_vector()), "mitigations in force now"),
    ]
}
