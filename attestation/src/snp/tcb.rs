//! TCB versions, compared component by component.

use std::fmt;
use std::str::FromStr;

use crate::error::DecodeError;

/// A processor line: each has its own AMD root, and its own layout of a TCB version.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum SnpProduct {
    /// EPYC 7003 (Zen 3): CPUID family 19h, models 00h to 0Fh.
    Milan,
    /// EPYC 9004, 8004 and 97x4 (Zen 4, Zen 4c): CPUID family 19h, models 10h to 1Fh and A0h to AFh.
    Genoa,
    /// EPYC 9005 (Zen 5): CPUID family 1Ah, models 00h to 11h.
    Turin,
}

impl SnpProduct {
    /// Every product.
    pub const ALL: [Self; 3] = [Self::Milan, Self::Genoa, Self::Turin];

    /// The product of a processor; nothing for one whose root is not known here.
    ///
    /// The family is the combined one (base and extended family added), as reports state it.
    #[must_use]
    pub const fn of_cpu(family: u8, model: u8) -> Option<Self> {
        match (family, model) {
            (0x19, 0x00..=0x0f) => Some(Self::Milan),
            (0x19, 0x10..=0x1f | 0xa0..=0xaf) => Some(Self::Genoa),
            (0x1a, 0x00..=0x11) => Some(Self::Turin),
            _ => None,
        }
    }

    /// As AMD's certificates and its key service write it: `Milan`, `Genoa`, `Turin`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Milan => "Milan",
            Self::Genoa => "Genoa",
            Self::Turin => "Turin",
        }
    }
}

impl fmt::Display for SnpProduct {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for SnpProduct {
    type Err = DecodeError;

    /// Reads exactly what `Display` writes.
    fn from_str(text: &str) -> Result<Self, DecodeError> {
        Self::ALL.into_iter().find(|product| product.as_str() == text).ok_or(DecodeError::SnpProduct)
    }
}

/// One number of a [`TcbVersion`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum TcbComponent {
    /// The firmware of the FMC; Turin alone has it.
    Fmc,
    /// The boot loader of the AMD secure processor.
    Bootloader,
    /// The operating system of the AMD secure processor.
    Tee,
    /// The SNP firmware.
    Snp,
    /// The lowest microcode patch level of all cores.
    Microcode,
}

impl TcbComponent {
    /// Every component.
    pub const ALL: [Self; 5] = [Self::Fmc, Self::Bootloader, Self::Tee, Self::Snp, Self::Microcode];

    /// As a policy writes it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Fmc => "fmc",
            Self::Bootloader => "bootloader",
            Self::Tee => "tee",
            Self::Snp => "snp",
            Self::Microcode => "microcode",
        }
    }
}

impl fmt::Display for TcbComponent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Security patch levels (SEV-SNP Firmware ABI, Table TCB_VERSION).
///
/// Deliberately not ordered: as one integer a higher microcode would outweigh an older boot loader, and Turin has the
/// components in another order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TcbVersion {
    /// Turin alone has it.
    pub fmc: Option<u8>,
    /// The boot loader of the AMD secure processor.
    pub bootloader: u8,
    /// The operating system of the AMD secure processor.
    pub tee: u8,
    /// The SNP firmware.
    pub snp: u8,
    /// The lowest microcode patch level of all cores.
    pub microcode: u8,
}

impl TcbVersion {
    /// Reads the eight bytes of a report. Milan, Genoa: boot loader, TEE, 4 reserved, SNP, microcode. Turin: FMC, boot
    /// loader, TEE, SNP, 3 reserved, microcode. Reserved bytes are checked by [`reserved`].
    pub(crate) const fn read(raw: &[u8; 8], product: SnpProduct) -> Self {
        match product {
            SnpProduct::Milan | SnpProduct::Genoa => {
                let [bootloader, tee, _, _, _, _, snp, microcode] = *raw;
                Self { fmc: None, bootloader, tee, snp, microcode }
            }
            SnpProduct::Turin => {
                let [fmc, bootloader, tee, snp, _, _, _, microcode] = *raw;
                Self { fmc: Some(fmc), bootloader, tee, snp, microcode }
            }
        }
    }

    /// The component's level; nothing where the product does not have it.
    #[must_use]
    pub const fn component(&self, component: TcbComponent) -> Option<u8> {
        match component {
            TcbComponent::Fmc => self.fmc,
            TcbComponent::Bootloader => Some(self.bootloader),
            TcbComponent::Tee => Some(self.tee),
            TcbComponent::Snp => Some(self.snp),
            TcbComponent::Microcode => Some(self.microcode),
        }
    }

