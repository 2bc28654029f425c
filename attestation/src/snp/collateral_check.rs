//! Whether what was collected belongs to what it was collected for. **This is not verification**: the root may be
//! anybody's, no date is looked at, and revocation is not asked for. A verifier does all of it again, by its own anchors.
//! It is here so that a wrong or broken object is neither kept nor sent, and the next source is asked.

use super::certificate::AmdCertificate;
use super::chain::{authorities_of, check_authorities, kind_of_leaf};
use super::collateral::{ChainId, VcekId};
use super::crl::Crl;
use super::evidence::SnpEvidence;
use super::extensions::LeafSubject;
use super::fields::SigningKey;
use crate::encoding::UnixTime;
use crate::error::{CertificateError, CollateralError, SnpCertificate, SnpError};

const PEM_BEGIN: &str = "-----BEGIN CERTIFICATE-----";
const PEM_END: &str = "-----END CERTIFICATE-----";

/// ASK or ASVK, and the ARK that issued it. Whose ARK it is, is not shown by this type.
#[derive(Clone, Debug)]
pub struct CollateralChain {
    id: ChainId,
    der: [Vec<u8>; 2],
    intermediate: AmdCertificate,
    root: AmdCertificate,
}

/// For how long a revocation list is the newest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CrlWindow {
    /// thisUpdate.
    pub this_update: UnixTime,
    /// nextUpdate.
    pub next_update: UnixTime,
}

/// What evidence lacks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LeafState {
    /// The leaf is there: its authorities are these.
    Present(ChainId),
    /// The VCEK of one of these is wanted.
    Absent(Vec<VcekId>),
}

impl CollateralChain {
    /// Reads `cert_chain` of the service: ASK or ASVK, then ARK, in PEM.
    ///
    /// # Errors
    /// [`CollateralError::TooLarge`], [`CollateralError::ChainMalformed`], and as [`CollateralChain::from_der`].
    pub fn from_pem(pem: &[u8], id: ChainId) -> Result<Self, CollateralError> {
        let max = super::CollateralKey::Chain(id).bytes_max();
        if pem.len() > max {
            return Err(CollateralError::TooLarge { found: pem.len() });
        }
        let text = std::str::from_utf8(pem).map_err(|_| CollateralError::ChainMalformed)?;
        let mut ders = Vec::new();
        let mut rest = text.trim();
        while !rest.is_empty() {
            if ders.len() == 2 || !rest.starts_with(PEM_BEGIN) {
                return Err(CollateralError::ChainMalformed);
            }
            let end = rest.find(PEM_END).ok_or(CollateralError::ChainMalformed)? + PEM_END.len();
            let (_, der) =
                der::pem::decode_vec(&rest.as_bytes()[..end]).map_err(|_| CollateralError::ChainMalformed)?;
            ders.push(der);
            rest = rest[end..].trim_start();
        }
        let [intermediate, root]: [Vec<u8>; 2] = ders.try_into().map_err(|_| CollateralError::ChainMalformed)?;
        let chain = Self::from_der(intermediate, root)?;
        if chain.id == id { Ok(chain) } else { Err(CollateralError::ChainOther) }
    }

    /// From the certificates themselves, which say what they are of.
    ///
    /// # Errors
    /// [`CollateralError::Certificate`], [`CollateralError::ChainOther`].
    pub fn from_der(intermediate: Vec<u8>, root: Vec<u8>) -> Result<Self, CollateralError> {
        let der = [intermediate, root];
        let read = |der, place| AmdCertificate::parse(der).map_err(|error| refuse(place, error));
        let intermediate = read(&der[0], SnpCertificate::Intermediate)?;
        let root = read(&der[1], SnpCertificate::Root)?;
        let (product, signing_key) = authorities_of(&root, &intermediate).ok_or(CollateralError::ChainOther)?;
        check_authorities(&root, &intermediate).map_err(CollateralError::Certificate)?;
        Ok(Self { id: ChainId { product, signing_key }, der, intermediate, root })
    }

    /// Whose authorities these are.
    #[must_use]
    pub const fn id(&self) -> ChainId {
        self.id
    }

    /// ASK or ASVK, then ARK: DER.
    #[must_use]
    pub const fn certificates(&self) -> &[Vec<u8>; 2] {
        &self.der
    }

    /// The last second that both are valid.
    #[must_use]
    pub fn not_after(&self) -> UnixTime {
        self.intermediate.validity().not_after.min(self.root.validity().not_after)
    }

    /// That `der` is this VCEK, issued by this chain. Gives the last second that it is valid.
    ///
    /// # Errors
    /// [`CollateralError::Certificate`], [`CollateralError::NotVcek`], and one for each thing that it is of.
    pub fn check_vcek(&self, der: &[u8], id: &VcekId) -> Result<UnixTime, CollateralError> {
        let leaf = AmdCertificate::parse(der).map_err(|error| refuse(SnpCertificate::Leaf, error))?;
        check_vcek_id(&leaf, id)?;
        leaf.check_issued_by(&self.intermediate, SnpCertificate::Leaf).map_err(CollateralError::Certificate)?;
        Ok(leaf.validity().not_after)
    }

