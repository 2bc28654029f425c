//! What a key service gets wrong, and how long anyone waits for it.

use std::time::Duration;

use attestation::{CertificateError, CollateralError, CollateralKey, SnpCertificate, SnpError};
use tempfile::TempDir;
use vault_proto::collateral::{CollateralFailure, CollateralStore, FetchError, Limits};
use vault_tests::forge::amd::Product;
use vault_tests::forge::kds::{Fault, SoftKds};
use vault_tests::forge::platform::SoftPlatform;

use super::{bare, id, kds, now, quick, said, source, verify};

/// What becomes of evidence if this is wrong with every answer for the leaf.
fn leaf_fault(fault: Fault) -> (FetchError, usize) {
    let platform = SoftPlatform::new(Product::Milan);
    let kds = kds(&platform);
    kds.shelf().always.insert("SPL=".to_owned(), fault);
    let failure = source(None, &[&kds.url()], quick()).complete_waiting(bare(&platform)).unwrap_err();
    let of_leaf = kds.shelf().requests.iter().filter(|request| request.contains("SPL=")).count();
    (said(failure), of_leaf)
}

#[test]
fn busy_service_is_asked_again() {
    for fault in [
        Fault::Throttle { retry_after: None },
        Fault::Throttle { retry_after: Some(1) },
        Fault::Status(503),
        Fault::Truncate(10),
        Fault::Close,
    ] {
        let platform = SoftPlatform::new(Product::Milan);
        let kds = kds(&platform);
        kds.shelf().faults.extend([fault.clone(), fault.clone()]);
        let complete = source(None, &[&kds.url()], quick()).complete_waiting(bare(&platform)).unwrap();
        assert!(verify(&complete, Product::Milan).is_ok(), "{fault:?}");
        assert_eq!(kds.shelf().requests.len(), 5);
    }
}

#[test]
fn service_that_is_always_busy_is_given_up() {
    let (error, asked) = leaf_fault(Fault::Throttle { retry_after: None });
    assert_eq!(error, FetchError::Throttled { retry_after: None });
    assert_eq!((error.code(), asked), ("kds-throttled", 6));
    let (error, asked) = leaf_fault(Fault::Status(500));
    assert_eq!((error.clone(), error.code(), asked), (FetchError::Status { status: 500 }, "kds-status", 6));
}

#[test]
fn service_that_wants_silence_for_longer_than_there_is_time_is_not_asked_again() {
    let (error, asked) = leaf_fault(Fault::Throttle { retry_after: Some(3600) });
    assert_eq!((error, asked), (FetchError::Throttled { retry_after: Some(3600) }, 1));
}

#[test]
fn slow_service_is_given_up_in_bounded_time() {
    let platform = SoftPlatform::new(Product::Milan);
    let (dir, kds) = (TempDir::new().unwrap(), kds(&platform));
    // The chain is there, so that on a busy machine nothing but the leaf is too slow.
    source(Some(dir.path()), &[&kds.url()], quick()).complete_waiting(bare(&platform)).unwrap();
    let stored = CollateralStore::new(dir.path().to_owned()).path(&CollateralKey::Vcek(id(&platform)));
    std::fs::remove_file(stored).unwrap();
    kds.shelf().requests.clear();
    kds.shelf().always.insert("SPL=".to_owned(), Fault::Slow(Duration::from_secs(3)));
    let limits = Limits { request: Duration::from_millis(50), ..quick() };
    let failure = source(Some(dir.path()), &[&kds.url()], limits).complete_waiting(bare(&platform)).unwrap_err();
    let error = said(failure);
    assert_eq!((error.clone(), error.code()), (FetchError::TimedOut, "kds-timeout"));
    assert!((1..=6).contains(&kds.shelf().requests.len()));
}

#[test]
fn broken_answers_have_their_own_codes() {
    let (error, asked) = leaf_fault(Fault::Truncate(100));
    assert_eq!((error.code(), asked), ("kds-broken", 6));
    let (error, asked) = leaf_fault(Fault::Status(404));
    assert_eq!((error.clone(), error.code(), asked), (FetchError::NotFound, "kds-not-found", 1));
    let (error, asked) = leaf_fault(Fault::Body(vec![b'x'; 1 << 20]));
    assert_eq!((error.clone(), error.code(), asked), (FetchError::TooLarge, "kds-too-large", 1));
    let (error, asked) = leaf_fault(Fault::Body(b"<html>sign in".to_vec()));
    let malformed = SnpError::Certificate { certificate: SnpCertificate::Leaf, error: CertificateError::Malformed };
    assert_eq!((error, asked), (FetchError::Wrong(CollateralError::Certificate(malformed)), 1));
}

