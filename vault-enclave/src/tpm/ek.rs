//! The endorsement key: which one this TPM has, its certificate, and how it is used.

use std::fmt;
use std::str::FromStr;

use attestation::{EkKind, EkPublic, Sha256Digest, claimed_ek};
use tss_esapi::constants::SessionType;
use tss_esapi::handles::{AuthHandle, KeyHandle, PersistentTpmHandle, TpmHandle};
use tss_esapi::interface_types::algorithm::HashingAlgorithm;
use tss_esapi::interface_types::resource_handles::{Hierarchy, NvAuth};
use tss_esapi::interface_types::session_handles::{AuthSession, PolicySession};
use tss_esapi::structures::{Digest, DigestList};
use tss_esapi::traits::Marshall;

use super::device::Device;
use super::error::{AUTH_FAIL, BAD_AUTH};
use super::{TpmError, template};

/// Which endorsement key to attest with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum EkChoice {
    /// The first of RSA-2048, P-256 and P-384 that the TPM holds a certificate for; RSA-2048 where it holds none.
    #[default]
    Auto,
    /// This one, whether or not the TPM holds a certificate for it.
    Only(EkKind),
}

/// The text names no endorsement key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EkChoiceError;

const KINDS: [(EkKind, &str); 3] =
    [(EkKind::Rsa2048, "rsa-2048"), (EkKind::EccP256, "ecc-p256"), (EkKind::EccP384, "ecc-p384")];

impl FromStr for EkChoice {
    type Err = EkChoiceError;

    fn from_str(text: &str) -> Result<Self, EkChoiceError> {
        if text == "auto" {
            return Ok(Self::Auto);
        }
        KINDS.iter().find(|(_, name)| *name == text).map(|(kind, _)| Self::Only(*kind)).ok_or(EkChoiceError)
    }
}

impl fmt::Display for EkChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Auto => f.write_str("auto"),
            Self::Only(EkKind::Rsa2048) => f.write_str("rsa-2048"),
            Self::Only(EkKind::EccP256) => f.write_str("ecc-p256"),
            Self::Only(EkKind::EccP384) => f.write_str("ecc-p384"),
        }
    }
}

impl fmt::Display for EkChoiceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an endorsement key is auto, rsa-2048, ecc-p256 or ecc-p384")
    }
}

impl std::error::Error for EkChoiceError {}

const CERTIFICATE_BYTES_MAX: usize = 4096;

/// Where the certificate is (TCG EK Credential Profile, "NV Indices").
const fn certificate_index(kind: EkKind) -> u32 {
    match kind {
        EkKind::Rsa2048 => 0x01c0_0002,
        EkKind::EccP256 => 0x01c0_000a,
        EkKind::EccP384 => 0x01c0_0016,
    }
}

/// Where provisioning may leave the key (TCG TPM v2.0 Provisioning Guidance; swtpm_setup for P-384). The P-256 key is made
/// anew, which is quick: makers do not agree on a handle for it.
const fn persistent_handle(kind: EkKind) -> Option<u32> {
    match kind {
        EkKind::Rsa2048 => Some(0x8101_0001),
        EkKind::EccP256 => None,
        EkKind::EccP384 => Some(0x8101_0016),
    }
}

impl Device {
    pub(super) fn ek_certificates(&mut self) -> Result<Vec<Vec<u8>>, TpmError> {
        let index = certificate_index(self.ek_kind()?);
        let read = self.nv_read(index, CERTIFICATE_BYTES_MAX, NvAuth::NvIndex);
        let padded = read.map_err(|error| match error {
            TpmError::NvMissing(_) => TpmError::EkCertificateMissing,
            TpmError::NvTooLong(_) => TpmError::EkCertificateMalformed,
            other => other,
        })?;
        let leaf = der(&padded).ok_or(TpmError::EkCertificateMalformed)?.to_vec();
        Ok([leaf].into_iter().chain(self.ek_issuers.iter().cloned()).collect())
    }

    /// TPMT_PUBLIC of the endorsement key.
    pub(super) fn ek_public(&mut self) -> Result<Vec<u8>, TpmError> {
        const READ: &str = "TPM2_ReadPublic";
        // Makes room, as for a new key.
        self.unload();
        self.with_ek_handle(|device, ek| {
            let (public, _, _) = device.command(READ, |tpm| tpm.read_public(ek))?;
            device.command(READ, |_| public.marshall())
        })
    }