    /// That `der` is a revocation list of this chain's root.
    ///
    /// # Errors
    /// [`CollateralError::Crl`].
    pub fn check_crl(&self, der: &[u8]) -> Result<CrlWindow, CollateralError> {
        let window = Crl::verify(der, &self.root).map_err(CollateralError::Crl)?.window();
        Ok(CrlWindow { this_update: window.not_before, next_update: window.not_after })
    }
}

impl CrlWindow {
    /// Whether it counts at `now`.
    #[must_use]
    pub fn is_in_force(&self, now: UnixTime) -> bool {
        self.this_update <= now && now <= self.next_update
    }

    /// When to look for a newer one: halfway, so that half of its time is left for tries that fail.
    #[must_use]
    pub const fn refresh_at(&self) -> UnixTime {
        let half = self.next_update.seconds().saturating_sub(self.this_update.seconds()) / 2;
        self.this_update.plus(half)
    }
}

impl LeafState {
    /// What evidence has for a leaf. A VCEK that is not the one of its report is as good as none: hosts hand over the
    /// one of the firmware before the last update.
    ///
    /// # Errors
    /// As [`VcekId::of_report`], where there is no leaf.
    pub fn of(evidence: &SnpEvidence) -> Result<Self, CollateralError> {
        let leaf = evidence.certificates.first().and_then(|der| AmdCertificate::parse(der).ok());
        let of_leaf = leaf.as_ref().and_then(|leaf| {
            let product = leaf.leaf_extensions().ok()?.product;
            Some(ChainId { product, signing_key: kind_of_leaf(leaf)? })
        });
        let wanted = VcekId::of_report(&evidence.report);
        match (leaf, of_leaf, wanted) {
            (Some(leaf), Some(ChainId { signing_key: SigningKey::Vcek, .. }), Ok(wanted))
                if !wanted.iter().any(|id| check_vcek_id(&leaf, id).is_ok()) =>
            {
                Ok(Self::Absent(wanted))
            }
            (Some(_), Some(chain), _) => Ok(Self::Present(chain)),
            (_, _, wanted) => wanted.map(Self::Absent),
        }
    }
}

fn check_vcek_id(leaf: &AmdCertificate, id: &VcekId) -> Result<(), CollateralError> {
    if kind_of_leaf(leaf) != Some(SigningKey::Vcek) {
        return Err(CollateralError::NotVcek);
    }
    let extensions = leaf.leaf_extensions().map_err(CollateralError::Certificate)?;
    if extensions.product != id.product() {
        return Err(CollateralError::VcekProduct);
    }
    if extensions.tcb.first_difference(id.tcb()).is_some() {
        return Err(CollateralError::VcekTcb);
    }
    match extensions.subject(SigningKey::Vcek).map_err(CollateralError::Certificate)? {
        LeafSubject::Chip(chip) if chip == *id.chip_id() => Ok(()),
        LeafSubject::Chip(_) | LeafSubject::Csp(_) => Err(CollateralError::VcekChip),
    }
}

const fn refuse(certificate: SnpCertificate, error: CertificateError) -> CollateralError {
    CollateralError::Certificate(SnpError::Certificate { certificate, error })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::snp::SnpProduct;

    #[test]
    fn list_is_renewed_halfway() {
        let window = CrlWindow { this_update: UnixTime(100), next_update: UnixTime(300) };
        assert_eq!(window.refresh_at(), UnixTime(200));
        assert!(window.is_in_force(UnixTime(100)) && window.is_in_force(UnixTime(300)));
        assert!(!window.is_in_force(UnixTime(99)) && !window.is_in_force(UnixTime(301)));
    }

    #[test]
    fn chain_is_two_certificates_in_pem() {
        let id = ChainId { product: SnpProduct::Milan, signing_key: SigningKey::Vcek };
        let read = |text: &str| CollateralChain::from_pem(text.as_bytes(), id).unwrap_err();
        let not_amd = format!("{PEM_BEGIN}\nMAA=\n{PEM_END}\n");
        for malformed in ["", "text", PEM_BEGIN, &not_amd, &not_amd.repeat(3), &format!("{not_amd}text{not_amd}")] {
            assert_eq!(read(malformed), CollateralError::ChainMalformed, "{malformed}");
        }
        let malformed = refuse(SnpCertificate::Intermediate, CertificateError::Malformed);
        assert_eq!(read(&not_amd.repeat(2)), malformed);
        let found = 16 * 1024 + 1;
        assert_eq!(read(&" ".repeat(found)), CollateralError::TooLarge { found });
    }
}
