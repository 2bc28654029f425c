//! ARK, ASK and ASVK of one product line.

use super::super::keys::{RsaKey, Scheme};
use super::certificate::{Extension, Issued, Name, pem};
use super::{Crl, Product};

/// Serial number of the root.
pub const ARK_SERIAL: u64 = 0x0050_0000;
/// Serial number of the authority over VCEKs.
pub const ASK_SERIAL: u64 = 0x0050_0001;
/// Serial number of the authority over VLEKs.
pub const ASVK_SERIAL: u64 = 0x0050_0101;

/// 2020-01-01.
const NOT_BEFORE: i64 = 1_577_836_800;
/// 2045-01-01.
const NOT_AFTER: i64 = 2_366_841_600;
const KEY_CERT_SIGN: u8 = 0x04;
const CRL_SIGN: u8 = 0x02;

/// The authorities of one product line. A test changes a field of one of them, or of [`Authorities::crl`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Authorities {
    /// The root.
    pub ark: Issued,
    /// Signs VCEKs.
    pub ask: Issued,
    /// Signs VLEKs.
    pub asvk: Issued,
}

impl Authorities {
    /// Good ones.
    pub fn new(product: Product) -> Self {
        let line = product.name();
        let root = Name::soft(&format!("ARK-Soft-{line}"));
        let below = |name: String, key: RsaKey, serial, vek: &str| Issued {
            serial,
            issuer: root.clone(),
            not_before: NOT_BEFORE,
            not_after: NOT_AFTER,
            subject: Name::soft(&name),
            public_key: key.public_key(),
            extensions: vec![
                Extension::subject_key(key),
                Extension::authority_key(RsaKey::Ark),
                Extension::authority(Some(0)),
                Extension::key_usage(KEY_CERT_SIGN),
                Extension::crl_at(&format!("https://kds.invalid/{vek}/v1/{line}/crl")),
            ],
            signer: RsaKey::Ark,
            scheme: Scheme::AMD,
            claimed_scheme: None,
            trailer: true,
        };
        let ask = below(format!("SEV-Soft-{line}"), RsaKey::Ask, ASK_SERIAL, "vcek");
        let asvk = below(format!("SEV-VLEK-Soft-{line}"), RsaKey::Asvk, ASVK_SERIAL, "vlek");
        let extensions = vec![
            Extension::key_usage(KEY_CERT_SIGN | CRL_SIGN),
            Extension::subject_key(RsaKey::Ark),
            Extension::authority(None),
            Extension::crl_at(&format!("https://kds.invalid/vcek/v1/{line}/crl")),
        ];
        let public_key = RsaKey::Ark.public_key();
        let ark = Issued { serial: ARK_SERIAL, subject: root, public_key, extensions, ..ask.clone() };
        Self { ark, ask, asvk }
    }

    /// The same names under a root of somebody else.
    pub fn foreign(product: Product) -> Self {
        let mut all = Self::new(product);
        all.ark.public_key = RsaKey::Stranger.public_key();
        *all.ark.extension("2.5.29.14") = Extension::subject_key(RsaKey::Stranger);
        for issued in [&mut all.ask, &mut all.asvk] {
            *issued.extension("2.5.29.35") = Extension::authority_key(RsaKey::Stranger);
        }
        for issued in [&mut all.ark, &mut all.ask, &mut all.asvk] {
            issued.signer = RsaKey::Stranger;
        }
        all
    }

    /// The root's list of revoked authorities, with none on it, for 30 days around this time.
    pub fn crl(&self, now: i64) -> Crl {
        Crl::new(self.ark.subject.clone(), self.ark.signer, now)
    }

    /// ASK and ARK as AMD's key server gives them: PEM, in this order.
    pub fn vcek_chain_pem(&self) -> String {
        pem(&self.ask.der()) + &pem(&self.ark.der())
    }

    /// ASVK and ARK as AMD's key server gives them: PEM, in this order.
    pub fn vlek_chain_pem(&self) -> String {
        pem(&self.asvk.der()) + &pem(&self.ark.der())
    }
}
