//! VCEK or VLEK, ASK or ASVK, ARK: whose report it is, and who says so.

use super::certificate::{AmdCertificate, Validity};
use super::crl::{self, CRLS_MAX, Crl, CrlRule, CrlStatus};
use super::evidence::SnpEvidence;
use super::extensions::LeafSubject;
use super::fields::SigningKey;
use super::tcb::{SnpProduct, TcbVersion};
use crate::anchors::{SnpRoot, Trust, TrustAnchors};
use crate::encoding::{Sha256Digest, UnixTime, lv};
use crate::error::{SnpCertificate, SnpError};

/// The leaf, its issuer, the root.
const CERTIFICATES_MAX: usize = 3;

/// A chain whose signatures, names, keys and extensions hold. What a later time or another policy can change (dates,
/// the anchor, which revocation lists are demanded) is checked at every use, so it can be kept for many reports.
#[derive(Clone, Debug)]
pub struct VerifiedChain {
    evidence: Sha256Digest,
    root_key: Sha256Digest,
    anchor: String,
    trust: Trust,
    product: SnpProduct,
    signing_key: SigningKey,
    subject: LeafSubject,
    tcb: TcbVersion,
    point: Vec<u8>,
    validity: [(SnpCertificate, Validity); CERTIFICATES_MAX],
    crls: Vec<Validity>,
}

impl VerifiedChain {
    /// What a chain can be kept under: a digest of the certificates and revocation lists of `evidence`, not of its report.
    #[must_use]
    pub fn key(evidence: &SnpEvidence) -> Sha256Digest {
        let certificates: Vec<&[u8]> = evidence.certificates.iter().map(Vec::as_slice).collect();
        let crls: Vec<&[u8]> = evidence.crls.iter().map(Vec::as_slice).collect();
        Sha256Digest::of(&lv(&[&lv(&certificates), &lv(&crls)]))
    }

    /// Verifies the certificates and revocation lists of `evidence` at `now`; its report is not looked at.
    ///
    /// The leaf comes first, then its issuer, then the root, which may be left out if the policy has it as an anchor.
    /// Nothing else may be there, so that no certificate that was sent goes unchecked.
    pub fn verify(
        evidence: &SnpEvidence,
        anchors: &TrustAnchors,
        rule: CrlRule,
        now: UnixTime,
    ) -> Result<Self, SnpError> {
        let [leaf, intermediate] = read_required(&evidence.certificates)?;
        let signing_key = kind_of_leaf(&leaf).ok_or(SnpError::CertificateName(SnpCertificate::Leaf))?;
        let (root, anchor) = find_root(&evidence.certificates, &intermediate, anchors)?;
        let product = check_names(&root, &intermediate, signing_key, &anchor)?;
        check_signatures(&root, &intermediate, &leaf)?;
        let extensions = leaf.leaf_extensions()?;
        if extensions.product != product {
            return Err(SnpError::LeafProductMismatch { issuers: product, leaf: extensions.product });
        }
        let chain = Self {
            evidence: Self::key(evidence),
            root_key: root.key_digest(),
            anchor: anchor.name.to_owned(),
            trust: anchor.trust,
            product,
            signing_key,
            tcb: extensions.tcb,
            subject: extensions.subject(signing_key)?,
            point: leaf.p384_point()?.to_vec(),
            validity: [
                (SnpCertificate::Leaf, leaf.validity()),
                (SnpCertificate::Intermediate, intermediate.validity()),
                (SnpCertificate::Root, root.validity()),
            ],
            crls: check_crls(&evidence.crls, &root, &intermediate)?,
        };
        chain.check(evidence, anchors, rule, now)?;
        Ok(chain)
    }

    /// Checks again what may have changed since: that the chain is the one of `evidence`, that its anchor is in force,
    /// the dates, and the revocation lists that `rule` demands.
    pub fn check(
        &self,
        evidence: &SnpEvidence,
        anchors: &TrustAnchors,
        rule: CrlRule,
        now: UnixTime,
    ) -> Result<CrlStatus, SnpError> {
        let in_force = anchors.snp_root(&self.root_key);
        let same = in_force.is_some_and(|root| root.name == self.anchor && root.trust == self.trust);
        if !same || self.evidence != Self::key(evidence) {
            return Err(SnpError::ChainChanged);
        }
        for (certificate, validity) in self.validity {
            validity.check(now).map_err(|error| SnpError::Certificate { certificate, error })?;
        }
        crl::check_rule(&self.crls, rule, now)
    }

