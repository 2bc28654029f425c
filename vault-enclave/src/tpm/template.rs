//! Public areas (TPMT_PUBLIC, TPM 2.0 Part 2) of the keys and objects that this program makes, as the bytes they are.

use attestation::EkKind;
use tss_esapi::structures::Public;
use tss_esapi::traits::UnMarshall;

use super::TpmError;

/// The storage root key: ECC P-256 (TCG TPM v2.0 Provisioning Guidance, "Storage Primary Key (SRK) Templates").
pub(super) fn storage_root_key() -> Result<Public, TpmError> {
    const SRK: u32 = FIXED | SENSITIVE_DATA_ORIGIN | USER_WITH_AUTH | NO_DA | RESTRICTED | DECRYPT;
    let unique = [&[0, 32][..], &[0; 32], &[0, 32], &[0; 32]].concat();
    parse(&[ECC, SHA256, &SRK.to_be_bytes(), EMPTY, AES_128_CFB, NULL, P256, NULL, &unique])
}

/// An endorsement key: what a certificate of its kind is about. Without customisation the unique field is zeros of the
/// key's size in the low range, and empty in the high range (TCG EK Credential Profile, B.3 and B.4).
pub(super) fn endorsement_key(kind: EkKind) -> Result<Public, TpmError> {
    let unique = match kind {
        EkKind::Rsa2048 => [&[1, 0][..], &[0; 256]].concat(),
        EkKind::EccP256 => [&[0, 32][..], &[0; 32], &[0, 32], &[0; 32]].concat(),
        EkKind::EccP384 => [EMPTY, EMPTY].concat(),
    };
    parse(&[&kind.template_prefix(), &unique])
}

/// An attestation key: restricted, so that it signs nothing but what the TPM itself says; ECDSA P-256 with SHA-256.
/// Its own template has noDA, so that a lockout does not stop quotes.
pub(super) fn attestation_key() -> Result<Public, TpmError> {
    const AK: u32 = FIXED | SENSITIVE_DATA_ORIGIN | USER_WITH_AUTH | NO_DA | RESTRICTED | SIGN;
    parse(&[ECC, SHA256, &AK.to_be_bytes(), EMPTY, NULL, ECDSA_SHA256, P256, NULL, EMPTY, EMPTY])
}

/// A sealed secret that opens under `policy` only. userWithAuth stays clear: else the empty password would open it.
pub(super) fn sealed(policy: &[u8; 32]) -> Result<Public, TpmError> {
    const SEALED: u32 = FIXED | ADMIN_WITH_POLICY | NO_DA;
    let policy = [&[0, 32][..], policy].concat();
    parse(&[KEYEDHASH, SHA256, &SEALED.to_be_bytes(), &policy, NULL, EMPTY])
}

fn parse(parts: &[&[u8]]) -> Result<Public, TpmError> {
    Public::unmarshall(&parts.concat()).map_err(|error| TpmError::of("Tss2_MU_TPMT_PUBLIC_Unmarshal", error))
}

// TPMA_OBJECT
const FIXED: u32 = 1 << 1 | 1 << 4; // fixedTPM, fixedParent
const SENSITIVE_DATA_ORIGIN: u32 = 1 << 5;
const USER_WITH_AUTH: u32 = 1 << 6;
const ADMIN_WITH_POLICY: u32 = 1 << 7;
const NO_DA: u32 = 1 << 10;
const RESTRICTED: u32 = 1 << 16;
const DECRYPT: u32 = 1 << 17;
const SIGN: u32 = 1 << 18;

// TPM_ALG_ID and what belongs to it
const KEYEDHASH: &[u8] = &[0x00, 0x08];
const SHA256: &[u8] = &[0x00, 0x0b];
const NULL: &[u8] = &[0x00, 0x10];
const ECC: &[u8] = &[0x00, 0x23];
const ECDSA_SHA256: &[u8] = &[0x00, 0x18, 0x00, 0x0b];
const AES_128_CFB: &[u8] = &[0x00, 0x06, 0x00, 0x80, 0x00, 0x43];
const P256: &[u8] = &[0x00, 0x03];
const EMPTY: &[u8] = &[0x00, 0x00];

#[cfg(test)]
mod tests {
    use super::*;
    use tss_esapi::abstraction::{AsymmetricAlgorithmSelection, ek};
    use tss_esapi::interface_types::ecc::EccCurve;
    use tss_esapi::interface_types::key_bits::RsaKeyBits;
    use tss_esapi::traits::Marshall;

    #[test]
    fn the_endorsement_key_templates_are_the_librarys() {
        let algorithms = [
            (EkKind::Rsa2048, AsymmetricAlgorithmSelection::Rsa(RsaKeyBits::Rsa2048)),
            (EkKind::EccP256, AsymmetricAlgorithmSelection::Ecc(EccCurve::NistP256)),
            (EkKind::EccP384, AsymmetricAlgorithmSelection::Ecc(EccCurve::NistP384)),
        ];
        for (kind, algorithm) in algorithms {
            let theirs = ek::create_ek_public_from_default_template_2(algorithm, None).unwrap();
            assert_eq!(endorsement_key(kind).unwrap().marshall().unwrap(), theirs.marshall().unwrap());
        }
    }

    #[test]
    fn every_template_is_read_whole() {
        let policy = [7; 32];
        for template in [storage_root_key(), endorsement_key(EkKind::EccP384), attestation_key(), sealed(&policy)] {
            let template = template.unwrap();
            let bytes = template.marshall().unwrap();
            assert_eq!(Public::unmarshall(&bytes).unwrap(), template);
        }
        assert_eq!(sealed(&policy).unwrap().auth_policy().value(), policy);
    }
}
