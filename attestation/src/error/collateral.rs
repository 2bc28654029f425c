//! Why a certificate or revocation list that was collected for a report is of no use for it.

use std::error::Error;
use std::fmt;

use super::SnpError;

/// What was collected does not belong to what it was collected for. One variant for each check. None of them replaces
/// verification: they keep what is useless from being kept and sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CollateralError {
    /// The report can't be read, so that nobody can say what it needs.
    Report(SnpError),
    /// The report names no chip (MASK_CHIP_ID): there is nothing to ask for.
    ChipMasked,
    /// The report is signed by a VLEK, which only the host has a certificate of.
    VlekNotServed,
    /// A chip id that is not 128 hex digits (Turin: 16), or longer than its product has them.
    ChipId,
    /// A TCB without FMC on Turin, with it elsewhere, or not written as `bootloader=3 tee=0 snp=8 microcode=115`.
    Tcb,
    /// A line of a list of hosts that starts with no product.
    Product,
    /// More bytes than such an object has.
    TooLarge {
        /// Bytes.
        found: usize,
    },
    /// Not exactly two certificates in PEM.
    ChainMalformed,
    /// The chain of another product, or of the other kind of key.
    ChainOther,
    /// A certificate of the chain, or the leaf, is not what it must be.
    Certificate(SnpError),
    /// Not the certificate of a VCEK.
    NotVcek,
    /// The VCEK of another product.
    VcekProduct,
    /// The VCEK of another chip.
    VcekChip,
    /// The VCEK for another TCB.
    VcekTcb,
    /// A revocation list that the root did not sign, or that can't be read.
    Crl(SnpError),
    /// A revocation list from before the one that is at hand.
    CrlOlder,
}

impl CollateralError {
    /// Stable name of the refusal.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::Report(error) | Self::Certificate(error) | Self::Crl(error) => error.code(),
            Self::ChipMasked => "collateral-chip-masked",
            Self::VlekNotServed => "collateral-vlek",
            Self::ChipId => "collateral-chip-id",
            Self::Tcb => "collateral-tcb",
            Self::Product => "collateral-product",
            Self::TooLarge { .. } => "collateral-too-large",
            Self::ChainMalformed => "collateral-chain-malformed",
            Self::ChainOther => "collateral-chain-other",
            Self::NotVcek => "collateral-not-vcek",
            Self::VcekProduct => "collateral-vcek-product",
            Self::VcekChip => "collateral-vcek-chip",
            Self::VcekTcb => "collateral-vcek-tcb",
            Self::CrlOlder => "collateral-crl-older",
        }
    }
}

impl fmt::Display for CollateralError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Report(error) => write!(f, "the report: {error}"),
            Self::ChipMasked => f.write_str("the report names no chip: its host keeps the chip id from guests"),
            Self::VlekNotServed => f.write_str(
                "the report is signed by a VLEK: only the cloud has its certificate, and the host must give it",
            ),
            Self::ChipId => f.write_str("a chip id is 128 hex digits, on Turin 16"),
            Self::Tcb => f.write_str(
                "a TCB is written as `bootloader=3 tee=0 snp=8 microcode=115`, on Turin with `fmc=0` as well",
            ),
            Self::Product => f.write_str("a product is Milan, Genoa or Turin"),
            Self::TooLarge { found } => write!(f, "it has {found} bytes, more than there can be"),
            Self::ChainMalformed => f.write_str("it is not two certificates in PEM"),
            Self::ChainOther => f.write_str("it is the chain of another product or kind of key"),
            Self::Certificate(error) => write!(f, "the certificate: {error}"),
            Self::NotVcek => f.write_str("it is not the certificate of a VCEK"),
            Self::VcekProduct => f.write_str("it is the VCEK of another product"),
            Self::VcekChip => f.write_str("it is the VCEK of another chip"),
            Self::VcekTcb => f.write_str("it is the VCEK for another TCB"),
            Self::CrlOlder => f.write_str("it is an older revocation list than the one at hand"),
            Self::Crl(error) => write!(f, "the revocation list: {error}"),
        }
    }
}

impl Error for CollateralError {}
