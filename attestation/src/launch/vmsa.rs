//! The first state of a vCPU: the save area that QEMU and KVM hand to the secure processor.
//!
//! Offsets: AMD64 Architecture Programmer's Manual Volume 2 (24593), appendix B, table "VMSA Layout, State Save Area for
//! SEV-ES". Values: those of a CPU after reset (same volume, "Processor Initialization State"), as KVM syncs them
//! (Linux, arch/x86/kvm/svm/sev.c, sev_es_sync_vmsa), and QEMU's CPU model in RDX.

use super::PAGE;

/// Where the first vCPU begins.
pub(super) const RESET_VECTOR: u32 = 0xffff_fff0;
/// SEV_FEATURES with only SNPActive, bit 0.
pub const GUEST_FEATURES_SNP: u64 = 1;

/// A CPU model of QEMU, by what decides the digest: family, model, stepping.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CpuType {
    /// `EPYC`, all versions: family 23, model 1, stepping 2.
    Epyc,
    /// `EPYC-Rome`: 23, 49, 0.
    EpycRome,
    /// `EPYC-Milan`: 25, 1, 1.
    EpycMilan,
    /// `EPYC-Genoa`: 25, 17, 0.
    EpycGenoa,
    /// `EPYC-Turin`: 26, 0, 0.
    EpycTurin,
}

impl CpuType {
    /// By QEMU's name, with or without a version such as `-v2`; `EPYC-IBPB` too (QEMU, target/i386/cpu.c).
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        let versioned = |(model, version): (&'_ str, &str)| {
            let is_version = matches!(version, "1" | "2" | "3" | "4" | "5");
            is_version.then(|| model.to_owned())
        };
        let model = name.rsplit_once("-v").map_or_else(|| Some(name.to_owned()), versioned)?;
        match model.as_str() {
            "EPYC" | "EPYC-IBPB" => Some(Self::Epyc),
            "EPYC-Rome" => Some(Self::EpycRome),
            "EPYC-Milan" => Some(Self::EpycMilan),
            "EPYC-Genoa" => Some(Self::EpycGenoa),
            "EPYC-Turin" => Some(Self::EpycTurin),
            _ => None,
        }
    }

    /// CPUID 1 EAX: what RDX holds after reset.
    const fn signature(self) -> u32 {
        let (family, model, stepping): (u32, u32, u32) = match self {
            Self::Epyc => (23, 1, 2),
            Self::EpycRome => (23, 49, 0),
            Self::EpycMilan => (25, 1, 1),
            Self::EpycGenoa => (25, 17, 0),
            Self::EpycTurin => (26, 0, 0),
        };
        // Every family here is above 15, so the base family is 15 and the rest is extended.
        (family - 15) << 20 | (model >> 4) << 16 | 15 << 8 | (model & 15) << 4 | stepping
    }
}

/// The page of a vCPU that begins at `start`.
pub(super) fn page(start: u32, cpu: CpuType, guest_features: u64) -> [u8; PAGE] {
    let mut page = [0; PAGE];
    let mut put = |offset: usize, bytes: &[u8]| {
        for (to, from) in page.iter_mut().skip(offset).zip(bytes) {
            *to = *from;
        }
    };
    // Segments: selector 2, attributes 2, limit 4, base 8.
    let code_base = u64::from(start & 0xffff_0000);
    let segments: [(usize, u16, u16, u64); 10] = [
        (0x00, 0, 0x93, 0),              // ES
        (0x10, 0xf000, 0x9b, code_base), // CS
        (0x20, 0, 0x93, 0),              // SS
        (0x30, 0, 0x93, 0),              // DS
        (0x40, 0, 0x93, 0),              // FS
        (0x50, 0, 0x93, 0),              // GS
        (0x60, 0, 0, 0),                 // GDTR
        (0x70, 0, 0x82, 0),              // LDTR
        (0x80, 0, 0, 0),                 // IDTR
        (0x90, 0, 0x8b, 0),              // TR
    ];
    for (offset, selector, attributes, base) in segments {
        put(offset, &selector.to_le_bytes());
        put(offset + 2, &attributes.to_le_bytes());
        put(offset + 4, &0xffffu32.to_le_bytes());
        put(offset + 8, &base.to_le_bytes());
    }
    let registers: [(usize, u64); 12] = [
        (0x0d0, 0x1000),                     // EFER: SVME
        (0x148, 0x40),                       // CR4: MCE
        (0x158, 0x10),                       // CR0: ET
        (0x160, 0x400),                      // DR7
        (0x168, 0xffff_0ff0),                // DR6
        (0x170, 0x2),                        // RFLAGS
        (0x178, u64::from(start & 0xffff)),  // RIP
        (0x268, 0x0007_0406_0007_0406),      // PAT
        (0x310, u64::from(cpu.signature())), // RDX
        (0x3b0, guest_features),             // SEV_FEATURES
        (0x3e8, 0x1),                        // XCR0: x87
        (0x408, 0x1f80),                     // MXCSR, and x87 tag and status words of zero
    ];
    for (offset, value) in registers {
        put(offset, &value.to_le_bytes());
    }
    put(0x410, &0x37fu16.to_le_bytes()); // x87 control word
    page
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn model_names_are_those_of_qemu() {
        assert_eq!(CpuType::named("EPYC-v4"), Some(CpuType::Epyc));
        assert_eq!(CpuType::named("EPYC-IBPB"), Some(CpuType::Epyc));
        assert_eq!(CpuType::named("EPYC-Milan-v2"), Some(CpuType::EpycMilan));
        assert_eq!(CpuType::named("EPYC-Turin"), Some(CpuType::EpycTurin));
        for wrong in ["epyc", "EPYC-v9", "EPYC-Milan-v", "host", ""] {
            assert_eq!(CpuType::named(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn signatures_are_cpuid_1_eax() {
        assert_eq!(CpuType::Epyc.signature(), 0x0080_0f12);
        assert_eq!(CpuType::EpycRome.signature(), 0x0083_0f10);
        assert_eq!(CpuType::EpycMilan.signature(), 0x00a0_0f11);
        assert_eq!(CpuType::EpycGenoa.signature(), 0x00a1_0f10);
        assert_eq!(CpuType::EpycTurin.signature(), 0x00b0_0f00);
    }
}
