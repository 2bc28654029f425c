//! Quotes that were captured somewhere: what they say, and under which key they hold.

use attestation::{
    AttestationKey, AzureQuote, CertificateError, EndorsedTpm, PcrSelection, QuoteStatement, VerifyError, claimed_ek,
};

use crate::common::attest::Attest;
use crate::common::authority::{Authority, NOW};
use crate::common::tpm::SoftTpm;

const PCRS: [u32; 3] = [0, 7, 23];

fn quoted(tpm: &SoftTpm) -> (AttestationKey, AzureQuote, PcrSelection) {
    let quote = tpm.quote(&tpm.identity(&Authority::root("vendor"), &[]), &PCRS, b"nonce");
    let ak = AttestationKey::parse(&quote.identity.ak_public).unwrap();
    let quote = AzureQuote { attest: quote.attest, signature: quote.signature, pcrs: quote.pcrs };
    (ak, quote, PcrSelection::try_from(PCRS.as_slice()).unwrap())
}

#[test]
fn a_quote_is_read_field_by_field_whoever_signed_it() {
    let (_, quote, _) = quoted(&SoftTpm::ecc());
    let statement = QuoteStatement::parse(&quote.attest).unwrap();
    assert_eq!(statement.extra_data, b"nonce");
    assert_eq!(statement.sha256_pcrs(), Some(PCRS.as_slice()));
    assert_eq!((statement.reset_count, statement.restart_count), (7, 1));
    assert_eq!((statement.signer.len(), statement.pcr_digest.len()), (34, 32));
    let truncated = QuoteStatement::parse(&quote.attest[..quote.attest.len() - 1]);
    assert_eq!(truncated.unwrap_err().code(), "attest-malformed");
    let mut other = quote.attest;
    other[3] ^= 1;
    assert_eq!(QuoteStatement::parse(&other), Err(VerifyError::AttestMagic));
}

#[test]
fn pcrs_of_another_bank_or_of_two_are_not_those_of_sha256() {
    let of = |selections: &[(u16, [u8; 3])]| {
        let selections = selections.iter().map(|(bank, octets)| (*bank, octets.to_vec())).collect();
        let attest = Attest { selections, ..Attest::quote(b"nonce", &[]) };
        QuoteStatement::parse(&attest.bytes()).unwrap()
    };
    let sha1 = of(&[(4, [0b101, 0, 0x80])]);
    assert_eq!((sha1.banks[0].algorithm, sha1.banks[0].indices.as_slice()), (4, [0, 2, 23].as_slice()));
    assert_eq!(sha1.sha256_pcrs(), None);
    let two = of(&[(11, [1, 0, 0]), (4, [1, 0, 0])]);
    assert_eq!((two.banks.len(), two.sha256_pcrs()), (2, None));
    assert_eq!(of(&[]).sha256_pcrs(), None);
}

#[test]
fn a_quote_holds_under_its_own_key_for_its_own_challenge_and_values_alone() {
    for tpm in [SoftTpm::ecc(), SoftTpm::rsa()] {
        let (ak, quote, pcrs) = quoted(&tpm);
        let state = ak.verify_quote(&quote, b"nonce", &pcrs).unwrap();
        assert_eq!(state.pcrs.keys().copied().collect::<Vec<_>>(), PCRS);
        assert_eq!(ak.verify_quote(&quote, b"nonc", &pcrs), Err(VerifyError::ExtraDataMismatch));
        let fewer = PcrSelection::try_from([0, 7].as_slice()).unwrap();
        assert_eq!(ak.verify_quote(&quote, b"nonce", &fewer), Err(VerifyError::PcrSelectionMismatch));
        let mut other = quote.clone();
        other.pcrs[1].1[0] ^= 1;
        assert_eq!(ak.verify_quote(&other, b"nonce", &pcrs), Err(VerifyError::PcrDigestMismatch));
        other.pcrs.pop();
        assert_eq!(ak.verify_quote(&other, b"nonce", &pcrs), Err(VerifyError::PcrValuesMismatch));
    }
    let (_, quote, pcrs) = quoted(&SoftTpm::ecc());
    let (stranger, ..) = quoted(&SoftTpm::ecc());
    assert_eq!(stranger.verify_quote(&quote, b"nonce", &pcrs), Err(VerifyError::SignatureInvalid));
}

#[test]
fn the_platform_that_an_ek_certificate_claims_is_the_one_that_verifies() {
    let authority = Authority::root("vendor");
    let identity = SoftTpm::ecc().identity(&authority, &[]);
    let claimed = claimed_ek(&identity.ek_certificates[0]).unwrap();
    let anchors = attestation::TrustAnchors::built_in();
    let anchors = anchors.with(authority.anchor("vendor", attestation::Trust::Emulated)).unwrap();
    assert_eq!(EndorsedTpm::verify(&identity, &anchors, NOW).map(|tpm| tpm.ek().platform()), Ok(claimed));
    assert_eq!(claimed_ek(b"none"), Err(CertificateError::Malformed));
}
