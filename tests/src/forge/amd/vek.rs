//! VCEK and VLEK: the certificates of the keys that sign reports.

use super::super::der;
use super::super::keys::{RsaKey, Scheme};
use super::certificate::{Extension, Issued, Name};
use super::{Product, Tcb};

/// 2026-01-01.
const VCEK_NOT_BEFORE: i64 = 1_767_225_600;
/// 2026-07-01.
const VLEK_NOT_BEFORE: i64 = 1_782_864_000;
const YEAR: i64 = 365 * 86_400;
/// All of AMD's extensions are below it.
const AMD: &str = "1.3.6.1.4.1.3704.1";

/// Whose key it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VekKind {
    /// The chip's own, for one TCB.
    Vcek,
    /// Leased by AMD to a cloud.
    Vlek,
}

/// What the certificate of a VEK says, as values.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Vek {
    /// Decides the order of the extensions and whether there is an FMC.
    pub product: Product,
    /// VCEK or VLEK.
    pub kind: VekKind,
    /// SubjectPublicKeyInfo, DER.
    pub public_key: Vec<u8>,
    /// `.1`: version of this set of extensions.
    pub struct_version: u64,
    /// `.2`: product line, with a stepping on Milan's VCEKs.
    pub product_name: String,
    /// `.3`: the TCB that the key is for.
    pub tcb: Tcb,
    /// `.4`: identity of the chip, 64 bytes (Turin: 8).
    pub hwid: Option<Vec<u8>>,
    /// `.5`: the cloud.
    pub csp_id: Option<String>,
    /// notBefore, in seconds of Unix time.
    pub not_before: i64,
    /// notAfter, in seconds of Unix time.
    pub not_after: i64,
}

impl Vek {
    /// A chip's own key, for seven years from 2026 on.
    pub fn vcek(product: Product, public_key: Vec<u8>, tcb: Tcb, hwid: &[u8]) -> Self {
        let (struct_version, product_name) = match product {
            Product::Milan => (0, "Milan-B0"),
            Product::Genoa => (0, "Genoa"),
            Product::Turin => (1, "Turin"),
        };
        Self {
            product,
            kind: VekKind::Vcek,
            public_key,
            struct_version,
            product_name: product_name.to_owned(),
            tcb,
            hwid: Some(hwid[..product.hwid_len()].to_vec()),
            csp_id: None,
            not_before: VCEK_NOT_BEFORE,
            not_after: VCEK_NOT_BEFORE + 7 * YEAR,
        }
    }

    /// A leased key, for one year from the middle of 2026 on.
    pub fn vlek(product: Product, public_key: Vec<u8>, tcb: Tcb, csp_id: &str) -> Self {
        Self {
            kind: VekKind::Vlek,
            product_name: product.name().to_owned(),
            hwid: None,
            csp_id: Some(csp_id.to_owned()),
            not_before: VLEK_NOT_BEFORE,
            not_after: VLEK_NOT_BEFORE + YEAR,
            ..Self::vcek(product, public_key, tcb, &[0; 64])
        }
    }

    /// The certificate before its signature, issued by ASK or ASVK.
    pub fn issued(&self) -> Issued {
        let (subject, signer, issuer) = match self.kind {
            VekKind::Vcek => ("SEV-VCEK", RsaKey::Ask, format!("SEV-Soft-{}", self.product.name())),
            VekKind::Vlek => ("SEV-VLEK", RsaKey::Asvk, format!("SEV-VLEK-Soft-{}", self.product.name())),
        };
        Issued {
            serial: 0,
            issuer: Name::soft(&issuer),
            not_before: self.not_before,
            not_after: self.not_after,
            subject: Name::soft(subject),
            public_key: self.public_key.clone(),
            extensions: self.extensions(),
            signer,
            scheme: Scheme::AMD,
            claimed_scheme: None,
            trailer: false,
        }
    }

    /// AMD's extensions in AMD's order. The HWID is bare bytes, with no DER tag of its own.
    pub fn extensions(&self) -> Vec<Extension> {
        let extension = |tail: &str, content| Extension::new(&format!("{AMD}.{tail}"), false, content);
        let name = der::tlv(der::IA5_STRING, self.product_name.as_bytes());
        let mut all = vec![extension("1", der::integer(self.struct_version)), extension("2", name)];
        let Tcb { fmc, bootloader, tee, snp, microcode } = self.tcb;
        let spl: &[(&str, u8)] = match self.product {
            Product::Milan | Product::Genoa => {
                &[("1", bootloader), ("2", tee), ("4", 0), ("5", 0), ("6", 0), ("7", 0), ("3", snp), ("8", microcode)]
            }
            Product::Turin => {
                &[("9", fmc), ("1", bootloader), ("2", tee), ("3", snp), ("5", 0), ("6", 0), ("7", 0), ("8", microcode)]
            }
        };
        all.extend(spl.iter().map(|&(tail, value)| extension(&format!("3.{tail}"), der::integer(value.into()))));
        all.extend(self.hwid.iter().map(|hwid| extension("4", hwid.clone())));
        all.extend(self.csp_id.iter().map(|csp| extension("5", der::tlv(der::IA5_STRING, csp.as_bytes()))));
        all
    }
}
