//! Certificates and revocation lists like AMD's (VCEK Certificate and KDS Interface Specification, 57230).
//!
//! Every value is a field, and every `der()` is made from the fields alone: a bad case is a good value with one field changed.
//!
//! Names follow AMD's, but for two marks: the organization is `SOFT TEST ONLY` in every certificate, and the product line of the
//! authorities is called `Soft-Milan` instead of `Milan` (`ARK-Soft-Milan`, `SEV-Soft-Milan`, `SEV-VLEK-Soft-Milan`). No one can
//! take a soft root for AMD's by its name.

mod authorities;
mod certificate;
mod crl;
mod vek;

pub use authorities::{ARK_SERIAL, ASK_SERIAL, ASVK_SERIAL, Authorities};
pub use certificate::{Extension, Issued, Name, pem};
pub use crl::Crl;
pub use vek::{Vek, VekKind};

/// The organization in every soft name.
pub const ORGANIZATION: &str = "SOFT TEST ONLY";

/// A product line, as AMD's key server names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Product {
    /// Zen 3.
    Milan,
    /// Zen 4.
    Genoa,
    /// Zen 5.
    Turin,
}

impl Product {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Milan, Self::Genoa, Self::Turin];

    /// Its name in certificates and in addresses of the key server.
    pub fn name(self) -> &'static str {
        match self {
            Self::Milan => "Milan",
            Self::Genoa => "Genoa",
            Self::Turin => "Turin",
        }
    }

    /// The product line of this name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|product| product.name() == name)
    }

    /// CPUID family (combined), model (combined) and stepping of one chip of this line.
    pub fn cpuid(self) -> [u8; 3] {
        match self {
            Self::Milan => [0x19, 0x01, 1],
            Self::Genoa => [0x19, 0x11, 1],
            Self::Turin => [0x1A, 0x02, 1],
        }
    }

    /// Bytes of the chip id that are in a certificate; the report has zeros after them.
    pub fn hwid_len(self) -> usize {
        match self {
            Self::Milan | Self::Genoa => 64,
            Self::Turin => 8,
        }
    }
}

/// Security versions of the parts of the firmware (SEV-SNP Firmware ABI Specification, 56860, TCB_VERSION).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tcb {
    /// Boot loader of the firmware controller; Turin alone has it.
    pub fmc: u8,
    /// Boot loader of the secure processor.
    pub bootloader: u8,
    /// Operating system of the secure processor.
    pub tee: u8,
    /// SNP firmware.
    pub snp: u8,
    /// Microcode.
    pub microcode: u8,
}

impl Tcb {
    /// The eight bytes of a report. Milan and Genoa: `bootloader, tee, 0, 0, 0, 0, snp, microcode`.
    /// Turin: `fmc, bootloader, tee, snp, 0, 0, 0, microcode`.
    pub fn bytes(self, product: Product) -> [u8; 8] {
        match product {
            Product::Milan | Product::Genoa => [self.bootloader, self.tee, 0, 0, 0, 0, self.snp, self.microcode],
            Product::Turin => [self.fmc, self.bootloader, self.tee, self.snp, 0, 0, 0, self.microcode],
        }
    }

    /// The inverse of [`Tcb::bytes`], if the reserved bytes are zero.
    pub fn from_bytes(bytes: [u8; 8], product: Product) -> Option<Self> {
        let [a, b, c, d, _, _, g, microcode] = bytes;
        let tcb = match product {
            Product::Milan | Product::Genoa => Self { fmc: 0, bootloader: a, tee: b, snp: g, microcode },
            Product::Turin => Self { fmc: a, bootloader: b, tee: c, snp: d, microcode },
        };
        (tcb.bytes(product) == bytes).then_some(tcb)
    }

    /// Whether no part is newer than the other's.
    pub fn is_at_most(self, other: Self) -> bool {
        let parts = |tcb: Self| [tcb.fmc, tcb.bootloader, tcb.tee, tcb.snp, tcb.microcode];
        parts(self).into_iter().zip(parts(other)).all(|(mine, theirs)| mine <= theirs)
    }
}
