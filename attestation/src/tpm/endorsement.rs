//! EK certificate chains: which TPM this is, and who says so.

use ring::rand::SecureRandom;
use subtle::ConstantTimeEq;

use super::ek::{EkKey, EkPublic};
use super::{ActivationSecret, AttestationKey, Credential, TpmIdentity};
use crate::anchors::{Anchor, Trust, TrustAnchors};
use crate::certificate::Certificate;
use crate::encoding::{Sha256Digest, UnixTime, lv};
use crate::error::{CertificateError, CredentialError, VerifyError};

/// The most certificates of a chain, the EK certificate among them.
const EK_CERTIFICATES_MAX: usize = 6;

/// An endorsement key whose certificate chain holds, or that was enrolled.
pub struct EndorsedEk {
    pub(super) platform: Sha256Digest,
    pub(super) trust: Trust,
    pub(super) anchor: String,
    pub(super) endorsement: EkEndorsement,
    pub(super) not_after: UnixTime,
    pub(super) key: EkKey,
}

/// Who says that an EK is a TPM's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EkEndorsement {
    /// Its maker: a certificate leads to an anchor.
    Certificate,
    /// The approvers of the vault, who enrolled it.
    Enrolled,
}

impl EndorsedEk {
    /// Verifies a chain at `now`: the EK certificate (RSA-2048, P-256 or P-384), then its issuers towards the root, each exact DER.
    ///
    /// Every certificate must be issued by the next one, so that none that was sent goes unchecked. The anchor that
    /// issued the one nearest to the EK decides trust; it may be a root or an intermediate, sent along or not.
    /// Revocation lists are not read: a policy lists the EKs that it wants.
    pub fn verify(certificates: &[Vec<u8>], anchors: &TrustAnchors, now: UnixTime) -> Result<Self, VerifyError> {
        if certificates.len() > EK_CERTIFICATES_MAX {
            return Err(VerifyError::EkCertificatesTooMany { found: certificates.len() });
        }
        let chain = certificates
            .iter()
            .enumerate()
            .map(|(index, der)| Certificate::parse(der).map_err(at(index)))
            .collect::<Result<Vec<_>, _>>()?;
        let ek = chain.first().ok_or(VerifyError::EkCertificateMissing)?;
        ek.check_validity(now).and_then(|()| ek.check_endorsement()).map_err(at(0))?;
        let key = ek.public_key().ek_key().map_err(at(0))?;
        check_links(&chain, now)?;
        let found = find_anchor(&chain, anchors, now)?;
        let ends = chain.iter().map(Certificate::not_after);
        Ok(Self {
            platform: Sha256Digest::of(ek.public_key_info()),
            trust: found.trust,
            anchor: found.name,
            endorsement: EkEndorsement::Certificate,
            not_after: ends.fold(found.not_after, UnixTime::min),
            key,
        })
    }

    /// The platform id: SHA-256 of the DER SubjectPublicKeyInfo of the EK certificate (FORMAT.md §2).
    #[must_use]
    pub const fn platform(&self) -> Sha256Digest {
        self.platform
    }

    /// What the anchor vouches for.
    #[must_use]
    pub const fn trust(&self) -> Trust {
        self.trust
    }

    /// Who vouches for it.
    #[must_use]
    pub const fn endorsement(&self) -> EkEndorsement {
        self.endorsement
    }

    /// The name of the anchor that the chain ends at; of an enrolled EK `enrolled as` and its label, which is no anchor's
    /// name.
    #[must_use]
    pub fn anchor(&self) -> &str {
        &self.anchor
    }

    /// The last second that the whole chain, the anchor included, is valid.
    #[must_use]
    pub const fn not_after(&self) -> UnixTime {
        self.not_after
    }
}

/// The platform id that an EK certificate would give, exact DER. **Nothing about it is verified**: for whoever drafts a
/// policy before he has the anchor.
pub fn claimed_ek(certificate: &[u8]) -> Result<Sha256Digest, CertificateError> {
    Ok(Sha256Digest::of(Certificate::parse(certificate)?.public_key_info()))
}

impl TpmIdentity {
    /// The platform id that it claims: by its EK certificate, or else by the public area of its EK. **Nothing about it is
    /// verified.**
    pub fn claimed_platform(&self) -> Result<Sha256Digest, VerifyError> {
        match self.ek_certificates.first() {
            Some(certificate) => claimed_ek(certificate).map_err(at(0)),
            None if self.ek_public.is_empty() => Err(VerifyError::EkCertificateMissing),
            None => Ok(EkPublic::parse(&self.ek_public)?.platform()),
        }
    }
}