    /// The product that the root and the leaf are for.
    #[must_use]
    pub const fn product(&self) -> SnpProduct {
        self.product
    }

    /// Which kind of key the leaf is of.
    #[must_use]
    pub const fn signing_key(&self) -> SigningKey {
        self.signing_key
    }

    /// The TCB that the leaf's key was derived for.
    #[must_use]
    pub const fn tcb(&self) -> &TcbVersion {
        &self.tcb
    }

    /// The name of the anchor that the chain ends at.
    #[must_use]
    pub fn anchor(&self) -> &str {
        &self.anchor
    }

    /// What the anchor vouches for.
    #[must_use]
    pub const fn trust(&self) -> Trust {
        self.trust
    }

    /// The last second that the whole chain is valid.
    #[must_use]
    pub fn not_after(&self) -> UnixTime {
        self.validity.iter().map(|(_, validity)| validity.not_after).fold(UnixTime(u64::MAX), UnixTime::min)
    }

    pub(crate) const fn subject(&self) -> &LeafSubject {
        &self.subject
    }

    /// The leaf's key.
    pub(crate) fn point(&self) -> &[u8] {
        &self.point
    }
}

fn read_required(certificates: &[Vec<u8>]) -> Result<[AmdCertificate; 2], SnpError> {
    if certificates.len() > CERTIFICATES_MAX {
        return Err(SnpError::CertificatesTooMany { found: certificates.len() });
    }
    let read = |index: usize, certificate| {
        let der = certificates.get(index).ok_or(SnpError::CertificateMissing(certificate))?;
        AmdCertificate::parse(der).map_err(|error| SnpError::Certificate { certificate, error })
    };
    Ok([read(0, SnpCertificate::Leaf)?, read(1, SnpCertificate::Intermediate)?])
}

/// The root that was sent, or the anchor of the policy that issued the intermediate. Its key decides, never its name.
fn find_root<'a>(
    certificates: &[Vec<u8>],
    intermediate: &AmdCertificate,
    anchors: &'a TrustAnchors,
) -> Result<(AmdCertificate, SnpRoot<'a>), SnpError> {
    let place = SnpCertificate::Root;
    if let Some(der) = certificates.get(2) {
        let root = AmdCertificate::parse(der).map_err(|error| SnpError::Certificate { certificate: place, error })?;
        let anchor = anchors.snp_root(&root.key_digest()).ok_or(SnpError::RootUnknown)?;
        return Ok((root, anchor));
    }
    let issued = |root: &&AmdCertificate| intermediate.check_issued_by(root, SnpCertificate::Intermediate).is_ok();
    let root = anchors.snp_certificates().find(issued).ok_or(SnpError::CertificateMissing(place))?;
    let anchor = anchors.snp_root(&root.key_digest()).ok_or(SnpError::RootUnknown)?;
    Ok((root.clone(), anchor))
}

/// `ARK-Milan`, then `SEV-Milan` or `SEV-VLEK-Milan`: one line, and for a pinned root the one that it is pinned for. A
/// root that a policy adds may also be of a soft line: `ARK-Soft-Milan`.
fn check_names(
    root: &AmdCertificate,
    intermediate: &AmdCertificate,
    signing_key: SigningKey,
    anchor: &SnpRoot<'_>,
) -> Result<SnpProduct, SnpError> {
    let line = root_line(root).ok_or(SnpError::CertificateName(SnpCertificate::Root))?;
    if intermediate_line(intermediate, signing_key) != Some(line) {
        return Err(SnpError::CertificateName(SnpCertificate::Intermediate));
    }
    line.product_under(anchor.pinned_for)
}

/// What root and intermediate are the authorities of, by their names; nothing where the names do not fit together.
pub(crate) fn authorities_of(root: &AmdCertificate, intermediate: &AmdCertificate) -> Option<(SnpProduct, SigningKey)> {
    let line = root_line(root)?;
    let of = |kind: &SigningKey| intermediate_line(intermediate, *kind) == Some(line);
    let kind = [SigningKey::Vcek, SigningKey::Vlek].into_iter().find(of)?;
    Some((line.product, kind))
}

fn intermediate_line(intermediate: &AmdCertificate, signing_key: SigningKey) -> Option<Line> {
    let prefix = match signing_key {
        SigningKey::Vcek => "SEV-",
        SigningKey::Vlek => "SEV-VLEK-",
    };
    intermediate.common_name().and_then(|name| name.strip_prefix(prefix)).and_then(Line::parse)
}

