//! The bit fields of a report, and its small structures.

use std::fmt;

use crate::error::SnpError;

/// What the owner of the guest allows its host (SEV-SNP Firmware ABI, Table "Guest Policy").
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct GuestPolicy(u64);

impl GuestPolicy {
    const RESERVED_ONE: u64 = 1 << 17;
    /// Bits 26 to 63.
    const RESERVED_ZERO: u64 = !((1 << 26) - 1);

    pub(crate) const fn from_bits(bits: u64) -> Self {
        Self(bits)
    }

    /// The reserved bits are as they must be. A bit that is not known here might be one that allows the host more.
    pub(crate) const fn check_reserved(self) -> Result<(), SnpError> {
        if self.0 & Self::RESERVED_ZERO != 0 {
            return Err(SnpError::PolicyBitsUnknown { bits: self.0 & Self::RESERVED_ZERO });
        }
        if self.0 & Self::RESERVED_ONE == 0 {
            return Err(SnpError::PolicyReservedBitClear);
        }
        Ok(())
    }

    /// All 64 bits.
    #[must_use]
    pub const fn bits(self) -> u64 {
        self.0
    }

    /// Bits 7:0: the least minor version of the firmware ABI.
    #[must_use]
    pub const fn abi_minor(self) -> u8 {
        self.0.to_le_bytes()[0]
    }

    /// Bits 15:8: the least major version of the firmware ABI.
    #[must_use]
    pub const fn abi_major(self) -> u8 {
        self.0.to_le_bytes()[1]
    }

    /// Bit 16: the host may run the guest with simultaneous multithreading.
    #[must_use]
    pub const fn smt(self) -> bool {
        self.bit(16)
    }

    /// Bit 18: a migration agent may be associated, which can move the guest and its secrets elsewhere.
    #[must_use]
    pub const fn migrate_ma(self) -> bool {
        self.bit(18)
    }

    /// Bit 19: the host may read and write the guest's memory.
    #[must_use]
    pub const fn debug(self) -> bool {
        self.bit(19)
    }

    /// Bit 20: the guest runs on one socket only.
    #[must_use]
    pub const fn single_socket(self) -> bool {
        self.bit(20)
    }

    /// Bit 21: CXL devices and memory may be populated.
    #[must_use]
    pub const fn cxl_allow(self) -> bool {
        self.bit(21)
    }

    /// Bit 22: memory must be encrypted with AES-256-XTS.
    #[must_use]
    pub const fn mem_aes_256_xts(self) -> bool {
        self.bit(22)
    }

    /// Bit 23: running average power limit must be off.
    #[must_use]
    pub const fn rapl_dis(self) -> bool {
        self.bit(23)
    }

    /// Bit 24: DRAM ciphertext hiding must be on.
    #[must_use]
    pub const fn ciphertext_hiding_dram(self) -> bool {
        self.bit(24)
    }

    /// Bit 25: the host may not move or swap the guest's pages through the firmware.
    #[must_use]
    pub const fn page_swap_disable(self) -> bool {
        self.bit(25)
    }

    const fn bit(self, number: u32) -> bool {
        self.0 >> number & 1 == 1
    }
}

impl fmt::Debug for GuestPolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "GuestPolicy({:#x})", self.0)
    }
}

/// How the host has set its machine up (SEV-SNP Firmware ABI, Table ATTESTATION_REPORT, PLATFORM_INFO).
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct PlatformInfo(u64);

impl PlatformInfo {
    /// Bits 8 to 63. Bit 6 is set by the firmware of Turin; what it says is not published, so it has no name here and
    /// stands in [`PlatformInfo::bits`] alone.
    const UNKNOWN: u64 = !0xff;

    pub(crate) const fn from_bits(bits: u64) -> Self {
        Self(bits)
    }

    pub(crate) const fn check_reserved(self) -> Result<(), SnpError> {
        match self.0 & Self::UNKNOWN {
            0 => Ok(()),
            bits => Err(SnpError::PlatformInfoUnknown { bits }),
        }
    }

    /// All 64 bits.
    #[must_use]
    pub const fn bits(self) -> u64 {
        self.0
    }

    /// Bit 0: simultaneous multithreading is on.
    #[must_use]
    pub const fn smt_en(self) -> bool {
        self.bit(0)
    }

    /// Bit 1: transparent memory encryption (TSME) is on.
    #[must_use]
    pub const fn tsme_en(self) -> bool {
        self.bit(1)
    }

    /// Bit 2: memory has error correction.
    #[must_use]
    pub const fn ecc_en(self) -> bool {
        self.bit(2)
    }

    /// Bit 3: running average power limit is off.
    #[must_use]
    pub const fn rapl_dis(self) -> bool {
        self.bit(3)
    }

    /// Bit 4: DRAM ciphertext hiding is on.
    #[must_use]
    pub const fn ciphertext_hiding_dram_en(self) -> bool {
        self.bit(4)
    }

    /// Bit 5: since the last reset no two addresses were found to be the same memory (the attack "BadRAM").
    #[must_use]
    pub const fn alias_check_complete(self) -> bool {
        self.bit(5)
    }

    /// Bit 7: trusted IO is on.
    #[must_use]
    pub const fn tio_en(self) -> bool {
        self.bit(7)
    }

    const fn bit(self, number: u32) -> bool {
        self.0 >> number & 1 == 1
    }
}

impl fmt::Debug for PlatformInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PlatformInfo({:#x})", self.0)
    }
}

/// Which kind of key signed a report.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum SigningKey {
    /// Versioned chip endorsement key: of one chip.
    Vcek,
    /// Versioned loaded endorsement key: of a cloud, which may load it into any of its chips.
    Vlek,
}

impl fmt::Display for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Vcek => "vcek",
            Self::Vlek => "vlek",
        })
    }
}

/// The word at 48h of a report.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct KeyInfo {
    /// Bit 0: `author_key_digest` holds the digest of a key that signed the ID key.
    pub author_key_en: bool,
    /// Bit 1: the host keeps its chip's key from guests (MASK_CHIP_KEY).
    pub mask_chip_key: bool,
    /// Bits 4:2.
    pub signing_key: SigningKey,
}

impl KeyInfo {
    pub(crate) const fn read(bits: u32) -> Result<Self, SnpError> {
        if bits >> 5 != 0 {
            return Err(SnpError::KeyInfoUnknown { bits: bits >> 5 << 5 });
        }
        let signing_key = match bits >> 2 {
            0 => SigningKey::Vcek,
            1 => SigningKey::Vlek,
            7 => return Err(SnpError::ReportUnsigned),
            found => return Err(SnpError::SigningKeyUnknown { found }),
        };
        Ok(Self { author_key_en: bits & 1 != 0, mask_chip_key: bits & 2 != 0, signing_key })
    }
}

/// A version of the SNP firmware. Ordered: major, minor, build.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FirmwareVersion {
    /// Of the ABI.
    pub major: u8,
    /// Of the ABI.
    pub minor: u8,
    /// Of this firmware.
    pub build: u8,
}

impl fmt::Display for FirmwareVersion {
    /// `1.55.29`: major, minor, build.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.major, self.minor, self.build)
    }
}

/// The processor that a report of version 3 or later is from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct CpuId {
    /// Base and extended family, added.
    pub family: u8,
    /// Extended and base model, combined.
    pub model: u8,
    /// Stepping.
    pub stepping: u8,
}