/// An endorsed EK beside an attestation key that *claims* to live in the same TPM. Only a quote whose binding holds the
/// secret of [`EndorsedTpm::make_credential`] shows that it does.
pub struct EndorsedTpm {
    ek: EndorsedEk,
    ak: AttestationKey,
    identity: Sha256Digest,
}

impl EndorsedTpm {
    /// Verifies the EK chain at `now` and the public area of the AK.
    pub fn verify(identity: &TpmIdentity, anchors: &TrustAnchors, now: UnixTime) -> Result<Self, VerifyError> {
        let ek = EndorsedEk::verify(&identity.ek_certificates, anchors, now)?;
        if !identity.ek_public.is_empty() && EkPublic::parse(&identity.ek_public)?.platform() != ek.platform {
            return Err(VerifyError::EkPublicOtherKey);
        }
        let ak = AttestationKey::parse(&identity.ak_public)?;
        Ok(Self::of(ek, ak, identity))
    }

    pub(super) fn of(ek: EndorsedEk, ak: AttestationKey, identity: &TpmIdentity) -> Self {
        Self { ek, ak, identity: digest_of(identity) }
    }

    /// The EK.
    #[must_use]
    pub const fn ek(&self) -> &EndorsedEk {
        &self.ek
    }

    /// The AK.
    #[must_use]
    pub const fn ak(&self) -> &AttestationKey {
        &self.ak
    }

    /// `TPM2_MakeCredential`: `secret` comes out of it only in the TPM that holds this EK *and* this AK.
    pub fn make_credential(
        &self,
        secret: &ActivationSecret,
        rng: &dyn SecureRandom,
    ) -> Result<Credential, CredentialError> {
        self.ek.key.make_credential(self.ak.name(), secret, rng)
    }

    /// Whether these are the very bytes that were verified.
    pub(crate) fn is(&self, identity: &TpmIdentity) -> bool {
        digest_of(identity).as_bytes().ct_eq(self.identity.as_bytes()).into()
    }
}

/// Each certificate is valid, and issued by the next one, which is an authority's.
fn check_links(chain: &[Certificate], now: UnixTime) -> Result<(), VerifyError> {
    for (index, pair) in chain.windows(2).enumerate() {
        let [certificate, issuer] = pair else { continue };
        if !certificate.names_issuer(issuer) {
            return Err(at(index)(CertificateError::IssuerMismatch));
        }
        issuer.check_validity(now).and_then(|()| issuer.check_authority(index)).map_err(at(index + 1))?;
        certificate.check_signature(issuer).map_err(at(index))?;
    }
    Ok(())
}

/// What a chain ends at.
struct FoundAnchor {
    name: String,
    trust: Trust,
    not_after: UnixTime,
}

/// The anchor nearest to the EK: one that was added and issued a certificate of the chain, or a built-in root that is one.
fn find_anchor(chain: &[Certificate], anchors: &TrustAnchors, now: UnixTime) -> Result<FoundAnchor, VerifyError> {
    let mut refusal = VerifyError::EkAnchorUnknown;
    for (index, certificate) in chain.iter().enumerate() {
        for (anchor, issuer) in anchors.issuers_named_by(certificate) {
            if let Err(error) = certificate.check_signature(issuer) {
                refusal = at(index)(error);
                continue;
            }
            issuer.check_validity(now).and_then(|()| issuer.check_authority(index)).map_err(at(index + 1))?;
            let Anchor { name, trust, .. } = anchor;
            return Ok(FoundAnchor { name: name.clone(), trust: *trust, not_after: issuer.not_after() });
        }
        // The first one is of the EK, and was checked as no authority's; the others were as the authority below which they
        // stand.
        if let (1.., Some(name)) = (index, anchors.built_in_tpm_root(certificate)) {
            let (name, not_after) = (name.to_owned(), certificate.not_after());
            return Ok(FoundAnchor { name, trust: Trust::Hardware, not_after });
        }
    }
    Err(refusal)
}

fn at(index: usize) -> impl Fn(CertificateError) -> VerifyError {
    move |error| VerifyError::EkCertificate { index, error }
}

/// The public areas are the last two fields, so nothing can be taken for another.
fn digest_of(identity: &TpmIdentity) -> Sha256Digest {
    let certificates = identity.ek_certificates.iter().map(Vec::as_slice);
    let fields: Vec<&[u8]> =
        certificates.chain([identity.ek_public.as_slice(), identity.ak_public.as_slice()]).collect();
    Sha256Digest::of(&lv(&fields))
}
