//! Revocation lists that the root signed, and that are wrong in one thing.

use SnpCertificate::{Intermediate, Root};
use attestation::{CrlRule, CrlStatus, SnpCertificate, SnpError, SnpEvidence, UnixTime};

use crate::asn1::{integer, sequence};
use crate::soft::{ARK_SERIAL, ASK_SERIAL, Crl, KEY_USAGE, Soft};
use crate::soft_chain::other_pss;

fn with_crl(rule: CrlRule, change: impl FnOnce(&mut Crl)) -> Result<CrlStatus, SnpError> {
    let mut soft = Soft::milan();
    let mut crl = soft.crl();
    change(&mut crl);
    (soft.crls, soft.rule) = (vec![crl], rule);
    soft.verify().map(|claims| claims.crl())
}

const EITHER: [CrlRule; 2] = [CrlRule::Required, CrlRule::IfPresent];

#[test]
fn revocation_list_in_force_satisfies_either_rule() {
    let current = CrlStatus::Current { next_update: UnixTime(1_811_808_000) };
    for rule in EITHER {
        assert_eq!(with_crl(rule, |_| ()), Ok(current));
        // Others that the ARK revoked.
        assert_eq!(with_crl(rule, |crl| crl.revoked = vec![(0, vec![]), (1, vec![])]), Ok(current));
    }
}

#[test]
fn revoked_intermediate_or_root_is_refused_even_by_a_list_out_of_date() {
    for rule in EITHER {
        let revoked = with_crl(rule, |crl| crl.revoked = vec![(1, vec![]), (ASK_SERIAL, vec![])]);
        assert_eq!(revoked, Err(SnpError::Revoked(Intermediate)));
        let revoked = with_crl(rule, |crl| crl.revoked = vec![(ARK_SERIAL, vec![])]);
        assert_eq!(revoked, Err(SnpError::Revoked(Root)));
        let stale = with_crl(rule, |crl| {
            (crl.revoked, crl.next_update) = (vec![(ASK_SERIAL, vec![])], Some("260602000000Z"));
        });
        assert_eq!(stale, Err(SnpError::Revoked(Intermediate)));
    }
}

#[test]
fn dates_of_a_revocation_list_count_where_it_is_required() {
    let stale = |crl: &mut Crl| crl.next_update = Some("260602000000Z");
    let early = |crl: &mut Crl| crl.this_update = "260702000000Z";
    assert_eq!(with_crl(CrlRule::Required, stale), Err(SnpError::CrlStale));
    assert_eq!(with_crl(CrlRule::Required, early), Err(SnpError::CrlNotYetValid));
    assert_eq!(with_crl(CrlRule::IfPresent, stale), Ok(CrlStatus::OutOfDate));
    assert_eq!(with_crl(CrlRule::IfPresent, early), Ok(CrlStatus::OutOfDate));
    assert_eq!(Soft::milan().refusal(|soft| soft.rule = CrlRule::Required), SnpError::CrlMissing);
}

#[test]
fn revocation_list_must_be_a_whole_one_of_this_root() {
    for rule in EITHER {
        let refused = |change: &dyn Fn(&mut Crl)| with_crl(rule, change).unwrap_err();
        assert_eq!(refused(&|crl| crl.version = Some(0)), SnpError::CrlVersion);
        assert_eq!(refused(&|crl| crl.issuer.push('x')), SnpError::CrlIssuer);
        assert_eq!(refused(&|crl| crl.algorithm = other_pss(66)), SnpError::CrlPss);
        assert_eq!(refused(&|crl| crl.is_signed_by_ask = true), SnpError::CrlSignatureInvalid);
        assert_eq!(refused(&|crl| crl.next_update = None), SnpError::CrlNextUpdateMissing);
        // issuingDistributionPoint, deltaCRLIndicator, and one of an entry: certificateIssuer.
        assert_eq!(refused(&|crl| crl.extensions.push(("2.5.29.28", true, sequence(&[])))), SnpError::CrlExtension);
        assert_eq!(refused(&|crl| crl.extensions.push(("2.5.29.27", true, integer(&[1])))), SnpError::CrlExtension);
        let of_entry = || vec![("2.5.29.29", true, sequence(&[]))];
        assert_eq!(refused(&|crl| crl.revoked = vec![(1, of_entry())]), SnpError::CrlExtension);
    }
    let no_crl_sign = Soft::milan().refusal(|soft| {
        soft.crls = vec![soft.crl()];
        soft.ark.extension(KEY_USAGE).2 = vec![0x03, 0x02, 0x02, 0x04];
    });
    assert_eq!(no_crl_sign, SnpError::CrlIssuer);
}

#[test]
fn revocation_lists_are_bounded_and_every_one_is_checked() {
    let soft = Soft::milan();
    let good = soft.crl().sign();
    let signed = soft.evidence();
    let refused = |crls: Vec<Vec<u8>>| {
        let evidence = SnpEvidence { crls, ..signed.clone() };
        crate::vectors::verify_under(&evidence, &soft.anchors).map(|report| report.into_claims().crl())
    };
    assert!(refused(vec![good.clone(), good.clone()]).is_ok());
    assert_eq!(refused(vec![good.clone(); 3]), Err(SnpError::CrlsTooMany { found: 3 }));
    let found = 64 * 1024 + 1;
    assert_eq!(refused(vec![good.clone(), vec![0; found]]), Err(SnpError::CrlTooLarge { found }));
    assert_eq!(refused(vec![[&good[..], &[0]].concat()]), Err(SnpError::CrlMalformed));
    for at in (0..good.len()).step_by(5) {
        let mut changed = good.clone();
        changed[at] ^= 1;
        assert!(refused(vec![changed]).is_err(), "byte {at}");
    }
}