    /// Whether the certificate that this TPM holds is not that of its key. It may be one that nobody can read; then this
    /// says nothing.
    pub(super) fn certificate_is_of_another_key(&mut self) -> Result<bool, TpmError> {
        let certified = self.ek_certificates()?.first().and_then(|der| claimed_ek(der).ok());
        let public = self.ek_public()?;
        let held: Option<Sha256Digest> = EkPublic::parse(&public).ok().map(|public| public.platform());
        Ok(certified.zip(held).is_some_and(|(certified, held)| certified != held))
    }

    /// Runs `then` with the endorsement key and a session that satisfies its policy, once.
    pub(super) fn with_ek<T>(
        &mut self,
        then: impl FnOnce(&mut Self, KeyHandle, AuthSession) -> Result<T, TpmError>,
    ) -> Result<T, TpmError> {
        let kind = self.ek_kind()?;
        let hash = match kind {
            EkKind::Rsa2048 | EkKind::EccP256 => HashingAlgorithm::Sha256,
            EkKind::EccP384 => HashingAlgorithm::Sha384,
        };
        self.with_ek_handle(|device, ek| {
            device.with_session_of(SessionType::Policy, hash, |device, session| {
                device.satisfy_endorsement_policy(kind, session)?;
                then(device, ek, session)
            })
        })
    }

    fn with_ek_handle<T>(
        &mut self,
        then: impl FnOnce(&mut Self, KeyHandle) -> Result<T, TpmError>,
    ) -> Result<T, TpmError> {
        let kind = self.ek_kind()?;
        match self.persistent_ek(kind)? {
            Some(ek) => self.closing(ek, |device| then(device, ek)),
            None => {
                let (ek, _) = self.create_primary(Hierarchy::Endorsement, template::endorsement_key(kind)?)?;
                self.flushing(ek, |device| then(device, ek))
            }
        }
    }

    /// The kind that was chosen, the same for the life of the connection.
    fn ek_kind(&mut self) -> Result<EkKind, TpmError> {
        if let Some(kind) = self.ek_kind {
            return Ok(kind);
        }
        let kind = match self.ek_choice {
            EkChoice::Only(kind) => kind,
            EkChoice::Auto => self.certified_kind()?.unwrap_or(EkKind::Rsa2048),
        };
        self.ek_kind = Some(kind);
        Ok(kind)
    }

    fn certified_kind(&mut self) -> Result<Option<EkKind>, TpmError> {
        for (kind, _) in KINDS {
            let index = certificate_index(kind);
            if self.handles(index)?.first().is_some_and(|found| u32::from(*found) == index) {
                return Ok(Some(kind));
            }
        }
        Ok(None)
    }

    /// The endorsement key where provisioning left it: it spares seconds on hardware. Another key there is not used.
    fn persistent_ek(&mut self, kind: EkKind) -> Result<Option<KeyHandle>, TpmError> {
        const READ: &str = "TPM2_ReadPublic";
        let Some(handle) = persistent_handle(kind) else { return Ok(None) };
        let index = self.command(READ, |_| PersistentTpmHandle::new(handle))?;
        if self.handles(handle)?.first() != Some(&TpmHandle::Persistent(index)) {
            return Ok(None);
        }
        let object = self.command(READ, |tpm| tpm.tr_from_tpm_public(TpmHandle::Persistent(index)))?;
        let handle = KeyHandle::from(object);
        let read = self.command(READ, |tpm| tpm.read_public(handle)?.0.marshall());
        match read.map(|public| EkPublic::parse(&public).is_ok_and(|public| public.kind() == kind)) {
            Ok(true) => Ok(Some(handle)),
            other => self.closing(object, |_| other.map(|_| None)),
        }
    }

    /// PolicyA: the endorsement hierarchy's password, which is empty. PolicyB of the high range is PolicyA or PolicyC; it
    /// is taken and not the key's own empty password, since a use of that counts in a lockout.
    fn satisfy_endorsement_policy(&mut self, kind: EkKind, session: AuthSession) -> Result<(), TpmError> {
        const SECRET: &str = "TPM2_PolicySecret";
        const OR: &str = "TPM2_PolicyOR";
        let policy = self.command(SECRET, |_| PolicySession::try_from(session))?;
        let (nonce, cp_hash, reference) = Default::default();
        let password = [Some(AuthSession::Password), None];
        self.authorised(password, SECRET, |tpm| {
            tpm.policy_secret(policy, AuthHandle::Endorsement, nonce, cp_hash, reference, None)
        })
        .map_err(|error| error.meaning(AUTH_FAIL, TpmError::HierarchyAuth))
        .map_err(|error| error.meaning(BAD_AUTH, TpmError::HierarchyAuth))?;
        match kind {
            EkKind::Rsa2048 | EkKind::EccP256 => Ok(()),
            EkKind::EccP384 => self.command(OR, |tpm| {
                let mut branches = DigestList::new();
                branches.add(Digest::try_from(&POLICY_A_SHA384[..])?)?;
                branches.add(Digest::try_from(&POLICY_C_SHA384[..])?)?;
                tpm.policy_or(policy, branches)
            }),
        }
    }
}