/// What stands behind `ARK-`, `SEV-` or `SEV-VLEK-`.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Line {
    product: SnpProduct,
    is_soft: bool,
}

impl Line {
    fn parse(text: &str) -> Option<Self> {
        let soft = text.strip_prefix("Soft-");
        let product = soft.unwrap_or(text).parse().ok()?;
        Some(Self { product, is_soft: soft.is_some() })
    }

    /// Its product, which is the one that the root is pinned for if it is.
    fn product_under(self, pinned_for: Option<SnpProduct>) -> Result<SnpProduct, SnpError> {
        match pinned_for {
            Some(product) if self != (Self { product, is_soft: false }) => Err(SnpError::RootProduct),
            Some(_) | None => Ok(self.product),
        }
    }
}

fn root_line(root: &AmdCertificate) -> Option<Line> {
    root.common_name().and_then(|name| name.strip_prefix(ROOT_PREFIX)).and_then(Line::parse)
}

/// How the common name of an ARK starts.
pub(crate) const ROOT_PREFIX: &str = "ARK-";

/// That a certificate can be an ARK: an authority's, RSA-4096, self-signed, and named like one.
pub(crate) fn check_root(root: &AmdCertificate) -> Result<(), SnpError> {
    root.check_authority(SnpCertificate::Root, 1)?;
    if root_line(root).is_none() {
        return Err(SnpError::CertificateName(SnpCertificate::Root));
    }
    root.check_issued_by(root, SnpCertificate::Root)
}

/// That root and intermediate can be authorities, and that the one issued the other.
pub(crate) fn check_authorities(root: &AmdCertificate, intermediate: &AmdCertificate) -> Result<(), SnpError> {
    check_root(root)?;
    intermediate.check_authority(SnpCertificate::Intermediate, 0)?;
    intermediate.check_issued_by(root, SnpCertificate::Intermediate)
}

/// The root's own signature counts too: its key is pinned, its dates and flags are not.
fn check_signatures(
    root: &AmdCertificate,
    intermediate: &AmdCertificate,
    leaf: &AmdCertificate,
) -> Result<(), SnpError> {
    check_root(root)?;
    intermediate.check_authority(SnpCertificate::Intermediate, 0)?;
    leaf.check_leaf()?;
    intermediate.check_issued_by(root, SnpCertificate::Intermediate)?;
    leaf.check_issued_by(intermediate, SnpCertificate::Leaf)
}

/// Every list that was sent is checked. The leaf is not looked for: the ASK issued it, and serial number 0 names none.
fn check_crls(
    crls: &[Vec<u8>],
    root: &AmdCertificate,
    intermediate: &AmdCertificate,
) -> Result<Vec<Validity>, SnpError> {
    if crls.len() > CRLS_MAX {
        return Err(SnpError::CrlsTooMany { found: crls.len() });
    }
    let places = [(SnpCertificate::Intermediate, intermediate), (SnpCertificate::Root, root)];
    let mut windows = Vec::with_capacity(crls.len());
    for der in crls {
        let crl = Crl::verify(der, root)?;
        if let Some((place, _)) = places.iter().find(|(_, certificate)| crl.revokes(certificate)) {
            return Err(SnpError::Revoked(*place));
        }
        windows.push(crl.window());
    }
    Ok(windows)
}

/// A leaf's common name says which kind of key it is of, and nothing else.
pub(crate) fn kind_of_leaf(certificate: &AmdCertificate) -> Option<SigningKey> {
    match certificate.common_name() {
        Some("SEV-VCEK") => Some(SigningKey::Vcek),
        Some("SEV-VLEK") => Some(SigningKey::Vlek),
        Some(_) | None => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pinned_root_is_for_its_product_and_never_soft() {
        let line = |text| Line::parse(text).unwrap();
        let pinned = Some(SnpProduct::Genoa);
        assert_eq!(line("Genoa").product_under(pinned), Ok(SnpProduct::Genoa));
        assert_eq!(line("Milan").product_under(pinned), Err(SnpError::RootProduct));
        assert_eq!(line("Soft-Genoa").product_under(pinned), Err(SnpError::RootProduct));
        assert_eq!(line("Soft-Milan").product_under(None), Ok(SnpProduct::Milan));
        assert!(Line::parse("Soft-").is_none() && Line::parse("VLEK-Milan").is_none());
    }
}