    /// Whether every component is at least that of `minimum`.
    #[must_use]
    pub fn meets(&self, minimum: &Self) -> bool {
        self.first_below(minimum).is_none()
    }

    /// The first component that is below that of `minimum`. One that `minimum` demands and this version does not have
    /// is below; one that `minimum` does not have is not looked at.
    #[must_use]
    pub fn first_below(&self, minimum: &Self) -> Option<TcbComponent> {
        TcbComponent::ALL.into_iter().find(|&component| match minimum.component(component) {
            None => false,
            Some(least) => self.component(component).is_none_or(|level| level < least),
        })
    }

    /// The first component in which the two differ; having one and not having it is a difference.
    #[must_use]
    pub fn first_difference(&self, other: &Self) -> Option<TcbComponent> {
        TcbComponent::ALL.into_iter().find(|&component| self.component(component) != other.component(component))
    }
}

impl fmt::Display for TcbVersion {
    /// `fmc=0 bootloader=1 tee=0 snp=2 microcode=71`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut space = "";
        for component in TcbComponent::ALL {
            if let Some(level) = self.component(component) {
                write!(f, "{space}{component}={level}")?;
                space = " ";
            }
        }
        Ok(())
    }
}

/// The bytes of a TCB version that must be zero.
pub(crate) const fn reserved(product: SnpProduct) -> std::ops::Range<usize> {
    match product {
        SnpProduct::Milan | SnpProduct::Genoa => 2..6,
        SnpProduct::Turin => 4..7,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RAW: [u8; 8] = [1, 2, 3, 4, 5, 6, 7, 8];

    #[test]
    fn layout_is_that_of_the_product() {
        let old = TcbVersion { fmc: None, bootloader: 1, tee: 2, snp: 7, microcode: 8 };
        assert_eq!(TcbVersion::read(&RAW, SnpProduct::Milan), old);
        assert_eq!(TcbVersion::read(&RAW, SnpProduct::Genoa), old);
        let turin = TcbVersion { fmc: Some(1), bootloader: 2, tee: 3, snp: 4, microcode: 8 };
        assert_eq!(TcbVersion::read(&RAW, SnpProduct::Turin), turin);
        assert_eq!(turin.to_string(), "fmc=1 bootloader=2 tee=3 snp=4 microcode=8");
    }

    #[test]
    fn one_component_below_is_below_however_high_the_others_are() {
        let minimum = TcbVersion::read(&[3; 8], SnpProduct::Turin);
        assert!(minimum.meets(&minimum));
        let high = TcbVersion::read(&[9; 8], SnpProduct::Turin);
        let lower = [
            (TcbComponent::Fmc, TcbVersion { fmc: Some(2), ..high }),
            (TcbComponent::Fmc, TcbVersion { fmc: None, ..high }),
            (TcbComponent::Bootloader, TcbVersion { bootloader: 2, ..high }),
            (TcbComponent::Tee, TcbVersion { tee: 2, ..high }),
            (TcbComponent::Snp, TcbVersion { snp: 2, ..high }),
            (TcbComponent::Microcode, TcbVersion { microcode: 2, ..high }),
        ];
        for (component, version) in lower {
            assert_eq!(version.first_below(&minimum), Some(component));
            assert_eq!(version.first_difference(&high), Some(component));
            assert!(!version.meets(&minimum));
        }
        assert!(high.meets(&TcbVersion { fmc: None, ..minimum }));
    }

    #[test]
    fn products_are_told_by_family_and_model() {
        let of = |family, model| SnpProduct::of_cpu(family, model);
        assert_eq!([of(0x19, 0), of(0x19, 0x0f)], [Some(SnpProduct::Milan); 2]);
        assert_eq!([of(0x19, 0x10), of(0x19, 0x1f), of(0x19, 0xa0), of(0x19, 0xaf)], [Some(SnpProduct::Genoa); 4]);
        assert_eq!([of(0x1a, 0), of(0x1a, 0x11)], [Some(SnpProduct::Turin); 2]);
        assert_eq!([of(0x19, 0x20), of(0x19, 0x9f), of(0x19, 0xb0), of(0x1a, 0x12), of(0x18, 0)], [None; 5]);
        for product in SnpProduct::ALL {
            assert_eq!(product.to_string().parse(), Ok(product));
        }
        assert_eq!("milan".parse::<SnpProduct>(), Err(DecodeError::SnpProduct));
    }
}