/// PolicyA for SHA-384 (TCG EK Credential Profile, B.6.2): PolicySecret of the endorsement hierarchy.
const POLICY_A_SHA384: [u8; 48] = [
    0x8b, 0xbf, 0x22, 0x66, 0x53, 0x7c, 0x17, 0x1c, 0xb5, 0x6e, 0x40, 0x3c, 0x4d, 0xc1, 0xd4, 0xb6, //
    0x4f, 0x43, 0x26, 0x11, 0xdc, 0x38, 0x6e, 0x6f, 0x53, 0x20, 0x50, 0xc3, 0x27, 0x8c, 0x93, 0x0e, //
    0x14, 0x3e, 0x8b, 0xb1, 0x13, 0x38, 0x24, 0xcc, 0xb4, 0x31, 0x05, 0x38, 0x71, 0xc6, 0xdb, 0x53,
];
/// PolicyC for SHA-384 (the same): a policy that the maker may leave in NV.
const POLICY_C_SHA384: [u8; 48] = [
    0xd6, 0x03, 0x2c, 0xe6, 0x1f, 0x2f, 0xb3, 0xc2, 0x40, 0xeb, 0x3c, 0xf6, 0xa3, 0x32, 0x37, 0xef, //
    0x2b, 0x6a, 0x16, 0xf4, 0x29, 0x3c, 0x22, 0xb4, 0x55, 0xe2, 0x61, 0xcf, 0xfd, 0x21, 0x7a, 0xd5, //
    0xb4, 0x94, 0x7c, 0x2d, 0x73, 0xe6, 0x30, 0x05, 0xee, 0xd2, 0xdc, 0x2b, 0x35, 0x93, 0xd1, 0x65,
];

/// The one DER value at the start of `padded`: some TPMs pad the certificate.
fn der(padded: &[u8]) -> Option<&[u8]> {
    let (header, length) = match padded {
        [0x30, short @ 0..=0x7f, ..] => (2, usize::from(*short)),
        [0x30, 0x81, a, ..] => (3, usize::from(*a)),
        [0x30, 0x82, a, b, ..] => (4, usize::from(u16::from_be_bytes([*a, *b]))),
        _ => return None,
    };
    padded.get(..header + length)
}

#[cfg(test)]
mod tests {
    use super::*;
    use ring::digest::{SHA384, digest};

    #[test]
    fn a_choice_has_one_text() {
        for text in ["auto", "rsa-2048", "ecc-p256", "ecc-p384"] {
            assert_eq!(text.parse::<EkChoice>().unwrap().to_string(), text);
        }
        for wrong in ["", "RSA-2048", "ecc", "ecc-p521"] {
            assert_eq!(wrong.parse::<EkChoice>(), Err(EkChoiceError), "{wrong}");
        }
    }

    /// TPM2_PolicySecret and TPM2_PolicyOR (TPM 2.0 Part 3), as far as the policy that the template names.
    #[test]
    fn the_branches_make_the_policy_of_the_template() {
        let secret = [&[0; 48][..], &[0, 0, 0x01, 0x51], &[0x40, 0, 0, 0x0b]].concat();
        let policy_a = digest(&SHA384, digest(&SHA384, &secret).as_ref());
        assert_eq!(policy_a.as_ref(), POLICY_A_SHA384);
        let branches = [&[0; 48][..], &[0, 0, 0x01, 0x71], &POLICY_A_SHA384, &POLICY_C_SHA384].concat();
        let policy_b = digest(&SHA384, &branches);
        let template = EkKind::EccP384.template_prefix();
        assert!(template.windows(48).any(|window| window == policy_b.as_ref()));
    }

    #[test]
    fn a_certificate_is_cut_to_its_der() {
        assert_eq!(der(&[0x30, 2, 1, 2, 0xff, 0xff]), Some(&[0x30, 2, 1, 2][..]));
        let long = [&[0x30, 0x82, 1, 0][..], &[7; 256], &[0; 100]].concat();
        assert_eq!(der(&long), Some(&long[..260]));
        for bad in [&[][..], &[0x30], &[0x30, 5, 1], &[0x31, 0], &[0x30, 0x82, 1], &[0x30, 0x83, 0, 0, 0]] {
            assert_eq!(der(bad), None, "{bad:?}");
        }
    }
}
