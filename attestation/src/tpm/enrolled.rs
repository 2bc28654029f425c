//! EKs without a certificate, which the approvers of a vault vouch for.

use std::collections::BTreeMap;

use super::ek::EkPublic;
use super::endorsement::{EkEndorsement, EndorsedEk, EndorsedTpm};
use super::{AttestationKey, TpmIdentity};
use crate::anchors::{Trust, TrustAnchors};
use crate::encoding::{Sha256Digest, UnixTime};
use crate::error::VerifyError;

/// The EKs that were enrolled, by platform id. A value that is passed in, as anchors are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EnrolledEks(BTreeMap<Sha256Digest, EnrolledEk>);

/// What the approvers said of an EK.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EnrolledEk {
    /// What people call the machine.
    pub label: String,
    /// What its TPM counts as.
    pub trust: Trust,
}

impl EnrolledEks {
    /// That of this platform.
    #[must_use]
    pub fn get(&self, platform: &Sha256Digest) -> Option<&EnrolledEk> {
        self.0.get(platform)
    }
}

impl FromIterator<(Sha256Digest, EnrolledEk)> for EnrolledEks {
    fn from_iter<T: IntoIterator<Item = (Sha256Digest, EnrolledEk)>>(eks: T) -> Self {
        Self(eks.into_iter().collect())
    }
}

impl EndorsedTpm {
    /// As [`EndorsedTpm::verify`], where an EK without a certificate may be one that was enrolled. One that has a certificate
    /// is judged by that alone.
    ///
    /// # Errors
    /// As [`EndorsedTpm::verify`]; [`VerifyError::EkNotEnrolled`], and what is wrong with its public area.
    pub fn verify_or_enrolled(
        identity: &TpmIdentity,
        anchors: &TrustAnchors,
        enrolled: &EnrolledEks,
        now: UnixTime,
    ) -> Result<Self, VerifyError> {
        if !identity.ek_certificates.is_empty() || identity.ek_public.is_empty() {
            return Self::verify(identity, anchors, now);
        }
        let public = EkPublic::parse(&identity.ek_public)?;
        let platform = public.platform();
        let ek = enrolled.get(&platform).ok_or(VerifyError::EkNotEnrolled { platform })?;
        let ek = EndorsedEk {
            platform,
            trust: ek.trust,
            anchor: format!("enrolled as {}", ek.label),
            endorsement: EkEndorsement::Enrolled,
            // Until it is removed.
            not_after: UnixTime(u64::MAX),
            key: public.into_key(),
        };
        Ok(Self::of(ek, AttestationKey::parse(&identity.ak_public)?, identity))
    }
}