#[test]
fn certificate_of_something_else_is_refused() {
    let other = |change: fn(&mut SoftPlatform)| {
        let platform = SoftPlatform::new(Product::Milan);
        let other = platform.clone().with(change);
        let kds = kds(&platform);
        kds.shelf().always.insert("SPL=".to_owned(), Fault::Body(other.chain()[0].clone()));
        match said(source(None, &[&kds.url()], quick()).complete_waiting(bare(&platform)).unwrap_err()) {
            FetchError::Wrong(error) => (error, error.code()),
            other => panic!("{other:?}"),
        }
    };
    let chip = other(|it| it.chip_id[0] ^= 1);
    assert_eq!(chip, (CollateralError::VcekChip, "collateral-vcek-chip"));
    let tcb = other(|it| it.reported.snp -= 1);
    assert_eq!(tcb, (CollateralError::VcekTcb, "collateral-vcek-tcb"));
    let product = other(|it| *it = SoftPlatform::new(Product::Genoa));
    assert_eq!(product, (CollateralError::VcekProduct, "collateral-vcek-product"));
    let vlek = other(|it| it.vlek = Some("CN=cloud".to_owned()));
    assert_eq!(vlek, (CollateralError::NotVcek, "collateral-not-vcek"));
}

#[test]
fn certificate_that_nobody_signed_is_refused() {
    let platform = SoftPlatform::new(Product::Milan);
    let kds = kds(&platform);
    let mut leaf = platform.chain()[0].clone();
    *leaf.last_mut().unwrap() ^= 1;
    kds.shelf().always.insert("SPL=".to_owned(), Fault::Body(leaf));
    let error = said(source(None, &[&kds.url()], quick()).complete_waiting(bare(&platform)).unwrap_err());
    let invalid =
        SnpError::Certificate { certificate: SnpCertificate::Leaf, error: CertificateError::SignatureInvalid };
    assert_eq!(error, FetchError::Wrong(CollateralError::Certificate(invalid)));
}

#[test]
fn chain_of_something_else_is_refused() {
    let platform = SoftPlatform::new(Product::Milan);
    let refusal = |body: String| {
        let kds = kds(&platform);
        kds.shelf().always.insert("cert_chain".to_owned(), Fault::Body(body.into_bytes()));
        match said(source(None, &[&kds.url()], quick()).complete_waiting(bare(&platform)).unwrap_err()) {
            FetchError::Wrong(error) => error.code(),
            other => panic!("{other:?}"),
        }
    };
    let authorities = &platform.authorities;
    assert_eq!(refusal(super::Authorities::new(Product::Genoa).vcek_chain_pem()), "collateral-chain-other");
    assert_eq!(refusal(authorities.vlek_chain_pem()), "collateral-chain-other");
    assert_eq!(refusal("garbage".to_owned()), "collateral-chain-malformed");
    assert_eq!(refusal(authorities.vcek_chain_pem().repeat(2)), "collateral-chain-malformed");
}

#[test]
fn next_service_is_asked_where_the_first_fails() {
    let platform = SoftPlatform::new(Product::Milan);
    let (mirror, amd) = (SoftKds::start(Vec::new(), now()).unwrap(), kds(&platform));
    let complete = source(None, &[&mirror.url(), &amd.url()], quick()).complete_waiting(bare(&platform)).unwrap();
    assert!(verify(&complete, Product::Milan).is_ok());
    let gone = mirror.url();
    drop(mirror);
    let both = source(None, &[&gone, &amd.url()], quick());
    assert!(verify(&both.complete_waiting(bare(&platform)).unwrap(), Product::Milan).is_ok());
    let alone = source(None, &[&gone], quick()).complete_waiting(bare(&platform)).unwrap_err();
    assert_eq!(said(alone).code(), "kds-unreachable");
}

#[test]
fn failure_is_remembered_so_that_nobody_asks_again_at_once() {
    let platform = SoftPlatform::new(Product::Milan);
    let kds = SoftKds::start(Vec::new(), now()).unwrap();
    let source = source(None, &[&kds.url()], quick());
    let first = source.complete_waiting(bare(&platform)).unwrap_err();
    let asked = kds.shelf().requests.len();
    assert_eq!(source.complete_waiting(bare(&platform)), Err(first));
    assert_eq!(kds.shelf().requests.len(), asked);
}

#[test]
fn those_who_ask_at_once_are_answered_by_one_request() {
    let platform = SoftPlatform::new(Product::Milan);
    let kds = kds(&platform);
    // Long enough that all are waiting before the first is answered; the result does not depend on it.
    kds.shelf().always.insert("/vcek/".to_owned(), Fault::Slow(Duration::from_millis(200)));
    let source = source(None, &[&kds.url()], quick());
    let key = CollateralKey::Vcek(id(&platform));
    let start = std::sync::Barrier::new(16);
    std::thread::scope(|scope| {
        for _ in 0..16 {
            scope.spawn(|| {
                start.wait();
                assert!(source.complete_waiting(bare(&platform)).is_ok());
            });
        }
    });
    let requests = kds.shelf().requests.clone();
    assert_eq!(requests.iter().filter(|request| **request == key.url_path()).count(), 1, "{requests:?}");
    assert_eq!(requests.len(), 3, "{requests:?}");
}

#[test]
fn list_that_cannot_be_had_does_not_keep_evidence_from_being_sent() {
    let platform = SoftPlatform::new(Product::Milan);
    let kds = kds(&platform);
    kds.shelf().always.insert("/crl".to_owned(), Fault::Status(404));
    let complete = source(None, &[&kds.url()], quick()).complete_waiting(bare(&platform)).unwrap();
    // Whether that matters is for the policy to say.
    assert_eq!(verify(&complete, Product::Milan).err(), Some(SnpError::CrlMissing));
    let failure = CollateralFailure::Runtime;
    assert_eq!(failure.code(), "collateral-runtime");
}
